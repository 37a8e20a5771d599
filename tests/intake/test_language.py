"""The language guess on sentences whose language is known."""

from __future__ import annotations

import pytest

from instil.intake.language import is_ascii, language


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("Write a short poem about the sea.", "en"),
        ("Explain the moon landing to a 6 year old in a few sentences.", "en"),
        ("Schreibe ein kurzes Gedicht über das Meer und die Berge im Winter.", "other"),
        ("Écris un petit poème sur la mer, les montagnes et les nuages du soir.", "other"),
        ("Escribe un poema corto sobre el mar y las montañas de mi pueblo natal.", "other"),
        ("Напиши короткое стихотворение о море.", "other"),
        ("写一首关于大海的短诗。", "other"),
        ("2 + 2 =", "unknown"),
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
    assert guesses.count("other") < 0.03 * len(guesses)
