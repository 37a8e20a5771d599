"""The page as its readers meet it: what it says, what it must never do, and what is missing."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from instil.errors import InstilError
from instil.report import Config, run
from instil.report.tables import beyond_chance, cell, duration, number, power
from instil.stats import Estimate

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
BLANK = "\u00a0"  # the blank that does not break, between a number and its per cent sign


def _builder() -> ModuleType:
    """The module beside this one; pytest's importlib mode leaves the folder off the path."""
    place = Path(__file__).with_name("demo_directory.py")
    spec = importlib.util.spec_from_file_location("demo_directory", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo = _builder()


RUNS = ("base", "ppo-init", "sft", "rm", "ppo", "ppo-ptx")


def page_of(path: Path) -> str:
    run(Config(run=path, out=path / "page.html"))
    return (path / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.write_demo(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return page_of(folder)


class Tags(HTMLParser):
    """Every start tag with its attributes, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_the_headline_names_the_winner(page: str) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", page)
    assert heading is not None
    text = re.sub("<.*?>", "", heading[1])
    assert text == f"Held-out labelers prefer PPO-ptx to SFT on 71{BLANK}% of prompts."


def test_the_headline_is_no_stronger_than_the_interval(tmp_path: Path) -> None:
    path = demo.write_demo(tmp_path / "demo", without=("data", *RUNS))
    row = {"eval": "win_rate", "policy": "ppo", "setting": "held-out", "unit": "share"}
    row |= demo.estimate(0.53, 0.03, 200)  # 0.53 +- 0.06 holds 0.5
    (path / "evals" / "results.jsonl").write_text(json.dumps(row) + "\n")
    assert f"do not clearly prefer PPO or SFT: PPO wins 53{BLANK}% of prompts" in page_of(path)


def test_what_is_not_made_up_stands_beside_what_was_answered(page: str) -> None:
    card = page.split("<h3>Hallucination, closed domain</h3>")[1].split("<h3>")[0]
    assert re.findall(r"of the same prompts done as asked: ([^<]+)", card) == [f"54{BLANK}%"]
    assert page.count("of the same prompts done as asked") == 1


def test_what_users_wrote_stays_text(page: str) -> None:
    tags = Tags(page).found
    assert not {"script", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]
    assert page.count("<style") == 1
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes)
        assert "url(http" not in attributes.get("style", "")
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_the_same_files_give_the_same_bytes(folder: Path, page: str) -> None:
    assert page_of(folder) == page


def test_a_fall_is_marked_beyond_chance_only(page: str) -> None:
    tax = page[page.index('id="tax"') : page.index('id="measures"')]
    # PPO falls on three of four tasks; PPO-ptx by 0.01 to 0.04 with errors of 0.016: on none
    assert tax.count("▼ fall") == 3
    reading = re.search(r"reading <small>.*?</tr>", tax, re.S)
    assert reading is not None
    assert reading[0].count("fall</em>") == 1


MISSING = {
    "sft": "There is no SFT run",
    "ppo-ptx": "There is no PPO-ptx run",
    "rankings": "There are no rankings",
    "stages": "nothing was timed",
    "evals": "No win rate has been measured",
    "data": "No intake.json",
    "ppo": "There is no PPO run",
}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param(
            ("sft", "ppo-ptx", "rankings", "stages"),
            ("sft", "ppo-ptx", "rankings", "stages"),
            marks=pytest.mark.slow,
        ),
        # no PPO run at all is said once; without data there are no rankings either
        (("base", "ppo", "ppo-ptx", "data"), ("rankings", "data", "ppo")),
        (("evals", "rm"), ("evals",)),
    ],
)
def test_a_missing_part_is_said_in_its_place(
    tmp_path: Path, parts: tuple[str, ...], said: tuple[str, ...]
) -> None:
    text = page_of(demo.write_demo(tmp_path / "demo", without=parts))
    assert tuple(part for part, words in MISSING.items() if words in text) == said
    assert ("No reward model has been evaluated" in text) == ("rm" in parts)


@pytest.mark.slow
def test_a_likelihood_in_the_reward_is_said(tmp_path: Path) -> None:
    path = demo.write_demo(tmp_path / "demo", hostile=False)
    assert "finds the response" not in page_of(path)
    info = json.loads((path / "rm" / "run.json").read_text())
    info["config"]["likelihood"] = "runs/demo/ppo-init"
    (path / "rm" / "run.json").write_text(json.dumps(info))
    assert "how likely the language model ppo-init finds the response" in page_of(path)


def test_an_empty_demo_is_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "demo" / "evals").mkdir(parents=True)
    text = page_of(tmp_path / "demo")
    assert "No policy has been compared with SFT yet." in text
    assert text.count("Not run.") >= 8


@pytest.mark.parametrize("name", ["base", "rm", "ppo-ptx"])
def test_one_run_alone_is_a_page_with_its_curves(folder: Path, name: str) -> None:
    text = page_of(folder / name)
    assert "One run:" in text
    assert "<svg" in text
    assert ('id="training"' in text) == name.startswith("ppo")


def test_a_run_that_goes_on_may_have_a_torn_line_and_odd_values(tmp_path: Path) -> None:
    path = demo.write_demo(
        tmp_path / "demo", without=("data", "evals", *(name for name in RUNS if name != "ppo"))
    )
    with (path / "ppo" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 241, "objective/kl": NaN, "objective/scores": null}\n{"step": 24')
    info = json.loads((path / "ppo" / "run.json").read_text())
    (path / "ppo" / "run.json").write_text(json.dumps(info | {"status": "stopped: KL of 40"}))
    assert "stopped: KL of 40." in page_of(path)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstilError, match="neither a run"):
        run(Config(run=tmp_path))
    with pytest.raises(InstilError, match="no such directory"):
        run(Config(run=tmp_path / "nowhere"))


def test_a_result_without_a_policy_names_its_line(tmp_path: Path) -> None:
    path = demo.write_demo(tmp_path / "demo", without=("data", *RUNS))
    (path / "evals" / "results.jsonl").write_text('{"eval": "likert", "mean": 3}\n')
    with pytest.raises(InstilError, match=r"results\.jsonl:1: .*policy"):
        run(Config(run=path))


def test_numbers_as_people_read_them() -> None:
    assert number(0.714) == f"71{BLANK}%"
    assert number(0.0312) == f"3.1{BLANK}%"
    assert number(-1.5, "score") == "−1.50"
    assert duration(12.34) == "12.3 s"
    assert duration(200) == "3 min 20 s"
    assert duration(3900) == "1 h 05 min"
    assert power(3.6e-7) == "3.6 × 10⁻⁷"
    # a t interval of 0.02 +- 0.043 begins below zero; a share does not
    assert cell(Estimate(0.02, 0.022, -0.023, 0.063, 400, 400)).interval == "0 to 6.3"


def test_beyond_chance_needs_the_interval_of_the_difference_to_leave_zero() -> None:
    # standard errors 0.03 and 0.04: that of the difference is 0.05, so 1.96 * 0.05 = 0.098
    ours = Estimate(0.60, 0.03, 0.54, 0.66, 100, 100)
    assert beyond_chance(ours, Estimate(0.501, 0.04, 0.42, 0.58, 100, 100)) == 1
    assert beyond_chance(ours, Estimate(0.503, 0.04, 0.42, 0.58, 100, 100)) == 0
    assert beyond_chance(Estimate(0.2, float("nan"), 0, 0, 1, 1), ours) == 0


def test_the_report_needs_no_torch() -> None:
    code = "import sys, instil.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_a_browser_at_every_width(folder: Path, page: str, scheme: str) -> None:
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
        tab.goto((folder / "page.html").as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for width in (360, 768, 1400):
            tab.set_viewport_size({"width": width, "height": 800})
            wide = tab.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} pixels on a screen of {width}"
        assert tab.locator("h1").is_visible()
        browser.close()
    assert trouble == []
