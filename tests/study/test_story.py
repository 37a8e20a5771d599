"""The stages of a story: which size does what, and what they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil.config import find
from instil.demo import Story
from instil.jsonl import append_line, iter_objects, read_records
from instil.records import Labeler, Ranking
from instil.study.plan import Plan, read_plan, write_recipes
from instil.study.story import MIXES, POLICIES, SCANS, stages, supervised

PLAN = Plan(
    sizes=("S", "M"),
    width=(8, 16),
    layers=(1, 1),
    heads=(2, 2),
    rate=(1.0, 1.0),
    seeds=(0,),
    reward_size="M",
    scan_size="S",
)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    recipe = find("study-fast")
    write_recipes(read_plan(recipe), recipe, tmp_path)
    return Story(tmp_path / "small-0", tmp_path / "small.toml", 0)


def test_only_one_size_makes_the_reward_model_and_one_the_scans(story):
    small, medium = ([name for name, _ in stages(story, PLAN, size)] for size in ("S", "M"))
    leads = {"responses", "rankings", "rm", "folds", "best-of"}
    scans = {*SCANS, *MIXES, *(f"ask {name}" for name in (*SCANS, *MIXES))}
    assert set(medium) - set(small) == leads
    assert set(small) - set(medium) == scans
    assert "evaluate" not in medium
    assert small[-1] == medium[-1] == "compare"
    assert {f"ask {name}" for name in POLICIES} <= set(small) & set(medium)


def test_what_every_epoch_of_sft_brought(story):
    path = story.out / "sft" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    for step, loss, score in ((1, None, None), (2, 3.0, 0.1), (3, None, None), (4, 3.5, 0.4)):
        more = {} if loss is None else {"eval/loss": loss, "eval/rm_score": score}
        append_line(path, {"step": step, "loss": 1.0, **more})
    found = {(row["eval"], row["setting"]): row["mean"] for row in supervised(story)}
    assert found == {
        ("sft_loss", "epoch 1"): 3.0,
        ("sft_loss", "epoch 2"): 3.5,
        ("sft_loss", "first"): 3.0,
        ("sft_loss", "last"): 3.5,
        ("sft_score", "epoch 1"): 0.1,
        ("sft_score", "epoch 2"): 0.4,
        ("sft_score", "first"): 0.1,
        ("sft_score", "last"): 0.4,
    }


@pytest.mark.slow
def test_each_labeler_is_left_out_of_one_reward_model(study):
    folds = sorted((study / "small-0" / "folds").glob("labelers-*.jsonl"))
    left_out = [
        {one.id for one in read_records(path, Labeler) if one.group == "held-out"} for path in folds
    ]
    assert len(folds) == 2
    assert not left_out[0] & left_out[1]
    everybody = {one.id for one in read_records(folds[0], Labeler)}
    assert left_out[0] | left_out[1] == everybody
    rankings = read_records(study / "small-0" / "folds" / "rankings.jsonl", Ranking)
    assert {one.labeler_id for one in rankings} <= everybody


@pytest.mark.slow
def test_a_scan_changes_one_setting(study):
    def config(name: str) -> dict:
        return json.loads((study / "small-0" / name / "run.json").read_text())["config"]

    def changed(name: str, table: str) -> dict:
        ours, theirs = config(f"scans/{name}"), config(table)
        return {k: ours[k] for k in ours if ours[k] != theirs[k] and k != "out"}

    assert changed("kl-none", "ppo") == {"kl_coef": 0.0}
    assert changed("kl-x100", "ppo") == {"kl_coef": pytest.approx(6.0)}
    assert changed("ptx-tenth", "ppo-ptx") == {"ptx_coef": pytest.approx(0.1)}
    assert changed("mix-0", "ppo") == {"model": str(study / "small-0" / "scans" / "mix-0-init")}
    assert changed("mix-50-init", "ppo-init") == {"pretraining_mix": 0.5}


@pytest.mark.slow
def test_every_policy_answers_every_prompt(study):
    for size in ("small", "large"):
        evals = study / f"{size}-0" / "evals"
        counts = {
            name: len(list(iter_objects(evals / f"{name}-responses.jsonl"))) for name in POLICIES
        }
        assert len(set(counts.values())) == 1
        assert min(counts.values()) > 0
