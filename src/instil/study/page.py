"""The findings as a Markdown table for a document, and as one HTML page with figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from instil.report.tables import cell, count, minus, policy_label
from instil.stats import Estimate
from instil.study.claims import ABSENT
from instil.study.figures import all_figures, glance, over_seeds
from instil.study.findings import Outcome, Verdict
from instil.study.plan import Plan

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


def markdown(outcomes: Sequence[Outcome], plan: Plan, rows: Sequence[Row]) -> str:
    """Findings, then the means that stand behind them."""
    lines = [
        summary(outcomes, plan, rows),
        "",
        f"| Finding | Paper | Here | Difference | {' | '.join(plan.sizes)} | Verdict |",
        "| --- | --- | --- | --- |" + " --- |" * (len(plan.sizes) + 1),
    ]
    for line in findings(outcomes, plan):
        verdict = f"**{line['verdict']}**" + (f" ({line['reason']})" if line["reason"] else "")
        cells = [line["claim"], line["paper"], line["here"], line["difference"]]
        lines.append("| " + " | ".join([*cells, *line["sizes"], verdict]) + " |")
    table = means(plan, rows)
    lines += ["", "Means over seeds, with 95 % intervals over seeds:", ""]
    lines.append("| Measure | Size | " + " | ".join(table["columns"]) + " |")
    lines.append("| --- | --- |" + " --- |" * len(table["columns"]))
    for line in table["lines"]:
        lines.append("| " + " | ".join([line["measure"], line["size"], *line["cells"]]) + " |")
    return "\n".join(lines) + "\n"


def html(outcomes: Sequence[Outcome], plan: Plan, rows: Sequence[Row]) -> str:
    """One page without script that loads nothing."""
    environment = Environment(
        loader=PackageLoader("instil.study", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = files("instil.report").joinpath("style.css").read_text(encoding="utf-8")
    counts = Counter(outcome.verdict for outcome in outcomes)
    counts["cannot be shown here"] += len(ABSENT)
    context = {
        "style": Markup(style),
        "summary": summary(outcomes, plan, rows),
        "counts": [(verdict, counts[verdict]) for verdict in VERDICTS],
        "total": len(outcomes) + len(ABSENT),
        "sizes": plan.sizes,
        "findings": findings(outcomes, plan),
        "glance": glance(outcomes),
        "figures": all_figures(rows, plan.scan_size, plan.reward_size),
        "means": means(plan, rows),
    }
    return environment.get_template("page.html").render(context).lstrip()


def summary(outcomes: Sequence[Outcome], plan: Plan, rows: Sequence[Row]) -> str:
    """What was run, in one sentence."""
    params = {row["size"]: row["params"] for row in rows}
    sizes = ", ".join(f"{size} {count(params[size])}" for size in plan.sizes if size in params)
    counts = Counter(outcome.verdict for outcome in outcomes)
    reasons = Counter(outcome.reason for outcome in outcomes)
    return (
        f"Parameters: {sizes}. Seeds: {len(plan.seeds)}. Reproduced: {counts['reproduced']} of "
        f"{len(outcomes) + len(ABSENT)} findings; not reproduced: {counts['not reproduced']}, of "
        f"them the opposite: {reasons['the opposite']}, undecided: {reasons['undecided']}. "
        "Differences with 95 % intervals over seeds, of shares in percentage points (pp)."
    )


def findings(outcomes: Sequence[Outcome], plan: Plan) -> list[dict[str, Any]]:
    """A line for each finding, as text; those without a counterpart at the end."""
    lines: list[dict[str, Any]] = []
    for outcome in outcomes:
        unit = outcome.finding.unit
        here = ""
        if math.isfinite(outcome.ours):
            here = f"{level(outcome.ours, unit)} against {level(outcome.theirs, unit)}"
        lines.append(
            {
                "claim": outcome.finding.claim,
                "paper": outcome.finding.paper,
                "here": here,
                "difference": difference(outcome.difference, unit),
                "sizes": [
                    difference(outcome.by_size[size], unit) if size in outcome.by_size else ""
                    for size in plan.sizes
                ],
                "verdict": outcome.verdict,
                "reason": outcome.reason,
            }
        )
    for claim, paper, reason in ABSENT:
        nothing = {"here": "", "difference": "", "sizes": [""] * len(plan.sizes)}
        verdict = {"verdict": "cannot be shown here", "reason": reason}
        lines.append({"claim": claim, "paper": paper, **nothing, **verdict})
    return lines


def means(plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """Every measure of every policy at every size, as text."""
    lines = []
    for label, name, setting, unit in MEASURES:
        found = {policy: over_seeds(rows, name, policy, setting) for policy in POLICIES}
        for size in plan.sizes:
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


def _cell(found: Estimate | None, unit: str) -> str:
    if found is None:
        return ""
    made = cell(found, unit)
    return f"{made.text} [{made.interval}]" if made.interval else made.text
