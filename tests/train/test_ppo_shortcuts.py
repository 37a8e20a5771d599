"""What PPO need not compute: a shared prompt for each of its samples, logprobs that it has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from instil.lm.attention import Packed
from instil.lm.sampling import Decoder
from instil.train import ppo

COLORS = ("red", "blue", "green", "pink")
NO_TEXT = torch.empty(0, 0, dtype=torch.long)


def prompts(n: int = 16) -> list[str]:
    return [f"What color {'?' * (i % 3)} {COLORS[i % 4]}" for i in range(n)]


def moved(config) -> ppo.Models:
    """Models whose policy has left the reference, so that nothing is 0 or 1 by chance."""
    models = ppo.load(config)
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in models.policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.05)
    return models


def tokens_read(model, monkeypatch) -> list[tuple[bool, int]]:
    """A list that grows with each pass of a model: whether it trains, and the tokens it reads."""
    found: list[tuple[bool, int]] = []
    embedding = model.get_input_embeddings()
    own = embedding.forward

    def counted(ids):
        found.append((model.training, ids.numel()))
        return own(ids)

    monkeypatch.setattr(embedding, "forward", counted)
    return found


@pytest.mark.parametrize("way", ["each apart", "padded"])
def test_a_prompt_with_several_samples_is_read_once_and_nothing_else_changes(
    ppo_config_of, monkeypatch, way
):
    more = {"lr": 0.5, "value_lr": 0.5, "warmup": 0, "micro_batch_tokens": 10_000}
    config = ppo_config_of(minibatch_size=16, **more)
    asked = [prompt for prompt in prompts(4) for _ in range(4)]
    whole = Packed.rows
    steps = []
    for shared in (True, False):
        models = moved(config)
        # Adam moves a weight as far for a gradient that is rounding as for any other
        models.policy_optimizer = torch.optim.SGD(models.policy.parameters(), lr=0.0)
        models.value_optimizer = torch.optim.SGD(models.value.parameters(), lr=0.0)
        with monkeypatch.context() as patch:
            if not shared and way == "each apart":
                apart = classmethod(lambda cls, tokens, mask, shared=0: whole(tokens, mask))
                patch.setattr(Packed, "rows", apart)
            elif not shared:
                scalars = (models.value.backbone, models.reward.model.backbone)
                for model in (models.policy, models.reference, *scalars):
                    model.set_attn_implementation("sdpa")
            read = tokens_read(models.policy, patch)
            found, _ = ppo.ppo_step(models, asked, NO_TEXT, config, 1)
        trained = sum(tokens for training, tokens in read if training)
        weights = [p for m in (models.policy, models.value) for p in m.parameters()]
        values = {name: x for name, x in found.items() if not name.startswith("time")}
        steps.append((values, weights, trained))
    (values, weights, trained), (other_values, other_weights, other_trained) = steps
    assert values == pytest.approx(other_values, rel=1e-5, abs=1e-6)
    for name in ("loss/policy_avg", "loss/value_avg"):
        assert values[name] == pytest.approx(other_values[name], rel=0, abs=1e-6)
    start = [p for m in (moved(config).policy, models.reward.model) for p in m.parameters()]
    for one, other, before in zip(weights, other_weights, start, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
        assert (one - before).abs().max() > 1e-3
    lengths = [len(models.codec.encode_prompt(prompt)) for prompt in asked]
    responses = round(16 * values["completions/mean_length"])
    assert trained == sum(lengths) / 4 + responses
    assert other_trained >= sum(lengths) + responses  # with padding more


@pytest.mark.parametrize(("off", "recomputed"), [(0.0, 0), (5e-4, 0), (5e-3, 1)])
def test_the_samplers_logprobs_are_taken_when_those_of_a_sixteenth_agree(
    ppo_config_of, monkeypatch, off, recomputed
):
    # up to 1e-3 nats is rounding, and over 0.01 the run stops (test_guards.py)
    config = ppo_config_of(batch_size=32, minibatch_size=16)
    models = moved(config)
    honest, _ = ppo.collect(models, prompts(32), config, 1, {})
    sample = Decoder.sample
    read = tokens_read(models.policy, monkeypatch)

    def shifted(*args, **kwargs):
        samples = sample(*args, **kwargs)
        read.clear()  # what follows is the trainer's
        return replace(samples, logprobs=[[x - off for x in row] for row in samples.logprobs])

    monkeypatch.setattr(Decoder, "sample", shifted)
    found: ppo.Metrics = {}
    rollout, _ = ppo.collect(models, prompts(32), config, 1, found)
    assert found["rollout/recomputed"] == recomputed
    assert found["rollout/max_abs_dlogp"] == pytest.approx(off, abs=1e-4)
    assert found["rollout/train_kl"] == pytest.approx(-off, abs=1e-4)
    mask = rollout.sequences.response_mask
    expected = honest.logprobs if recomputed else honest.logprobs - off
    assert torch.allclose(rollout.logprobs[mask], expected[mask], rtol=0, atol=1e-5)
    lengths = rollout.sequences.attention_mask.sum(1)
    tokens = sum(count for _, count in read)
    if recomputed:
        assert tokens >= mask.sum()  # every response
    else:
        assert 0 < tokens <= lengths.topk(2).values.sum()  # two of 32
