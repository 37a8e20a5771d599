"""What was acknowledged is on the disk."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from instil.labeling.database import Database
from instil.labeling.schema import setting

ROWS = 200
KILLS = 20

WANTED = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "busy_timeout": 10_000,
    "secure_delete": 1,
    "fullfsync": 1,
}


def test_sqlite_is_told_on_every_connection_of_the_pool(lite):
    with ExitStack() as stack:
        readers = [stack.enter_context(lite.read()) for _ in range(10)]
        writer = stack.enter_context(lite.write())
        for connection in (*readers, writer):
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in WANTED}
            assert found == WANTED
        assert len({id(one.connection.dbapi_connection) for one in (*readers, writer)}) == 11


@pytest.mark.slow
def test_postgresql_acknowledges_after_it_has_written(request):
    server = sa.make_url(request.getfixturevalue("postgres")).set(
        database="postgres", drivername="postgresql+psycopg"
    )
    tune = "ALTER ROLE CURRENT_USER {} synchronous_commit"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as admin:
        for lazy in (False, True):  # the second time the server's own setting is off
            if lazy:
                admin.exec_driver_sql(tune.format("SET") + " TO off")
            try:
                database = Database(server.render_as_string(False))
                with database.write() as connection:
                    found = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
                database.close()
                assert found == "on"
            finally:
                admin.exec_driver_sql(tune.format("RESET"))
    engine.dispose()


def test_the_files_are_their_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        database = Database(tmp_path / "labels.db")
        database.migrate()
        with database.write() as connection:
            connection.execute(setting.insert().values(name="a", value=""))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["labels.db", "labels.db-wal", "labels.db-shm"], 0o600)


WRITE = """
import os, sys
from instil.labeling.database import Database
from instil.labeling.schema import setting
database = Database(sys.argv[1])
for number in range(int(sys.argv[2])):
    with database.write() as connection:
        connection.execute(setting.insert().values(name=f"row {number}", value=""))
    os.write(1, b"kept\\n")
"""


def test_every_acknowledgement_comes_after_an_fsync(tmp_path):
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    path = tmp_path / "labels.db"
    Database(path).migrate()
    done = subprocess.run(
        [
            *(strace, "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", tmp_path / "calls"),
            *(sys.executable, "-c", WRITE, path, str(ROWS)),
        ],
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr and not done.stdout:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.stdout == "kept\n" * ROWS, done.stderr
    synced, proper = False, 0
    for call in (tmp_path / "calls").read_text().splitlines():
        if re.search(r"(fsync|fdatasync)\(\d+<.*labels\.db-wal>\)\s+= 0", call):
            synced = True
        elif "kept" in call:
            proper += synced
            synced = False
    assert proper == ROWS


SPAWN = """
import os, signal, sys
from instil.labeling.database import Database
from instil.labeling.schema import setting
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:  # for each, a process that writes until it is killed
    if child := os.fork():
        os.write(1, b"child %d\\n" % child)
        continue
    database, number = Database(sys.argv[1]), int(line)
    while True:
        with database.write() as connection:
            connection.execute(setting.insert().values(name=f"row {number}", value="x" * 500))
        os.write(1, b"kept %d\\n" % number)
        number += 1
"""


def test_a_process_that_is_killed_has_kept_what_it_acknowledged(tmp_path):
    path = tmp_path / "labels.db"
    Database(path).migrate()
    rng = random.Random(3)
    kept: set[int] = set()
    spawner = subprocess.Popen(
        [sys.executable, "-c", SPAWN, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert spawner.stdin and spawner.stdout
    try:
        child = 0
        for kill in range(KILLS + 1):
            print(100_000 * kill, file=spawner.stdin, flush=True)
            # what the one before had acknowledged when it was killed stands before the next name
            while not (line := spawner.stdout.readline()).startswith("child"):
                kept.add(int(line.removeprefix("kept ")))
            child = int(line.removeprefix("child "))
            for _ in range(rng.randint(0, 30)):
                line = spawner.stdout.readline()
                kept.add(int(line.removeprefix("kept ")))
            os.kill(child, signal.SIGKILL)
    finally:
        spawner.stdin.close()
        spawner.wait()
        spawner.stdout.close()
    database = Database(Path(path))
    with database.read() as connection:
        rows = set(connection.execute(sa.select(setting.c.name)).scalars())
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert len(kept) > 10 * KILLS
    assert not {f"row {number}" for number in kept} - rows
    # of each process at most one row was written and not yet acknowledged
    assert len(rows - {"permutation_key", "audit_head"}) - len(kept) <= KILLS + 1
