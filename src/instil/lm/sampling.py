"""From prompts to responses.

The sample at a position is a function of the seed, the prompt, the repeat and the position alone:
each has its own uniform number, and the token is read off the cumulative probabilities. So a
response does not depend on the batch it was decoded in (up to ties closer than the rounding of the
logits), and a resumed run samples what the uninterrupted one would have sampled.

Left out on purpose:
  beam search, penalties    the policy's own distribution is what PPO needs
  refilling batches         rows that ended leave; new prompts wait for the next batch
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import Ids, position_ids, prompt_batch, random_bits
from instil.lm.text import Codec
from instil.losses import token_logprobs


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen."""

    max_tokens: int
    """Longest response, its end token included."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability; 1 allows all."""
    top_k: int = 0
    """Only this many most likely tokens; 0 allows all."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InstilError(f"max_tokens {self.max_tokens} is not at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise InstilError(f"temperature {self.temperature} is not 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InstilError(f"top_p {self.top_p} is not in (0, 1]; 1 allows every token")
        if self.top_k < 0:
            raise InstilError(f"top_k {self.top_k} is negative; 0 allows every token")


@dataclass(frozen=True, slots=True)
class Samples:
    """One response per prompt.

    tokens    the sampled ids, the end token included when it was sampled
    logprobs  of these tokens at the sampling temperature (at 1 when it is 0), under the whole
              distribution: top_p and top_k choose the tokens but do not change their logprobs
    ended     whether the response ended by itself, not by max_tokens
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    ended: list[bool]


class Sampler(Protocol):
    """Whatever writes responses."""

    def sample(
        self,
        prompts: Sequence[Ids],
        params: SamplingParams,
        seed: int,
        indices: Sequence[int] | None = None,
    ) -> Samples:
        """One response per entry of `prompts` (token ids).

        indices  tell repeats of one prompt apart; None counts the earlier ones in this call
        """


class Decoder:
    """The built-in sampler: batches of similar length, left padding, a key-value cache."""

    def __init__(self, model: PreTrainedModel, codec: Codec, batch_size: int = 128) -> None:
        self.model = model
        self.codec = codec
        self.batch_size = batch_size
        forward = inspect.signature(model.forward).parameters
        self._last_only: dict[str, Any] = (
            {"logits_to_keep": 1} if "logits_to_keep" in forward else {}
        )

    def sample(
        self,
        prompts: Sequence[Ids],
        params: SamplingParams,
        seed: int,
        indices: Sequence[int] | None = None,
    ) -> Samples:
        """See `Sampler.sample`. Dropout is off while sampling."""
        self._check_lengths(prompts, params)
        indices = occurrences(prompts) if indices is None else indices
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        samples = Samples([[]] * len(order), [[]] * len(order), [False] * len(order))
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                noise = [uniforms(seed, prompts[i], indices[i], params.max_tokens) for i in batch]
                results = self._decode([prompts[i] for i in batch], np.stack(noise), params)
                for i, (tokens, logprobs, ended) in zip(batch, results, strict=True):
                    samples.tokens[i], samples.logprobs[i] = tokens, logprobs
                    samples.ended[i] = ended
        finally:
            self.model.train(was_training)
        return samples

    @torch.no_grad()
    def _decode(
        self, prompts: Sequence[Ids], noise: np.ndarray, params: SamplingParams
    ) -> list[tuple[list[int], list[float], bool]]:
        """Tokens, logprobs and `ended` for each prompt of one batch; noise (B, T) in [0, 1)."""
        device = self.model.device
        batch = prompt_batch(prompts, self.codec.pad_id).to(device)
        size, width = batch.tokens.shape
        padded = not bool(batch.mask.all())
        ends = torch.tensor(self.codec.eos_ids, device=device)
        uniform = torch.from_numpy(noise).to(device)  # (B, T)
        tokens = torch.zeros(size, params.max_tokens, dtype=torch.long, device=device)
        logprobs = torch.zeros(size, params.max_tokens, device=device)
        lengths = torch.zeros(size, dtype=torch.long, device=device)
        ended = torch.zeros(size, dtype=torch.bool, device=device)

        # The rows still in the batch and what belongs to them; rows that ended leave in groups.
        rows = torch.arange(size, device=device)
        mask = torch.cat([batch.mask, batch.mask.new_ones(size, params.max_tokens)], dim=1)
        inputs, positions = batch.tokens, position_ids(batch.mask)
        cache = DynamicCache(config=self.model.config)
        for step in range(params.max_tokens):
            logits = self.model(
                input_ids=inputs,
                attention_mask=mask[:, : width + step] if padded else None,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **self._last_only,
            ).logits[:, -1]
            chosen = choose(logits, params, uniform[:, step])
            tokens[rows, step] = chosen
            logprobs[rows, step] = token_logprobs(logits, chosen, params.temperature or 1.0)
            going = ~ended[rows]
            lengths[rows] += going
            ended[rows] |= (chosen[:, None] == ends).any(dim=1)
            going = ~ended[rows]
            left = int(going.sum())
            if not left:
                break
            if 2 * left <= len(rows):
                keep = going.nonzero().squeeze(1)
                rows, mask, uniform = rows[keep], mask[keep], uniform[keep]
                chosen, positions = chosen[keep], positions[keep]
                cache.batch_select_indices(keep)
            inputs, positions = chosen[:, None], positions[:, -1:] + 1

        return [
            (row[:length], logprob[:length], end)
            for row, logprob, length, end in zip(
                tokens.tolist(), logprobs.tolist(), lengths.tolist(), ended.tolist(), strict=True
            )
        ]

    def _check_lengths(self, prompts: Sequence[Ids], params: SamplingParams) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        for number, prompt in enumerate(prompts, start=1):
            if not prompt:
                raise InstilError(
                    f"prompt number {number} has no tokens; give it a template or text"
                )
            if context and len(prompt) + params.max_tokens > context:
                raise InstilError(
                    f"prompt number {number} has {len(prompt)} tokens; with max_tokens "
                    f"{params.max_tokens} it does not fit the model's context of {context}; "
                    "shorten the prompt or lower max_tokens"
                )


def choose(logits: Tensor, params: SamplingParams, uniform: Tensor) -> Tensor:
    """The token that each row's number falls on (B,).

    logits (B, V); uniform (B,) in [0, 1). Tokens in the order of their ids take up stretches of
    [0, 1) as long as their probabilities; the token whose stretch holds the number is chosen.
    """
    if params.temperature == 0:
        return logits.argmax(dim=-1)
    probs = (logits.double() / params.temperature).softmax(dim=-1)
    if params.top_k and params.top_k < probs.shape[1]:
        least = probs.topk(params.top_k, dim=-1).values[:, -1:]
        probs = probs.where(probs >= least, 0)
    if params.top_p < 1:
        ordered, ids = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.where(before < params.top_p * ordered.sum(dim=-1, keepdim=True), 0)
        probs = torch.zeros_like(probs).scatter(1, ids, ordered)
    upto = probs.cumsum(dim=-1)
    target = uniform[:, None] * upto[:, -1:]  # below the last of `upto`, also when rounded
    return torch.searchsorted(upto, target, right=True).squeeze(1)


def uniforms(seed: int, prompt: Ids, index: int, n: int) -> np.ndarray:
    """The numbers in [0, 1) for the first `n` positions of one response (n,) float64."""
    ids = np.asarray(prompt, dtype=np.int64).tobytes()
    return (random_bits(n, "sample", seed, index, ids) >> np.uint64(11)) * 2.0**-53


def occurrences(prompts: Sequence[Ids]) -> list[int]:
    """For each prompt, how many equal ones stand before it."""
    seen: Counter[tuple[int, ...]] = Counter()
    indices = []
    for prompt in map(tuple, prompts):
        indices.append(seen[prompt])
        seen[prompt] += 1
    return indices


def repeat(prompts: Sequence[Ids], n: int) -> tuple[list[Ids], list[int]]:
    """Every prompt `n` times in a row, and the indices that tell the repeats apart."""
    repeated = [prompt for prompt in prompts for _ in range(n)]
    return repeated, occurrences(repeated)
