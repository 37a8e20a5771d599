"""What the machine at hand wants: where models are and in which precision they compute, threads,
memory that is kept, how much to read at a time."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def settle(threads: int = 0) -> None:
    """Choose the number of torch's threads (0: all cores), and keep freed memory.

    By default glibc gives every large block back to the system, so each temporary tensor of each
    step is mapped, zeroed and faulted in anew; that is a tenth of the time of a training step.
    """
    if threads:
        torch.set_num_threads(threads)
    if mallopt := _of_glibc("mallopt"):
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that glibc before 2.35 allows
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Give kept memory that nothing uses back to the system: before work of another kind, whose
    tensors do not fit where the last ones were."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """A function of glibc; None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def device() -> torch.device:
    """Where models are: on the GPU that torchrun names with LOCAL_RANK, without torchrun on the
    first one, and where there is none on the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def computes_in_bf16(model: Any) -> bool:
    """Whether the matrix products of a policy or backbone are in bf16: where its `precision` is
    "bf16", or "auto" on a GPU that is made for it."""
    precision: Precision = model.base_model.__dict__.get("precision", "auto")
    if precision == "auto":
        return model.device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    return precision == "bf16"


@contextmanager
def mixed_precision(model: Any, repeat: bool = False) -> Iterator[None]:
    """A context for passes over a policy or backbone in its precision. Weights stay in fp32.

    repeat  for many passes without gradient: weights are cast once for all of them, which takes the
            memory of a copy in bf16; else each pass casts them layer by layer
    """
    if not computes_in_bf16(model):
        yield
        return
    # autocast keeps the casts of those weights only that could learn
    frozen = [p for p in model.parameters() if repeat and not p.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with torch.autocast(model.device.type, torch.bfloat16, cache_enabled=repeat):
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def tokens_per_pass(model: Any, wanted: int = 0) -> int:
    """Tokens that one forward and backward pass takes: `wanted`, or when that is 0 as many as keep
    the cores busy, and no more, since what a pass keeps for its backward grows with them."""
    if wanted:
        return wanted
    if model.device.type != "cpu":
        return 16_384
    config = model.config.get_text_config()
    return int(max(512, 2**21 // (config.hidden_size * config.num_hidden_layers)))


def sequences_at_once(model: Any, wanted: int = 0) -> int:
    """Sequences that one step of sampling goes on with: `wanted`, or when that is 0 128, and on a
    CPU more for a small model, whose single steps cost more in calls than in numbers."""
    if wanted or model.device.type != "cpu":
        return wanted or 128
    return min(512, max(128, tokens_per_pass(model) // 8))
