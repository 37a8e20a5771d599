"""From hidden states to logprobs, without keeping logits that nobody asked for.

The head and the log-softmax are one operation: logits exist for one chunk of targets at a time, in
the forward and again in the backward pass (which takes over those of a single chunk). So memory
does not grow with targets x vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**24
"""Logits that exist at one time (64 MiB in fp32)."""


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
    with torch.autocast(kind, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = _Head.apply(
            hidden, weight, bias, targets, temperature, measure
        )
    return found


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
        chunks, logits = _chunks(len(targets), len(weight)), None
        for rows in chunks:
            logits = _logits(hidden[rows], weight, bias, temperature)
            target = targets[rows, None]
            total[rows] = logits.logsumexp(dim=1)
            chosen[rows] = logits.gather(1, target).squeeze(1) - total[rows]
            if measure:
                hits[rows] = (logits.argmax(dim=1) == targets[rows]).to(wide)
                mean = torch.linalg.vecdot((logits - total[rows, None]).exp_(), logits)
                entropy[rows] = total[rows] - mean
        kept = logits if len(chunks) == 1 else None
        ctx.save_for_backward(hidden, weight, bias, targets, total, kept)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy, hits)
        return chosen, entropy, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, total, kept = ctx.saved_tensors
        learns, learns_too = ctx.needs_input_grad[1:3]
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=total.dtype) if learns else None
        to_bias = torch.zeros_like(bias, dtype=total.dtype) if learns_too else None
        scale = gradient / ctx.temperature
        for rows in _chunks(len(targets), len(weight)):
            part = kept
            if part is None:
                part = _logits(hidden[rows], weight, bias, ctx.temperature)
            part = (part - total[rows, None]).exp_().mul_(-scale[rows, None])
            part.scatter_add_(1, targets[rows, None], scale[rows, None])
            if to_bias is not None:
                to_bias += part.sum(dim=0)
            part = part.to(hidden.dtype)
            torch.mm(part, weight, out=to_hidden[rows])
            if to_weight is None:
                continue
            if to_weight.dtype == part.dtype:
                to_weight.addmm_(part.t(), hidden[rows])
            else:  # chunks add up in fp32
                to_weight += part.t() @ hidden[rows]
        return to_hidden, to_weight, to_bias, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits / temperature


def _chunks(n: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK // vocabulary)
    return [slice(at, at + size) for at in range(0, n, size)]
