"""The decoder's fast way: what it samples is what the plain way samples, and slots stay taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from instil.lm import sampling
from instil.lm.attention import exchange, packs
from instil.lm.dropout import without_dropout
from instil.lm.models import head_is_plain
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.slots import Slots
from instil.lm.text import Codec

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
}
FEWER = {**SHAPE, "num_key_value_heads": 2}  # key and value heads than heads

FAMILIES = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "gpt2": lambda: GPT2Config(
        vocab_size=300,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=None,
        eos_token_id=0,
    ),
    "qwen2": lambda: Qwen2Config(**FEWER),
    "qwen3": lambda: Qwen3Config(**FEWER, head_dim=16),
    "granite": lambda: GraniteConfig(**FEWER, logits_scaling=0.5),  # after the head
}
FREE = SamplingParams(max_tokens=12)
SETTINGS = [
    {},
    {"temperature": 0.7},
    {"temperature": 0.0},
    {"top_p": 0.8},
    {"top_k": 5},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.7},
]


def make(family):
    """A model whose predictions are far from uniform."""
    config = FAMILIES[family]()
    without_dropout(config)
    config.pad_token_id = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6)
    return model.eval()


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("llama", "gpt2")))
        for name in FAMILIES
    ],
    scope="module",
)
def both(request):
    """The same model twice: one that packs and one that does not."""
    fast, plain = make(request.param), make(request.param)
    exchange(fast)
    assert packs(fast) and not packs(plain)
    assert head_is_plain(fast) == (request.param != "granite")
    return fast, plain


@pytest.fixture(scope="module")
def llama():
    model = make("llama")
    exchange(model)
    return model


@pytest.fixture(scope="module")
def stopping(codec):
    """A codec with several end tokens, so that responses are of many lengths."""
    return Codec(codec.tokenizer, stop_ids=range(10, 30))


@pytest.fixture(scope="module")
def prompts():
    """Of many lengths, some of them several times."""
    noise = np.random.default_rng(1)
    distinct = [noise.integers(2, 300, n).tolist() for n in (7, 1, 30, 3, 7, 12, 20, 5, 1, 9)]
    return [*distinct, distinct[2], distinct[7], distinct[2], distinct[1], distinct[2]]


class Scripted(Decoder):
    """Ends each response where `lengths` says, and keeps who was drawn for at each step."""

    def __init__(self, model, codec, batch_size, lengths):
        super().__init__(model, codec, batch_size)
        self.lengths = torch.tensor(lengths)
        self.seen = []

    def pick(self, logits, params, uniform, rows, steps):
        self.seen.append(list(zip(rows.tolist(), steps.tolist(), strict=True)))
        tokens, found = super().pick(logits, params, uniform, rows, steps)
        tokens[torch.isin(tokens, torch.tensor(self.codec.eos_ids))] = 40
        tokens[steps + 1 == self.lengths[rows]] = self.codec.eos_id
        return tokens, found


class Elsewhere(str):
    """The processor under another name: the host looks at it as seldom as at any other device."""

    type = "elsewhere"


def assert_same(one, other):
    assert one.tokens == other.tokens
    assert one.ended == other.ended
    for a, b in zip(one.logprobs, other.logprobs, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def tokens_read(model, monkeypatch):
    """A list that grows by how many tokens each pass of a model reads."""
    found = []
    embedding = model.get_input_embeddings()
    own = embedding.forward
    monkeypatch.setattr(embedding, "forward", lambda ids: (found.append(ids.numel()), own(ids))[1])
    return found


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_fast_way_samples_what_the_plain_way_samples(both, stopping, prompts, settings):
    fast, plain = both
    params = SamplingParams(max_tokens=12, **settings)
    expected = Decoder(plain, stopping, batch_size=4).sample(prompts, params, seed=5)
    assert_same(Decoder(fast, stopping, batch_size=5).sample(prompts, params, seed=5), expected)
    if settings == {}:
        assert 0 < sum(expected.ended) < len(prompts)
        assert len({tokens[-1] for tokens in expected.tokens} & set(stopping.eos_ids)) > 1
        repeats = [expected.tokens[i] for i in (2, 10, 12, 14)]
        assert len(set(map(tuple, repeats))) == 4


def test_neither_batch_size_nor_order_changes_a_sample(both, stopping, prompts):
    fast, plain = both
    indices = sampling.occurrences(prompts)
    expected = Decoder(plain, stopping).sample(prompts, FREE, 6, indices)
    for batch_size in (1, 3, 8, 64):
        order = np.random.default_rng(batch_size).permutation(len(prompts))
        found = Decoder(fast, stopping, batch_size).sample(
            [prompts[i] for i in order], FREE, 6, [indices[i] for i in order]
        )
        for place, i in enumerate(order):
            assert found.tokens[place] == expected.tokens[i]
            assert found.ended[place] == expected.ended[i]
            assert found.logprobs[place] == pytest.approx(expected.logprobs[i], abs=1e-5)


@pytest.mark.parametrize(("batch_size", "most_free"), [(8, 0), (16, 1), (24, 2)])
def test_waiting_prompts_take_the_slots_of_those_that_ended(llama, codec, batch_size, most_free):
    # an eighth of the slots is refilled at once: up to most_free stand empty while prompts wait
    noise = np.random.default_rng(2)
    lengths = noise.integers(1, 13, 70).tolist()
    asked = [noise.integers(2, 300, n).tolist() for n in noise.integers(1, 30, 70)]
    decoder = Scripted(llama, codec, batch_size, lengths)
    samples = decoder.sample(asked, FREE, seed=0)
    assert [len(tokens) for tokens in samples.tokens] == lengths
    # nobody is decoded after its end, and nobody is left out
    every = [pair for step in decoder.seen for pair in step]
    assert sorted(every) == [(row, step) for row in range(70) for step in range(lengths[row])]
    waiting, fullest = 70, 0
    for step in decoder.seen:
        waiting -= sum(number == 0 for _, number in step)
        if waiting > most_free and all(number > 0 for _, number in step):
            assert batch_size - most_free <= len(step) <= batch_size
            fullest = max(fullest, len(step))
    assert fullest == batch_size


def test_a_host_that_looks_seldom_gets_the_same_samples(both, stopping, prompts, monkeypatch):
    fast, _ = both
    asked = [*prompts, [7] * 52]  # 52 + 12 tokens fill the context: what follows must not read more
    expected = Decoder(fast, stopping, batch_size=6).sample(asked, FREE, seed=8)
    monkeypatch.setattr(type(fast), "device", Elsewhere("cpu"))
    looks = []
    done = sampling._Written.done
    monkeypatch.setattr(
        sampling._Written, "done", lambda self, rows: (looks.append(len(rows)), done(self, rows))[1]
    )
    for look in (2, 5, 16):
        looks.clear()
        monkeypatch.setattr(sampling, "LOOK", look)
        assert_same(Decoder(fast, stopping, batch_size=6).sample(asked, FREE, seed=8), expected)
        looks.clear()
        every = Scripted(fast, stopping, len(asked), [12] * len(asked))
        every.sample(asked, FREE, seed=8)
        assert len(looks) == 1 + -(-11 // look)  # after the prompts, then at every LOOK-th step


def test_a_prompt_that_is_sampled_often_is_read_once(llama, codec, monkeypatch):
    asked = [[5, 6, 7, 8, 9], [10, 11]] * 4
    read = tokens_read(llama, monkeypatch)
    Scripted(llama, codec, 8, [3] * 8).sample(asked, FREE, seed=0)
    assert read == [5 + 2, 8, 8]  # then one token of each
    read.clear()
    Scripted(llama, codec, 4, [1] * 8).sample(asked, FREE, seed=0)  # all of one length are together
    assert read == [5, 2]


def test_long_prompts_are_read_in_several_passes(llama, codec, prompts, monkeypatch):
    expected = Decoder(llama, codec).sample(prompts, FREE, seed=9)
    read = tokens_read(llama, monkeypatch)
    for budget in (1, 20):
        monkeypatch.setattr(sampling, "PREFILL", budget)
        assert_same(Decoder(llama, codec).sample(prompts, FREE, seed=9), expected)
        read.clear()
        Scripted(llama, codec, 64, [1] * len(prompts)).sample(prompts, FREE, seed=9)
        if budget == 1:
            assert read == sorted(map(len, prompts), reverse=True)
        else:  # the four of 30 tokens have a pass each, the others share some
            assert read[:4] == [30] * 4 and max(read[4:]) <= 20
            assert len(read) < len(prompts)


def test_what_lay_in_the_memory_before_reaches_no_sample(both, stopping, prompts, monkeypatch):
    fast, _ = both
    expected = Decoder(fast, stopping, batch_size=4).sample(prompts, FREE, seed=10)
    cache = Slots.cache
    filled = []

    def dirty(self, layer, like):
        new = layer not in self._cache
        keys, values = cache(self, layer, like)
        if new:
            keys.fill_(torch.nan)
            values.fill_(1e30)  # finite, as slots.py wants it
            filled.append(layer)
        return keys, values

    monkeypatch.setattr(Slots, "cache", dirty)
    assert_same(Decoder(fast, stopping, batch_size=4).sample(prompts, FREE, seed=10), expected)
    assert filled == [0, 1]
