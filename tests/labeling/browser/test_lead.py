"""A lead at a browser: from files to figures, and what is asked before it is done."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from instil.labeling import assign, people, schema

pytestmark = pytest.mark.browser


def beside(path: str) -> ModuleType:
    """A module near this file; pytest's importlib mode leaves the folder off the path."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
known = beside("../web/known.py")


@pytest.fixture
def browse(chromium: Any, small: Any) -> Iterator[Callable[..., Any]]:
    """`browse("lead", "/lead")`: a page of that person, on the database of `small`."""
    contexts = []
    with serving.serving(small.db) as site:

        def browse(name: str, path: str, **options: Any) -> Any:
            contexts.append(site.context(chromium, small[name].id, **options))
            page = contexts[-1].new_page()
            page.set_default_timeout(5000)
            page.goto(site.url + path)
            return page

        yield browse
        for context in contexts:
            context.close()


def file(name: str, *rows: Any) -> dict[str, Any]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return {"name": name, "mimeType": "application/x-ndjson", "buffer": "\n".join(lines).encode()}


PROMPTS = [
    {"schema": "instil.prompt/1", "id": f"p{n}", "text": f"Prompt {n}?", "split": "test"}
    for n in range(3)
]
RESPONSES = {
    policy: [
        {
            "schema": "instil.response/1",
            "id": f"r{n}-{policy}",
            "prompt_id": f"p{n}",
            "text": f"Answer {n} of {policy}.",
            "policy": policy,
        }
        for n in range(3)
    ]
    for policy in ("sft", "ppo")
}


def test_from_files_to_figures(browse, small):
    page = browse("lead", "/lead")
    page.locator("main .empty >> text=Start a batch").last.click()
    page.fill("[name=name]", "Final <evaluation>")
    page.select_option("[name=purpose]", "evaluation")
    page.fill("[name=quota_held_out]", "1")
    page.fill("[name=baseline]", "sft")
    page.set_input_files("[name=prompts]", file("prompts.jsonl", *PROMPTS[:2], '{"schema": 3}'))
    sft, ppo = (file(f"{policy}.jsonl", *rows) for policy, rows in RESPONSES.items())
    page.set_input_files("[name=responses]", [sft, ppo])
    page.click("main button.primary")
    alert = page.locator("[role=alert]").inner_text()
    assert "prompts.jsonl:3: schema:" in alert
    assert "Nothing was stored" in alert
    assert page.input_value("[name=name]") == "Final <evaluation>"
    assert page.input_value("[name=purpose]") == "evaluation"

    page.set_input_files("[name=prompts]", file("prompts.jsonl", *PROMPTS))
    page.set_input_files("[name=responses]", [sft, ppo])
    page.click("main button.primary")
    page.wait_for_url("**/lead/batches/b-*")
    assert page.inner_text("h1") == "Final <evaluation>"
    page.click("text=Figures by policy")
    assert "Nobody has labeled anything" in page.inner_text("main")

    with small.db.read() as connection:
        tasks = connection.execute(schema.task.select()).all()
    for task in tasks[:2]:
        ranking = {
            "schema": "instil.ranking/1",
            "prompt_id": task.prompt_id,
            "labeler_id": "l-ann",
            "tiers": [[f"r{task.prompt_id[1:]}-ppo"], [f"r{task.prompt_id[1:]}-sft"]],
        }
        known.say(small, task.id, "ann", {"ranking": ranking, "ratings": []})
    page.reload()
    row = page.locator("table.figures >> nth=0").locator("tbody tr")
    assert "100.0 %" in row.inner_text()
    assert "n = 2 from 2 prompts" in row.inner_text()


def test_an_invitation_is_copied_and_works(browse, small):
    page = browse("admin", "/lead/labelers", permissions=["clipboard-read", "clipboard-write"])
    page.select_option("[name=pool]", "held-out")
    page.click("text=Make a link")
    page.click("text=Copy")
    page.wait_for_selector("#toast >> text=Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert people.invited(small.db, link.rpartition("/")[2]).pool == "held-out"
    page.goto(page.url.replace("/invitations", "/labelers"))
    assert link not in page.content()


def test_a_task_is_retired_only_when_asked_twice(browse, small):
    (task,) = small.batch("ranking")
    page = browse("lead", f"/lead/tasks/{task}")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("text=Retire")
    assert page.locator("text=Retire").count() == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Retire")
    page.wait_for_selector("text=Open again")
    assert assign.claim(small.db, small["ann"], "ranking") is None


def test_a_wide_table_scrolls_in_its_own_box(browse, small):
    tasks = small.batch("ranking", tasks=2, responses=3, training=0)
    for task in tasks:
        for name, tiers in (("ann", "0 1 2"), ("bob", "1 0=2")):
            known.say(small, task, name, known.ranked(small, task, name, tiers))
    page = browse("lead", "/lead/quality", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("[role=region][aria-label=Labelers]")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # our policy on scripts refuses wait_for_function
        if box.evaluate("box => box.scrollLeft"):
            break
        page.wait_for_timeout(20)
    assert box.evaluate("box => box.scrollLeft") > 0
