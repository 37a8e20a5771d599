"""F1 and exact match, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.evals.text import best_f1, exact, normalise, token_f1


def test_case_and_punctuation_do_not_count():
    assert normalise("  The Lake, of Dorn. ") == ["the", "lake", "of", "dorn"]
    assert exact("Dorn.", ["dorn"]) == 1
    assert token_f1("not in the text.", "not in the text") == 1


def test_f1_by_hand():
    # shared: red, house; 3 + 3 words: 2 * 2 / 6
    assert token_f1("the red house", "a red house") == pytest.approx(2 / 3)
    # one of two equal words is shared: 2 * 1 / (2 + 1)
    assert token_f1("red red", "red") == pytest.approx(2 / 3)
    # precision 1/4 and recall 1: 2 * (1/4) * 1 / (1/4 + 1) = 0.4
    assert token_f1("She likes the figs", "figs") == pytest.approx(0.4)
    assert token_f1("rice", "figs") == 0


def test_f1_of_no_words():
    assert token_f1("", ".") == 1
    assert token_f1("", "figs") == 0
    assert token_f1("figs", "") == 0


def test_the_nearest_of_the_right_answers_counts():
    assert best_f1("red house", ["figs", "a red house", "red"]) == pytest.approx(4 / 5)


def test_exact_wants_every_word_in_order():
    assert exact("Nama o dorrik karo.", ["rice", "nama o dorrik karo"]) == 1
    assert exact("o dorrik nama karo", ["nama o dorrik karo"]) == 0
    assert exact("in Dorn", ["Dorn"]) == 0


words = st.lists(st.sampled_from(["figs", "rice", "red", "lake"])).map(" ".join)


@given(words, words)
def test_f1_is_a_share_and_does_not_tell_the_sides_apart(one, two):
    assert token_f1(one, two) == token_f1(two, one)
    assert 0 <= token_f1(one, two) <= 1
    assert token_f1(one, one) == 1
