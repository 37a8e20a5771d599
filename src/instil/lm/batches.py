"""Lists of token ids -> padded tensors, and the order in which examples are visited.

Masks are True where a token is present. They are made from lengths, never by comparing ids, so
it does not matter which id fills the padding. The order of examples is a pure function of
(seed, step), so a resumed run sees what the uninterrupted one would have seen.

Left out on purpose:
  truncation   a batch holds what it is given
  boundaries   between the documents of the pretraining stream: they may see each other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, chain
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from instil.errors import InstilError
from instil.lm.attention import Packed

Ids = Sequence[int]


class OnDevice:
    """What the batches share: they move as one."""

    __slots__ = ()

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TextBatch(OnDevice):
    """B sequences for next-token prediction, padded right."""

    tokens: Tensor  # (B, S)
    mask: Tensor  # (B, S)  True on real tokens
    loss_mask: Tensor  # (B, S)  True on tokens that are predicted and count; never at position 0

    @property
    def weight(self) -> int:
        """Tokens that count: this batch's share of a loss's denominator."""
        return int(self.loss_mask.sum())


@dataclass(frozen=True, slots=True)
class PromptBatch(OnDevice):
    """B prompts, padded left, so that all end in the last column."""

    tokens: Tensor  # (B, L)
    mask: Tensor  # (B, L)  True on real tokens


@dataclass(frozen=True, slots=True)
class RankingBatch(OnDevice):
    """B rankings: each prompt once, its responses after it as continuations."""

    packed: Packed
    last: Tensor  # (B, K)  where each response's last token is in `packed`; 0 if there is none
    ranks: Tensor  # (B, K)  1 is best, equal ranks are ties, 0 is padding
    offsets: Tensor  # (B, K)  added to the model's number to make the score

    @property
    def weight(self) -> int:
        """Prompts: this batch's share of a loss's denominator."""
        return len(self.ranks)

    def apart(self) -> tuple[Tensor, Tensor]:
        """The same as one sequence per response, padded right: tokens and mask (B*K, W). For a
        response that is not there stands the first token of all."""
        pieces = self.packed.tokens.split(list(self.packed.lengths))
        found = iter(
            torch.cat([pieces[parent], piece])
            for piece, parent in zip(pieces, self.packed.parents, strict=True)
            if parent >= 0
        )
        rows = [
            next(found).tolist() if rank else pieces[0][:1].tolist()
            for rank in self.ranks.flatten().tolist()
        ]
        tokens, mask = _padded(rows, 0)
        return tokens.to(self.ranks.device), mask.to(self.ranks.device)


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
    rankings: Sequence[tuple[Ids, Sequence[Ids], Sequence[int]]],
    offsets: Sequence[Sequence[float]] = (),
) -> RankingBatch:
    """(prompt, responses, their ranks) of each ranking; a ranking is never split over batches.

    offsets  of each response of every ranking; without them all are 0
    """
    offsets = offsets or [[0.0] * len(ranks) for _, _, ranks in rankings]
    if list(map(len, offsets)) != [len(ranks) for _, _, ranks in rankings]:
        raise ValueError("every response needs one offset, or none has one")
    if any(len(responses) != len(ranks) for _, responses, ranks in rankings):
        raise ValueError("every response of a ranking needs one rank")
    if any(not len(response) for _, responses, _ in rankings for response in responses):
        raise ValueError("a response without tokens, not even an end, has no score")
    pieces: list[Ids] = []
    parents: list[int] = []
    last: list[list[int]] = []
    length = 0
    for prompt, responses, _ in rankings:
        parents += [-1] + [len(pieces)] * len(responses)
        pieces += [prompt, *responses]
        ends = list(accumulate(map(len, [prompt, *responses]), initial=length - 1))[1:]
        last.append(ends[1:])
        length = ends[-1] + 1
    return RankingBatch(
        Packed.of(pieces, parents),
        _padded(last, 0)[0],
        _padded([ranks for _, _, ranks in rankings], 0)[0],
        pad_sequence([torch.tensor(some) for some in offsets], batch_first=True),
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


def passes(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The numbers of the examples of each pass: as few passes as take about `tokens` tokens each
    (more by less than an example), their sums about equal, like lengths together, none cut."""
    total, done = sum(lengths), 0
    found: list[list[int]] = [[] for _ in range(-(-total // tokens))]
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        middle = done + lengths[number] / 2
        found[int(middle * len(found) / total)].append(number)
        done += lengths[number]
    return [group for group in found if group]


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
