"""evals/task.py: the nouns check themselves, and a choice is read the right way round."""

from __future__ import annotations

import math

import pytest

from instil.errors import InstilError
from instil.evals.task import Answer, Item, Task, each


def task(**settings: object) -> Task:
    grade = each(lambda item, answer: {"right": float(answer.text == item.meta["answer"])})
    plain = {"name": "t", "setting": "s", "grade": grade, "main": "right"}
    return Task(**plain | settings)  # type: ignore[arg-type]


def test_a_prompt_loses_its_first_shots_first() -> None:
    item = Item(id="a", head="Answer.\n", shots=("one\n", "two\n"), text="three")
    assert item.prompt() == "Answer.\none\ntwo\nthree"
    assert item.prompt(1) == "Answer.\ntwo\nthree"
    assert item.prompt(2) == "Answer.\nthree"


def test_the_best_choice_has_the_highest_logprob_per_token() -> None:
    # -6 / 3 = -2 a token beats -4 / 1 = -4 and -5 / 2 = -2.5, though -4 is the highest sum; the
    # paper's "lowest" would take the second
    answer = Answer(logprobs=(-6.0, -4.0, -5.0), tokens=(3, 1, 2))
    assert answer.best() == 0
    assert Answer(logprobs=(-2.0, -2.0), tokens=(1, 1)).best() == 0


def test_probabilities_are_of_whole_choices() -> None:
    # e^-1 and e^-1 / 3, whatever the number of tokens
    answer = Answer(logprobs=(-1.0, -1.0 - math.log(3)), tokens=(9, 1))
    assert answer.probabilities() == pytest.approx([0.75, 0.25])
    far = Answer(logprobs=(-4000.0, -4000.0), tokens=(1, 1))  # does not underflow
    assert far.probabilities() == [0.5, 0.5]


def test_each_grades_one_by_one() -> None:
    items = [Item(id=x, text="q", meta={"answer": x}) for x in "ab"]
    grade = task(items=items, max_tokens=3).grade
    assert list(grade(items, [Answer(text="a"), Answer(text="a")])) == [
        {"right": 1.0},
        {"right": 0.0},
    ]


def test_what_makes_no_sense_is_refused() -> None:
    one = Item(id="a", text="q")
    for wrong, said in (
        ({"items": [one]}, "choices, or the task max_tokens"),
        ({"items": [Item(id="a", text="q", choices=(" x",))], "max_tokens": 3}, "choices, or"),
    ):
        with pytest.raises(ValueError, match=said):
            task(**wrong)


def test_a_file_without_rows_or_with_one_row_twice_is_an_error_of_the_reader() -> None:
    one = Item(id="a", text="q")
    for items, said in (([], "has no rows"), ([one, one], "has 'a' twice")):
        with pytest.raises(InstilError, match=rf"t \(s\): its data file {said}"):
            task(items=items, max_tokens=3)


def test_a_measure_may_have_a_unit_of_its_own() -> None:
    made = task(items=[Item(id="a", text="q")], max_tokens=3, units={"f1": "points"})
    assert (made.unit_of("right"), made.unit_of("f1")) == ("share", "points")
