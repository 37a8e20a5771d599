"""Forecast and measured peak of memory, of the workloads of bench/workloads.py.

    python -m benchmarks.memory                    # S and M, on the CPU; about ten minutes
    python -m benchmarks.memory --model S --tasks sft

Each figure comes from a process of its own. The forecast is made as `--dry-run` makes it; what is
measured is the most that a process held that loads its models from files and trains for a
window. Written: a line for each workload, and the worst ratio.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel

from benchmarks import stand_ins, tasks
from benchmarks.run import ROOT, parse, workloads
from instil.lm.machine import settle
from instil.lm.models import load_policy
from instil.lm.scalar import ScalarModel
from instil.train.dry_run import open_run
from instil.train.ppo import improve

WORKLOADS = {
    "sft": "sft --samples 128",
    "rm4": "rm --k 4 --prompts 16",
    "rm9": "rm --k 9 --prompts 8",
    "ppo": "ppo --episodes 64",
}
"""Enough steps for the peak to settle."""


class _Planned(Exception):
    """Raised where the work would begin, with what it would be done on."""


def main() -> None:
    """Compare all workloads, or do one side of one."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--model", nargs="+", default=["S", "M"], choices=("S", "M"))
    flags.add_argument("--tasks", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    flags.add_argument("--threads", default="2")
    flags.add_argument("--side", nargs=3, metavar=("SIDE", "FOLDER", "COMMAND"))
    args = flags.parse_args()
    if args.side:
        side, folder, command = args.side
        print((_forecast if side == "forecast" else _measured)(parse(command.split()), folder))
        return
    ratios = []
    print(f"{'workload':12} {'forecast MiB':>13} {'measured MiB':>13} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.model:
            shape = workloads(parse(["sft"]).workloads).MODELS[name]
            stand_ins.random_policy(shape, 0, "cpu").save_pretrained(f"{folder}/{name}")
            for task in args.tasks:
                command = f"{WORKLOADS[task]} --model {name} --threads {args.threads}"
                found = [_side(side, folder, command) for side in ("forecast", "measured")]
                ratios.append(found[0] / found[1])
                print(f"{task} {name:8} {found[0]:13} {found[1]:13} {ratios[-1]:6.2f}", flush=True)
    print(f"furthest from 1: {max(ratios, key=lambda ratio: abs(ratio - 1)):.2f}")


def _side(side: str, folder: str, command: str) -> int:
    """MiB that a process of its own finds."""
    words = [sys.executable, "-m", "benchmarks.memory", "--side", side, folder, command]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


def _loading(folder: str) -> Any:
    """A context in which the models of tasks come from files."""

    def policy(shape: Any, seed: int, device: str) -> PreTrainedModel:
        return load_policy(Path(folder) / shape.name)

    def scalar(shape: Any, seed: int, device: str) -> ScalarModel:
        return ScalarModel.from_policy(Path(folder) / shape.name, seed)

    made = {"random_policy": policy, "random_scalar": scalar}
    return (patch.multiple(module, **made) for module in (stand_ins, tasks))


def _measured(args: Namespace, folder: str) -> int:
    settle(args.threads)
    first, second = _loading(folder)
    with first, second:
        task = tasks.TASKS[args.task](args, _NoClock(), workloads(args.workloads))
        task.warm_up()
        task.window()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _forecast(args: Namespace, folder: str) -> int:
    def supervised(args: Any, clock: Any, model: Any, steps: Any, *given: Any) -> Any:
        batches, loss, tokens, config = given
        method = tasks.Method(
            name=args.task, steps=steps, batches=batches, loss=loss, tokens=tokens
        )
        raise _Planned(lambda run: run.supervised(model, config, method))

    def models(shape: Any, codec: Any, config: Any, device: str) -> Any:
        held, texts = ppo_models(shape, codec, config, device), map(str, range(args.episodes))
        plan = (held, list(texts), torch.empty(0, 0), config, improve)
        raise _Planned(lambda run: run.ppo(*plan))

    settle(args.threads)
    ppo_models = tasks.ppo_models
    first, second = _loading(folder)
    replaced = patch.multiple(tasks, supervised=supervised, ppo_models=models)
    dry = Namespace(dry_run=True, out=Path("none"))
    with open_run(args.task, dry) as run, first, second, replaced:
        try:
            tasks.TASKS[args.task](args, _NoClock(), workloads(args.workloads))
        except _Planned as planned:
            return round(planned.args[0](run).total / 2**20)
    raise AssertionError(f"{args.task} has no plan")


class _NoClock:
    """In the place of the clock: nothing is timed."""

    reference = 1.0
    device = "cpu"

    def tick(self) -> Namespace:
        return Namespace(norm=0.0)


if __name__ == "__main__":
    main()
