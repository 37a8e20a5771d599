"""The stages of a story: which size does what, and what they write."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.config import find
from instil.jsonl import append_line
from instil.story import Story
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
