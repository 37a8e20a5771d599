"""The store behind the labeling server: one engine, two kinds of transaction, one clock.

SQLite (a path, or sqlite:///path) needs nothing else and is one file; PostgreSQL is for teams and
several server processes. Nothing is acknowledged before its COMMIT is on the disk: SQLite runs with
journal_mode=WAL and synchronous=FULL, PostgreSQL with synchronous_commit on, its default. There is
no faster and less safe mode: a commit takes well under a millisecond, a label minutes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from instil.errors import InstilError
from instil.labeling.schema import HEAD, setting

Clock = Callable[[], int]

VERSIONS = ("0001", "0002")
"""All schemas that a database may have, oldest first; `migrate` goes forward through them."""


PRAGMAS = (
    "busy_timeout=10000",
    "journal_mode=WAL",
    "synchronous=FULL",
    "fullfsync=ON",  # macOS alone: there fsync leaves data in the disk's own memory
    "foreign_keys=ON",
    "secure_delete=ON",
)
"""What SQLite is told at every connection; the first is how long it waits for other processes."""


class Unavailable(InstilError):
    """The database cannot be written now. Nothing of the transaction was kept."""


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Database:
    """A labeling database. Safe to share between threads.

    Raises InstilError for a URL of an unknown kind, a missing driver or folder.
    """

    def __init__(self, url: str | Path, clock: Clock = now_ms) -> None:
        self.url = _url(url)
        self.now = clock
        self.failed = ""
        """Why this process no longer writes: what a COMMIT on SQLite ran into. An fsync that failed
        may have dropped what it was to write, so trying again could acknowledge what is lost."""
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            _private_file(Path(self.url.database or ""))
        self.engine = self._engine()
        if self.sqlite:
            # a pool of its own, whose connections refuse to write, as PostgreSQL's below do
            self._reader = self._engine()
            for engine, pragmas in (
                (self.engine, PRAGMAS),
                (self._reader, (*PRAGMAS, "query_only=ON")),
            ):
                sa.event.listen(engine, "connect", partial(_set_up_sqlite, pragmas))
                sa.event.listen(engine, "begin", _begin_sqlite)
            self._writer = self.engine.execution_options(write=True)
        else:
            sa.event.listen(self.engine, "connect", _set_up_postgresql)
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writer = self.engine.execution_options(isolation_level="READ COMMITTED")
        # Writers of this process queue here: in SQLite's own busy handler they would sleep in
        # steps and be six times as late. The busy handler is for other processes.
        self._turn: Any = threading.Lock() if self.sqlite else nullcontext()

    def _engine(self) -> sa.Engine:
        name = self.url.render_as_string()
        try:
            return sa.create_engine(
                self.url, pool_size=8, max_overflow=8, pool_pre_ping=not self.sqlite
            )
        except ModuleNotFoundError as error:
            raise InstilError(
                f"{name}: no module {error.name}; pip install 'instil[postgres]'"
            ) from error
        except (ArgumentError, NoSuchModuleError) as error:
            raise InstilError(f"{name}: {error}") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment and changes nothing."""
        with self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is on the disk when the block has ended, or did not happen.

        Do not begin one inside another. Raises Unavailable if the COMMIT failed.
        """
        if self.failed:
            raise Unavailable(f"this server no longer writes ({self.failed}); restart it")
        with self._turn, self._writer.connect() as connection:
            transaction = connection.begin()
            try:
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                connection.invalidate(error)  # its transaction may be open still
                if self.sqlite:
                    self.failed = str(error.orig)
                raise Unavailable(f"the database did not keep it: {error.orig}") from error

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()
        self._reader.dispose()

    @cached_property
    def permutation_key(self) -> bytes:
        """32 random bytes, made with the database: the key of every order on a screen."""
        with self.read() as connection:
            found = connection.execute(
                sa.select(setting.c.value).where(setting.c.name == "permutation_key")
            ).scalar_one()
        return bytes.fromhex(found)

    def version(self) -> str:
        """The schema that the database has: "" if it has none.

        Raises InstilError if there is no connection, or the schema is a newer instil's.
        """
        name = self.url.render_as_string()
        try:
            with self.read() as connection:
                if not sa.inspect(connection).has_table("alembic_version"):
                    return ""
                found = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
                version = str(found.scalar() or "")
        except (DBAPIError, sqlite3.DatabaseError) as error:
            raise InstilError(f"{name}: {getattr(error, 'orig', error)}") from error
        if version and version not in VERSIONS:
            raise InstilError(
                f"{name}: its schema {version} is newer than this instil, which knows {HEAD}; "
                "install a newer instil"
            )
        return version

    def migrate(self, to: str = HEAD) -> None:
        """Make the tables, or bring them forward to schema `to`, in one transaction.

        Raises InstilError if the database is of a newer instil.
        """
        found = self.version()
        if found and VERSIONS.index(found) >= VERSIONS.index(to):
            return
        with self.write() as connection:
            if not self.sqlite:  # several servers may start at once
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(1203021550)")
            _upgrade(connection, to)
            if connection.execute(sa.select(sa.func.count()).select_from(setting)).scalar() == 0:
                for name, value in (
                    ("permutation_key", secrets.token_hex(32)),
                    ("audit_head", "0:"),
                ):
                    connection.execute(setting.insert().values(name=name, value=value))


def open_existing(url: str | Path, clock: Clock = now_ms) -> Database:
    """A database as commands want it, which read or change what is there.

    Raises InstilError if there is none, or if its schema is not this instil's.
    """
    made = _url(url)
    if made.get_backend_name() == "sqlite" and not Path(made.database or "").is_file():
        raise InstilError(f"{made.database}: no such file; `instil label --db` makes one")
    database = Database(url, clock)
    if (found := database.version()) != HEAD:
        raise InstilError(
            f"{made.render_as_string()}: "
            + (f"its schema is {found}, not {HEAD}" if found else "this is no labeling database")
            + "; `instil label --db` brings it forward"
        )
    return database


def _url(url: str | Path) -> sa.URL:
    named = str(url)
    if "://" not in named:
        return sa.URL.create("sqlite", database=str(Path(named).absolute()))
    try:
        made = sa.make_url(named)
    except (ArgumentError, ValueError) as error:
        shown = named.rpartition("@")[2]  # without the password
        raise InstilError(f"{shown}: not a database URL; sqlite:///labels.db is one") from error
    if made.get_backend_name() == "sqlite" and made.database in (None, "", ":memory:"):
        raise InstilError(f"{named}: labels need a file; name one: sqlite:///labels.db")
    if made.get_backend_name() == "postgresql" and "+" not in made.drivername:
        return made.set(drivername="postgresql+psycopg")
    if made.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InstilError(f"{made.render_as_string()}: SQLite and PostgreSQL are supported")
    return made


def _private_file(path: Path) -> None:
    """Make the file, readable for its owner alone: it holds what users asked."""
    if path.exists():
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise InstilError(
            f"{path}: {error.strerror}; name a file in a folder that exists"
        ) from error


def _set_up_sqlite(pragmas: Sequence[str], connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, in _begin_sqlite
    for pragma in pragmas:
        _patiently(connection, f"PRAGMA {pragma}")


def _patiently(connection: Any, statement: str) -> None:
    """Execute it, and wait for others: turning a new file to WAL ignores the busy timeout."""
    end = time.monotonic() + 10
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _set_up_postgresql(connection: Any, _record: Any) -> None:
    """A server may be set to acknowledge before it has written; not to us."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('synchronous_commit')")
        if cursor.fetchone()[0] == "off":
            cursor.execute("SET synchronous_commit TO on")
    connection.commit()


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes the write lock at once: taken later it could be refused half-way."""
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _upgrade(connection: sa.Connection, to: str) -> None:
    # Imported here: the server needs Alembic only when the schema is behind, and it takes 10 MB.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(to, revision)

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=to) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
