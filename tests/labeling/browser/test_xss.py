"""Texts that would run as scripts, in every field that people or files fill, on every page.

Every page is looked at as every role, as it is served and without the Content-Security-Policy, so
that the policy is not the only thing that holds.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest

from instil.labeling import schema
from instil.labeling.database import Database
from instil.labeling.web.app import ROUTES

pytestmark = pytest.mark.browser


def beside(name: str) -> ModuleType:
    """A module of this folder; pytest's importlib mode leaves the folder off the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAYLOADS: tuple[str, ...] = beside("payloads").PAYLOADS
store, serving = beside("payload_store"), beside("serving")
PARTS = 4
CHUNKS = ["\n\n".join(PAYLOADS[part::PARTS]) for part in range(PARTS)]
"""All payloads, in so many texts; every field gets every text."""
KINDS, ROLES, LABELERS = store.KINDS, store.ROLES, store.LABELERS
# --- the server ---------------------------------------------------------------------------------


class WithoutPolicy:
    """The application without its Content-Security-Policy, so that escaping is all there is."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def bare(message: Any) -> None:
            if message["type"] == "http.response.start":
                named = message["headers"]
                kept = [h for h in named if h[0].lower() != b"content-security-policy"]
                assert len(kept) == len(named) - 1
                message = message | {"headers": kept}
            await send(message)

        await self.app(scope, receive, bare)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("xss") / "labels.db")
    database.migrate()
    store.fill(database, CHUNKS)
    yield database
    database.close()


@pytest.fixture(scope="module")
def strict(filled: Database) -> Iterator[Any]:
    with serving.serving(filled) as made:
        yield made


@pytest.fixture(scope="module")
def bare(filled: Database) -> Iterator[Any]:
    with serving.serving(filled, WithoutPolicy) as made:
        yield made


@pytest.fixture(scope="module", params=["strict", "bare"])
def site(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


FOREIGN = """() => {
  const found = [];
  const elements = ["iframe", "object", "embed", "base", "style", "math", "img", "video", "audio"];
  const attributes = ["style", "srcdoc", "srcset", "ping", "background", "poster"];
  const addresses = ["href", "src", "action", "formaction", "data", "xlink:href"];
  const ours = location.origin + "/static/";
  for (const element of document.querySelectorAll("*")) {
    const name = element.localName;
    if (elements.includes(name) || (name === "script" && !element.src.startsWith(ours))) {
      found.push(name);
    }
    for (const { name: attribute, value } of element.attributes) {
      const inside = /^(\\/(?!\\/)|#|data:,$)/.test(value);
      if (attribute.startsWith("on") || attributes.includes(attribute)
          || (addresses.includes(attribute) && !inside)) {
        found.push(`${name} ${attribute}=${value.slice(0, 40)}`);
      }
    }
  }
  return [window.__hit ?? null, ...found];
}"""
"""Elements and addresses that no page of ours has, and what ran."""


class Watch:
    """A page, and everything that it should not have done."""

    def __init__(self, context: Any, site: Any) -> None:
        self.page, self.site = context.new_page(), site
        self.page.set_default_timeout(10_000)
        self.trouble: list[str] = []
        self.page.on("dialog", self.dialog)
        self.page.on("popup", lambda _: self.trouble.append("popup"))
        self.page.on("request", self.request)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error {error}"))
        self.page.on("console", self.console)

    def dialog(self, dialog: Any) -> None:
        self.trouble.append(f"dialog {dialog.message[:80]}")
        dialog.dismiss()

    def request(self, request: Any) -> None:
        ours = request.url.startswith((self.site.url, "data:,"))
        if "/beacon" in request.url.split("?")[0] or not ours:
            self.trouble.append(f"request {request.url[:80]}")

    def console(self, line: Any) -> None:
        if line.type == "error" and not line.text.startswith("Failed to load resource"):
            self.trouble.append(f"console {line.text[:200]}")  # a violation of the policy, too

    def check(self, where: str) -> None:
        """Wait for what would come a moment later; nothing may have come."""
        self.page.evaluate("() => new Promise(done => setTimeout(done, 20))")
        hit, *foreign = self.page.evaluate(FOREIGN)
        assert (hit, foreign, self.trouble) == (None, [], []), where[:200]

    def go(self, path: str) -> None:
        response = self.page.goto(self.site.url + path)
        assert response.status < 500, path
        self.check(path)


# --- the pages ----------------------------------------------------------------------------------

PLACES: dict[str, Callable[[str, int], list[str]]] = {
    "/work/{id}": lambda role, part: [
        f"/work/{kind}-training-{part}-{role}" for kind in KINDS if role in LABELERS
    ],
    "/guidelines/{id}": lambda role, part: [
        f"/guidelines/{kind}-training-{part}" for kind in KINDS[:1]
    ],
    "/lead/batches/{id}": lambda role, part: [
        f"/lead/batches/{kind}-training-{part}" for kind in ("ranking", "prompt")
    ],
    "/lead/tasks/{id}": lambda role, part: [
        f"/lead/tasks/{kind}-training-{part}" for kind in KINDS
    ],
    "/lead/evaluations/{batch}": lambda role, part: [
        f"/lead/evaluations/{kind}-{purpose}-{part}"
        for kind, purpose in (("ranking", "evaluation"), ("toxicity", "training"))
    ],
    "/lead/labelers/{id}": lambda role, part: [
        f"/lead/labelers/{person}-{part}" for person in ("labeler", "candidate")
    ],
    "/invitations/{token}": lambda role, part: [f"/invitations/{quote(PAYLOADS[part], '')}"],
}
NO_PAGES = {"/health", "/static/{version}/{name}"}


def paths(role: str, part: int) -> list[str]:
    """The pages of the route table that ROLE-PART may see, those without an id for part 0 only;
    `public` is nobody signed in."""
    found: list[str] = []
    for route in ROUTES:
        allowed = role in route.roles or not route.roles
        if "GET" not in route.methods or route.path in NO_PAGES or not allowed:
            continue
        if "{" in route.path:
            found += PLACES[route.path](role, part)  # a route that is not there: add its pages
        elif part == 0:
            found.append(route.path)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("role", [*ROLES, "public"])
def test_nothing_runs_on_any_page(chromium, site, role, request):
    # the other roles see no more; with the policy, too, there is less that could run
    thorough = role in ("admin", "labeler") and site is request.getfixturevalue("bare")
    for part in range(PARTS if thorough else 2):
        context = site.context(chromium, None if role == "public" else f"{role}-{part}")
        watch = Watch(context, site)
        for path in paths(role, part):
            watch.go(path)
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_runs_while_somebody_works(chromium, bare, part):
    """What scripts write later: comparisons, tiers, dialogs."""
    role = "admin" if part % 2 else "labeler"
    context = bare.context(chromium, f"{role}-{part}")
    watch = Watch(context, bare)
    page = watch.page
    for kind in KINDS:
        path = f"/work/{kind}-training-{part}-{role}"
        watch.go(path)
        page.wait_for_selector("main[data-ready]")
        for panel in page.locator("[data-panel][aria-controls]").all():
            panel.click()
        if kind in ("ranking", "toxicity"):
            for key in ("a", "1", "2", "3", "v", "a", "b", "Escape", "o", "Escape"):
                page.keyboard.press(key)
        watch.check(f"{path}: keys")
        for name in ("skip", "report", "help"):
            page.locator(f"[data-do={name}]").first.click()
            watch.check(f"{path}: {name}")
            page.keyboard.press("Escape")
    context.close()


@pytest.mark.slow
def test_nothing_runs_when_two_versions_collide(chromium, bare):
    text = "\n".join(PAYLOADS).replace("\0", "")
    context = bare.context(chromium, "admin-0")
    watch = Watch(context, bare)
    page = watch.page
    for kind in ("ranking", "demonstration"):
        name = f"{kind}-training-0-admin"
        watch.go(f"/work/{name}")
        page.wait_for_selector("main[data-ready]")
        with bare.db.write() as connection:
            later = {"version": 99, "content": json.dumps(store.draft(kind, text))}
            draft = schema.draft
            connection.execute(draft.update().where(draft.c.assignment_id == name).values(**later))
        if kind == "ranking":
            page.keyboard.press("a")
            page.keyboard.press("3")
        else:
            page.fill("#text", f"mine {text}")
        page.wait_for_selector("#conflict[open]")
        assert text[:40] in page.inner_text("#conflict-theirs")
        watch.check(f"{name}: conflict")
        page.click("#conflict [value=theirs]")
        watch.check(f"{name}: theirs")
    context.close()


QUERIES = ("kind", "purpose", "use_case", "from", "to", "before", "after", "baseline", "saved")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["admin", "labeler", "public"])
def test_nothing_runs_that_stands_in_an_address(chromium, bare, role):
    context = bare.context(chromium, None if role == "public" else f"{role}-0")
    watch = Watch(context, bare)
    texts = [quote(chunk.replace("\0", "")[:1500], "") for chunk in CHUNKS]
    for path in paths(role, 0):
        watch.go(f"{path}?{'&'.join(f'{name}={texts[0][:300]}' for name in QUERIES)}")
    if role == "admin":
        for name, text in zip(QUERIES, texts * 2, strict=False):
            watch.go(f"/lead/quality?{name}={text}")
        for text in texts:
            watch.go(f"/lead/evaluations/ranking-evaluation-0?baseline={text}")
    for text in texts:
        watch.go(f"/{text}")
    context.close()


@pytest.mark.slow
def test_nothing_runs_that_a_form_says_again(chromium, bare, tmp_path):
    """Forms that are refused and shown with what was typed; a bad file whose name is a payload."""
    context = bare.context(chromium, "admin-0")
    watch = Watch(context, bare)
    page = watch.page
    bad = tmp_path / "bad.jsonl"
    for text in CHUNKS:
        line = text.replace("\0", "")
        watch.go("/account")
        page.locator("input[name=compare]").fill(line.replace("\n", " "))
        page.click("text=Save the keys")
        watch.check("keys")
        watch.go("/lead/batches/new")
        row = {"schema": "instil.prompt/1", "id": line, "text": "t", "split": "train"}
        bad.write_text(json.dumps(row) + "\n" + json.dumps(row | {line: line}) + "\n")
        page.fill("[name=name]", line)
        page.fill("[name=baseline]", line)
        named = {"name": f"{PAYLOADS[0]}.jsonl", "mimeType": "x", "buffer": bad.read_bytes()}
        page.set_input_files("[name=prompts]", named)
        page.click("text=Start the batch")
        page.wait_for_selector(".notice.bad")
        watch.check("batch")
        watch.go("/lead/guidelines")
    context.close()
    context = bare.context(chromium, None)
    watch = Watch(context, bare)
    for text in CHUNKS[:2]:
        watch.go("/login")
        watch.page.fill("[name=name]", text.replace("\0", "").replace("\n", " ")[:2000])
        watch.page.fill("[name=password]", "wrong horse battery")
        watch.page.keyboard.press("Enter")
        watch.page.wait_for_selector(".notice.bad, [role=alert]")
        watch.check("login")
    context.close()


def test_nothing_runs_on_the_pages_that_show_most(chromium, site):
    """The same on a few pages, for every day."""
    context = site.context(chromium, "admin-0")
    watch = Watch(context, site)
    for path in (
        *("/work/ranking-training-0-admin", "/work/demonstration-training-0-admin"),
        *("/lead", "/lead/batches/ranking-training-0", "/lead/tasks/ranking-training-0"),
        *("/lead/evaluations/ranking-evaluation-0", "/lead/labelers", "/lead/audit"),
        *("/guidelines/ranking-training-0", "/lead/questions", "/account", "/history"),
    ):
        watch.go(path)
        assert "__hit" in watch.page.content(), path  # it was there to be shown
    context.close()


def test_the_texts_would_run(chromium):
    """Each payload alone on a page that takes it for HTML; many run in other places only."""
    from playwright.sync_api import Error

    assert len(set(PAYLOADS)) >= 120
    page = chromium.new_context().new_page()
    page.route("**/*", lambda route: route.fulfill(body=""))
    page.goto("http://127.0.0.1/")
    ran = set()
    page.on("request", lambda request: "/beacon/" in request.url and ran.add(request.url))
    for number, text in enumerate(PAYLOADS):
        with suppress(Error):  # some lead the page elsewhere
            page.set_content(f"<!doctype html><p>{text}")
            if page.evaluate("() => window.__hit ?? null") == number:
                ran.add(str(number))
    page.context.close()
    assert len(ran) > 50
