"""The rule: seeds are the clusters, sizes are averaged, and each verdict at its edge."""

from __future__ import annotations

import math

import pytest

from instil.stats import Estimate
from instil.study import findings
from instil.study.claims import Finding, of
from instil.study.findings import judge


def finding(expect="more", margin=0.0, needs="", id="one", theirs=0.5):
    return Finding(
        id=id,
        claim="A is better",
        paper="",
        ours=of("win", "a"),
        theirs=theirs,
        expect=expect,
        margin=margin,
        needs=needs,
    )


def rows(values, policy="a"):
    """{size: values by seed} as rows of results.jsonl."""
    return [
        {"size": size, "seed": seed, "eval": "win", "policy": policy, "setting": "", "mean": mean}
        for size, means in values.items()
        for seed, mean in enumerate(means)
    ]


@pytest.fixture
def judged(monkeypatch):
    def of_rows(given, *chosen, sizes=("S", "L")):
        monkeypatch.setattr(findings, "FINDINGS", chosen)
        return judge(given, sizes)

    return of_rows


def test_the_difference_is_the_mean_over_sizes_with_t_over_seeds(judged):
    # differences to 0.5: S 0.1, 0.2, 0.3 and L 0.3, 0.4, 0.2; by seed their means 0.2, 0.3, 0.25
    # mean 0.25, standard error sqrt(0.0025 / 3) = 0.028868, t with 2 degrees of freedom 4.302653
    (found,) = judged(rows({"S": [0.6, 0.7, 0.8], "L": [0.8, 0.9, 0.7]}), finding())
    assert found.difference.mean == pytest.approx(0.25)
    assert found.difference.low == pytest.approx(0.25 - 4.302653 * 0.0288675, abs=1e-6)
    assert found.difference.n == 3
    assert found.by_size["S"].mean == pytest.approx(0.2)
    assert found.by_size["L"].mean == pytest.approx(0.3)
    assert (found.ours, found.theirs) == (pytest.approx(0.75), 0.5)
    assert found.verdict == "reproduced"


def test_a_finding_of_one_size_is_judged_at_that_size(judged):
    (found,) = judged(rows({"L": [0.6, 0.62]}), finding())
    assert set(found.by_size) == {"L"}
    assert found.difference.mean == pytest.approx(0.11)


def test_a_seed_without_one_of_the_sizes_does_not_count(judged):
    (found,) = judged(rows({"S": [0.6, 0.7, 0.9], "L": [0.6, 0.7]}), finding())
    assert found.difference.n == 2
    assert found.difference.mean == pytest.approx(0.15)


def test_differences_of_two_policies_are_paired_within_a_seed(judged):
    # each policy scatters over seeds by 0.4, their difference does not: 0.1, 0.1, 0.1
    given = rows({"S": [0.3, 0.5, 0.7]}) + rows({"S": [0.2, 0.4, 0.6]}, "b")
    (found,) = judged(given, finding(theirs=of("win", "b")))
    assert found.difference.low == pytest.approx(0.1)
    assert found.verdict == "reproduced"


@pytest.mark.parametrize(
    ("expect", "low", "high", "verdict", "reason"),
    [
        ("more", 0.01, 0.2, "reproduced", ""),
        ("more", 0.0, 0.2, "not reproduced", "undecided"),
        ("more", -0.2, -0.01, "not reproduced", "the opposite"),
        ("less", -0.2, -0.01, "reproduced", ""),
        ("less", -0.2, 0.0, "not reproduced", "undecided"),
        ("less", 0.01, 0.2, "not reproduced", "the opposite"),
        ("same", -0.05, 0.05, "reproduced", ""),
        ("same", -0.06, 0.02, "not reproduced", "undecided"),
        ("same", 0.051, 0.2, "not reproduced", "the opposite"),
        ("kept", -0.049, 0.5, "reproduced", ""),
        ("kept", -0.05, 0.5, "not reproduced", "undecided"),
        ("kept", -0.2, -0.06, "not reproduced", "the opposite"),
    ],
)
def test_each_verdict_at_its_edge(expect, low, high, verdict, reason):
    margin = 0.05 if expect in ("same", "kept") else 0.0
    estimate = Estimate((low + high) / 2, 0.1, low, high, 3, 3)
    assert findings._verdict(finding(expect, margin), estimate, {}) == (verdict, reason)


def test_what_builds_on_something_that_is_not_there_cannot_be_shown(judged):
    second = finding(id="two", needs="one")
    down, up = rows({"S": [0.4, 0.41, 0.39]}), rows({"S": [0.6, 0.61, 0.59]})
    assert [o.verdict for o in judged(down, finding(), second)] == [
        "not reproduced",
        "cannot be shown here",
    ]
    assert judged(down, finding(), second)[1].reason == "needs: A is better"
    assert [o.verdict for o in judged(up, finding(), second)] == ["reproduced", "reproduced"]


def test_one_seed_or_none_has_no_verdict(judged):
    (found,) = judged(rows({"S": [0.9]}), finding())
    assert (found.verdict, found.reason) == ("cannot be shown here", "an interval needs two seeds")
    (found,) = judged(rows({"S": [None]}), finding())
    assert (found.verdict, found.reason) == ("cannot be shown here", "not measured")
    assert math.isnan(found.difference.mean)
