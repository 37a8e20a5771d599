"""The page and the Markdown of an evaluation: what they say, and what they must never do."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from instil.errors import InstilError
from instil.report import Config, run, suite
from instil.report.suite_tables import Results

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
BLANK = "\u00a0"  # the blank that does not break, between a number and its per cent sign
HOSTILE = (
    "<script>alert(1)</script>",
    '"><svg/onload=alert(2)>',
    "{{ 7 * 7 }} | a | b |",
    "</style><style>body{display:none}</style>",
    "\u202eleft\u0000 \n# heading [x](javascript:alert(3)) ![y](https://evil.example/z.png)",
    "日本語" + "x" * 400,
)


def _builder() -> ModuleType:
    """The module beside this one; pytest's importlib mode leaves the folder off the path."""
    place = Path(__file__).with_name("evaluation_results.py")
    spec = importlib.util.spec_from_file_location("evaluation_results", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _builder()


class Tags(HTMLParser):
    """Every start tag with its attributes, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = made.write(tmp_path_factory.mktemp("suite") / "eval")
    suite.write(path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(folder: Path) -> str:
    return (folder / "table.md").read_text(encoding="utf-8")


def row_of(table: str, start: str) -> list[str]:
    """The cells of the first row of a Markdown table that begins so."""
    row = next(line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def part_of(page: str, section: str) -> str:
    return page.split(f'<section id="{section}"')[1].split("</section>")[0]


def test_plain_values() -> None:
    found = suite.plain(
        {"a": math.nan, "b": (Path("x/y"), 1, True, None), "c": {"d": np.float64(0.5)}}
        | {"e": np.int64(3), "f": -math.inf}
    )
    assert found == {"a": None, "b": ["x/y", 1, True, None], "c": {"d": 0.5}, "e": 3, "f": None}
    assert found["b"][2] is True
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    with pytest.raises(TypeError, match="object has no place"):
        suite.plain({"a": object()})


def test_a_row_of_the_markdown(table: str) -> None:
    cells = row_of(table, "TruthfulQA, QA prompt: true and informative")
    # 0.251 +- 1.96 * 0.5 / sqrt(817) = 0.251 +- 0.0343
    assert cells[1:4] == ["n 817", f"25.1{BLANK}% [21.7, 28.5]", f"27.1{BLANK}% [23.7, 30.5]"]
    assert cells[4] == f"75.2{BLANK}% [71.8, 78.6] **▲ better**"
    assert cells[6] == " / ".join(
        f"{who}{BLANK}{share}{BLANK}%"
        for who, share in (("GPT", 25.1), ("SFT", 27.1), ("PPO", 75.2), ("PPO-ptx", 68.9))
    )
    assert row_of(table, "SQuAD v2, zero-shot: F1, of 100")[1] == "n 11,873 from 2,374"
    assert "| paper, 175B: GPT / SFT / PPO / PPO-ptx |" in table


@pytest.mark.slow
def test_the_first_model_is_what_others_are_compared_with(folder: Path) -> None:
    found = suite.read(folder)
    # of 10 measures with a better side ppo-ptx is better on 3 + 3 of truth, 1 of toxicity, 1 of
    # hallucination and more toxic when asked to be
    assert suite.headline(Results.of(found)) == (
        "PPO-ptx against base: better on 8 and worse on 1 of 10 measures; an alignment tax on 2 of "
        "20 public tasks and settings."
    )
    alone = {**found, "models": found["models"][:1], "differences": []}
    alone["results"] = [row for row in found["results"] if row["model"] == "base"]
    assert suite.headline(Results.of(alone)) == "base on 37 tasks and settings."
    page, table = suite.render(alone, "eval"), suite.table(alone, "eval")
    assert "There is no second model" in part_of(page, "tax")
    assert "No judge compared" in part_of(page, "preference")
    assert "▼ " not in table.split("## ", 1)[1]


def test_a_fall_of_a_public_task_is_named_a_tax(page: str, table: str) -> None:
    assert "**▼ alignment tax**" in row_of(table, "DROP, zero-shot")[3]
    # few-shot, 33.3 against 35.3 +- 1.3: the interval excludes 0, the adjusted p-value does not
    assert row_of(table, "DROP, few-shot")[5] == "33.3 [32.0, 34.6]"
    # more toxic is worse and no tax, less toxic is better
    assert row_of(table, "RealToxicityPrompts, biased")[4].endswith("**▲ worse**")
    assert row_of(table, "RealToxicityPrompts, respectful")[4].endswith("**▼ better**")
    # an entropy only describes
    assert row_of(table, "Winogender, basic")[3].endswith("**▼ lower**")
    assert part_of(page, "table").count("▼ alignment tax</em>") == 19  # 5 + 12 + 2 of the cards
    assert "2 of 20" in page.split("<h3>Alignment tax</h3>")[1].split("</table>")[0]


def test_a_judge_has_a_panel_of_its_own(page: str, table: str) -> None:
    panel = part_of(page, "preference")
    assert f"preferred: SFT 61.0{BLANK}%, PPO 80.0{BLANK}%, PPO-ptx 84.5{BLANK}%" in panel
    assert "Preferred to base" in panel
    assert "preferred, at equal length" not in table.split("## Behaviour")[1]
    row = row_of(table, "Users' prompts, AlpacaEval: preferred")
    assert row[2:4] == ["— [baseline]", f"61.0{BLANK}% [54.8, 67.2] **▲ better**"]


def test_every_kind_of_prompt_has_a_row_in_the_figures(page: str) -> None:
    for section, figures in (("truth", 4), ("toxicity", 2), ("bias", 3), ("tax", 2), ("levels", 3)):
        panels = re.findall('<svg viewBox.*?aria-label="(.*?)"', part_of(page, section))
        assert len(panels) == figures, section
        if section in ("truth", "toxicity"):
            assert all(label.count("prompt:") == 3 for label in panels)
    tax = re.findall('<svg viewBox.*?aria-label="(.*?)"', part_of(page, "tax"))
    assert "DROP: SFT −11.7, PPO −14.4, PPO-ptx −12.3" in tax[0]  # points of F1
    assert "HellaSwag: SFT −2.8, PPO −3.8, PPO-ptx 2.6" in tax[0]  # shares as points of 100


def test_what_was_not_run_and_what_was_cut_is_said(page: str, table: str) -> None:
    for text in (page, table.replace("\\", "")):
        assert "tldr_test.jsonl (or .gz), see docs/evals.md" in text
        assert "left out for want of context: PPO 12.0" in text
        assert "toxicity by the lexicon" in text
    assert 'href="#note-1"' in page
    assert 'id="note-1"' in page
    assert "TL;DR" in part_of(page, "missing")


def test_other_measures_and_groups_are_folded(page: str, table: str) -> None:
    details = part_of(page, "details")
    assert "<summary>CrowS-Pairs, by group</summary>" in details
    assert "CrowS-Pairs, basic prompt, religion" in details
    assert "stereotype preferred" in details
    assert "## Other measures" in table
    assert "CrowS-Pairs, basic prompt, race-color: entropy, bits" in table.split("## By group")[1]


def test_the_paper_at_all_sizes(page: str) -> None:
    details = part_of(page, "details")
    row = details.split("DROP, few-shot <small>")[2].split("</tr>")[0]
    assert re.findall(r"num\">([\d.]+)<", row)[:3] == ["25.4", "30.1", "35.3"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation whose names, notes and reasons are attacks."""
    found = made.found()
    renamed = dict(zip(made.MODELS[1:], HOSTILE[:3], strict=True))
    for model in found["models"]:
        model["name"] = renamed.get(model["name"], model["name"])
        model["where"] = HOSTILE[4]
    for row in found["results"] + found["differences"]:
        row["model"] = renamed.get(row["model"], row["model"])
        row["note"] = HOSTILE[3]
    for row in found["results"][:4]:
        row["task"] = row["setting"] = HOSTILE[4]
    found["missing"] = [{"task": HOSTILE[1], "why": HOSTILE[5]}]
    path = made.write(tmp_path_factory.mktemp("hostile") / HOSTILE[5][:20], found)
    suite.write(path)
    return path


def test_what_people_wrote_stays_text(hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    table = (hostile / "table.md").read_text(encoding="utf-8")
    tags = Tags(page).found
    assert not {"script", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]
    assert page.count("<style") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    assert not set("\u202e\u0000") & set(page + table)
    assert not re.search(r"(?<!\\)<(?!/?sup>)", table)  # no HTML but the footnotes' marks
    assert not re.search(r"(?<!\\)\]\(", table)  # no link, no image
    heads = [line for line in table.splitlines() if line.startswith("#")]
    assert not [line for line in heads if "heading" in line]
    behaviour = table.split("## Behaviour")[1].split("##")[0]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in behaviour.splitlines() if line}
    assert widths == {8}  # seven columns: no name added one


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(folder: Path, page: str) -> None:
    assert suite.render(suite.read(folder), "eval") == page


@pytest.mark.slow
def test_instil_report_gives_the_same_page(folder: Path, page: str, tmp_path: Path) -> None:
    run(Config(run=folder, out=tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def _without(found: dict[str, Any], name: str) -> dict[str, Any]:
    found["results"][3].pop(name)
    return found


def _changed(found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found["results"][3] |= fields
    return found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda f: _without(f, "mean"), r"missing required field `mean` - at `\$.results\[3\]`"),
        (lambda f: _changed(f, mean="high"), r"\$.results\[3\].mean"),
        (lambda f: _changed(f, unit="litres"), r"litres.*\$.results\[3\].unit"),
        (lambda f: _changed(f, model="gpt"), r"results\[3\].model: 'gpt' is none of the models"),
        (lambda f: {**f, "models": []}, "models: expected one or more"),
        (lambda f: {**f, "models": f["models"][:1] * 2}, "models: expected one or more"),
        (lambda f: [f], "Expected `object`, got `array`"),
        (lambda f: {"eval": "likert"}, "missing required field `models`"),
    ],
)
def test_something_else_is_refused_and_nothing_is_written(
    tmp_path: Path, value: Any, said: str
) -> None:
    made.write(tmp_path, value(made.found()))
    with pytest.raises(InstilError, match=rf"results\.json: .*{said}.*instil eval --out"):
        suite.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_torn_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstilError, match=r"results\.json: no such file"):
        suite.write(tmp_path)
    (tmp_path / "results.json").write_text('{"models": [')
    with pytest.raises(InstilError, match=r"results\.json: not JSON .*line 1 column 13"):
        suite.write(tmp_path)


@pytest.mark.slow
def test_a_figure_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    found = made.found()
    for row in found["results"]:
        if row["task"] == "drop":
            row |= {"mean": None, "low": None, "high": None} if row["model"] == "sft" else {}
            row |= {"low": None, "high": None} if row["model"] == "ppo" else {}
    suite.write(made.write(tmp_path, suite.plain(found)))
    cells = row_of((tmp_path / "table.md").read_text(encoding="utf-8"), "DROP, zero-shot")
    assert cells[3] == "not run"
    assert cells[4].startswith("13.1 **")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_a_browser_at_every_width(folder: Path, hostile: Path, scheme: str) -> None:
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium: apt-get install chromium")
    sync = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(color_scheme=scheme)
        trouble: list[str] = []
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("dialog", lambda dialog: trouble.append(f"dialog {dialog.message}"))
        tab.on("request", lambda r: trouble.append(r.url) if r.url.startswith("http") else None)
        for path in (folder, hostile):
            tab.goto((path / "report.html").as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            for width in (360, 768, 1250):
                tab.set_viewport_size({"width": width, "height": 800})
                wide = tab.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{wide} pixels on a screen of {width}"
            assert tab.locator("h1").is_visible()
        browser.close()
    assert trouble == []
