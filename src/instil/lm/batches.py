"""Lists of token ids -> padded tensors, and the order in which examples are visited.

Masks are True where a token is present. They are made from lengths, never by comparing ids, so
it does not matter which id fills the padding. The order of examples is a pure function of
(seed, step), so a resumed run sees what the uninterrupted one would have seen.

Left out on purpose:
  packing      of examples that have nothing in common; a ranking's responses share their prompt's
               row, and documents of the pretraining stream may see each other
  truncation   a batch holds what it is given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.errors import InstilError

Ids = Sequence[int]


class _OnDevice:
    """What the batches share: they move as one."""

    __slots__ = ()

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TextBatch(_OnDevice):
    """B sequences for next-token prediction, padded right."""

    tokens: Tensor  # (B, S)
    mask: Tensor  # (B, S)  True on real tokens
    loss_mask: Tensor  # (B, S)  True on tokens that are predicted and count; never at position 0

    @property
    def weight(self) -> int:
        """Tokens that count: this batch's share of a loss's denominator."""
        return int(self.loss_mask.sum())


@dataclass(frozen=True, slots=True)
class PromptBatch(_OnDevice):
    """B prompts, padded left, so that all end in the last column."""

    tokens: Tensor  # (B, L)
    mask: Tensor  # (B, L)  True on real tokens


@dataclass(frozen=True, slots=True)
class RankingBatch(_OnDevice):
    """B rankings, a row each: the prompt once, then its responses, padded right.

    Every response sees the prompt and itself, as if it stood alone behind it (`attention`).
    """

    tokens: Tensor  # (B, S)
    positions: Tensor  # (B, S)  place in the prompt's and the token's own response's sequence
    parts: Tensor  # (B, S)  0 in the prompt, k in response k (from 1), -1 in padding
    ranks: Tensor  # (B, K)  1 is best, equal ranks are ties, 0 is padding

    @property
    def weight(self) -> int:
        """Prompts: this batch's share of a loss's denominator."""
        return len(self.ranks)

    @property
    def attention(self) -> Tensor:
        """(B, S, S) True where token i sees token j: not later, in the prompt or the same part."""
        width, device = self.parts.shape[1], self.parts.device
        earlier = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mine = self.parts[:, :, None] == self.parts[:, None, :]
        return (mine | (self.parts == 0)[:, None, :]) & earlier

    @property
    def last(self) -> Tensor:
        """(B, K) column of each response's last token; 0 where there is no response."""
        numbers = torch.arange(1, self.ranks.shape[1] + 1, device=self.parts.device)
        inside = self.parts[:, None, :] == numbers[:, None]  # (B, K, S)
        columns = torch.arange(self.parts.shape[1], device=self.parts.device)
        return (inside * columns).amax(dim=2)

    def apart(self) -> tuple[Tensor, Tensor]:
        """The same as one sequence per response, padded right: tokens and mask (B*K, W); what is
        not there is an empty row."""
        every = self.parts.repeat_interleave(self.ranks.shape[1], dim=0)
        number = torch.arange(1, self.ranks.shape[1] + 1, device=self.parts.device)
        mine = number.repeat(len(self.ranks))[:, None]
        there = ((every == 0) | (every == mine)) & (every == mine).any(1, keepdim=True)
        order = (~there).to(torch.int8).argsort(dim=1, stable=True)[:, : int(there.sum(1).max())]
        tokens = self.tokens.repeat_interleave(self.ranks.shape[1], dim=0)
        return tokens.gather(1, order), there.gather(1, order)


def text_batch(examples: Sequence[tuple[Ids, Ids]], pad_id: int) -> TextBatch:
    """(prompt, response) pairs as one batch; only the response's tokens count in the loss."""
    tokens, mask = _padded([[*prompt, *response] for prompt, response in examples], pad_id)
    starts = torch.tensor([max(len(prompt), 1) for prompt, _ in examples])
    loss_mask = mask & (torch.arange(tokens.shape[1]) >= starts[:, None])
    return TextBatch(tokens, mask, loss_mask)


def document_rows(documents: Sequence[Ids], length: int) -> Tensor:
    """The documents, end to end, cut into rows of `length` tokens (n, length).

    The rest that fills no row is left out. Each document brings its own begin and end tokens.
    """
    stream = np.fromiter(chain.from_iterable(documents), dtype=np.int64)
    rows = len(stream) // length
    if not rows:
        raise InstilError(
            f"{len(stream)} tokens in {len(documents)} documents do not fill one row of {length}; "
            "give more text or a shorter length"
        )
    return torch.from_numpy(stream[: rows * length].reshape(rows, length))


def stream_batch(rows: Tensor) -> TextBatch:
    """Rows of `document_rows` (B, S) as a batch in which every token but the first counts."""
    mask = torch.ones_like(rows, dtype=torch.bool)
    loss_mask = mask.clone()
    loss_mask[:, 0] = False
    return TextBatch(rows, mask, loss_mask)


def prompt_batch(prompts: Sequence[Ids], pad_id: int) -> PromptBatch:
    """Prompts, padded left."""
    return PromptBatch(*_padded(prompts, pad_id, left=True))


def ranking_batch(
    rankings: Sequence[tuple[Ids, Sequence[Ids], Sequence[int]]], pad_id: int
) -> RankingBatch:
    """(prompt, responses, their ranks) of each ranking; a ranking is never split over batches."""
    if any(len(responses) != len(ranks) for _, responses, ranks in rankings):
        raise ValueError("every response of a ranking needs one rank")
    tokens, positions, parts = [], [], []
    for prompt, responses, _ in rankings:
        pieces = [prompt, *responses]
        starts = [0, *[len(prompt)] * len(responses)]
        tokens.append(list(chain.from_iterable(pieces)))
        positions.append(
            [start + i for start, p in zip(starts, pieces, strict=True) for i in range(len(p))]
        )
        parts.append([number for number, piece in enumerate(pieces) for _ in piece])
    return RankingBatch(
        _padded(tokens, pad_id)[0],
        _padded(positions, 0)[0],
        _padded(parts, -1)[0],
        _padded([ranks for _, _, ranks in rankings], 0)[0],
    )


def rollout_batch(
    prompts: Sequence[Ids], responses: Sequence[Ids], pad_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts padded left and responses padded right, so that every response starts at column L.

    Returns tokens (B, L+T), attention_mask (B, L+T) and response_mask (B, T).
    """
    before, before_mask = _padded(prompts, pad_id, left=True)
    after, response_mask = _padded(responses, pad_id)
    tokens = torch.cat([before, after], dim=1)
    return tokens, torch.cat([before_mask, response_mask], dim=1), response_mask


def position_ids(mask: Tensor) -> Tensor:
    """The place of each token in its own sequence (B, S), from 0; 0 at padding on the left."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which of `n` examples make up the batch of global step `step` (from 0).

    Every epoch visits the examples in a new order; those left over after its last whole batch
    rest until the next epoch.
    """
    per_epoch = n // batch_size
    if not per_epoch:
        raise InstilError(f"{n} examples do not fill one batch of {batch_size}; lower batch_size")
    epoch, place = divmod(step, per_epoch)
    chosen: list[int] = epoch_order(n, seed, epoch)[place * batch_size :][:batch_size].tolist()
    return chosen


@lru_cache(maxsize=8)
def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of range(n), the same for the same (n, seed, epoch) on every machine."""
    order = np.argsort(random_bits(n, "epoch", seed, epoch), kind="stable")
    order.flags.writeable = False
    return order


def random_bits(n: int, *key: int | str | bytes) -> NDArray[np.uint64]:
    """`n` random 64-bit numbers that belong to `key`; the first ones do not depend on `n`.

    Counter-based (Philox keyed by blake2b), so a number is reproduced from its key alone: no
    generator has state to save, and nothing else that runs can shift it.
    """
    digest = blake2b(repr(key).encode(), digest_size=16).digest()
    bits: NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest)).random_raw(n)
    return bits


def _padded(rows: Sequence[Ids], fill: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as (B, S) tokens and mask; padded right, or left."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    width = int(lengths.max()) if len(rows) else 0
    if left:
        filled = [[fill] * (width - len(row)) + list(row) for row in rows]
        mask = torch.arange(width) >= width - lengths[:, None]
    else:
        filled = [list(row) + [fill] * (width - len(row)) for row in rows]
        mask = torch.arange(width) < lengths[:, None]
    return torch.tensor(filled, dtype=torch.long).reshape(len(rows), width), mask
