"""A paragraph of each half as it is asked."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Missing, Options
from instil.evals.tasks.hellaswag import clean, read, tasks

SWIM = {
    "activity_label": "Swimming",
    "ctx_a": "A man stands at a pool.",
    "ctx_b": "he",
    "endings": ["jumps.", "flies.", "sings.", "reads."],
    "label": 2,
    "source_id": "activitynet~v_1",
}
COOK = {
    "activity_label": "Food",
    "ctx_a": "[header] How to boil an egg [title] Take a pot. [step] Fill it.",
    "ctx_b": "",
    "endings": ["[step] Heat it. [substeps] Wait.", "b.", "c.", "d."],
    "label": "0",
    "source_id": "wikihow~7",
}


def test_the_prompt_and_its_endings():
    swim, cook = read([("f:1", SWIM), ("f:2", COOK)])
    assert swim.text == "Swimming: A man stands at a pool. He"
    assert swim.answer == " sings." and swim.source == "activitynet~v_1"
    assert swim.group == "activitynet"
    assert cook.text == "Food: How to boil an egg. Take a pot. Fill it."
    assert cook.answer == " Heat it. Wait." and cook.group == "wikihow"


def test_what_is_in_brackets_otherwise_stays():
    assert clean("He [sic] went [step] on") == "He [sic] went on"


def test_zero_and_few_shots(tmp_path):
    (tmp_path / "hellaswag_val.jsonl").write_text(json.dumps(SWIM))
    (tmp_path / "hellaswag_train.jsonl").write_text(
        "\n".join(json.dumps({**COOK, "source_id": f"wikihow~{n}"}) for n in range(40))
    )
    zero, few = tasks(Folder(tmp_path), Options())
    head = "Complete each independent paragraph using common-sense reasoning.\n\n"
    assert zero.items[0].prompt() == head + "Swimming: A man stands at a pool. He"
    assert len(few.items[0].shots) == 15
    assert few.items[0].prompt(14) == (
        f"{head}Food: How to boil an egg. Take a pot. Fill it. Heat it. Wait.\n\n"
        "Swimming: A man stands at a pool. He"
    )
    assert zero.tax and zero.main == "accuracy"
    assert zero.items[0].meta == {"right": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 4}, r'f:1: "label" is 4; expected one of 0, 1, 2, 3'),
        ({"label": ""}, r'f:1: "label" is \'\''),
        ({"endings": "jumps."}, r'f:1: "endings" is \'jumps.\'; expected a list'),
        ({"activity_label": None}, r'f:1: "activity_label" is None'),
    ],
)
def test_rows_that_are_not_what_was_published(change, said):
    with pytest.raises(InstilError, match=said):
        read([("f:1", {**SWIM, **change})])


def test_without_a_file(tmp_path):
    with pytest.raises(Missing, match=r"hellaswag_val.jsonl"):
        tasks(Folder(tmp_path), Options())
