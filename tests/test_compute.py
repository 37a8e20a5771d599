"""compute.py: the paper's figures, small cases by hand, and a run directory's own numbers."""

from __future__ import annotations

import math

import pytest

from instil.compute import measured, paper, ppo, training


def test_the_paper_within_five_per_cent():
    # 4.9 for SFT, 60 for PPO-ptx, 3,640 for GPT-3: Ouyang et al. 2022, section 5.1
    days = {stage.stage: stage.petaflop_days for stage in paper()}
    assert days["sft"] == pytest.approx(4.9, rel=0.05)
    assert days["pretraining"] == pytest.approx(3640, rel=0.05)
    both = sum(value for stage, value in days.items() if stage.startswith("ppo"))
    assert both == pytest.approx(60, rel=0.05)
    # 6 * 175e9 * 8 * 256,000 * 2,048 / 8.64e19: what the pretraining mix adds to PPO
    assert days["ppo ptx"] == pytest.approx(50.97, abs=0.01)
    assert both - days["ppo ptx"] == pytest.approx(62.0 - 51.0, abs=0.1)


def test_training_by_hand():
    # 6 operations for each of 10 parameters and 100 tokens
    found = training("sft", 10, 100)
    assert (found.flops, found.petaflop_days) == (6000, 6000 / 8.64e19)
    assert math.isnan(found.flops_per_second)


def test_the_parts_of_ppo_by_hand():
    # policy 10, value 4, reward 2 parameters; 100 tokens, each rollout learned from twice
    parts = {stage.stage: stage for stage in ppo(10, 4, 2, 100, 50, epochs=2)}
    assert {name: stage.flops for name, stage in parts.items()} == {
        "ppo generate": 2 * 10 * 100,
        "ppo score": 2 * (10 + 4 + 2) * 100,  # reference, value, reward
        "ppo train": 6 * (10 + 4) * 200,
        "ppo ptx": 6 * 10 * 50,
    }
    assert parts["ppo train"].tokens == 200
    without = {stage.stage: stage.flops for stage in ppo(10, 4, 2, 100, measured_again=True)}
    assert without["ppo score"] == 2 * (2 * 10 + 4 + 2) * 100
    assert "ppo ptx" not in without


def test_a_run_is_taken_at_its_word():
    info = {"command": "ppo", "params": 10, "tokens": 100, "flops": 9000}
    metrics = [
        {"step": 1, "time/step": 2.0, "time/generate": 0.5, "time/train": 1.0, "loss": 3.0},
        {"step": 2, "time/step": 4.0, "time/generate": 1.5, "time/train": None},
    ]
    found = measured("ppo", info, metrics)
    assert found is not None
    assert (found.params, found.tokens, found.flops, found.seconds) == (10, 100, 9000, 6.0)
    assert found.phases == {"generate": 2.0, "train": 1.0}
    assert found.flops_per_second == 1500
    assert math.isnan(measured("ppo", info, []).seconds)
    assert measured("intake", {"command": "intake"}, metrics) is None
