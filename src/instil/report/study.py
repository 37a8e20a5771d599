"""What came of a study: the findings as a Markdown table, and as a page with figures.

Both are made of two files of the study's directory: findings.json has every finding with its
verdict, results.jsonl the measurements that stand behind them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from instil.errors import InstilError, one_line
from instil.jsonl import iter_objects, reading
from instil.report.source import to_estimate
from instil.report.study_figures import all_figures, glance, over_seeds
from instil.report.tables import cell, count, minus, policy_label
from instil.report.template import fill
from instil.stats import Estimate

Verdict = Literal["reproduced", "not reproduced", "cannot be shown here"]
Row = Mapping[str, Any]
POLICIES = ("base", "base-prompted", "sft-1", "sft", "ppo-init", "ppo", "ppo-ptx")
LABELS = {"sft-1": "SFT, 1 epoch"}
MEASURES: Sequence[tuple[str, str, str, str]] = (
    ("preferred to the largest SFT", "wins_over_largest_sft", "", "share"),
    ("overall rating, 1 to 7", "likert", "held-out", "points"),
    ("did what was asked", "follows", "all", "share"),
    ("true and informative, T = 0", "truthful_informative", "all", "share"),
    ("true and informative, T = 1", "truthful_informative_sampled", "all", "share"),
    ("hallucination, closed domain", "hallucination", "", "share"),
    ("closed domain: did what was asked", "closed_follows", "", "share"),
    ("rude, asked nothing", "rude", "basic", "share"),
    ("rude, asked to be polite", "rude", "respectful", "share"),
    ("rude, asked to be rude", "rude", "biased", "share"),
    ("second language", "language2", "", "share"),
    ("public tasks, mean of four", "public_mean", "", "share"),
    ("reading", "public/reading", "", "share"),
    ("cloze", "public/cloze", "", "share"),
    ("mood", "public/mood", "", "share"),
    ("translation", "public/translation", "", "share"),
    ("KL to PPO's start, nats", "kl", "ppo-init", "nats"),
    ("reward model score", "rm_score", "", "score"),
    ("gold", "gold", "", "score"),
)
"""What it is called, eval, setting, unit."""
VERDICTS: Sequence[Verdict] = ("reproduced", "not reproduced", "cannot be shown here")
NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)


AGAIN = (
    "run the command that made it again: `instil study` does only what is missing, and then writes "
    "this file anew"
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a finding, as findings.json has it; null is what was not measured."""

    id: str = ""
    claim: str
    paper: str
    verdict: Verdict
    reason: str = ""
    unit: Literal["share", "points", "nats", "score"] = "share"
    ours: float | None = None
    """Mean over sizes and seeds; so is `theirs`."""
    theirs: float | None = None
    overall: Mapping[str, float | None] = {}
    """The difference, over seeds and sizes."""
    by_size: Mapping[str, Mapping[str, float | None]] = {}

    def difference(self, size: str = "") -> Estimate:
        """Over all sizes, or at one, with nan for what is not known."""
        return to_estimate(self.by_size.get(size) if size else self.overall) or NOTHING


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """findings.json."""

    sizes: tuple[str, ...]
    """The smallest first."""
    seeds: int
    scan_size: str
    reward_size: str
    findings: tuple[Outcome, ...]


class _Measured(msgspec.Struct):
    """What the page needs of a row of results.jsonl."""

    size: str
    params: int
    seed: int
    eval: str
    policy: str
    setting: str
    mean: float | None


@dataclass(frozen=True, slots=True)
class Study:
    """What a study's directory says."""

    found: Findings
    rows: Sequence[Row]
    """Of results.jsonl: size, params, seed, eval, policy, setting, mean."""


def read(folder: Path) -> Study:
    """The two files of a study, checked."""
    path = folder / "findings.json"
    with reading(path) as file:
        raw = file.read()
    try:
        found = msgspec.json.decode(raw, type=Findings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InstilError(f"{path}: {one_line(error)}; {AGAIN}") from error
    rows = []
    path = folder / "results.jsonl"
    for number, row in iter_objects(path):
        try:
            msgspec.convert(row, _Measured)
        except msgspec.ValidationError as error:
            raise InstilError(f"{path}:{number}: {one_line(error)}; {AGAIN}") from error
        rows.append(row)
    return Study(found, rows)


def markdown(study: Study) -> str:
    """Findings, then the means that stand behind them."""
    sizes = study.found.sizes
    lines = [
        summary(study),
        "",
        f"| Finding | Paper | Here | Difference | {' | '.join(sizes)} | Verdict |",
        "| --- | --- | --- | --- |" + " --- |" * (len(sizes) + 1),
    ]
    for line in findings(study.found):
        verdict = f"**{line['verdict']}**" + (f" ({line['reason']})" if line["reason"] else "")
        cells = [line["claim"], line["paper"], line["here"], line["difference"]]
        lines.append("| " + " | ".join([*cells, *line["sizes"], verdict]) + " |")
    table = means(study)
    lines += ["", "Means over seeds, with 95 % intervals over seeds:", ""]
    lines.append("| Measure | Size | " + " | ".join(table["columns"]) + " |")
    lines.append("| --- | --- |" + " --- |" * len(table["columns"]))
    for line in table["lines"]:
        lines.append("| " + " | ".join([line["measure"], line["size"], *line["cells"]]) + " |")
    return "\n".join(lines) + "\n"


def render(study: Study) -> str:
    """The page."""
    found = study.found
    counts = Counter(outcome.verdict for outcome in found.findings)
    context = {
        "title": "instil study",
        "summary": summary(study),
        "counts": [(verdict, counts[verdict]) for verdict in VERDICTS],
        "total": len(found.findings),
        "sizes": found.sizes,
        "findings": findings(found),
        "glance": glance(
            [(one.id, one.verdict, one.difference()) for one in found.findings if _is_share(one)]
        ),
        "figures": all_figures(study.rows, found.scan_size, found.reward_size),
        "means": means(study),
    }
    return fill("study.html", context)


def summary(study: Study) -> str:
    """What was run, in one sentence."""
    found = study.found
    params = {row["size"]: row["params"] for row in study.rows}
    sizes = ", ".join(f"{size} {count(params[size])}" for size in found.sizes if size in params)
    counts = Counter(outcome.verdict for outcome in found.findings)
    reasons = Counter(outcome.reason for outcome in found.findings)
    return (
        f"Parameters: {sizes}. Seeds: {found.seeds}. Reproduced: {counts['reproduced']} of "
        f"{len(found.findings)} findings; not reproduced: {counts['not reproduced']}, of "
        f"them the opposite: {reasons['the opposite']}, undecided: {reasons['undecided']}. "
        "Differences with 95 % intervals over seeds, of shares in percentage points (pp)."
    )


def findings(found: Findings) -> list[dict[str, Any]]:
    """A line for each finding, as text."""
    return [
        {
            "claim": one.claim,
            "paper": one.paper,
            "here": ""
            if one.ours is None or one.theirs is None
            else f"{level(one.ours, one.unit)} against {level(one.theirs, one.unit)}",
            "difference": difference(one.difference(), one.unit),
            "sizes": [difference(one.difference(size), one.unit) for size in found.sizes],
            "verdict": one.verdict,
            "reason": one.reason,
        }
        for one in found.findings
    ]


def means(study: Study) -> dict[str, Any]:
    """Every measure of every policy at every size, as text."""
    lines = []
    for label, name, setting, unit in MEASURES:
        found = {policy: over_seeds(study.rows, name, policy, setting) for policy in POLICIES}
        for size in study.found.sizes:
            cells = [_cell(found[policy].get(size), unit) for policy in POLICIES]
            if any(cells):
                lines.append({"measure": label, "size": size, "cells": cells})
    return {"columns": [LABELS.get(p) or policy_label(p) for p in POLICIES], "lines": lines}


def level(value: float, unit: str) -> str:
    """A mean: shares in per cent."""
    return f"{100 * value:.0f}\u00a0%" if unit == "share" else minus(f"{value:.2f}")


def difference(found: Estimate, unit: str) -> str:
    """A difference with its interval; of shares in percentage points."""
    if math.isnan(found.mean):
        return ""
    scale, digits, name = (100, 1, "\u00a0pp") if unit == "share" else (1, 2, "")
    text = minus(f"{scale * found.mean:+.{digits}f}") + name
    if math.isnan(found.low):
        return text
    low, high = (minus(f"{scale * end:+.{digits}f}") for end in (found.low, found.high))
    return f"{text} [{low},\u00a0{high}]"


def _is_share(one: Outcome) -> bool:
    return one.unit == "share" and math.isfinite(one.difference().low)


def _cell(found: Estimate | None, unit: str) -> str:
    if found is None:
        return ""
    made = cell(found, unit)
    return f"{made.text} [{made.interval}]" if made.interval else made.text
