"""Every page as its readers find it: wide and on a phone, light and dark, short and long texts.

Nothing goes wrong in the console, nothing moves sideways, and axe-core finds nothing serious. With
INSTIL_SCREENSHOTS=1 the pictures of docs/labeling.md are made anew; with INSTIL_SCREENSHOTS=FOLDER
every page is written there, to be looked at.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from instil.labeling import accounts, assign, batches, example, schema
from instil.labeling.database import Database
from instil.labeling.web.app import ROUTES
from instil.records import Kind

pytestmark = pytest.mark.browser

KINDS: tuple[Kind, ...] = ("ranking", "toxicity", "demonstration", "annotation", "prompt")
IMAGES = Path(__file__).parents[3] / "docs" / "images"
ASKED = os.environ.get("INSTIL_SCREENSHOTS", "")
WIDE: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {
    **{"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
    **{"has_touch": True, "is_mobile": True},
}
NO_PAGES = {"/health", "/static/{version}/{name}"}
LONG = (
    "The harbour at night was full of small sounds: ropes against masts, water under the planks, "
    "somebody coughing behind a lit window. "
)
UNBROKEN = "https://example.org/" + "averylongpathwithoutanybreak" * 12
LONG_TEXT = "\n\n".join(
    [LONG * 30, UNBROKEN, "    indented = code(that, is, long)\n" * 8, LONG * 60]
)


def beside(name: str) -> ModuleType:
    """A module of this folder; pytest's importlib mode leaves the folder off the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving")


class Page(NamedTuple):
    """A page, who looks at it, and what is done there before it is looked at."""

    name: str
    path: str
    person: str | None = "l-demo-you"
    act: Callable[[Any], None] = lambda page: None


def _rate(page: Any) -> None:
    """Some outputs rated and placed, two of them tied."""
    for letter, digit in zip("abcd", "6363", strict=True):
        page.keyboard.press(letter)
        page.keyboard.press(digit)


def _compare(page: Any) -> None:
    _rate(page)
    for key in "vab":
        page.keyboard.press(key)


def _press(selector: str) -> Callable[[Any], None]:
    return lambda page: page.locator(selector).first.click()


def _few_shot(page: Any) -> None:
    page.check("[name=style][value=few-shot]")


def _bad_batch(page: Any) -> None:
    page.fill("[name=name]", "Second round")
    page.select_option("[name=kind]", "annotation")
    page.set_input_files(
        "[name=prompts]", {"name": "prompts.jsonl", "mimeType": "x", "buffer": b'{"id": 5}\n'}
    )
    page.click("text=Start the batch")
    page.wait_for_selector(".notice.bad")


def _wrong(page: Any) -> None:
    page.fill("[name=name]", "ann")
    page.fill("[name=password]", "not my password")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")


def pages(ids: Mapping[str, str]) -> list[Page]:
    """What there is to be seen; `test_all_pages_are_looked_at` says if a route is missing."""
    work = [Page(kind, f"/work/{ids[kind]}") for kind in KINDS]
    return [
        Page("login", "/login", None),
        Page("login-wrong", "/login", None, _wrong),
        Page("invitation", f"/invitations/{ids['token']}", None),
        Page("missing", "/nothing/here", None),
        Page("welcome", "/account/welcome", "l-demo-ann"),
        Page("home", "/", "l-demo-ann"),
        Page("home-lead", "/"),
        *work,
        Page("board-rated", f"/work/{ids['ranking']}", act=_rate),
        Page("board-compare", f"/work/{ids['ranking']}", act=_compare),
        Page("board-keys", f"/work/{ids['ranking']}", act=_press("[data-do=help]")),
        Page("board-skip", f"/work/{ids['ranking']}", act=_press("[data-do=skip]")),
        Page("few-shot", f"/work/{ids['prompt']}", act=_few_shot),
        Page("history", "/history", "l-demo-ann"),
        Page("guideline", f"/guidelines/{ids['guideline']}"),
        Page("account", "/account", "l-demo-ann"),
        Page("account-viewer", "/account", "l-demo-viewer"),
        Page("survey", "/survey", "l-demo-ann"),
        Page("lead", "/lead"),
        Page("lead-viewer", "/lead", "l-demo-viewer"),
        Page("batch-new", "/lead/batches/new"),
        Page("batch-refused", "/lead/batches/new", act=_bad_batch),
        Page("batch", f"/lead/batches/{ids['batch']}"),
        Page("task", f"/lead/tasks/{ids['task']}"),
        Page("evaluation", f"/lead/evaluations/{ids['evaluation']}"),
        Page("evaluation-toxicity", f"/lead/evaluations/{ids['evaluation-toxicity']}"),
        Page("quality", "/lead/quality"),
        Page("quality-viewer", "/lead/quality", "l-demo-viewer"),
        Page("labelers", "/lead/labelers"),
        Page("labelers-admin", "/lead/labelers", "l-demo-host"),
        Page("labeler", "/lead/labelers/l-demo-ann"),
        Page("screening", "/lead/screening"),
        Page("guidelines", "/lead/guidelines"),
        Page("questions", "/lead/questions"),
        Page("survey-counts", "/lead/survey"),
        Page("audit", "/lead/audit", "l-demo-host"),
    ]


def _prepare(db: Database, long: bool) -> dict[str, str]:
    """The example and what it has none of; the ids of what there is to be seen."""
    token = example.fill(db)
    name = ("Maximiliane Alexandra von Hohenstein-" * 3)[:120] if long else "Kim"
    for person, role, pool in (("viewer", "viewer", "training"), ("kim", "labeler", "candidate")):
        example._person(db, f"l-demo-{person}", f"{person} {name}", role, pool)
    if long:
        with db.write() as connection:
            for table in (schema.prompt, schema.response):
                connection.execute(table.update().values(text=LONG_TEXT + table.c.id))
            policy = schema.response.c.policy
            connection.execute(schema.response.update().values(policy=policy + "-" * 60 + "run"))
            baseline = schema.batch.update().where(schema.batch.c.baseline != "")
            connection.execute(baseline.values(baseline=schema.batch.c.baseline + "-" * 60 + "run"))
            connection.execute(schema.batch.update().values(name=schema.batch.c.name + LONG))
    you = accounts.account(db, example.YOU)
    batches.create(db, you, batches.Plan(name="Own prompts", kind="prompt", tasks=5), None)
    ids = {"token": token}
    for kind in KINDS:
        held = assign.claim(db, you, kind)
        assert held is not None, kind
        ids[kind] = held.id
    batch, task, label = schema.batch, schema.task, schema.label
    with db.write() as connection:
        for key, kind, purpose in (
            ("batch", "ranking", "training"),
            ("evaluation", "ranking", "evaluation"),
            ("evaluation-toxicity", "toxicity", "evaluation"),
        ):
            ids[key] = connection.execute(
                sa.select(batch.c.id).where(batch.c.kind == kind, batch.c.purpose == purpose)
            ).scalar_one()
        labeled = sa.select(label.c.task_id).join(task, task.c.id == label.c.task_id)
        ids["task"] = connection.execute(
            labeled.where(task.c.batch_id == ids["batch"]).limit(1)
        ).scalar_one()
        ids["guideline"] = connection.execute(
            sa.select(schema.guideline.c.id).where(schema.guideline.c.kind == "ranking").limit(1)
        ).scalar_one()
        for author in ("l-demo-ann", example.YOU):
            connection.execute(
                schema.message.insert().values(
                    task_id=ids["task"],
                    labeler_id="l-demo-ann",
                    author_id=author,
                    flag=author == "l-demo-ann",
                    text=LONG_TEXT if long else "Are two of them the same?",
                    created_at=db.now(),
                )
            )
    return ids


@pytest.fixture(scope="module", params=["short", "long"])
def texts(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def store(texts: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[Page]]]:
    """A server on the example, and its pages."""
    db = Database(tmp_path_factory.mktemp("pages") / "labels.db")
    db.migrate()
    ids = _prepare(db, texts == "long")
    with serving.serving(db) as site:
        yield site, pages(ids)
    db.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core as text; `page.evaluate` is not bound by the page's policy."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("no axe-core: pip install axe-playwright-python")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


COLOURS, OTHERS = {"runOnly": ["color-contrast"]}, {"rules": {"color-contrast": {"enabled": False}}}
"""The rule that takes longest is asked of short texts only: how long they are changes no colour."""
AXE = """async (options) => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"], ...options });
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => [id, ...nodes.slice(0, 3).map(({ html, any }) =>
      `${html.slice(0, 160)} | ${(any[0]?.message ?? "").slice(0, 160)}`)].join("\\n    "));
}"""
SIDEWAYS = """() => {
  const wide = document.documentElement.clientWidth;
  const whole = document.documentElement.scrollWidth;
  if (whole <= wide) return [];
  const within = (element) => {
    for (let up = element.parentElement; up && up !== document.body; up = up.parentElement) {
      if (getComputedStyle(up).overflowX !== "visible") return true;
    }
  };
  const out = [...document.body.querySelectorAll("*")].filter((element) =>
    element.getBoundingClientRect().right > wide + 1 && !within(element));
  return [`${whole} > ${wide}: ${out.slice(0, 4).map((e) => e.outerHTML.slice(0, 120)).join(" ")}`];
}"""


def test_all_pages_are_looked_at() -> None:
    class Anything(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return "x"

    looked_at = [page.path.strip("/").split("/") for page in pages(Anything())]
    for route in ROUTES:
        if "GET" not in route.methods or route.path in NO_PAGES:
            continue
        parts = route.path.strip("/").split("/")
        assert any(
            len(parts) == len(path)
            and all(p == q or p.startswith("{") for p, q in zip(parts, path, strict=True))
            for path in looked_at
        ), f"{route.path} is not looked at; add it to `pages`"


NAMES = str.maketrans({" ": "-", ",": None, "(": None, ")": None})


class Looked:
    """A page in a browser, and what is wrong with it."""

    def __init__(self, context: Any, site: Any, wanted: Page, where: str) -> None:
        self.where, self.found = f"{wanted.name} ({where})", list[str]()
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("pageerror", lambda error: self.note("error", [str(error)]))
        self.page.on("console", self.console)
        status = self.page.goto(site.url + wanted.path).status
        if status != (404 if wanted.name == "missing" else 200):
            self.note("status", [str(status)])
            return
        if wanted.path.startswith("/work/"):
            self.page.wait_for_selector("main[data-ready]")
        wanted.act(self.page)

    def note(self, what: str, texts: list[str]) -> None:
        self.found += [f"{self.where}: {what} {text}" for text in texts]

    def console(self, line: Any) -> None:
        # the browser itself reports each answer that is no success
        if line.type in ("error", "warning") and not line.text.startswith("Failed to load"):
            self.note("console", [line.text])

    def sideways(self) -> None:
        self.note("sideways", self.page.evaluate(SIDEWAYS))

    def accessible(self, axe: str) -> None:
        self.page.evaluate(axe)
        in_colour = "short)" in self.where
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            if scheme == "light":
                self.note(scheme, self.page.evaluate(AXE, {} if in_colour else OTHERS))
            elif in_colour:
                self.note(scheme, self.page.evaluate(AXE, COLOURS))
            if ASKED not in ("", "1"):
                path = Path(ASKED) / f"{self.where.translate(NAMES)}-{scheme}.png"
                self.page.screenshot(path=path, full_page="short" in self.where)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["wide", "phone"])
def test_pages(chromium: Any, store: Any, texts: str, axe: str, device: str) -> None:
    site, wanted = store
    found: list[str] = []
    options = WIDE if device == "wide" else PHONE
    people = {page.person for page in wanted}
    contexts = {
        person: site.context(chromium, person, reduced_motion="reduce", **options)
        for person in people
    }
    for one in wanted:
        looked = Looked(contexts[one.person], site, one, f"{device}, {texts}")
        looked.sideways()
        looked.accessible(axe)
        if device == "wide":  # 200 %: half as many of the pixels that CSS counts in
            looked.page.set_viewport_size({"width": 720, "height": 450})
            looked.sideways()
        looked.page.close()
        found += looked.found
    for context in contexts.values():
        context.close()
    assert not found, "\n".join(found)


PICTURES = {
    "labeling-board": ("board-rated", "wide", "light"),
    "labeling-compare": ("board-compare", "wide", "light"),
    "labeling-phone": ("board-rated", "phone", "dark"),
    "labeling-demonstration": ("demonstration", "wide", "light"),
    "labeling-evaluation": ("evaluation", "wide", "light"),
    "labeling-quality": ("quality", "wide", "light"),
    "labeling-progress": ("lead", "wide", "dark"),
}
"""Picture -> page, device and scheme."""


@pytest.mark.slow
@pytest.mark.skipif(ASKED != "1", reason="set INSTIL_SCREENSHOTS=1 to make docs/images anew")
@pytest.mark.parametrize("texts", ["short"], indirect=True)
def test_pictures_for_the_documentation(chromium: Any, store: Any, texts: str) -> None:
    site, wanted = store
    by_name = {page.name: page for page in wanted}
    total = 0
    for picture, (name, device, scheme) in PICTURES.items():
        one, options = by_name[name], WIDE if device == "wide" else PHONE
        context = site.context(
            chromium, one.person, color_scheme=scheme, reduced_motion="reduce", **options
        )
        page = Looked(context, site, one, picture).page
        if one.path.startswith("/work/"):
            page.wait_for_function("() => document.querySelector('#sync').innerText !== 'Saving…'")
        data = _small(page.screenshot())
        (IMAGES / f"{picture}.png").write_bytes(data)
        total += len(data)
        context.close()
    assert total < 1_200_000


def _small(png: bytes) -> bytes:
    """The picture with a palette of 256 colours."""
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()
