"""From prompts to responses.

The sample at a position is a function of the seed, the prompt, the repeat and the position alone:
each has its own uniform number, and the token is read off the cumulative probabilities. So a
response does not depend on the batch it was decoded in (up to ties closer than the rounding of the
logits), and a resumed run samples what the uninterrupted one would have sampled.

Left out on purpose:
  beam search, penalties    the policy's own distribution is what PPO needs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from instil.errors import InstilError
from instil.lm.attention import hidden_states, packs
from instil.lm.batches import Ids, position_ids, prompt_batch, random_bits
from instil.lm.linear import reordered
from instil.lm.machine import mixed_precision, sequences_at_once
from instil.lm.models import head_is_plain
from instil.lm.slots import Slots
from instil.lm.text import Codec

LOOK = 16
"""Steps between two looks of the host at what ended, where it would have to wait for the device."""
PREFILL = 2048
"""Tokens of prompts that are read in one pass."""
BLOCK = 128
"""Token ids whose probabilities are summed together to find a sampled token."""


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
    """The built-in sampler.

    At most `batch_size` sequences are at work at a time (0: as many as suit the machine). Prompts,
    longest first, are read side by side without padding, equal ones once; then every sequence goes
    on by one token per step. One that ends leaves at once, and waiting prompts take the free slots
    as soon as an eighth of all is free, so steps stay full until nothing waits. Keys and values are
    written into memory that is taken once (slots.py), and only hidden states that a token is drawn
    from go through the head.

    On a CPU the end of a sequence is seen at every step. Elsewhere the host looks at every
    `LOOK`th step only and does not wait for the device between; what was written after an end is
    cut off.

    A model whose attention cannot be exchanged (attention.py) takes the plain way: batches of like
    length, padded left, with the cache of transformers.
    """

    def __init__(self, model: PreTrainedModel, codec: Codec, batch_size: int = 0) -> None:
        self.model = model
        self.codec = codec
        self.batch_size = sequences_at_once(model, batch_size)

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
        noise = np.zeros((len(prompts), params.max_tokens + LOOK))
        for row, (prompt, index) in enumerate(zip(prompts, indices, strict=True)):
            noise[row, : params.max_tokens] = uniforms(seed, prompt, index, params.max_tokens)
        written = _Written(noise, self.codec.eos_ids, params, self.model.device)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        was_training = self.model.training
        self.model.eval()
        try:
            with mixed_precision(self.model, repeat=True), reordered(self.model, self.batch_size):
                if packs(self.model):
                    self._refill(prompts, order, written)
                else:
                    for start in range(0, len(order), self.batch_size):
                        self._pad(prompts, order[start : start + self.batch_size], written)
        finally:
            self.model.train(was_training)
        return written.samples()

    def pick(
        self, logits: Tensor, params: SamplingParams, uniform: Tensor, rows: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, V) become tokens and their logprobs (R,); the place to override.

        rows   (R,)  which prompt of the call each is for
        steps  (R,)  how many tokens its response has so far
        """
        return choose(logits, params, uniform)

    @torch.no_grad()
    def _refill(self, prompts: Sequence[Ids], waiting: list[int], written: _Written) -> None:
        """The fast way: a batch of changing sequences."""
        device = self.model.device
        plain = head_is_plain(self.model)
        module = self.model.base_model if plain else self.model
        head: Any = self.model.get_output_embeddings() if plain else nn.Identity()
        count = min(self.batch_size, len(prompts))
        look = 1 if device.type == "cpu" else LOOK
        slots = Slots(count, max(map(len, prompts), default=0) + written.params.max_tokens)
        rows = torch.zeros(0, dtype=torch.long, device=device)  # prompts at work, by slot
        steps = tokens = rows
        while waiting or len(rows):
            if waiting and slots.free >= min(len(waiting), -(-count // 8)):
                new = [waiting.pop()]
                while waiting and len(new) < slots.free and _fits(prompts, [*new, waiting[-1]]):
                    new.append(waiting.pop())
                layout, last = slots.prefill([prompts[i] for i in new], device)
                logits = head(hidden_states(module, layout)[last])
                fresh = torch.tensor(new, device=device)
                chosen = written.draw(self, logits, fresh, torch.zeros_like(fresh))
                rows, tokens = torch.cat([rows, fresh]), torch.cat([tokens, chosen])
                steps = torch.cat([steps, torch.ones_like(fresh)])
            else:
                for _ in range(look):
                    logits = head(hidden_states(module, slots.step(tokens)))
                    tokens = written.draw(self, logits, rows, steps)
                    steps = steps + 1
            if done := written.done(rows):
                had = slots.release(done)
                rows, steps, tokens = rows[had], steps[had], tokens[had]

    @torch.no_grad()
    def _pad(self, prompts: Sequence[Ids], chosen: list[int], written: _Written) -> None:
        """The plain way: one batch from its beginning to its end."""
        device = self.model.device
        batch = prompt_batch([prompts[i] for i in chosen], self.codec.pad_id).to(device)
        rows = torch.tensor(chosen, device=device)
        mask, inputs, positions = batch.mask, batch.tokens, position_ids(batch.mask)
        cache = DynamicCache(config=self.model.config)
        for step in range(written.params.max_tokens):
            logits = self.model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            tokens = written.draw(self, logits, rows, torch.full_like(rows, step))
            keep = torch.tensor(sorted(set(range(len(rows))) - set(written.done(rows))))
            if not len(keep):
                break
            if len(keep) < len(rows):
                keep = keep.to(device)
                rows, mask, tokens, positions = (x[keep] for x in (rows, mask, tokens, positions))
                cache.batch_select_indices(keep)
            mask = F.pad(mask, (0, 1), value=True)
            inputs, positions = tokens[:, None], positions[:, -1:] + 1

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


class _Written:
    """The responses of one call, as they grow: one row per prompt."""

    def __init__(
        self, noise: np.ndarray, ends: Sequence[int], params: SamplingParams, device: torch.device
    ) -> None:
        self.params = params
        self.noise = torch.from_numpy(noise).to(device)  # (n, T)
        self.ends = torch.tensor(list(ends), device=device)
        self.tokens = torch.zeros(noise.shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(noise.shape, device=device)
        self.lengths = torch.zeros(len(noise), dtype=torch.long, device=device)  # 0 until the end

    def draw(self, decoder: Decoder, logits: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
        """The next tokens (R,) of some rows, which have `steps` tokens."""
        uniform = self.noise[rows, steps]
        tokens, logprobs = decoder.pick(logits, self.params, uniform, rows, steps)
        self.tokens[rows, steps], self.logprobs[rows, steps] = tokens, logprobs
        ended = torch.isin(tokens, self.ends) | (steps + 1 == self.params.max_tokens)
        before = self.lengths[rows]
        self.lengths[rows] = torch.where((before == 0) & ended, steps + 1, before)
        return tokens

    def done(self, rows: Tensor) -> list[int]:
        """Which of some rows have ended."""
        ended: list[int] = self.lengths[rows].nonzero().squeeze(1).tolist()
        return ended

    def samples(self) -> Samples:
        """What was written, up to the ends."""
        lengths = self.lengths.tolist()
        last = self.tokens[torch.arange(len(lengths)), self.lengths - 1]
        return Samples(
            [row[:length] for row, length in zip(self.tokens.tolist(), lengths, strict=True)],
            [row[:length] for row, length in zip(self.logprobs.tolist(), lengths, strict=True)],
            torch.isin(last, self.ends).tolist(),
        )


def _fits(prompts: Sequence[Ids], chosen: Sequence[int]) -> bool:
    """Whether some prompts are few enough to be read in one pass."""
    return sum(len(prompts[i]) for i in chosen) <= PREFILL


def choose(logits: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The token that each row's number falls on, and its logprob under the whole distribution (B,).

    logits (B, V); uniform (B,) in [0, 1). Tokens in the order of their ids take up stretches of
    [0, 1) as long as their probabilities; the token whose stretch holds the number is chosen. It is
    looked for in two steps, the block of ids and the place in the block, so that few sums are long.
    """
    logits = logits.float() / (params.temperature or 1.0)
    top = logits.amax(dim=1, keepdim=True)
    weights = (logits - top).exp_()
    size = BLOCK if weights.shape[1] >= 4 * BLOCK else 1
    if spare := -weights.shape[1] % size:
        weights = F.pad(weights, (0, spare))
    blocks = weights.unflatten(1, (-1, size)).sum(dim=2, dtype=torch.float64)  # (B, V / size)
    total = blocks.sum(dim=1)
    if params.temperature == 0:
        chosen = logits.argmax(dim=1)
    else:
        if params.top_k or params.top_p < 1:
            weights = _allowed(weights, params)
            blocks = weights.unflatten(1, (-1, size)).sum(dim=2, dtype=torch.float64)
        block, rest = _place(blocks, uniform * blocks.sum(dim=1))
        row = torch.arange(len(block), device=block.device)
        inside = weights.unflatten(1, (-1, size))[row, block]
        place, _ = _place(inside.double(), rest)
        chosen = block * size + place
    logprobs = logits.gather(1, chosen[:, None]) - top
    return chosen, (logprobs.squeeze(1) - total.log()).float()


def _place(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's running sum first exceeds its target (B,), and how far the target is past
    the sum before; never at a weight of 0, however the sums were rounded."""
    upto = weights.cumsum(dim=1)
    target = target.minimum(upto[:, -1].nextafter(upto.new_zeros(())))
    place = torch.searchsorted(upto, target[:, None], right=True)
    before = upto.gather(1, place) - weights.gather(1, place)
    return place.squeeze(1), (target - before.squeeze(1)).clamp(min=0)


def _allowed(weights: Tensor, params: SamplingParams) -> Tensor:
    """The weights (B, V) that top_k and top_p leave, the others 0."""
    if params.top_k and params.top_k < weights.shape[1]:
        least = weights.topk(params.top_k, dim=-1).values[:, -1:]
        weights = weights.where(weights >= least, 0)
    if params.top_p < 1:
        ordered, ids = weights.double().sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.where(before < params.top_p * ordered.sum(dim=-1, keepdim=True), 0)
        weights = torch.zeros_like(weights).scatter(1, ids, ordered.to(weights.dtype))
    return weights


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
