import copy
import gzip
import json
import math

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    GenerationConfig,
    OpenAIGPTConfig,
)

from instil.errors import InstilError
from instil.lm import head
from instil.lm.attention import packs
from instil.lm.batches import prompt_batch, rollout_batch, text_batch
from instil.lm.models import load_policy, logprobs, new_policy, read, save_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec

SHAPE = {"vocab_size": 300, "width": 32, "layers": 2, "heads": 2, "context": 64}


def plain_logprobs(model, prompt, response, temperature=1.0):
    """By the book: one sequence, all logits, log_softmax."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)[range(len(response)), response]


def of_rollout(model, pairs, pad_id, **more):
    """Logprobs in the layout of PPO: prompts padded left, responses padded right."""
    tokens, mask, response_mask = rollout_batch(*zip(*pairs, strict=True), pad_id)
    where = nn.functional.pad(response_mask, (tokens.shape[1] - response_mask.shape[1], 0))
    return logprobs(model, tokens, mask, where, **more)


def of_text(model, pairs, pad_id, **more):
    """Logprobs in the layout of SFT: everything padded right."""
    batch = text_batch(pairs, pad_id)
    return logprobs(model, batch.tokens, batch.mask, batch.loss_mask, **more)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("layout", [of_text, of_rollout])
def test_logprobs_in_any_batch_are_those_of_the_sequence_alone(policy, pairs, layout, temperature):
    whole = layout(policy, pairs, 1, temperature=temperature)
    for row, (prompt, response) in zip(whole, pairs, strict=True):
        expected = plain_logprobs(policy, prompt, response, temperature)
        assert torch.allclose(row[row != 0], expected, atol=1e-5)
        alone = layout(policy, [(prompt, response)], 1, temperature=temperature)
        assert torch.allclose(alone[alone != 0], expected, atol=1e-5)
    assert (whole != 0).sum() == sum(len(response) for _, response in pairs)


@torch.no_grad()
@pytest.mark.parametrize("way", ["packed", "padded"])
@pytest.mark.parametrize("left", [True, False])
def test_hidden_states_in_any_batch_are_those_of_the_sequence_alone(policy, pairs, way, left):
    if way == "padded":
        policy.set_attn_implementation("sdpa")
    rows = [[*prompt, *response] for prompt, response in pairs]
    batch = prompt_batch(rows, 1) if left else text_batch([([], row) for row in rows], 1)
    states, index = read(policy.base_model, batch.tokens, batch.mask)
    assert len(states) == (sum(map(len, rows)) if way == "packed" else batch.tokens.numel())
    for places, mask, ids in zip(index, batch.mask, rows, strict=True):
        expected = policy.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(states[places[mask]], expected, atol=1e-5)
        assert not places[~mask].any()


# prompts that come again in mixed order, one that stands alone, one that another begins with
REPEATED = [
    ([5, 6, 7], [8, 9, 10]),
    ([11], [12, 13]),
    ([5, 6, 7], [14]),
    ([5, 6], [15, 16, 17, 18]),
    ([11], [19]),
    ([5, 6, 7], [8, 9, 10]),
]


def tokens_read(model):
    """A list to which every pass over the model appends how many tokens it reads."""
    counts = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: counts.append(inputs[0].numel())
    )
    return counts


def test_equal_prompts_are_read_once_with_the_same_logprobs_and_gradients(policy):
    counts = tokens_read(policy)
    results = []
    for shared in (0, 3):
        policy.zero_grad()
        found, entropy, hits = of_rollout(policy, REPEATED, 1, measure=True, shared=shared)
        found.square().sum().backward()
        gradients = [weight.grad.clone() for weight in policy.parameters()]
        results.append(([found, entropy, hits], gradients))
    # responses have 14 tokens, prompts 3 + 1 + 3 + 2 + 1 + 3, of which 3 + 1 + 2 are different
    assert counts[-2:] == [14 + 13, 14 + 6]  # after the probe of the head
    for apart, together in zip(*(measured for measured, _ in results), strict=True):
        assert torch.allclose(apart, together, atol=1e-5)
    for apart, together in zip(*(gradients for _, gradients in results), strict=True):
        assert torch.allclose(apart, together, rtol=1e-4, atol=1e-5 * apart.abs().max())


def test_prompts_that_differ_are_read_as_if_nothing_was_shared(policy, pairs):
    found = [of_rollout(policy, pairs, 1, shared=shared) for shared in (0, 12)]
    assert torch.equal(*found)


def test_which_id_pads_makes_no_difference(make_policy, pairs):
    for architecture in ("llama", "gpt2"):
        same = make_policy(architecture, pad_id=0, eos_id=0)
        other = make_policy(architecture, pad_id=1, eos_id=0)
        ended = [(prompt, [*response, 0]) for prompt, response in pairs]
        results = []
        for model, pad_id in ((same, 0), (other, 1)):
            found = of_rollout(model, ended, pad_id)
            found.sum().backward()
            embedding = model.get_input_embeddings().weight
            scores = ScalarModel.from_policy(model, seed=0).scores(
                *rollout_batch(*zip(*ended, strict=True), pad_id)[:2]
            )
            results.append((found, embedding.detach(), embedding.grad, scores))
        for ours, theirs in zip(*results, strict=True):
            assert torch.equal(ours, theirs)
        assert results[0][2][0].abs().sum() > 0  # the end token learns though it is the padding


def test_the_end_token_is_trained_also_when_it_is_the_saved_padding(policy, codec, tmp_path):
    ended = [([5, 0, 7], [8, 0]), ([9], [10, 11, 0])]  # the end token is read and predicted
    of_text(policy, ended, 0).sum().backward()
    same = Codec(copy.deepcopy(codec.tokenizer))
    same.pad_id = same.eos_id
    save_policy(policy, same, tmp_path)
    loaded = load_policy(tmp_path)
    of_text(loaded, ended, 0).sum().backward()
    expected = policy.get_input_embeddings().weight.grad
    assert torch.equal(loaded.get_input_embeddings().weight.grad, expected)


def test_gradients_are_those_of_the_plain_computation(policy, pairs):
    of_rollout(policy, pairs, 1).sum().backward()
    ours = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    sum(plain_logprobs(policy, *pair).sum() for pair in pairs).backward()
    for found, weight in zip(ours, policy.parameters(), strict=True):
        assert torch.allclose(found, weight.grad, rtol=1e-4, atol=1e-4 * weight.grad.abs().max())


def test_no_more_logits_than_the_chunk_exist(policy, pairs, monkeypatch):
    whole, spread, hits = of_rollout(policy, pairs, 1, measure=True)
    whole.sum().backward()
    gradients = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    sizes = []
    logits = head._logits

    def counted(*given):
        sizes.append(logits(*given).numel())
        return logits(*given)

    monkeypatch.setattr(head, "_logits", counted)
    monkeypatch.setattr(head, "CHUNK", 4 * 300 + 7)
    chunked, spread_again, hits_again = of_rollout(policy, pairs, 1, measure=True)
    chunked.sum().backward()
    # 28 response tokens, 4 at a time, and once more on the way back
    assert sizes == [4 * 300] * 14
    assert torch.allclose(chunked, whole, atol=1e-6)
    assert torch.allclose(spread_again, spread, atol=1e-6)
    assert torch.equal(hits_again, hits)
    for found, weight in zip(gradients, policy.parameters(), strict=True):
        assert torch.allclose(found, weight.grad, rtol=1e-4, atol=1e-4 * weight.grad.abs().max())


def test_entropy_and_hits_are_those_of_the_prediction(policy, pairs):
    found, spread, hits = of_text(policy, pairs, 1, temperature=0.7, measure=True)
    assert torch.equal(found, of_text(policy, pairs, 1, temperature=0.7))
    prompt, response = pairs[0]
    logits = policy(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    assert torch.allclose(spread[0][found[0] != 0], expected, atol=1e-5)
    likeliest = logits.argmax(-1)
    assert hits[0][found[0] != 0].tolist() == (likeliest == torch.tensor(response)).tolist()
    best = [(prompt, likeliest.tolist()[:1])]
    assert of_text(policy, best, 1, measure=True)[2].sum() == 1
    assert ((spread != 0) == (found != 0)).all()


def test_what_cannot_be_predicted_is_refused(policy):
    tokens, mask = torch.tensor([[1, 5, 6]]), torch.tensor([[False, True, True]])
    with pytest.raises(ValueError, match="first token"):
        logprobs(policy, tokens, mask, mask)
    long = torch.full((1, 65), 5)
    with pytest.raises(InstilError, match="65 tokens does not fit the model's context of 64"):
        logprobs(policy, long, long > 0, torch.arange(65)[None] > 0)


GEMMA_2 = Gemma2Config(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=16,
    sliding_window=8,
    final_logit_softcapping=0.05,
)
"""Caps its logits, and those of attention too, and so has no fused attention."""


def of_config(config):
    """A model of transformers whose random weights are large enough for mistakes to show."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    return model


def test_an_architecture_that_caps_its_logits(pairs):
    model = of_config(GEMMA_2)
    found = of_rollout(model, pairs, 1)
    for row, pair in zip(found, pairs, strict=True):
        assert torch.allclose(row[row != 0], plain_logprobs(model, *pair), atol=1e-5)


def test_an_architecture_without_fused_attention_is_loaded_for_the_plain_way(
    pairs, codec, tmp_path, capsys
):
    theirs = of_config(GEMMA_2)
    save_policy(theirs, codec, tmp_path)
    ours = load_policy(tmp_path)
    assert ours.config._attn_implementation == "eager"
    assert capsys.readouterr().err.count("Gemma2ForCausalLM: its attention cannot be exch") == 1
    for row, pair in zip(of_rollout(ours, pairs, 1), pairs, strict=True):
        assert torch.allclose(row[row != 0], plain_logprobs(theirs, *pair), atol=1e-5)
    prompts = [prompt for prompt, _ in pairs]
    samples = Decoder(ours, codec).sample(prompts, SamplingParams(max_tokens=12), seed=0)
    for found, *pair in zip(samples.logprobs, prompts, samples.tokens, strict=True):
        assert torch.allclose(torch.tensor(found), plain_logprobs(theirs, *pair), atol=1e-5)


def test_the_attention_that_a_directory_asks_for_is_ignored(policy, codec, tmp_path):
    # it may name code that is not there, or that would have to be fetched
    save_policy(policy, codec, tmp_path)
    file = tmp_path / "config.json"
    asked = json.loads(file.read_text()) | {"attn_implementation": "flash_attention_2"}
    file.write_text(json.dumps(asked))
    assert packs(load_policy(tmp_path))


SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, intermediate_size=64, eos_token_id=0),  # its tokens look ahead
        OpenAIGPTConfig(vocab_size=300, n_embd=32, n_layer=2, n_head=2),  # has no cache
    ],
    ids=["bert", "openai-gpt"],
)
def test_an_architecture_that_cannot_be_sampled_from_is_refused(config, codec, tmp_path):
    save_policy(of_config(config), codec, tmp_path)
    with pytest.raises(InstilError, match=r"cannot go on from a cache.*such as Llama"):
        load_policy(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_named(value, codec, tmp_path):
    model = new_policy("llama", **SHAPE, seed=0, pad_id=1, eos_id=0)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    save_policy(model, codec, tmp_path)
    with pytest.raises(InstilError, match=r"layers\.1\.mlp\.up_proj\.weight has values that"):
        load_policy(tmp_path)


def test_a_new_policy_is_a_function_of_its_seed_and_leaves_the_world_alone():
    state = torch.get_rng_state()
    a = new_policy("llama", **SHAPE, seed=0, pad_id=1, eos_id=0)
    b = new_policy("llama", **SHAPE, seed=0, pad_id=1, eos_id=0)
    c = new_policy("llama", **SHAPE, seed=1, pad_id=1, eos_id=0)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.get_input_embeddings().weight for model in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.get_output_embeddings().weight is weights[0]  # tied
    assert (weights[0].abs().sum(1) > 0).all()  # also the rows of padding and end
    assert not a.training
    with pytest.raises(InstilError, match="'mamba' is neither"):
        new_policy("mamba", **SHAPE, seed=0, pad_id=1, eos_id=0)


def test_a_saved_policy_is_a_plain_hugging_face_directory(policy, codec, pairs, tmp_path):
    save_policy(policy, codec, tmp_path)
    assert "instil" not in (tmp_path / "config.json").read_text()  # the exchanged attention
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = load_policy(tmp_path)
    expected = of_text(policy, pairs, 1)
    assert torch.equal(of_text(ours, pairs, 1), expected)
    assert torch.allclose(plain_logprobs(theirs, *pairs[0]), expected[0][expected[0] != 0])
    generation = GenerationConfig.from_pretrained(tmp_path)
    assert (generation.eos_token_id, generation.pad_token_id) == (codec.eos_id, codec.pad_id)
    assert theirs.config.pad_token_id == codec.pad_id
    assert ours.config.pad_token_id is None  # in memory only masks say what is padding
    assert ours.dtype == torch.float32 and not ours.training
    assert Codec.load(tmp_path).encode_prompt("Hm?") == codec.encode_prompt("Hm?")
    save_policy(ours, Codec(codec.tokenizer, stop_ids=[7]), tmp_path / "again")
    assert Codec.load(tmp_path / "again").eos_ids == (codec.eos_id, 7)


def test_half_precision_is_loaded_as_fp32(policy, codec, tmp_path):
    save_policy(copy.deepcopy(policy).to(torch.bfloat16), codec, tmp_path)
    assert {weight.dtype for weight in load_policy(tmp_path).parameters()} == {torch.float32}


@pytest.mark.slow
def test_stories260k_has_its_published_loss(stories):
    """Its card: 1.4076 nats per token over 37,072 tokens of the first 100 stories."""
    codec, model = Codec.load(stories), load_policy(stories)
    sample = stories.parents[1] / "pretraining" / "tinystories_sample.txt.gz"
    with gzip.open(sample, "rt", encoding="utf-8") as file:
        texts = file.read().split("<|endoftext|>")
    texts = [text.strip() for text in texts if text.strip()][:100]
    rows = [([1], codec.encode_document(text)[1:-1][:511]) for text in texts]
    rows.sort(key=lambda row: len(row[1]))
    total = count = 0
    with torch.no_grad():
        for start in range(0, 100, 10):
            batch = text_batch(rows[start : start + 10], codec.pad_id)
            found = logprobs(model, batch.tokens, batch.mask, batch.loss_mask)
            total -= found.sum().item()
            count += int(batch.loss_mask.sum())
    assert (count, total / count) == (37_072, pytest.approx(1.4076, abs=1e-4))
