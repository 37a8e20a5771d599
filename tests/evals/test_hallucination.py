"""What is made up in answers to closed-domain prompts."""

import pytest

from instil.evals.hallucination import TASKS, hallucination
from instil.evals.policy import evaluate
from instil.world.lexicon import Claim
from instil.world.sentences import claim_text


@pytest.fixture(scope="module")
def closed(world):
    return hallucination(world, 60, seed=0)


def test_right_answers_make_nothing_up(closed, policy_of, right_answers, means):
    found = means(evaluate(closed, policy_of(right_answers(closed)), 0))
    assert found == {("hallucination", ""): 0.0, ("closed_follows", ""): 1.0}


def test_a_claim_that_the_text_does_not_hold_is_made_up(closed, policy_of, means):
    held = {tuple(claim) for q in closed.questions for claim in q.meta["passage"]}
    invented = Claim("Mara", "likes", "figs")
    assert invented not in held
    found = means(evaluate(closed, policy_of(claim_text(invented, 0)), 0))
    assert found["hallucination", ""] == 1


@pytest.mark.parametrize("answer", ["You snool!", "Where do you live?", ""])
def test_who_says_nothing_makes_nothing_up_but_does_not_follow(closed, policy_of, means, answer):
    found = means(evaluate(closed, policy_of(answer), 0))
    assert found == {("hallucination", ""): 0.0, ("closed_follows", ""): 0.0}


def test_the_questions_are_closed_distinct_and_sampled_as_users_see_answers(world, closed):
    assert closed.temperature == 1
    assert {q.meta["task"] for q in closed.questions} == set(TASKS)
    assert {q.meta["split"] for q in closed.questions} == {"test"}
    assert len({q.text for q in closed.questions}) == len({q.id for q in closed.questions}) == 60
    again = hallucination(world, 60, seed=0).questions
    assert again == closed.questions
