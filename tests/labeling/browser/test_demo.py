"""`instil label --demo` as a newcomer meets it: from the command to the first ranking kept."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The link that the command prints, and the database that it serves."""
    db = tmp_path / "demo.db"
    command = [sys.executable, "-m", "instil", "label", "--demo", "--port", "0", "--db", str(db)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said = ""
        link = None
        while not link and (line := server.stdout.readline()):
            said += line
            link = re.search(r"http://127\.0\.0\.1:\d+/invitations/\S+", line)
        assert link, said
        yield link[0], db
        server.send_signal(signal.SIGINT)
        rest = server.stdout.read()
        assert server.wait(15) == 0, rest
        assert "Traceback" not in rest


def test_a_newcomer_ranks_within_a_few_steps(
    chromium: Any, demo: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    link, db = demo
    before = _rankings(db)
    page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(15_000)
    trouble: list[str] = []
    page.on("console", lambda line: trouble.append(line.text))
    page.goto(link)
    page.click("main button.primary")
    page.click("main form:has([name=kind][value=ranking]) button")
    page.wait_for_selector("main[data-ready]")
    first = page.url
    outputs = page.locator(".output")
    for place in range(outputs.count()):
        page.keyboard.press("abcdefghi"[place])
        page.keyboard.press(str(7 - place % 7))
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url != first)  # the next task is there
    page.wait_for_selector("main[data-ready]")
    assert _rankings(db) == before + 1
    page.goto(link.split("/invitations")[0] + "/history")
    assert page.locator(f"a[href='{first[first.index('/work') :]}']").count() == 1
    assert not trouble
    page.context.close()
    with capsys.disabled():
        print(f"from the link to a ranking kept: {time.monotonic() - began:.1f} s")


def _rankings(db: Path) -> int:
    """How many rankings the database holds, by any SQLite reader."""
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT count(*) FROM label WHERE kind = 'ranking'").fetchone()[0]
    finally:
        connection.close()
