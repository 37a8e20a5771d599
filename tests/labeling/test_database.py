"""One engine, two kinds of transaction, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling.database import Database, Unavailable, now_ms, open_existing
from instil.labeling.schema import HEAD, setting


def put(db: Database, name: str, value: str = "") -> None:
    with db.write() as connection:
        connection.execute(setting.insert().values(name=name, value=value))


def names(connection: sa.Connection) -> set[str]:
    return set(connection.execute(sa.select(setting.c.name)).scalars()) - {
        "permutation_key",
        "audit_head",
    }


def test_what_is_written_is_read(db):
    put(db, "a")
    with db.read() as connection:
        assert names(connection) == {"a"}


def test_a_reader_sees_one_moment(db):
    put(db, "a")
    with db.read() as connection:
        assert names(connection) == {"a"}
        put(db, "b")  # neither waits for the other
        assert names(connection) == {"a"}
    with db.read() as connection:
        assert names(connection) == {"a", "b"}


def test_a_reader_cannot_write(db):
    with pytest.raises(sa.exc.DBAPIError, match=r"read-?only"), db.read() as connection:
        connection.execute(setting.insert().values(name="a", value=""))
    put(db, "b")  # and the connection that refused does no harm
    with db.read() as connection:
        assert names(connection) == {"b"}


def test_what_failed_did_not_happen(db):
    def half():
        with db.write() as connection:
            connection.execute(setting.insert().values(name="a", value=""))
            raise KeyError("a")

    with pytest.raises(KeyError):
        half()
    with pytest.raises(sa.exc.IntegrityError):
        put(db, "permutation_key")
    put(db, "b")
    with db.read() as connection:
        assert names(connection) == {"b"}


def test_writers_come_one_after_another(db):
    put(db, "count", "0")
    here = setting.c.name == "count"

    def count() -> None:
        for _ in range(10):
            with db.write() as connection:
                rows = sa.select(setting.c.value).where(here).with_for_update()
                found = int(connection.execute(rows).scalar_one())
                connection.execute(setting.update().where(here).values(value=str(found + 1)))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as connection:
        assert connection.execute(sa.select(setting.c.value).where(here)).scalar() == "80"


def test_every_database_has_a_key_of_its_own_and_keeps_it(url, db, tmp_path):
    assert len(db.permutation_key) == 32
    again = Database(url)
    again.migrate()
    assert again.permutation_key == db.permutation_key
    again.close()
    other = Database(tmp_path / "other.db")
    other.migrate()
    assert other.permutation_key != db.permutation_key


def test_the_clock_is_the_one_that_was_given(db, clock):
    assert db.now() == clock.ms
    clock.pass_(hours=-1)
    assert db.now() == clock.ms
    assert 1.7e12 < now_ms() < 1e13


# -- where it is -----------------------------------------------------------------------------------


def test_a_path_and_a_url_are_one_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Database("labels.db").migrate()
    for name in (tmp_path / "labels.db", f"sqlite:///{tmp_path}/labels.db", "sqlite:///labels.db"):
        assert open_existing(name).version() == HEAD


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:secret@host/labels", r"mysql://me:\*\*\*@host/labels: SQLite and PostgreSQL"),
        ("postgresql+asyncpg://me:secret@host/labels", "SQLite and PostgreSQL are supported"),
        ("sqlite://", "labels need a file; name one"),
        ("sqlite:///:memory:", "labels need a file; name one"),
        ("://me:secret@host", "not a database URL; sqlite:///labels.db is one"),
        ("postgresql://me:secret@host:port/labels", "not a database URL"),
    ],
)
def test_what_is_no_database(url, message):
    with pytest.raises(InstilError, match=message) as raised:
        Database(url)
    assert "secret" not in str(raised.value)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InstilError, match=r"no/labels\.db: No such file or directory; name a file"):
        Database(tmp_path / "no" / "labels.db")


def test_a_driver_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InstilError, match=r"pip install 'instil\[postgres\]'"):
        Database("postgresql://localhost/labels")


def test_a_server_that_does_not_answer():
    database = Database("postgresql://me:secret@127.0.0.1:1/labels")
    with pytest.raises(InstilError, match=r"127\.0\.0\.1:1/labels: .*refused") as raised:
        database.migrate()
    assert "secret" not in str(raised.value)


def test_commands_want_a_database_that_is_there(tmp_path):
    path = tmp_path / "labels.db"
    with pytest.raises(InstilError, match="no such file; `instil label --db` makes one"):
        open_existing(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(InstilError, match="this is no labeling database"):
        open_existing(path)
    path.write_bytes(b"Dear diary" * 500)
    with pytest.raises(InstilError, match="file is not a database"):
        open_existing(path)
    path.unlink()
    Database(path).migrate("0001")
    with pytest.raises(InstilError, match=f"its schema is 0001, not {HEAD}; `instil label --db`"):
        open_existing(path)


def test_a_database_that_is_up_to_date_loads_no_alembic(tmp_path):
    Database(tmp_path / "labels.db").migrate()
    code = (
        "import sys\n"
        "from instil.labeling.database import Database\n"
        "Database(sys.argv[1]).migrate()\n"
        "assert not {'alembic', 'psycopg'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "labels.db")], check=True)


# -- when it fails ---------------------------------------------------------------------------------


def test_after_a_commit_that_failed_sqlite_is_read_and_no_more_written(lite, monkeypatch):
    put(lite, "a")

    def fails(_connection):
        raise lite.engine.dialect.dbapi.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(lite.engine.dialect, "do_commit", fails)
        with pytest.raises(Unavailable, match="the database did not keep it: disk I/O error"):
            put(lite, "b")
    for _ in range(2):  # and it is not tried again
        with pytest.raises(Unavailable, match=r"no longer writes \(disk I/O error\); restart it"):
            put(lite, "c")
    with lite.read() as connection:
        assert names(connection) == {"a"}
    again = Database(Path(lite.url.database))
    put(again, "d")
    with again.read() as connection:
        assert names(connection) == {"a", "d"}


def test_a_disk_that_is_full(tmp_path):
    """A real one, as far as a process can tell: its files may not grow beyond a limit."""
    code = (
        "import resource, signal, sys\n"
        "from instil.labeling.database import Database, Unavailable\n"
        "from instil.labeling.schema import setting\n"
        "db = Database(sys.argv[1]); db.migrate()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "for number in range(1000):\n"
        "    try:\n"
        "        with db.write() as connection:\n"
        "            values = {'name': str(number), 'value': 'x' * 4000}\n"
        "            connection.execute(setting.insert().values(values))\n"
        "    except Unavailable as error:\n"
        "        print(number, error)\n"
        "        break\n"
    )
    path = tmp_path / "labels.db"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    number, _, error = done.stdout.partition(" ")
    assert 10 < int(number) < 1000, done.stdout
    assert "the database did not keep it" in error
    with open_existing(path).read() as connection:
        kept = names(connection)
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert kept == {str(one) for one in range(int(number))}
