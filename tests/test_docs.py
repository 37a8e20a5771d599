"""The documents name only what exists: files, tests, commands."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from instil.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/RESULTS.md"])


def texts_of_tests() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    gone = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not gone, f"{page.name} links to files that are not there"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_to_a_section_lead_to_a_heading(page):
    text = page.read_text(encoding="utf-8")
    for file, anchor in re.findall(r"\]\(([^)#\s:]*\.md)?#([^)]+)\)", text):
        target = (page.parent / (file or page.name)).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", target, re.M)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, f"no heading #{anchor} in {file or page.name}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_tests_and_commands_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    defined = {n for t in texts_of_tests() for n in re.findall(r"def (test_\w+)", t)}
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\b(test_[a-z0-9_]+)\b", text))
    assert not named - defined - files
    commands = set(re.findall(r"^(?:\.venv/bin/)?instil ([a-z]+)", text, re.M))
    assert not commands - set(COMMANDS)


def test_every_command_is_on_some_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [name for name in COMMANDS if f"instil {name}" not in text]


def test_the_checksums_of_the_evaluation_data_are_those_of_the_files(shared):
    text = (ROOT / "docs/evals.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[0-9a-f]{16}\b", text))
    found = {
        hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()[:16]
        for path in (shared / "data/evaluation").rglob("*.gz")
    }
    assert len(named) > 10 and named <= found
