"""Two and four processes end where one ends, and go on with what another number of them began."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from instil import cli
from instil.train import dist

COMMANDS = ("pretrain", "sft", "rm", "dpo", "ppo")
LIKELY = ("rm+likelihood", "ppo+likelihood")

CHANGES = {
    "pretrain": "--optimizer adamw --lr 1e-3 --epochs 0.2 --eval-every 4",
    "sft": "--dropout 0 --lr 3e-4 --epochs 1 --eval-prompts 3 --max-response-tokens 6",
    "rm": "--lr 3e-4 --epochs 0.6",
    "dpo": "--lr 3e-4 --epochs 0.6",
    "ppo": "--steps 2 --lr 1e-4 --value-lr 1e-4 --batch-size 8 --minibatch-size 4 --max-tokens 6",
}
"""Short runs without dropout, whose random numbers depend on how a batch is divided, at rates at
which the optimizer does not blow up the rounding of small gradients."""

CANCELLED = {
    "score": 5e-6,
    "val/explained_var": 5e-6,
    "policy/grad_norm": 5e-6,
    "ptx/grad_norm_ratio": 1e-5,
    "rollout/max_abs_dlogp": 1e-5,
}
"""What is the difference of nearly equal numbers, and so less exact than 1e-6."""

LORA = "--lora-rank 4 --activation-checkpointing"

SCRIPT = """
import json, os, sys
import torch
from torch.multiprocessing import start_processes
from instil import cli
from instil.runs import Run
from instil.train import dpo, ppo, pretrain, rm, sft  # once: in each process it would take seconds

log = Run.log

def all_runs(rank, count, todo):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.distributed.init_process_group("gloo")  # one for all runs: each would take a second
    for words, stop in todo:
        def and_stop(run, step, metrics, stop=stop):
            log(run, step, metrics)
            run.stop_requested = step == stop
        Run.log = and_stop  # rank 0's alone: the ranks must agree to stop
        try:
            status = cli.main(words)
        except SystemExit as ended:
            status = ended.code
        if status not in (0, 130):
            sys.exit(status)

torch.set_num_threads(1)
for count, todo in json.loads(sys.argv[1]):
    start_processes(all_runs, (count, todo), nprocs=count, start_method="fork")
"""
"""Ranks that are forks of one process, where torchrun starts each by itself."""


@dataclass(frozen=True)
class Runs:
    """Where the runs of this file lie: root / "2-sft" is that of two processes."""

    root: Path
    words: Callable[..., list[str]]
    printed: str
    """What several processes wrote to the standard error."""

    def of(self, count: int | str, command: str) -> Path:
        return self.root / f"{count}-{command}"


def start(*arguments: str) -> subprocess.Popen[str]:
    """Python with `arguments`, and a port on which ranks can find each other."""
    port = str(random.randint(20_000, 60_000))
    own = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | own
    )


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("dist")

    def words(count: int | str, command: str, more: str = "") -> list[str]:
        own = world.arguments(command, root / f"{count}-{command}")
        return [*own, *CHANGES[command.partition("+")[0]].split(), *more.split()]

    def one(count: str, command: str, stop: int = 0) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if stop:
                log = dist.Run.log
                patch.setattr(
                    dist.Run,
                    "log",
                    lambda run, step, metrics: (
                        log(run, step, metrics),
                        setattr(run, "stop_requested", step == stop),
                    ),
                )
            assert cli.main(words(count, command)) == (130 if stop else 0)

    for command in COMMANDS + LIKELY:
        one("1", command)
    for command in ("sft", "ppo"):
        one("1to2", command, stop=1)
    two = [
        *((words(2, command), 0) for command in COMMANDS + LIKELY),
        *((words("2to1", command), 1) for command in ("sft", "ppo")),
        *((words("1to2", command), 0) for command in ("sft", "ppo")),
        *((words("2to2", "ppo"), stop) for stop in (1, 0)),
        (words("muon", "pretrain", "--optimizer muon"), 0),
        *([(words("lora", "sft", LORA), 0)] if find_spec("peft") else []),
    ]
    four = [(words(4, command), 0) for command in COMMANDS]
    four.append((words(4, "rm"), 0))  # is finished, and so refused
    done = start("-c", SCRIPT, json.dumps([(2, two), (4, four)]))
    printed = done.communicate(timeout=240)[1]
    assert done.returncode and "never overwritten" in printed, printed
    for command in ("sft", "ppo"):
        one("2to1", command)
    return Runs(root, words, printed)


def same(run: Path, other: Path) -> None:
    """Final weights, metrics and samples are equal within 1e-6."""
    files = sorted(path.relative_to(run) for path in run.glob("*/*.safetensors"))
    assert Path("final/model.safetensors") in files
    for file in files:
        found, expected = load_file(run / file), load_file(other / file)
        for name, tensor in expected.items():
            assert (found[name] - tensor).abs().max() <= 1e-6, (file, name)
    for name in ("metrics", "samples"):
        rows, expected_rows = (
            [json.loads(line) for line in (where / f"{name}.jsonl").read_text().splitlines()]
            for where in (run, other)
        )
        assert len(rows) == len(expected_rows)
        for row, expected in zip(rows, expected_rows, strict=True):
            assert row.keys() == expected.keys()
            for key, value in expected.items():
                if isinstance(value, float) and not key.startswith(("time", "eps")):
                    within = CANCELLED.get(key, 1e-6)
                    assert row[key] == pytest.approx(value, rel=within, abs=within), (row, key)
                elif not isinstance(value, float):
                    assert row[key] == value


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("command", COMMANDS)
def test_several_processes_end_as_one(command, count, runs):
    same(runs.of(count, command), runs.of(1, command))
    info = json.loads((runs.of(count, command) / "run.json").read_text())
    assert (info["status"], info["processes"]) == ("finished", count)


@pytest.mark.slow
@pytest.mark.parametrize("command", LIKELY)
def test_a_likelihood_in_the_reward_is_the_same_in_two_processes(command, runs):
    same(runs.of(2, command), runs.of(1, command))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["1to2", "2to1"])
@pytest.mark.parametrize("command", ["sft", "ppo"])
def test_another_number_of_processes_goes_on_with_a_checkpoint(command, change, runs):
    same(runs.of(change, command), runs.of(1, command))


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_end_with_the_same_bits(runs, helpers):
    resumed, whole = runs.of("2to2", "ppo"), runs.of(2, "ppo")
    assert helpers.metrics(resumed) == helpers.metrics(whole)
    assert helpers.fingerprint(resumed) == helpers.fingerprint(whole)


@pytest.mark.slow
def test_muon_learns_as_in_one_process(runs, tmp_path, helpers):
    words = runs.words("muon1", "pretrain", "--optimizer muon")
    assert cli.main(words) == 0
    several, one = (helpers.metrics(runs.of(name, "pretrain")) for name in ("muon", "muon1"))
    assert several[0]["loss"] > several[-1]["loss"] + 0.05
    for row, expected in zip(several, one, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("peft"), reason="needs peft")
def test_adapters_and_activation_checkpointing_as_in_one_process(runs):
    assert cli.main(runs.words("lora1", "sft", LORA)) == 0
    same(runs.of("lora", "sft"), runs.of("lora1", "sft"))


@pytest.mark.slow
def test_a_mistake_is_told_once_with_the_rank(runs):
    lines = [line for line in runs.printed.splitlines() if "never overwritten" in line]
    assert len(lines) == 1
    assert lines[0].startswith("instil rm: rank 0 of 4, before the first step: ")
    # of rm and dpo with two and with four, of rm+likelihood with two; the others are silent
    assert runs.printed.count("rankings to train on") == 5


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_one_line_that_names_it(world, tmp_path):
    words = [*world.arguments("ppo", tmp_path / "ppo"), "--steps", "5000"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = start(*torchrun, "-m", "instil", *words)
    try:
        metrics = tmp_path / "ppo" / "metrics.jsonl"
        while not metrics.exists():
            assert done.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{done.pid}/task/{done.pid}/children").read_text().split()
        (victim,) = (
            int(child)
            for child in children
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        )
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        printed = done.communicate(timeout=60)[1]
        assert time.monotonic() - killed < 60
    finally:
        done.terminate()  # its ranks with it
        done.wait()
    assert done.returncode != 0
    lines = [line for line in printed.splitlines() if line.startswith("instil: ")]
    assert len(lines) == 1, printed
    step = int(lines[0].removeprefix("instil: in step ").split(":")[0])
    assert step <= len(metrics.read_text().splitlines()) + 1
    assert ": rank 1 of 2 gives no sign of life" in lines[0]


def a_group(monkeypatch, rank: int, ranks: int) -> None:
    monkeypatch.setattr(dist, "_group", SimpleNamespace(rank=rank, ranks=ranks))


def test_every_pass_is_made_once_and_all_ranks_make_equally_many(monkeypatch):
    made = []
    for rank in range(4):
        a_group(monkeypatch, rank, 4)
        made.append(dist.evenly("abcdef"))
    assert {len(passes) for passes in made} == {2}
    assert sorted(item for passes in made for item, counts in passes if counts) == list("abcdef")
    assert [made[2][1], made[3][1]] == [("a", 0.0), ("a", 0.0)]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_passes_divide_evenly_and_stay_within_the_budget(monkeypatch, ranks):
    a_group(monkeypatch, 0, ranks)
    size = dist.per_pass(10_000, 3_000)
    assert size <= 3_000
    passes = -(-10_000 // size)
    assert passes == 4 if ranks == 1 else passes % ranks == 0


def test_alone_everything_is_handed_back():
    assert (dist.ranks(), dist.rank(), dist.first()) == (1, 0, True)
    assert dist.gathered("x") == ["x"]
    assert dist.from_first(lambda: "x") == "x"
    assert dist.totals(1.5, 2) == [1.5, 2]
    assert dist.spread(lambda items: [2 * item for item in items], [1, 2]) == [2, 4]
    assert dist.per_pass(100, 7) == 7
    assert dist.evenly("ab") == [("a", 1.0), ("b", 1.0)]
