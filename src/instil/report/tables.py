"""Numbers as people read them: cells with intervals, tables of policies by measures, durations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil.report import paper
from instil.report.source import Source
from instil.stats import Estimate

LABELS = {
    "base": "base",
    "base-prompted": "base, prompted",
    "sft": "SFT",
    "best-of-16": "best of 16",
    "ppo-init": "PPO start",
    "ppo": "PPO",
    "ppo-ptx": "PPO-ptx",
    "rm": "reward model",
}

LOWER_IS_BETTER = ("hallucination", "rude", "flag/")
HIGHER_IS_BETTER = (
    "truthful",
    "follows",
    "closed_follows",
    "likert",
    "language2",
    "constraint",
    "public/",
    "win_rate",
)

NAMES = {
    "truthful": "truthful",
    "truthful_informative": "truthful and informative",
    "truthful_sampled": "truthful, at temperature 1",
    "truthful_informative_sampled": "truthful and informative, at temperature 1",
    "follows": "did what was asked",
    "closed_follows": "did what was asked, closed domain",
    "hallucination": "hallucination",
    "rude": "rude",
    "language2": "instruction in the second language",
    "constraint": "explicit constraint kept",
    "likert": "overall rating, 1 to 7",
    "length": "length of response",
    "kl": "KL to the SFT policy",
    "rm_score": "reward model score",
}
MEASURES = (
    "likert",
    "truthful",
    "truthful_informative",
    "truthful_sampled",
    "truthful_informative_sampled",
    "follows",
    "closed_follows",
    "hallucination",
    "rude",
    "language2",
    "constraint",
    "flag/",
    "length",
    "kl",
    "rm_score",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table, ready to be read."""

    text: str
    interval: str = ""
    n: int = 0
    verdict: str = ""
    """Against the base model, only beyond chance: "better", "worse", "fall", "rise" or nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table; a policy that was not measured has None."""

    label: str
    note: str
    cells: list[Cell | None]
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Measures by policies."""

    columns: list[str]
    lines: list[Line]


def policy_label(policy: str) -> str:
    """How a policy is called on the page."""
    return LABELS.get(policy, policy)


def cell(estimate: Estimate, unit: str = "share", verdict: str = "") -> Cell:
    """A mean with its interval: shares in per cent, everything else with two digits or three."""
    ends = (estimate.low, estimate.high)
    if unit == "share" and 0 <= estimate.mean <= 1:  # no share lies outside, whatever t says
        ends = (max(0.0, ends[0]), min(1.0, ends[1]))
    low, high = (number(end, unit, bare=True) for end in ends)
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    interval = f"{low} to {high}" if known else ""
    return Cell(number(estimate.mean, unit, bare=unit != "share"), interval, estimate.n, verdict)


def number(value: float, unit: str = "share", bare: bool = False) -> str:
    """A number in its unit; `bare` leaves the unit out."""
    if unit == "share":
        digits = 100 * value
        text = f"{digits:.0f}" if abs(digits) >= 9.95 or digits == 0 else f"{digits:.1f}"
        return minus(text) if bare else f"{minus(text)}\u00a0%"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else ""
    text = minus(text or f"{value:.2f}")
    return f"{text} {unit}" if unit in ("nats", "words") and not bare else text


def minus(text: str) -> str:
    """A number with a true minus sign."""
    return text.replace("-", "−")


def beyond_chance(ours: Estimate, base: Estimate) -> int:
    """1 if ours is higher, -1 if lower, 0 if the 95 % interval of the difference holds 0.

    The two are taken as independent, which errs towards 0 when they share their items.
    """
    spread = 1.96 * math.hypot(ours.stderr, base.stderr)
    if not math.isfinite(spread) or abs(ours.mean - base.mean) <= spread:
        return 0
    return 1 if ours.mean > base.mean else -1


def verdict(name: str, ours: Estimate, base: Estimate | None) -> str:
    """What a difference to the base model means for one eval."""
    side = beyond_chance(ours, base) if base else 0
    if not side:
        return ""
    if name.startswith("public/"):
        return "rise" if side > 0 else "fall"
    if name.startswith(LOWER_IS_BETTER):
        return "worse" if side > 0 else "better"
    if name.startswith(HIGHER_IS_BETTER):
        return "better" if side > 0 else "worse"
    return ""


def table(source: Source, names: Sequence[str]) -> Table | None:
    """Evals by policies; a name that ends in "/" takes every eval that begins with it."""
    found = list(dict.fromkeys(r.eval for r in source.results))
    chosen = [
        name
        for wanted in names
        for name in found
        if name == wanted or (wanted.endswith("/") and name.startswith(wanted))
    ]
    if not chosen:
        return None
    policies = source.policies(chosen)
    lines = []
    for name in chosen:
        settings = source.settings(name)
        main = "all" if "all" in settings else settings[0]
        for setting in settings:
            cells = [_cell(source, name, setting, policy) for policy in policies]
            printed = paper.MEASURES.get(f"{name}/{setting}") or ""
            printed = printed or (paper.MEASURES.get(name, "") if setting == main else "")
            unit = next(r.unit for r in source.results if (r.eval, r.setting) == (name, setting))
            notes = [setting, unit if unit in ("nats", "words") else ""]
            if len(sizes := {c.n for c in cells if c}) == 1:  # said once, not in every cell
                notes.append(f"n {sizes.pop():,}")
                cells = [replace(c, n=0) if c else None for c in cells]
            lines.append(Line(_name(name), " · ".join(filter(None, notes)), cells, printed))
    return Table([policy_label(p) for p in policies], lines)


def point(mean: float) -> Estimate:
    """A number that has no interval."""
    return Estimate(mean, math.nan, math.nan, math.nan, 0, 0)


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s, 12.3 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float) -> str:
    """1,234 or 1.2 M: three digits are enough to see the size of a thing."""
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:,.0f}"


def power(value: float) -> str:
    """3.2 × 10⁻⁶, for numbers of any size."""
    if value == 0 or 0.01 <= abs(value) < 1e4:
        return f"{value:.3g}"
    digits, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def words(name: str) -> str:
    """A name of a field as words."""
    known = {"qa": "QA", "pii": "PII", "rm": "RM", "sft": "SFT", "ppo": "PPO"}
    return " ".join(known.get(word, word) for word in name.split("_"))


def _name(name: str) -> str:
    family, _, rest = name.partition("/")
    if family == "flag":
        return f"flagged: {words(rest)}"
    return NAMES.get(name, words(rest) if family == "public" else words(name))


def _cell(source: Source, name: str, setting: str, policy: str) -> Cell | None:
    for result in source.results:
        if (result.eval, result.setting, result.policy) == (name, setting, policy):
            base = source.find(name, "base", setting) if policy != "base" else None
            compared = verdict(name, result.estimate, base)
            return cell(result.estimate, result.unit or "share", compared)
    return None
