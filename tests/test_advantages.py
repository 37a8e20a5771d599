"""advantages.py: golden values worked out by hand, and properties that hold for any input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.advantages import explained_variance, gae, kl_k1, kl_k3, kl_shaped_rewards, whiten

seeds = st.integers(0, 2**31)
some_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lengths_mask(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def present(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def test_rewards_of_one_response():
    # log-ratios -1 + 1.5 = 0.5 and -2 + 1 = -1
    # first token -0.1 * 0.5 = -0.05; last token -0.1 * -1 + 2 = 2.1
    rewards = kl_shaped_rewards(
        torch.tensor([2.0]),
        torch.tensor([[-1.0, -2.0]]),
        torch.tensor([[-1.5, -1.0]]),
        present(1, 2),
        kl_coef=0.1,
    )
    assert rewards[0].tolist() == pytest.approx([-0.05, 2.1], abs=1e-6)


def test_the_score_lands_on_the_last_sampled_token():
    pad = eos = 0
    rows = [
        ([5, 6, eos], 2),  # ends after three tokens: on the end token
        ([5, 6, 7, 8], 3),  # cut at the limit, no end token: on the last token
        ([eos], 0),  # ends at once: on the end token, which is the first
        ([5, eos], 1),  # padding has the end token's id: still on the end token
    ]
    tokens = torch.tensor([row + [pad] * (4 - len(row)) for row, _ in rows])
    assert tokens[3].tolist() == [5, eos, eos, eos]
    mask = lengths_mask([len(row) for row, _ in rows], 4)
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rewards = kl_shaped_rewards(scores, torch.zeros(4, 4), torch.zeros(4, 4), mask, kl_coef=0.5)
    expected = torch.zeros(4, 4)
    for row, (_, place) in enumerate(rows):
        expected[row, place] = scores[row]
    assert torch.equal(rewards, expected)


eighths = st.integers(-80, 80).map(lambda k: k / 8)


@given(eighths, st.lists(st.tuples(eighths, eighths), min_size=1, max_size=6), st.integers(0, 3))
def test_rewards_sum_to_the_score_less_the_kl_exactly(score, pairs, padding):
    # eighths and a kl_coef of 1/4 make every number and sum exact in binary
    logprobs, ref = torch.tensor(pairs, dtype=torch.float64).T
    wide = [torch.nn.functional.pad(x, (0, padding), value=math.nan)[None] for x in (logprobs, ref)]
    mask = lengths_mask([len(pairs)], len(pairs) + padding)
    rewards = kl_shaped_rewards(torch.tensor([score]), *wide, mask, kl_coef=0.25)
    assert rewards.sum().item() == score - 0.25 * sum(a - b for a, b in pairs)
    assert rewards[~mask].abs().sum() == 0


def test_a_response_without_tokens_is_an_error():
    mask = torch.tensor([[True, False], [False, False]])
    zeros = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"rows \[1\] of the mask have no token"):
        kl_shaped_rewards(torch.zeros(2), zeros, zeros, mask, kl_coef=0.1)


def test_gae_of_three_tokens():
    # discount 0.9, lambda 0.8, so 0.72 carries over
    # delta:  3 - 1.5 = 1.5    2 + 0.9*1.5 - 1 = 2.35    1 + 0.9*1 - 0.5 = 1.4
    # advantage: 1.5    2.35 + 0.72*1.5 = 3.43    1.4 + 0.72*3.43 = 3.8696
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.0, 1.5]])
    advantages, returns = gae(rewards, values, present(1, 3), discount=0.9, lam=0.8)
    assert advantages[0].tolist() == pytest.approx([3.8696, 3.43, 1.5], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([4.3696, 4.43, 3.0], abs=1e-6)


@given(seeds, some_lengths)
def test_gae_with_lambda_and_discount_one_is_return_less_value(seed, lengths):
    mask = lengths_mask(lengths, 5)
    rewards, values = normal(seed, len(lengths), 5), normal(seed + 1, len(lengths), 5)
    advantages, returns = gae(rewards, values, mask, discount=1.0, lam=1.0)
    to_come = (rewards * mask).flip(1).cumsum(1).flip(1)
    assert torch.allclose(returns, to_come * mask, atol=1e-12)
    assert torch.allclose(advantages, (to_come - values) * mask, atol=1e-12)


def test_gae_with_lambda_zero_is_the_one_step_error():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 4.0]])
    # 1 + 0.5*4 - 0.5 = 2.5    2 + 0 - 4 = -2
    assert gae(rewards, values, present(1, 2), 0.5, 0.0)[0].tolist() == [[2.5, -2.0]]


@given(seeds, some_lengths, st.integers(0, 2), st.integers(0, 3))
def test_gae_of_a_padded_row_is_that_of_the_bare_row(seed, lengths, left, right):
    width = left + 5 + right
    rewards = torch.full((len(lengths), width), math.nan, dtype=torch.float64)
    values = rewards.clone()
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        here = slice(left, left + length)
        rewards[row, here], values[row, here] = normal(seed + row, 2, length)
        mask[row, here] = True
    advantages, returns = gae(rewards, values, mask, 0.9, 0.8)
    for row, length in enumerate(lengths):
        here = slice(left, left + length)
        bare = [x[row : row + 1, here] for x in (rewards, values, mask)]
        expected = gae(*bare, 0.9, 0.8)
        assert torch.equal(advantages[row, here], expected[0][0])
        assert torch.equal(returns[row, here], expected[1][0])
    assert advantages[~mask].abs().sum() == 0
    assert returns[~mask].abs().sum() == 0


def test_whitening_is_over_the_whole_batch_not_over_rows():
    # mean 1, variance 1 over the four tokens; row by row everything would be 0
    x = torch.tensor([[0.0, 0.0, 99.0], [2.0, 2.0, math.nan]])
    white = whiten(x, lengths_mask([2, 2], 3))
    assert white.tolist() == [[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]


@given(seeds, st.lists(st.integers(2, 5), min_size=1, max_size=4))
def test_whitened_tokens_have_mean_zero_and_variance_one(seed, lengths):
    mask = lengths_mask(lengths, 5)
    white = whiten(5 + 3 * normal(seed, len(lengths), 5), mask)[mask]
    assert white.mean().item() == pytest.approx(0.0, abs=1e-10)
    assert white.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)


def test_whitening_equal_numbers_gives_zeros_and_one_number_is_an_error():
    assert whiten(torch.full((1, 3), 7.0), present(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match=r"whitening 1 token\(s\)"):
        whiten(torch.zeros(1, 3), lengths_mask([1], 3))


def test_kl_estimators_of_one_token():
    # ratio 2: k1 = log 2 = 0.693147, k3 = 1/2 - 1 + log 2 = 0.193147
    logprobs, ref = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert kl_k1(logprobs, ref).item() == pytest.approx(0.693147, abs=1e-6)
    assert kl_k3(logprobs, ref).item() == pytest.approx(0.193147, abs=1e-6)


def test_both_estimators_have_the_kl_as_their_mean():
    # KL of (1/2, 1/2) to (1/4, 3/4): log 2 / 2 + log(2/3) / 2 = 0.346574 - 0.202733 = 0.143841
    logprobs, ref = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert (0.5 * kl_k1(logprobs, ref)).sum().item() == pytest.approx(0.143841, abs=1e-6)
    assert (0.5 * kl_k3(logprobs, ref)).sum().item() == pytest.approx(0.143841, abs=1e-6)


@given(
    st.lists(
        st.tuples(st.floats(-50, 0, width=32), st.floats(-(2**-10), 2**-10, width=32)), min_size=1
    ),
    st.sampled_from([1.0, 1e4]),
)
def test_k3_is_never_negative(tokens, scale):
    logprobs, gap = torch.tensor(tokens, dtype=torch.float32).T
    assert (kl_k3(logprobs, logprobs - scale * gap) >= 0).all()
    assert (kl_k3(logprobs, logprobs) == 0).all()


def test_explained_variance():
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 4.0, 99.0]]), lengths_mask([4], 5)
    # residuals 0, 0, 0, 1 have variance 1/4 - 1/16 = 0.1875; the returns have 1.25
    values = torch.tensor([[1.0, 2.0, 3.0, 3.0, 0.0]])
    assert explained_variance(returns, values, mask).item() == pytest.approx(1 - 0.1875 / 1.25)
    assert explained_variance(returns, returns + 5, mask).item() == 1.0
    assert explained_variance(returns, torch.zeros(1, 5), mask).item() == 0.0
    assert explained_variance(torch.ones(1, 5), values, mask).isnan()
