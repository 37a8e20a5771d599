"""Figures as inline SVG: dots with 95 % intervals, curves over steps, scores against KL.

Colours are written as CSS variables with the printed colour as fallback, so a figure follows the
page into dark mode and still has its colours when it is cut out of the page. Text stays text. The
same numbers give the same bytes: no dates, fixed ids. No pyplot, so nothing global is touched.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from instil.stats import Estimate

COLOURS = {
    "ink": "#1b1f23",
    "soft": "#5d646c",
    "rule": "#dedbd2",
    "card": "#fffefb",
    "base": "#737b84",
    "base-prompted": "#9aa1a9",
    "sft": "#2f6db5",
    "best-of-16": "#8a5fb0",
    "ppo": "#c25a12",
    "ppo-ptx": "#007a66",
    "paper": "#8c6a1f",
}
"""One colour per policy everywhere; style.css holds the same names for light and dark.

Hues after Okabe and Ito, told apart with any colour vision; markers differ as well.
"""

MARKERS = {
    "base": "s",
    "base-prompted": "s",
    "sft": "o",
    "best-of-16": "*",
    "ppo": "^",
    "ppo-ptx": "o",
    "paper": "D",
    "rm": "o",
    "agreement": "|",
    "truth": "^",
    "longer": "s",
}
ROLES = {"rm": "ppo-ptx", "agreement": "ink", "truth": "sft", "longer": "base"}
"""The colour of what is not a policy."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "instil",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
WIDTH = 320  # points; the page shows a point as about a pixel, also on a phone


@dataclass(frozen=True, slots=True)
class Mark:
    """One dot of a row: whose it is, where, and whether it is drawn hollow."""

    role: str
    estimate: Estimate
    hollow: bool = False


Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Policy -> steps and values."""


def dots(
    rows: Sequence[tuple[str, Sequence[Mark]]],
    limits: tuple[float, float],
    title: str,
    line: tuple[float, str] | None = None,
) -> Markup:
    """Rows of dots with their 95 % intervals on a scale of shares, shown in per cent.

    line  a value to be compared with, and what it is called
    """
    with matplotlib.rc_context(STYLE):
        crowd = max(len(marks) for _, marks in rows)
        figure, axes = axes_of(height=34 + (15 + 7.5 * crowd) * len(rows) + (16 if line else 0))
        places = range(len(rows))
        axes.set(xlim=limits, ylim=(len(rows) - 0.4, -0.6 - (0.25 if line else 0)))
        axes.set_yticks(places, [_short(label) for label, _ in rows], color=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %"))
        axes.hlines(places, *limits, color=COLOURS["rule"], linewidth=0.7, zorder=0)
        if line:
            axes.axvline(line[0], color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 2)))
            place = (line[0], axes.get_ylim()[1])  # inside the axes, above the first row
            axes.annotate(line[1], place, (4, -9), textcoords="offset points", fontsize=9)
        for row, (_, marks) in enumerate(rows):
            for nth, mark in enumerate(marks):
                shift = 0.52 * (nth - (len(marks) - 1) / 2) / max(1, crowd - 1)
                _dot(axes, mark, row + shift)
        return to_svg(figure, title, _spoken(rows))


def curves(
    lines: Curves, title: str, percent: bool = False, x: str = "step", points: bool = False
) -> Markup:
    """One metric over steps, one line per policy: faint as logged, strong its running mean."""
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(height=205)
        axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.7)
        axes.spines["left"].set_visible(False)
        for role, (steps, values) in lines.items():
            colour = _colour(role)
            window = max(1, len(values) // 20)
            if window > 1:
                axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
            marker = MARKERS.get(role, "o") if points or len(values) < 3 else None
            smooth = _running_mean(values, window)
            dashes = (0, (5, 1.6)) if role in ("ppo", "ppo-init") else "solid"
            axes.plot(
                steps, smooth, color=colour, linewidth=2, linestyle=dashes, marker=marker, ms=4.5
            )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=x == "step"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
        axes.set_xlabel(x)
        ends = [f"{role} {v[0]:.3g} to {v[-1]:.3g}" for role, (_, v) in lines.items() if v]
        return to_svg(figure, title, "; ".join(ends))


def frontier(
    paths: Curves, points: Mapping[str, tuple[float, float]], title: str, label: str
) -> Markup:
    """Score against the square root of the KL: what a policy gained, and how far it went for it.

    paths   policy -> KL in nats and score, as training went on
    points  policy -> KL and score where it was evaluated
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(height=250)
        axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.7)
        axes.spines["left"].set_visible(False)
        for role, (kls, scores) in paths.items():
            window = max(1, len(kls) // 20)
            x = [math.sqrt(max(0.0, kl)) for kl in _running_mean(kls, window)]
            y, raw = _running_mean(scores, window), [math.sqrt(max(0.0, kl)) for kl in kls]
            axes.plot(raw, scores, ".", ms=2.5, color=_colour(role), alpha=0.35)
            dashes = (0, (5, 1.6)) if role == "ppo" else "solid"
            axes.plot(x, y, color=_colour(role), linewidth=2, linestyle=dashes)
        for role, (kl, score) in points.items():
            size = 14 if MARKERS.get(role) == "*" else 9
            axes.plot(
                math.sqrt(max(0.0, kl)),
                score,
                MARKERS.get(role, "o"),
                ms=size,
                color=_colour(role),
                mec=COLOURS["card"],
                mew=1,
                zorder=5,
            )
        axes.margins(x=0.08, y=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        spoken = "; ".join(f"{r}: KL {kl:.2f} nats, score {s:.2f}" for r, (kl, s) in points.items())
        return to_svg(figure, title, spoken)


def _dot(axes: Axes, mark: Mark, y: float) -> None:
    colour, found = _colour(mark.role), mark.estimate
    marker, hollow = MARKERS.get(mark.role, "o"), mark.hollow or mark.role == "paper"
    if math.isfinite(found.low) and math.isfinite(found.high):
        thick = 1.2 if hollow else 2.2
        axes.plot([found.low, found.high], [y, y], color=colour, lw=thick, solid_capstyle="butt")
    axes.plot(
        found.mean,
        y,
        marker,
        ms=11 if marker in "*|" else 6 if hollow else 7.5,
        mfc=COLOURS["card"] if hollow else colour,
        mec=colour if hollow or marker == "|" else COLOURS["card"],
        mew=2.2 if marker == "|" else 1.3,
        zorder=4,
    )


def axes_of(height: float) -> tuple[Figure, Axes]:
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout=layout)
    return figure, figure.add_subplot()


def to_svg(figure: Figure, title: str, spoken: str) -> Markup:
    """The figure as an <svg> element that can stand in a page."""
    FigureCanvasSVG(figure)
    file = io.StringIO()
    # no metadata at all: dates would change the bytes, names would be links
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("xlink:href", "href")
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    label = escape(f"{title}. {spoken}" if spoken else title)
    text = f'<svg viewBox="{box[1]}" role="img" aria-label="{label}"' + text[text.index(">") :]
    for name, colour in COLOURS.items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--{name}, {colour})", text)
    # ids are hashes of what is drawn: the same clip path in two figures has the same id and shape
    return Markup(re.sub(r"\n\s*", "\n", text))


def _colour(role: str) -> str:
    known = COLOURS.get(ROLES.get(role, role))
    return known or COLOURS["sft" if role == "ppo-init" else "ink"]


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over `window` values around each, fewer at the ends."""
    half = window // 2
    cut = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in cut]


def _short(label: str) -> str:
    return label if len(label) <= 26 else label[:25] + "…"


def _spoken(rows: Sequence[tuple[str, Sequence[Mark]]]) -> str:
    """The numbers of a figure in words, for those who hear the page."""
    said = [
        f"{label}: " + ", ".join(f"{m.role} {100 * m.estimate.mean:.0f} %" for m in marks)
        for label, marks in rows
    ]
    return "; ".join(said)
