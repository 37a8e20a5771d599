"""attention.py: sequences side by side are read as each of them alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from instil.lm import attention
from instil.lm.attention import Packed, exchange, hidden_states, one_by_one, packs, side_by_side
from instil.lm.batches import rollout_batch, text_batch
from instil.lm.dropout import without_dropout
from instil.lm.models import logprobs

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
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE, rotary_pct=0.5),
    "opt": lambda: OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32),
}


def make(config, implementation="sdpa"):
    """A model in float64 whose predictions are far from uniform."""
    without_dropout(config)
    config.pad_token_id = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4)
    return model.double().eval()


@pytest.fixture(params=FAMILIES)
def model(request):
    model = make(FAMILIES[request.param]())
    exchange(model)
    assert packs(model)
    return model


PIECES = [[5, 6, 7], [8, 9], [10], [11, 12, 13, 14], [15], [16, 17, 18], [19, 20], [21]]
PARENTS = [-1, 0, 0, -1, -1, 4, 4, -1]  # two prompts with two responses each, two that stand alone


def alone(piece: int) -> list[int]:
    """A piece and what it continues."""
    return (PIECES[PARENTS[piece]] if PARENTS[piece] >= 0 else []) + PIECES[piece]


def plain_states(model, tokens: list[int]):
    return model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0]


def near(found, expected):
    return torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def check_gradients(model, found, expected):
    """Two losses have the same gradient for every weight, up to the norms of Llama and Qwen, which
    are in fp32 whatever the model is."""
    weights = list(model.base_model.parameters())
    pairs = zip(*(torch.autograd.grad(loss, weights) for loss in (found, expected)), strict=True)
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 + 1e-6 * theirs.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("parents", [[], PARENTS], ids=["alone", "continued"])
def test_packed_pieces_are_read_as_each_sequence_alone(model, parents):
    packed = Packed.of(PIECES, parents)
    found = hidden_states(model.base_model, packed).split(packed.lengths)
    for number, piece in enumerate(PIECES):
        expected = plain_states(model, alone(number) if parents else piece)[-len(piece) :]
        assert near(found[number], expected)


@pytest.mark.parametrize("way", ["sft", "ppo", "ppo, prompts shared"])
@pytest.mark.parametrize("pad_id", [0, 1])  # 0 is the end token, too
def test_loss_and_gradient_of_a_batch_are_those_of_its_sequences_alone(model, way, pad_id):
    pairs = [([5, 6, 7], [8, 0]), ([9], [10, 11, 12, 0]), ([5, 6, 7], [13]), ([9], [0])]
    if way == "sft":
        batch = text_batch(pairs, pad_id)
        found = logprobs(model, batch.tokens, batch.mask, batch.loss_mask)
    else:
        tokens, mask, where = rollout_batch(*zip(*pairs, strict=True), pad_id)
        width = tokens.shape[1] - where.shape[1]
        where = torch.nn.functional.pad(where, (width, 0))
        found = logprobs(model, tokens, mask, where, shared=width if "shared" in way else 0)
    expected = []
    for prompt, response in pairs:
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        expected.append(log_softmax(logits, -1)[range(len(response)), response])
    assert near(found[found != 0], torch.cat(expected))
    check_gradients(model, found.square().sum(), torch.cat(expected).square().sum())


@torch.no_grad()
@pytest.mark.parametrize(
    ("changed", "readers"),
    [(0, {0, 1, 2}), (1, {1}), (2, {2}), (3, {3}), (4, {4, 5, 6}), (6, {6}), (7, {7})],
)
def test_a_changed_token_changes_only_what_may_read_it(model, changed, readers):
    before = Packed.of(PIECES, PARENTS)
    pieces = [[*piece] for piece in PIECES]
    pieces[changed][-1] = 99
    after = Packed.of(pieces, PARENTS)
    states = [hidden_states(model.base_model, packed) for packed in (before, after)]
    differs = (states[0] != states[1]).any(-1).split(before.lengths)
    assert {number for number, found in enumerate(differs) if found.any()} == readers
    assert not differs[changed][:-1].any()  # nor what stands before it


def random_attention(*pieces: int):
    """Queries, keys, values of so many tokens; half as many key heads as query heads."""
    noise = torch.Generator().manual_seed(1)
    return [
        torch.randn(1, heads, sum(pieces), 8, generator=noise, dtype=torch.float64)
        for heads in (4, 2, 2)
    ]


@pytest.mark.parametrize("parents", [[], PARENTS, [-1, 0, 0, 0, 0, 0, 0, 0]])
def test_both_ways_of_attention_are_the_same(parents):
    packed = Packed.of(PIECES, parents)
    inputs = [x.requires_grad_() for x in random_attention(*packed.lengths)]
    found = [way(packed, *inputs, 0.3) for way in (one_by_one, side_by_side)]
    assert near(*found)
    gradients = [torch.autograd.grad(read.square().sum(), inputs) for read in found]
    assert all(near(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("way", [one_by_one, side_by_side])
def test_autocast_attention_is_in_low_precision_also_when_queries_are_not(way):
    # rotary positions leave queries and keys in fp32
    packed = Packed.of(PIECES, PARENTS)
    query, key, value = (x.float() for x in random_attention(*packed.lengths))
    with torch.autocast("cpu", torch.bfloat16):
        assert way(packed, query, key, value.bfloat16(), 0.3).dtype == torch.bfloat16


@pytest.mark.parametrize("way", [one_by_one, side_by_side])
def test_autocast_logprobs_are_float32_and_near(model, way, monkeypatch):
    monkeypatch.setattr(attention, "one_by_one", way)  # the way of a CPU, or that of a GPU
    model.float()
    pairs = [([5, 6, 7], [8, 0]), ([9], [10, 11, 12, 0]), ([5, 6, 7], [13])]
    tokens, mask, where = rollout_batch(*zip(*pairs, strict=True), 0)
    where = torch.nn.functional.pad(where, (3, 0))
    expected = logprobs(model, tokens, mask, where, shared=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = logprobs(model, tokens, mask, where, shared=3)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.1)
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())


@pytest.mark.parametrize("way", [one_by_one, side_by_side])
def test_pieces_without_tokens_are_nothing(way):
    whole, gaps = Packed.of([[1, 2], [3]]), Packed.of([[], [1, 2], [], [3]], [-1, 0, 0, 0])
    inputs = random_attention(3)
    assert near(way(gaps, *inputs, 0.3), way(whole, *inputs, 0.3))


def test_packed_rows_by_hand():
    # the first row is padded left, the second right, the third not at all
    tokens = torch.tensor([[0, 5, 6], [7, 0, 0], [8, 0, 9]])
    mask = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1]]) > 0
    packed, index = Packed.rows(tokens, mask)
    assert packed.tokens.tolist() == [5, 6, 7, 8, 0, 9]
    assert packed.positions.tolist() == [0, 1, 0, 0, 1, 2]
    assert (packed.lengths, packed.parents) == ((2, 1, 3), (-1, -1, -1))
    assert index.tolist() == [[0, 0, 1], [2, 0, 0], [3, 4, 5]]


def test_packed_rows_with_shared_columns_by_hand():
    # rows 0 and 2 have the prompt 5 6, row 1 the prompt 6; their order comes back in the index
    tokens = torch.tensor([[5, 6, 1, 2], [0, 6, 3, 0], [5, 6, 4, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]]) > 0
    packed, index = Packed.rows(tokens, mask, shared=2)
    assert packed.tokens.tolist() == [5, 6, 1, 2, 4, 6, 3]
    assert packed.positions.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert (packed.lengths, packed.parents) == ((2, 2, 1, 1, 1), (-1, 0, 0, -1, 3))
    assert index.tolist() == [[0, 1, 2, 3], [0, 5, 6, 0], [0, 1, 4, 0]]


def test_a_sliding_window_that_holds_the_context_is_none(capsys):
    wide = make(MistralConfig(**FEWER, sliding_window=64))
    exchange(wide)
    assert packs(wide)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**FEWER, sliding_window=8),
        FalconConfig(**SHAPE, alibi=False),  # its layers do not look their attention up
        Lfm2Config(**FEWER, layer_types=["conv", "full_attention"]),  # reads over the boundaries
    ],
    ids=["mistral", "falcon", "lfm2"],
)
def test_what_cannot_be_packed_says_so_once_and_is_right_in_padded_batches(config, capsys):
    model = make(config)
    exchange(model)
    assert not packs(model)
    assert capsys.readouterr().err.count("its attention cannot be exchanged") == 1
    prompt, response = [5, 6, 7], list(range(30, 50))  # longer than the window
    tokens, mask, where = rollout_batch([prompt, [9]], [response, [10]], 0)
    where = torch.nn.functional.pad(where, (len(prompt), 0))
    found = logprobs(model, tokens, mask, where, shared=len(prompt))
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, 2:-1]
    expected = log_softmax(logits, -1)[range(len(response)), response]
    assert torch.allclose(found[0, 3:], expected, atol=1e-6)
    assert not capsys.readouterr().err


def test_another_attention_than_the_fused_one_is_kept(capsys):
    model = make(FAMILIES["llama"](), implementation="eager")
    exchange(model)
    assert model.config._attn_implementation == "eager"
    assert "its attention cannot be exchanged" in capsys.readouterr().err


@torch.no_grad()
def test_generate_of_transformers_still_reads_padded_prompts(model):
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12]]
    tokens, mask, _ = rollout_batch(prompts, [[]] * 3, 0)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    found = model.generate(tokens, attention_mask=mask.long(), **settings)[:, 5:]
    for prompt, continued in zip(prompts, found.tolist(), strict=True):
        for _ in range(8):
            logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
            prompt = [*prompt, int(logits.argmax())]
        assert prompt[-8:] == continued


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_gradient_checkpointing_gives_the_same_gradients(model, monkeypatch):
    packed = Packed.of(PIECES, PARENTS)
    plain = hidden_states(model.base_model, packed).square().sum()
    reads = []
    monkeypatch.setattr(
        attention, "one_by_one", lambda *given: reads.append(1) or one_by_one(*given)
    )
    model.gradient_checkpointing_enable()
    model.train()
    again = hidden_states(model.base_model, packed).square().sum()
    assert len(reads) == 2
    check_gradients(model, again, plain)
    assert len(reads) == 4  # both layers were read again on the way back


def test_a_piece_that_nobody_reads_fills_up_the_row(model):
    pieces = [[1 + i + j for j in range(30 + i)] for i in range(8)]
    packed = Packed.of(pieces, [-1, 0, 0, -1, -1, -1, -1, -1])
    filled = packed.filled()
    assert len(packed.tokens) == 268
    assert len(filled.tokens) == len(filled.positions) == sum(filled.lengths) == 320
    found = hidden_states(model.base_model, filled)[:268]
    torch.testing.assert_close(found, hidden_states(model.base_model, packed))
    for other in (Packed.of(pieces[:7]), Packed.of([[1] * 60] * 5), filled):  # 231 tokens, 300, 320
        assert other.filled() is other
