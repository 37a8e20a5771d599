"""Muon: momentum of the layers' matrices, orthogonalised (Jordan et al. 2024); for pretraining.

The same steps as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but matrices of one
shape are orthogonalised together, and on a CPU in fp32: torch does it in bf16, which takes thirty
times as long on a processor without instructions for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from instil.train import dist

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's quintic, steep at 0: singular values come to 0.7 to 1.2 in few iterations."""
EPS = 1e-7
"""Smallest norm by which a matrix is divided."""
AT_ONCE = 2**24
"""Numbers that are orthogonalised at one time, if one matrix has not more: 64 MB in fp32."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, in steps of AdamW's size.

    lr  the root mean square of a step is 0.2 lr, about that of AdamW (Liu et al. 2025)
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            decay, lr = group["weight_decay"], group["lr"]
            for alike in _alike([p for p in group["params"] if p.grad is not None]):
                updates = orthogonal(torch.stack([self._update(p, group) for p in alike]))
                for p, update in zip(alike, updates, strict=True):
                    p.mul_(1 - lr * decay)
                    p.add_(_as(p, update), alpha=-lr * 0.2 * max(p.shape) ** 0.5)

    def _update(self, p: nn.Parameter, group: dict[str, float]) -> Tensor:
        """The gradient with momentum, whole where `p` is in shards."""
        state, gradient = self.state[p], p.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return dist.full(gradient.lerp(state["momentum_buffer"], group["momentum"]))


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with singular values near 1, fp32; each apart from the others.

    Newton-Schulz iterations, computed in fp32 on a CPU and in bf16 on a GPU, as torch does.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT.contiguous() if tall else matrices).float()
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=EPS)
    x = x if x.device.type == "cpu" else x.bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def _alike(matrices: list[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    """The matrices in groups of one shape, of AT_ONCE numbers or less."""
    shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for matrix in matrices:
        shapes[matrix.shape].append(matrix)
    for shape, every in shapes.items():
        size = max(1, AT_ONCE // shape.numel())
        yield from (every[at : at + size] for at in range(0, len(every), size))


def _as(like: Tensor, whole: Tensor) -> Tensor:
    """What is whole on every rank, in shards where `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
