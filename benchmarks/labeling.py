"""How quick the labeling pages are, at their heaviest: nine outputs of 2,000 words.

    python -m benchmarks.labeling                    # both halves; chromium for the first
    python -m benchmarks.labeling --labelers 20 --tasks 15

Paint: from a key event to the next frame that shows what it did, in a headless Chromium without a
GPU, over three rounds of rating all nine outputs, moving, flagging and undoing. Next task: from
handing a label in to having the whole page of the next task, for each of 20 labelers who work at
once against one server process on SQLite and wait a second and a half between tasks; the clients
share the machine with the server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from instil.jsonl import write_records
from instil.labeling import batches, people
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.labeling.people import Session
from instil.labeling.planning import Plan
from instil.records import Prompt, Response

K, WORDS = 9, 2000
LETTERS = "ABCDEFGHI"
THINK_SECONDS = 1.5
PASSWORD = "nine letters and more"
TIME_FRAMES = """() => {
  window.frames_ms = [];
  document.addEventListener('keydown', () => {
    const pressed = performance.now();
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = () => window.frames_ms.push(performance.now() - pressed);
      painted.port2.postMessage(0);
    });
  }, {capture: true});
}"""


def main() -> None:
    """Fill a store, serve it, measure."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--labelers", type=int, default=20)
    flags.add_argument("--tasks", type=int, default=15, help="handed in by each labeler")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.db"
        sessions = fill(path, args.labelers + 1, args.labelers * args.tasks + args.labelers + 1)
        with serving(path) as (url, _):
            print("|                     |  n   |  p50 |  p95 |  max |")
            report("key to frame, ms", paint(url, sessions[-1]))
            acks, pages = next_task(url, sessions[:-1], args.tasks)
            report("label handed in, ms", acks)
            report("next page there, ms", pages)
            report("both, ms", [a + p for a, p in zip(acks, pages, strict=True)])


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of the app that serves a store."""
    command = [sys.executable, "-m", "instil", "label", "--db", str(path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None
        yield url[0], server.pid
    finally:
        server.terminate()
        server.wait()


def report(name: str, milliseconds: Sequence[float]) -> None:
    """One line of the table."""
    ordered = sorted(milliseconds)
    p50, p95 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.95))
    print(f"| {name:19} | {len(ordered):4} | {p50:4.0f} | {p95:4.0f} | {ordered[-1]:4.0f} |")


def fill(path: Path, labelers: int, tasks: int) -> list[Session]:
    """A store with `tasks` tasks of nine long outputs, and `labelers` people who are signed in."""
    database = Database(path)
    database.migrate()
    token = people.set_up_link(database)
    assert token is not None
    admin = people.accept(database, token, "admin", PASSWORD)
    rng = random.Random(0)
    words = ["".join(rng.choices("aeiounrst", k=rng.randint(2, 9))) for _ in range(4000)]
    prompts = [Prompt(id=f"p-{i}", text=f"Question {i}?", user_id=f"u-{i}") for i in range(tasks)]
    responses = [
        Response(
            id=f"r-{i}-{place}",
            prompt_id=f"p-{i}",
            text=" ".join(rng.choices(words, k=WORDS)),
            policy=f"m{place}",
        )
        for i in range(tasks)
        for place in range(K)
    ]
    asked, answers = path.with_name("prompts.jsonl"), path.with_name("responses.jsonl")
    write_records(asked, prompts)
    write_records(answers, responses)
    plan = Plan(name="long", kind="ranking", purpose="training", quota_training=1)
    batches.create(database, admin, plan, asked, [answers])
    sessions = [people.begin(database, person(database, admin, i).id) for i in range(labelers)]
    database.close()
    return sessions


def person(database: Database, admin: Account, number: int) -> Account:
    token = people.invite(database, admin, "labeler", "training", ["ranking"])
    return people.accept(database, token, f"labeler {number}", PASSWORD)


class Client:
    """One labeler's browser, as far as the server sees it."""

    def __init__(self, url: str, session: Session) -> None:
        self.url, self.session = url, session
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def ask(self, method: str, path: str, body: str = "", kind: str = "") -> tuple[Any, bytes]:
        headers = {"cookie": f"session={self.session.token}", "x-csrf-token": self.session.csrf}
        if method != "GET":
            headers |= {"origin": self.url, "content-type": kind}
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return response, response.read()

    def begin(self) -> str:
        """The path of a task."""
        form = urlencode({"kind": "ranking", "csrf": self.session.csrf})
        response, _ = self.ask("POST", "/work", form, "application/x-www-form-urlencoded")
        return str(response.getheader("location"))

    def label(self, path: str, key: str) -> str:
        """Hand one in; the path of the next."""
        answer = {
            "tiers": [[letter] for letter in LETTERS],
            "overall": {letter: 1 + (place * 3) % 7 for place, letter in enumerate(LETTERS)},
        }
        body = {"key": key, "base": 0, "active_ms": 60_000, "then": "next", "answer": answer}
        response, reply = self.ask("POST", f"{path}/label", json.dumps(body), "application/json")
        assert response.status == 200, reply
        return str(json.loads(reply)["next"])


def next_task(url: str, sessions: Sequence[Session], tasks: int) -> tuple[list[float], list[float]]:
    """Milliseconds of handing in, and of getting the next page, of all labelers."""
    acks: list[float] = []
    pages: list[float] = []

    def work(number: int, session: Session) -> None:
        client = Client(url, session)
        rng = random.Random(number)
        path = client.begin()
        client.ask("GET", path)
        for turn in range(tasks):
            time.sleep(rng.uniform(0, 2 * THINK_SECONDS))
            started = time.perf_counter()
            path = client.label(path, f"labeler-{number}-turn-{turn}")
            acked = time.perf_counter()
            _, page = client.ask("GET", path)
            pages.append(1000 * (time.perf_counter() - acked))
            acks.append(1000 * (acked - started))
            assert page.count(b"<article") == K

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acks) == len(sessions) * tasks
    return acks, pages


def paint(url: str, session: Session) -> list[float]:
    """Milliseconds from each key to the frame after it."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.add_cookies([{"name": "session", "value": session.token, "url": url}])
        page = context.new_page()
        page.goto(url + unescape(Client(url, session).begin()))
        page.wait_for_selector("main[data-ready]")
        page.evaluate(TIME_FRAMES)
        for turn in range(3):
            keys = [key for i in range(K) for key in (LETTERS[i].lower(), str(1 + (i + turn) % 7))]
            keys += ["a", "Shift+9", "Shift+ArrowUp", "=", "m", "3"] + ["Control+z"] * 4
            for key in keys:
                page.keyboard.press(key)
                page.wait_for_timeout(20)
        page.wait_for_timeout(300)
        measured = page.evaluate("frames_ms")
        browser.close()
    return list(measured)


if __name__ == "__main__":
    main()
