"""The demo from end to end, much smaller than `--fast`: what it writes, and kills in between."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from instil.feedback import ask
from instil.jsonl import read_records
from instil.records import Demonstration, Labeler, Prompt, Ranking, Rating, Response

pytestmark = pytest.mark.slow

RUNS = ("base", "ppo-init", "rm", "sft", "ppo", "ppo-ptx")
STAGES = (
    *("world", "intake", "pretrain", "demonstrations", "ppo-init", "responses", "rankings"),
    *("rm", "sft", "ppo", "ppo-ptx", "evaluate"),
)
PPO = """
steps = 4
batch_size = 8
minibatch_size = 4
lr = 1e-3
value_lr = 1e-3
checkpoint_every = 2
sample_every = 2
row_length = 32
ptx_ratio = 1
"""
RECIPE = f"""
[demo]
documents = 300
raw_prompts = 300
users = 40
demonstrations = 60
rankings = 40
eval_rankings = 8
overlap = 2
eval_prompts = 10
max_tokens = 12
best_of = 2
per_prompt = 2
truthful = 6
hallucination = 4
rudeness = 4
public = 4
language = 4

[intake]
prefix_chars = 30
prefix_share = 1.0

[pretrain]
vocab_size = 800
width = 32
layers = 1
heads = 2
context = 1024
row_length = 64
batch_size = 16
lr = 1e-2
warmup = 2
checkpoint_every = 5

[ppo-init]
epochs = 1
batch_size = 10
lr = 1e-3
pretraining_mix = 0.1
row_length = 64
checkpoint_every = 2

[rm]
batch_size = 8
lr = 1e-3
checkpoint_every = 2

[sft]
epochs = 1
batch_size = 16
lr = 1e-3
eval_prompts = 4
checkpoint_every = 2

[ppo]
{PPO}
[ppo-ptx]
{PPO}
ptx_coef = 1.0
"""


def start(out: Path, recipe: Path) -> subprocess.Popen:
    words = ["demo", "--fast", "--threads", "2", "--recipe", str(recipe), "--out", str(out)]
    log = (out.parent / f"{out.name}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "instil", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=log,
    )


def finish(out: Path, recipe: Path) -> None:
    status = start(out, recipe).wait(timeout=300)
    assert status == 0, (out.parent / f"{out.name}.log").read_text()


def stages_done(out: Path) -> list[str]:
    path = out / "stages.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["stage"] for line in lines]


def fingerprint(out: Path) -> dict[str, str]:
    """SHA-256 of all data, results and final weights."""
    files = [*(out / "data").glob("*.json*"), *(out / "evals").glob("*.jsonl")]
    files += [path for run in RUNS for path in (out / run / "final").glob("*.safetensors")]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def demo(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "demo"
    finish(out, recipe)
    return out


def test_every_stage_is_done_once_and_the_report_is_written(demo):
    assert sorted(stages_done(demo)) == sorted(STAGES)
    assert json.loads((demo / "run.json").read_text())["status"] == "finished"
    assert (demo / "report.html").stat().st_size > 10_000
    results = [json.loads(line) for line in (demo / "evals" / "results.jsonl").open()]
    asked = Counter((row["eval"], row["policy"], row["setting"]) for row in results)
    assert not [key for key, count in asked.items() if count > 1]
    for policy in ("base", "base-prompted", "best-of-16", "ppo", "ppo-ptx"):
        assert ("win_rate", policy, "held-out") in asked
    assert all(row["low"] <= row["mean"] <= row["high"] for row in results if row.get("stderr"))
    # PPO's start is what the KL is measured to
    assert {row["setting"] for row in results if row["eval"] == "kl"} == {"ppo-init", "sft"}


def test_a_second_call_does_nothing_again(demo, recipe):
    before = fingerprint(demo)
    finish(demo, recipe)
    assert sorted(stages_done(demo)) == sorted(STAGES)
    assert fingerprint(demo) == before


def test_held_out_labelers_never_label_what_trains(demo):
    data = demo / "data"
    split = {p.id: p.split for p in read_records(data / "prompts.jsonl", Prompt)}
    group = {one.id: one.group for one in read_records(data / "labelers.jsonl", Labeler)}
    rankings = read_records(data / "rankings.jsonl", Ranking)
    labeled = Counter((split[one.prompt_id], group[one.labeler_id]) for one in rankings)
    assert ("train", "held-out") not in labeled
    # one labeler ranks a prompt that trains, two of each group rank one that evaluates
    assert labeled["train", "training"] == 40
    for name in ("valid", "test"):
        assert labeled[name, "training"] == labeled[name, "held-out"] > 0
        assert labeled[name, "training"] % 2 == 0
    shown = read_records(data / "demonstrations.jsonl", Demonstration)
    assert {group[one.labeler_id] for one in shown} == {"training"}
    prompt_of = {r.id: r.prompt_id for r in read_records(data / "responses.jsonl", Response)}
    rated = Counter(
        (split[prompt_of[one.response_id]], group[one.labeler_id])
        for one in read_records(data / "ratings.jsonl", Rating)
    )
    assert ("train", "held-out") not in rated


def test_a_ranking_has_four_to_nine_responses_of_two_policies(demo):
    responses = read_records(demo / "data" / "responses.jsonl", Response)
    counts = Counter(response.prompt_id for response in responses)
    for ranking in read_records(demo / "data" / "rankings.jsonl", Ranking):
        found = len(ranking.response_ids())
        assert 4 <= found <= 9
        assert found == counts[ranking.prompt_id] == ask.how_many(ranking.prompt_id, 0)
    assert {response.policy for response in responses} == {"ppo-init", "base"}


def test_prompts_of_the_test_split_never_train(demo):
    """Users, not prompts, are split: nobody has prompts on both sides."""
    prompts = read_records(demo / "data" / "prompts.jsonl", Prompt)
    splits: dict[str, set[str]] = {}
    for prompt in prompts:
        splits.setdefault(prompt.user_id, set()).add(prompt.split)
    assert all(len(found) == 1 for found in splits.values())
    shown = {d.prompt_id for d in read_records(demo / "data/demonstrations.jsonl", Demonstration)}
    assert not shown & {prompt.id for prompt in prompts if prompt.split == "test"}


def test_killed_twice_and_stopped_once_it_ends_as_one_that_was_not(demo, recipe, tmp_path):
    out = tmp_path / "demo"
    chance = Random(0)
    alone, evaluates = chance.randint(2, 6), len(STAGES) - 1
    for due, how in (
        (lambda: len(stages_done(out)) >= alone, signal.SIGKILL),
        # PPO-ptx has made a step, and SFT or PPO trains beside it
        (lambda: (out / "ppo-ptx" / "metrics.jsonl").exists(), signal.SIGTERM),
        (lambda: len(stages_done(out)) >= evaluates, signal.SIGKILL),
    ):
        process = start(out, recipe)
        limit = time.monotonic() + 120
        while not due():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
        if how == signal.SIGKILL:
            time.sleep(chance.uniform(0.0, 0.5))  # somewhere in the stage that follows
        process.send_signal(how)
        assert process.wait(timeout=60) == (130 if how == signal.SIGTERM else -how), "too late"
        assert json.loads((out / "run.json").read_text())["status"] == "running"
    finish(out, recipe)
    assert sorted(stages_done(out)) == sorted(STAGES)
    assert fingerprint(out) == fingerprint(demo)
    assert (out / "evals" / "results.jsonl").read_bytes() == (
        demo / "evals" / "results.jsonl"
    ).read_bytes()
    assert not list(out.rglob("*.tmp"))
