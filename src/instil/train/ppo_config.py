"""The settings of `instil ppo`, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from instil.errors import InstilError
from instil.train.memory import MemoryConfig

COUNTS = (
    *("steps", "batch_size", "minibatch_size", "epochs", "decode_batch_size", "kl_horizon"),
    "samples_per_prompt",
    *("ptx_ratio", "row_length", "max_prompt_tokens", "max_tokens", "patience"),
    *("checkpoint_every", "sample_every"),
)
"""Settings that must be at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(MemoryConfig):
    """Train a policy against a reward model with PPO or PPO-ptx.

    Defaults follow Ouyang et al. 2022, appendix C.4; where the paper is silent, docs/method.md
    says why.
    """

    model: Path
    """Model or run where the policy starts and to which the KL is measured (appendix C.3: its own
    2-epoch model with 10 % pretraining mix, not the SFT baseline)."""
    rm: str
    """Run or directory of a reward model, or module:function over lists of prompts and of
    responses."""
    prompts: tuple[Path, ...]
    """Prompts; those of split "train", or all when none has a split."""
    out: Path
    """Run directory to write; an unfinished one is resumed."""
    value: Path | None = None
    """Where the value network starts; the reward model when left out (C.4), the policy when the
    reward is a function or has another tokenizer."""
    template: str = ""
    """How a prompt is put, with {prompt} in it, for a model that stores no template of its own."""
    pretraining: tuple[Path, ...] = ()
    """Text for PPO-ptx."""
    steps: int = 500
    """Rollouts; 500 x 512 = 256k episodes."""
    batch_size: int = 512
    """Responses, and so episodes, per step."""
    samples_per_prompt: int = 1
    """Responses to each prompt of a step; the prompt is then read once for all of them."""
    minibatch_size: int = 64
    """Episodes per optimizer step."""
    epochs: int = 1
    """Passes over a rollout."""
    sampler: Literal["instil", "vllm"] = "instil"
    """Who writes the responses; vllm is another package, for one process (docs/vllm.md)."""
    decode_batch_size: int = 128
    """Sequences decoded together."""
    lr: float = 5e-6
    """Constant rate of the policy; the paper scans 2.55e-6 to 2.55e-5, over 8.05e-6 diverged."""
    value_lr: float = 9e-6
    warmup: int = 10
    """Steps over which both rates rise from a tenth."""
    betas: tuple[float, float] = (0.9, 0.95)
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    """Largest norm of each network's gradient; 0 leaves it alone. Not in the paper."""
    ema: float = 0.992
    """Decay of the average of the policy's weights, per optimizer step; 0 turns it off."""
    kl_coef: float = 0.02
    """Weight of the per-token KL to the reference (beta in the paper)."""
    kl_target: float = 0.0
    """Nats per response that kl_coef adapts to (Ziegler et al. 2019); 0 keeps kl_coef fixed."""
    kl_horizon: int = 10_000
    """Episodes over which kl_coef adapts."""
    clip: float = 0.2
    value_clip: float | None = None
    """Range of the clipped value loss; not in the paper, and only sensible for unit rewards."""
    discount: float = 1.0
    gae_lambda: float = 0.95
    """Not in the paper."""
    whiten_advantages: bool = True
    """Over the whole rollout, once. Not in the paper."""
    ptx_coef: float = 0.0
    """Weight of the pretraining loss per token (gamma in the paper, 27.8 there); 0 leaves it
    out."""
    ptx_ratio: int = 8
    """Pretraining examples per episode."""
    row_length: int = 128
    """Tokens of a pretraining example."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    accept_biased_rollouts: bool = False
    """Allow top_p or top_k: the policy is then trained on samples that are not its own."""
    max_prompt_tokens: int = 1024
    """Longer prompts are left out, and counted (C: 1k)."""
    max_tokens: int = 1024
    """Longest response (C: 1k)."""
    truncated: Literal["penalise", "score", "mask"] = "penalise"
    """Responses cut off before their end: lose truncated_penalty, count as they are, or train
    nothing."""
    truncated_penalty: float = 1.0
    """In standard deviations of the reward."""
    value_warmup: int | None = None
    """Steps that train only the value; 0 when it starts as the reward model, else 10."""
    logprob_tolerance: float = 1e-3
    """The sampler's logprobs are taken where they differ from the trainer's by no more than this,
    in nats; else the trainer computes all of them again."""
    logprob_gap: float | None = None
    """Largest difference allowed between sampler and trainer, in nats: over it the run stops; 0.01
    when left out, in bf16 1."""
    max_kl: float = 100.0
    """Stop when the KL per response is over this for `patience` steps."""
    max_truncation: float = 0.95
    """Stop when more than this share of responses does not end."""
    max_repetition: float = 0.9
    """Stop when more than this share of responses repeats four words."""
    max_same: float = 0.5
    """Stop when more than this share of a step's prompts get the same response."""
    patience: int = 5
    seed: int = 0
    checkpoint_every: int = 20
    """Steps between checkpoints."""
    sample_every: int = 10
    """Steps between samples to read."""
    tensorboard: bool = False
    """Also write TensorBoard events into the run."""
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        MemoryConfig.__post_init__(self)
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise InstilError(f"{name} {getattr(self, name)} must be at least 1")
        if self.minibatch_size % self.samples_per_prompt:
            raise InstilError(
                f"minibatch_size {self.minibatch_size} is not a multiple of samples_per_prompt "
                f"{self.samples_per_prompt}; the responses to a prompt stay together"
            )
        if self.batch_size % self.minibatch_size:
            raise InstilError(
                f"batch_size {self.batch_size} is not a multiple of minibatch_size "
                f"{self.minibatch_size}; the last minibatch would be short"
            )
        if (self.top_p < 1 or self.top_k > 0) and not self.accept_biased_rollouts:
            raise InstilError(
                f"top_p {self.top_p}, top_k {self.top_k}: cut-off sampling is not the policy that "
                "is trained and biases ratio and KL; leave them out or say --accept-biased-rollouts"
            )
        if self.temperature <= 0:
            raise InstilError(f"temperature {self.temperature}: PPO samples, so it must be above 0")
        if self.ptx_coef and not self.pretraining:
            raise InstilError("ptx_coef needs --pretraining, the text to mix in")
        for name in ("kl_coef", "kl_target", "ptx_coef", "grad_clip", "warmup"):
            if getattr(self, name) < 0:
                raise InstilError(f"{name} {getattr(self, name)} must not be negative")
        for name in ("lr", "value_lr", "clip"):
            if not getattr(self, name) > 0:
                raise InstilError(f"{name} {getattr(self, name)} must be greater than 0")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise InstilError(f"{name} {getattr(self, name)} must be in [0, 1]")
        if not 0 <= self.ema < 1:
            raise InstilError(f"ema {self.ema} must be in [0, 1)")

    @property
    def updates(self) -> int:
        """Optimizer steps per rollout."""
        return self.epochs * (self.batch_size // self.minibatch_size)
