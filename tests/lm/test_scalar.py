"""scalar.py: scores and values, alone and in company, on disk and back."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CodeGenConfig,
    CodeGenForCausalLM,
    Qwen2Config,
    Qwen3Config,
)

from instil.errors import InstilError
from instil.lm.attention import exchange
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


def gradients_of(model, numbers):
    return torch.autograd.grad(numbers.square().sum(), list(model.parameters()))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "qwen3"])
def test_a_prompt_read_once_gives_the_scores_and_gradients_of_reading_it_every_time(
    family, make_policy, capsys
):
    policy = make_policy(family) if family in ("llama", "gpt2") else small(family)
    model = ScalarModel.from_policy(policy, seed=1)
    batch = ranking_batch(RANKED)
    there = batch.ranks > 0
    shared = model.ranking_scores(batch)[there]
    alone = [
        model.scores(tokens, torch.ones_like(tokens, dtype=torch.bool))
        for prompt, responses, _ in RANKED
        for tokens in [torch.tensor([prompt + response]) for response in responses]
    ]
    assert torch.allclose(shared, torch.cat(alone), atol=1e-5)
    model.backbone.set_attn_implementation("sdpa")  # the plain twin
    apart = model.ranking_scores(batch)[there]
    assert torch.allclose(apart, torch.cat(alone), atol=1e-5)
    for one, other in zip(gradients_of(model, shared), gradients_of(model, apart), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max())
    assert not capsys.readouterr().err


def small(family):
    kind = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}[family]
    config = kind(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    exchange(model)
    return model


def tokens_read(model):
    """A list to which every pass over the model appends how many tokens it reads."""
    counts = []
    model.backbone.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: counts.append(inputs[0].numel())
    )
    return counts


def test_a_ranking_costs_its_prompt_and_its_responses_once(policy):
    model = ScalarModel.from_policy(policy, seed=1)
    counts = tokens_read(model)
    batch = ranking_batch(RANKED)
    model.ranking_scores(batch)
    model.backbone.set_attn_implementation("sdpa")
    model.ranking_scores(batch)
    # prompt + responses: 4 + 2 + 1 + 3 and 1 + 2 + 1; in the plain way six rows as wide as 4 + 3
    assert counts == [14, 42]


def test_a_sequence_fits_the_context_though_its_ranking_does_not(policy):
    model = ScalarModel.from_policy(policy, seed=1)  # its context is 64
    responses = [[9] * 14, [8] * 14, [7] * 14]
    scores = model.ranking_scores(ranking_batch([([5] * 50, responses, [1, 2, 3])]))
    assert scores.isfinite().all()
    for way in ("packed", "plain"):
        if way == "plain":
            model.backbone.set_attn_implementation("sdpa")
        with pytest.raises(InstilError, match="65 tokens does not fit the model's context of 64"):
            model.ranking_scores(ranking_batch([([5] * 51, responses, [1, 2, 3])]))


def test_values_of_equal_prompts_are_read_once(policy):
    model = ScalarModel.from_policy(policy, seed=1)
    prompts, responses = [[5, 6], [7], [5, 6], [7]], [[8], [9, 10], [11, 12, 13], [14]]
    tokens, mask, _ = rollout_batch(prompts, responses, 1)
    counts = tokens_read(model)
    apart, together = (model.values(tokens, mask, shared=shared)[mask] for shared in (0, 2))
    assert counts == [6 + 7, 3 + 7]  # prompts and responses
    assert torch.allclose(together, apart, atol=1e-5)
    for one, other in zip(gradients_of(model, together), gradients_of(model, apart), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max())


def test_what_could_not_be_saved_is_refused_before_it_is_trained():
    config = CodeGenConfig(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, rotary_dim=4
    )
    with pytest.raises(InstilError, match="no sequence classifier of a codegen"):
        ScalarModel.from_policy(CodeGenForCausalLM(config), seed=0)
