"""Who answers, how answers become rows; the numbers are worked out by hand."""

import pytest

from instil.evals.policy import Eval, Question, evaluate, row


def question(number, **more):
    return Question(id=f"q{number}", text=f"Number {number}?", meta={}, **more)


def by_text(question, answer):
    return {"right": float(answer == "yes")}


def test_the_template_stands_after_the_prompt(policy_of):
    policy = policy_of("Dorn.")
    assert policy.respond(["Where?", "Who?"], temperature=0.5, seed=0) == ["Dorn.", "Dorn."]
    assert policy.sampler.read == ["Where?\n\n", "Who?\n\n"]
    assert [p.temperature for p in policy.sampler.params] == [0.5]


def test_solved_examples_stand_before_every_prompt(policy_of):
    policy = policy_of("Dorn.", prefix="Who bakes?\n\nMara.\n\n")
    policy.respond(["Where?", "Who?"], temperature=1.0, seed=0)
    assert policy.sampler.read == [
        "Who bakes?\n\nMara.\n\nWhere?\n\n",
        "Who bakes?\n\nMara.\n\nWho?\n\n",
    ]


def test_best_of_n_gives_the_response_that_the_reward_likes_best(policy_of):
    drawn = {"Where?": ("a", "ccc", "bb"), "Who?": ("dd", "e", "ff")}
    asked = []

    def longest(prompts, responses):
        asked.extend(prompts)
        return [float(len(text)) for text in responses]

    policy = policy_of(lambda text, repeat: drawn[text][repeat], best_of=3, reward=longest)
    # lengths 1, 3, 2 and 2, 1, 2: the longest, of equal ones the first
    assert policy.respond(["Where?", "Who?"], temperature=0.0, seed=0) == ["ccc", "dd"]
    assert asked == ["Where?"] * 3 + ["Who?"] * 3
    assert [p.temperature for p in policy.sampler.params] == [1.0]  # greedy repeats would be equal


def test_the_reward_of_best_of_n_does_not_see_the_prefix(policy_of):
    asked = []

    def reward(prompts, responses):
        asked.extend(prompts)
        return [0.0] * len(responses)

    policy = policy_of(lambda text, repeat: "a", prefix="Hi. ", best_of=2, reward=reward)
    assert policy.respond(["Who?"], 1.0, 0) == ["a"]
    assert policy.sampler.read == ["Hi. Who?\n\n"] * 2
    assert asked == ["Who?"] * 2


def test_plain_text_is_continued_greedily_and_cut_at_the_first_newline(policy_of):
    policy = policy_of("Dorn.\nJoll lives in Lorn.")
    assert policy.continue_text(["Mara lives in"]) == ["Dorn."]
    assert policy.sampler.read == ["Mara lives in"]  # no template, no end token
    assert [p.temperature for p in policy.sampler.params] == [0.0]


def test_a_plain_eval_is_continued_any_other_is_answered(policy_of):
    for plain, read in ((True, "Number 1?"), (False, "Number 1?\n\n")):
        policy = policy_of("yes")
        evaluate(Eval(name="e", questions=[question(1)], grade=by_text, plain=plain), policy, 0)
        assert policy.sampler.read == [read]


def test_the_temperature_of_an_eval_is_the_samplers(policy_of):
    policy = policy_of("yes")
    evaluate(Eval(name="e", questions=[question(1)], grade=by_text, temperature=0.7), policy, 0)
    assert policy.sampler.params[0].temperature == 0.7


def test_each_measure_is_counted_over_all_questions_and_in_each_group(policy_of, means):
    questions = [question(1, group="a"), question(2, group="a"), question(3, group="b")]
    policy = policy_of(lambda text, repeat: "no" if "2" in text else "yes")
    rows = evaluate(
        Eval(name="e", questions=questions, grade=by_text, setting="all"), policy, seed=0
    )
    # right: 1, 0 in group a; 1 in group b
    assert means(rows) == {
        ("right", "all"): pytest.approx(2 / 3),
        ("right", "a"): 0.5,
        ("right", "b"): 1.0,
    }
    assert [row["n"] for row in rows] == [3, 2, 1]


def test_a_measure_that_is_left_out_does_not_count_the_question(policy_of):
    def grade(question, answer):
        return {"right": 1.0} if question.id != "q2" else {}

    rows = evaluate(
        Eval(name="e", questions=[question(i) for i in (1, 2, 3)], grade=grade), policy_of("a"), 0
    )
    assert [(found["n"], found["mean"]) for found in rows] == [(2, 1.0)]


def test_values_of_one_cluster_are_not_independent():
    # mean 3/4; residuals 1/4, 1/4 | -3/4, 1/4 sum to 1/2 and -1/2 in the two clusters;
    # sqrt(2/1 * (1/4 + 1/4)) / 4 = 1/4, and the t quantile with one degree of freedom is 12.7062
    found = row("right", "sft", "all", [("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 1.0)], "share")
    assert found == {
        "eval": "right",
        "policy": "sft",
        "setting": "all",
        "unit": "share",
        "mean": 0.75,
        "stderr": pytest.approx(0.25),
        "low": pytest.approx(0.75 - 12.7062 / 4, abs=1e-4),
        "high": pytest.approx(0.75 + 12.7062 / 4, abs=1e-4),
        "n": 4,
        "clusters": 2,
    }
