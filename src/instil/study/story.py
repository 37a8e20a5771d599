"""One job of the study: the demo's stages at one size and seed, ablations, and measurements.

The folder of a story is a demo's folder, so `instil report --run` makes its page. Beside it:

    sft-1/              SFT after one epoch, to be compared with SFT after all of them
    folds/K/            reward models that never saw the labels of one group of labelers
    scans/NAME/         PPO with another kl_coef or ptx_coef, or from a start with another mix
    evals/POLICY.jsonl  what one policy was measured at; POLICY-responses.jsonl what it answered
    evals/results.jsonl all of that, and who is preferred
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from instil.config import recipe_table
from instil.evals.policy import Policy, Row
from instil.evals.preference import preferences, win_rate
from instil.evals.suite import spread
from instil.jsonl import iter_objects, read_records, write_lines, write_records
from instil.lm.machine import settle
from instil.records import Labeler, Prompt, Ranking, Response
from instil.runs import read_lines
from instil.stages import once
from instil.story import Story
from instil.study.measure import Examiner
from instil.study.plan import Job, Plan
from instil.study.work import LAST
from instil.train import ppo, rm, sft

Stage = tuple[str, Callable[[], Mapping[str, Any]]]

POLICIES = ("base", "base-prompted", "sft-1", "sft", "ppo-init", "ppo", "ppo-ptx")
"""Trained at every size, and asked everything."""
PAIRS = (
    *(("ppo-ptx", "base"), ("ppo-ptx", "base-prompted")),
    *(("sft", "base-prompted"), ("sft", "sft-1")),
)
"""Compared directly, besides all with SFT."""
SCANS: Mapping[str, tuple[str, str, float]] = {
    "kl-none": ("ppo", "kl_coef", 0.0),
    "kl-x10": ("ppo", "kl_coef", 10.0),
    "kl-x100": ("ppo", "kl_coef", 100.0),
    "ptx-tenth": ("ppo-ptx", "ptx_coef", 0.1),
    "ptx-x10": ("ppo-ptx", "ptx_coef", 10.0),
}
"""Name -> the table of the recipe, and which of its settings is multiplied by what. The paper's
largest kl_coef is 100 times its own."""
MIXES: Mapping[str, float] = {"mix-0": 0.0, "mix-50": 0.5}
"""PPO from a start with another share of pretraining text than a tenth (appendix E.8)."""


def run(out: Path, plan: Plan, job: Job, threads: int) -> None:
    """Every stage of a job that is not done yet."""
    settle(threads)
    here = out / job.name
    if not job.size:
        once(here, LAST, lambda: compare_sizes(out, plan, job.seed))
        return
    rm = out / f"{plan.reward_size}-{job.seed}" / "rm"
    story = Story(here, out / "recipes" / f"{job.size}.toml", job.seed, rm=rm)
    for name, stage in stages(story, plan, job.size):
        once(here, name, stage)


def stages(story: Story, plan: Plan, size: str) -> Iterator[Stage]:
    """Name and function of every stage of one size, in order."""
    leads, scans = size == plan.reward_size, size == plan.scan_size
    others = {"evaluate"} if leads else {"evaluate", "responses", "rankings", "rm"}
    for group in story.stages():
        yield from (stage for stage in group.items() if stage[0] not in others)
    yield "sft-1", lambda: train_sft_once(story)
    if leads:
        yield "folds", lambda: train_folds(story, plan.folds)
    for name in (*SCANS, *MIXES) if scans else ():
        yield name, lambda name=name: train_scan(story, name)  # type: ignore[misc]
    examiner = Examiner(story)
    for name in POLICIES:
        yield f"ask {name}", lambda name=name: examiner.ask(policy(story, name))  # type: ignore[misc]
    for name in (*SCANS, *MIXES) if scans else ():
        yield (
            f"ask {name}",
            lambda name=name: examiner.ask(policy(story, name), few=True),  # type: ignore[misc]
        )
    if leads:
        yield "best-of", lambda: examiner.best_of(policy(story, "ppo-init"), plan)
    yield LAST, lambda: finish(story)


def policy(story: Story, name: str) -> Policy:
    """A policy of a story by its name."""
    if name == "base-prompted":
        return story.policy(name, "base", prefix=story.prefix())
    return story.policy(name, f"scans/{name}" if name in {**SCANS, **MIXES} else name)


def train_sft_once(story: Story) -> dict[str, Any]:
    """SFT for one epoch, with a schedule of its own."""
    given = {"model": story.out / "base", "epochs": 1.0, **story.sft_data()}
    return story.train(sft, "sft", "sft-1", **given)


def train_scan(story: Story, name: str) -> dict[str, Any]:
    """PPO with one setting changed, all others as in the recipe."""
    if name in SCANS:
        table, field, times = SCANS[name]
        value = times * recipe_table(story.recipe, table)[field]
        return story.train(ppo, table, f"scans/{name}", **story.ppo_data() | {field: value})
    start, mix = f"scans/{name}-init", MIXES[name]
    data = {"model": story.out / "base", "pretraining_mix": mix, **story.sft_data(mixed=mix > 0)}
    story.train(sft, "ppo-init", start, **data)
    return story.train(
        ppo, "ppo", f"scans/{name}", **story.ppo_data() | {"model": story.out / start}
    )


def train_folds(story: Story, folds: int) -> dict[str, Any]:
    """Reward models without one group of training labelers each (section 4.1): how well each
    orders validation pairs of the labelers that it learned from, and of those left out."""
    people = [one.record() for one in story.training]
    known = {one.id for one in people}
    rankings = [
        ranking
        for ranking in read_records(story.data / "rankings.jsonl", Ranking)
        if ranking.labeler_id in known
    ]
    write_records(story.out / "folds" / "rankings.jsonl", rankings)
    found: dict[str, list[float]] = {"training": [], "held-out": []}
    for fold in range(folds):
        path = story.out / "folds" / f"labelers-{fold}.jsonl"
        groups = ("held-out" if i % folds == fold else "training" for i in range(len(people)))
        write_records(
            path,
            [Labeler(id=p.id, group=g) for p, g in zip(people, groups, strict=True)],  # type: ignore[arg-type]
        )
        data = story.rm_data() | {
            "rankings": (story.out / "folds" / "rankings.jsonl",),
            "labelers": (path,),
        }
        story.train(rm, "rm", f"folds/{fold}", **data)
        rows = json.loads((story.out / "folds" / str(fold) / "accuracy.json").read_text())
        for row in rows["accuracy"]:
            if row["split"] == "valid":
                found[row["group"]].append(row["model"]["mean"])
    rows = [
        {"eval": "rm_folds", "policy": "rm", "setting": group, "mean": fmean(values)}
        for group, values in found.items()
    ]
    write_lines(story.out / "evals" / "folds.jsonl", rows)
    return {}


def finish(story: Story) -> dict[str, Any]:
    """All rows of a story in one file, with who is preferred, and samples for people to read."""
    evals = story.out / "evals"
    extra = ("folds", "best-of", *SCANS, *MIXES)
    files = [evals / f"{name}.jsonl" for name in (*POLICIES, *extra)]
    rows = [row for path in files if path.exists() for _, row in iter_objects(path)]
    rows += supervised(story)
    examiner = Examiner(story)
    prompts, panels = examiner.prompts, examiner.panels
    drawn = {name: answers(story.out, name, prompts) for name in POLICIES}
    rows += preferences(panels, prompts, drawn, "sft", "win_rate")
    rows += [
        win_rate(panels["held-out"], prompts, drawn[ours], drawn[theirs], ours, "wins", theirs)
        for ours, theirs in PAIRS
    ]
    samples = [
        {
            "prompt": prompts[i].text,
            "use_case": prompts[i].use_case,
            "split": prompts[i].split,
            "responses": {name: texts[i] for name, texts in drawn.items()},
        }
        for i in spread(prompts, 24)
    ]
    write_lines(evals / "samples.jsonl", samples)
    write_lines(evals / "results.jsonl", rows)
    return {}


def answers(folder: Path, name: str, prompts: list[Prompt]) -> list[str]:
    """What a policy answered to the prompts, in their order."""
    found = read_records(folder / "evals" / f"{name}-responses.jsonl", Response)
    texts = {response.prompt_id: response.text for response in found}
    return [texts[prompt.id] for prompt in prompts]


def supervised(story: Story) -> list[Row]:
    """What every epoch of SFT brought: validation loss, and the reward model's score."""
    lines = [row for row in read_lines(story.out / "sft" / "metrics.jsonl") if "eval/loss" in row]
    rows = []
    for name, metric in (("sft_loss", "eval/loss"), ("sft_score", "eval/rm_score")):
        values = [line[metric] for line in lines]
        settings = {f"epoch {n}": value for n, value in enumerate(values, start=1)}
        settings |= {"first": values[0], "last": values[-1]}
        rows += [
            {"eval": name, "policy": "sft", "setting": setting, "mean": value}
            for setting, value in settings.items()
        ]
    return rows


def compare_sizes(out: Path, plan: Plan, seed: int) -> dict[str, Any]:
    """Every policy of every size against the largest SFT, as in Figure 1; and the smallest aligned
    policy against the largest base model."""
    smallest, largest = plan.sizes[0], plan.sizes[-1]
    story = Story(out / f"{largest}-{seed}", out / "recipes" / f"{largest}.toml", seed)
    examiner = Examiner(story)
    prompts, panel = examiner.prompts, examiner.panels["held-out"]
    texts = {
        (size, name): answers(out / f"{size}-{seed}", name, prompts)
        for size in plan.sizes
        for name in POLICIES
    }
    rows = []
    for (size, name), ours in texts.items():
        theirs = texts[largest, "sft"]
        if ours is not theirs:
            found = win_rate(panel, prompts, ours, theirs, name, "wins_over_largest_sft", "")
            rows.append({"size": size, **found})
    pair = texts[smallest, "ppo-ptx"], texts[largest, "base"]
    found = win_rate(panel, prompts, *pair, "ppo-ptx", "wins_over_largest_base", "")
    rows.append({"size": smallest, **found})
    write_lines(out / f"compare-{seed}" / "results.jsonl", rows)
    return {}
