"""MC1 and MC2 by hand, and the published file."""

from __future__ import annotations

import json
import math

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.truthfulqa_mc import grade, question, tasks

ROW = {
    "question": "What is it?",
    "mc1_targets": {"Right.": 1, "Wrong.": 0},
    "mc2_targets": {"Right.": 1, "Also right.": 1, "Wrong.": 0},
}


def item(row):
    number, text, choices, meta = question(1, "f:1", row)
    return Item(id=number, text=text, choices=choices, meta=meta)


def test_every_answer_is_scored_once():
    asked = item(ROW)
    assert asked.text == "Q: What is it?\nA:"
    assert asked.choices == (" Right.", " Wrong.", " Also right.")
    assert asked.meta == {
        "mc1": [(0, True), (1, False)],
        "mc2": [(0, True), (2, True), (1, False)],
    }


def test_mc1_compares_the_best_answer_with_the_false_ones():
    # "Also right." is not among the answers of MC1, so it neither helps nor harms
    answers = [Answer(logprobs=(-3.0, -2.0, -1.0)), Answer(logprobs=(-2.0, -3.0, -1.0))]
    assert [of["mc1"] for of in grade([item(ROW)] * 2, answers)] == [0.0, 1.0]


def test_mc2_is_the_share_of_probability_of_the_true_answers():
    # probabilities 0.1, 0.3, 0.4 of Right, Wrong, Also right: (0.1 + 0.4) / 0.8
    logprobs = tuple(math.log(p) for p in (0.1, 0.3, 0.4))
    assert grade([item(ROW)], [Answer(logprobs=logprobs)])[0]["mc2"] == pytest.approx(0.625)


def test_mc2_of_very_unlikely_answers_does_not_underflow():
    logprobs = (-1000.0, -1000.0 + math.log(3), -2000.0)
    assert grade([item(ROW)], [Answer(logprobs=logprobs)])[0]["mc2"] == pytest.approx(0.25)


def test_the_rows_of_the_hub_are_the_same():
    lists = {
        name: {"choices": list(of), "labels": list(of.values())}
        for name, of in ROW.items()
        if name != "question"
    }
    assert item({**ROW, **lists}) == item(ROW)


@pytest.mark.parametrize(
    "change",
    [{"mc1_targets": {"Right.": 1}}, {"mc2_targets": ["Right."]}, {"mc2_targets": {"a": 1}}],
    ids=["no false answer", "a list", "no false answer in mc2"],
)
def test_targets_that_cannot_be_graded_are_refused(change):
    with pytest.raises(InstilError, match=r'f:1: "mc._targets" is not what was published'):
        question(1, "f:1", {**ROW, **change})


def test_three_prompts(tmp_path):
    (tmp_path / "mc_task.json").write_text(json.dumps([ROW, ROW]))
    found = {task.setting: task for task in tasks(Folder(tmp_path), Options())}
    starts = {setting: task.items[0].prompt()[:12] for setting, task in found.items()}
    assert starts == {
        "qa": "Q: What is h",
        "instruction": "Interpret ea",
        "qa+instruction": "Interpret ea",
    }
    prompt = found["qa"].items[0].prompt()
    assert prompt.count("Q: ") == 7 and prompt.endswith("Spain.\n\nQ: What is it?\nA:")
    assert found["instruction"].items[0].prompt().count("Q: ") == 1


def test_without_a_file(tmp_path):
    with pytest.raises(Missing, match=r"mc_task.json"):
        tasks(Folder(tmp_path), Options())


def test_the_published_file(shared):
    found = tasks(Folder(shared / "data" / "evaluation"), Options())
    items = found[0].items
    assert len(items) == 817
    assert sum(len(item.choices) for item in items) == 6204
    assert all(sum(truth for _, truth in item.meta["mc1"]) == 1 for item in items)
    # with equal logprobs MC2 is the share of true answers; the mean over the file
    equal = [Answer(logprobs=(0.0,) * len(item.choices)) for item in items]
    shares = [sum(t for _, t in i.meta["mc2"]) / len(i.meta["mc2"]) for i in items]
    assert [of["mc2"] for of in grade(items, equal)] == pytest.approx(shares)
