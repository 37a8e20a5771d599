"""Numbers as the table says them, and the page around it."""

from __future__ import annotations

import math
import re

import pytest
from msgspec.structs import replace

from instil.errors import InstilError
from instil.jsonl import write_json, write_lines
from instil.report import Config, run
from instil.report.study import (
    Findings,
    Outcome,
    Study,
    difference,
    findings,
    level,
    markdown,
    means,
    read,
    render,
    summary,
)
from instil.stats import Estimate

FOUND = Outcome(
    id="one",
    claim="A & B < C",
    paper="73.4 %",
    verdict="reproduced",
    ours=0.62,
    theirs=0.5,
    overall={"mean": 0.12, "stderr": 0.01, "low": 0.05, "high": 0.19, "n": 2, "clusters": 2},
    by_size={"L": {"mean": 0.12, "stderr": None, "low": None, "high": None, "n": 1}},
)
ABSENT = Outcome(claim="D", paper="none", verdict="cannot be shown here", reason="nobody is here")
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


def study(*outcomes):
    found = Findings(
        sizes=("S", "L"), seeds=2, scan_size="S", reward_size="S", findings=(*outcomes, ABSENT)
    )
    return Study(found, ROWS)


def test_a_finding_in_words():
    first, last = findings(study(FOUND).found)
    assert first["here"] == "62\u00a0% against 50\u00a0%"
    assert first["difference"] == "+12.0\u00a0pp [+5.0,\u00a0+19.0]"
    assert first["sizes"] == ["", "+12.0\u00a0pp"]
    assert (last["here"], last["difference"], last["sizes"]) == ("", "", ["", ""])


def test_what_is_undecided_is_counted_apart_from_the_opposite():
    missed = [
        replace(FOUND, verdict="not reproduced", reason=reason)
        for reason in ("undecided", "undecided", "the opposite")
    ]
    text = summary(study(FOUND, *missed))
    assert "Parameters: S 1,000, L 2 M. Seeds: 2. Reproduced: 1 of 5 findings" in text
    assert "not reproduced: 3, of them the opposite: 1, undecided: 2." in text


def test_the_means_are_over_seeds_and_empty_where_nothing_was_measured():
    table = means(study(FOUND))
    assert [line["size"] for line in table["lines"]] == ["S", "L"]
    cells = dict(zip(table["columns"], table["lines"][0]["cells"], strict=True))
    assert cells["base"].startswith("65\u00a0%")  # of 60 and 70 %
    assert cells["SFT"] == ""


def test_markdown_has_as_many_cells_in_every_row_of_a_table():
    text = markdown(study(FOUND))
    assert "**reproduced**" in text
    for block in text.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_the_page_escapes_and_loads_nothing():
    page = render(study(FOUND))
    assert "A &amp; B &lt; C" in page
    assert "1 of 2 findings" in page
    assert not re.search(r"<script|src=|https?://(?!www\.w3\.org)", page)
    assert page.count("<svg") == 2  # at a glance, and hallucination
    assert render(study(FOUND)) == page


def test_at_a_glance_are_the_findings_that_are_shares_and_have_an_interval():
    of_points = replace(FOUND, id="points", unit="points")
    of_one_seed = replace(FOUND, id="seed", overall=FOUND.by_size["L"])
    page = render(study(FOUND, of_points, of_one_seed))
    assert ">one<" in page and ">points<" not in page and ">seed<" not in page


def written(folder):
    found = study(FOUND)
    write_json(folder / "findings.json", found.found)
    write_lines(folder / "results.jsonl", ROWS)
    return found


def test_the_command_makes_the_page_of_a_study(tmp_path):
    found = written(tmp_path)
    assert read(tmp_path) == found
    run(Config(run=tmp_path))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(found)


def test_a_damaged_file_of_a_study_is_named(tmp_path):
    written(tmp_path)
    path = tmp_path / "findings.json"
    whole = path.read_text()
    for text, says in (
        (whole[:50], "truncated"),
        (whole.replace('"reproduced"', '"perhaps"'), "Invalid enum value 'perhaps'"),
        (whole.replace('"seeds": 2', '"seeds": "two"'), r"at `\$.seeds`"),
    ):
        path.write_text(text)
        with pytest.raises(InstilError, match=rf"findings.json: .*{says}.* run the command"):
            read(tmp_path)


def test_a_row_that_is_no_measurement_is_named(tmp_path):
    written(tmp_path)
    path = tmp_path / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace('"eval"', '"evil"'), *lines[3:]]))
    with pytest.raises(InstilError, match=r"results.jsonl:3: .*`eval`.* run the command"):
        read(tmp_path)
