"""The study: every finding of the paper that has a counterpart in the embedded world, measured.

The demo is one story; the study is that story at several sizes over several seeds, with the paper's
ablations, and one table: finding, the paper's figure, ours with its interval, a verdict by a rule
that was fixed before (findings.py). A study that is killed goes on where it was.

    instil study --out runs/study                        # a night on two cores
    instil study --recipe study-hour --out runs/study    # an hour and a half
    instil study --recipe study-fast --out runs/study    # minutes: to see that it works

    OUT/SIZE-SEED/     a demo's folder each (story.py)
    OUT/compare-SEED/  the sizes beside each other
    OUT/results.jsonl  all rows
    OUT/findings.md, findings.json, study.html   what came of it
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil import config as recipes
from instil.jsonl import iter_objects, replace_files, write_json, write_lines
from instil.report import study as report
from instil.runs import Run, say
from instil.study.claims import ABSENT
from instil.study.findings import Outcome, judge
from instil.study.plan import Plan, jobs, read_plan, write_recipes
from instil.study.work import work


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Measure the paper's findings in the embedded world, over sizes and seeds."""

    out: Path = Path("runs/study")
    """Directory of everything; an unfinished study is resumed."""
    recipe: str = "study"
    """Recipe with a table for each step, and [study]: a file, or the name of a packaged one."""
    workers: int = 0
    """Stories told side by side, each in a process of its own; 0 takes one for each core, at most
    one for each seed."""
    threads: int = 0
    """Torch threads of each; 0 shares out all cores."""


def run(config: Config) -> None:
    """Every job that is not done yet, then the findings."""
    path = recipes.find(config.recipe)
    plan = read_plan(path)
    cores = os.cpu_count() or 1
    workers = config.workers or min(cores, len(plan.seeds))
    threads = config.threads or max(1, cores // workers)
    with Run.open(config.out, "study", config, threads=threads, reopen=True) as study:
        write_recipes(plan, path, config.out / "recipes")
        todo = jobs(plan)
        work(config.out, plan, todo, workers, threads, lambda: study.stop_requested)
        outcomes = conclude(config.out, plan)
        study.finish()
    say(f"\nThe findings are in {config.out / 'findings.md'} and {config.out / 'study.html'}")
    for outcome in outcomes:
        say(f"{outcome.verdict:21} {outcome.finding.claim}")


def conclude(out: Path, plan: Plan) -> list[Outcome]:
    """Gather all rows, judge every finding, write the table and the page."""
    rows = list(gather(out, plan))
    outcomes = judge(rows, plan.sizes)
    write_lines(out / "results.jsonl", rows)
    write_json(out / "findings.json", described(outcomes, plan))
    study = report.read(out)
    files = {out / "findings.md": report.markdown(study), out / "study.html": report.render(study)}
    replace_files({path: [text.encode()] for path, text in files.items()})
    return outcomes


def described(outcomes: Sequence[Outcome], plan: Plan) -> dict[str, Any]:
    """All that the report needs to know of the findings; those without a counterpart at the end."""
    found: list[dict[str, Any]] = [
        {
            **{name: getattr(one.finding, name) for name in ("id", "claim", "paper", "unit")},
            **{name: getattr(one, name) for name in ("verdict", "reason", "ours", "theirs")},
            "overall": one.difference,
            "by_size": one.by_size,
        }
        for one in outcomes
    ]
    for claim, paper, reason in ABSENT:
        verdict = {"verdict": "cannot be shown here", "reason": reason}
        found.append({"claim": claim, "paper": paper, **verdict})
    sizes = {name: getattr(plan, name) for name in ("sizes", "scan_size", "reward_size")}
    return {**sizes, "seeds": len(plan.seeds), "findings": found}


def gather(out: Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """Every measurement with its size, seed, and how many parameters that size has."""
    params = {}
    for size in plan.sizes:
        stages = (row for _, row in iter_objects(out / f"{size}-{plan.seeds[0]}" / "stages.jsonl"))
        params[size] = next(row["params"] for row in stages if row["stage"] == "pretrain")
    for seed in plan.seeds:
        for size in plan.sizes:
            path = out / f"{size}-{seed}" / "evals" / "results.jsonl"
            for _, row in iter_objects(path):
                yield {"size": size, "params": params[size], "seed": seed, **row}
        for _, row in iter_objects(out / f"compare-{seed}" / "results.jsonl"):
            yield {"params": params[row["size"]], "seed": seed, **row}
