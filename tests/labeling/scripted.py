"""Labelers who are scripts: they speak HTTP with a real server and remember what it acknowledged.

Each sends a request again until it is answered, as the pages do, with the same key. So at the end
every key is acknowledged, and `check` can hold the database against what was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil
import sqlalchemy as sa
import uvicorn

from instil.labeling import audit, people, schema
from instil.labeling.database import Database


class Served:
    """`instil label` in a process of its own, that can be killed and begun again on its port."""

    def __init__(self, url: str, folder: Path, workers: int = 1) -> None:
        with uvicorn.Config("", "127.0.0.1", 0, log_config=None).bind_socket() as listening:
            self.port = listening.getsockname()[1]
        self.url, self.folder, self.workers = url, folder, workers
        self.process: subprocess.Popen | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        command = ["label", "--port", str(self.port), "--workers", str(self.workers)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "instil", *command],
            env={
                **os.environ,
                "INSTIL_DATABASE_URL": self.url,
                "TMPDIR": str(self.folder),  # who is killed leaves things behind
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:  # its port was still taken, or no database
                self.begin()
            try:
                if httpx2.get(f"{self.origin}/health").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        raise TimeoutError("the server does not come up")

    def kill(self) -> None:
        """No goodbye: as a lost machine would stop."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self.process.kill()
        self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()


@dataclass
class Ledger:
    """What was acknowledged. key -> (assignment, revision, `kept`, `late` or `skipped`)"""

    labels: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    retries: int = 0
    replays: int = 0
    errors: list[str] = field(default_factory=list)


class Labeler(threading.Thread):
    """Ranks one task after the other, until `stop`."""

    def __init__(self, served: Served, session: people.Session, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.ledger, self.stop, self.csrf = Ledger(), stop, session.csrf
        self.random = random.Random(session.account.id)
        self.http = httpx2.Client(
            base_url=served.origin,
            cookies={"session": session.token},
            headers={"origin": served.origin, "x-csrf-token": session.csrf},
            timeout=30,
        )

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.one_task()
        except Exception as error:
            self.ledger.errors.append(repr(error))

    def one_task(self) -> None:
        began = self.ask("POST", "/work", 303, data={"csrf": self.csrf, "kind": "ranking"})
        path = began.headers["location"]
        if not path.startswith("/work/"):
            time.sleep(0.05)  # nothing left
            return
        draw = self.random.random()
        if draw < 0.5:
            self.ask("PUT", f"{path}/draft", 200, json={"version": 0, "content": {"focus": "A"}})
        if draw < 0.1:
            key = secrets.token_hex(8)
            self.ask(
                "POST", f"{path}/skip", 200, json={"key": key, "reason": "unclear", "note": ""}
            )
            self.ledger.labels[key] = (path[6:], 1, "skipped")
            return
        self.submit(path, 0)
        if draw > 0.7:
            self.submit(path, 1)

    def submit(self, path: str, base: int) -> None:
        key = secrets.token_hex(8)
        answer = {
            "tiers": [["B"], ["A"]],
            "overall": {"A": self.random.randint(1, 7), "B": 4},
            "remark": key,
        }
        body = {"key": key, "base": base, "active_ms": 7, "then": "stay", "answer": answer}
        for again in range(1 + (self.random.random() < 0.3)):
            told = self.ask("POST", f"{path}/label", 200, json=body).json()
            found = (path[6:], told["revision"], told["kept"])
            assert self.ledger.labels.setdefault(key, found) == found, "one key, two replies"
            self.ledger.replays += again

    def ask(self, method: str, path: str, expected: int, **sent: object) -> httpx2.Response:
        """The answer, asked for until there is one."""
        while True:
            try:
                response = self.http.request(method, path, **sent)
            except httpx2.TransportError:
                response = None
            if response is not None and response.status_code < 500:
                assert response.status_code == expected, (method, path, response.text)
                return response
            self.ledger.retries += 1
            time.sleep(0.05)


def labelers(served: Served, db: Database, accounts: list, stop: threading.Event) -> list[Labeler]:
    return [Labeler(served, people.begin(db, one.id), stop) for one in accounts]


def done(crew: list[Labeler]) -> int:
    """How many labels were acknowledged so far."""
    return sum(len(one.ledger.labels) for one in crew)


def wait_for(crew: list[Labeler], number: int) -> None:
    """Until so many labels were acknowledged."""
    deadline = time.monotonic() + 60
    while done(crew) < number:
        assert not any(one.ledger.errors for one in crew), [one.ledger.errors for one in crew]
        assert time.monotonic() < deadline, "the labelers do not get on"
        time.sleep(0.005)


def finish(crew: list[Labeler], stop: threading.Event) -> None:
    """Let each end what it is at."""
    stop.set()
    with ExitStack() as closing:
        for one in crew:
            one.join(60)
            closing.callback(one.http.close)
            assert not one.is_alive() and not one.ledger.errors, one.ledger.errors


def check(db: Database, crew: list[Labeler], quota: int) -> dict[str, int]:
    """0 acknowledged labels lost, 0 doubled, no quota exceeded; the counts, to be printed."""
    ledger = {key: row for one in crew for key, row in one.ledger.labels.items()}
    with db.read() as connection:
        rows = connection.execute(sa.select(schema.label)).all()
        bad = audit.first_bad(connection)
        events = connection.execute(
            sa.select(schema.audit.c.object_id).where(schema.audit.c.action.like("label.%"))
        ).scalars()
        events = Counter(events)
        if db.sqlite:
            whole = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            assert whole == "ok"
    stored = Counter(row.idempotency_key for row in rows)
    lost = set(ledger) - set(stored)
    doubled = [key for key, count in stored.items() if count > 1]
    assert not lost and not doubled, (len(lost), len(doubled))
    assert set(stored) == set(ledger), "a label that nobody sent, or that was never acknowledged"
    status = {"kept": "accepted", "late": "surplus", "skipped": "skipped"}
    for row in rows:
        assignment, revision, told = ledger[row.idempotency_key]
        assert (row.assignment_id, row.revision) == (assignment, revision)
        assert row.status == status[told]
        if told != "skipped":
            assert json.loads(row.payload)["remark"] == row.idempotency_key
    first = [row for row in rows if row.status == "accepted" and row.revision == 1]
    assert max(Counter(row.seat_id for row in first).values()) == 1
    assert max(Counter(row.task_id for row in first).values()) <= quota
    assert bad is None and events == Counter(row.id for row in rows)
    return {
        "acknowledged": len(ledger),
        "sent again on purpose": sum(one.ledger.replays for one in crew),
        "sent again for want of an answer": sum(one.ledger.retries for one in crew),
    }
