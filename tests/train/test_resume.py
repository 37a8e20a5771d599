"""A run that is stopped or killed, however often, ends with the bits of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from instil import cli

COMMANDS = ("pretrain", "sft", "rm", "dpo", "ppo", "rm+likelihood", "ppo+likelihood")


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[pytest.mark.slow] * ("+" in c)) for c in COMMANDS]
)
def test_a_run_stopped_twice_ends_as_one_that_was_not(
    command, world, reference, helpers, tmp_path, monkeypatch
):
    words = world.arguments(command, tmp_path / command)
    for step in (2, 5):  # neither is a multiple of checkpoint_every: a stop writes its own
        with monkeypatch.context() as patch:
            helpers.stop_after(patch, step)
            assert cli.main(words) == 130
        assert (tmp_path / command / "checkpoints" / f"step-{step:06d}").is_dir()
    assert cli.main(words) == 0
    whole = reference(command)
    assert helpers.metrics(tmp_path / command) == helpers.metrics(whole)
    assert helpers.fingerprint(tmp_path / command) == helpers.fingerprint(whole)


def test_the_steps_after_the_checkpoint_are_forgotten_and_repeated_once(
    world, reference, helpers, tmp_path, monkeypatch
):
    words = world.arguments("rm", tmp_path / "rm")
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 4)
        assert cli.main(words) == 130
    with (tmp_path / "rm" / "metrics.jsonl").open("a") as log:  # as if killed while logging step 6
        log.write('{"step": 5, "loss": 99.0}\n{"step": 6, "lo')
    assert cli.main(words) == 0
    assert helpers.metrics(tmp_path / "rm") == helpers.metrics(reference("rm"))


def test_a_run_stopped_at_its_last_step_only_publishes(
    world, reference, helpers, tmp_path, monkeypatch
):
    words = world.arguments("sft", tmp_path / "sft")
    last = helpers.metrics(reference("sft"))[-1]["step"]
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, last)
        assert cli.main(words) == 130
    assert not (tmp_path / "sft" / "final").exists()
    assert cli.main(words) == 0
    assert helpers.fingerprint(tmp_path / "sft") == helpers.fingerprint(reference("sft"))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_three_times_also_inside_a_save_it_ends_as_one_that_was_not(
    command, world, reference, helpers, tmp_path
):
    out = tmp_path / command
    words = world.arguments(command, out)
    whole = reference(command)
    steps = helpers.metrics(whole)[-1]["step"]
    chance = random.Random(command)
    first = chance.randint(1, 2)
    kills = [
        lambda: _lines(out / "metrics.jsonl") >= first,
        lambda: _saving(out / "checkpoints"),
        lambda: _lines(out / "metrics.jsonl") >= steps - 1,
    ]
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["instil.train.ppo", "instil.train.rm", "instil.cli"])
    for due in kills:
        process = forks.Process(target=cli.main, args=(words,))
        process.start()
        limit = time.monotonic() + 60
        while process.is_alive() and not due():
            assert time.monotonic() < limit
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert json.loads((out / "run.json").read_text())["status"] == "running", "killed too late"
    process = forks.Process(target=cli.main, args=(words,))
    process.start()
    process.join(120)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    assert helpers.metrics(out) == helpers.metrics(whole)
    assert helpers.fingerprint(out) == helpers.fingerprint(whole)
    assert not list(out.rglob("*.tmp"))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _saving(folder: Path) -> bool:
    """A checkpoint is being written at this moment."""
    return folder.exists() and any(name.endswith(".tmp") for name in os.listdir(folder))
