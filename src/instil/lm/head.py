"""From hidden states to logprobs, without keeping logits that nobody asked for.

The head and the log-softmax are one operation: logits exist for one chunk of targets at a time, in
the forward and again in the backward pass (which takes over those of a single chunk, and writes
its gradient over them). So memory does not grow with targets x vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from instil.lm.linear import ROWS, fill, linear, product, product_over_rows

CHUNK = 2**24
"""Logits that exist at one time (64 MiB in fp32)."""
BLOCK = 2**20
"""Logits whose softmax is taken at one time on a CPU: the temporaries fit its caches."""


def head_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float = 1.0,
    measure: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logprobs of `targets` (N,) under softmax((hidden W' + b) / temperature), fp32 or better.

    hidden (N, D)  weight (V, D)  bias (V,) or None

    Also returns, without gradient, the entropy of each prediction and whether its most likely token
    is the target (1 or 0), both (N,); zeros unless `measure`. The slow twin is
    `losses.token_logprobs(head(hidden), targets, temperature)`.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} is not positive")
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # as nn.Linear does; the softmax is in fp32 all the same
        low = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    n, spare = len(targets), fill(len(targets))
    if kind == "cpu" and n > ROWS and spare:
        hidden, targets = F.pad(hidden, (0, 0, 0, spare)), F.pad(targets, (0, spare))
    with torch.autocast(kind, enabled=False):
        chosen, entropy, hits = _Head.apply(hidden, weight, bias, targets, temperature, measure)
    return chosen[:n], entropy[:n], hits[:n]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        measure: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen, total, entropy, hits = hidden.new_zeros(4, len(targets), dtype=wide)
        chunks, logits = _slices(len(targets), CHUNK // len(weight)), None
        block = (BLOCK if hidden.device.type == "cpu" else CHUNK) // len(weight)
        for rows in chunks:
            logits = None  # before the next ones are made
            logits = _logits(hidden[rows], weight, bias, temperature)
            for some in _slices(len(logits), block):
                part, target = logits[some], targets[rows][some]
                total[rows][some] = sums = part.logsumexp(dim=1)
                chosen[rows][some] = part.gather(1, target[:, None]).squeeze(1) - sums
                if measure:
                    hits[rows][some] = (part.argmax(dim=1) == target).to(wide)
                    mean = torch.linalg.vecdot((part - sums[:, None]).exp_(), part)
                    entropy[rows][some] = sums - mean
        ctx.save_for_backward(hidden, weight, bias, targets, total)
        ctx.kept = logits if len(chunks) == 1 else None
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy, hits)
        return chosen, entropy, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, total = ctx.saved_tensors
        learns, learns_too = ctx.needs_input_grad[1:3]
        to_hidden = torch.empty_like(hidden)
        to_weight = None
        to_bias = torch.zeros_like(bias, dtype=total.dtype) if learns_too else None
        scale = gradient / ctx.temperature
        for rows in _slices(len(targets), CHUNK // len(weight)):
            part, ctx.kept = ctx.kept, None  # which a second backward pass would find overwritten
            if part is None:
                part = _logits(hidden[rows], weight, bias, ctx.temperature)
            part.sub_(total[rows, None]).exp_().mul_(-scale[rows, None])
            part.scatter_add_(1, targets[rows, None], scale[rows, None])
            if to_bias is not None:
                to_bias += part.sum(dim=0)
            part = part.to(hidden.dtype)
            to_hidden[rows] = product(part, weight.t())
            if learns:  # chunks add up in fp32
                found = product_over_rows(part, hidden[rows]).to(total.dtype)
                to_weight = found if to_weight is None else to_weight.add_(found)
        if learns and to_weight is None:  # no targets
            to_weight = torch.zeros_like(weight)
        return to_hidden, to_weight, to_bias, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits.div_(temperature)


def _slices(n: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(at, at + size) for at in range(0, n, size)]
