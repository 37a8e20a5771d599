"""A stage is done once, alone or beside others; what it took is noted; failed, it is done again."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path

import pytest

from instil.jsonl import iter_objects
from instil.processes import Processes
from instil.stages import once, side_by_side


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


@pytest.mark.parametrize("count", [1, 2])
def test_stages_side_by_side_are_each_done_once(tmp_path, count, capsys):
    once(tmp_path, "ppo", lambda: {"tokens": 1})
    nap = "__import__('time').sleep(0.4) or {'tokens': 7}"
    began = time.monotonic()
    with Processes(count) as processes:
        for _ in range(2):
            stages = {"sft": partial(eval, nap), "ppo": partial(math.sqrt, -1), "rm": dict}
            side_by_side(tmp_path, stages, processes)
    wall = time.monotonic() - began
    assert capsys.readouterr().err == "-- ppo\n-- sft, rm\n"
    found = {row["stage"]: row for row in lines(tmp_path)}
    assert found.keys() == {"ppo", "sft", "rm"}
    assert found["sft"]["tokens"] == 7
    assert 0.4 <= found["sft"]["seconds"] < wall
    waited = found["sft"]["waited"] + found["rm"]["waited"]
    assert 0.4 <= waited <= wall + 0.02  # what they took together, each second counted once


def test_a_stage_that_stands_alone_is_done_in_this_process(tmp_path):
    done = []

    def stage():
        done.append(1)
        return {}

    for _ in range(2):
        side_by_side(tmp_path, {"rm": stage}, Processes(2))
    assert done == [1]
    assert "waited" not in lines(tmp_path)[0]
