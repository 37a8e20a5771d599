from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from instil.errors import InstilError
from instil.lm.models import load_policy
from instil.lm.reward import Likelihood
from instil.runs import Run
from instil.train import ppo, ppo_models
from instil.train.checkpoint import save_checkpoint

PROMPTS = ["What color ? red", "What color  blue", "What color ?? green", "What color ? pink"] * 4
NO_TEXT = torch.empty(0, 0, dtype=torch.long)


def test_a_checkpoint_holds_the_critic_and_all_else_that_changes(ppo_config_of):
    # PPO_DETAILS 2.8: only the policy is saved, and the critic starts anew
    config = ppo_config_of(kl_target=1.0, warmup=0)
    models = ppo.load(config)
    ppo.ppo_step(models, PROMPTS, NO_TEXT, config, 0)
    with Run.open(config.out, "ppo", config) as run:
        run.log(1, {"loss": 0.0})
        save_checkpoint(run.path, 1, ppo_models.groups(models), models.state)
        again = ppo.load(config)
        assert ppo_models.resume(run, again) == 1
    for name in ("policy", "value"):
        old, new = getattr(models, name), getattr(again, name)
        pairs = zip(old.named_parameters(), new.named_parameters(), strict=True)
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)
    assert all(torch.equal(models.ema[name], again.ema[name]) for name in models.ema)
    assert again.state == models.state
    assert again.state["kl_coef"] != config.kl_coef
    # and the next step is the same to the bit, so both optimizers have their moments
    one, _ = ppo.ppo_step(models, PROMPTS, NO_TEXT, config, 1)
    two, _ = ppo.ppo_step(again, PROMPTS, NO_TEXT, config, 1)
    assert {k: v for k, v in one.items() if not k.startswith(("time", "eps"))} == {
        k: v for k, v in two.items() if not k.startswith(("time", "eps"))
    }
    for a, b in zip(models.value.parameters(), again.value.parameters(), strict=True):
        assert torch.equal(a, b)


def test_final_is_the_average_and_raw_the_last_policy(world, reference):
    run = reference("ppo")
    last, average = load_policy(run / "raw"), load_policy(run / "final")
    start = load_policy(world.sft / "final")
    far = sum((a - b).norm() for a, b in zip(last.parameters(), start.parameters(), strict=True))
    near = sum(
        (a - b).norm() for a, b in zip(average.parameters(), start.parameters(), strict=True)
    )
    assert 0 < near < far  # the average lags behind


def test_the_value_starts_as_the_reward_model_and_warms_up_when_it_cannot(
    ppo_config_of, world, tmp_path, monkeypatch
):
    models = ppo.load(ppo_config_of())
    assert models.value_is_reward
    assert models.state["value_warmup"] == 0
    assert torch.equal(models.value.head.bias, models.reward.model.head.bias)
    assert models.value is not models.reward.model
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short_is_good.py").write_text(
        "def score(prompts, responses):\n    return [-len(r) for r in responses]\n"
    )
    models = ppo.load(ppo_config_of(rm="short_is_good:score"))
    assert not models.value_is_reward
    assert models.state["value_warmup"] == 10
    assert ppo.load(ppo_config_of(value=world.rm, value_warmup=2)).state["value_warmup"] == 2


def test_the_reference_cannot_learn(ppo_config_of):
    models = ppo.load(ppo_config_of())
    assert not any(p.requires_grad for p in models.reference.parameters())
    assert not models.reference.training
    assert models.policy is not models.reference


def test_the_work_of_a_run_counts_every_pass(ppo_config_of):
    # policy of p parameters: sample 2, measure 2, reference 2, train 6 a token; value of v: read 2,
    # train 6; reward of r: read 2. Pretraining text: 3 steps x 16 episodes x 2 examples x 16 tokens
    config = ppo_config_of(steps=3, batch_size=16, epochs=1, ptx_coef=1.0, ptx_ratio=2)
    models = ppo_models.load(config)
    models.state["tokens"] = 1000
    p = sum(x.numel() for x in models.policy.parameters())
    v = sum(x.numel() for x in models.value.parameters())
    text = 3 * 16 * 2 * config.row_length
    found = ppo_models.work(models, config)
    assert found["tokens"] == 1000 + text
    assert found["flops"] == 1000 * (12 * p + 8 * v + 2 * v) + 6 * p * text
    models.reward = replace(models.reward, likelihood=Likelihood(models.reference))
    found = ppo_models.work(models, config)
    assert found["flops"] == 1000 * (12 * p + 8 * v + 2 * v + 4 * p) + 6 * p * text


def test_vllm_is_started_once_and_has_the_weights_of_every_step(ppo_config_of, monkeypatch):
    class StandIn:
        def __init__(self, policy, codec, mode):
            self.modes, self.seen = mode, [policy]

        def update(self, policy):
            self.seen.append(policy)

    monkeypatch.setattr(ppo_models, "VllmSampler", StandIn)
    config = ppo_config_of(sampler="vllm")
    models = ppo_models.load(config)
    first = models.sampler(models.policy, config)
    assert models.sampler(models.policy, config) is first
    assert first.seen == [models.policy, models.policy] and first.modes == "processed_logprobs"


def test_without_vllm_the_setting_says_what_to_install(ppo_config_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    config = ppo_config_of(sampler="vllm")
    models = ppo_models.load(config)
    with pytest.raises(InstilError, match="vllm"):
        models.sampler(models.policy, config)
