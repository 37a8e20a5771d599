"""The language guess on sentences whose language is known."""

from __future__ import annotations

import pytest

from instil.intake.language import is_ascii, language


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("Write a short poem about the sea.", "en"),
        ("Explain the moon landing to a 6 year old in a few sentences.", "en"),
        ("Schreibe ein kurzes Gedicht über das Meer und die Berge im Winter.", "de"),
        ("Écris un petit poème sur la mer, les montagnes et les nuages du soir.", "fr"),
        ("Escribe un poema corto sobre el mar y las montañas de mi pueblo natal.", "es"),
        ("Escreva um poema curto sobre o mar e as montanhas da minha terra em julho.", "pt"),
        ("Scrivi una breve poesia sul mare e su una montagna che non è lontana da qui.", "it"),
        ("Schrijf een kort gedicht over de zee en de bergen van het noorden.", "nl"),
        ("Skriv en kort dikt om havet och bergen som jag ser på vintern.", "sv"),
        ("Napisz krótki wiersz o morzu i o tym, że nie ma w nim ryb, co jest smutne.", "pl"),
        ("Napiš krátkou báseň o moři a horách, které jsou v zimě na severu a je tam klid.", "cs"),
        ("Deniz ve dağlar hakkında bana kısa bir şiir yaz, ama çok uzun olmasın bu.", "tr"),
        ("Tulis puisi pendek tentang laut dan gunung yang indah di desa saya ini.", "id"),
        ("Hãy viết một bài thơ ngắn về biển và những ngọn núi trong làng của tôi.", "vi"),
        (
            "Napiši kratku pjesmu koja govori o moru, planinama, oblacima te večernjem svjetlu",
            "other",
        ),
        ("Напиши короткое стихотворение о море.", "cyrillic"),
        ("写一首关于大海的短诗。", "zh"),
        ("海についての短い詩を書いてください。", "ja"),
        ("바다에 대한 짧은 시를 써 주세요.", "ko"),
        ("Γράψε ένα σύντομο ποίημα για τη θάλασσα.", "el"),
        ("اكتب قصيدة قصيرة عن البحر", "arabic"),
        ("समुद्र पर एक छोटी कविता लिखो।", "devanagari"),
        ("ጥሩ ግጥም ጻፍልኝ", "other"),
        ("2 + 2 =", "unknown"),
        ("Hallo!", "unknown"),
    ],
)
def test_known_sentences(text, guess):
    assert language(text) == guess


def test_typographic_quotes_count_as_ascii():
    assert is_ascii("“Yes” – he said…")
    assert not is_ascii("naïve")


def test_real_prompts_are_english(shared):
    from instil.jsonl import iter_objects

    rows = iter_objects(shared / "data" / "instructions" / "dolly_3k.jsonl.gz")
    guesses = [language(row["instruction"]) for _, row in rows]
    assert guesses.count("en") > 0.9 * len(guesses)
    assert len(guesses) - guesses.count("en") - guesses.count("unknown") < 0.03 * len(guesses)
