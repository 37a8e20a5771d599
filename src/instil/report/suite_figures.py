"""Figures of `instil eval`: rows of dots with 95 % intervals, one dot a model, in any unit.

As in figures.py, which draws the demo's; here a row's name stands above its dots, because tasks
have long names and there may be many models, and models may have any name: known policies keep
their colour and marker, others get one of `PALETTE` by their place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from instil.report.figures import COLOURS, MARKERS, STYLE, Mark, axes_of, to_svg
from instil.report.source import POLICIES, to_estimate
from instil.report.suite_tables import (
    SIGNIFICANT,
    TASKS,
    UNITS,
    Key,
    Results,
    amount,
    is_judged,
    label,
    measure_name,
    setting_name,
    title,
)
from instil.report.tables import minus
from instil.stats import Estimate

PALETTE = {
    "other-1": ("#b8326f", "v"),
    "other-2": ("#1c7fa6", "h"),
    "other-3": ("#66751b", "p"),
    "other-4": ("#4d4fb8", ">"),
    "other-5": ("#7d4d2c", "<"),
    "other-6": ("#a03a9c", "d"),
}
"""Colour and marker of models that are no known policies; style.css has the same for the page."""

SECTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "truth": {"truthfulqa": ("true",), "truthfulqa_mc": ("mc1",)},
    "toxicity": {"real_toxicity": ("toxic",)},
    "bias": {"winogender": (), "crows_pairs": ("stereotype",)},
}
"""Section -> task -> measures that its figures show beside the main one."""

SIZES = {"*": 11.0, "s": 6.0}
SIZES |= dict.fromkeys("^v<>", 7.5)
"""Points across; these look as large as a circle of 6.5."""
ROW, DOT = 21.0, 8.5  # points: a row without its dots, and what each dot adds
LONGEST = 48  # letters of a name that fit into the width


def roles(models: Sequence[str]) -> dict[str, str]:
    """Model -> under which name its colour and marker are known; more than six others share."""
    found: dict[str, str] = {}
    for model in models:
        known = model.lower().replace("_", "-")
        free = known in POLICIES and known not in found.values()
        others = sum(role in PALETTE for role in found.values())
        found[model] = known if free else f"other-{others % len(PALETTE) + 1}"
    return found


def preference(results: Results, roles: Mapping[str, str]) -> Markup | None:
    """How often a judge prefers each model to what it is compared with."""
    keys = results.keys(is_judged)
    several = len({(key.task, key.setting) for key in keys}) > 1
    rows = [
        (
            f"{title(key)}: {measure_name(key.measure)}" if several else measure_name(key.measure),
            _marks(results, roles, key),
        )
        for key in keys
    ]
    name = "Share of prompts on which a model is preferred"
    even = (0.5, "no preference")
    return dots(rows, "share", name, even, (0.0, 1.0)) if rows else None


def by_setting(
    results: Results, roles: Mapping[str, str], section: str
) -> list[tuple[str, Markup]]:
    """(title, figure) of each task and measure, the main one first, a row for each setting."""
    tasks = SECTIONS[section]
    main = results.keys(lambda row: row["main"])
    keys = results.keys(
        lambda row: (
            row["task"] in tasks
            and not row["group"]
            and (row["main"] or row["measure"] in tasks[row["task"]])
        )
    )
    panels: dict[tuple[str, str], list[Key]] = {}
    for key in sorted(keys, key=lambda key: (list(tasks).index(key.task), key not in main)):
        panels.setdefault((key.task, key.measure), []).append(key)
    found = []
    for (task, measure), own in panels.items():
        rows = [(setting_name(key.setting), _marks(results, roles, key)) for key in own]
        unit = results.unit(own[0])
        name = f"{TASKS[task]}: {measure_name(measure)}"
        name += f", {UNITS[unit]}" if unit in UNITS else ""
        even = (0.5, "no preference") if measure == "stereotype" else None
        found.append((name, dots(rows, unit, name, even)))
    return found


def levels(results: Results, roles: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """(title, figure) of the main measures that have no section of their own, by unit."""
    shown = {task for tasks in SECTIONS.values() for task in tasks}
    keys = results.keys(lambda row: row["main"] and row["task"] not in shown and not is_judged(row))
    panels = []
    for unit, name in (
        ("share", "Shares"),
        ("points", "Points of 100: F1, BLEU, ROUGE-L"),
        ("score", "Scores"),
        ("bits", "Bits"),
    ):
        if own := [key for key in keys if results.unit(key) == unit]:
            rows = [(title(key), _marks(results, roles, key)) for key in own]
            panels.append((name, dots(rows, unit, name)))
    return panels


def tax(results: Results, roles: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """(title, figure) of the differences on public tasks, in points of 100, by setting."""
    found: dict[str, dict[str, dict[str, Mark]]] = {}
    for (key, model), row in results.differences.items():
        estimate = to_estimate(row)
        if row["tax"] and estimate:
            known = row["p_adjusted"] is not None and row["p_adjusted"] < SIGNIFICANT
            mark = Mark(roles[model], _of_100(estimate, row["unit"]), hollow=not known)
            tasks = found.setdefault(key.setting, {})
            tasks.setdefault(title(replace(key, setting="")), {})[model] = mark
    panels = {setting_name(setting): list(rows.items()) for setting, rows in found.items()}
    every = [row for rows in panels.values() for row in rows]
    zero = (0.0, "no change")
    limits = extent(every, "points", zero) if every else None
    return [(name, dots(rows, "points", name, zero, limits)) for name, rows in panels.items()]


def dots(
    rows: Sequence[tuple[str, Mapping[str, Mark]]],
    unit: str,
    title: str,
    line: tuple[float, str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Rows of (name, model -> mark) on one scale.

    unit    of the scale: "share" in per cent, "points" and whatever else as they are
    line    a value to be compared with, and what it is called
    limits  of the scale; None takes what the marks need
    """
    models = list(dict.fromkeys(model for _, marks in rows for model in marks))
    height = ROW + DOT * len(models)
    with matplotlib.rc_context(STYLE):
        top = 15.0 if line else 2.0
        whole = top + height * len(rows)
        figure, axes = axes_of(height=whole + 24)
        low, high = limits or extent(rows, unit, line)
        axes.set(xlim=(low, high), ylim=(whole, 0))
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(7 if unit == "points" else 5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x, unit)))
        axes.grid(axis="x", color=COLOURS["rule"], linewidth=0.7)
        axes.set_axisbelow(True)
        if line:
            axes.axvline(line[0], color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 2)))
            _write(axes, line[1], (line[0], 0), (4, -10))
        for number, (name, marks) in enumerate(rows):
            y = top + number * height
            axes.hlines(y, low, high, color=COLOURS["rule"], linewidth=0.7)
            _write(axes, name, (low, y), (1, -11.5))
            for model, mark in marks.items():
                _dot(axes, mark, y + ROW - 2 + DOT * models.index(model))
        svg = to_svg(figure, title, spoken(rows, unit))
    for role, (colour, _) in PALETTE.items():
        svg = Markup(re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--{role}, {colour})", svg))
    return svg


def extent(
    rows: Sequence[tuple[str, Mapping[str, Mark]]],
    unit: str,
    line: tuple[float, str] | None = None,
) -> tuple[float, float]:
    """The ends of a scale for all marks and intervals, with a margin; shares end at 0 and 1."""
    found = [mark.estimate for _, marks in rows for mark in marks.values()]
    ends = [x for e in found for x in (e.mean, e.low, e.high) if math.isfinite(x)]
    ends += [line[0]] if line else []
    margin = 0.06 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 1.0
    low, high = min(ends) - margin, max(ends) + margin
    return (max(low, -0.01), min(high, 1.01)) if unit == "share" else (low, high)


def tick(value: float, unit: str) -> str:
    """A number of the scale."""
    return minus(f"{100 * value:.3g} %" if unit == "share" else f"{value:.3g}")


def spoken(rows: Sequence[tuple[str, Mapping[str, Mark]]], unit: str) -> str:
    """The numbers of a figure in words, for those who hear the page."""
    return "; ".join(
        f"{name}: "
        + ", ".join(f"{label(m)} {amount(mark.estimate.mean, unit)}" for m, mark in marks.items())
        for name, marks in rows
    )


def _write(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float]) -> None:
    """Text over the rows, which no row makes room for."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    behind = {"facecolor": COLOURS["card"], "edgecolor": "none", "pad": 0.8}
    note = axes.annotate(
        short, at, shift, textcoords="offset points", fontsize=10, bbox=behind, zorder=3
    )
    note.set_in_layout(False)


def _dot(axes: Axes, mark: Mark, y: float) -> None:
    if mark.role in PALETTE:
        colour, marker = PALETTE[mark.role]
    else:
        colour, marker = COLOURS[mark.role], MARKERS[mark.role]
    found = mark.estimate
    if math.isfinite(found.low) and math.isfinite(found.high):
        thick = 1.2 if mark.hollow else 2.2
        axes.plot([found.low, found.high], [y, y], color=colour, lw=thick, solid_capstyle="butt")
    axes.plot(
        found.mean,
        y,
        marker,
        ms=SIZES.get(marker, 6.5),
        mfc=COLOURS["card"] if mark.hollow else colour,
        mec=colour if mark.hollow else COLOURS["card"],
        mew=1.3 if mark.hollow else 0.6,
        zorder=4,
    )


def _marks(results: Results, roles: Mapping[str, str], key: Key) -> dict[str, Mark]:
    found = ((model, to_estimate(row)) for model, row in results.of_key(key))
    return {model: Mark(roles[model], estimate) for model, estimate in found if estimate}


def _of_100(estimate: Estimate, unit: str) -> Estimate:
    times = 100.0 if unit == "share" else 1.0
    low, high = sorted((times * estimate.low, times * estimate.high))
    return replace(estimate, mean=times * estimate.mean, low=low, high=high)
