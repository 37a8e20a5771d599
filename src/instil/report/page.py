"""From what a directory holds to what the page says; the words stand in page.html.

Each function prepares one section and returns plain values. What was not run is None or empty, and
the template says so in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from instil.report import figures, paper
from instil.report.details import compute, intake, labelers, samples
from instil.report.figures import Mark
from instil.report.source import RunFiles, Source, in_order, is_number, to_estimate
from instil.report.tables import (
    MEASURES,
    Line,
    beyond_chance,
    cell,
    number,
    point,
    policy_label,
    table,
    words,
)
from instil.report.template import fill
from instil.stats import Estimate, best_of_n_kl

Context = dict[str, Any]

PPO_CURVES = (
    ("objective/scores", "Reward model score", False),
    ("objective/kl", "KL to the start, nats per response", False),
    ("completions/mean_length", "Length of response, tokens", False),
    ("completions/clipped_ratio", "Responses cut off at the limit", True),
    ("val/explained_var", "Returns explained by the value function", False),
)


def render(source: Source) -> str:
    """The whole page."""
    context = {
        "name": source.name,
        "title": f"{source.name} · instil report",
        "single": next(iter(source.runs)) if source.single else "",
        "paper_tax": paper.TAX,
        "headline": headline(source),
        "training": training(source),
        "reward": reward_model(source),
        "tax": table(source, ("public/",)),
        "measures": table(source, MEASURES),
        "samples": samples(source),
        "supervised": supervised(source),
        "labelers": labelers(source),
        "intake": intake(source),
        "compute": compute(source),
    }
    return fill(
        "page.html", context, policy=policy_label, words=words, share=number, unbroken=_unbroken
    )


def headline(source: Source) -> Context:
    """Who is preferred to SFT, and three numbers with the base model beside them."""
    policies = source.policies(("win_rate",))
    settings = source.settings("win_rate")
    # held-out labelers first: they had no part in training
    settings = sorted(settings, key=lambda s: (s != "held-out", s))
    rows = []
    for policy in policies:
        found = [(s, source.find("win_rate", policy, s)) for s in settings]
        marks = [Mark(policy, e, hollow=s != settings[0]) for s, e in found if e]
        if policy in paper.WIN_RATE:
            marks.append(Mark("paper", point(paper.WIN_RATE[policy])))
        rows.append((policy_label(policy), marks))
    title = "Share of prompts on which a policy is preferred to SFT"
    figure = figures.dots(rows, (0.0, 1.0), title, (0.5, "as good as SFT")) if rows else None
    best = next((p for p in ("ppo-ptx", "ppo") if p in policies), "")
    won = source.find("win_rate", best, settings[0]) if best else None
    cards = [
        _card(source, "Preferred to SFT", "win_rate", settings[:1], "more"),
        _card(source, "True and informative", "truthful_informative", ["all"], "more"),
        _card(source, "Hallucination, closed domain", "hallucination", [], "less"),
    ]
    return {
        "figure": figure,
        "settings": settings,
        "verdict": _verdict(best, won, settings[0] if settings else ""),
        "cards": cards,
        "table": table(source, ("win_rate", "win_rate_greedy")),
    }


def training(source: Source) -> Context:
    """What PPO did step by step, and what each nat of KL bought."""
    runs = {name: run for name in ("ppo", "ppo-ptx") if (run := source.runs.get(name))}
    panels = []
    for metric, title, percent in PPO_CURVES:
        if lines := _curves(runs, metric):
            panels.append({"title": title, "figure": figures.curves(lines, title, percent)})
    paths = {name: _pairs(run, "objective/kl", "objective/scores") for name, run in runs.items()}
    points = {}
    for policy in ("sft", "best-of-16", "ppo", "ppo-ptx"):
        kl, score = source.find("kl", policy), source.find("rm_score", policy)
        spent = kl.mean if kl else {"sft": 0.0, "best-of-16": best_of_n_kl(16)}.get(policy)
        if score and spent is not None:
            points[policy] = (spent, score.mean)
    frontier = None
    if any(kls for kls, _ in paths.values()) or points:
        title = "Reward model score against the square root of the KL"
        frontier = figures.frontier(paths, points, title, "√KL, square root of nats per response")
    return {
        "runs": list(runs),
        "missing": [name for name in ("ppo", "ppo-ptx") if name not in runs],
        "status": {name: str(run.info.get("status", "unknown")) for name, run in runs.items()},
        "panels": panels,
        "frontier": frontier,
        "points": list(points),
        "marks": in_order({*points, *runs}),
    }


def reward_model(source: Source) -> Context:
    """Accuracy by split and group beside agreement, a judge that knows the truth, and length."""
    run = source.runs.get("rm")
    found: dict[str, dict[str, Estimate]] = {}
    for row in run.accuracy if run else []:
        group = found.setdefault(f"{row.get('split', '')} {row.get('group', '')}".strip(), {})
        for role, name in (("rm", "model"), ("agreement", "agreement"), ("longer", "longer")):
            if estimate := to_estimate(row.get(name)):
                group[role] = estimate
    for result in source.results:
        if result.eval == "rm_ceiling" and result.policy in ("rm", "truth"):
            found.setdefault(result.setting, {}).setdefault(result.policy, result.estimate)
    roles = ("rm", "agreement", "truth", "longer")
    rows = [
        (name, [Mark(role, group[role]) for role in roles if role in group])
        for name, group in found.items()
    ]
    for name, marks in rows:
        split, _, group_name = name.partition(" ")
        if split != "train" and group_name in paper.RM_ACCURACY:
            mean, half = paper.RM_ACCURACY[group_name]
            marks.append(Mark("paper", Estimate(mean, math.nan, mean - half, mean + half, 0, 0)))
    rows = [(name.replace(" ", ", "), marks) for name, marks in rows]
    title = "Share of pairs ordered as the labeler did"
    low = min((e.mean for group in found.values() for e in group.values()), default=0.5)
    figure = (
        figures.dots(rows, (min(0.4, low - 0.1), 1.0), title, (0.5, "chance")) if rows else None
    )
    lines = [
        Line(name, "", [cell(group[r]) if r in group else None for r in roles])
        for name, group in found.items()
    ]
    panels = []
    for metric, label in (("loss", "Ranking loss"), ("accuracy", "Accuracy on training pairs")):
        if run and (curve := _curves({"rm": run}, metric)):
            lines_shown = {"ppo-ptx": curve["rm"]}
            panels.append({"title": label, "figure": figures.curves(lines_shown, label)})
    beside = (run.info.get("config", {}).get("likelihood") if run else None) or ""
    return {
        "figure": figure,
        "lines_table": lines,
        "panels": panels,
        "likelihood": Path(str(beside)).name,
    }


def supervised(source: Source) -> Context:
    """Validation loss and reward model score over epochs, and the pretraining loss."""
    runs = {name: run for name in ("sft", "ppo-init") if (run := source.runs.get(name))}
    panels, shown = [], set()
    for metric, title in (
        ("eval/loss", "Validation loss"),
        ("eval/rm_score", "Reward model score"),
    ):
        if lines := {name: line for name, run in runs.items() if (line := _epochs(run, metric))}:
            figure = figures.curves(lines, title, x="epoch", points=True)
            panels.append({"title": title, "figure": figure})
            shown |= set(lines)
    base = source.runs.get("base")
    for metric, title in (("eval/loss", "validation loss"), ("loss", "training loss")):
        if base and (lines := _curves({"base": base}, metric)):
            title = f"Pretraining: {title}"
            panels.append({"title": title, "figure": figures.curves(lines, title)})
            break
    return {"panels": panels, "runs": in_order(shown), "sft": "sft" in runs}


def _card(source: Source, label: str, name: str, settings: list[str], better: str) -> Context:
    """One large number of the last policy that has it, and the base model's beside it."""
    for policy in ("ppo-ptx", "ppo"):
        for setting in settings + source.settings(name):
            if found := source.find(name, policy, setting):
                base = source.find(name, "base", setting)
                # an answer that says nothing makes nothing up: the share answered stands beside
                also = "closed_follows" if name == "hallucination" else ""
                answered = source.find(also, policy)
                return {
                    "label": label,
                    "policy": policy,
                    "setting": setting,
                    "mean": number(found.mean),
                    "cell": cell(found),
                    "at": _percent(found.mean),
                    "low": _percent(found.low),
                    "high": _percent(found.high),
                    "base": cell(base) if base else None,
                    "base_at": _percent(base.mean) if base else None,
                    "beyond": beyond_chance(found, base) if base else 0,
                    "better": better,
                    "line": name == "win_rate",
                    "answered": number(answered.mean) if answered else "",
                }
    return {"label": label, "policy": ""}


def _verdict(policy: str, won: Estimate | None, setting: str) -> str:
    """The finding in one sentence, no stronger than the interval allows."""
    if won is None:
        return "No policy has been compared with SFT yet."
    who = f"{setting.capitalize()} labelers" if setting else "Labelers"
    subject, share = policy_label(policy), number(won.mean)
    if not (math.isfinite(won.low) and math.isfinite(won.high)):
        return f"{who} prefer {subject} to SFT on {share} of prompts; too few for an interval."
    if won.low <= 0.5 <= won.high:
        return f"{who} do not clearly prefer {subject} or SFT: {subject} wins {share} of prompts."
    if won.mean < 0.5:
        return f"{who} prefer SFT: {subject} wins only {share} of prompts."
    return f"{who} prefer {subject} to SFT on {share} of prompts."


def _unbroken(text: str) -> Markup:
    """Keeps the name PPO-ptx on one line of a headline."""
    return escape(text).replace("PPO-ptx", Markup('<span class="whole">PPO-ptx</span>'))


def _curves(
    runs: Mapping[str, RunFiles], metric: str
) -> dict[str, tuple[list[float], list[float]]]:
    found = {name: run.series(metric) for name, run in runs.items()}
    return {name: series for name, series in found.items() if series[1]}


def _epochs(run: RunFiles, metric: str) -> tuple[list[float], list[float]] | None:
    """A metric over passes through the data; None if it was not logged or the passes not told."""
    steps, values = run.series(metric)
    epochs, last = run.info.get("config", {}).get("epochs"), run.series("step")[0]
    if not values or not is_number(epochs):
        return None
    return [step * float(epochs) / max(last) for step in steps], values


def _pairs(run: RunFiles, first: str, second: str) -> tuple[list[float], list[float]]:
    """Two metrics of the steps that have both."""
    rows = [row for row in run.metrics if is_number(row.get(first)) and is_number(row.get(second))]
    return [float(row[first]) for row in rows], [float(row[second]) for row in rows]


def _percent(value: float) -> float:
    """A place on a scale from 0 to 100, for style.css."""
    return round(100 * min(1.0, max(0.0, value)), 2) if math.isfinite(value) else 0.0
