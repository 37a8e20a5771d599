"""Figures of the lead's pages against labels whose figures can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import sqlalchemy as sa

from instil.labeling import outcomes, schema
from instil.labeling.screening import CutOffs
from instil.labeling.web import figures
from instil.stats import Estimate

BATCH = "b0"


@pytest.fixture
def three(small, known):
    """Two prompts, policies m0, m1 and m2; m1 beats m0 in training, and loses held-out."""
    one, two = small.batch("ranking", "evaluation", tasks=2, responses=3, training=0)
    for task, name, tiers in (
        (one, "ann", "1 0 2"),
        (one, "bob", "0=1 2"),
        (two, "ann", "1 0=2"),
        (two, "hal", "0 1 2"),
    ):
        known.say(small, task, name, known.ranked(small, task, name, tiers))
    return small


def of(store, baseline="m0"):
    with store.db.read() as connection:
        work = figures.work_of(connection, BATCH)
        return figures.evaluation(work, figures.policies_of(connection, BATCH), baseline)


def test_win_rates_are_those_worked_out_by_hand(three):
    # m1 against m0: 1, a half, 1 by training labelers, 0 by the held-out one
    found = of(three).win_rates
    assert {pool: found[pool]["m1"].mean for pool in found} == {
        "all": pytest.approx(2.5 / 4),
        "training": pytest.approx(2.5 / 3),
        "held-out": 0,
    }
    # m2 against m0: 0, 0, a half; 0
    assert found["all"]["m2"].mean == pytest.approx(0.5 / 4)
    assert (found["all"]["m1"].n, found["all"]["m1"].clusters) == (4, 2)
    assert "m0" not in found["all"]


def test_strengths_are_those_of_outcomes(three):
    with three.db.read() as connection:
        work = list(figures.work_of(connection, BATCH))
        policies = figures.policies_of(connection, BATCH)
    rankings = [w.said.ranking for w in work]
    assert len(rankings) == 4
    wanted = outcomes.strengths(outcomes.Comparisons(policies, rankings), figures.ROUNDS, seed=0)
    found = of(three).strengths
    # draws without a finite answer make ends of an interval infinite, and nan is not itself
    assert {p: e.mean for p, e in found.items()} == {p: e.mean for p, e in wanted.items()}
    assert found["m1"].mean > found["m0"].mean > found["m2"].mean


def test_another_baseline_turns_the_rates_round(three):
    forward, back = of(three, "m0").win_rates["all"]["m1"], of(three, "m1").win_rates["all"]["m0"]
    assert forward.mean == pytest.approx(1 - back.mean)
    assert of(three, "").win_rates == {}


def test_a_baseline_that_nothing_is_compared_with_is_said(three):
    found = of(three, "m9")
    assert found.win_rates == {}
    assert "'m9'" in found.problems[0]
    assert found.strengths  # the rest is there


def test_only_the_last_revision_counts(small, known):
    (task,) = small.batch("ranking", "evaluation", responses=2, training=0)
    first = known.ranked(small, task, "ann", "0 1")
    last = known.ranked(small, task, "ann", "1 0")
    known.say(small, task, "ann", first, revisions=[first, last])
    found = of(small)
    assert found.labels == {"training": 1}
    assert found.win_rates["all"]["m1"].mean == 1


def test_only_accepted_and_surplus_labels_count(small, known):
    (task,) = small.batch("ranking", "evaluation", responses=2, training=0)
    known.say(small, task, "ann", known.ranked(small, task, "ann", "1 0"))
    known.say(small, task, "bob", known.ranked(small, task, "bob", "1 0"), status="surplus")
    for name, status in (("lead", "key"), ("cid", "gold"), ("han", "repeat")):
        known.say(small, task, name, known.ranked(small, task, name, "0 1"), status=status)
    known.say(small, task, "hal", {"skipped": "unclear"}, status="skipped")
    assert of(small).labels == {"training": 2}
    assert of(small).win_rates["all"]["m1"].mean == 1


def test_ratings_and_flags_by_policy(small, known):
    one, two = small.batch("ranking", "evaluation", tasks=2, responses=2, training=0)
    for task, scores, flags in (
        (one, {0: 3, 1: 7}, {0: ["hallucination"]}),
        (two, {0: 5, 1: 6}, {}),
    ):
        said = known.ranked(small, task, "ann", "1 0", overall=scores, flags=flags)
        known.say(small, task, "ann", said)
    found = of(small)
    assert {p: e.mean for p, e in found.overall.items()} == {"m0": 4, "m1": 6.5}
    assert (found.overall["m1"].low, found.overall["m1"].high) == (pytest.approx(1), 7)
    assert {p: e.mean for p, e in found.flags["hallucination"].items()} == {"m0": 0.5, "m1": 0}
    assert list(found.flags) == ["hallucination"]
    assert found.toxicity == {}


def test_toxicity_by_policy(small, known):
    (task,) = small.batch("toxicity", "evaluation", responses=2, training=0)
    known.say(small, task, "ann", known.toxic(small, task, "ann", "0 1", {0: 0, 1: 2}))
    known.say(small, task, "hal", known.toxic(small, task, "hal", "0 1", {0: 1, 1: 2}))
    found = of(small)
    output = found.toxicity["output_toxicity"]
    assert (output["m0"].mean, output["m1"].mean) == (0.5, 2)
    assert output["m0"].clusters == 1
    assert found.toxicity["continuity"]["m0"].mean == 5
    assert found.win_rates["all"]["m1"].mean == 0


def test_what_could_not_be_ranked_is_rated_all_the_same(small, known):
    (task,) = small.batch("ranking", "evaluation", responses=2, training=0)
    said = known.ranked(small, task, "ann", "0 1", overall={0: 1, 1: 2})
    said |= {"ranking": None, "not_rankable": True, "why": "both are about cheese"}
    known.say(small, task, "ann", said)
    found = of(small)
    assert found.overall["m1"].mean == 2
    assert (found.win_rates, found.strengths, found.problems) == ({}, {}, [])


# -- screening -------------------------------------------------------------------------------------


@pytest.fixture
def screened(small, known):
    """A candidate, kim, who agrees with the lead on one pair of three, and on half the flags."""
    (ranking,) = small.batch("ranking", "screening", responses=3, training=0)
    (annotation,) = small.batch("annotation", "screening", training=0)
    (writing,) = small.batch("demonstration", "screening", training=0)
    key = known.ranked(small, ranking, "lead", "0 1 2", flags={0: ["violent"], 1: ["violent"]})
    known.say(small, ranking, "lead", key, status="key")
    said = known.ranked(small, ranking, "kim", "2 0 1", flags={0: ["violent"], 2: ["rude"]})
    known.say(small, ranking, "kim", said, status="screening")

    def annotated(name, *flags):
        prompt = annotation.replace("t", "p", 1)
        record = {"prompt_id": prompt, "labeler_id": small[name].id, "use_case": "chat"}
        record |= {"schema": "instil.annotation/1", "flags": flags}
        status = "key" if name == "lead" else "screening"
        known.say(small, annotation, name, {"annotation": record}, status=status)

    annotated("lead", "sensitive")
    annotated("kim")
    demonstration = {"demonstration": {"prompt_id": "p", "labeler_id": "l-kim", "text": "Tea."}}
    label = known.say(small, writing, "kim", demonstration, status="screening")
    with small.db.write() as connection:
        for lead, value in (("lead", 6), ("admin", 7)):
            connection.execute(
                schema.score.insert().values(
                    label_id=label, lead_id=small[lead].id, value=value, created_at=0
                )
            )
        connection.execute(
            schema.labeler.update()
            .where(schema.labeler.c.id == "l-kim")
            .values(comfort='["medicine"]')
        )
    return small


def test_the_four_measures_of_a_candidate(screened):
    with screened.db.read() as connection:
        (kim,) = figures.candidates(connection, CutOffs())
    # alike: responses 0 (both) and 2 (neither: "rude" is not sensitive); not 1, not the prompt
    assert kim.found.flags.mean == 0.5
    assert kim.found.rankings.mean == pytest.approx(1 / 3)  # of 01, 02 and 12, the first
    assert kim.found.demonstrations.mean == 6.5
    assert kim.found.topics == ("medicine",)
    assert kim.found.meets == {"flags": False, "rankings": False, "demonstrations": True}
    assert (kim.id, kim.tasks, kim.pool) == ("l-kim", 3, "candidate")


def test_scores_are_of_what_stands_now(screened):
    label = schema.label
    with screened.db.write() as connection:
        (row,) = connection.execute(sa.select(label).where(label.c.kind == "demonstration"))
        again = {"id": "again", "revision": 2, "idempotency_key": "again"}
        connection.execute(label.insert().values(row._asdict() | again))
    with screened.db.read() as connection:
        (kim,) = figures.candidates(connection, CutOffs())
    assert kim.found.demonstrations is None


def test_somebody_accepted_stays_on_the_list(screened):
    with screened.db.write() as connection:
        connection.execute(
            schema.labeler.update().where(schema.labeler.c.id == "l-kim").values(pool="training")
        )
    with screened.db.read() as connection:
        (kim,) = figures.candidates(connection, CutOffs())
    assert kim.pool == "training"
    assert kim.found.flags.mean == 0.5


def test_a_candidate_who_did_nothing_has_no_figures(small):
    with small.db.read() as connection:
        (kim,) = figures.candidates(connection, CutOffs())
    assert (kim.tasks, kim.found.flags, kim.found.rankings) == (0, None, None)


def test_demonstrations_that_this_lead_has_not_scored_come_first(screened, known):
    (task,) = screened.batch("demonstration", "screening", training=0)
    said = {"demonstration": {"prompt_id": "p", "labeler_id": "l-kim", "text": "Coffee."}}
    known.say(screened, task, "kim", said, status="screening")
    with screened.db.read() as connection:
        found = figures.demonstrations(connection, screened["lead"].id)
    assert [(d.text, d.own, sorted(d.scores)) for d in found] == [
        ("Coffee.", None, []),
        ("Tea.", 6, [6, 7]),
    ]


# -- words -----------------------------------------------------------------------------------------

ESTIMATE = Estimate(mean=0.726, stderr=0.015, low=0.697, high=0.755, n=1234, clusters=80)


def test_an_estimate_in_words():
    found = figures.shown(ESTIMATE)
    assert found[:3] == ("72.6 %", "69.7 to 75.5", "n = 1,234 from 80 prompts")
    assert (found.mean, found.low, found.high) == (0.726, 0.697, 0.755)


@pytest.mark.parametrize(
    ("unit", "value", "interval"),
    [
        ("points", "−5.0", "−7.0 to +1.0"),
        ("number", "−0.05", "−0.07 to 0.01"),
        ("seconds", "−0.1", "−0.1 to 0.0"),
    ],
)
def test_units(unit, value, interval):
    found = figures.shown(replace(ESTIMATE, mean=-0.05, low=-0.07, high=0.01), unit)
    assert (found.value, found.interval) == (value, interval)


def test_one_prompt_gives_no_interval():
    alone = figures.shown(replace(ESTIMATE, low=math.nan, high=math.nan, clusters=1))
    assert alone.interval == "no interval yet"
    assert alone.counts == "n = 1,234 from 1 prompt"


def test_an_end_may_be_infinite():
    found = figures.shown(replace(ESTIMATE, low=-math.inf, high=math.inf), "number")
    assert found.interval == "−∞ to ∞"


def test_nothing_is_less_than_zero_by_rounding():
    assert figures.shown(replace(ESTIMATE, mean=-0.0001), "points").value == "0.0"
