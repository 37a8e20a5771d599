"""Matrix products with weights on a CPU, in fp32.

torch gives them to MKL, which on processors of AMD with AVX-512 uses half of what they can. oneDNN,
which is in torch as well, uses all of it, and is as fast as MKL elsewhere. So the linear layers of
a model are exchanged for ones that ask oneDNN; their weights, names and files stay as they were.
While weights do not change, as in sampling, they can be kept in the order in which oneDNN reads
them, which thin products are faster with (`reordered`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

COLUMNS = 4096
"""Of a matrix that is turned, those which are turned at one time."""
LEAST = 2**22
"""Multiplications from which on a call of oneDNN gains more than it costs."""
ROWS = 64
"""Rows come in multiples of it, or of 8 below it: oneDNN makes code for each number of rows that it
meets, which takes time, and keeps it, which takes half a megabyte."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b (..., O), as `torch.nn.functional.linear`.

    x (..., I)  weight (O, I)  bias (O,) or None
    """
    if not _suits(x.numel() * len(weight), x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        found: Tensor = _Linear.apply(x, weight, bias)
        return found
    return _product(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b' (N, M) of a (N, K) and b (M, K) in any order of memory, without gradient."""
    return _product(a, b) if _suits(a.numel() * len(b), a, b) else a @ b.t()


def product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """a' b (M, K) of a (N, M) and b (N, K), without gradient."""
    if not _suits(a.numel() * b.shape[1], a, b):
        return a.t() @ b
    if a.shape[1] <= b.shape[1]:  # the left side is turned in memory: let it be the smaller one
        return _product(a.t(), b.t())
    found, turned = a.new_empty(a.shape[1], b.shape[1]), b.t().contiguous()
    for at in range(0, len(found), COLUMNS):  # what is turned back exists a piece at a time
        piece = a[:, at : at + COLUMNS].contiguous()  # oneDNN is very slow with gaps
        found[at : at + COLUMNS] = _product(turned, piece.t()).t()
    return found


def fill(rows: int) -> int:
    """How many rows are missing for a number of them that is met again."""
    return -rows % (ROWS if rows > ROWS else 8)


def exchange_linear(model: nn.Module) -> None:
    """Let the linear layers of `model` use `linear`."""
    for module in model.modules():
        if type(module) in _OURS:
            module.__class__ = _OURS[type(module)]


@contextmanager
@torch.no_grad()
def reordered(model: nn.Module, rows: int) -> Iterator[None]:
    """Inside, the weights of the exchanged layers must not change: passes without gradient, of
    about this many tokens, read a copy in oneDNN's order."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, LinearLayer | Conv1DLayer)
        and _suits(rows * module.weight.numel(), module.weight)
    ]
    for layer in layers:
        weight = layer.weight if isinstance(layer, LinearLayer) else layer.weight.t()
        layer.__dict__["ordered"] = _MKLDNN._reorder_linear_weight(weight.contiguous(), rows)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["ordered"]


class LinearLayer(nn.Linear):
    """A linear layer, weight (O, I)."""

    def forward(self, x: Tensor) -> Tensor:
        """See `linear`."""
        if (ordered := self.__dict__.get("ordered")) is not None and not torch.is_grad_enabled():
            return _product(x, ordered, self.bias)
        return linear(x, self.weight, self.bias)


class Conv1DLayer(Conv1D):
    """GPT-2's linear layer, weight (I, O)."""

    def forward(self, x: Tensor) -> Tensor:
        """See `linear`."""
        if (ordered := self.__dict__.get("ordered")) is not None and not torch.is_grad_enabled():
            return _product(x, ordered, self.bias)
        return linear(x, self.weight.t(), self.bias)


_OURS: dict[type, type] = {nn.Linear: LinearLayer, Conv1D: Conv1DLayer}
_MKLDNN: Any = torch.ops.mkldnn


def _suits(multiplications: int, *factors: Tensor) -> bool:
    return (
        multiplications >= LEAST
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in factors)
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor
    spare = fill(x.shape[:-1].numel())
    if not spare:
        found = _MKLDNN._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    rows = F.pad(x.flatten(0, -2), (0, 0, 0, spare))
    found = _MKLDNN._linear_pointwise(rows, weight, bias, "none", [], "")
    return found[:-spare].view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _product(gradient, weight.t())
        rows = gradient.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            to_weight = product_over_rows(rows, x.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(dim=0)
        return to_x, to_weight, to_bias
