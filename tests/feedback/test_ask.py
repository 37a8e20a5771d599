"""Who is asked what: K responses, labelers drawn by prompt, agreement worked out by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from instil.feedback import ask
from instil.feedback.simulated import labelers
from instil.records import Prompt, Ranking, Response
from instil.world.draw import draw_claim
from instil.world.flaws import flawed
from instil.world.lexicon import make_world
from instil.world.sentences import claim_text
from instil.world.tasks import make_prompt

WORLD = make_world(0)
TRAINING = [one for one in labelers(0) if one.group == "training"]


def prompts(n=12):
    rng = Random(0)
    made = [make_prompt(WORLD, "open_qa", "train", rng) for _ in range(n)]
    return [Prompt(id=f"p{i}", text=text, meta=meta) for i, (text, meta) in enumerate(made)]


def responses_to(asked):
    rng = Random(1)
    return {
        prompt.id: [
            Response(
                id=f"{prompt.id}-{i}",
                prompt_id=prompt.id,
                text=flawed(WORLD, prompt.meta, rng, rng.choice(("good", "wrong", "rude"))),
            )
            for i in range(ask.how_many(prompt.id, 0))
        ]
        for prompt in asked
    }


def ranking(prompt, labeler, *tiers):
    return Ranking(prompt_id=prompt, labeler_id=labeler, tiers=tuple(tuple(t) for t in tiers))


def test_k_is_four_to_nine_each_about_as_often():
    counts = Counter(ask.how_many(f"p{i}", seed=0) for i in range(1200))
    assert set(counts) == {4, 5, 6, 7, 8, 9}
    # 200 of each are expected, with a standard error of 13
    assert all(150 < count < 250 for count in counts.values())
    assert ask.how_many("p1", 0) == ask.how_many("p1", 0)
    assert [ask.how_many(f"p{i}", 0) for i in range(9)] != [
        ask.how_many(f"p{i}", 1) for i in range(9)
    ]


def test_each_prompt_gets_one_demonstration_whatever_else_is_asked():
    asked = prompts()
    found = ask.demonstrations(WORLD, TRAINING, asked, seed=0)
    assert [one.prompt_id for one in found] == [prompt.id for prompt in asked]
    assert {one.labeler_id for one in found} <= {one.id for one in TRAINING}
    assert len({one.labeler_id for one in found}) > 4
    assert ask.demonstrations(WORLD, TRAINING, asked[::-1][:3], seed=0) == found[::-1][:3]
    assert ask.demonstrations(WORLD, TRAINING, asked, seed=1) != found


def test_overlapping_labelers_rank_and_rate_all_responses():
    asked = prompts()
    shown = responses_to(asked)
    ranked, rated = ask.rankings(WORLD, TRAINING, asked, shown, overlap=3, seed=0)
    assert len(ranked) == 3 * len(asked)
    assert len({(one.prompt_id, one.labeler_id) for one in ranked}) == len(ranked)
    for one in ranked:
        assert sorted(one.response_ids()) == sorted(r.id for r in shown[one.prompt_id])
        assert 4 <= len(one.response_ids()) <= 9
    pairs = {(one.labeler_id, i) for one in ranked for i in one.response_ids()}
    assert {(one.labeler_id, one.response_id) for one in rated} == pairs
    assert len(rated) == len(pairs)


def test_the_labelers_of_a_prompt_do_not_depend_on_the_other_prompts():
    asked = prompts()
    shown = responses_to(asked)
    ranked, _ = ask.rankings(WORLD, TRAINING, asked, shown, 2, seed=0)
    last, _ = ask.rankings(WORLD, TRAINING, asked[-1:], shown, 2, seed=0)
    assert last == ranked[-2:]


def test_agreement_by_hand():
    # a > b > c and a > c > b: of the pairs ab, ac, bc the last is ordered differently
    two = [ranking("p", "x", "a", "b", "c"), ranking("p", "y", "a", "c", "b")]
    found = ask.agreement_of(two)
    assert (found.mean, found.n, found.clusters) == (pytest.approx(2 / 3), 3, 1)
    # x and y tie b and c: only ab and ac are left
    tied = [ranking("p", "x", "a", "bc"), ranking("p", "y", "a", "c", "b")]
    assert (ask.agreement_of(tied).mean, ask.agreement_of(tied).n) == (1.0, 2)


def test_agreement_between_groups_by_hand():
    ours = [
        ranking("p", "x", "a", "b", "c"),
        ranking("q", "x", "d", "e"),
        ranking("r", "x", "f", "g"),  # nobody of the others ranked it
    ]
    theirs = [
        ranking("p", "y", "a", "c", "b"),  # ab and ac alike, bc not
        ranking("p", "z", "bc", "a"),  # ab and ac not, bc is a tie
        ranking("q", "y", "d", "e"),  # alike
    ]
    found = ask.between(ours, theirs)
    assert (found.mean, found.n, found.clusters) == (pytest.approx(3 / 6), 6, 2)
    assert ask.between(theirs, ours).mean == found.mean


def test_the_ceiling_by_hand():
    claim = draw_claim(WORLD, "train", Random(0), ("home",))
    meta = {"task": "fact", "split": "train", "entity": claim.entity, "relation": "home"}
    prompt = Prompt(id="p", text="Where?", meta=meta)
    texts = {"good": claim_text(claim, 0), "same": claim_text(claim, 0), "bad": "You snool!"}
    responses = {i: Response(id=i, prompt_id="p", text=text) for i, text in texts.items()}
    group = [replace(one, noise=100.0) for one in TRAINING]  # a judge has no noise

    def ceiling(*tiers):
        return ask.ceiling(
            WORLD, group, {"p": prompt}, responses, [ranking("p", "x", *map(list, tiers))]
        )

    assert ceiling(["good"], ["bad"]).mean == 1
    assert ceiling(["bad"], ["good"]).mean == 0
    # good over bad 1, same over bad 1, good over same is 0.5: the judge sees no difference
    found = ceiling(["good"], ["same"], ["bad"])
    assert (found.mean, found.n) == (pytest.approx(2.5 / 3), 3)
    # a tie of the labeler is no pair
    assert ceiling(["good", "same"], ["bad"]).n == 2
