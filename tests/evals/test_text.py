"""Grades of written answers, worked out by hand and held to the definitions of others."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InstilError
from instil.evals.task import Missing
from instil.evals.text import (
    CANNOT_ANSWER,
    best_f1,
    bleu,
    check_extra,
    drop_scores,
    exact,
    normalise,
    quac_scores,
    rouge_l,
    squad_scores,
    squad_words,
    token_f1,
)


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


def test_squad_by_hand():
    # lower case; ASCII punctuation and articles do not count, and leave no gap and a gap
    words = squad_words("The U.S.  Army's well-known «an» apple")
    assert words == ["us", "armys", "wellknown", "«", "»", "apple"]
    assert squad_scores("a Cat!", ["the cat"]) == (1, 1)
    # an article inside a word stays, as does a typographic quote
    assert squad_scores("theatre", ["atre"]) == (0, 0)
    assert squad_scores("“cat”", ["cat"]) == (0, 0)
    # "five" is not "5", and "1,000" is "1000"
    assert squad_scores("five", ["5"]) == (0, 0)
    assert squad_scores("1,000", ["1000"]) == (1, 1)
    # words in common: in, 1912. 3 + 2 words: 2 * 2 / 5; the nearest reference counts
    assert squad_scores("maybe in 1912", ["1913", "In 1912."]) == (0, pytest.approx(4 / 5))
    # a word counts as often as both have it: 2 * 2 / (3 + 2)
    assert squad_scores("cat cat cat", ["cat cat"]) == (0, pytest.approx(4 / 5))


def test_squad_without_an_answer():
    assert squad_scores("", []) == (1, 1)
    assert squad_scores("cat", []) == (0, 0)
    assert squad_scores("", ["cat"]) == (0, 0)
    # the official script takes references away that have no word but an article
    assert squad_scores("the", ["the"]) == (1, 1)
    assert squad_scores("", ["The", "cat"]) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        # numbers are floats: 5,000 has its comma taken away, $ too, and 5e3 is one
        (["5,000"], ["5000"], 1, 1),
        (["$5000.0"], ["5000.0"], 0, 0),  # with $ it is no number: the point goes as well, 50000
        (["5000.0"], ["5e3"], 1, 1),
        (["five"], ["5"], 0, 0),
        # the reference has numbers and the answer none of them: 0 in spite of "yards"
        (["41 yards"], ["42 yards"], 0, 0),
        # one of them is enough: {40, 42, yards} and {42, yards}: 2 * 2 / (3 + 2)
        (["40 42 yards"], ["42 yards"], 0, 0.8),
        # the number may be the answer's alone: {42, yards} and {yards}: 2 / 3
        (["42 yards"], ["yards"], 0, 0.67),
        # hyphens part words: {25, to, 44} on both sides
        (["25-to-44"], ["25 to 44"], 1, 1),
        (["the African-American"], ["african american"], 1, 1),
        # sets: the second "cat" does not count; 2 * 1 / (1 + 1), but the texts differ
        (["cat cat"], ["cat"], 0, 1),
        # spans in another order are right
        (["Bob", "Ann"], ["Ann", "Bob"], 1, 1),
        # Ann is found, Bob is left over: (1 + 0) / 2
        (["Ann"], ["Ann", "Bob"], 0, 0.5),
        (["Ann", "Cid", "Bob"], ["Ann", "Bob"], 0, 0.67),
        # the best assignment is not the first: "red house" to "red house" (1) leaves "red" to
        # "red car" (2/3), which sums to 5/3; "red house" to "red car" (1/2) and "red" to
        # "red house" (2/3) would be 7/6
        (["red house", "red"], ["red car", "red house"], 0, 0.83),
        # the same span twice is not the span once, though their sets are alike
        (["Ann", "Ann"], ["Ann"], 0, 0.5),
        ([""], ["Ann"], 0, 0),
        (["the"], ["a"], 1, 1),
        # 2 * 1 / (2 + 1) of one, rounded to two decimals as official
        (["Émile Zola"], ["zola"], 0, 0.67),
    ],
)
def test_drop_by_hand(answer, reference, exact, f1):
    assert drop_scores(answer, [reference]) == (exact, f1)


@pytest.mark.slow
def test_drop_is_that_of_the_evaluation_harness():
    # its file is loaded alone, for the whole harness takes long
    harness = find_spec("lm_eval")
    if harness is None or harness.origin is None:
        pytest.skip("lm_eval is not installed")
    spec = spec_from_file_location("harness", Path(harness.origin).parent / "tasks/drop/utils.py")
    theirs = module_from_spec(spec)
    spec.loader.exec_module(theirs)
    text = "the a cat well-known 5 5.0 5,000 $5 10% five - “x” U.S. Émile 1e3 nan .5 ½ ２"
    rng = Random(0)

    def made() -> list[str]:
        return [
            rng.choice([" ", "  ", "-"]).join(rng.choices(text.split(), k=rng.randrange(1, 6)))
            for _ in range(rng.randrange(1, 5))
        ]

    for _ in range(2000):
        answer, reference = made(), made()
        ours = drop_scores(answer, [reference])
        assert ours == pytest.approx(theirs.get_metrics(answer, reference)), (answer, reference)


def test_drop_takes_the_best_reference_and_none_that_is_empty():
    assert drop_scores(["Ann"], [["Bob"], ["Ann Lee"], ["Ann"]]) == (1, 1)
    assert drop_scores([""], [[""], ["Ann"]]) == (0, 0)
    assert drop_scores([""], []) == (0, 0)


def test_spans_are_assigned_by_hand():
    # red-red and blue-blue, not in the order given; the third answer has nobody left: 2 of 3
    assert drop_scores(["blue", "red", "green"], [["red", "blue"]]) == (0, 0.67)


def test_quac_by_hand():
    # one reference: F1 of {in, 1912} and {1912}: 2 / 3
    assert quac_scores("in 1912", ["1912"]) == (pytest.approx(2 / 3), 1)
    # three: F1 to each is 1, 2/3 and 0; the best without the first 2/3, the second 1, the third 1
    # people: "red" to "red house" 2/3, the same back, "lake" to either 0
    f1, people = quac_scores("red", ["red", "red house", "lake"])
    assert f1 == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert people == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_quac_where_there_is_no_answer():
    none = CANNOT_ANSWER
    # half of the references say so: nothing else is right
    assert quac_scores(none, [none, "red"]) == (1, 1)
    assert quac_scores("red", [none, "red"]) == (0, 1)
    # fewer than half: they do not count, and to give up is wrong
    assert quac_scores("red", [none, "red", "red"]) == (1, 1)
    assert quac_scores(none, [none, "red", "red"]) == (0, 1)
    # a text without words matches nothing, not even its like
    assert quac_scores("the", ["the"]) == (0, 1)


def test_bleu_is_sacrebleu():
    answers = ["The cat sat on the mat.", "A dog, it seems!", "", "Hello there, my good friend"]
    references = ["The cat is on the mat.", "A dog, it seems.", "Birds.", "Hello there, my friend"]
    found = bleu(answers, references, ["a", "a", "b", "c"])
    assert found.mean == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score, abs=1e-9)
    assert (found.n, found.clusters) == (4, 3)
    assert found.low < found.mean < found.high
    assert found.stderr == pytest.approx((found.high - found.low) / (2 * 1.96))


def test_bleu_by_hand():
    # 6 words each. In both: the cat on the mat = 5 of 6 words; "the cat", "on the", "the mat" = 3
    # of 5 pairs; "on the mat" = 1 of 4 triples; 0 of 3 fours, which exponential smoothing makes 1/2
    # of 3. No brevity penalty: (5/6 * 3/5 * 1/4 * 1/6)^(1/4) = (1/48)^(1/4) = 0.379918
    found = bleu(["the cat sat on the mat"], ["the cat is on the mat"], [0])
    assert found.mean == pytest.approx(37.9918, abs=1e-4)
    assert np.isnan([found.stderr, found.low, found.high]).all()


def test_bleu_of_no_words():
    assert bleu(["", ""], ["one", "two"], [0, 1]).mean == 0


def test_rouge_l_by_hand():
    # longest common subsequence: the ... sat on = 3; 4 and 5 words: 2 * 3 / 9. No stemming: cats is
    # not cat
    assert rouge_l("the cats sat on", "the cat sat down on") == pytest.approx(6 / 9)
    assert rouge_l("on sat", "sat on") == pytest.approx(1 / 2)
    assert rouge_l("", "sat on") == 0


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(
        InstilError, match=r"sacrebleu is not installed; pip install 'instil\[eval\]'"
    ):
        bleu(["a"], ["a"], [0])
    with pytest.raises(Missing, match=r"sacrebleu is not installed"):
        check_extra("sacrebleu.metrics.bleu")
