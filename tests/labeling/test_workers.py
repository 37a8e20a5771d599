"""Several server processes on one PostgreSQL share the work; nothing is handed out twice."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import psutil
import pytest

from instil.labeling.database import Database

WORKERS, LABELERS, QUOTA = 4, 12, 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripted():
    path = Path(__file__).with_name("scripted.py")
    spec = importlib.util.spec_from_file_location("scripted", path)
    module = sys.modules["scripted"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_several_processes_share_the_work(store, url, scripted, capsys, tmp_path):
    accounts = [store.person(f"scripted{n}") for n in range(LABELERS)]
    store.batch("ranking", tasks=150, responses=2, training=QUOTA)
    store.db.close()
    db, stop = Database(url), threading.Event()
    served = scripted.Served(url, tmp_path, WORKERS)
    crew = scripted.labelers(served, db, accounts, stop)
    db.close()
    served.begin()
    try:
        served.wait()
        for labeler in crew:
            labeler.start()
        scripted.wait_for(crew, 100)
        workers = [
            child
            for child in psutil.Process(served.process.pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == WORKERS
        workers[0].kill()  # one of them is lost, and the others go on
        scripted.wait_for(crew, 500)
        scripted.finish(crew, stop)
    finally:
        stop.set()
        served.kill()
    found = scripted.check(db, crew, QUOTA)
    db.close()
    with capsys.disabled():
        print(f"\n{WORKERS} processes, {LABELERS} labelers: {found}; lost 0, doubled 0")
