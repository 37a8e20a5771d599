"""Items: equal answers, ties, pairs, fields of a row."""

from __future__ import annotations

import pytest

from instil.convert.item import Item, compared, number_of, ranked, rows_of, text_of, unread
from instil.errors import InstilError


def test_answers_are_ordered_by_place_and_equal_places_tie():
    item = ranked("p", [(7, "c", "z"), (-1, "a", "x"), (7, "d", ""), (0.5, "b", "y")])
    assert item == Item("p", ("a", "b", "c", "d"), ranks=(1, 2, 3, 3), policies=("x", "y", "z", ""))
    assert ranked("p", [(2, "b", ""), (1, "a", "")]) == Item("p", ("a", "b"))


def test_equal_answers_are_one_in_the_best_place_and_told():
    item = ranked("p", [(1, "a", "x"), (2, "b", "y"), (3, "a", "z")])
    assert item == Item("p", ("a", "b"), policies=("x", "y"))
    assert item.lost == ("answer equal to another",)
    alone = ranked("p", [(1, "a", ""), (2, "a", "")])
    assert (alone.kind, alone.policies) == ("response", ("",))


def test_the_kind_of_an_item():
    kinds = [Item("p"), Item("p", ("a",)), Item("p", ("a",), policies=("",)), Item("p", ("a", "b"))]
    assert [item.kind for item in kinds] == ["prompt", "demonstration", "response", "ranking"]


def test_the_pairs_of_a_ranking_with_a_tie():
    item = Item("p", ("a", "b", "c"), ranks=(1, 2, 2), policies=("x", "", ""), labeler="l")
    assert list(item.pairs()) == [
        Item("p", ("a", "b"), policies=("x", ""), labeler="l"),
        Item("p", ("a", "c"), policies=("x", ""), labeler="l"),
        Item("p", ("b", "c"), ranks=(1, 1), labeler="l"),
    ]


def test_two_equal_answers_are_no_comparison():
    with pytest.raises(InstilError, match="rejected: is the same as chosen"):
        compared("p", "a", " a ")


@pytest.mark.parametrize("value", ["1.5", 1.5])
def test_numbers_may_stand_in_text(value):
    assert number_of({"x": value}, "x") == 1.5


@pytest.mark.parametrize("value", ["", None, True, "one", "nan", "inf", [1], 10**400])
def test_what_is_no_number_is_named(value):
    with pytest.raises(InstilError, match=r"^a\[0\]\.x: (missing|got .*, expected a number)"):
        number_of({"x": value}, "x", "a[0].")


def test_fields_are_named_with_the_way_to_them():
    with pytest.raises(InstilError, match=r"^a\[0\]\.x: is empty"):
        text_of({"x": " "}, "x", "a[0].")
    with pytest.raises(InstilError, match=r"^a\[0\]\.x\[1\]: got 5, expected an object"):
        rows_of({"x": [{}, 5]}, "x", "a[0].")
    assert rows_of({"x": None}, "x") == []


def test_fields_that_nobody_reads_are_told_unless_empty():
    row = {"a": 1, "b": 0, "c": None, "d": "", "e": [], "f": {}, "g": [0]}
    assert unread(row, ("a",), "x.") == ("x.b", "x.g")
