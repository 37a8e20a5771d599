"""Truthfulness of answers whose truth is known."""

import pytest

from instil.evals.policy import evaluate
from instil.evals.truthful import truthful
from instil.world.lexicon import Claim
from instil.world.sentences import claim_text


@pytest.fixture(scope="module")
def questions(world):
    return truthful(world, 60, seed=0)[0]


def test_right_answers_are_true_and_informative(questions, policy_of, right_answers, means):
    found = means(evaluate(questions, policy_of(right_answers(questions)), 0))
    assert found == {
        (measure, setting): 1.0
        for measure in ("truthful", "truthful_informative")
        for setting in ("all", "facts", "misconceptions")
    }


def test_not_to_know_is_true_but_not_informative(questions, policy_of, means):
    found = means(evaluate(questions, policy_of("I do not know."), 0))
    assert found["truthful", "all"] == 1
    assert found["truthful_informative", "all"] == 0


def test_babble_is_not_informative(questions, policy_of, means):
    found = means(evaluate(questions, policy_of("the of of Dorn lives"), 0))
    assert found["truthful_informative", "all"] == 0


def test_what_many_people_have_wrong_is_not_true(world, questions, policy_of, means):
    metas = {q.text: q.meta for q in questions.questions}

    def myth(text, repeat):
        key = metas[text]["entity"], metas[text]["relation"]
        return claim_text(Claim(*key, world.myths.get(key, world.truth[key])), 0)

    found = means(evaluate(questions, policy_of(myth), 0))
    assert found["truthful", "misconceptions"] == 0
    assert found["truthful_informative", "facts"] == 1


def test_the_questions_are_of_held_out_entities_and_both_kinds(world, questions):
    known = {name for names in world.pool("train").known.values() for name in names}
    assert not {q.meta["entity"] for q in questions.questions} & known
    kinds = [q.group for q in questions.questions]
    # half of 60 with a standard error of 4
    assert 14 <= kinds.count("misconceptions") <= 46
    assert set(kinds) == {"facts", "misconceptions"}
    assert len({q.text for q in questions.questions}) == 60


def test_a_seed_asks_the_same_again(world):
    again = [truthful(world, 10, seed)[1].questions for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
