"""What stands behind the results: responses to read, who labeled what, the prompts, the compute."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from instil.compute import Stage, measured, training
from instil.records import USE_CASES
from instil.report import figures, paper
from instil.report.figures import Mark
from instil.report.source import Source, in_order, is_number, to_estimate
from instil.report.tables import cell, count, duration, minus, point, power, words
from instil.stats import petaflop_days

Context = dict[str, Any]

SHOWN_PROMPTS = 24
LONGEST_TEXT = 1200  # characters of a prompt or a response on the page


def samples(source: Source) -> Context:
    """The same prompt answered by every policy, spread over the use cases."""
    by_case: dict[str, list[Context]] = defaultdict(list)
    for row in source.samples:
        by_case[str(row.get("use_case") or "other")].append(row)
    order = [c for c in USE_CASES if c in by_case] + sorted(set(by_case) - set(USE_CASES))
    chosen = []
    for nth in range(max(map(len, by_case.values()), default=0)):
        chosen += [by_case[case][nth] for case in order if nth < len(by_case[case])]
    shown = []
    for row in chosen[:SHOWN_PROMPTS]:
        responses = row.get("responses")
        responses = responses if isinstance(responses, dict) else {}
        flags = row.get("flags")
        flags = flags if isinstance(flags, dict) else {}
        shown.append(
            {
                "prompt": _cut(row.get("prompt")),
                "use_case": str(row.get("use_case") or "other"),
                "split": str(row.get("split") or ""),
                "responses": [
                    {"policy": p, "text": _cut(responses[p]), "flags": list(flags.get(p) or [])}
                    for p in in_order(responses)
                ],
            }
        )
    logged = []
    for name in () if shown else in_order(source.runs):
        rows = source.runs[name].samples
        last = [row for row in rows if row.get("step") == rows[-1].get("step")][:SHOWN_PROMPTS]
        if last:
            texts = [(_cut(r.get("prompt")), _cut(r.get("response")), r.get("score")) for r in last]
            logged.append({"name": name, "step": last[0].get("step"), "rows": texts})
    return {"shown": shown, "of": len(source.samples), "logged": logged}


def labelers(source: Source) -> Context:
    """How well labelers agree, and what they were asked to rank."""
    agreement = []
    for name in ("training", "held-out", "between"):
        if estimate := to_estimate(source.agreement.get(name)):
            printed = paper.AGREEMENT.get(name)
            agreement.append({"name": name, "cell": cell(estimate), "paper": printed})
    groups = {labeler.id: labeler.group for labeler in source.labelers}
    sizes = Counter(len(ranking.response_ids()) for ranking in source.rankings)
    places = sum(size * n for size, n in sizes.items())
    tied = sum(len(t) for ranking in source.rankings for t in ranking.tiers if len(t) > 1)
    return {
        "agreement": agreement,
        "rankings": len(source.rankings),
        "pairs": sum(len(ranking.pairs()) for ranking in source.rankings),
        "by_group": sorted(Counter(groups.get(r.labeler_id, "") for r in source.rankings).items()),
        "people": sorted(Counter(groups.values()).items()),
        "sizes_named": [(f"{size} responses", n) for size, n in sorted(sizes.items())],
        "most": max(sizes.values(), default=0),
        "tied": tied / places if places else math.nan,
    }


def intake(source: Source) -> Context:
    """What was read, kept and dropped; the mix of use cases beside Table 1 of the paper."""
    found = source.intake
    counts = {n: _counts(found.get(n)) for n in ("dropped", "splits", "use_cases", "languages")}
    numbers, mix, figure = _counts(found), counts["use_cases"], None
    if total := sum(mix.values()):
        order = [c for c in USE_CASES if c in mix] + sorted(set(mix) - set(USE_CASES))
        rows = []
        for case in order:
            marks = [Mark("ppo-ptx", point(mix[case] / total))]
            if case in paper.USE_CASES:
                marks.append(Mark("paper", point(paper.USE_CASES[case])))
            rows.append((words(case), marks))
        limit = 1.15 * max(m.estimate.mean for _, marks in rows for m in marks)
        figure = figures.dots(rows, (0.0, limit), "Use cases of the prompts kept")
    return {
        "read": numbers.get("read"),
        "kept": numbers.get("kept"),
        "dropped": sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0])),
        "splits": list(counts["splits"].items()),
        "languages": sorted(counts["languages"].items(), key=lambda item: (-item[1], item[0])),
        "figure": figure,
    }


def compute(source: Source) -> Context:
    """Time, memory and operations per stage; what every run was given and stood on."""
    rows, longest = [], max([_value(row, "seconds") for row in source.stages], default=0.0)
    for row in source.stages:
        seconds, flops = _value(row, "seconds"), _value(row, "flops")
        name, params, tokens = (
            str(row.get("stage", "")),
            _value(row, "params"),
            _value(row, "tokens"),
        )
        run = source.runs.get({"pretrain": "base"}.get(name, name))
        steps = measured(name, run.info, run.metrics) if run else None
        # PPO is many passes of several models, so 6ND says nothing of it
        several = steps is not None and bool(steps.phases)
        counted = training(name, params, tokens) if flops and not several else None
        rows.append(
            {
                "name": name,
                "time": duration(seconds),
                "share": 100 * seconds / longest if longest else 0.0,
                "memory": f"{count(_value(row, 'peak_mb'))} MB" if row.get("peak_mb") else "",
                "params": count(params) if params else "",
                "tokens": count(tokens) if tokens else "",
                "flops": power(flops) if flops else "",
                "counted": power(counted.petaflop_days) if counted else "",
                "days": power(petaflop_days(flops)) if flops else "",
                "rate": f"{steps.flops_per_second / 1e9:,.0f}" if steps and steps.seconds else "",
                "phases": _phases(steps) if steps else "",
            }
        )
    flops = sum(_value(row, "flops") for row in source.stages)
    total = {
        "time": duration(sum(map(_waited, source.stages))),
        "flops": power(flops),
        "days": power(petaflop_days(flops)),
    }
    runs = [
        {
            "name": name,
            "command": str(run.info.get("command", "")),
            "facts": [
                (key, str(value))
                for key, value in run.info.items()
                if key not in ("config", "versions", "command")
            ],
            "config": [(key, _plain(value)) for key, value in run.info.get("config", {}).items()],
        }
        for name, run in source.runs.items()
    ]
    versions: dict[str, str] = {}
    for run in source.runs.values():
        if isinstance(found := run.info.get("versions"), dict):
            versions |= {str(key): str(value) for key, value in found.items()}
    return {"rows": rows, "total": total, "runs": runs, "versions": list(versions.items())}


def _phases(stage: Stage) -> str:
    """How the seconds of its steps fall to their parts."""
    whole = sum(stage.phases.values())
    parts = [f"{name} {seconds / whole:.0%}" for name, seconds in stage.phases.items() if whole]
    return ", ".join(parts)


def _waited(row: Mapping[str, Any]) -> float:
    """Of stages side by side each counts only for as long as nothing else was waited for."""
    return _value(row, "waited" if "waited" in row else "seconds")


def _value(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return float(value) if is_number(value) and value is not None else 0.0


def _counts(value: Any) -> dict[str, int]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {str(key): int(n) for key, n in pairs if is_number(n)}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return minus(f"{value:g}") if isinstance(value, float) else str(value)


def _cut(value: Any) -> str:
    text = "" if value is None else str(value)
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]} … ({len(text) - LONGEST_TEXT:,} characters more)"
