"""Figures of the study: means over seeds with their 95 % intervals, as inline SVG.

The look is that of the report (colours, fonts, one SVG element without script); a colour stands for
the same policy on both pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from instil.report.figures import COLOURS, MARKERS, STYLE, Mark, axes_of, dots, to_svg
from instil.report.tables import policy_label
from instil.stats import Estimate, mean_estimate

Row = Mapping[str, Any]
SHADES = ("base", "sft", "ppo-ptx", "ppo", "best-of-16")
"""Colours of lines that are sizes, not policies."""
POLICIES = ("base", "base-prompted", "sft", "ppo", "ppo-ptx")
ENDS = ("low", "high")
MANY = 8
"""A line of more points has a band in place of bars."""
KL_SCAN = {"kl-none": "0", "ppo": "1", "kl-x10": "10", "kl-x100": "100"}
"""Policy -> kl_coef in units of the recipe's; so is ptx_coef below."""
PTX_SCAN = {"ppo": "0", "ptx-tenth": "0.1", "ppo-ptx": "1", "ptx-x10": "10"}


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one kind, joined."""

    label: str
    colour: str
    """A key of COLOURS."""
    points: Sequence[tuple[float, Estimate]]
    marker: str = "o"
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure and what stands under it."""

    title: str
    svg: Markup


def over_seeds(
    rows: Iterable[Row], name: str, policy: str, setting: str = ""
) -> dict[str, Estimate]:
    """Size -> mean over the seeds of one measurement."""
    found: dict[str, list[float]] = {}
    for row in rows:
        key = row["eval"], row["policy"], row["setting"]
        if key == (name, policy, setting) and row["mean"] is not None:
            found.setdefault(row["size"], []).append(row["mean"])
    return {size: mean_estimate(values) for size, values in found.items()}


def all_figures(rows: Sequence[Row], scan_size: str, reward_size: str) -> list[Figure]:
    """Every figure for which something was measured."""
    made = [
        by_size(rows, "wins_over_largest_sft", "", "Preferred to the largest SFT", 0.5),
        by_size(rows, "public_mean", "", "Public tasks, mean of four"),
        by_size(rows, "truthful_informative", "all", "True and informative"),
        by_size(rows, "hallucination", "", "Hallucination, closed-domain tasks"),
        scan(rows, scan_size, KL_SCAN, "likert", "held-out", "kl_coef, times the usual"),
        scan(rows, scan_size, KL_SCAN, "public_mean", "", "kl_coef, times the usual"),
        scan(rows, scan_size, PTX_SCAN, "likert", "held-out", "ptx_coef, times the usual"),
        scan(rows, scan_size, PTX_SCAN, "public_mean", "", "ptx_coef, times the usual"),
        scan(rows, scan_size, PTX_SCAN, "rm_score", "", "ptx_coef, times the usual"),
        optimisation(rows, scan_size, reward_size, "rm_score", "Score: what is climbed"),
        optimisation(rows, scan_size, reward_size, "gold", "Gold: what it stands for"),
        epochs(rows, "sft_loss", "SFT: validation loss"),
        epochs(rows, "sft_score", "SFT: reward model score"),
    ]
    return [figure for figure in made if figure]


def glance(differences: Iterable[tuple[str, str, Estimate]]) -> Figure | None:
    """Differences of shares, each with an id and a verdict: green what was reproduced."""
    roles = {"reproduced": "ppo-ptx", "not reproduced": "ppo", "cannot be shown here": "base"}
    rows = [
        (name.replace("-", " "), [Mark(roles[verdict], found)])
        for name, verdict, found in differences
    ]
    if not rows:
        return None
    ends = [abs(end) for _, (mark,) in rows for end in (mark.estimate.low, mark.estimate.high)]
    title = "Differences in percentage points: green reproduced, orange not, grey not shown"
    return Figure(title, dots(rows, (-max(ends), max(ends)), title, (0.0, "no difference")))


def by_size(
    rows: Sequence[Row], name: str, setting: str, title: str, level: float | None = None
) -> Figure | None:
    """One measure over the number of parameters, a line for each policy."""
    params = {row["size"]: row["params"] for row in rows}
    lines = []
    for policy in POLICIES:
        found = over_seeds(rows, name, policy, setting)
        points = [
            (float(params[size]), found[size]) for size in sorted(found, key=params.__getitem__)
        ]
        if points:
            lines.append(Line(policy_label(policy), policy, points, MARKERS[policy]))
    return draw(lines, title, "parameters", log=True, percent=True, level=level)


def scan(
    rows: Sequence[Row], size: str, policies: Mapping[str, str], name: str, setting: str, label: str
) -> Figure | None:
    """One measure over a setting of PPO; the setting's values stand side by side."""
    titles = {"likert": "Overall rating, 1 to 7", "rm_score": "Reward model score"}
    points = []
    for place, policy in enumerate(policies):
        found = over_seeds(rows, name, policy, setting)
        if size in found:
            points.append((float(place), found[size]))
    base = over_seeds(rows, name, "base", setting).get(size)
    lines = [Line("PPO", "ppo", points)] if points else []
    title = f"{titles.get(name, 'Public tasks, mean of four')} over {label.split(',')[0]}"
    ticks = dict(enumerate(policies.values()))
    level = base.mean if base else None
    return draw(
        lines, title, label, ticks, percent=name == "public_mean", level=level, called="base"
    )


def optimisation(
    rows: Sequence[Row], scan_size: str, reward_size: str, name: str, title: str
) -> Figure | None:
    """Score or gold over the square root of the KL, for the best of n and for PPO."""
    bests = dict.fromkeys(row["policy"] for row in rows if row["eval"] == "best_of_kl")
    lines = []
    if points := _against_kl(rows, reward_size, bests, "best_of_kl", f"best_of_{name}", ""):
        lines.append(Line("best of n", "best-of-16", points, "*"))
    for label, colour, policies in (
        ("PPO, by kl_coef", "ppo", KL_SCAN),
        ("PPO-ptx, by ptx_coef", "ppo-ptx", list(PTX_SCAN)[1:]),
    ):
        if points := _against_kl(rows, scan_size, policies, "kl", name, "ppo-init"):
            lines.append(Line(label, colour, points, MARKERS[colour], joined=colour == "ppo"))
    return draw(lines, title, "√KL to PPO's start, square root of nats per response")


def epochs(rows: Sequence[Row], name: str, title: str) -> Figure | None:
    """A measure of SFT over its epochs, a line for each size."""
    settings = dict.fromkeys(
        row["setting"]
        for row in rows
        if row["eval"] == name and str(row["setting"]).startswith("epoch ")
    )
    curves: dict[str, list[tuple[float, Estimate]]] = {}
    for setting in settings:
        for size, found in over_seeds(rows, name, "sft", setting).items():
            curves.setdefault(size, []).append((float(setting.split()[1]), found))
    lines = [
        Line(size, SHADES[nth % len(SHADES)], points)
        for nth, (size, points) in enumerate(curves.items())
    ]
    return draw(lines, title, "epoch")


def draw(
    lines: Sequence[Line],
    title: str,
    label: str,
    ticks: Mapping[int, str] | None = None,
    *,
    log: bool = False,
    percent: bool = False,
    level: float | None = None,
    called: str = "",
) -> Figure | None:
    """Lines through means, with intervals where there are any; None without lines.

    level  a value to be compared with, and what it is called
    """
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(height=225)
        axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.7)
        axes.spines["left"].set_visible(False)
        if level is not None:
            axes.axhline(level, color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 2)))
            if called:
                place = (1.0, level)
                axes.annotate(
                    called,
                    place,
                    (-3, 3),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha="right",
                    fontsize=9,
                )
        for nth, line in enumerate(lines):
            colour = COLOURS[line.colour]
            # side by side, as the bars of one size would hide each other
            aside = 1.04 ** (nth - (len(lines) - 1) / 2) if log else 1.0
            x = [at * aside for at, _ in line.points]
            y = [found.mean for _, found in line.points]
            low, high = ([getattr(found, end) for _, found in line.points] for end in ENDS)
            if len(x) > MANY:
                axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            else:
                axes.vlines(x, low, high, color=colour, linewidth=1.4, alpha=0.6)
            axes.plot(
                *(x, y, line.marker),
                linestyle="solid" if line.joined else "none",
                color=colour,
                linewidth=1.8,
                ms=0 if len(x) > MANY else 10 if line.marker == "*" else 6,
                mec=COLOURS["card"],
                label=line.label,
            )
        if log:
            places = sorted({at for line in lines for at, _ in line.points})
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(places))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: _size(n)))
            axes.margins(x=0.1)
        elif ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.margins(x=0.12)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
        axes.set_xlabel(label)
        if len(lines) > 1:
            axes.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=3,
                frameon=False,
                fontsize=8.5,
                labelcolor=COLOURS["ink"],
            )
        spoken = "; ".join(
            f"{line.label}: " + ", ".join(f"{found.mean:.3g}" for _, found in line.points)
            for line in lines
        )
        return Figure(title, to_svg(figure, title, spoken))


def _against_kl(
    rows: Sequence[Row],
    size: str,
    policies: Iterable[str],
    kl_name: str,
    name: str,
    kl_setting: str,
) -> list[tuple[float, Estimate]]:
    """(square root of the KL, value) of each policy, in the order of the KL."""
    points = []
    for policy in policies:
        kl = over_seeds(rows, kl_name, policy, kl_setting).get(size)
        value = over_seeds(rows, name, policy).get(size)
        if kl and value:
            points.append((math.sqrt(max(0.0, kl.mean)), value))
    return sorted(points, key=lambda point: point[0])


def _size(n: float) -> str:
    return f"{n / 1e6:.2g} M" if n >= 1e6 else f"{n / 1e3:.3g} k"
