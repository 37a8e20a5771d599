"""The rule that judges the findings of claims.py: fixed before any figure was seen, mechanical.

A finding is a difference of two cells and what the paper says of it. Its value for a seed is the
mean of the differences over the sizes; its interval is Student's t over the seeds. Seeds are the
clusters because everything is made anew with them (world, users, labelers, data, training), while
the sizes of a seed share all data; what the draw of test prompts and of samples adds is in the
scatter between seeds already, as each seed has its own.

    more, less   reproduced if the interval excludes 0 on the paper's side
    same         reproduced if the interval lies within +- margin: "no evidence of a difference"
                 is not enough
    kept         reproduced if the lower end is above -margin: no larger loss than that

Otherwise not reproduced, with the side on which 0 was excluded, if it was. A finding that builds on
another (the mix removes the tax) cannot be shown where that one is not; nor can one without an
interval. Intervals are not widened for the number of findings: of those without any effect,
one in forty falls on the paper's side by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from instil.report.study import NOTHING, Verdict
from instil.stats import Estimate, mean_estimate
from instil.study.claims import FINDINGS, Finding, Key, Means


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a finding."""

    finding: Finding
    ours: float
    """Mean over sizes and seeds; so is `theirs`."""
    theirs: float
    difference: Estimate
    by_size: Mapping[str, Estimate]
    """The difference at each size, over seeds."""
    verdict: Verdict
    reason: str


def judge(rows: Iterable[Mapping[str, Any]], sizes: Sequence[str]) -> list[Outcome]:
    """Every finding with its difference and verdict.

    rows  with size, seed, eval, policy, setting, mean
    """
    means: dict[Key, float] = {}
    for row in rows:
        key = (row["size"], row["seed"], row["eval"], row["policy"], row["setting"])
        means[key] = math.nan if row["mean"] is None else float(row["mean"])
    seeds = sorted({seed for _, seed, *_ in means})
    outcomes: dict[str, Outcome] = {}
    for finding in FINDINGS:
        outcomes[finding.id] = _judge_one(finding, means, sizes, seeds, outcomes)
    return list(outcomes.values())


def _judge_one(
    finding: Finding,
    means: Means,
    sizes: Sequence[str],
    seeds: Sequence[int],
    before: Mapping[str, Outcome],
) -> Outcome:
    pairs = {
        (size, seed): (finding.ours.value(means, size, seed), _theirs(finding, means, size, seed))
        for size in sizes
        for seed in seeds
    }
    known = {key: pair for key, pair in pairs.items() if not any(map(math.isnan, pair))}
    if not known:
        absent: Verdict = "cannot be shown here"
        return Outcome(finding, math.nan, math.nan, NOTHING, {}, absent, "not measured")
    by_size = {
        size: mean_estimate([a - b for (s, _), (a, b) in known.items() if s == size])
        for size in sizes
        if any(s == size for s, _ in known)
    }
    # a seed counts only with all the sizes that the finding is measured at
    whole = [seed for seed in seeds if all((size, seed) in known for size in by_size)]
    ours, theirs = ([pair[side] for pair in known.values()] for side in (0, 1))
    differences = [
        fmean(known[size, seed][0] - known[size, seed][1] for size in by_size) for seed in whole
    ]
    difference = mean_estimate(differences) if whole else NOTHING
    verdict, reason = _verdict(finding, difference, before)
    return Outcome(finding, fmean(ours), fmean(theirs), difference, by_size, verdict, reason)


def _theirs(finding: Finding, means: Means, size: str, seed: int) -> float:
    if isinstance(finding.theirs, float):
        return finding.theirs
    return finding.theirs.value(means, size, seed)


def _verdict(
    finding: Finding, found: Estimate, before: Mapping[str, Outcome]
) -> tuple[Verdict, str]:
    """The rule of this file's first lines."""
    if math.isnan(found.low):
        return "cannot be shown here", "an interval needs two seeds"
    if finding.needs and before[finding.needs].verdict != "reproduced":
        return "cannot be shown here", f"needs: {before[finding.needs].finding.claim}"
    holds = {
        "more": found.low > 0,
        "less": found.high < 0,
        "same": -finding.margin <= found.low and found.high <= finding.margin,
        "kept": found.low > -finding.margin,
    }[finding.expect]
    if holds:
        return "reproduced", ""
    opposite = {
        "more": found.high < 0,
        "less": found.low > 0,
        "same": found.low > finding.margin or found.high < -finding.margin,
        "kept": found.high < -finding.margin,
    }[finding.expect]
    return "not reproduced", "the opposite" if opposite else "undecided"
