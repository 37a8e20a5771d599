"""Muon: momentum of the layers' matrices, orthogonalised (Jordan et al. 2024); for pretraining.

The same steps as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but matrices of one
shape are orthogonalised together, and on a CPU in fp32: torch does it in bf16, which takes twenty
times as long on a processor without instructions for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from instil.train import dist

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's quintic, steep at 0: singular values come to 0.7 to 1.2 in few iterations."""
NORMAL = 1e-7
"""Smallest length by which a matrix is divided."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, in steps of AdamW's size.

    lr  the root mean square of a step is 0.2 lr, about that of AdamW (Liu et al. 2025)
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            updates = [self._update(p, group["momentum"]) for p in learning]
            for p, update in zip(learning, orthogonal(updates), strict=True):
                own = torch.empty_like(p)
                dist.fill(own, update)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(own, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)

    def _update(self, p: nn.Parameter, momentum: float) -> Tensor:
        """The gradient with momentum, whole where `p` is in shards."""
        state, gradient = self.state[p], p.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return dist.full(gradient.lerp(state["momentum_buffer"], momentum))


def orthogonal(matrices: list[Tensor]) -> list[Tensor]:
    """Each matrix with its singular values near 1, in fp32; those of one shape at once.

    By Newton-Schulz iterations, in fp32 on a CPU and in bf16 on a GPU.
    """
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[min(matrix.shape), max(matrix.shape)].append(i)
    found = list(matrices)
    a, b, c = COEFFICIENTS
    for places in alike.values():
        x = torch.stack([_wide(matrices[i]) for i in places])
        x = x if x.device.type == "cpu" else x.bfloat16()
        x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=NORMAL)
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for i, one in zip(places, x.float(), strict=True):
            found[i] = one.T if one.shape != matrices[i].shape else one
    return found


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
