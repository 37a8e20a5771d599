"""Jobs in processes: order, what one says, one that fails, a stop, a caller that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from instil.errors import InstilError
from instil.jsonl import read_records
from instil.processes import Job, work
from instil.records import Prompt

pytestmark = pytest.mark.slow


def never() -> bool:
    return False


def test_a_job_waits_for_those_it_needs_and_what_is_done_is_left_alone(tmp_path):
    told = []
    jobs = {
        "last": Job(print, ("last",), tmp_path / "last.log", ("slow", "done")),
        "slow": Job(time.sleep, (1.0,), tmp_path / "deep" / "slow.log"),
        "quick": Job(print, ("said", "by quick"), tmp_path / "quick.log"),
        "done": Job(print, ("done",), tmp_path / "done.log"),
    }
    work(jobs, 2, never, lambda name, seconds: told.append((name, seconds)), ["done"])
    assert [name for name, _ in told] == ["quick", "slow", "last"]
    assert dict(told)["slow"] >= 1.0
    assert (tmp_path / "quick.log").read_text() == "said by quick\n"
    assert (tmp_path / "deep" / "slow.log").read_text() == ""
    assert not (tmp_path / "done.log").exists()


def test_a_job_that_fails_ends_those_beside_it_and_its_log_says_why(tmp_path):
    jobs = {
        "bad": Job(read_records, (tmp_path / "missing.jsonl", Prompt), tmp_path / "bad.log"),
        "long": Job(time.sleep, (120.0,), tmp_path / "long.log"),
        "after": Job(print, ("after",), tmp_path / "after.log", ("bad",)),
    }
    began = time.monotonic()
    with pytest.raises(InstilError, match=r"bad: failed, see .*bad\.log; the same command goes on"):
        work(jobs, 2, never, lambda name, seconds: None)
    assert time.monotonic() - began < 100
    assert "missing.jsonl" in (tmp_path / "bad.log").read_text()
    assert not (tmp_path / "after.log").exists()


def test_a_stop_ends_what_runs(tmp_path):
    jobs = {"long": Job(time.sleep, (120.0,), tmp_path / "long.log")}
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work(jobs, 1, lambda: True, lambda name, seconds: None)
    assert time.monotonic() - began < 100


def test_a_job_ends_when_its_parent_is_gone():
    """The parent names a process that is not the child's parent: as if it had died."""
    code = (
        "import os, threading, time; from instil.processes import _end_with\n"
        "threading.Thread(target=_end_with, args=(os.getppid() + 1,), daemon=True).start()\n"
        "time.sleep(30)"
    )
    found = subprocess.run([sys.executable, "-c", code], timeout=60, env={**os.environ})
    assert found.returncode == 1
