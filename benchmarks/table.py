"""Lines of results -> ratios, and the table of RESULTS.md.

Lines belong to one workload when they have the same task, model and data. A side's time is the
median over its lines of the normalised seconds for one sample, so that a peer whose last batch was
left out is not called faster for it. All shares are of our lines' limit for the same samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

Line = dict[str, Any]

COLUMNS = (
    *("workload", "peer", "ours, s", "peer, s", "times as fast", "ours of the limit"),
    *("peer of the limit", "ours, MB", "peer, MB", "memory ratio", "rounds"),
)


def workload(line: Line) -> str:
    """What was done, in words: the same for both sides."""
    data, variant, model = line["data"], line["variant"], line["model"]["name"]
    if line.get("device", "cpu") != "cpu":
        model += f" on {line['device']}"
    ends = "no EOS" if variant.endswith("none") else "geometric EOS"
    match line["task"]:
        case "sft":
            return f"SFT {model}, {data['samples']} samples"
        case "rm":
            return f"RM {model}, K = {data['k']}, {data['prompts']} rankings"
        case "dpo":
            return f"DPO {model}, {data['pairs']} pairs"
        case "generate":
            return f"generate {model}, {data['prompts']} x {data['max_new']}, {ends}"
        case "ppo":
            size = f"{data['episodes']} x {data['response_length']}"
            return f"PPO {model}, {size}, epochs {data['num_ppo_epochs']}, {ends}"
    return f"{line['task']} {model}"


def summarise(lines: Iterable[Line]) -> list[Line]:
    """A summary for each workload and variant of the peer; without a peer for our side alone."""
    groups: dict[str, tuple[list[Line], dict[str, list[Line]]]] = {}
    for line in lines:
        if "seconds_norm" not in line or line.get("profiled"):
            continue
        mine, theirs = groups.setdefault(workload(line), ([], {}))
        if _is_ours(line):
            mine.append(line)
        else:
            theirs.setdefault(line["variant"], []).append(line)
    return [
        _compare(name, mine, variant, peer)
        for name, (mine, theirs) in groups.items()
        for variant, peer in (theirs or {"": []}).items()
    ]


def markdown(lines: Iterable[Line]) -> str:
    """The summaries as a table."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for s in summarise(lines):
        spread = ""
        if s.get("speedup_rounds"):
            least, most = min(s["speedup_rounds"]), max(s["speedup_rounds"])
            spread = f" ({least:.2f} to {most:.2f})"
        rows.append(
            (
                s["summary"],
                s.get("peer_variant", ""),
                _cell(s, "ours_seconds_norm", ".2f"),
                _cell(s, "peer_seconds_norm", ".2f"),
                _cell(s, "speedup", ".2f") + spread,
                _cell(s, "ours_of_limit", ".2f"),
                _cell(s, "peer_of_limit", ".2f"),
                _cell(s, "ours_peak_rss_mb", ".0f"),
                _cell(s, "peer_peak_rss_mb", ".0f"),
                _cell(s, "memory_ratio", ".2f"),
                _cell(s, "rounds", "d"),
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _compare(name: str, ours: list[Line], variant: str, peer: list[Line]) -> Line:
    """One row. Seconds are for the samples of our window (of the peer's, where we have none)."""
    samples = (ours or peer)[0]["samples"]
    found: Line = {"summary": name, "rounds": min(len(side) for side in (ours, peer) if side)}
    for side, lines in (("ours", ours), ("peer", peer)):
        if lines:
            found[f"{side}_seconds_norm"] = _median(lines, lambda x: _each(x) * samples)
            found[f"{side}_peak_rss_mb"] = _median(lines, lambda x: x["peak_rss_mb"])
            found[f"{side}_versions"] = lines[-1]["versions"]
    if variant:
        found["peer_variant"] = variant
    if ours:
        limit = _median(ours, lambda x: x["limit_seconds"])
        for side in ("ours", "peer"):
            if f"{side}_seconds_norm" in found:
                found[f"{side}_of_limit"] = limit / found[f"{side}_seconds_norm"]
    elif peer:
        found["peer_of_limit"] = _median(peer, lambda x: x["mfu"])
    if ours and peer:
        found["speedup"] = found["peer_seconds_norm"] / found["ours_seconds_norm"]
        turns = {mine.get("round"): mine for mine in ours}
        found["speedup_rounds"] = [
            round(_each(theirs) / _each(turns[theirs["round"]]), 3)
            for theirs in peer
            if theirs.get("round") in turns
        ]
        found["memory_ratio"] = found["ours_peak_rss_mb"] / found["peer_peak_rss_mb"]
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


def _is_ours(line: Line) -> bool:
    return line.get("side") == "instil"


def _each(line: Line) -> float:
    """Normalised seconds for one sample."""
    return float(line["seconds_norm"] / line["samples"])


def _median(lines: list[Line], value: Callable[[Line], float]) -> float:
    return statistics.median(map(value, lines))


def _cell(line: Line, name: str, form: str) -> str:
    return format(line[name], form) if name in line else ""
