"""A stage is done once; what it took is noted; a stage that fails is done again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from instil.jsonl import iter_objects
from instil.stages import forget_peak, once, peak_mb


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
