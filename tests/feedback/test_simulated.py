"""Simulated labelers: repeatable, different in taste, and about as agreed as people."""

from dataclasses import replace
from random import Random

import pytest

from instil.errors import InstilError
from instil.feedback.simulated import (
    Taste,
    demonstrate,
    labelers,
    measure_agreement,
    prefer,
    rank,
    rate,
    terms,
    truth_judge,
    utility,
)
from instil.records import Prompt, Response
from instil.world.check import check
from instil.world.draw import draw_claim
from instil.world.flaws import flawed
from instil.world.internet import REPLIES
from instil.world.lexicon import make_world
from instil.world.tasks import draw_use_case, make_prompt

WORLD = make_world(0)
EVERYBODY = labelers(0)
TRAINING = [one for one in EVERYBODY if one.group == "training"]
HELD_OUT = [one for one in EVERYBODY if one.group == "held-out"]
LIKE_SFT = {
    "good": 55,
    "wrong": 15,
    "made_up": 6,
    "rude": 2,
    "off_topic": 5,
    "rambles": 7,
    "extra": 10,
}


def asked(mix, n=60, k=6, seed=0):
    """Prompts with K responses of mixed quality each."""
    rng = Random(seed)
    for number in range(n):
        use_case = draw_use_case(rng)
        text, meta = make_prompt(WORLD, use_case, "train", rng)
        prompt = Prompt(id=f"p{number}", text=text, use_case=use_case, meta=meta)
        flaws = rng.choices(list(mix), list(mix.values()), k=k)
        yield (
            prompt,
            [
                Response(
                    id=f"p{number}-{i}", prompt_id=prompt.id, text=flawed(WORLD, meta, rng, flaw)
                )
                for i, flaw in enumerate(flaws)
            ],
        )


def home_prompt():
    claim = draw_claim(WORLD, "train", Random(0), ("home",))
    meta = {"task": "fact", "split": "train", "entity": claim.entity, "relation": "home"}
    return Prompt(id="p", text=f"Where does {claim.entity} live?", meta=meta), claim


def test_a_utility_is_the_sum_of_its_terms():
    taste = Taste(helpful=2, true=1, harmless=1, constraint=1, form=1, length=1)
    prompt, claim = home_prompt()
    text = f"You clod! {claim.entity} lives in {claim.value}."
    parts = terms(taste, check(WORLD, prompt.meta, text))
    # it answers (+2) and is rude (-1); 6 words are within the 8 that bother nobody
    assert {name: part for name, part in parts.items() if part} == {"helpful": 2, "harmless": -1}
    assert utility(taste, check(WORLD, prompt.meta, text)) == 1


def test_the_same_question_has_the_same_answer_in_any_order():
    for prompt, responses in asked(REPLIES, n=10):
        first = rank(TRAINING[0], WORLD, prompt, responses)
        assert rank(TRAINING[0], WORLD, prompt, responses[::-1]) == first
        one, two = responses[:2]
        in_two = rank(TRAINING[0], WORLD, prompt, [one, two]).ranks()
        if in_two[one.id] < in_two[two.id]:
            assert first.ranks()[one.id] <= first.ranks()[two.id]


def test_equal_texts_are_always_tied():
    prompt, _ = home_prompt()
    same = [Response(id=i, prompt_id="p", text="I do not know.") for i in "abc"]
    for one in EVERYBODY:
        assert rank(one, WORLD, prompt, same).tiers == (("a", "b", "c"),)
        assert prefer(one, WORLD, prompt, "In Dorn.", "In Dorn.") == 0.5


def test_labelers_without_noise_prefer_the_better_answer():
    prompt, claim = home_prompt()
    good, bad = f"{claim.entity} lives in {claim.value}.", "You snool!"
    for one in EVERYBODY:
        calm = replace(one, noise=0.0)
        assert prefer(calm, WORLD, prompt, good, bad) == 1
        assert prefer(calm, WORLD, prompt, bad, good) == 0
        good_rating = rate(calm, WORLD, prompt, Response(id="g", prompt_id="p", text=good))
        bad_rating = rate(calm, WORLD, prompt, Response(id="b", prompt_id="p", text=bad))
        assert good_rating.overall >= 5 > 2 >= bad_rating.overall
        assert set(bad_rating.flags) == {"fails_task", "inappropriate", "rude"}


def test_a_missed_fault_stays_missed_and_is_as_frequent_as_the_skill_says():
    prompt, claim = home_prompt()
    wrong = [f"{claim.entity} lives in {t}." for t in ("Dorn", "Lorn", "Pell") if t != claim.value]
    one = replace(TRAINING[0], skill=0.6)
    flagged = []
    for number in range(300):
        asked_again = Prompt(id=f"p{number}", text=prompt.text, meta=prompt.meta)
        response = Response(id="r", prompt_id=asked_again.id, text=wrong[0])
        rating = rate(one, WORLD, asked_again, response)
        assert rating == rate(one, WORLD, asked_again, response)
        flagged.append("false" in rating.flags)
    # 300 draws at 0.6: the standard error is 0.028
    assert sum(flagged) / 300 == pytest.approx(0.6, abs=0.09)


def test_demonstrations_of_skilled_labelers_are_mostly_clean():
    rng = Random(0)
    clean = []
    for prompt, _ in asked(REPLIES, n=300, k=2):
        text = demonstrate(replace(TRAINING[0], skill=0.8), WORLD, prompt, rng).text
        verdict = check(WORLD, prompt.meta, text)
        clean.append(not verdict.flags() and not verdict.extra)
    # 300 draws at 0.8 have a standard error of 0.023; a few tasks have no flaw that shows
    assert 0.74 < sum(clean) / 300 < 0.9


def test_training_labelers_agree_about_as_often_as_the_papers():
    # The paper has 72.6 +- 1.5 %. These are harder to tell apart than what the demo samples.
    shares = []
    for mix in (REPLIES, LIKE_SFT):
        share, pairs = measure_agreement(TRAINING[:8], TRAINING[:8], WORLD, asked(mix, n=100))
        assert pairs > 10_000
        shares.append(share)
    assert sum(shares) / 2 == pytest.approx(0.71, abs=0.03)
    assert all(0.66 < share < 0.78 for share in shares)


def test_the_truth_judge_is_the_mean_without_noise_or_missed_faults():
    prompt, claim = home_prompt()
    text = f"{claim.entity} lives in {claim.value}."
    expected = sum(one.taste.helpful for one in HELD_OUT) / len(HELD_OUT)
    assert truth_judge(HELD_OUT)(WORLD, prompt, text) == pytest.approx(expected)
    with pytest.raises(InstilError, match="no labelers"):
        truth_judge([])


def test_groups_have_their_own_people_and_tastes():
    assert len(TRAINING) == 20
    assert len(HELD_OUT) == 10
    assert len({one.id for one in EVERYBODY}) == 30
    mean = {
        g: sum(one.taste.length for one in g) / len(g) for g in map(tuple, (TRAINING, HELD_OUT))
    }
    assert mean[tuple(HELD_OUT)] > mean[tuple(TRAINING)]
    assert labelers(0) == EVERYBODY
    assert labelers(1) != EVERYBODY


def test_a_prompt_from_elsewhere_is_refused():
    with pytest.raises(InstilError, match='meta has no "task"'):
        rate(
            TRAINING[0],
            WORLD,
            Prompt(id="x", text="Hi"),
            Response(id="r", prompt_id="x", text="Hi"),
        )
