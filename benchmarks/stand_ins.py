"""What a benchmark puts in the place of a user's files: a codec, random weights, forced ends.

The data are token ids already, so the codec passes ids through. Models of the shapes of
`workloads.py` are written to a directory and loaded from there, by the way of every other model.
With `--eos geometric` the tokens that end a response are those that the workload wants.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from instil.lm.models import load_policy
from instil.lm.reward import RewardModel
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.scalar import ScalarModel
from instil.train.fit import adam
from instil.train.ppo_config import Config as PPOConfig
from instil.train.ppo_models import Models


@dataclass(frozen=True)
class Ids:
    """The codec of data that are token ids: prompt i has the text "i"."""

    w: ModuleType
    vocab_size: int
    prompts: Sequence[list[int]] = ()
    ends: bool = False
    """Whether the end token ends a response."""

    @property
    def pad_id(self) -> int:
        """Fills batches."""
        return int(self.w.PAD)

    @property
    def eos_id(self) -> int:
        """Ends a response in training."""
        return int(self.w.EOS)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """End a sampled response: none that is ever sampled when responses do not end."""
        return (self.eos_id,) if self.ends else (-1,)

    def encode_prompt(self, text: str) -> list[int]:
        """The prompt of that number."""
        return self.prompts[int(text)]

    def decode(self, ids: Sequence[int], strip: bool = True) -> str:
        """A word for each token."""
        return " ".join(map(str, ids))


class ForcedEnds(Decoder):
    """The decoder, with the end token as exactly the wanted token of each row and as no other."""

    wanted: Tensor  # (prompts,)  length at which a row ends; 0 never

    def pick(
        self, logits: Tensor, params: SamplingParams, uniform: Tensor, rows: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Decoder.pick`."""
        drawn, logprobs = super().pick(logits, params, uniform, rows, steps)
        # Once in V tokens the random model ends by itself: any other token does instead.
        tokens = torch.where(drawn == self.codec.eos_id, self.codec.eos_id + 1, drawn)
        tokens = torch.where(steps + 1 == self.wanted[rows], self.codec.eos_id, tokens)
        # PPO compares logprobs with the trainer's, so they must be those of the tokens that stand.
        both = logits.gather(1, torch.stack([tokens, drawn], dim=1)).float()
        return tokens, logprobs + (both[:, 0] - both[:, 1]) / (params.temperature or 1.0)


def decoder(
    model: PreTrainedModel, codec: Any, lengths: Sequence[int], longest: int, **options: Any
) -> Decoder:
    """The product's decoder; one that forces the ends when the codec has ends.

    A response of the `longest` length allowed is cut off there and has no end.
    """
    if not codec.ends:
        return Decoder(model, codec, **options)
    found = ForcedEnds(model, codec, **options)
    wanted = [n if n < longest else 0 for n in lengths]
    found.wanted = torch.tensor(wanted, device=model.device)
    return found


def random_policy(shape: Any, seed: int, device: str) -> PreTrainedModel:
    """A language model of a shape of `workloads.MODELS`, loaded as a user's would be."""
    config: LlamaConfig | GPT2Config
    if shape.arch == "llama":
        config = LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_ff,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.max_positions,
            tie_word_embeddings=True,
        )
    else:
        config = GPT2Config(
            vocab_size=shape.vocab,
            n_embd=shape.d_model,
            n_inner=shape.d_ff,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_positions=shape.max_positions,
        )
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        disable_progress_bar()
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        policy = load_policy(Path(folder))
    return policy.to(device)


def random_scalar(shape: Any, seed: int, device: str) -> ScalarModel:
    """A reward or value model, made as one is made from a policy."""
    return ScalarModel.from_policy(random_policy(shape, seed, "cpu"), seed=seed).to(device)


def ppo_models(shape: Any, codec: Any, cfg: PPOConfig, device: str) -> Models:
    """Policy and an equal reference; reward and value of their own random weights."""
    policy, reference = (random_policy(shape, 0, device) for _ in range(2))
    reward, value = (random_scalar(shape, seed, device) for seed in (1, 2))
    for frozen in (reference, reward):
        frozen.eval().requires_grad_(False)
    return Models(
        policy=policy,
        value=value,
        reference=reference,
        reward=RewardModel(reward, codec),
        codec=codec,
        policy_optimizer=adam(policy.parameters(), cfg.lr, cfg.betas, cfg.adam_eps),
        value_optimizer=adam(value.parameters(), cfg.value_lr, cfg.betas, cfg.adam_eps),
        ema={name: p.detach().clone() for name, p in policy.named_parameters()},
        shares_tokens=True,
        value_is_reward=False,
        state={
            "kl_coef": cfg.kl_coef,
            "reward_std": float("nan"),
            "over_limit": 0,
            "tokens": 0,
            "value_warmup": 0,
        },
    )
