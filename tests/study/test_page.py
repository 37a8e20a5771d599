"""Numbers as the table says them, and the page around it."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from instil.stats import Estimate
from instil.study.claims import ABSENT, Finding, of
from instil.study.findings import Outcome
from instil.study.page import difference, findings, html, level, markdown, means, summary
from instil.study.plan import Plan

PLAN = Plan(
    sizes=("S", "L"),
    width=(8, 16),
    layers=(1, 1),
    heads=(2, 2),
    rate=(1.0, 1.0),
    seeds=(0, 1),
    reward_size="S",
    scan_size="S",
)
OUTCOME = Outcome(
    Finding(
        id="one",
        claim="A & B < C",
        paper="73.4 %",
        ours=of("win_rate", "ppo"),
        theirs=0.5,
        expect="more",
    ),
    0.62,
    0.5,
    Estimate(0.12, 0.01, 0.05, 0.19, 2, 2),
    {"L": Estimate(0.12, math.nan, math.nan, math.nan, 1, 1)},
    "reproduced",
    "",
)
ROWS = [
    {
        **{"size": size, "params": params, "seed": seed, "eval": "hallucination"},
        **{"policy": policy, "setting": "", "mean": mean + seed / 10},
    }
    for size, params in (("S", 1000), ("L", 2_000_000))
    for seed in (0, 1)
    for policy, mean in (("base", 0.6), ("ppo-ptx", 0.3))
]


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(0.123, 0, 0.05, 0.196, 3, 3), "share", "+12.3\u00a0pp [+5.0,\u00a0+19.6]"),
        (Estimate(-0.5, 0, -1.25, 0.25, 3, 3), "points", "−0.50 [−1.25,\u00a0+0.25]"),
        (Estimate(0.2, *[math.nan] * 3, 1, 1), "score", "+0.20"),
        (Estimate(*[math.nan] * 4, 0, 0), "share", ""),
    ],
)
def test_a_difference_in_words(estimate, unit, text):
    assert difference(estimate, unit) == text


def test_levels_of_shares_are_per_cent():
    assert level(0.734, "share") == "73\u00a0%"
    assert level(-2.1, "points") == "−2.10"


def test_findings_without_a_counterpart_stand_at_the_end():
    lines = findings([OUTCOME], PLAN)
    assert lines[0]["here"] == "62\u00a0% against 50\u00a0%"
    assert lines[0]["sizes"] == ["", "+12.0\u00a0pp"]
    assert [line["claim"] for line in lines[1:]] == [claim for claim, *_ in ABSENT]
    assert all(line["verdict"] == "cannot be shown here" for line in lines[1:])


def test_what_is_undecided_is_counted_apart_from_the_opposite():
    missed = [
        replace(OUTCOME, verdict="not reproduced", reason=reason)
        for reason in ("undecided", "undecided", "the opposite")
    ]
    text = summary([OUTCOME, *missed], PLAN, ROWS)
    assert f"Reproduced: 1 of {4 + len(ABSENT)} findings" in text
    assert "not reproduced: 3, of them the opposite: 1, undecided: 2." in text


def test_the_means_are_over_seeds_and_empty_where_nothing_was_measured():
    table = means(PLAN, ROWS)
    assert [line["size"] for line in table["lines"]] == ["S", "L"]
    cells = dict(zip(table["columns"], table["lines"][0]["cells"], strict=True))
    assert cells["base"].startswith("65\u00a0%")  # of 60 and 70 %
    assert cells["SFT"] == ""


def test_markdown_has_as_many_cells_in_every_row_of_a_table():
    text = markdown([OUTCOME], PLAN, ROWS)
    assert "**reproduced**" in text
    for block in text.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_the_page_escapes_and_loads_nothing():
    page = html([OUTCOME], PLAN, ROWS)
    assert "A &amp; B &lt; C" in page
    assert "1 of 3 findings" in page
    assert not re.search(r"<script|src=|https?://(?!www\.w3\.org)", page)
    assert page.count("<svg") == 2  # at a glance, and hallucination
    assert html([OUTCOME], PLAN, ROWS) == page
