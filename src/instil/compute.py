"""Petaflop/s-days of each stage: counted from parameters and tokens, and as a run has measured.

Counted, a model of N parameters takes 2 N operations to read or sample a token and 4 N more to
learn from it: 6 N D in all for D tokens  [Kaplan et al. 2020, section 2.1]. Attention over the
context is left out; where the context is no longer than the model is wide, that is a twelfth.

Measured, a run has noted the tokens that it really processed (padding left out), the operations
for those weights that learn, and the seconds that it took; from them comes the rate.

    >>> sum(stage.petaflop_days for stage in paper() if stage.stage.startswith("ppo"))    # 62.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instil.stats import forward_flops, petaflop_days, train_flops

CONTEXT = 2048
"""Tokens of a full context of GPT-3; what the paper's figures count for every example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage takes."""

    stage: str
    params: float
    """Of the model that learns or samples."""
    tokens: float
    flops: float
    seconds: float = math.nan
    """Of its steps; nan if it was only counted."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each part of a step, summed over the steps: generate, score, train."""

    @property
    def petaflop_days(self) -> float:
        """Operations in petaflop/s-days."""
        return petaflop_days(self.flops)

    @property
    def flops_per_second(self) -> float:
        """The rate that was reached; nan if the stage was only counted."""
        return self.flops / self.seconds if self.seconds else math.nan


def training(stage: str, params: float, tokens: float) -> Stage:
    """Pretraining, SFT, RM: `tokens` of all epochs, each read and learned from."""
    return Stage(stage=stage, params=params, tokens=tokens, flops=train_flops(params, tokens))


def ppo(
    policy: float,
    value: float,
    reward: float,
    tokens: float,
    text_tokens: float = 0,
    *,
    epochs: int = 1,
    measured_again: bool = False,
) -> list[Stage]:
    """PPO in parts: generate, score, train and, with `text_tokens` of pretraining text, ptx.

    policy, value, reward  parameters of each; the reference is as large as the policy
    tokens                 of prompts and responses, over all episodes
    text_tokens            of pretraining text, over all episodes
    epochs                 how often each rollout is learned from
    measured_again         whether the policy reads its own samples once more for their logprobs
    """
    score = forward_flops(policy, tokens) * (2 if measured_again else 1)  # and the reference
    score += forward_flops(value, tokens) + forward_flops(reward, tokens)
    train = epochs * (train_flops(policy, tokens) + train_flops(value, tokens))
    parts = [
        ("ppo generate", tokens, forward_flops(policy, tokens)),
        ("ppo score", tokens, score),
        ("ppo train", tokens * epochs, train),
        ("ppo ptx", text_tokens, train_flops(policy, text_tokens)),
    ]
    return [
        Stage(stage=stage, params=policy, tokens=count, flops=flops)
        for stage, count, flops in parts
        if count
    ]


def paper() -> list[Stage]:
    """The 175B models of the paper, every example counted as a full context of 2,048 tokens.

    The paper reports 4.9 petaflop/s-days for SFT, 60 for PPO-ptx and 3,640 for GPT-3 (section 5.1).
    Its reward model and value function have 6B parameters; it does not report the former's cost.
    """
    large, small = 175e9, 6e9
    episodes = 256_000 * CONTEXT
    comparisons = 33_207 * 6.5 * CONTEXT  # K is 4 to 9; each response is read with its prompt
    return [
        training("pretraining", large, 300e9),
        training("sft", large, 16 * 12_725 * CONTEXT),
        training("rm", small, comparisons),
        *ppo(large, small, small, episodes, 8 * episodes),
    ]


def measured(
    stage: str, info: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> Stage | None:
    """What a finished run took; None if it has not noted its operations (an older or other run).

    info     run.json: params, tokens, flops
    metrics  rows of metrics.jsonl: time/step, and time/generate, time/score, time/train of PPO
    """
    if not {"params", "tokens", "flops"} <= info.keys():
        return None
    names = dict.fromkeys(
        name for row in metrics for name in row if name.startswith("time/") and name != "time/step"
    )
    return Stage(
        stage=stage,
        params=float(info["params"]),
        tokens=float(info["tokens"]),
        flops=float(info["flops"]),
        seconds=_total(metrics, "time/step") if metrics else math.nan,
        phases={name.removeprefix("time/"): _total(metrics, name) for name in names},
    )


def _total(metrics: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(row.get(name) or 0) for row in metrics)
