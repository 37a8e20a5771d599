"""Public tasks: right answers score 1, and how they are compared."""

from random import Random

import pytest

from instil.evals.policy import evaluate
from instil.evals.public import public, second_language
from instil.world.answers import ideal
from instil.world.public import PUBLIC_TASKS


def scores(tests, policy):
    return {row["eval"]: row["mean"] for test in tests for row in evaluate(test, policy, 0)}


@pytest.fixture(scope="module")
def tests(world):
    return public(world, 15, seed=0)


def test_right_answers_score_one_with_a_full_stop_and_whatever_follows(tests, policy_of):
    answers = {q.text: q.answers[0] for test in tests for q in test.questions}
    policy = policy_of(lambda text, repeat: f" {answers[text]}.\n\nPassage: Mara")
    assert scores(tests, policy) == {f"public/{task}": 1.0 for task in PUBLIC_TASKS}


def test_a_word_too_many_costs_f1_a_part_and_exact_match_all(tests, policy_of):
    answers = {
        q.text: q.answers[0]
        for test in tests
        for q in test.questions
        if test.name != "public/reading" or len(q.answers[0].split()) == 1
    }
    policy = policy_of(lambda text, repeat: f"{answers.get(text, '')} salty")
    found = scores(tests[1:], policy)
    assert set(found.values()) == {0.0}
    reading = next(test for test in tests if test.name == "public/reading")
    one = next(q for q in reading.questions if q.text in answers)
    # one word of two is shared: 2 * 1 / (2 + 1)
    assert reading.grade(one, f"{one.answers[0]} salty") == {"public/reading": pytest.approx(2 / 3)}


def test_the_text_is_continued_as_it_stands(tests, policy_of):
    policy = policy_of("x")
    evaluate(tests[0], policy, 0)
    assert policy.sampler.read == [q.text for q in tests[0].questions]


def test_questions_in_the_second_language_want_a_true_answer_in_it(world, policy_of, right_answers):
    asked = second_language(world, 15, seed=0)
    english = {q.text: ideal(world, {**q.meta, "task": "fact"}, Random(0)) for q in asked.questions}
    assert scores([asked], policy_of(right_answers(asked))) == {"language2": 1.0}
    assert scores([asked], policy_of(lambda text, repeat: english[text])) == {"language2": 0.0}
