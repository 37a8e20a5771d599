"""A browser, and pages of work in it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


def _live() -> ModuleType:
    """The module beside this one; pytest's importlib mode leaves the folder off the path."""
    spec = importlib.util.spec_from_file_location("live", Path(__file__).with_name("live.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["live"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser for the tests of a file; each page has a context of its own.

    Not for the session: other tests have browsers of their own, and a thread may drive one."""
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with _live().serving(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(served: Any) -> Any:
    """`task(kind, texts)` makes work for a new labeler, `stored()` gives the answers kept."""
    served.begin()
    return served


@pytest.fixture
def show(chromium: Any, site: Any) -> Iterator[Callable[..., Any]]:
    """`show(path)` opens a page of work and waits until it is ready; keywords are the context's.

    `beside=page` opens it in another tab of that browser. Nothing may be written to the console.
    """
    contexts: list[Any] = []
    trouble: list[str] = []

    def show(path: str, beside: Any = None, **options: Any) -> Any:
        if beside is None:
            options.setdefault("viewport", {"width": 1440, "height": 900})
            contexts.append(chromium.new_context(**options))
            contexts[-1].add_cookies([site.cookie()])
        page = (beside.context if beside else contexts[-1]).new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda line: trouble.append(line.text) if _is_ours(line) else None)
        page.goto(site.url + path)
        page.wait_for_selector("main[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert not trouble


def _is_ours(line: Any) -> bool:
    # the browser itself reports each answer that is no success
    return line.type in ("error", "warning") and not line.text.startswith("Failed to load resource")
