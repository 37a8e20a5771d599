"""What `instil ppo` holds: four models, two optimizers, the averaged weights; load, keep, publish.

All that changes while training is in `groups` and `Models.state`, so a checkpoint of both is the
whole of a run: policy, value, average, both Adam states, kl_coef and the spread of the reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from instil.lm.models import load_policy, save_policy
from instil.lm.reward import PythonReward, RewardModel, load_reward
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.runs import Run, model_dir
from instil.train.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    set_optimizer,
    set_weights,
    weights,
)
from instil.train.fit import adam, publish, write_folder
from instil.train.guards import last_good
from instil.train.ppo_config import Config


@dataclass
class Models:
    """Policy and value learn; reference and reward are frozen."""

    policy: PreTrainedModel
    value: ScalarModel
    reference: PreTrainedModel
    reward: RewardModel | PythonReward
    codec: Codec
    policy_optimizer: torch.optim.Optimizer
    value_optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    """The policy's weights, averaged over optimizer steps."""
    shares_tokens: bool
    """Policy and reward model have one tokenizer, so scores are of the very tokens sampled."""
    value_is_reward: bool
    """The value network started as the reward model."""
    state: dict[str, Any] = field(default_factory=dict)
    """Plain values that change: kl_coef, reward_std, steps over a limit, tokens of rollouts."""


def load(config: Config) -> Models:
    """All four models and both optimizers, at their start."""
    source = model_dir(config.model)
    codec = Codec.load(source, config.template)
    policy, reference = load_policy(source), load_policy(source)
    reward = load_reward(config.rm)
    shared = isinstance(reward, RewardModel) and reward.codec.same_tokens(codec)
    if config.value is not None:
        value, value_is_reward = ScalarModel.load(model_dir(config.value)), False
    elif isinstance(reward, RewardModel) and shared:
        value, value_is_reward = ScalarModel.load(model_dir(Path(config.rm))), True
    else:
        value, value_is_reward = ScalarModel.from_policy(policy, seed=config.seed), False
    reference.eval().requires_grad_(False)
    warmup = config.value_warmup
    return Models(
        policy=policy,
        value=value,
        reference=reference,
        reward=reward,
        codec=codec,
        policy_optimizer=adam(policy.parameters(), config.lr, config.betas, config.adam_eps),
        value_optimizer=adam(value.parameters(), config.value_lr, config.betas, config.adam_eps),
        ema={name: p.detach().clone() for name, p in policy.named_parameters()},
        shares_tokens=shared,
        value_is_reward=value_is_reward,
        state={
            "kl_coef": config.kl_coef,
            "reward_std": reward.std,
            "over_limit": 0,
            "tokens": 0,
            "value_warmup": (0 if value_is_reward else 10) if warmup is None else warmup,
        },
    )


def groups(models: Models) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint, one file each."""
    return {
        "policy": weights(models.policy),
        "value": weights(models.value),
        "ema": models.ema,
        "policy_optimizer": optimizer_tensors(models.policy_optimizer, models.policy),
        "value_optimizer": optimizer_tensors(models.value_optimizer, models.value),
    }


def resume(run: Run, models: Models) -> int:
    """Go on from the newest good checkpoint, if there is one; returns the steps done."""
    saved = load_checkpoint(run.path)
    if saved is None:
        run.rewind(0)
        return 0
    tensors, state = saved
    set_weights(models.policy, tensors["policy"])
    set_weights(models.value, tensors["value"])
    models.ema = tensors["ema"]
    set_optimizer(models.policy_optimizer, models.policy, tensors["policy_optimizer"])
    set_optimizer(models.value_optimizer, models.value, tensors["value_optimizer"])
    step = int(state.pop("step"))
    models.state = state
    run.rewind(step)
    return step


def publish_all(run: Run, models: Models, config: Config) -> None:
    """Write the last policy to raw/, the value to value/, the averaged policy to final/."""
    models.policy.eval()
    write_folder(run.path / "raw", lambda path: save_policy(models.policy, models.codec, path))
    write_folder(run.path / "value", lambda path: models.value.save(path, models.codec))
    if config.ema:
        set_weights(models.policy, models.ema)
    publish(
        run, lambda path: save_policy(models.policy, models.codec, path), **work(models, config)
    )


def publish_last_good(run: Run, models: Models, config: Config) -> str:
    """Write the policy of the last good checkpoint to last-good/; says where it is."""
    saved = load_checkpoint(run.path)
    if saved is None:
        return last_good(run.path)
    tensors, state = saved
    set_weights(models.policy, tensors["ema" if config.ema else "policy"])
    target = run.path / "last-good"
    write_folder(target, lambda path: save_policy(models.policy, models.codec, path))
    return f"the policy of step {state['step']}, the last good checkpoint, is in {target}"


def work(models: Models, config: Config) -> dict[str, int]:
    """Parameters of the policy, tokens of all rollouts, and the operations that they took.

    2 per parameter and token to read or sample, 6 to train: the policy samples, measures and
    trains, the reference and the reward model read, the value reads and trains.
    """
    policy = sum(p.numel() for p in models.policy.parameters())
    value = sum(p.numel() for p in models.value.parameters())
    reward = models.reward.model if isinstance(models.reward, RewardModel) else None
    judge = sum(p.numel() for p in reward.parameters()) if reward is not None else 0
    train = 6 * config.epochs
    per_token = policy * (2 + 2 + 2 + train) + value * (2 + train) + judge * 2
    examples = config.batch_size * config.epochs * config.ptx_ratio if config.ptx_coef else 0
    text = config.steps * examples * config.row_length
    tokens = int(models.state["tokens"])
    return {
        "params": policy,
        "tokens": tokens + text,
        "flops": per_token * tokens + 6 * policy * text,
    }
