"""How much memory training takes, found out without numbers.

Inside `tracing` models are made from their configs as shapes (torch's fake tensors): their weights
have no numbers, but everything else, the device too. So the very code of training and sampling runs
on them as it will run later, computes nothing, and each piece of memory that a tensor would take is
counted until it is given back. What kernels take for themselves is seen of oneDNN's products only.

Batches stay real, so that code whose way depends on lengths and masks goes the real way. Answers
that hang on numbers are made up: a comparison is True, a number is 1.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from instil.lm.batches import Ids
from instil.lm.machine import device
from instil.lm.models import without_weights
from instil.lm.sampling import Decoder, SamplingParams

LARGE = 2**25
"""From this size on a free block goes back to the system at once (machine.settle)."""

REORDER = "mkldnn._reorder_linear_weight.default"
"""An operation that shapes do not know; what it returns is as large as what it is given."""
PRODUCT = "mkldnn._linear_pointwise.default"


@dataclass
class Peak:
    """The most bytes that tensors hold at one time, what was there before left out."""

    every: int = 0
    logits: int = 0
    """Of `every`, those of tensors as wide as the vocabulary."""


class Tracer(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and still are.

    now    at this time
    small  the most at one time in blocks below `LARGE`
    large  the same in larger blocks
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.small = self.large = 0
        self._now = [0, 0]  # small, large
        self._logits = 0
        self._width = 0
        self._peak = Peak()
        self._before = 0
        self._known: dict[int, Any] = {}

    @contextmanager
    def phase(self, vocabulary: int = 0) -> Iterator[Peak]:
        """The peak of what is done inside."""
        self._peak, self._before, self._width = Peak(), self.now, vocabulary
        yield self._peak

    @contextmanager
    def holding(self, size: int, block: int) -> Iterator[None]:
        """Inside, `size` bytes in blocks of `block` are held that no tensor made here shows."""
        self._add(size, block >= LARGE, False)
        try:
            yield
        finally:
            self._add(-size, block >= LARGE, False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags and isinstance(args[0], _fake()):
            return True if func is torch.ops.aten.allclose.default else 1
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], _places(args[1]))
        given = {key for key, _, _ in _storages((args, kwargs))}
        if str(func) == REORDER and isinstance(args[0], _fake()):
            found = torch.empty_like(args[0])
        else:
            found = func(*args, **(kwargs or {}))
        if str(func) == PRODUCT:  # copies the weight, and what is not in order
            size = args[1].nbytes + args[0].nbytes * (not args[0].is_contiguous())
            with self.holding(size, args[1].nbytes):
                pass
        for key, storage, width in _storages(found):
            if key not in given and key not in self._known:
                size = storage.nbytes()
                kind = size, size >= LARGE, bool(width) and width == self._width
                self._known[key] = weakref.ref(storage, self._forget(key, *kind))
                self._add(*kind)
        return found

    def _add(self, size: int, large: bool, logits: bool) -> None:
        self.now += size
        self._now[large] += size
        self._logits += size * logits
        self.small, self.large = max(self.small, self._now[0]), max(self.large, self._now[1])
        if self.now - self._before > self._peak.every:
            self._peak.every, self._peak.logits = self.now - self._before, self._logits

    def _forget(self, key: int, size: int, large: bool, logits: bool) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            self._add(-size, large, logits)
            del self._known[key]

        return forget


def _storages(tree: Any) -> list[tuple[int, Any, int]]:
    """Key, storage and last dimension of every tensor."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    found = [(tensor.untyped_storage(), tensor.shape[-1:]) for tensor in tensors]
    return [(storage._cdata, storage, *(shape or (0,))) for storage, shape in found]


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with the places where a mask is True in place of the mask; only real ones tell."""
    found: list[Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype == torch.bool and not isinstance(index, _fake())
        found += index.nonzero(as_tuple=True) if mask else [index]  # type: ignore[union-attr]
    return found


class _Copies(TorchFunctionMode):
    """Copies shapes. Left to itself, `copy.deepcopy` goes on into what a fake tensor hangs on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or not isinstance(args[0], _fake()):
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            own = torch.empty_like(tensor, requires_grad=False)
            is_weight = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if is_weight else own
        return memo[id(tensor)]


def _fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensor  # not at the top: it loads very much

    return FakeTensor


@contextmanager
def tracing() -> Iterator[Tracer]:
    """Inside, models are shapes, and memory is counted."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)

    @contextmanager
    def shapes() -> Iterator[None]:
        with mode, torch.device(device()):
            yield

    with without_weights(shapes), _Copies(), Tracer() as tracer:
        yield tracer


class _Enough(Exception):
    pass


class _OneStep(Decoder):
    """The decoder, up to its first step after the prompts were read."""

    def pick(
        self, logits: Tensor, params: SamplingParams, uniform: Tensor, rows: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Decoder.pick`. What is returned is real, as the state of the decoder is."""
        super().pick(logits, params, uniform, rows, steps)
        if steps.any():
            raise _Enough
        return torch.zeros_like(rows), torch.zeros(len(rows), device=rows.device)


def begin_to_sample(
    model: PreTrainedModel, codec: Any, prompts: Sequence[Ids], params: SamplingParams, batch: int
) -> None:
    """Read the first prompts, as `Decoder.sample` does, and make one decoding step."""
    longest = sorted(prompts, key=len)[-batch:]
    with suppress(_Enough):
        _OneStep(model, codec, batch).sample(longest, params, seed=0)
