"""How fast the machine multiplies and copies: the rates behind every "share of the limit".

A workload's limit is the time that its floor would take: the operations that nobody can avoid at
the rate of a large matrix product, or the bytes that must be moved at the rate of a copy, whichever
takes longer (a machine can multiply while it reads). Phases that must follow each other, a prompt's
prefill and its decoding, have a limit each, and these add up.

The large product is torch's own, the same for every implementation under test. Where oneDNN is
faster than that, instil goes past this limit, and `product_ratio` tells by how much it could.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.clock import synchronize
from instil.lm.linear import product

FLOATS = 1 << 26
"""256 MiB in fp32, more than any cache holds."""
ROWS = (1, 8, 64, 512, 3584)
"""Tokens that pass through a weight matrix together."""


def limit_seconds(phases: Iterable[tuple[float, float]], gflops: float, gbps: float) -> float:
    """Least seconds for phases of (GFLOP, GB) each, done one after the other."""
    return sum(max(gflop / gflops, gbytes / gbps) for gflop, gbytes in phases)


def copy_gbps(device: str) -> float:
    """GB/s of a copy, read and written bytes both counted: the median of some."""
    source = torch.ones(FLOATS, device=device)
    target = torch.empty_like(source)
    seconds = _times(lambda: target.copy_(source), device, 7)
    return 2 * source.nbytes / statistics.median(seconds) / 1e9


def product_ratio(device: str) -> float:
    """How many times as fast as torch's own a 2048^3 product of `instil.lm.linear` is."""
    a, b = torch.randn(2, 2048, 2048, device=device)
    pairs = [
        (_times(lambda: torch.mm(a, b.t()), device, 1), _times(lambda: product(a, b), device, 1))
        for _ in range(7)
    ]
    return statistics.median(theirs[0] / ours[0] for theirs, ours in pairs)


def rates(shape: Any, device: str, repeats: int) -> dict[str, Any]:
    """Rates of a 2048^3 product, of the products of a model (`workloads.Model`), of copy and read.

    Best and median of 5 times `repeats`. fp32, on a GPU bf16; weights stored (out, in) as in a
    linear layer.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16

    def product(rows: int, inner: int, columns: int) -> dict[str, float]:
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        b = torch.randn(columns, inner, device=device, dtype=dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        seconds = _times(lambda: torch.mm(a, b.t(), out=out), device, 5 * repeats)
        return _rate(2 * rows * inner * columns, seconds)

    width, wide = shape.d_model, shape.d_ff
    layers = {
        "up": (width, wide),
        "down": (wide, width),
        "qkvo": (width, width),
        "head": (width, shape.vocab),
    }
    source = torch.ones(FLOATS, device=device)
    return {
        "gemm_2048_gflops": product(2048, 2048, 2048),
        "shapes_gflops": {
            f"{name} {rows}x{inner}x{columns}": product(rows, inner, columns)
            for name, (inner, columns) in layers.items()
            for rows in ROWS
        },
        "copy_gbps_read_plus_write": copy_gbps(device),
        "read_gbps": _rate(source.nbytes, _times(source.sum, device, 5 * repeats)),
    }


def _times(work: Callable[[], Any], device: str, repeats: int) -> list[float]:
    found = []
    for _ in range(repeats + 1):
        synchronize(torch.device(device))
        start = time.perf_counter()
        work()
        synchronize(torch.device(device))
        found.append(time.perf_counter() - start)
    return found[1:]


def _rate(amount: float, seconds: list[float]) -> dict[str, float]:
    return {
        "max": round(amount / min(seconds) / 1e9, 2),
        "median": round(amount / statistics.median(seconds) / 1e9, 2),
    }
