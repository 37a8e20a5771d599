"""Attention over sequences that lie side by side in one row, without padding.

Everything of a decoder but its attention treats tokens one by one, so a batch needs no shape: its
tokens stand in one row of N, and only attention has to know where sequences begin and end. The
function registered here with transformers asks a `Layout` for that; so any of its decoders whose
attention can be exchanged runs packed in training (`Packed`) and in sampling (`slots.Slots`).

Left out on purpose:
  sliding windows, soft caps, attention sinks    a model that has them keeps the plain, padded way
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from instil.lm.linear import ROWS, fill
from instil.runs import say

Ids = Sequence[int]
NAME = "instil"


class Layout(Protocol):
    """Where the sequences are in a row of N tokens."""

    @property
    def tokens(self) -> Tensor:
        """(N,)"""
        ...

    @property
    def positions(self) -> Tensor:
        """(N,) the place of each token in its own sequence."""
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """What every token reads from its own sequence (1, H, N, D); key and value may have fewer
        heads than the query (1, H, N, D)."""
        ...


@dataclass(frozen=True)
class Packed:
    """Sequences side by side: pieces one after the other, each a sequence or the continuation of a
    piece before it. A prompt and its K responses are K + 1 pieces, and the prompt is read once.

    lengths  of the pieces
    parents  of each piece the number of the piece that it continues (one that continues no other),
             or -1
    """

    tokens: Tensor  # (N,)
    positions: Tensor  # (N,)
    lengths: tuple[int, ...]
    parents: tuple[int, ...]

    @classmethod
    def of(cls, pieces: Sequence[Ids], parents: Sequence[int] = ()) -> Packed:
        """Pieces of token ids; without `parents` each is a sequence of its own."""
        parents = tuple(parents) or (-1,) * len(pieces)
        lengths = tuple(map(len, pieces))
        starts = [0 if parent < 0 else lengths[parent] for parent in parents]
        positions = [
            torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)
        ]
        tokens = torch.tensor([token for piece in pieces for token in piece])
        return cls(tokens, torch.cat(positions), lengths, parents)

    @classmethod
    def rows(cls, tokens: Tensor, mask: Tensor, shared: int = 0) -> tuple[Packed, Tensor]:
        """The rows of a padded batch (B, S), padding on either side.

        shared  rows whose first `shared` columns are equal are continuations of one piece

        Also returns which token of the packed row each token of the batch is (B, S); 0 at padding.
        """
        positions = mask.cumsum(dim=1) - 1
        first = first_equal(tokens[:, :shared], mask[:, :shared]) if shared else None
        if first is None or first == list(range(len(tokens))):
            index = (mask.flatten().cumsum(0) - 1).view(mask.shape) * mask
            rows = tuple(mask.sum(dim=1).tolist())
            return cls(tokens[mask], positions[mask], rows, (-1,) * len(rows)), index
        again = torch.tensor([row for row, same in enumerate(first) if same != row])
        kept = mask.clone()
        kept[again, :shared] = False
        order = sorted(range(len(first)), key=first.__getitem__)
        index = torch.zeros_like(tokens)
        index[order] = (kept[order].flatten().cumsum(0) - 1).view(mask.shape)
        index[again, :shared] = index[torch.tensor(first)[again], :shared]
        before, after = (part.sum(dim=1).tolist() for part in (mask[:, :shared], mask[:, shared:]))
        lengths: list[int] = []
        parents: list[int] = []
        for row in order:
            if first[row] == row:
                parent = len(lengths)
                lengths.append(before[row])
                parents.append(-1)
            lengths.append(after[row])
            parents.append(parent)
        kept = kept[order]
        packed = cls(tokens[order][kept], positions[order][kept], tuple(lengths), tuple(parents))
        return packed, index * mask

    def filled(self) -> Packed:
        """With a piece that nobody reads, so that as many tokens come again (`linear.ROWS`). Not
        for few tokens, nor for sequences of one length, which are as many each time."""
        spare = fill(len(self.tokens))
        if len(self.tokens) < 4 * ROWS or len(set(self.lengths)) == 1 or not spare:
            return self
        nothing = self.tokens.new_zeros(spare)
        return Packed(
            torch.cat([self.tokens, nothing]),
            torch.cat([self.positions, nothing]),
            (*self.lengths, spare),
            (*self.parents, -1),
        )

    def to(self, device: torch.device | str) -> Packed:
        """The same on `device`."""
        return replace(self, tokens=self.tokens.to(device), positions=self.positions.to(device))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Layout`. Sequences of one length are a batch already; else one call per piece on a
        CPU, where that costs nothing, and padded batches for attention alone elsewhere."""
        if len(set(self.lengths)) == 1 and max(self.parents) < 0:
            q, k, v = (x[0].unflatten(1, (len(self.lengths), -1)) for x in (query, key, value))
            read = _causal(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), scale)
            return read.transpose(0, 1).flatten(1, 2)[None]
        way = one_by_one if query.device.type == "cpu" else side_by_side
        return way(self, query, key, value, scale)

    @cached_property
    def grids(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """What `side_by_side` needs in every layer: for pieces without parent their tokens (B, S)
        and which of these (B S) are no padding; for the others the same, and the tokens they read
        (B, P+S) and whether they see them (B, 1, S, P+S)."""
        ends = accumulate(self.lengths, initial=0)
        spans = [torch.arange(a, b) for a, b in pairwise(ends)]
        alone = [span for span, parent in zip(spans, self.parents, strict=True) if parent < 0]
        rest = [i for i, parent in enumerate(self.parents) if parent >= 0]
        to = self.tokens.device
        columns = pad_sequence(alone, batch_first=True, padding_value=-1)
        first = columns.clamp(min=0).to(to), _present(columns).to(to)
        if not rest:
            return first, None
        own = pad_sequence([spans[i] for i in rest], batch_first=True, padding_value=-1)
        before = [spans[self.parents[i]].flip(0) for i in rest]
        above = pad_sequence(before, batch_first=True, padding_value=-1).flip(1)
        columns = torch.cat([above, own], dim=1)
        seen = (columns >= 0)[:, None].expand(-1, own.shape[1], -1).tril(above.shape[1])
        seen = seen | ~seen.any(-1, keepdim=True)  # padding reads anything rather than nothing
        parts = own.clamp(min=0), _present(own), columns.clamp(min=0), seen[:, None]
        return first, tuple(part.to(to) for part in parts)


def _present(columns: Tensor) -> Tensor:
    return (columns >= 0).flatten().nonzero().squeeze(1)


def first_equal(tokens: Tensor, mask: Tensor) -> list[int]:
    """For each row the number of the first row that holds the same tokens."""
    seen: dict[tuple[int, ...], int] = {}
    rows = tokens.where(mask, -1).tolist()
    return [seen.setdefault(tuple(ids), row) for row, ids in enumerate(rows)]


def one_by_one(packed: Packed, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of each piece by itself (1, H, N, D)."""
    sizes = list(packed.lengths)
    keys, values = key.split(sizes, dim=2), value.split(sizes, dim=2)
    found = []
    later = _later(max(sizes), query.dtype) if max(packed.parents) >= 0 else query
    for number, q in enumerate(query.split(sizes, dim=2)):
        k, v, parent = keys[number], values[number], packed.parents[number]
        if parent < 0:
            found.append(_causal(q, k, v, scale))
            continue
        own, before = sizes[number], sizes[parent]
        k, v = torch.cat([keys[parent], k], dim=2), torch.cat([values[parent], v], dim=2)
        seen = later[:own, len(later) - before : len(later) + own]
        found.append(F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True))
    return torch.cat(found, dim=2)


def side_by_side(packed: Packed, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The same in at most two calls: sequences that stand alone or are continued, padded right;
    then the continuations, with their parents before them padded left."""
    alone, after = packed.grids
    found = torch.zeros_like(query[0])
    columns, place = alone
    q, k, v = (_gather(x, columns) for x in (query, key, value))
    found = _scatter(found, _causal(q, k, v, scale), columns, place)
    if after is not None:
        own, place, columns, seen = after
        q, k, v = _gather(query, own), _gather(key, columns), _gather(value, columns)
        read = F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True)
        found = _scatter(found, read, own, place)
    return found[None]


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=True
    )


def _later(length: int, dtype: torch.dtype) -> Tensor:
    """(L, 2L), L of at least `length`, to be added to scores: token i of a piece whose own keys
    begin at column L and whose parent's end there sees what is not later."""
    return _triangle(1 << (length - 1).bit_length(), dtype)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _triangle(length: int, dtype: torch.dtype) -> Tensor:
    return torch.full((length, 2 * length), -math.inf, dtype=dtype).triu(length + 1)


def _gather(x: Tensor, columns: Tensor) -> Tensor:
    """(1, H, N, D) and (B, S) -> (B, H, S, D)."""
    return x[0, :, columns].transpose(0, 1)


def _scatter(found: Tensor, read: Tensor, columns: Tensor, place: Tensor) -> Tensor:
    """(H, N, D) with what was read (B, H, S, D) where it belongs; `place` names what is no padding
    in (B S)."""
    found = found.to(read.dtype)  # under autocast lower than that of queries with rotary positions
    read = read.transpose(1, 2).flatten(0, 1)[place]
    return found.index_copy(1, columns.flatten()[place], read.transpose(0, 1))


def hidden_states(backbone: Any, layout: Layout) -> Tensor:
    """The last hidden states after the final norm (N, D) of tokens in a layout."""
    found: Tensor = backbone(
        input_ids=layout.tokens[None],
        position_ids=layout.positions[None],
        attention_mask=layout.tokens.new_empty(1, 1, 1, 0),  # of a form that is passed on untouched
        use_cache=False,
        layout=layout,
    )[0]
    return found[0]


def packs(model: nn.Module) -> bool:
    """Whether `model` reads packed sequences, as `exchange` found out."""
    return bool(model.config._attn_implementation == NAME)  # type: ignore[union-attr]


@torch.no_grad()
def exchange(model: PreTrainedModel) -> None:
    """Exchange the attention of `model` for this one, if it then reads packed sequences as it reads
    them alone; otherwise leave it and say so."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    backbone: Any = model.base_model
    probe = Packed.of([[1, 2, 3], [4, 5], [6], [7, 8, 9]], [-1, 0, 0, -1])
    probe.tokens.remainder_(config.vocab_size)
    probe = probe.to(model.device)
    alone = [[0, 1, 2, 3, 4], [0, 1, 2, 5], [6, 7, 8]]
    same = before == "sdpa" and not _has_windows(config)
    try:
        plain = [backbone(input_ids=probe.tokens[None, ids]).last_hidden_state[0] for ids in alone]
        if same:
            model.set_attn_implementation(NAME)
            found = hidden_states(backbone, probe)
            same = all(
                torch.allclose(found[ids], expected, rtol=1e-3, atol=1e-4)
                for ids, expected in zip(alone, plain, strict=True)
            )
    except (
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        IndexError,
    ):  # built in another way
        same = False
    if not same:
        model.set_attn_implementation(before)
        say(
            f"{type(model).__name__}: its attention cannot be exchanged, so batches are padded "
            "and sampling takes the plain, slower way"
        )


def _has_windows(config: Any) -> bool:
    """Whether some layer sees a part of the context only."""
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    return (
        bool(window) and window < config.max_position_embeddings and "sliding_attention" in layers
    )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if layout is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return found
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("attention with a soft cap or sinks")
    if torch.is_autocast_enabled(query.device.type):  # positions have made some fp32 again
        low = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(low), key.to(low), value.to(low)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    read = layout.attend(int(module.layer_idx), query, key, value, scale)  # type: ignore[arg-type]
    return read.transpose(1, 2), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
