"""`instil label` as it is started: what it refuses, what it prints, how much memory it takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from instil.errors import InstilError
from instil.labeling import example, people
from instil.labeling.database import Database
from instil.labeling.serve import Config, run, settings_of

PASSWORD = "correct horse battery"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(host="0.0.0.0"), "others could reach it"),
        (Config(host="192.0.2.1"), "others could reach it"),
        (Config(host="labels.example"), "others could reach it"),
        (Config(host="0.0.0.0", public_url="http://labels.example"), "give https"),
        (Config(public_url="https://labels.example/path"), "give https"),
        (Config(public_url="https://"), "give https"),
        (Config(port=65536), "--port 65536"),
        (Config(workers=0), "--workers 0"),
    ],
)
def test_what_would_not_be_safe_is_refused(config: Config, said: str) -> None:
    with pytest.raises(InstilError, match=said):
        settings_of(config)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_https(host: str) -> None:
    assert settings_of(Config(host=host)).secure is False
    behind = Config(host="0.0.0.0", public_url="https://labels.example")
    assert settings_of(behind).secure is True


def test_a_database_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTIL_DATABASE_URL", raising=False)
    with pytest.raises(InstilError, match="name the database"):
        run(Config())


def test_several_processes_want_postgresql(tmp_path: Path) -> None:
    with pytest.raises(InstilError, match="PostgreSQL"):
        run(Config(db=str(tmp_path / "labels.db"), workers=2))


def test_a_port_that_is_taken_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    taken = uvicorn.Config("", "127.0.0.1", 0, log_config=None).bind_socket()
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(InstilError, match=rf"127.0.0.1:{port}: Address already in use; .*--port"):
        run(Config(db=str(tmp_path / "labels.db"), port=port))
    taken.close()
    assert capfd.readouterr() == ("", "")


@dataclass
class Running:
    process: subprocess.Popen[str]
    said: str
    """All that it printed until it served."""

    @property
    def link(self) -> str:
        found = re.search(r"http://\S+/invitations/\S+", self.said)
        return found[0] if found else ""

    @property
    def url(self) -> str:
        found = re.search(r"http://127.0.0.1:\d+", self.said)
        assert found, self.said
        return found[0]

    def status(self, name: str) -> int:
        """A line of /proc/PID/status, in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", text)
        assert found
        return int(found[1]) // 1024


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """The command in a process of its own, until it is interrupted as by Ctrl-C."""
    command = [sys.executable, "-m", "instil", "label", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            if not line:
                raise AssertionError(said + process.communicate()[1])
            said += line
        yield Running(process, said)
        process.send_signal(signal.SIGINT)
        out, trouble = process.communicate(timeout=20)
        assert (process.returncode, trouble) == (0, "")
        assert out.startswith("stopped")
    finally:
        process.kill()
        process.wait()


def visitor(url: str, token: str = "") -> httpx2.Client:
    """A browser; redirects are not followed."""
    cookies = {"session": token} if token else {}
    return httpx2.Client(base_url=url, headers={"origin": url}, cookies=cookies, timeout=20)


def test_the_first_link_makes_the_administrator_once(tmp_path: Path) -> None:
    db = str(tmp_path / "labels.db")
    with running("--db", db) as first:
        assert first.link
        with visitor(first.url) as browser:
            assert browser.get(first.link).status_code == 200
            assert browser.get("/lead").headers["location"] == "/login"
    with running("--db", db) as second, visitor(second.url) as browser:
        old = second.url + first.link.removeprefix(first.url)
        assert browser.get(old).status_code == 404  # each start makes a new one
        fields = {"name": "Ada", "password": PASSWORD, "again": PASSWORD}
        assert browser.post(second.link, data=fields).status_code == 303
        assert browser.get("/lead/audit").status_code == 200
        assert browser.get(second.link).status_code == 404
    with running("--db", db) as third:
        assert not third.link
        with visitor(third.url) as browser:
            fields = {"name": "ada", "password": PASSWORD}
            assert browser.post("/login", data=fields).status_code == 303
    assert (os.stat(db).st_mode & 0o777) == 0o600


def test_the_demonstration_lets_one_rank_at_once() -> None:
    with running("--demo") as demo, visitor(demo.url) as browser:
        assert "Start" in browser.get(demo.link).text
        assert browser.post(demo.link).headers["location"] == "/"
        page = browser.get("/").text
        csrf = re.search(r'name="csrf" content="([^"]+)"', page)
        assert csrf
        response = browser.post("/work", data={"csrf": csrf[1], "kind": "ranking"})
        assert "data-letter" in browser.get(response.headers["location"]).text
        assert "n = " in browser.get("/lead/quality").text


PAGES = (
    *("/", "/history", "/account", "/survey", "/lead", "/lead/quality", "/lead/labelers"),
    *("/lead/screening", "/lead/guidelines", "/lead/questions", "/lead/survey", "/nothing"),
    *("/lead/batches/new", "/guidelines/ranking-training-1", "/login", "/health"),
)


@pytest.mark.slow
def test_the_server_stays_small_and_without_torch(tmp_path: Path) -> None:
    """Under 120 MB after 200 pages, a body without an end, and twenty sign-ins."""
    db = Database(tmp_path / "labels.db")
    example.fill(db)
    with db.read() as connection:
        batches = connection.exec_driver_sql("SELECT id FROM batch").scalars().all()
    session = people.begin(db, example.YOU)
    with running("--db", str(tmp_path / "labels.db")) as server:
        with visitor(server.url, session.token) as browser:
            browser.headers["x-csrf-token"] = session.csrf
            pages = [*PAGES, *(f"/lead/batches/{batch}" for batch in batches)]
            pages += [f"/lead/evaluations/{batch}" for batch in batches]
            pages += ["/", "/history", "/account", "/survey", "/nothing"] * 40
            for page in pages[:200]:
                assert browser.get(page).status_code < 500
            for kind in ("ranking", "demonstration", "annotation", "toxicity"):
                work = browser.post("/work", data={"kind": kind}).headers["location"]
                assert browser.get(work).status_code in (200, 303)
            flood = (b"x" * 65_536 for _ in range(2000))  # 125 MiB, said to be of any length
            with suppress(httpx2.TransportError):  # the server hangs up when it has had enough
                kind = {"content-type": "application/json"}
                reply = browser.post("/work/x/label", content=flood, headers=kind)
                assert reply.status_code == 413
            with visitor(server.url) as guest:
                for number in range(20):
                    guest.post("/login", data={"name": f"n{number}", "password": "guess"})
        memory = server.status("VmRSS"), server.status("VmHWM")
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
    print(f"resident: {memory[0]} MiB, at most {memory[1]} MiB")
    assert memory[1] * 1.048576 < 120
    assert "torch" not in loaded
    db.close()


def test_workers_make_their_own_application(tmp_path: Path) -> None:
    from instil.labeling.serve import _app
    from instil.labeling.web.route import Settings

    Database(tmp_path / "labels.db").migrate()
    made: Callable[..., Any] = _app(str(tmp_path / "labels.db"), Settings())
    assert made.routes  # type: ignore[attr-defined]
