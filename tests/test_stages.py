"""A stage is done once, alone or beside others; what it took is noted; failed, it is done again."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from instil.jsonl import iter_objects
from instil.stages import Processes, forget_peak, once, peak_mb, side_by_side, timed


def lines(out: Path) -> list[dict]:
    return [row for _, row in iter_objects(out / "stages.jsonl")]


def test_a_stage_is_done_once_and_what_it_reports_is_kept(tmp_path):
    done = []

    def stage():
        done.append(1)
        return {"tokens": 7}

    for _ in range(2):
        once(tmp_path, "sft", stage)
    once(tmp_path, "rm", lambda: {})
    assert done == [1]
    first, second = lines(tmp_path)
    assert (first["stage"], first["tokens"], second["stage"]) == ("sft", 7, "rm")
    assert first["seconds"] >= 0
    assert "tokens" not in second


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_leaves_no_line_and_is_done_again(tmp_path, error):
    def fail():
        raise error

    once(tmp_path, "sft", lambda: {})
    with pytest.raises(error):
        once(tmp_path, "rm", fail)
    assert [row["stage"] for row in lines(tmp_path)] == ["sft"]
    once(tmp_path, "rm", lambda: {"tokens": 3})
    assert [row["stage"] for row in lines(tmp_path)] == ["sft", "rm"]


def test_a_stage_is_announced_when_it_starts(tmp_path, capsys):
    once(tmp_path, "sft", lambda: {})
    once(tmp_path, "sft", lambda: {})
    assert capsys.readouterr().err == "-- sft\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the peak anew")
def test_the_peak_is_that_of_the_stage_alone(tmp_path):
    def large():
        block = bytearray(200 << 20)
        block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])  # touch every page
        return {}

    for name, stage in (("before", dict), ("large", large), ("after", dict)):
        once(tmp_path, name, stage)
    before, peak, after = (row["peak_mb"] for row in lines(tmp_path))
    assert peak >= before + 150
    assert after < before + 100


def test_where_the_peak_is_not_counted_there_is_none(tmp_path, monkeypatch):
    def missing(self, *_):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "write_text", missing)
    forget_peak()
    assert peak_mb() is None


def test_processes_find_what_one_process_finds():
    for count in (1, 2):
        with Processes(count) as processes:
            assert processes.map(math.sqrt, [9, 4, 25]) == [3, 2, 5]


def test_several_processes_are_not_this_one():
    with Processes(2, partial(os.chdir, "/")) as processes:
        assert processes.map(os.path.abspath, ["x"]) == ["/x"]
        assert set(processes.map(eval, ["__import__('os').getpgrp()"] * 2)).isdisjoint(
            {os.getpgrp()}
        )
    assert Path.cwd() != Path("/")


def test_an_error_is_raised_here_and_ends_what_else_runs():
    began = time.monotonic()
    with pytest.raises(ValueError, match="math domain"), Processes(2) as processes:
        processes.map(timed, [partial(time.sleep, 60), partial(math.sqrt, -1)])
    assert time.monotonic() - began < 50


def test_a_stop_ends_what_runs():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Processes(2, stop=lambda: True) as processes:
        processes.map(time.sleep, [60, 60, 60])
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("count", [1, 2])
def test_stages_side_by_side_are_each_done_once(tmp_path, count, capsys):
    once(tmp_path, "ppo", lambda: {"tokens": 1})
    began = time.monotonic()
    with Processes(count) as processes:
        for _ in range(2):
            stages = {"sft": partial(dict, tokens=7), "ppo": partial(math.sqrt, -1), "rm": dict}
            side_by_side(tmp_path, stages, processes)
    wall = time.monotonic() - began
    assert capsys.readouterr().err == "-- ppo\n-- sft, rm\n"
    found = {row["stage"]: row for row in lines(tmp_path)}
    assert found.keys() == {"ppo", "sft", "rm"}
    assert found["sft"]["tokens"] == 7
    waited = found["sft"]["waited"] + found["rm"]["waited"]
    assert found["sft"]["seconds"] <= waited <= wall + 0.02


def test_a_process_ends_when_its_parent_is_gone():
    """The parent names a process that is not the child's parent: as if it had died."""
    code = (
        "import os, time; from instil.stages import end_with\n"
        "end_with(os.getppid() + 1)\n"
        "time.sleep(30)"
    )
    found = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert found.returncode == 1
