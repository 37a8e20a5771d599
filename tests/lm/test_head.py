"""head.py: what logits would say, without the logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from instil.lm import head
from instil.lm.head import head_logprobs
from instil.losses import token_logprobs

N, D, V = 23, 5, 40


@pytest.fixture(params=[1, 4 * V + 7, 2**24], ids=["a row", "4 rows", "all"])
def chunk(request, monkeypatch):
    """Logits at one time: one target's, those of some with a rest, all."""
    monkeypatch.setattr(head, "CHUNK", request.param)


def inputs(bias: bool = True, n: int = N, dtype: torch.dtype = torch.float64):
    """Hidden states, weight, bias, targets."""
    noise = torch.Generator().manual_seed(0)

    def leaf(*shape: int):
        return torch.randn(*shape, generator=noise, dtype=dtype).requires_grad_()

    targets = torch.randint(0, V, (n,), generator=noise)
    return leaf(n, D), leaf(V, D), leaf(V) if bias else None, targets


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [True, False])
def test_logprobs_and_gradients_are_those_of_all_logits(bias, temperature):
    *leaves, targets = inputs(bias)
    found, entropy, hits = head_logprobs(*leaves, targets, temperature)
    expected = token_logprobs(F.linear(*leaves), targets, temperature)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert not entropy.any() and not hits.any()
    leaves = [leaf for leaf in leaves if leaf is not None]
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), leaves) for x in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_against_finite_differences(bias):
    *leaves, targets = inputs(bias, n=6)
    assert torch.autograd.gradcheck(lambda *x: head_logprobs(*x, targets, 0.7)[0], leaves)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropy_and_hits_are_those_of_the_prediction(temperature):
    *leaves, targets = inputs()
    logits = F.linear(*leaves) / temperature
    targets[::2] = logits.argmax(-1)[::2]
    found, entropy, hits = head_logprobs(*leaves, targets, temperature, measure=True)
    prediction = torch.distributions.Categorical(logits=logits)
    assert torch.allclose(found, prediction.log_prob(targets))
    assert torch.allclose(entropy, prediction.entropy())
    assert torch.equal(hits, (logits.argmax(-1) == targets).double())
    assert found.requires_grad and not entropy.requires_grad and not hits.requires_grad


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else [made]:
            self.size = max(self.size, x.numel() if isinstance(x, torch.Tensor) else 0)
        return made


def test_no_tensor_is_larger_than_the_chunk_forward_and_backward(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", V * D + 7)  # room for the weight's gradient, for 5 targets
    *leaves, targets = inputs()
    with Largest() as ours:
        head_logprobs(*leaves, targets, 0.7, measure=True)[0].sum().backward()
    with Largest() as theirs:
        token_logprobs(F.linear(*leaves), targets, 0.7).sum().backward()
    assert (ours.size, theirs.size) == (V * D, N * V)


@pytest.mark.usefixtures("chunk")
def test_autocast_logprobs_are_float32_and_near():
    *leaves, targets = inputs(dtype=torch.float32)
    expected = token_logprobs(F.linear(*leaves), targets)
    with torch.autocast("cpu", torch.bfloat16):
        found, entropy, hits = head_logprobs(*leaves, targets, measure=True)
        # the slow twin: nn.Linear in bf16, log-softmax in fp32
        twin = token_logprobs(F.linear(*leaves), targets)
    assert {x.dtype for x in (found, entropy, hits)} == {torch.float32}
    assert torch.allclose(found, twin, atol=1e-6)
    assert torch.allclose(found, expected, atol=0.1)
    gradients = [torch.autograd.grad(x.sum(), leaves) for x in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, atol=0.02 * theirs.abs().max())


def test_no_targets_give_no_logprobs_and_no_gradient():
    *leaves, targets = inputs(n=0)
    found, _, _ = head_logprobs(*leaves, targets)
    found.sum().backward()
    assert found.shape == (0,)
    assert not any(leaf.grad.any() for leaf in leaves)


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="temperature 0 is not positive"):
        head_logprobs(*inputs(), temperature=0)
