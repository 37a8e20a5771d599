"""French to English: three kinds of files and the hub, and BLEU of a whole task."""

from __future__ import annotations

import pytest
import sacrebleu

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Missing, Options
from instil.evals.tasks.translation import HEAD, segments, tasks

SGM = """<srcset setid="x" srclang="any">
<doc sysid="ref" docid="d1" genre="n" origlang="fr">
<hl><seg id="1">Un &amp; deux</seg></hl>
<p>
<seg id="2"> Bonjour
 toi </seg>
</p>
</doc>
<DOC docid="d2"><seg id="1">Fin</seg></DOC>
"""


def write(folder, name, n):
    (folder / f"{name}.fr").write_text("".join(f"chat {i}\n" for i in range(n)))
    (folder / f"{name}.en").write_text("".join(f"cat {i}\n" for i in range(n)))


def test_the_prompt(tmp_path):
    write(tmp_path, "newsdiscusstest2015", 2)
    write(tmp_path, "newsdiscussdev2015", 20)
    zero, few = tasks(Folder(tmp_path), Options())
    assert HEAD == "Translate the following sentences from French into English.\n\n"
    assert zero.items[1].prompt() == HEAD + "French: chat 1\n\nEnglish:"
    assert len(zero.items) == 2 and len(few.items[0].shots) == 15
    assert few.items[0].shots[14] == "French: chat 14\n\nEnglish: cat 14\n\n"


def test_without_other_files_the_first_are_shown_and_not_asked(tmp_path):
    write(tmp_path, "wmt15.fr-en", 18)
    zero, few = tasks(Folder(tmp_path), Options())
    assert [item.text[8:15] for item in zero.items] == ["chat 15", "chat 16", "chat 17"]
    assert "the first 15 documents are shown" in few.note
    write(tmp_path, "wmt15.fr-en", 15)
    with pytest.raises(InstilError, match="all of the 15 sentences are shown"):
        tasks(Folder(tmp_path), Options())


def test_sgm_names_documents(tmp_path):
    path = tmp_path / "newsdiscusstest2015-fren-src.fr.sgm"
    path.write_text(SGM)
    assert segments(path) == [("d1", "Un & deux"), ("d1", "Bonjour toi"), ("d2", "Fin")]
    (tmp_path / "newsdiscusstest2015-fren-ref.en.sgm").write_text(SGM)
    write(tmp_path, "newsdiscussdev2015", 1)
    zero, _ = tasks(Folder(tmp_path), Options())
    assert [item.source for item in zero.items] == ["d1", "d1", "d2"]


def test_a_table_and_the_hub(tmp_path):
    (tmp_path / "wmt15.fr-en.tsv").write_text("fr\ten\nchat\tcat\nchien\tdog\n")
    (tmp_path / "newsdiscussdev2015.tsv").write_text("fr\ten\nun\tone\n")
    zero, few = tasks(Folder(tmp_path), Options())
    assert zero.items[1].text == "French: chien\n\nEnglish:"
    assert few.items[1].shots == ("French: un\n\nEnglish: one\n\n",)

    class Hub(Folder):
        def hub(self, name, split, config=""):
            assert (name, config) == ("wmt/wmt15", "fr-en")
            return [{"translation": {"fr": f"{split} chat", "en": "cat"}}]

    (tmp_path / "none").mkdir()
    zero, few = tasks(Hub(tmp_path / "none"), Options())
    assert few.items[0].prompt() == (
        HEAD + "French: validation chat\n\nEnglish: cat\n\nFrench: test chat\n\nEnglish:"
    )


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(Missing, match=r"newsdiscusstest2015-fren-src\.fr\.sgm"):
        tasks(Folder(tmp_path), Options())
    write(tmp_path, "newsdiscusstest2015", 3)
    (tmp_path / "newsdiscusstest2015.en").write_text("one\n")
    with pytest.raises(InstilError, match=r"newsdiscusstest2015\.en: 1 segments, but .*\.fr has 3"):
        tasks(Folder(tmp_path), Options())
    (tmp_path / "newsdiscusstest2015.fr").write_bytes(b"caf\xe9\n")
    with pytest.raises(InstilError, match=r"newsdiscusstest2015\.fr: byte 3 is not UTF-8"):
        tasks(Folder(tmp_path), Options())


def test_a_line_separator_inside_a_line_is_none(tmp_path):
    path = tmp_path / "x.fr"
    path.write_text("un\u2028deux\n\ntrois\n")
    assert segments(path) == [("1", "un deux"), ("2", ""), ("3", "trois")]


def test_bleu_of_a_task(tmp_path):
    write(tmp_path, "newsdiscusstest2015", 12)
    write(tmp_path, "newsdiscussdev2015", 1)
    zero, _ = tasks(Folder(tmp_path), Options())
    said = [Answer(text=f"cat {i}" if i % 2 else f"the cat {i} sat") for i in range(12)]
    found = zero.total(zero.items, said)["bleu"]
    references = [f"cat {i}" for i in range(12)]
    whole = sacrebleu.corpus_bleu([answer.text for answer in said], [references])
    assert found.mean == pytest.approx(whole.score)
    assert (found.n, found.clusters) == (12, 12)
    assert zero.grade(zero.items, said) == [{}] * 12
