"""Shapes stand for models, and their memory is counted as that of real ones."""

from __future__ import annotations

import copy

import pytest
import torch

from instil.lm.batches import text_batch
from instil.lm.models import load_policy
from instil.lm.scalar import ScalarModel
from instil.train import fit
from instil.train.memory import MemoryConfig, prepare
from instil.train.pretrain import text_loss
from instil.train.trace import LARGE, Tracer, tracing


def test_memory_counts_until_it_is_given_back():
    with Tracer() as tracer:
        kept = torch.zeros(1000)
        assert tracer.now == 4000
        with tracer.phase(vocabulary=50) as peak:
            view = kept[:10]
            assert tracer.now == 4000  # a view is no memory of its own
            logits = torch.zeros(10, 50)
            del logits
            other = torch.zeros(250)
            del other
        assert tracer.now == 4000 and len(view) == 10
        assert (peak.every, peak.logits) == (2000, 2000)
        with tracer.holding(5 * LARGE, LARGE):
            assert tracer.now == 4000 + 5 * LARGE
    assert tracer.now == 4000
    assert tracer.small == 6000 and tracer.large == 5 * LARGE


def test_a_model_of_shapes_is_the_model_without_numbers(world):
    real = load_policy(world.root / "base" / "final")
    size = sum(p.numel() * p.element_size() for p in real.parameters())
    with tracing() as tracer:
        shape = load_policy(world.root / "base" / "final")
        # its buffers too, a few numbers for positions
        assert size <= tracer.now < size + 1000
        again = copy.deepcopy(shape)
        assert 2 * size <= tracer.now < 2 * size + 2000
    for model in (shape, again):
        assert {n: p.shape for n, p in model.named_parameters()} == {
            n: p.shape for n, p in real.named_parameters()
        }
        assert model.device == real.device
        assert model.config._attn_implementation == real.config._attn_implementation
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    load_policy(world.root / "base" / "final")(input_ids=torch.tensor([[1]])).logits.sum().item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"activation_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"lora_rank": 4}, marks=pytest.mark.slow),
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_traced_step_takes_what_a_real_one_takes(world, settings):
    config = MemoryConfig(**settings)
    batch = text_batch([([1] * 9, [2] * 5), ([1] * 4, [2] * 30)], 0)

    def step(model):
        chosen = {
            "optimizer": fit.adam(
                [p for p in model.parameters() if p.requires_grad], 1e-3, (0.9, 0.9)
            )
        }
        method = fit.Method(
            name="x",
            steps=1,
            batches=lambda step: [batch],
            loss=text_loss(model, measure=True),
            tokens=lambda batch: 1,
        )
        for _ in range(2):
            fit._improve(model, chosen, method, 0, 1e-3, 1.0)
        return chosen

    found = []
    for way in (tracing, Tracer):
        with way() as tracer:
            model = load_policy(world.root / "base" / "final", precision=config.precision)
            prepare(model, config, 0)
            with tracer.phase(model.config.vocab_size) as peak:
                kept = step(model)
            found.append((peak.every, peak.logits))
            del kept, model
    shapes, real = found
    assert shapes[1] == real[1]
    assert shapes[0] == pytest.approx(real[0], rel=0.01)


def test_masks_choose_as_they_do_in_a_real_pass(world):
    with tracing():
        model = ScalarModel.from_policy(world.root / "base" / "final", seed=0)
        tokens = torch.tensor([[1, 2, 3], [1, 2, 0]])
        values = model.values(tokens, tokens > 0)
        assert values[tokens > 0].shape == (5,)
        assert torch.allclose(values, values + 1)  # what is not known is taken to be so
        assert values.sum().item() == 1
