"""Passages and questions as prompts, worked out by hand."""

from __future__ import annotations

import msgspec
import pytest

from instil.errors import InstilError
from instil.evals.reading import Layout, Passage, Question, decode, one_line, part, tasks
from instil.evals.source import hub_rows
from instil.evals.task import Options

LAYOUT = Layout(head="Read.\n\n", title="T:", passage="P:", question="Q:", answer="A:")


def passage(key: str, *texts: str, source: str = "") -> Passage:
    questions = [
        Question(id=f"{key}-{text}", text=f"{text}?", answer=f"{text}!", references=(f"{text}!",))
        for text in texts
    ]
    return Passage(text=f"About {key}.", source=source or key, title=key, questions=questions)


def grade(items, answers):
    return [{"f1": 0.0, "exact": 0.0} for _ in items]


def test_a_question_stands_below_those_before_it_and_their_answers():
    parts = part([passage("lake", "who", "where")], [passage("hill", "when")], 4, 0, "x")
    zero, few = tasks("x", LAYOUT, parts, Options(), grade)
    assert (zero.setting, few.setting) == ("zero-shot", "few-shot")
    assert zero.items[1].prompt() == (
        "Read.\n\nT: lake\n\nP: About lake.\n\nQ: who?\n\nA: who!\n\nQ: where?\n\nA:"
    )
    assert few.items[0].prompt() == (
        "Read.\n\nT: hill\n\nP: About hill.\n\nQ: when?\n\nA: when!\n\n"
        "T: lake\n\nP: About lake.\n\nQ: who?\n\nA:"
    )
    assert few.items[0].shots == ("T: hill\n\nP: About hill.\n\nQ: when?\n\nA: when!\n\n",)
    assert zero.items[0].meta == {"references": ("who!",)}
    assert zero.first_line and zero.temperature == 0 and not zero.chat and zero.tax


def test_articles_that_are_shown_are_not_asked():
    file = [
        passage("a1", "p", source="a"),
        passage("b1", "q", source="b"),
        passage("a2", "r", source="a"),
        passage("c1", "s", source="c"),
    ]
    parts = part(file, None, 2, 0, "x")
    assert [p.title for p in parts.shown] == ["a1", "b1"]
    assert [p.title for p in parts.asked] == ["c1"]
    assert "first 2 sources" in tasks("x", LAYOUT, parts, Options(), grade)[0].note


def test_with_a_training_file_all_is_asked():
    parts = part([passage("a", "p")], [passage("b", *"qrstu"), passage("b", "v")], 2, 2, "x")
    assert [p.title for p in parts.asked] == ["a"]
    # of five questions two, evenly spaced: 0 * 5 // 2 and 1 * 5 // 2
    assert [[q.text for q in p.questions] for p in parts.shown] == [["q?", "s?"]]
    assert tasks("x", LAYOUT, parts, Options(), grade)[0].note == ""


def test_a_limit_takes_questions_from_all_over():
    parts = part([passage("a", "p", "q"), passage("b", "r", "s")], [], 2, 0, "x")
    zero, few = tasks("x", LAYOUT, parts, Options(limit=2), grade)
    assert [item.id for item in zero.items] == ["a-p", "b-r"]
    assert [item.id for item in few.items] == ["a-p", "b-r"]


def test_mistakes_in_files_are_named():
    with pytest.raises(InstilError, match=r"x: the file has 1 sources .* 4 are shown"):
        part([passage("a", "p")], None, 4, 0, "x")
    with pytest.raises(InstilError, match="x: its file has no questions"):
        tasks("x", LAYOUT, part([], None, 4, 0, "x"), Options(), grade)
    twice = part([passage("a", "p"), passage("a", "p")], [], 4, 0, "x")
    with pytest.raises(InstilError, match="has 'a-p' twice"):
        tasks("x", LAYOUT, twice, Options(), grade)


class Wanted(msgspec.Struct):
    data: list[int]


def test_a_file_of_another_format_is_named(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text('{"data": [1, 2]}')
    assert decode(path, Wanted).data == [1, 2]
    path.write_text('{"data": [3]}', encoding="utf-8-sig")  # as some editors save it
    assert decode(path, Wanted).data == [3]
    path.write_text('{"data": [1, "2"]}')
    with pytest.raises(InstilError, match=r"dev\.json: is not the published file: .*data\[1\]"):
        decode(path, Wanted)
    path.write_text('{"data": [1')
    with pytest.raises(InstilError, match=r"dev\.json: is not the published file"):
        decode(path, Wanted)
    with pytest.raises(InstilError, match=r"none\.json: no such file"):
        decode(tmp_path / "none.json", Wanted)


def test_rows_of_a_hub_have_their_fields():
    assert list(hub_rows([{"a": 1, "b": 2}], "x/y", "a")) == [{"a": 1, "b": 2}]
    with pytest.raises(InstilError, match=r"x/y:1: no field 'c' \(there are: a, b\)"):
        list(hub_rows([{"a": 1, "b": 2}], "x/y", "c"))


def test_one_line():
    assert one_line(" a\n b\t c ") == "a b c"
