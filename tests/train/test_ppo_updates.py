"""What one step of PPO moves: the average, the rates, the value alone, the KL coefficient."""

from __future__ import annotations

import json

import pytest
import torch

from instil.lm.scalar import ScalarModel
from instil.train import ppo

COLORS = ("red", "blue", "green", "pink")
NO_TEXT = torch.empty(0, 0, dtype=torch.long)


def prompts(n: int = 16) -> list[str]:
    return [f"What color {'?' * (i % 3)} {COLORS[i % 4]}" for i in range(n)]


def test_the_average_follows_its_formula(ppo_config_of):
    config = ppo_config_of(ema=0.9, minibatch_size=16, warmup=0)
    models = ppo.load(config)
    name, weight = next(iter(models.policy.named_parameters()))
    w0 = weight.detach().clone()
    ppo.ppo_step(models, prompts(), NO_TEXT, config, 0)
    w1 = weight.detach().clone()
    ppo.ppo_step(models, prompts(), NO_TEXT, config, 1)
    w2 = weight.detach().clone()
    assert not torch.equal(w0, w1)
    # 0.9 (0.9 w0 + 0.1 w1) + 0.1 w2
    assert torch.allclose(models.ema[name], 0.81 * w0 + 0.09 * w1 + 0.1 * w2, atol=1e-7)


def test_the_rate_rises_from_a_tenth_over_ten_steps_and_stays(ppo_config_of):
    config = ppo_config_of(lr=1e-6, value_lr=2e-6, minibatch_size=16)
    models = ppo.load(config)
    # 0.1 + 0.9 * step / 10: 0.1 at step 0, 0.55 at 5, 1 from 10 on
    for step, share in ((0, 0.1), (5, 0.55), (10, 1.0), (300, 1.0)):
        found, _ = ppo.ppo_step(models, prompts(), NO_TEXT, config, step)
        assert found["lr"] == pytest.approx(share * 1e-6)
        assert models.value_optimizer.param_groups[0]["lr"] == pytest.approx(share * 2e-6)


def test_only_the_value_learns_in_its_warm_up(ppo_config_of):
    config = ppo_config_of(value_warmup=1)
    models = ppo.load(config)
    before = {n: p.detach().clone() for n, p in models.policy.named_parameters()}
    head = models.value.head.weight.detach().clone()
    ppo.ppo_step(models, prompts(), NO_TEXT, config, 0)
    assert all(torch.equal(before[n], p) for n, p in models.policy.named_parameters())
    assert not torch.equal(head, models.value.head.weight)
    ppo.ppo_step(models, prompts(), NO_TEXT, config, 1)
    assert not all(torch.equal(before[n], p) for n, p in models.policy.named_parameters())


def test_the_kl_coefficient_adapts_as_in_2019(ppo_config_of):
    config = ppo_config_of(kl_target=6.0, kl_horizon=10_000)
    models = ppo.load(config)
    # error of 12 against 6 is 1, cut to 0.2: 0.02 * (1 + 0.2 * 16 / 10000)
    ppo.adapt_kl(models, 12.0, config)
    assert models.state["kl_coef"] == pytest.approx(0.02 * 1.00032, rel=1e-12)
    # 6.6 against 6 is 0.1
    models.state["kl_coef"] = 1.0
    ppo.adapt_kl(models, 6.6, config)
    assert models.state["kl_coef"] == pytest.approx(1.00016, rel=1e-12)
    models.state["kl_coef"] = 1.0
    ppo.adapt_kl(models, -3.0, config)
    assert models.state["kl_coef"] == pytest.approx(0.99968, rel=1e-12)


def test_minibatches_take_every_sequence_once_an_epoch(ppo_config_of):
    config = ppo_config_of(epochs=2)
    rows = ppo.minibatches(config, 3)
    assert [len(r) for r in rows] == [8] * 4
    assert sorted(torch.cat(rows[:2]).tolist()) == sorted(torch.cat(rows[2:]).tolist())
    assert sorted(torch.cat(rows[:2]).tolist()) == list(range(16))
    assert torch.cat(rows[:2]).tolist() != torch.cat(rows[2:]).tolist()
    assert torch.cat(rows).tolist() == torch.cat(ppo.minibatches(config, 3)).tolist()
    assert torch.cat(rows).tolist() != torch.cat(ppo.minibatches(config, 4)).tolist()


def test_a_run_logs_the_names_that_dashboards_know(reference, helpers):
    run = reference("ppo")
    rows = helpers.metrics(run)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["episode"] for row in rows] == list(range(16, 129, 16))
    known = [
        "objective/kl",
        "objective/kl_per_token",
        "objective/scores",
        "objective/non_score_reward",
        "objective/rlhf_reward",
        "objective/entropy",
        "policy/entropy_avg",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "loss/ptx_avg",
        "val/ratio",
        "val/ratio_var",
        "val/explained_var",
        "val/num_eos_tokens",
        "completions/mean_length",
        "completions/min_length",
        "completions/max_length",
        "completions/clipped_ratio",
        "rollout/max_abs_dlogp",
        "rollout/mean_abs_dlogp",
        "rollout/train_kl",
        "rollout/recomputed",
        "lr",
        "episode",
        "watch/distinct2",
        "watch/repeat4",
        "ptx/grad_norm_ratio",
    ]
    assert set(known) <= rows[0].keys()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        spent = {k.removeprefix("time/"): v for k, v in json.loads(line).items() if "time/" in k}
        assert spent["step"] >= spent["generate"] + spent["score"] + spent["train"] > 0
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert sorted({s["step"] for s in samples}) == [1, 2, 4, 6, 8]
    assert {"prompt", "response", "score"} <= samples[0].keys()
    assert not list((run / "value").glob("*.bin"))
    assert ScalarModel.load(run / "value")
