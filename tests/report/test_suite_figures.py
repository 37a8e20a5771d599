"""Dots in any unit, for models of any name."""

from __future__ import annotations

import re

import pytest

from instil.report.figures import COLOURS, MARKERS, Mark
from instil.report.suite_figures import PALETTE, dots, extent, roles, tick
from instil.stats import Estimate


def mark(role: str, mean: float, half: float = 0.02, hollow: bool = False) -> Mark:
    return Mark(role, Estimate(mean, half / 1.96, mean - half, mean + half, 100, 100), hollow)


def test_known_policies_keep_their_colour_and_others_get_one():
    names = ["base", "PPO_ptx", "mine", "card", "ppo-ptx", "ink"]
    found = roles(names)
    assert found == {
        "base": "base",
        "PPO_ptx": "ppo-ptx",
        "mine": "other-1",
        "card": "other-2",  # "card" and "ink" are colours of the page, not of policies
        "ppo-ptx": "other-3",  # taken already
        "ink": "other-4",
    }
    many = roles([f"m{number}" for number in range(8)])
    assert many["m6"] == many["m0"] == "other-1"


def test_the_palette_is_told_apart_and_the_page_knows_it():
    colours = [colour for colour, _ in PALETTE.values()] + list(COLOURS.values())
    assert len(set(colours)) == len(colours)
    markers = [marker for _, marker in PALETTE.values()]
    assert not set(markers) & set(MARKERS.values())
    svg = dots([("row", {r: mark(r, 0.5) for r in PALETTE})], "share", "title")
    for role, (colour, _) in PALETTE.items():
        assert f"var(--{role}, {colour})" in svg


@pytest.mark.parametrize(
    ("unit", "mean", "shown", "said"),
    [
        ("share", 0.5, "50 %", "a: base 50.0\u00a0%"),
        ("points", 50.0, "50", "a: base 50.0"),
        ("bits", 0.5, "0.5", "a: base 0.500"),
    ],
)
def test_a_scale_is_in_its_unit(unit, mean, shown, said):
    half = 0.1 * mean
    svg = dots([("a", {"base": mark("base", mean, half)})], unit, "title")
    assert f'aria-label="title. {said}"' in svg
    assert shown in re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert tick(-0.05, "share") == "−5 %"


def test_a_scale_holds_what_is_drawn():
    rows = [("a", {"base": mark("base", 0.3), "sft": mark("sft", 0.7)})]
    # 0.28 to 0.72 and 6 % of their distance, 0.0264, on either side
    assert extent(rows, "bits") == pytest.approx((0.2536, 0.7464))
    assert extent(rows, "bits", (0.0, "none"))[0] == pytest.approx(-0.0432)
    assert extent([("a", {"base": mark("base", 0.99, 0.05)})], "share")[1] == 1.01
    point = Mark("base", Estimate(2.0, float("nan"), float("nan"), float("nan"), 1, 1))
    assert extent([("a", {"base": point})], "score") == pytest.approx((1.8, 2.2))
    assert "<svg" in dots([("a", {"base": point})], "score", "one without an interval")


def test_a_models_name_is_never_drawn():
    svg = dots([("a", {"</svg><b>": mark("other-1", 0.5)})], "share", "title")
    assert "<b>" not in svg
    assert "&lt;/svg&gt;&lt;b&gt; 50.0" in svg


def test_the_same_marks_give_the_same_bytes():
    rows = [("a", {"base": mark("base", 0.5), "x": mark("other-1", 0.4, hollow=True)})]
    assert dots(rows, "share", "title", (0.5, "even")) == dots(
        rows, "share", "title", (0.5, "even")
    )
