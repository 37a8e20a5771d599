"""A toy world for the trainers, made once: prompts that name a color, answers that should name it.

Vocabulary about 300, width 32, 2 layers, so that a whole run takes a second on one core.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from instil import cli
from instil.jsonl import write_records
from instil.records import Demonstration, Prompt, Ranking, Response, Text
from instil.runs import Run
from instil.train import ppo_config

COLORS = ("red", "blue", "green", "pink")


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    root: Path

    @property
    def text(self) -> Path:
        return self.root / "text.jsonl"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts.jsonl"

    @property
    def sft(self) -> Path:
        return self.root / "sft"

    @property
    def rm(self) -> Path:
        return self.root / "rm"

    @property
    def likely_rm(self) -> Path:
        """A reward model with a likelihood."""
        return self.root / "rm+likelihood"

    def arguments(self, command: str, out: Path) -> list[str]:
        """A command line that takes about a second: eight to twelve steps, a checkpoint each 3.

        "rm+likelihood" and "ppo+likelihood" are the same with a likelihood in the reward."""
        files = {name: str(self.root / f"{name}.jsonl") for name in FILES}
        shared = ["--out", str(out), "--threads", "1", "--checkpoint-every", "3", "--seed", "3"]
        ranked = (
            f"--model {self.sft} --prompts {files['prompts']} --rankings {files['rankings']} "
            f"--responses {files['responses']} --demonstrations {files['demonstrations']} "
            "--batch-size 8 --lr 1e-2 --epochs 2 --eval-every 4"
        )
        ppo = (
            f"--model {self.sft} --prompts {files['prompts']} --steps 8 "
            "--max-same 1 --batch-size 16 --minibatch-size 8 --max-tokens 12 "
            "--lr 1e-3 --value-lr 1e-3 "
            f"--ptx-coef 2 --ptx-ratio 2 --pretraining {files['text']} --row-length 16 --ema 0.9 "
            "--kl-target 0.5 --sample-every 2"
        )
        own = {
            "pretrain": f"--text {files['text']} --vocab-size 300 --width 32 --layers 2 --heads 2 "
            "--optimizer muon --context 64 --row-length 16 --batch-size 16 --epochs 0.5 "
            "--lr 1e-2 --warmup 2 --eval-every 4",
            "sft": f"--model {self.root / 'base'} --prompts {files['prompts']} "
            f"--demonstrations {files['demonstrations']} --epochs 4 --batch-size 16 --lr 3e-3 "
            f"--max-response-tokens 12 --pretraining {files['text']} --pretraining-mix 0.25 "
            f"--row-length 16 --dropout 0.2 --rm {self.rm} --eval-prompts 6",
            "rm": ranked,
            "rm+likelihood": f"{ranked} --likelihood {self.sft}",
            "dpo": f"--model {self.sft} --prompts {files['prompts']} "
            f"--rankings {files['rankings']} --responses {files['responses']} "
            "--batch-size 8 --lr 1e-3 --warmup 2 --epochs 2 --label-smoothing 0.05 --eval-every 4",
            "ppo": f"{ppo} --rm {self.rm}",
            "ppo+likelihood": f"{ppo} --rm {self.likely_rm}",
        }
        return [command.partition("+")[0], *own[command].split(), *shared]


FILES = ("text", "prompts", "demonstrations", "responses", "rankings")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> World:
    """Made by the first of the processes that run the tests; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    world = World((base if worker_id == "master" else base.parent) / "world")
    with FileLock(f"{world.root}.lock"):
        if not (made := world.root / "made").exists():
            _make(world)
            made.touch()
    return world


def _make(world: World) -> None:
    world.root.mkdir()
    _write_records(world.root)
    for command, more in (
        ("pretrain", ["--epochs", "6"]),
        ("sft", ["--epochs", "6"]),
        ("rm", []),
        ("rm+likelihood", []),
    ):
        out = world.root / {"pretrain": "base"}.get(command, command)
        words = world.arguments(command, out)
        if command == "sft":  # there is no reward model yet
            at = words.index("--rm")
            del words[at : at + 2]
        assert cli.main([*words, *more]) == 0


@pytest.fixture
def ppo_config_of(world: World, tmp_path: Path) -> Callable[..., ppo_config.Config]:
    """Settings of PPO on the toy world; keywords change them."""

    def make(**changes: Any) -> ppo_config.Config:
        settings: dict[str, Any] = {
            "model": world.sft,
            "rm": str(world.rm),
            "prompts": (world.prompts,),
            "out": tmp_path / "ppo",
            "max_same": 1.0,
            "pretraining": (world.text,),
            "steps": 4,
            "batch_size": 16,
            "minibatch_size": 8,
            "lr": 1e-3,
            "value_lr": 1e-3,
            "max_tokens": 12,
            "row_length": 16,
            "ptx_ratio": 2,
            "threads": 1,
        }
        return ppo_config.Config(**{**settings, **changes})

    return make


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the fields that tell the time."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time", "eps"))} for row in rows]


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a finished run, and of what it wrote to read."""
    files = [p for name in ("final", "raw", "value") for p in (run / name).glob("*.safetensors")]
    files.append(run / "samples.jsonl")
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ask the next run to stop when it has logged this step, as SIGTERM would."""
    log = Run.log

    def and_stop(run: Run, at: int, values: dict[str, Any]) -> None:
        log(run, at, values)
        run.stop_requested = run.stop_requested or at == step

    monkeypatch.setattr(Run, "log", and_stop)


@dataclass(frozen=True)
class Helpers:
    """The functions above, for test files, which cannot import this one."""

    metrics: Callable[[Path], list[dict[str, Any]]] = metrics
    fingerprint: Callable[[Path], dict[str, str]] = fingerprint
    stop_after: Callable[[pytest.MonkeyPatch, int], None] = stop_after


@pytest.fixture(scope="session")
def helpers() -> Helpers:
    return Helpers()


@pytest.fixture(scope="session")
def reference(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A whole, uninterrupted run of a command, made when it is first asked for."""
    made: dict[str, Path] = {}

    def of(command: str) -> Path:
        if command not in made:
            out = tmp_path_factory.mktemp("reference") / command
            assert cli.main(world.arguments(command, out)) == 0
            made[command] = out
        return made[command]

    return of


def _write_records(root: Path) -> None:
    chance = random.Random(0)
    pick = chance.choice
    sentences = [
        f"What color ? {(c := pick(COLORS))}\n\nIt is {c} and {pick(COLORS)}." for _ in range(500)
    ]
    write_records(root / "text.jsonl", [Text(text=text) for text in sentences])
    splits = ["train"] * 8 + ["valid", "test"]
    prompts = [
        Prompt(id=f"p{i}", text=f"What color {'?' * (i % 3)} {pick(COLORS)}", split=splits[i % 10])
        for i in range(60)
    ]
    write_records(root / "prompts.jsonl", prompts)
    said = {p.id: p.text.split()[-1] for p in prompts}
    write_records(
        root / "demonstrations.jsonl",
        [
            Demonstration(prompt_id=p.id, labeler_id="ann", text=f"It is {said[p.id]}.")
            for p in prompts
        ],
    )
    responses, rankings = [], []
    for p in prompts:
        right, other = said[p.id], pick([c for c in COLORS if c != said[p.id]])
        texts = [f"It is {right}.", f"It is {right} and {other}.", f"It is {other}.", "It is what."]
        ids = [f"{p.id}-{i}" for i in range(4)]
        responses += [
            Response(id=i, prompt_id=p.id, text=text) for i, text in zip(ids, texts, strict=True)
        ]
        tiers = ((ids[0],), (ids[1],), (ids[2], ids[3]))
        rankings.append(Ranking(prompt_id=p.id, labeler_id="ann", tiers=tiers))
    write_records(root / "responses.jsonl", responses)
    write_records(root / "rankings.jsonl", rankings)
