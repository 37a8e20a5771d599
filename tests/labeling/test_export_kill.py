"""Exports killed at random moments: whole or absent, and always remembered when they are there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from random import Random

import pytest
import sqlalchemy as sa

from instil.labeling import assign, export, labels, schema
from instil.labeling.database import Database

KILLS = 20 * int(os.environ.get("INSTIL_TIMES", "1"))

pytestmark = pytest.mark.slow


def in_a_child(url, out, after):
    """Export in a process of its own that is killed after so many seconds."""
    child = os.fork()
    if not child:
        try:
            export.export(Database(url), out)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def is_whole(out):
    manifest = json.loads((out / "MANIFEST.json").read_text())
    for name, file in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == file["sha256"]
    return manifest["id"]


def test_killed_at_any_moment_an_export_is_whole_or_absent(store, url, tmp_path):
    store.batch("ranking", tasks=20)
    for _ in range(20):
        held = assign.claim(store.db, store["ann"], "ranking")
        rated = dict.fromkeys("ABCD", 4)
        answer = json.dumps({"tiers": [list("ABCD")], "overall": rated}).encode()
        labels.submit(store.db, store["ann"], held.id, held.id, 0, answer, 1000)
    store.db.close()  # no connection may be shared with a child
    began = time.monotonic()
    in_a_child(url, tmp_path / "first", 2)
    assert is_whole(tmp_path / "first")
    store.db.close()
    began = time.monotonic()
    export.export(store.db, tmp_path / "second")
    whole = time.monotonic() - began
    store.db.close()
    rng = Random(0)
    longest = 3 * whole  # a child may be slower than this process; the kills stay around its end
    found = []
    for number in range(KILLS):
        out = tmp_path / f"out{number % 2}"  # what is left of one kill is in the way of the next
        in_a_child(url, out, rng.uniform(0, longest))
        found.append(out.exists())
        longest *= 0.5 if found[-1] else 2
        if found[-1]:
            made = is_whole(out)
            with store.db.read() as connection:
                known = sa.select(schema.export.c.path).where(schema.export.c.id == made)
                assert connection.execute(known).scalar() == str(out)
            store.db.close()
            out.rename(tmp_path / f"kept{number}")
    assert 0 < sum(found) < KILLS  # else no kill hit an export at work
    export.export(store.db, tmp_path / "last")
    assert is_whole(tmp_path / "last")
