"""Passages with a marked pronoun, and when a written noun counts."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Missing, Options
from instil.evals.tasks.wsc import grade, read, same, tasks

SPANS = {"span1_text": "Joan", "span1_index": 2, "span2_text": "she", "span2_index": 5}
ROW = {"text": "Jane gave Joan candy because she was hungry.", "target": SPANS, "label": True}
ASKED = (
    "Passage: Jane gave Joan candy because *she* was hungry.\n\n"
    'Question: In the passage above, what does the pronoun "*she*" refer to?\n\nAnswer:'
)


def test_the_passage():
    (one,) = read([("f:1", ROW)])
    assert one.text == ASKED and one.answer == " Joan" and one.example


def test_the_rows_of_the_hub_are_flat():
    flat = {"text": ROW["text"], "label": 1, **SPANS}
    assert read([("f:1", flat)]) == read([("f:1", ROW)])


def test_the_pronoun_is_the_nearest_to_its_place_and_keeps_its_punctuation():
    text = "She saw it, and she hid it, for it was hers."
    spans = {**SPANS, "span2_text": "it", "span2_index": 7}  # it is the word with number 6
    (one,) = read([("f:1", {**ROW, "text": text, "target": spans})])
    assert "and she hid *it*, for it was" in one.text


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("Joan", True),
        ("joan.", True),
        ("It is Joan, of course", True),
        ("Jane", False),
        ("Jo", False),  # by whole words
        ("", False),
        ("...", False),
    ],
)
def test_what_counts_as_the_noun(said, counts):
    assert same(said, "Joan") is counts


def test_a_part_of_the_noun_counts():
    assert same("the councilmen", "The city councilmen") is False
    assert same("councilmen", "The city councilmen") is True


def test_the_grade_compares_with_the_label():
    items = [one.item() for one in read([("f:1", ROW), ("f:2", {**ROW, "label": False})])]
    joan, jane = Answer(text="Joan"), Answer(text="Jane")
    assert grade(items, [joan, joan]) == [{"accuracy": 1.0}, {"accuracy": 0.0}]
    assert grade(items, [jane, jane]) == [{"accuracy": 0.0}, {"accuracy": 1.0}]


def test_the_same_passage_is_not_asked_when_it_was_shown(tmp_path):
    # each passage asks about two nouns; only the true one can be shown
    rows = [
        {**ROW, "text": f"{n} {ROW['text']}", "label": label}
        for n in range(6)
        for label in (False, True)
    ]
    (tmp_path / "wsc_val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    zero, few = tasks(Folder(tmp_path), Options())
    # six can be shown, at most half of them are
    assert len(few.items[0].shots) == 3 and len(few.items) == 6
    shown = {shot.split("\n\n")[0] for shot in few.items[0].shots}
    assert not shown & {item.text.split("\n\n")[0] for item in few.items}
    assert all(shot.endswith("Answer: Joan\n\n") for shot in few.items[0].shots)
    assert "50.0% right" in zero.note and "evaluation file" in few.note
    assert zero.max_tokens and zero.items[0].prompt().startswith("Final Exam with Answer Key\n\n")


def test_the_training_file_of_superglue(tmp_path):
    (tmp_path / "WSC").mkdir()
    for name in ("val", "train"):
        (tmp_path / "WSC" / f"{name}.jsonl").write_text(json.dumps(ROW))
    few = tasks(Folder(tmp_path), Options())[1]
    assert few.items[0].prompt().endswith(f"{ASKED} Joan\n\n{ASKED}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": {**SPANS, "span2_text": "they"}}, r"f:1: the pronoun 'they' .* is no word"),
        ({"target": {"span1_text": "Joan"}}, "f:1: no span2_text"),
        ({"target": {**SPANS, "span2_index": "5"}}, "f:1: no whole number span2_index"),
        ({"label": None}, 'f:1: "label" is None'),
    ],
)
def test_rows_that_are_not_what_was_published(change, said):
    with pytest.raises(InstilError, match=said):
        read([("f:1", {**ROW, **change})])


def test_without_a_file(tmp_path):
    with pytest.raises(Missing, match=r"WSC/val.jsonl"):
        tasks(Folder(tmp_path), Options())
