"""Linear layers through oneDNN, beside torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from instil.lm import linear as ours
from instil.lm.linear import exchange_linear, linear, product, product_over_rows, reordered
from instil.lm.models import new_policy


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products take the way of large ones."""
    monkeypatch.setattr(ours, "LEAST", 1)


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers, in steps of 1/4 so that sums are exact in any order."""
    torch.manual_seed(0)
    return [(torch.randn(shape) * 4).round().div(4).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (2, 3, 6), (0, 6)])
@pytest.mark.parametrize("out", [3, 9])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], out: int, with_bias: bool
) -> None:
    x, weight, bias, upstream = tensors(shape, (out, 6), (out,), (*shape[:-1], out))
    learn = [x, weight, bias][: 2 + with_bias]
    expected = F.linear(*learn)
    found = linear(*learn)
    assert torch.equal(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, learn, upstream),
        torch.autograd.grad(expected, learn, upstream),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_it_is_onednn_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = ours._product
    monkeypatch.setattr(ours, "_product", lambda *given: calls.append(1) or real(*given))
    x, weight = tensors((5, 6), (3, 6))
    linear(x, weight).sum().backward()
    assert len(calls) == 3  # forward, gradient of x, gradient of the weight
    linear(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(ours, "LEAST", 5 * 6 * 3 + 1)
    linear(x, weight)
    assert len(calls) == 3  # other precisions and small products are torch's


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, weight = tensors((5, 6), (3, 6))
    weight.requires_grad_(False)
    linear(x, weight).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize(("rows", "columns"), [(4, 7), (7, 4)])
def test_products_of_turned_matrices(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "COLUMNS", 3)
    a, b = (t.detach() for t in tensors((5, rows), (5, columns)))
    assert torch.equal(product_over_rows(a, b), a.t() @ b)
    assert product_over_rows(a, b).is_contiguous()
    assert torch.equal(product(a.t(), b.t()), a.t() @ b)


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), Conv1D(4, 6)])
def test_exchanged_layers_compute_the_same_and_can_be_copied(layer: nn.Module) -> None:
    (x,) = tensors((5, 6))
    expected = layer(x).detach()
    model = nn.Sequential(copy.deepcopy(layer))
    names = list(model.state_dict())
    exchange_linear(model)
    assert type(model[0]) is not type(layer)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), expected)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("layer", [nn.Linear(64, 48), Conv1D(48, 64)])
def test_weights_in_the_order_of_onednn(layer: nn.Module) -> None:
    (x,) = tensors((5, 64))
    model = nn.Sequential(copy.deepcopy(layer))
    exchange_linear(model)
    with torch.no_grad():
        expected = layer(x)
        with reordered(model, 4):
            torch.testing.assert_close(model(x), expected)
            torch.testing.assert_close(model(x[:2]), expected[:2])
            layer.weight.zero_()
            model[0].weight.zero_()
            torch.testing.assert_close(model(x), expected)  # the copy is what is read
        torch.testing.assert_close(model(x), layer(x))  # afterwards the weights are
        with pytest.raises(KeyError), reordered(model, 4):
            raise KeyError
        torch.testing.assert_close(model(x), layer(x))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_policies_have_exchanged_layers(architecture: str) -> None:
    model = new_policy(architecture, 50, 32, 2, 2, 64, seed=0, pad_id=0, eos_id=1)  # type: ignore[arg-type]
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    assert layers
    assert all(isinstance(m, ours.LinearLayer | ours.Conv1DLayer) for m in layers)


def test_rows_are_filled_up_to_a_number_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {1: 8, 8: 8, 9: 16, 64: 64, 65: 128, 128: 128, 600: 640}
    assert {n: n + ours.fill(n) for n in wanted} == wanted
    seen = []
    real = ours._MKLDNN._linear_pointwise

    class Watched:
        @staticmethod
        def _linear_pointwise(x: Tensor, *rest: object) -> Tensor:
            seen.append(len(x))
            return real(x, *rest)

    monkeypatch.setattr(ours, "_MKLDNN", Watched)
    x, weight = (t.detach() for t in tensors((1, 9, 6), (3, 6)))
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert seen == [16]
