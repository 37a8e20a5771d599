"""Work in several processes ends as in one; an error, a stop and a kill end all of it, at once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from instil.errors import InstilError
from instil.processes import Processes, forget_peak, peak_mb

TASKS = """
import os, signal, time
from pathlib import Path

class Odd(Exception):
    def __init__(self, one, two):  # so that it does not come back from a pickle
        super().__init__(one)

def call(one):
    return one()

def train(name):
    '''As a run does: SIGTERM asks it to stop after its step, a second one aborts.'''
    asked = []
    def ask(*_):
        if asked:
            Path(name + " aborted").touch()
            raise KeyboardInterrupt
        asked.append(1)
    signal.signal(signal.SIGTERM, ask)
    Path(name + " begun").touch()
    while not asked:
        time.sleep(0.02)
    time.sleep(0.5)
    Path(name + " stopped").touch()
    raise KeyboardInterrupt

def after(names, then):
    '''Do `then` when these have begun.'''
    while not all(Path(name + " begun").exists() for name in names):
        time.sleep(0.02)
    if then == "fail":
        raise ValueError("a wrong value")
    if then == "fail oddly":
        raise Odd("two", "words")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return then
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Functions that both this process and others can import, which work in an empty folder."""
    (tmp_path / "tasks_of_a_test.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import tasks_of_a_test

    yield tasks_of_a_test
    del sys.modules["tasks_of_a_test"]


def left(folder: Path) -> set[str]:
    """What trainings say of themselves."""
    return {path.name for path in folder.iterdir() if " " in path.name}


def test_several_processes_find_what_one_finds():
    for count in (1, 2):
        with Processes(count) as processes:
            for _ in range(2):
                assert processes.map(math.sqrt, [9, 4, 25]) == [3, 2, 5]
            assert processes.map(math.sqrt, []) == []


def test_several_processes_are_not_this_one():
    with Processes(2, partial(os.chdir, "/")) as processes:
        assert processes.map(os.path.abspath, ["x"]) == ["/x"]
        groups = processes.map(eval, ["__import__('os').getpgrp()"] * 2)
        assert os.getpgrp() not in groups
    assert Path.cwd() != Path("/")


def test_none_is_begun_before_there_is_work(monkeypatch):
    monkeypatch.setattr(Processes, "_begin", None)  # calling it would be an error
    with Processes(2) as processes:
        assert processes.map(math.sqrt, []) == []
    with Processes(1) as processes:
        assert processes.map(math.sqrt, [4]) == [2]


def test_what_is_found_comes_at_once_and_an_error_says_where_it_was(tasks):
    with Processes(2) as processes:
        work = [partial(int, 7), partial(tasks.after, ("c",), "fail")]
        found = processes.each(tasks.call, work)
        assert next(found) == (0, 7)
        Path("c begun").touch()
        with pytest.raises(ValueError, match="a wrong value") as raised:
            next(found)
    assert "In a process of its own:\nTraceback" in raised.value.__notes__[0]


@pytest.mark.parametrize(
    ("then", "error", "told"),
    [
        ("fail", ValueError, "a wrong value"),
        ("fail oddly", RuntimeError, "Odd: two"),
        ("die", InstilError, "ended .-9;.*the same command goes on"),
    ],
)
def test_an_error_is_raised_here_and_what_else_runs_stops_after_its_step(
    tasks, tmp_path, then, error, told
):
    began = time.monotonic()
    work = [partial(tasks.train, "a"), partial(tasks.after, ("a",), then), partial(int, 7)]
    with pytest.raises(error, match=told), Processes(2) as processes:
        processes.map(tasks.call, work)
    assert time.monotonic() - began < 30
    assert left(tmp_path) == {"a begun", "a stopped"}


@pytest.mark.parametrize(
    ("others", "begun"), [((), "a"), (("b",), "ab"), (("b", "c"), "ab")], ids=str
)
def test_a_stop_is_passed_on_once_and_nothing_begins_after_it(tasks, tmp_path, others, begun):
    """One process waits for work, or both train, or a third training waits for them."""
    began = time.monotonic()

    def stop():
        return all((tmp_path / f"{name} begun").exists() for name in begun)

    work = [partial(tasks.train, name) for name in ("a", *others)]
    work += [partial(int, 7)] * (not others)
    with pytest.raises(KeyboardInterrupt), Processes(2, stop=stop) as processes:
        processes.map(tasks.call, work)
    assert time.monotonic() - began < 30
    assert left(tmp_path) == {f"{name} {what}" for name in begun for what in ("begun", "stopped")}


def test_one_process_stops_before_the_next_item():
    done = []
    with pytest.raises(KeyboardInterrupt), Processes(1, stop=lambda: len(done) == 2) as processes:
        processes.map(done.append, [1, 2, 3])
    assert done == [1, 2]


def test_a_process_ends_when_its_parent_is_gone():
    """The parent names a process that is not the child's parent: as if it had died."""
    code = (
        "import os, time; from instil.processes import end_with\n"
        "end_with(os.getppid() + 1)\n"
        "time.sleep(30)"
    )
    found = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert found.returncode == 1


LARGE = "len(bytearray(b'x') * (200 << 20))"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the peak anew")
def test_the_peak_is_that_of_the_last_work(tmp_path):
    peaks = []
    with Processes(2) as processes:
        for work in ("1", LARGE, "1"):
            forget_peak()
            processes.map(eval, [work])
            peaks.append((peak_mb(), processes.peak_mb()))
    (own, before), (_, large), (_, after) = peaks
    assert own < before  # that of a process that works is added
    assert large > before + 150
    assert after < before + 100


def test_where_the_peak_is_not_counted_there_is_none(monkeypatch):
    def missing(self, *_):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "write_text", missing)
    forget_peak()
    assert peak_mb() is None
    assert Processes(1).peak_mb() is None
