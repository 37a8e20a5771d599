"""The question as the paper asks it."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Missing, Options
from instil.evals.tasks.rte import read, tasks

ROW = {"premise": "It rains.", "hypothesis": "The road is wet.", "label": "not_entailment"}
ASKED = (
    "Passage: It rains.\n\n"
    "Question: From this passage can one reasonably conclude that The road is wet?\n\nAnswer:"
)


def test_the_question():
    (one,) = read([("f:1", ROW)])
    assert one.text == ASKED and one.answer == " No" and one.choices == (" Yes", " No")


def test_the_numbers_of_the_hub_mean_the_same():
    assert [read([("f:1", {**ROW, "label": n})])[0].answer for n in (0, 1)] == [" Yes", " No"]


def test_without_a_training_file_examples_are_left_out(tmp_path):
    rows = [{**ROW, "premise": f"It rains {n}."} for n in range(40)]
    (tmp_path / "rte_val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    zero, few = tasks(Folder(tmp_path), Options())
    assert len(zero.items) == 40 and len(few.items) == 25 and len(few.items[0].shots) == 15
    assert not {item.text for item in few.items} & {shot[:-6] for shot in few.items[0].shots}
    assert "evaluation file" in few.note


def test_a_test_file_without_labels(tmp_path):
    with pytest.raises(InstilError, match=r'f:1: "label" is -1; .* use the validation file'):
        read([("f:1", {**ROW, "label": -1})])
    with pytest.raises(Missing, match=r"RTE/val.jsonl"):
        tasks(Folder(tmp_path), Options())
