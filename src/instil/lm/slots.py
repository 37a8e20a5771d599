"""The key-value cache of sequences that are being written.

Memory for all of it is taken once. A sequence has a slot; the sequences at work always fill the
first slots, so that a step reads one block: when one ends, the last one moves into its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.lm.attention import Ids, Packed

CHUNK = 32
"""Sequences whose attention on a CPU is computed together, as far as the longest one reaches."""


class Slots:
    """Keys and values of up to `count` sequences of up to `capacity` tokens. Where one goes on past
    that, its last token is overwritten: it has ended, and nobody has looked yet.

    lengths  tokens that each sequence at work has in the cache, in the order of their slots
    """

    def __init__(self, count: int, capacity: int) -> None:
        self.count = count
        self.capacity = capacity
        self.lengths: list[int] = []
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}
        self._next: Tensor | None = None
        """Where the next tokens go (R,), kept on the device so that no step waits for a copy."""

    @property
    def free(self) -> int:
        """Slots that no sequence has."""
        return self.count - len(self.lengths)

    def prefill(self, prompts: Sequence[Ids], device: torch.device) -> tuple[Prefill, Tensor]:
        """The layout in which prompts are read into the next slots, equal ones once; and where in
        it each prompt's last token is."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        packed = Packed.of(distinct)
        starts = dict(zip(distinct, accumulate(packed.lengths, initial=0), strict=False))
        first = torch.tensor([starts[tuple(prompt)] for prompt in prompts])
        lengths = torch.tensor(list(map(len, prompts)))
        slot = torch.arange(len(self.lengths), len(self.lengths) + len(prompts))
        place = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
        self.lengths += map(len, prompts)
        self._next = None
        layout = Prefill(
            self,
            packed.to(device),
            slot.repeat_interleave(lengths).to(device),
            place.to(device),
            (first.repeat_interleave(lengths) + place).to(device),
        )
        return layout, (first + lengths - 1).to(device)

    def step(self, tokens: Tensor) -> Step:
        """The layout in which every sequence at work goes on by one of `tokens` (R,)."""
        device = tokens.device
        if self._next is None:
            self._next = torch.tensor(self.lengths, device=device).clamp(max=self.capacity - 1)
        positions, self._next = self._next, (self._next + 1).clamp(max=self.capacity - 1)
        self.lengths = [min(n + 1, self.capacity) for n in self.lengths]
        places = torch.arange(max(self.lengths), device=device)
        hidden = places > positions[:, None]
        size = CHUNK if device.type == "cpu" else len(tokens)
        groups = []
        for at in range(0, len(tokens), size):
            upto = max(self.lengths[at : at + size])
            groups.append(
                (slice(at, min(at + size, len(tokens))), hidden[at : at + size, None, None, :upto])
            )
        return Step(self, tokens, positions, torch.arange(len(tokens), device=device), groups)

    def release(self, done: Sequence[int]) -> list[int]:
        """Give slots back; sequences of the last slots move there. Returns for each slot that is
        still in use which one its sequence had."""
        had = list(range(len(self.lengths)))
        self._next = None
        for slot in sorted(done, reverse=True):
            last, upto = len(had) - 1, self.lengths[-1]
            if slot != last:
                for keys, values in self._cache.values():
                    keys[slot, :, :upto] = keys[last, :, :upto]
                    values[slot, :, :upto] = values[last, :, :upto]
            had[slot], self.lengths[slot] = had[last], upto
            had.pop()
            self.lengths.pop()
        return had

    def cache(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (count, H, capacity, D) of a layer; `like` is a key (1, H, N, D)."""
        if layer not in self._cache:
            shape = (self.count, like.shape[1], self.capacity, like.shape[3])
            self._cache[layer] = (_zeros(shape, like), _zeros(shape, like))
        return self._cache[layer]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros, since what is not written yet is read with weight 0 and so must be finite. On a CPU
    they are calloc's: pages that no sequence reaches take no memory and no time."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    memory = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(memory).view(like.dtype).view(shape)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompts side by side, read into slots; one that several sequences continue is read once."""

    slots: Slots
    packed: Packed
    slot: Tensor  # (M,)  where each cached token goes, and which of the packed tokens it is
    place: Tensor  # (M,)
    source: Tensor  # (M,)

    @property
    def tokens(self) -> Tensor:
        """(N,)"""
        return self.packed.tokens

    @property
    def positions(self) -> Tensor:
        """(N,)"""
        return self.packed.positions

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `attention.Layout`."""
        keys, values = self.slots.cache(layer, key)
        keys[self.slot, :, self.place] = key[0, :, self.source].transpose(0, 1)
        values[self.slot, :, self.place] = value[0, :, self.source].transpose(0, 1)
        return self.packed.attend(layer, query, key, value, scale)


@dataclass(frozen=True, slots=True)
class Step:
    """One new token of every sequence at work."""

    slots: Slots
    tokens: Tensor  # (R,)
    positions: Tensor  # (R,)
    slot: Tensor  # (R,)
    groups: list[tuple[slice, Tensor]]
    """Slots that read together, and what is not theirs to read (G, 1, 1, L)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `attention.Layout`; queries of heads that share keys stand side by side."""
        keys, values = self.slots.cache(layer, key)
        keys[self.slot, :, self.positions] = key[0].transpose(0, 1)
        values[self.slot, :, self.positions] = value[0].transpose(0, 1)
        rows, heads, size = len(self.tokens), key.shape[1], key.shape[3]
        queries = (query[0] * scale).transpose(0, 1).reshape(rows, heads, -1, size)
        found = torch.empty_like(queries)
        for some, hidden in self.groups:
            k, v = (cache[some, :, : hidden.shape[3]] for cache in (keys, values))
            found[some] = _read(queries[some], k, v, hidden)
        return found.reshape(1, rows, -1, size).transpose(1, 2)


def _read(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """(R, H, G, D) read from (R, H, L, D); sdpa is slower on a CPU at so few queries."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, ~hidden, scale=1.0)
    scores = (key @ query.transpose(2, 3)).transpose(2, 3)
    return scores.masked_fill_(hidden, -torch.inf).softmax(dim=-1) @ value
