"""What decides how much memory training takes: the same settings in every command."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from instil.errors import InstilError
from instil.lm.adapters import add_adapter
from instil.lm.machine import Precision
from instil.lm.models import recompute_activations
from instil.lm.scalar import ScalarModel


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Settings that change memory and speed; docs/training.md says what each of them saves."""

    micro_batch_tokens: int = 0
    """Tokens per forward pass, no example cut; 0 chooses by the size of the model. Does not change
    the result (except for the random numbers of dropout)."""
    precision: Precision = "auto"
    """Of matrix products; weights, log-softmax, scalar heads, losses and optimizers stay in fp32.
    auto: bf16 on a GPU, fp32 elsewhere."""
    activation_checkpointing: bool = False
    """Keep only what enters each layer, and compute the rest again in the backward pass. Does not
    change the result."""
    lora_rank: int = 0
    """Only adapters of this rank learn, beside weights that stay as they are (Hu et al. 2021); 0:
    all weights learn. Wants the extra `lora`, and about ten times the learning rate."""
    lora_alpha: int = 32
    """What an adapter adds is scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = ()
    """Names of linear layers that get adapters, such as q_proj v_proj; all when empty."""
    dry_run: bool = False
    """Only say how much memory the run will take, and what to change if that is too much."""

    def __post_init__(self) -> None:
        for name in ("micro_batch_tokens", "lora_rank"):
            if getattr(self, name) < 0:
                raise InstilError(f"{name} {getattr(self, name)} must not be negative")
        if not self.lora_alpha > 0:
            raise InstilError(f"lora_alpha {self.lora_alpha} must be greater than 0")
        if self.lora_targets and not self.lora_rank:
            raise InstilError("lora_targets: no adapters without lora_rank; 16 is a usual rank")


def prepare(model: nn.Module, config: MemoryConfig, seed: int) -> None:
    """Make a model that was just loaded learn as the settings say: with an adapter (a function of
    `seed`), with activation checkpointing."""
    body = model.backbone if isinstance(model, ScalarModel) else model
    if config.lora_rank:
        add_adapter(body, config.lora_rank, config.lora_alpha, config.lora_targets, seed)
    if config.activation_checkpointing:
        recompute_activations(body)
