from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from instil.train import muon
from instil.train.muon import Muon, orthogonal


def turned(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]])


def quintic(s: float) -> float:
    """What five iterations make of one singular value."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def test_directions_stay_and_lengths_come_near_one():
    # singular values 3 and 4 in turned directions: of length 5 together, so 0.6 and 0.8
    left, right = turned(0.3), turned(1.1)
    (found,) = orthogonal((left @ torch.diag(torch.tensor([3.0, 4.0])) @ right)[None])
    expected = left @ torch.diag(torch.tensor([quintic(0.6), quintic(0.8)])) @ right
    assert torch.allclose(found, expected, atol=1e-5)
    assert 0.68 < quintic(0.6) < 1.2 and 0.68 < quintic(0.8) < 1.2


def test_a_matrix_does_not_see_those_beside_it():
    some = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(0))
    for alone, among in zip(some, orthogonal(some), strict=True):
        assert torch.allclose(orthogonal(alone[None])[0], among, atol=1e-5)
    assert torch.allclose(orthogonal(some.mT), orthogonal(some).mT, atol=1e-5)
    assert not orthogonal(torch.zeros(1, 2, 3)).any()


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_torch(decay, monkeypatch):
    monkeypatch.setattr(muon, "AT_ONCE", 100)  # two of the four 6 x 8 at one time
    noise = torch.Generator().manual_seed(0)
    shapes = [(6, 8)] * 4 + [(8, 6), (8, 8), (20, 10)]
    starts = [torch.randn(shape, generator=noise) for shape in shapes]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    one = Muon(ours, lr=0.1, weight_decay=decay)
    other = torch.optim.Muon(theirs, lr=0.1, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=noise)
            its.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, its, start in zip(ours, theirs, starts, strict=True):
        moved = (its - start).norm()
        assert moved > 0.2
        assert (mine - its).norm() < 0.05 * moved  # torch iterates in bf16


def test_one_without_a_gradient_stays():
    still, moves = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([still, moves], lr=0.1, weight_decay=0.5)
    moves.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    # decay: 1 - 0.1 x 0.5; the step: both singular values of the normed identity are 1 / sqrt 2
    expected = 0.95 * torch.ones(2, 2) - 0.1 * 0.2 * math.sqrt(2) * quintic(2**-0.5) * torch.eye(2)
    assert moves.detach() == pytest.approx(expected, abs=1e-5)
