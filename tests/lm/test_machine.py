from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from instil.lm.adapters import add_adapter
from instil.lm.batches import ranking_batch, text_batch
from instil.lm.machine import (
    computes_in_bf16,
    device,
    mixed_precision,
    sequences_at_once,
    settle,
    tokens_per_pass,
)
from instil.lm.models import head_is_plain, load_policy, logprobs, save_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.scalar import ScalarModel

FAULTS = """
import ctypes, resource, sys
from instil.lm.machine import settle

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults(size=20 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(size) for _ in range(4)]
    for block in blocks:
        library.memset(block, 1, size)
    for block in blocks:
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "settled":
    settle()
print([faults() for _ in range(4)][-1])
"""


def test_settling_sets_the_threads_that_are_asked_for():
    before = torch.get_num_threads()
    try:
        settle(before + 1)
        assert torch.get_num_threads() == before + 1
        settle()  # as they are
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="memory is kept as this system likes",
)
@pytest.mark.slow
def test_memory_that_was_freed_is_kept_for_what_comes_next():
    # a page that the system gives anew is a fault when it is first written
    settled, as_usual = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("settled", "as usual")
    )
    assert settled < as_usual / 10


def model(width: int, layers: int, device: str = "meta") -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    with torch.device(device):
        return LlamaForCausalLM(config)


def test_a_pass_takes_what_is_asked_for():
    assert tokens_per_pass(model(8, 1, "cpu"), wanted=77) == 77
    assert tokens_per_pass(model(8, 1), wanted=1) == 1


def test_a_pass_of_a_larger_model_takes_fewer_tokens_but_never_few():
    sizes = [tokens_per_pass(model(*shape, "cpu")) for shape in ((8, 1), (8, 4), (64, 4), (512, 9))]
    assert sizes == sorted(sizes, reverse=True)
    # what a pass keeps grows as tokens x width x layers
    assert sizes[0] * 8 == sizes[1] * 32 == sizes[2] * 256
    assert sizes[-1] >= 512
    assert tokens_per_pass(model(512, 9)) > sizes[-1]  # another device has more units to keep busy


def test_a_small_model_on_a_cpu_goes_on_with_more_sequences():
    assert sequences_at_once(model(8, 1, "cpu"), wanted=5) == 5
    shapes = ((128, 4), (256, 4), (512, 9))
    # 2**21 / (512 x 8), half of it, and never less than elsewhere
    assert [sequences_at_once(model(*shape, "cpu")) for shape in shapes] == [512, 256, 128]
    assert sequences_at_once(model(8, 1, "cpu")) == 512
    assert sequences_at_once(model(8, 1)) == 128


@pytest.mark.parametrize(("rank", "place"), [(None, "cuda:0"), ("3", "cuda:3")])
def test_models_are_on_the_gpu_that_torchrun_names(rank, place, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device() == torch.device(place)


def test_a_loaded_model_is_where_models_are(make_policy, codec, tmp_path, monkeypatch):
    policy = make_policy("llama")
    save_policy(policy, codec, tmp_path / "policy")
    ScalarModel.from_policy(policy, seed=0).save(tmp_path / "scalar", codec)
    monkeypatch.setattr("instil.lm.models.device", lambda: torch.device("meta"))
    monkeypatch.setattr("instil.lm.models.exchange", lambda model: None)  # makes a pass
    monkeypatch.setattr("instil.lm.models.reads_on", lambda model: True)
    scalars = ScalarModel.from_policy(tmp_path / "policy", 0), ScalarModel.load(tmp_path / "scalar")
    for model in (load_policy(tmp_path / "policy"), make_policy("gpt2"), *scalars):
        assert {weight.device.type for weight in model.parameters()} == {"meta"}


class Products(TorchDispatchMode):
    """The types of what products with weights and softmaxes return, and the casts of weights."""

    def __init__(self):
        super().__init__()
        self.products, self.softmaxes, self.casts = set(), set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm"):
            self.products.add(found.dtype)
        if name in ("logsumexp", "_log_softmax"):
            self.softmaxes.add(found.dtype)
        if name == "_to_copy" and found.dtype == torch.bfloat16 and found.dim() == 2:
            self.casts.append(args[0].data_ptr())
        return found


def of_precision(make_policy, precision, architecture="llama"):
    return make_policy(architecture, precision=precision)


def test_auto_is_fp32_on_a_cpu_and_bf16_on_a_gpu_that_has_it(make_policy, monkeypatch):
    auto, low, high = (of_precision(make_policy, name) for name in ("auto", "bf16", "fp32"))
    assert [computes_in_bf16(model) for model in (auto, low, high)] == [False, True, False]
    assert computes_in_bf16(low.base_model)
    assert computes_in_bf16(ScalarModel.from_policy(low, seed=0).backbone)
    for has, expected in ((True, [True, True, False]), (False, [False, True, False])):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated, has=has: has)
        monkeypatch.setattr(type(auto), "device", torch.device("cuda"))
        assert [computes_in_bf16(model) for model in (auto, low, high)] == expected


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_bf16_is_for_products_and_all_else_stays_fp32(make_policy, pairs, architecture):
    batch = text_batch(pairs, 1)
    found = {}
    for precision in ("fp32", "bf16"):
        policy = of_precision(make_policy, precision, architecture)
        assert head_is_plain(policy)  # found out with a pass in fp32
        with Products() as seen:
            found[precision] = logprobs(
                policy, batch.tokens, batch.mask, batch.loss_mask, measure=True
            )
            found[precision][0].sum().backward()
        low = torch.float32 if precision == "fp32" else torch.bfloat16
        assert seen.products == {low} and seen.softmaxes == {torch.float32}
        assert {x.dtype for x in found[precision]} == {torch.float32}
        assert {p.dtype for p in policy.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in policy.parameters()} == {torch.float32}
    gaps = [(a - b).abs().max() for a, b in zip(*found.values(), strict=True)]
    assert 1e-3 < gaps[0] < 0.3  # another precision, the same distribution
    assert 1e-4 < gaps[1] < 0.3


def test_scalar_heads_stay_fp32(make_policy, pairs):
    model = ScalarModel.from_policy(of_precision(make_policy, "bf16"), seed=0)
    exact = ScalarModel.from_policy(of_precision(make_policy, "fp32"), seed=0)
    batch = ranking_batch([(prompt, [response, [7]], [1, 2]) for prompt, response in pairs])
    seen = []
    model.head.register_forward_hook(lambda _, args, out: seen.append((args[0].dtype, out.dtype)))
    found, expected = model.ranking_scores(batch), exact.ranking_scores(batch)
    assert found.dtype == torch.float32 and seen == [(torch.float32, torch.float32)]
    assert 1e-4 < (found - expected).abs().max() < 0.1


def test_fp32_is_no_context_at_all(make_policy):
    with mixed_precision(of_precision(make_policy, "fp32")):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision(of_precision(make_policy, "bf16")):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("adapted", [False, True])
def test_a_sampler_in_bf16_casts_each_weight_once(make_policy, codec, pairs, adapted):
    policy = of_precision(make_policy, "bf16")
    if adapted:  # whose weights cannot learn
        add_adapter(policy, 4, alpha=8)
    learning = [p.requires_grad for p in policy.parameters()]
    sampler = Decoder(policy, codec, batch_size=4)
    with Products() as seen:
        samples = sampler.sample([p for p, _ in pairs], SamplingParams(max_tokens=8), seed=0)
    weights = {p.data_ptr() for p in policy.parameters()}
    cast = [pointer for pointer in seen.casts if pointer in weights]
    assert len(cast) == len(set(cast)) == sum(p.dim() == 2 for p in policy.parameters())
    assert [p.requires_grad for p in policy.parameters()] == learning
    batch = text_batch(list(zip([p for p, _ in pairs], samples.tokens, strict=True)), 1)
    trained = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)[batch.loss_mask]
    sampled = torch.tensor([x for row in samples.logprobs for x in row])
    assert (trained - sampled).abs().max() < 0.3


def test_weights_still_learn_after_a_sampler_has_cast_them(make_policy, codec, pairs):
    # a cast that is made without gradient and kept would cut the weight off
    policy = of_precision(make_policy, "bf16")
    Decoder(policy, codec).sample([[5, 6]], SamplingParams(max_tokens=3), seed=0)
    batch = text_batch(pairs, 1)
    logprobs(policy, batch.tokens, batch.mask, batch.loss_mask).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.parameters())
