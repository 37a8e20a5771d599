"""The labeling server for a real browser: one process, one SQLite file, a labeler for each test."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from instil.labeling import accounts, assign, blind, past, people, schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.labeling.web.route import Settings
from instil.records import Kind

POLICIES = tuple(f"policy{place}" for place in range(9))


@dataclass
class Site:
    """The server, one labeler's work, and all that was sent and taken since the test began."""

    db: Database
    settings: Settings = field(default_factory=Settings)
    app: Any = None
    numbers: Iterator[int] = field(default_factory=itertools.count)
    account: Account | None = None
    sent: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """("draft" | "label" | "skip" | "messages", assignment, what was sent), if it was taken."""
    down: bool = False
    """Answer 503 to all that is sent."""

    @property
    def url(self) -> str:
        return self.settings.url

    def begin(self) -> None:
        """A labeler of this test's own; what other tests left is handed out no more."""
        self.sent.clear()
        self.down = False
        name = f"labeler {next(self.numbers)}"
        with self.db.write() as connection:
            connection.execute(schema.batch.update().values(state="closed"))
            connection.execute(
                schema.labeler.insert().values(
                    id=name,
                    name=name,
                    name_key=name,
                    password="!",
                    role="labeler",
                    pool="training",
                    kinds=json.dumps(get_args(Kind)),
                    created_at=0,
                )
            )
        self.account = accounts.account(self.db, name)

    def cookie(self) -> dict[str, str]:
        assert self.account is not None
        token = people.begin(self.db, self.account.id).token
        return {"name": self.settings.cookie, "value": token, "url": self.url}

    def task(
        self,
        kind: Kind,
        texts: Sequence[str] = (),
        prompt: str = "What is the moon made of?",
        shortcuts: dict[str, str] | None = None,
    ) -> str:
        """The path of a new assignment. `texts` stand on the screen in this order: A, B, ..."""
        assert self.account is not None
        if shortcuts:
            accounts.set_shortcuts(self.db, self.account, shortcuts)
        number = next(self.numbers)
        batch, task, prompt_id = f"b{number}", f"t{number}", f"p{number}"
        what = {"kind": kind, "purpose": "training"}
        order = blind.order(self.db.permutation_key, task, self.account.id, len(texts))
        with self.db.write() as connection:

            def add(table: Any, **values: Any) -> None:
                connection.execute(table.insert().values(**values))

            add(schema.batch, id=batch, name=batch, plan="{}", content_hash=batch, created_at=0,
                **what)  # fmt: skip
            if kind != "prompt":
                add(schema.prompt, id=prompt_id, text=prompt, source="api", user_id="u",
                    use_case="", split="train", meta="{}")  # fmt: skip
            asked = None if kind == "prompt" else prompt_id
            add(schema.task, id=task, batch_id=batch, prompt_id=asked, **what)
            for text, place in zip(texts, order, strict=True):
                response = f"r{number}-{place}"
                add(schema.response, id=response, prompt_id=prompt_id, text=text,
                    policy=POLICIES[place], sampling="{}")  # fmt: skip
                add(schema.task_response, task_id=task, place=place, response_id=response)
            add(schema.seat, task_id=task, pool="training", reason="quota", **what)
        held = assign.claim(self.db, self.account, kind)
        assert held is not None and held.task_id == task
        return f"/work/{held.id}"

    def draft(self, path: str) -> Any:
        """What the server has of a draft."""
        assert self.account is not None
        return past.latest(self.db, self.account, path.removeprefix("/work/")).draft["content"]

    def stored(self) -> list[Any]:
        """The answers that were kept, in the order in which they came."""
        kept = {body["key"]: body["answer"] for what, _, body in self.sent if what == "label"}
        return list(kept.values())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application; what is sent to it is written down if it takes it."""
        if scope["method"] == "GET" or not scope["path"].startswith("/work/"):
            return await self.app(scope, receive, send)
        parts = []
        more = True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        given = iter([{"type": "http.request", "body": body}])

        async def again() -> Any:
            return next(given, {"type": "http.disconnect"})

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                _, _, assignment, what = scope["path"].split("/")
                self.sent.append((what, assignment, json.loads(body)))
            await send(message)

        if self.down:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await self.app(scope, again, watch)

    def around(self, app: Any) -> Site:
        """This, put around the application that it answers for."""
        self.app = app
        return self


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """The server on a free port of this machine."""
    path = Path(__file__).with_name("serving.py")
    spec = importlib.util.spec_from_file_location("serving", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["serving"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    db = Database(folder / "labels.db")
    db.migrate()
    site = Site(db)
    with module.serving(db, site.around) as running:
        site.settings = running.settings
        yield site
    db.close()
