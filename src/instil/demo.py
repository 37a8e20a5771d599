"""The whole of InstructGPT on the embedded world: one command, offline, on a laptop.

Users' raw prompts are cleaned, a language model is pretrained, simulated labelers write
demonstrations and rank responses, and SFT, reward model, PPO and PPO-ptx are trained and evaluated
beside each other (story.py). A second call goes on where the first was killed.

    instil demo                 # two cores: 15 minutes with AVX-512, 25 without
    instil demo --fast          # two minutes, too small to show the effects
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from instil import config as recipes
from instil import report
from instil.lm.machine import settle
from instil.processes import Processes
from instil.runs import Run, say
from instil.stages import side_by_side
from instil.story import Story


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Run the whole method on the embedded world and write a report."""

    out: Path = Path("runs/demo")
    """Directory of everything; an unfinished demo is resumed."""
    fast: bool = False
    """The small recipe, to see that everything works."""
    recipe: Path | None = None
    """Another recipe with the same tables."""
    seed: int = 0
    """Seed of the world's texts, users, labelers, and of all training."""
    threads: int = 0
    """Torch threads; 0 takes all cores. Without a GPU, what can be done side by side is done in two
    processes of half as many each, where that is one or more."""


def run(config: Config) -> None:
    """Every stage that is not done yet, then the report."""
    settle(config.threads)
    recipe = config.recipe or recipes.find("demo-fast" if config.fast else "demo")
    threads = torch.get_num_threads()
    with Run.open(config.out, "demo", config, threads=threads, reopen=True) as demo:
        several = threads > 1 and not torch.cuda.is_available()
        with Processes(
            2 if several else 1, partial(settle, threads // 2), lambda: demo.stop_requested
        ) as processes:
            story = Story(config.out, recipe, config.seed, processes=processes)
            for group in story.stages():
                if demo.stop_requested:
                    raise KeyboardInterrupt
                side_by_side(config.out, group, processes)
        demo.finish()
    report.run(report.Config(run=config.out, out=config.out / "report.html"))
    say(f"\nThe report is {config.out / 'report.html'}")
    for line in summary(config.out):
        say(line)


def summary(out: Path) -> list[str]:
    """The headline numbers as lines."""
    rows = [json.loads(line) for line in (out / "evals" / "results.jsonl").open()]
    wanted = {
        ("win_rate", "held-out"): "win rate over SFT",
        ("truthful_informative_sampled", "all"): "true and informative",
        ("hallucination", ""): "closed-domain hallucination",
    }
    return [
        f"{wanted[r['eval'], r['setting']]:28} {r['policy']:14} "
        f"{r['mean']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        for r in rows
        if (r["eval"], r["setting"]) in wanted
    ]
