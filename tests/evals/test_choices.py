"""Rows, solved examples, accuracy and entropy, by hand."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.choices import (
    Hub,
    Solved,
    accuracy,
    entropy,
    label_of,
    load,
    split,
    text_of,
    zero_and_few,
)
from instil.evals.source import Folder
from instil.evals.task import Answer, Item


class FakeHub(Folder):
    """A folder with one data set on a hub."""

    def hub(self, name, split, config=""):
        return (
            [{"a": "x"}, {"a": "y"}] if (name, split, config) == ("who/what", "train", "") else []
        )


def solved(number, source="", **more):
    text, answer = f"Text: {number}\n\nLabel:", " yes"
    choices = (" yes", " no")
    return Solved(
        id=str(number),
        text=text,
        answer=answer,
        choices=choices,
        source=source or str(number),
        **more,
    )


def test_rows_of_a_file_come_before_those_of_a_hub(tmp_path):
    hub = Hub("who/what", "train")
    assert load(Folder(tmp_path), ("a.jsonl",), hub, "a") is None
    assert load(FakeHub(tmp_path), ("a.jsonl",), hub, "a") == [
        ("who/what train:1", {"a": "x"}),
        ("who/what train:2", {"a": "y"}),
    ]
    (tmp_path / "b.jsonl").write_text('{"a": "z"}\n')
    assert load(FakeHub(tmp_path), ("a.jsonl", "b.jsonl"), hub, "a") == [
        (f"{tmp_path / 'b.jsonl'}:1", {"a": "z"})
    ]


def test_a_changed_column_is_named_with_its_place(tmp_path):
    with pytest.raises(InstilError, match=r"who/what train:1: no field 'b' \(there are: a\)"):
        load(FakeHub(tmp_path), (), Hub("who/what", "train"), "a", "b")
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 1}\n')
    with pytest.raises(InstilError, match=r"a.jsonl:2: no field 'b'"):
        load(Folder(tmp_path), ("a.jsonl",), Hub("", ""), "a", "b")


def test_an_empty_data_set_is_an_error(tmp_path):
    with pytest.raises(InstilError, match="who/else x train: has no rows"):
        load(FakeHub(tmp_path), (), Hub("who/else", "train", "x"), "a")


def test_text_and_labels_are_checked():
    assert text_of("f:1", {"a": " b "}, "a") == "b"
    with pytest.raises(InstilError, match='f:1: "a" is 3; expected text'):
        text_of("f:1", {"a": 3}, "a")
    assert label_of("f:1", {"a": 1}, "a", {"yes": 1, "1": 1}) == 1
    with pytest.raises(InstilError, match='f:1: "a" is -1; expected one of yes, no'):
        label_of("f:1", {"a": -1}, "a", {"yes": 1, "no": 0})


def test_examples_come_from_the_training_file_and_all_is_asked():
    asked, train = [solved(n) for n in range(4)], [solved(f"t{n}") for n in range(10)]
    shown, left, note = split(asked, train, 5)
    assert [one.id for one in shown] == ["t0", "t2", "t4", "t6", "t8"]
    assert left == asked
    assert note == "5 solved examples from the training file"


def test_examples_from_the_evaluation_file_are_not_asked_nor_what_shares_their_source():
    # two items a passage; the first passage of every four is shown: 0 and 4
    asked = [solved(n, source=f"p{n // 2}") for n in range(8)]
    shown, left, note = split(asked, None, 2)
    assert [one.id for one in shown] == ["0", "4"]
    assert [one.id for one in left] == ["2", "3", "6", "7"]
    assert "2 solved examples from the evaluation file" in note and "4 items" in note


def test_only_right_answers_are_examples():
    asked = [solved(n, example=n % 2 == 1) for n in range(8)]
    assert [one.id for one in split(asked, None, 2)[0]] == ["1", "5"]
    assert [one.id for one in split([], asked, 4)[0]] == ["1", "3", "5", "7"]


def test_one_item_is_not_enough_for_an_example():
    assert [task.setting for task in zero_and_few("x", [solved(1)], None, shots=2, limit=0)] == [
        "zero-shot"
    ]


def test_the_few_shot_prompt_shows_the_examples_as_the_question_is_asked():
    asked = [solved(n) for n in range(4)]
    zero, few = zero_and_few("x", asked, None, head="Label:\n\n", shots=1, limit=2)
    assert zero.items[0].prompt() == "Label:\n\nText: 0\n\nLabel:"
    assert few.items[0].prompt() == "Label:\n\nText: 0\n\nLabel: yes\n\nText: 1\n\nLabel:"
    assert [len(task.items) for task in (zero, few)] == [2, 2]
    assert zero.note == "" and few.note != ""


def test_accuracy_is_by_the_mean_per_token_and_by_the_sum():
    # per token -1 and -0.9: the second; in total -1 and -2.7: the first
    item = Item(id="1", text="t", choices=(" a", " b c d"), meta={"right": 1})
    answer = Answer(logprobs=(-1.0, -2.7), tokens=(1, 3))
    assert accuracy([item], [answer]) == [{"accuracy": 1.0, "accuracy_total": 0.0}]


def test_entropy_in_bits():
    assert entropy([0.5, 0.5]) == 1
    assert entropy([1.0, 0.0]) == 0
    # -(1/4) log2(1/4) - (3/4) log2(3/4) = 0.5 + 0.75 * 0.4150375
    assert entropy([0.25, 0.75]) == pytest.approx(0.8112781)


def test_items_survive_json():
    item = solved(1, meta={"noun": "cat"}).item()
    assert json.loads(json.dumps(dict(item.meta))) == {"noun": "cat", "right": 0}
