"""Cells, and that the list of claims can be judged."""

from __future__ import annotations

import math

from instil.config import find
from instil.study.claims import ABSENT, FINDINGS, Cell, of
from instil.study.plan import read_plan
from instil.study.story import MIXES, POLICIES, SCANS

MEANS = {
    ("S", 0, "likert", "a", "all"): 2.0,
    ("S", 0, "likert", "b", "all"): 5.0,
    ("S", 1, "likert", "a", "all"): 3.0,
}


def test_a_cell_is_the_mean_or_the_largest_of_its_policies():
    both = ("a", "b")
    assert Cell("likert", both, "all").value(MEANS, "S", 0) == 3.5
    assert Cell("likert", both, "all", largest=True).value(MEANS, "S", 0) == 5.0
    assert of("likert", "a", "all").value(MEANS, "S", 1) == 3.0


def test_a_cell_with_a_policy_that_was_not_measured_is_nan():
    assert math.isnan(Cell("likert", ("a", "b"), "all", largest=True).value(MEANS, "S", 1))


def test_claims_build_only_on_claims_before_them():
    seen: set[str] = set()
    for finding in FINDINGS:
        assert finding.id not in seen
        assert not finding.needs or finding.needs in seen
        seen.add(finding.id)
    assert all(reason for *_, reason in ABSENT)


def test_a_margin_is_given_where_the_rule_wants_one():
    for finding in FINDINGS:
        assert (finding.margin > 0) == (finding.expect in ("same", "kept")), finding.id


def test_policies_of_the_claims_are_ones_that_the_study_trains():
    best = {f"best-of-{n}" for n in read_plan(find("study")).best_of}
    known = {*POLICIES, *SCANS, *MIXES, *best, "rm"}
    for finding in FINDINGS:
        for cell in (finding.ours, finding.theirs):
            if isinstance(cell, Cell):
                assert set(cell.policies) <= known, finding.id
