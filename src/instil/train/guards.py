"""PPO's self-checks before the first step, and the conditions under which it stops by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.machine import computes_in_bf16
from instil.lm.scalar import ScalarModel
from instil.train.rollout import Rollout, Sequences, response_logprobs


def rounding(policy: PreTrainedModel) -> float:
    """Largest difference of two logprobs, or of a value and a score, that counts as rounding. In
    bf16 logits of 32 to 64 are a quarter apart."""
    return 0.3 if computes_in_bf16(policy) else 1e-3


def largest_gap(policy: PreTrainedModel) -> float:
    """Largest difference between sampler and trainer that can be rounding, in nats."""
    return 1.0 if computes_in_bf16(policy) else 0.01


@torch.no_grad()
def check_start(
    policy: PreTrainedModel,
    value: ScalarModel,
    rollout: Rollout,
    temperature: float,
    tokens: int,
    value_is_reward: bool,
) -> None:
    """Before the first step: ratio 1, KL 0, value at the last token = reward-model score.

    Raises InstilError that names the likely cause when one of them does not hold.
    """
    mask, tolerance = rollout.sequences.response_mask, rounding(policy)
    rows = torch.arange(min(16, len(mask)))
    policy.train()
    for piece, sequences in rollout.sequences.pieces(rows, tokens):
        again = response_logprobs(policy, sequences, temperature)
        old = rollout.logprobs[piece, : again.shape[1]]
        gap = (again - old)[sequences.response_mask].abs().max().item()
        if not gap <= tolerance:  # which NaN is not
            raise InstilError(
                f"the ratio is not 1 before the first step: logprobs of the same tokens differ by "
                f"{gap:.2g}; likely dropout in the policy: set it to 0 in the model's config"
            )
        if value_is_reward:
            _check_value(value, rollout, piece, sequences, tolerance)
    gap = (rollout.logprobs - rollout.ref_logprobs)[mask].abs().max().item()
    if not gap <= tolerance:
        raise InstilError(
            f"the KL is not 0 before the first step: policy and reference differ by {gap:.2g} "
            "in a logprob; likely they are not the same model"
        )


def _check_value(
    value: ScalarModel, rollout: Rollout, rows: torch.Tensor, s: Sequences, tolerance: float
) -> None:
    found = value.scores(s.tokens, s.attention_mask)
    ended = rollout.ended[rows]
    gaps = (found - rollout.scores[rows])[ended].abs()
    if len(gaps) and gaps.max() > tolerance * max(1.0, found.abs().max().item()):
        raise InstilError(
            f"the value at the last token is not the reward model's score (gap {gaps.max():.2g}); "
            "likely another tokenizer or template: start the value elsewhere with --value"
        )


def check_gap(gap: float, allowed: float, step: int) -> None:
    """The decoder's logprobs and the trainer's must agree, or the samples are off-policy."""
    if not gap <= allowed:
        likely = "another temperature, padding or position ids"
        if math.isnan(gap):
            likely = "weights that are not finite, or too large for the precision"
        raise InstilError(
            f"step {step}: the decoder's logprobs differ from the trainer's by {gap:.2g} "
            f"(allowed: {allowed}); likely {likely}"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run has gone wrong."""

    kl: float
    """Nats per response."""
    truncation: float
    repetition: float
    same: float
    """Share of a batch of different prompts that gets one and the same response."""

    def exceeded(self, metrics: Mapping[str, float]) -> str:
        """The first limit that this step's metrics are over, in words; "" when none."""
        found = {
            "objective/kl": (self.kl, "the policy left the reference: lower lr or raise kl_coef"),
            "completions/clipped_ratio": (
                self.truncation,
                "responses no longer end: raise truncated_penalty or max_tokens",
            ),
            "watch/repeat4": (
                self.repetition,
                "responses repeat themselves: raise kl_coef, or read what the reward likes",
            ),
            "watch/same": (
                self.same,
                "different prompts get one response: the reward looks too little at the prompt, "
                "train it on more rankings, or raise kl_coef",
            ),
        }
        for name, (limit, why) in found.items():
            if metrics[name] > limit:
                return f"{name} {metrics[name]:.3g} is over {limit:g}: {why}"
        return ""


def check_finite(step: int, run: Path, **values: float) -> None:
    """Raise before a NaN or an infinity reaches the weights."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InstilError(
                f"step {step}: {name} is {value}; it never reached the weights, and "
                f"{last_good(run)}: lower lr in a new --out, or look at the rewards"
            )


def last_good(run: Path) -> str:
    """Where training could go on from, in words."""
    if any((run / "checkpoints").glob("step-*")):
        return f"the last good checkpoint is in {run / 'checkpoints'}"
    return "there was no checkpoint yet"
