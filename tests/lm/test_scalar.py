"""scalar.py: scores and values, alone and in company, on disk and back."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen2Config,
    Qwen3Config,
)

from instil.errors import InstilError
from instil.lm import scalar
from instil.lm.batches import ranking_batch, rollout_batch, text_batch
from instil.lm.scalar import ScalarModel


def test_a_saved_reward_model_works_in_plain_transformers(policy, codec, pairs, tmp_path):
    ours = ScalarModel.from_policy(policy, seed=3)
    ours.shift(0.25)
    ours.save(tmp_path, codec)
    batch = text_batch(pairs, codec.pad_id)
    expected = ours.scores(batch.tokens, batch.mask)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.architectures[0].endswith("ForSequenceClassification")
    logits = theirs(input_ids=batch.tokens, attention_mask=batch.mask.long()).logits
    assert logits.shape == (len(pairs), 1)
    assert torch.allclose(logits[:, 0] + 0.25, expected, atol=1e-5)
    again = ScalarModel.load(tmp_path)
    assert torch.equal(again.scores(batch.tokens, batch.mask), expected)
    assert again.head.bias.item() == 0.25 and not again.training
    assert list(again.state_dict()) == list(ours.state_dict())
    again.save(tmp_path / "again", codec)
    assert ScalarModel.load(tmp_path / "again").head.bias.item() == 0.25


def test_a_score_is_the_value_at_the_last_token(policy, pairs):
    model = ScalarModel.from_policy(policy, seed=0)
    tokens, mask, response_mask = rollout_batch(*zip(*pairs, strict=True), 1)
    values, scores = model.values(tokens, mask), model.scores(tokens, mask)
    start = tokens.shape[1] - response_mask.shape[1]
    for row, (_, response) in enumerate(pairs):
        last = values[row, start + len(response) - 1].item()
        assert last == pytest.approx(scores[row].item(), abs=1e-5)
        ids = torch.tensor([[*pairs[row][0], *response]])
        alone = model.scores(ids, torch.ones_like(ids, dtype=torch.bool))
        assert alone.item() == pytest.approx(scores[row].item(), abs=1e-5)
    assert values.dtype == scores.dtype == torch.float32
    model.shift(2.0)
    assert torch.allclose(model.scores(tokens, mask), scores + 2, atol=1e-5)
    (values.sum() + scores.sum()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.head.parameters())
    assert all(weight.grad is not None for weight in model.backbone.parameters())


def test_a_new_head_is_small_and_its_backbone_a_copy(make_policy):
    policy = make_policy("llama", width=1024, layers=1)
    model = ScalarModel.from_policy(policy, seed=0)
    # 1/sqrt(1025) = 0.0312; its own standard error with 1024 draws is 2.2 %
    assert model.head.weight.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)
    assert model.head.bias.item() == 0
    assert torch.equal(ScalarModel.from_policy(policy, seed=0).head.weight, model.head.weight)
    assert not torch.equal(ScalarModel.from_policy(policy, seed=1).head.weight, model.head.weight)
    with torch.no_grad():
        model.backbone.get_input_embeddings().weight.zero_()
    assert policy.get_input_embeddings().weight.abs().sum() > 0


def test_a_classifier_with_two_labels_is_refused(make_policy, codec, tmp_path):
    ScalarModel.from_policy(make_policy("llama"), seed=0).save(tmp_path, codec)
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=2, ignore_mismatched_sizes=True
    )
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InstilError, match="has 2 labels; a reward model has one"):
        ScalarModel.load(tmp_path)


RANKED = [([5, 6, 7, 8], [[9, 10], [11], [12, 13, 14]], [1, 2, 3]), ([15], [[16, 17], [9]], [2, 1])]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "qwen3"])
def test_a_prompt_read_once_gives_the_scores_and_gradients_of_reading_it_every_time(
    family, make_policy, monkeypatch, capsys
):
    policy = make_policy(family) if family in ("llama", "gpt2") else small(family)
    model = ScalarModel.from_policy(policy, seed=1)
    batch = ranking_batch(RANKED, 1)
    there = batch.ranks > 0
    shared = model.ranking_scores(batch)[there]
    assert scalar._reads_masks(model.backbone) and not capsys.readouterr().err
    alone = torch.cat(
        [
            model.scores(tokens, torch.ones_like(tokens, dtype=torch.bool))
            for prompt, responses, _ in RANKED
            for tokens in [torch.tensor([prompt + response]) for response in responses]
        ]
    )
    assert torch.allclose(shared, alone, atol=1e-5)
    shared.square().sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    monkeypatch.setitem(model.backbone.__dict__, "reads_masks", False)
    apart = model.ranking_scores(batch)[there]
    assert torch.allclose(apart, alone, atol=1e-5)
    apart.square().sum().backward()
    others = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max())


def small(family):
    kind = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}[family]
    config = kind(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_backbone_that_ignores_masks_is_found_out(make_policy, capsys):
    model = ScalarModel.from_policy(make_policy("llama"), seed=1)
    forward = model.backbone.forward
    model.backbone.forward = lambda attention_mask=None, **more: forward(**more)
    batch = ranking_batch(RANKED, 1)
    scores = model.ranking_scores(batch)
    assert not scalar._reads_masks(model.backbone)
    assert "read apart" in capsys.readouterr().err
    expected = model.scores(*batch.apart())[:5]
    assert torch.allclose(scores[batch.ranks > 0], expected, atol=1e-6)
