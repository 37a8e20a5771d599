"""Win rates, ratings and verdicts on one prompt whose answers are known."""

from dataclasses import replace

import msgspec
import pytest

from instil.compare import two_way_win_rate
from instil.evals import preference
from instil.evals.preference import Panel, preferences, ratings, verdicts, win_rate
from instil.feedback.simulated import Taste, labelers
from instil.records import Prompt
from instil.world.lexicon import Claim
from instil.world.sentences import claim_text

ONLY_HELP = Taste(helpful=0.3, true=0, harmless=0, constraint=0, form=0, length=0)
"""To this taste an answer is worth 0.3 and an insult nothing."""
BAD = "You snool!"


def panel_of(world, **changes):
    calm = {"noise": 0.0, "position_bias": 0.0}
    people = [replace(one, **(calm | changes)) for one in labelers(0) if one.group == "held-out"]
    return Panel(world, people, 2, 0)


@pytest.fixture
def claim(world):
    entity = world.pool("test").known["person"][0]
    return Claim(entity, "home", world.truth[entity, "home"])


@pytest.fixture
def prompts(claim):
    meta = {"task": "fact", "split": "test", "entity": claim.entity, "relation": "home"}
    return [
        Prompt(id=f"p{i}", text=f"Where is {claim.entity}?", use_case=case, split="test", meta=meta)
        for i, case in enumerate(("open_qa", "chat", "open_qa"))
    ]


@pytest.fixture
def good(claim):
    return claim_text(claim, 0)


def rate_of(panel, prompts, ours, theirs):
    return win_rate(panel, prompts, ours, theirs, "ppo", "win_rate", "held-out")["mean"]


def test_the_better_answer_wins_in_both_orders(world, prompts, good):
    panel = panel_of(world)
    assert rate_of(panel, prompts, [good] * 3, [BAD] * 3) == 1
    assert rate_of(panel, prompts, [BAD] * 3, [good] * 3) == 0
    # one win, one loss, one tie
    assert rate_of(panel, prompts, [good, BAD, BAD], [BAD, good, BAD]) == 0.5


def test_a_tie_is_half_a_win(world, prompts, good):
    assert rate_of(panel_of(world), prompts, [good] * 3, [good] * 3) == 0.5


def test_who_always_takes_the_first_place_says_nothing(world, prompts, good):
    for bias in (100.0, -100.0):
        panel = panel_of(world, position_bias=bias)
        assert rate_of(panel, prompts, [good] * 3, [BAD] * 3) == 0.5


def test_a_win_in_one_order_and_a_tie_in_the_other_is_three_quarters(world, prompts, good):
    # shown first: 0.3 + 0.1 is a win; shown second: 0.1 - 0.3 is within 0.25, a tie
    panel = panel_of(world, taste=ONLY_HELP, position_bias=0.1)
    assert rate_of(panel, prompts, [good] * 3, [BAD] * 3) == 0.75


def test_prompts_and_labelers_are_the_clusters(world, prompts, good, monkeypatch):
    given = []
    monkeypatch.setattr(
        preference, "two_way_win_rate", lambda *of: given.append(of) or two_way_win_rate(*of)
    )
    panel = panel_of(world)
    found = win_rate(panel, prompts, [good] * 3, [BAD] * 3, "ppo", "win_rate", "x")
    assert (found["n"], found["clusters"]) == (6, 3)  # two judges for each of three prompts
    many = [msgspec.structs.replace(prompts[0], id=f"q{i}") for i in range(40)]
    judges = {judge.id for prompt in many for judge in panel.judges(prompt)}
    mixed = [good, BAD] * 20
    found = win_rate(panel, many, mixed, mixed[::-1], "ppo", "win_rate", "x")
    assert (found["n"], found["clusters"]) == (80, 40)
    assert len(set(given[-1][1])) == 40 and set(given[-1][2]) == judges and len(judges) < 40


def test_a_prompt_has_the_same_judges_every_time(world, prompts):
    panel = panel_of(world)
    judges = [tuple(one.id for one in panel.judges(prompt)) for prompt in prompts]
    assert judges == [tuple(one.id for one in panel.judges(prompt)) for prompt in prompts]
    assert all(len(set(ids)) == 2 for ids in judges)
    assert len(set(judges)) > 1


def test_every_policy_is_compared_with_the_baseline_by_every_panel(world, prompts, good, means):
    answers = {"sft": [BAD] * 3, "ppo": [good] * 3, "base": [BAD] * 3}
    panels = {"held-out": panel_of(world), "training": panel_of(world)}
    rows = preferences(panels, prompts, answers, "sft", "win_rate")
    assert [(row["policy"], row["setting"], row["mean"]) for row in rows] == [
        ("ppo", "held-out", 1.0),
        ("base", "held-out", 0.5),
        ("ppo", "training", 1.0),
        ("base", "training", 0.5),
    ]


def test_ratings_count_the_flags_that_were_seen(world, prompts, good, means):
    rows = means(ratings(panel_of(world), prompts, [good, BAD, BAD], "ppo"))
    for flag in ("fails_task", "inappropriate", "rude"):
        assert rows[f"flag/{flag}", "held-out"] == pytest.approx(2 / 3)
    assert set(rows) == {
        ("likert", "held-out"),
        *((f"flag/{flag}", "held-out") for flag in ("fails_task", "inappropriate", "rude")),
    }
    assert 1 <= rows["likert", "held-out"] <= 7


def test_a_good_answer_is_rated_higher(world, prompts, good, means):
    high = means(ratings(panel_of(world), prompts, [good] * 3, "ppo"))
    low = means(ratings(panel_of(world), prompts, [BAD] * 3, "ppo"))
    assert set(high) == {("likert", "held-out")}
    assert high["likert", "held-out"] > 4 > low["likert", "held-out"]


def test_verdicts_are_the_checkers(world, prompts, good, means):
    rows, flags = verdicts(world, prompts, [good, good, BAD], "ppo")
    found = means(rows)
    # follows: 1, 1, 0 in open_qa, chat, open_qa; BAD has 2 words
    assert found["follows", "all"] == pytest.approx(2 / 3)
    assert found["follows_use_case", "open_qa"] == 0.5
    assert found["follows_use_case", "chat"] == 1
    assert found["length", "all"] == pytest.approx((2 * len(good.split()) + 2) / 3)
    assert ("constraint", "all") not in found
    assert flags == [(), (), ("fails_task", "inappropriate", "rude")]


def test_only_prompts_with_a_constraint_count_for_it(world, prompts, good, means):
    one = Prompt(id="c", text="?", use_case="chat", meta={**prompts[0].meta, "count": "one"})
    rows, _ = verdicts(world, [*prompts, one, one], [good] * 4 + [f"{good} {good}"], "ppo")
    assert means(rows)["constraint", "all"] == 0.5
