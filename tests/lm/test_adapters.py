"""adapters.py: what learns, what stays, and that the rest of instil does not notice."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from peft import PeftModel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from instil.errors import InstilError
from instil.lm.adapters import add_adapter, merged, save_adapter, without_adapter
from instil.lm.batches import ranking_batch, text_batch
from instil.lm.models import load_policy, logprobs, save_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.scalar import ScalarModel


@torch.no_grad()
def adapt(model, rank=4, **more):
    """An adapter that changes much."""
    add_adapter(model, rank, alpha=8, **more)
    noise = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.copy_(torch.randn(weight.shape, generator=noise) / 3)
    return model


def of_text(policy, pairs):
    batch = text_batch(pairs, 1)
    return logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and not function.is_view:
            self.shapes.add(found.shape)
        return found


def bits(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_a_new_adapter_changes_nothing_and_alone_learns(policy, pairs):
    before, start = of_text(policy, pairs), bits(policy)
    add_adapter(policy, 4, alpha=8)
    assert torch.equal(of_text(policy, pairs), before)
    learning = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    of_text(policy, pairs).sum().backward()
    assert {n for n, p in policy.named_parameters() if p.grad is not None} == learning
    frozen = {n.replace(".base_layer", ""): p for n, p in bits(policy).items() if "lora_" not in n}
    assert frozen.keys() == start.keys()
    assert all(torch.equal(frozen[name], start[name]) for name in start)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_linear_layer_of_the_backbone_is_adapted_or_those_that_are_named(
    make_policy, architecture
):
    names = {"llama": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"}
    every = names.get(architecture, "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj").split()
    some = {"llama": ("v_proj", "q_proj"), "gpt2": ("c_attn",)}[architecture]
    for targets, expected in (((), len(every)), (some, len(some))):
        policy = make_policy(architecture)
        add_adapter(policy, 4, alpha=8, targets=targets)
        found = [name for name, _ in policy.named_parameters() if "lora_A" in name]
        assert len(found) == 2 * expected  # layers
        assert all(any(t in name for t in targets or every) for name in found)


def test_a_layer_that_is_not_there_is_named_with_its_nearest(policy):
    with pytest.raises(InstilError, match=r"lora_targets: .* no linear layer 'lm_head'"):
        add_adapter(policy, 4, alpha=8, targets=("lm_head",))


def test_without_peft_the_extra_is_named(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InstilError, match=r"pip install 'instil\[lora\]'"):
        add_adapter(policy, 4, alpha=8)


def test_an_adapter_is_a_function_of_the_seed(make_policy):
    def drawn(seed):
        policy = make_policy("llama")
        before = torch.random.get_rng_state()
        add_adapter(policy, 4, alpha=8, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return torch.cat([p.flatten() for n, p in policy.named_parameters() if "lora_A" in n])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.isclose(drawn(1), drawn(2)).any()


def test_with_its_adapter_off_the_model_is_what_it_was(policy, pairs):
    before = of_text(policy, pairs)
    after = of_text(adapt(policy), pairs)
    assert (after - before).abs().max() > 0.1
    with without_adapter(policy):
        assert torch.equal(of_text(policy, pairs), before)
    assert torch.equal(of_text(policy, pairs), after)
    of_text(policy, pairs).sum().backward()
    assert all(p.grad is not None for n, p in policy.named_parameters() if "lora_" in n)


def test_merged_it_is_a_plain_model_and_afterwards_as_before_to_the_bit(policy, pairs):
    names = list(bits(policy))
    found, start = of_text(adapt(policy), pairs), bits(policy)
    with merged(policy) as plain:
        assert list(bits(plain)) == names
        assert torch.allclose(of_text(plain, pairs), found, atol=1e-5)
    assert all(torch.equal(start[name], weight) for name, weight in bits(policy).items())
    assert torch.equal(of_text(policy, pairs), found)


def test_a_saved_policy_is_plain(policy, codec, pairs, tmp_path):
    names = policy.state_dict().keys()
    found = of_text(adapt(policy), pairs)
    save_policy(policy, codec, tmp_path)
    again = load_policy(tmp_path)
    assert again.state_dict().keys() == names
    assert torch.allclose(of_text(again, pairs), found, atol=1e-5)
    assert not (tmp_path / "adapter_config.json").exists()


def test_peft_loads_the_adapter_of_a_policy(policy, codec, pairs, tmp_path):
    base, own = tmp_path / "base", tmp_path / "adapter"
    save_policy(policy, codec, base)
    policy = adapt(load_policy(base))
    save_adapter(own, policy)
    assert json.loads((own / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base
    )
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), own)
    tokens = torch.tensor([pairs[0][0] + pairs[0][1]])
    found, expected = (model(input_ids=tokens).logits for model in (theirs, policy))
    assert torch.allclose(found, expected, atol=1e-5)


def test_peft_loads_the_adapter_of_a_reward_model(policy, codec, pairs, tmp_path):
    base, own = tmp_path / "base", tmp_path / "adapter"
    model = ScalarModel.from_policy(policy, seed=0)
    model.save(base, codec)
    adapt(model.backbone)
    with torch.no_grad():
        model.head.weight.normal_()
    save_adapter(own, model.backbone, model.head)
    theirs = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    theirs = PeftModel.from_pretrained(theirs, own)
    tokens = torch.tensor([pairs[0][0] + pairs[0][1]])
    expected = model.scores(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert torch.allclose(theirs(input_ids=tokens).logits[0], expected, atol=1e-5)


def test_a_saved_reward_model_is_plain(policy, codec, pairs, tmp_path):
    model = ScalarModel.from_policy(policy, seed=0)
    adapt(model.backbone)
    batch = ranking_batch([(prompt, [response, [7]], [1, 2]) for prompt, response in pairs])
    expected = model.ranking_scores(batch)
    model.save(tmp_path, codec)
    found = ScalarModel.load(tmp_path)
    assert not [name for name in found.state_dict() if "lora" in name]
    assert torch.allclose(found.ranking_scores(batch), expected, atol=1e-5)
    assert torch.equal(model.ranking_scores(batch), expected)


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_the_sampler_draws_from_the_adapted_policy(policy, codec, pairs, way):
    add_adapter(policy, 4, alpha=8)
    if way == "padded":
        policy.set_attn_implementation("sdpa")
    sampler = Decoder(policy, codec, batch_size=3)
    prompts, params = [prompt for prompt, _ in pairs], SamplingParams(max_tokens=9)
    before = sampler.sample(prompts, params, seed=0)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    found = sampler.sample(prompts, params, seed=0)
    assert found.tokens != before.tokens
    batch = text_batch(list(zip(prompts, found.tokens, strict=True)), 1)
    plain = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)
    sampled = torch.tensor([x for row in found.logprobs for x in row])
    assert torch.allclose(plain[batch.loss_mask], sampled, atol=1e-5)


def test_no_work_is_spent_on_the_gradient_of_a_frozen_head(make_policy, pairs):
    policy = make_policy("llama")
    shape = policy.get_output_embeddings().weight.shape

    def shapes_made(loss):
        with Shapes() as seen:
            loss.backward()
        return seen.shapes

    assert shape in shapes_made(of_text(policy, pairs).sum())
    add_adapter(policy, 4, alpha=8)
    assert shape not in shapes_made(of_text(policy, pairs).sum())
