"""Jobs in processes: done ones are left alone, a failure is told, a stop ends what runs."""

from __future__ import annotations

import time

import pytest

from instil.errors import InstilError
from instil.jsonl import write_lines
from instil.study.plan import Job, Plan
from instil.study.work import LAST, is_done, work

PLAN = Plan(
    sizes=("S",),
    width=(8,),
    layers=(1,),
    heads=(2,),
    rate=(1.0,),
    seeds=(0,),
    reward_size="S",
    scan_size="S",
)
JOBS = [Job(0, "S"), Job(0, "", ("S-0",))]


def test_a_job_is_done_with_its_last_stage(tmp_path):
    assert not is_done(tmp_path)
    write_lines(tmp_path / "stages.jsonl", [{"stage": "ppo"}])
    assert not is_done(tmp_path)
    write_lines(tmp_path / "stages.jsonl", [{"stage": "ppo"}, {"stage": LAST}])
    assert is_done(tmp_path)


def test_what_is_done_is_not_started_again(tmp_path):
    for job in JOBS:
        write_lines(tmp_path / job.name / "stages.jsonl", [{"stage": LAST}])
    work(tmp_path, PLAN, JOBS, workers=2, threads=1, stop=lambda: False)
    assert not list(tmp_path.rglob("log.txt"))


@pytest.mark.slow
def test_a_job_that_fails_is_named_and_nothing_waits_for_it(tmp_path):
    with pytest.raises(InstilError, match=r"S-0: failed, see .*log.txt; the same command goes on"):
        work(tmp_path, PLAN, JOBS, workers=2, threads=1, stop=lambda: False)
    assert "S.toml: no such recipe" in (tmp_path / "S-0" / "log.txt").read_text()
    assert not (tmp_path / "compare-0").exists()


@pytest.mark.slow
def test_a_stop_ends_what_runs(tmp_path):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, PLAN, JOBS, workers=1, threads=1, stop=lambda: True)
    assert time.monotonic() - began < 60
    assert not is_done(tmp_path / "S-0")
