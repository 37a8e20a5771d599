"""labeling/quality.py: labels worked out by hand, other libraries as oracles, and public data."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from itertools import permutations

import krippendorff
import numpy as np
import pytest
import scipy.stats

from instil import stats
from instil.labeling.quality import (
    Judgement,
    agreement_of,
    compare,
    habits_of,
    labeler_pairs,
    overview,
    per_labeler,
)
from instil.records import Ranking, Rating


def label(labeler, prompt, tiers, **more):
    """A judgement; tiers "a bc" puts a before b and c, which are tied; "" is not rankable."""
    ids = tuple(tuple(f"{prompt}-{name}" for name in tier) for tier in tiers.split())
    ranking = Ranking(prompt_id=prompt, labeler_id=labeler, tiers=ids) if ids else None
    more = {"label_id": f"{labeler} {prompt} {more.get('status')}"} | more
    return Judgement(labeler_id=labeler, prompt_id=prompt, ranking=ranking, **more)


def rated(labeler, prompt, overall, flags=None):
    """Ratings of responses a, b, ... of a prompt."""
    return tuple(
        Rating(
            response_id=f"{prompt}-{name}",
            labeler_id=labeler,
            overall=score,
            flags=tuple((flags or {}).get(name, ())),
        )
        for name, score in zip("abcdefghi", overall, strict=False)
    )


def random_labels(seed=0):
    """40 prompts with 2 to 9 responses, each ranked by 1 to 4 of 5 labelers, with ties."""
    rng = random.Random(seed)
    labels = []
    for number in range(40):
        names = "abcdefghi"[: rng.randint(2, 9)]
        for labeler in rng.sample(["ann", "bob", "cat", "dan", "eve"], rng.randint(1, 4)):
            places = {name: rng.randint(1, len(names)) for name in names}
            tiers = ["".join(n for n in names if places[n] == k) for k in range(1, 10)]
            labels.append(label(labeler, f"p{number}", " ".join(filter(None, tiers))))
    return labels


THREE = [
    label("ann", "p1", "x y z"),
    label("bob", "p1", "x z y"),
    label("cat", "p1", "xy z"),
    label("ann", "p2", "x y"),  # labeled once: says nothing about agreement
]


def test_what_two_rankings_say_of_each_pair():
    first, second = label("ann", "p", "b a c").ranking, label("bob", "p", "ab d").ranking
    assert compare(first, second) == [(1, 0)]  # only a and b are in both, and b is better
    assert compare(second, first) == [(0, 1)]
    assert compare(first, first) == [(1, 1), (-1, -1), (-1, -1)]


def test_agreement_of_three_labelers():
    found = agreement_of(THREE)
    # ann and bob: xy and xz alike, yz not; ann and cat: xz, yz alike, cat ties xy;
    # bob and cat: xz alike, yz not: 5 of 7 that neither tied
    assert found.strict.mean == pytest.approx(5 / 7)
    assert (found.strict.n, found.strict.clusters) == (7, 1)
    # the two ties against an order are half alike, or not the same
    assert found.with_ties.mean == pytest.approx(6 / 9)
    assert found.same.mean == pytest.approx(5 / 9)
    # tau-b: (2 - 1)/3, 2/sqrt(3 * 2) and (1 - 1)/sqrt(3 * 2)
    assert found.tau.mean == pytest.approx((1 / 3 + 2 / math.sqrt(6) + 0) / 3)


def test_agreement_is_that_of_the_statistics():
    labels = random_labels()
    rankings = [(j.prompt_id, j.ranking.ranks()) for j in labels]
    found = agreement_of(labels)
    assert found.strict == stats.agreement(rankings)
    assert found.with_ties == stats.agreement_with_ties(rankings)


def test_tau_and_alpha_are_those_of_other_libraries():
    labels = random_labels()
    ids = sorted({i for j in labels for i in j.ranking.response_ids()})
    names = sorted({j.labeler_id for j in labels})
    table = np.full((len(names), len(ids)), math.nan)
    taus = []
    for j in labels:
        ranks = j.ranking.ranks()
        places = (scipy.stats.rankdata(list(ranks.values())) - 1) / (len(ranks) - 1)
        for response, place in zip(ranks, places, strict=True):
            table[names.index(j.labeler_id), ids.index(response)] = place
        for other in labels[: labels.index(j)]:
            if other.prompt_id == j.prompt_id:
                theirs = other.ranking.ranks()
                both = [(ranks[r], theirs[r]) for r in ranks]
                taus.append(scipy.stats.kendalltau(*zip(*both, strict=True)).statistic)
    found = agreement_of(labels)
    # a labeler who ties all has no tau; equal places of different K may differ in the last bit
    assert found.tau.mean == pytest.approx(np.nanmean(taus))
    expected = krippendorff.alpha(np.round(table, 9), level_of_measurement="ordinal")
    assert found.rank_alpha == pytest.approx(expected, abs=1e-9)


def test_alpha_of_ratings_and_flags():
    # a and b by both labelers; c only once
    labels = [
        label("ann", "p", "", ratings=rated("ann", "p", [7, 4, 1], {"a": ["rude"], "b": ["rude"]})),
        label("bob", "p", "", ratings=rated("bob", "p", [7, 6], {"a": ["rude"]})),
    ]
    found = agreement_of(labels)
    # rude: (yes, yes) and (yes, no): as much disagreement as expected, 2 = 2 * 3 * 1 / (4 - 1)
    assert found.flag_alphas == {"rude": 0.0}
    # overall 7 7 and 4 6: observed 2 * (6 - 4)^2 = 8; expected over ordered pairs of 7 7 4 6:
    # 2 * (9 + 1 + 9 + 1 + 4) / 3 = 16; 1 - 8 / 16
    assert found.overall_alpha == pytest.approx(0.5)
    # nobody found the responses rankable
    assert found.strict is found.tau is None and math.isnan(found.rank_alpha)


def test_alike_in_all_or_judged_once_is_no_coefficient():
    found = agreement_of([label("ann", "p", "x y"), label("bob", "p", "x y")])
    assert found.strict.mean == found.tau.mean == 1.0
    assert math.isnan(found.order_alpha) and math.isnan(found.fleiss)  # chance is certain
    assert found.rank_alpha == 1.0  # x first, y last: two places, so something to get wrong
    for alone in ([], [label("bob", "p", "")]):  # or the other found nothing to rank
        found = agreement_of([label("ann", "p", "x y"), *alone])
        assert found.strict is found.with_ties is found.same is found.tau is None
        assert math.isnan(found.order_alpha) and math.isnan(found.fleiss)
    assert not overview([]).labels and overview([]).agreement.strict is None


def test_fleiss_wants_all_pairs_judged_equally_often():
    # p1 (-1, -1), p2 (-1, 1): observed 1/2; shares 3/4 and 1/4: chance 10/16
    twice = [label("ann", "p1", "x y"), label("bob", "p1", "x y")]
    twice += [label("ann", "p2", "x y"), label("bob", "p2", "y x")]
    assert agreement_of(twice).fleiss == pytest.approx((1 / 2 - 10 / 16) / (6 / 16))
    assert math.isnan(agreement_of([*twice, label("cat", "p2", "y x")]).fleiss)


def test_the_order_of_the_labels_does_not_matter():
    labels = random_labels()
    shuffled = random.Random(1).sample(labels, len(labels))
    assert agreement_of(shuffled).strict.mean == agreement_of(labels).strict.mean
    assert agreement_of(shuffled).order_alpha == pytest.approx(agreement_of(labels).order_alpha)
    pairs = [(p.first, p.second, p.strict.mean, p.kappa) for p in labeler_pairs(labels)]
    assert [(p.first, p.second, p.strict.mean, p.kappa) for p in labeler_pairs(shuffled)] == pairs
    ours, theirs = per_labeler(labels), per_labeler(shuffled)
    assert [q.others.mean for q in ours] == [q.others.mean for q in theirs]


@pytest.mark.parametrize("status", ["gold", "repeat", "screening", "key"])
def test_only_independent_labels_are_compared_between_labelers(status):
    surplus = [label("ann", "p", "x y"), label("bob", "p", "y x", status="surplus")]
    assert overview(surplus).agreement.strict.mean == 0.0
    assert per_labeler(surplus)[0].others.mean == 0.0
    other = [label("ann", "p", "x y"), label("bob", "p", "y x", status=status)]
    found = overview(other)
    assert (found.labels, found.labelers, found.prompts) == (1, 1, 1)
    assert found.agreement.strict is agreement_of(other).strict is None
    assert per_labeler(other)[0].others is None
    assert labeler_pairs(other) == []


def test_nobody_agrees_with_themselves():
    again = [label("ann", "p", "x y", label_id="1"), label("ann", "p", "y x", label_id="2")]
    assert agreement_of(again).strict is None
    found = agreement_of([*again, label("bob", "p", "x y")])
    assert (found.strict.mean, found.strict.n) == (1 / 2, 2)


def test_the_overview_by_pool_and_use_case():
    chat = {"use_case": "chat"}
    labels = [
        label("ann", "p1", "x y", pool="training", **chat),
        label("bob", "p1", "x y", pool="training", **chat),
        label("cat", "p1", "y x", pool="held-out", **chat),
        label("cat", "p2", "x y", pool="held-out", use_case="rewrite"),
        label("dan", "p2", "y x", pool="held-out", use_case="rewrite"),
    ]
    found = overview(labels)
    assert found.agreement.strict.mean == 1 / 4
    assert {k: a.strict.mean for k, a in found.by_pool.items()} == {"held-out": 0, "training": 1}
    assert {k: a.strict.mean for k, a in found.by_use_case.items()} == {
        "chat": pytest.approx(1 / 3),
        "rewrite": 0,
    }


HABITS = [
    label(
        "ann",
        "p1",
        "a bc d",
        order=("p1-a", "p1-b", "p1-c", "p1-d"),
        lengths={"p1-a": 400, "p1-b": 300, "p1-c": 200, "p1-d": 100},
        ratings=rated("ann", "p1", [7, 5, 6, 6]),
        words=200,
        active_ms=30_000,
    ),
    label(
        "ann",
        "p2",
        "ab",
        order=("p2-b", "p2-a"),
        lengths={"p2-a": 5, "p2-b": 9},
        words=50,
        active_ms=2_500,
    ),
]


def test_habits_of_two_labels():
    found = habits_of(HABITS)
    assert found.seconds.mean == (15 + 5) / 2  # 30 s for 200 words, 2.5 s for 50
    # shown first and best: 1 - 1/4; shown first and one of two that are best: 1/2 - 1/2
    assert found.first_shown.mean == 0.75 / 2
    # the longer is better in 5 of 6 pairs, one is tied: 5 / sqrt(6 * 5); the second ties all
    assert (found.longer.mean, found.longer.n) == (pytest.approx(5 / math.sqrt(30)), 1)
    assert (found.ties.mean, found.ties.n, found.ties.clusters) == (2 / 7, 7, 2)
    # b before d, yet rated 5 and 6; c and d are rated alike
    assert (found.inversions.mean, found.inversions.n) == (1 / 5, 5)


def test_habits_without_anything_to_measure():
    found = habits_of([label("ann", "p", "", words=0)])
    assert found.seconds is found.first_shown is found.longer is None
    assert found.ties is found.inversions is None
    assert habits_of([label("ann", "p", "a b")]).first_shown is None  # order not written down


def test_position_bias_is_zero_for_the_unmoved_and_all_for_the_lazy():
    shown = [tuple(f"p-{name}" for name in order) for order in permutations("abcd")]
    steady = [label("ann", "p", "a bc d", order=order) for order in shown]
    tied = [label("ann", "p", "ab cd", order=order) for order in shown]
    assert habits_of(steady).first_shown.mean == pytest.approx(0, abs=1e-12)
    assert habits_of(tied).first_shown.mean == pytest.approx(0, abs=1e-12)
    lazy = [
        label("ann", "p", " ".join(response[-1] for response in order), order=order)
        for order in shown
    ]
    assert habits_of(lazy).first_shown.mean == pytest.approx(3 / 4)


def test_an_order_of_other_responses_is_refused():
    with pytest.raises(ValueError, match="label 7: shown"):
        label("ann", "p", "a b", order=("p-a", "p-c"), label_id="7")


def test_a_labeler_against_others_gold_and_self():
    labels = [
        label("ann", "p1", "x y z", use_case="chat"),
        label("bob", "p1", "x z y", use_case="chat"),
        label("ann", "p2", "x y", use_case="rewrite"),
        label("bob", "p2", "x y", use_case="rewrite"),
        label("ann", "p3", "x y"),
        label("ann", "g1", "x y z", status="gold"),
        label("ann", "p1", "z y x", status="repeat"),
        label("bob", "p1", "x zy", status="repeat"),
        label("lea", "g1", "x z y", status="key"),
    ]
    keys = [labels[-1], label("max", "g1", "x y z", status="key"), label("max", "p3", "y x")]
    ann, bob = per_labeler(labels, keys)
    assert (ann.labeler_id, ann.labels, bob.labeler_id, bob.labels) == ("ann", 3, "bob", 2)
    assert ann.others == bob.others
    assert (ann.others.mean, ann.others.n, ann.others.clusters) == (3 / 4, 4, 2)
    assert {k: e.mean for k, e in ann.by_use_case.items()} == {"chat": 2 / 3, "rewrite": 1}
    assert (ann.gold.mean, ann.gold.n) == (5 / 6, 6)  # against both keys of g1; p3 is no gold label
    assert bob.gold is None
    assert (ann.repeats.mean, ann.repeats.n) == (0, 3)
    assert (bob.repeats.mean, bob.repeats.n) == (1, 2)
    assert ann.habits.ties.n == 3 + 1 + 1  # pairs of the independent labels only


def test_drift_compares_the_last_third_with_the_first():
    # in time: alike, alike | alike, not | alike, not; the list is not in that order
    labels = []
    for number, other in enumerate(["x y", "x y", "x y", "y x", "x y", "y x"]):
        prompt = f"p{9 - number}"
        labels += [label("ann", prompt, "x y", at=number), label("bob", prompt, other)]
    ann, _ = per_labeler(labels[::-1])
    assert ann.drift.mean == 1 / 2 - 1
    # last third: 0.5, cut to [0, 1]; first third: 1 of 2, exactly [0.025^(1/2), 1] = [0.158114, 1]
    # -0.5 - sqrt(0.5^2 + 0), -0.5 + sqrt(0.5^2 + 0.841886^2)
    assert (ann.drift.low, ann.drift.high) == pytest.approx((-1.0, 0.479169), abs=1e-6)
    assert ann.drift.stderr == pytest.approx(0.5)  # of 1 and 0: sqrt(0.5 / 2); of 1 and 1: 0
    assert (ann.drift.n, ann.drift.clusters) == (4, 4)
    assert per_labeler(labels[:4])[0].drift is None  # two labels have no thirds


def test_two_labelers_by_cohens_kappa():
    labels = []
    for number, (first, second) in enumerate([("x y", "x y"), ("y x", "x y"), ("y x", "y x")]):
        labels += [label("bob", f"p{number}", second), label("ann", f"p{number}", first)]
    (found,) = labeler_pairs([*labels, label("cat", "p9", "x y")])
    assert (found.first, found.second) == ("ann", "bob")
    # alike 2/3; chance 1/3 * 2/3 + 2/3 * 1/3 = 4/9; (2/3 - 4/9) / (5/9)
    assert (found.strict.mean, found.kappa) == pytest.approx((2 / 3, 0.4))


def rows(shared, name):
    path = shared / "data" / "agreement" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        if name.endswith(".csv.gz"):
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file]


def test_kappas_of_the_pandalm_annotators(shared):
    tiers = {0: "ab", 1: "a b", 2: "b a"}
    labels = [
        label(f"annotator{k}", f"p{item}", tiers[row[f"annotator{k}"]])
        for item, row in enumerate(rows(shared, "pandalm_testset_v1.jsonl.gz"))
        for k in (1, 2, 3)
    ]
    found = [pair.kappa for pair in labeler_pairs(labels)]
    assert found == pytest.approx([0.852, 0.879, 0.862], abs=5e-4)
    assert agreement_of(labels).fleiss == pytest.approx(0.8642, abs=5e-5)


def test_agreement_of_the_tldr_labelers(shared):
    labels = [
        label(f"l{number}", f"p{item}", side)
        for item, row in enumerate(rows(shared, "tldr_repeated_judgements.jsonl.gz"))
        for number, side in enumerate(["a b"] * row["votes_a"] + ["b a"] * row["votes_b"])
    ]
    found = overview(labels).agreement
    assert (found.strict.n, found.strict.clusters) == (7257, 95)
    assert found.strict.mean == pytest.approx(0.7273, abs=5e-5)
    assert found.strict == found.with_ties == found.same  # there are no ties
    assert found.order_alpha == pytest.approx(0.4217, abs=5e-5)


@pytest.mark.slow
def test_agreement_of_the_llmfao_crowd(shared):
    tiers = {"left": "l r", "tie": "lr", "right": "r l"}
    crowd = rows(shared, "llmfao_crowd_comparisons.csv.gz")
    labels = [label(f"w{row['worker']}", f"p{row['id']}", tiers[row["winner"]]) for row in crowd]
    found = overview(labels)
    assert (found.labels, found.labelers, found.prompts) == (8931, 124, 2139)
    assert found.agreement.same.mean == pytest.approx(0.5322, abs=5e-5)
    assert found.agreement.order_alpha == pytest.approx(0.2906, abs=5e-5)
    assert len(per_labeler(labels)) == 124
