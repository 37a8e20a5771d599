"""losses.py: golden values worked out by hand, and properties that hold for any input."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn.functional import pad

from instil.losses import (
    dpo_loss,
    fitted_weight,
    lm_loss,
    masked_mean,
    pair_shares,
    ppo_policy_loss,
    ppo_value_loss,
    ranking_accuracy,
    ranking_loss,
    token_logprobs,
    value_clip_fraction,
)

seeds = st.integers(0, 2**31)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def lengths_mask(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def random_ranks(seed, prompts, responses):
    """Ranks with ties and padding; some prompts have no pair at all."""
    return torch.randint(0, 4, (prompts, responses), generator=generator(seed))


def policy_loss(logprobs, old, advantages, mask, total=None):
    return ppo_policy_loss(logprobs, old, advantages, mask, 0.2, total)[0]


def value_loss(values, old, returns, mask, total=None):
    return ppo_value_loss(values, old, returns, mask, 0.2, total)


def lm(logprobs, _old, _other, mask, total=None):
    return lm_loss(logprobs, mask, total)


TOKEN_LOSSES = [lm, policy_loss, value_loss]


def loss_and_gradient(loss, x, *rest, **named):
    x = x.clone().requires_grad_()
    value = loss(x, *rest, **named)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


def test_masked_mean_divides_by_the_count_at_hand_or_by_the_total():
    x, mask = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])
    assert masked_mean(x, mask).item() == 2.0  # (1 + 3) / 2
    assert masked_mean(x, mask, 8).item() == 0.5  # (1 + 3) / 8
    assert masked_mean(x, mask, torch.tensor(16)).item() == 0.25


@pytest.mark.parametrize("total", [None, 0, 0.0, torch.tensor(0), 5])
def test_nothing_present_gives_zero_and_no_nan_gradient(total):
    nothing = torch.zeros(3, dtype=torch.bool)
    loss, gradient = loss_and_gradient(masked_mean, torch.ones(3), nothing, total=total)
    assert loss.item() == 0.0
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_token_logprobs_of_a_known_softmax():
    logits = torch.tensor([[0.0, math.log(3.0)]] * 2)
    # softmax = (1/4, 3/4)
    got = token_logprobs(logits, torch.tensor([0, 1]))
    assert got.tolist() == pytest.approx([-1.386294, -0.287682], abs=1e-6)
    # at temperature 0.5 the logits are 0 and 2 log 3 = log 9: softmax = (1/10, 9/10)
    got = token_logprobs(logits, torch.tensor([0, 1]), temperature=0.5)
    assert got.tolist() == pytest.approx([-2.302585, -0.105361], abs=1e-6)


def test_token_logprobs_are_float32_for_half_precision_logits():
    # 60 equal logits: log(1/60) = -4.094345; bfloat16 could only say -4.09375
    got = token_logprobs(torch.full((60,), 7.0, dtype=torch.bfloat16), torch.tensor(3))
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(-4.094345, abs=1e-6)


def test_token_logprobs_keep_the_leading_shape_and_ignore_a_shift():
    logits = normal(0, 2, 3, 5)
    tokens = torch.randint(0, 5, (2, 3), generator=generator(1))
    got = token_logprobs(logits, tokens)
    assert got.shape == (2, 3)
    assert torch.allclose(got, token_logprobs(logits + 1000.0, tokens), atol=1e-10)


def test_greedy_has_no_logprobs():
    with pytest.raises(ValueError, match=r"temperature 0.0 is not positive"):
        token_logprobs(torch.zeros(2), torch.tensor(0), temperature=0.0)


def test_lm_loss_is_the_mean_over_tokens_not_over_sequences():
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-10.0, -99.0, -99.0]])
    # (1 + 2 + 3 + 10) / 4 tokens = 4; a mean of the rows' means would be (2 + 10) / 2 = 6
    assert lm_loss(logprobs, lengths_mask([3, 1], 3)).item() == 4.0


def test_ranking_loss_of_three_responses():
    # scores 2, 0, 1 ranked 1st, 3rd, 2nd: the pairs have margins 2-0, 2-1 and 1-0
    # -log sigmoid(2) = 0.126928    -log sigmoid(1) = 0.313262, twice
    # (0.126928 + 0.313262 + 0.313262) / 3 = 0.251151
    loss = ranking_loss(torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1, 3, 2]]))
    assert loss.item() == pytest.approx(0.251151, abs=1e-6)


def test_a_tie_makes_no_pair():
    tied = ranking_loss(torch.tensor([[5.0, -5.0, 1.0]]), torch.tensor([[1, 1, 2]]))
    # pairs left: (5, 1) and (-5, 1): -log sigmoid(4) = 0.018150, -log sigmoid(-6) = 6.002476
    assert tied.item() == pytest.approx((0.018150 + 6.002476) / 2, abs=1e-5)


def test_a_prompt_with_many_pairs_weighs_as_much_as_one_with_few():
    scores = torch.tensor([[2.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
    ranks = torch.tensor([[1, 3, 2], [1, 2, 0]])
    # three pairs with mean 0.251151 (above), one pair with -log sigmoid(4) = 0.018150
    expected = (0.251151 + 0.018150) / 2
    assert ranking_loss(scores, ranks).item() == pytest.approx(expected, abs=1e-6)
    # a third prompt, all tied, changes nothing: it has no pair
    scores = torch.cat([scores, torch.tensor([[9.0, 1.0, 1.0]])])
    ranks = torch.cat([ranks, torch.tensor([[1, 1, 1]])])
    assert ranking_loss(scores, ranks).item() == pytest.approx(expected, abs=1e-6)


def test_a_batch_of_ties_has_loss_zero():
    assert ranking_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 1]])).item() == 0.0


@given(seeds, st.integers(1, 6), st.integers(2, 9))
def test_ranking_loss_is_the_brute_force_mean(seed, prompts, responses):
    scores, ranks = 20 * normal(seed, prompts, responses), random_ranks(seed, prompts, responses)
    means = []
    for row, order in zip(scores.tolist(), ranks.tolist(), strict=True):
        pairs = [
            math.log1p(math.exp(-abs(a - b))) + max(b - a, 0.0)  # log(1 + exp(-(a - b)))
            for a, rank_a in zip(row, order, strict=True)
            for b, rank_b in zip(row, order, strict=True)
            if 0 < rank_a < rank_b
        ]
        if pairs:
            means.append(sum(pairs) / len(pairs))
    expected = sum(means) / len(means) if means else 0.0
    assert ranking_loss(scores, ranks).item() == pytest.approx(expected, abs=1e-10)


@given(seeds, st.integers(2, 4))
def test_copies_of_a_response_set_weigh_as_one_prompt(seed, copies):
    scores, ranks = normal(seed, 2, 4), torch.tensor([[1, 2, 3, 3], [2, 1, 0, 0]])
    # every pair of the first prompt now occurs copies^2 times; its mean, and its weight, stay
    padding = (0, 4 * (copies - 1))
    many = [torch.cat([x[:1].repeat(1, copies), pad(x[1:], padding)]) for x in (scores, ranks)]
    assert ranking_loss(*many).item() == pytest.approx(
        ranking_loss(scores, ranks).item(), abs=1e-12
    )


@given(seeds)
def test_padding_changes_neither_ranking_loss_nor_gradient(seed):
    scores, ranks = normal(seed, 3, 4), random_ranks(seed, 3, 4)
    padding = torch.tensor([[math.nan, math.inf, 7.0]] * 3, dtype=torch.float64)
    wide = torch.cat([scores, padding], dim=1)
    wide_ranks = pad(ranks, (0, 3))
    loss, gradient = loss_and_gradient(ranking_loss, scores, ranks)
    padded_loss, padded_gradient = loss_and_gradient(ranking_loss, wide, wide_ranks)
    assert padded_loss.item() == pytest.approx(loss.item(), abs=1e-14)
    assert torch.allclose(padded_gradient[:, :4], gradient, atol=1e-14)
    assert padded_gradient[:, 4:].abs().max() == 0


@given(seeds, st.integers(1, 5))
def test_ranking_loss_does_not_depend_on_the_micro_batch_split(seed, cut):
    scores, ranks = normal(seed, 6, 4), random_ranks(seed, 6, 4)
    prompts = (ranking_accuracy(scores, ranks)[1] > 0).sum()
    whole, gradient = loss_and_gradient(ranking_loss, scores, ranks)
    parts = [
        loss_and_gradient(ranking_loss, scores[rows], ranks[rows], total=prompts)
        for rows in (slice(cut), slice(cut, None))
    ]
    assert sum(loss for loss, _ in parts).item() == pytest.approx(whole.item(), abs=1e-12)
    assert torch.allclose(torch.cat([part for _, part in parts]), gradient, atol=1e-12)


def test_ranking_accuracy_counts_right_pairs_and_half_of_equal_scores():
    scores = torch.tensor([[3.0, 1.0, 1.0, 9.0], [0.0, 1.0, 2.0, 3.0]])
    ranks = torch.tensor([[1, 2, 3, 0], [1, 1, 2, 3]])
    # first: 3>1 right, 3>1 right, 1=1 half -> 2.5 of 3; the fourth is padding
    # second: (0, 2), (0, 3), (1, 2), (1, 3), (2, 3) all the wrong way round; the tie is no pair
    correct, pairs = ranking_accuracy(scores, ranks)
    assert correct.tolist() == [2.5, 0.0]
    assert pairs.tolist() == [3.0, 5.0]


def test_the_weight_of_a_feature_that_is_right_in_three_of_four_pairs():
    # margins +2 three times and -2 once: sigmoid(2 w) = 3/4, so w = log(3) / 2
    feature = torch.tensor([[2.0, 0.0, 9.0], [5.0, 3.0, 9.0], [0.0, -2.0, 9.0], [0.0, 2.0, 9.0]])
    ranks = torch.tensor([[1, 2, 0]] * 4)
    assert fitted_weight(feature, ranks) == pytest.approx(math.log(3) / 2, abs=1e-6)
    assert fitted_weight(-100 * feature, ranks) == pytest.approx(-math.log(3) / 200, abs=1e-8)
    for alike in (feature[:3], -feature[:3], torch.ones(3, 3)):
        with pytest.raises(ValueError, match="orders all pairs alike"):
            fitted_weight(alike, ranks[:3])


def test_pair_shares_by_hand():
    # 3 responses: pairs (a b) (a c) (b c). With the tie b = c: (a b) (a c). The last has no pair.
    ranks = torch.tensor([[1, 2, 3], [1, 2, 2], [2, 2, 0]])
    better, worse = pair_shares(ranks)
    third = 1 / 3
    assert better.flatten().tolist() == pytest.approx([2 * third, third, 0, 1, 0, 0, 0, 0, 0])
    assert worse.flatten().tolist() == pytest.approx([0, third, 2 * third, 0, 0.5, 0.5, 0, 0, 0])


def test_dpo_loss_of_one_pair():
    # log-ratios: chosen -1 + 2 = 1, rejected -3 + 2 = -1; margin 0.5 * 2 = 1
    # -log sigmoid(1) = 0.313262
    logprobs, reference = torch.tensor([[-1.0, -3.0]]), torch.tensor([[-2.0, -2.0]])
    one = logprobs, reference, torch.tensor([[1, 2]])
    loss, rewards = dpo_loss(*one, beta=0.5)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert rewards.tolist() == [[0.5, -0.5]]
    assert dpo_loss(*one, beta=0.5, total=4)[0].item() == pytest.approx(0.313262 / 4, abs=1e-6)
    # a tenth of the labels wrong: 0.9 * 0.313262 + 0.1 * -log sigmoid(-1) = 0.1 * 1.313262
    smooth, _ = dpo_loss(*one, beta=0.5, label_smoothing=0.1)
    assert smooth.item() == pytest.approx(0.413262, abs=1e-6)


def test_dpo_loss_of_rankings_with_a_tie_and_padding():
    # rewards at beta 0.1: 2 0 1 ranked 1 3 3 (the tie makes no pair), and 4 0 with padding
    # first: margins 2 and 1, (0.126928 + 0.313262) / 2 = 0.220095; second: margin 4, 0.018150
    reference = torch.tensor([[-50.0, -40.0, -30.0], [-7.0, -9.0, math.nan]])
    logprobs = reference + torch.tensor([[20.0, 0.0, 10.0], [40.0, 0.0, math.inf]])
    ranks = torch.tensor([[1, 3, 3], [1, 2, 0]])
    loss, _ = dpo_loss(logprobs, reference, ranks, beta=0.1)
    assert loss.item() == pytest.approx((0.220095 + 0.018150) / 2, abs=1e-6)


def test_dpo_starts_at_log_2():
    same, ranks = normal(0, 5, 3), torch.tensor([[1, 2, 3]] * 5)
    for smoothing in (0.0, 0.3):
        loss, _ = dpo_loss(same, same, ranks, 0.1, smoothing)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


@given(seeds, st.integers(1, 6), st.integers(2, 9), st.sampled_from([0.0, 0.2]))
def test_dpo_loss_is_the_brute_force_mean_over_pairs(seed, prompts, responses, smoothing):
    logprobs, reference = (20 * normal(seed + k, prompts, responses) for k in range(2))
    ranks = random_ranks(seed, prompts, responses)
    means = []
    for now, before, order in zip(logprobs, reference, ranks, strict=True):
        pairs = []
        for i, j in ((i, j) for i in range(responses) for j in range(responses)):
            if 0 < order[i] < order[j]:
                margin = 0.3 * ((now[i] - before[i]) - (now[j] - before[j])).item()
                right = math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
                pairs.append((1 - smoothing) * right + smoothing * (right + margin))
        if pairs:
            means.append(sum(pairs) / len(pairs))
    loss, _ = dpo_loss(logprobs, reference, ranks, 0.3, smoothing)
    assert loss.item() == pytest.approx(sum(means) / len(means) if means else 0.0, abs=1e-9)


def test_dpo_loss_is_the_ranking_loss_of_its_rewards():
    # so that what holds for copies, padding and micro-batches of the one holds for the other
    logprobs, reference = normal(0, 6, 4), normal(1, 6, 4)
    ranks = random_ranks(2, 6, 4)
    loss, rewards = dpo_loss(logprobs, reference, ranks, 0.1, total=9)
    assert loss.item() == pytest.approx(ranking_loss(rewards, ranks, total=9).item(), abs=1e-14)
    assert not rewards.requires_grad


def test_ppo_clip_for_both_signs_of_the_advantage():
    ratio = torch.tensor([[1.5, 0.5, 1.5, 0.5]])
    advantages = torch.tensor([[2.0, 2.0, -2.0, -2.0]])
    old = torch.full((1, 4), -1.25)
    logprobs = (old + ratio.log()).requires_grad_()
    loss, clip_fraction = ppo_policy_loss(
        logprobs, old, advantages, torch.ones(1, 4, dtype=torch.bool), clip=0.2
    )
    # ratio 1.5, A  2: -min(3.0, 1.2 * 2) = -2.4, clipped: it has gained enough
    # ratio 0.5, A  2: -min(1.0, 0.8 * 2) = -1.0, free: let it come back
    # ratio 1.5, A -2: -min(-3.0, 1.2 * -2) = 3.0, free
    # ratio 0.5, A -2: -min(-1.0, 0.8 * -2) = 1.6, clipped
    assert loss.item() == pytest.approx((-2.4 - 1.0 + 3.0 + 1.6) / 4, abs=1e-6)
    assert clip_fraction.item() == 0.5
    assert not clip_fraction.requires_grad
    loss.backward()
    # the gradient of -A ratio / 4 with respect to the logprob is -A ratio / 4; 0 where clipped
    expected = torch.tensor([[0.0, -0.25, 0.75, 0.0]])
    assert torch.allclose(logprobs.grad, expected, atol=1e-6)


def test_ppo_at_ratio_one_is_the_policy_gradient():
    logprobs, advantages = normal(0, 2, 3), normal(1, 2, 3)
    mask = lengths_mask([3, 2], 3)
    loss, gradient = loss_and_gradient(policy_loss, logprobs, logprobs, advantages, mask)
    kept = advantages * mask
    assert loss.item() == pytest.approx(-kept.sum().item() / 5, abs=1e-12)
    assert torch.allclose(gradient, -kept / 5, atol=1e-12)
    assert ppo_policy_loss(logprobs, logprobs, advantages, mask, 0.2)[1].item() == 0.0


def test_ppo_value_loss_with_and_without_clip():
    values, old = torch.tensor([[1.5, 0.6, 9.0]]), torch.full((1, 3), 0.5)
    returns, mask = torch.tensor([[2.5, 1.5, 0.0]]), torch.tensor([[True, True, False]])
    # free: (1.5 - 2.5)^2 = 1 and (0.6 - 1.5)^2 = 0.81: half the mean is 0.4525
    assert ppo_value_loss(values, old, returns, mask, None).item() == pytest.approx(0.4525)
    # clip 0.2: the first value moved by 1, so it counts as 0.7: (0.7 - 2.5)^2 = 3.24 > 1
    # (3.24 + 0.81) / 4 = 1.0125
    assert ppo_value_loss(values, old, returns, mask, 0.2).item() == pytest.approx(1.0125)


@pytest.mark.parametrize("loss", TOKEN_LOSSES)
@given(seed=seeds, lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_padding_changes_neither_token_loss_nor_gradient(loss, seed, lengths):
    shape = len(lengths), 4
    x, old, other = (normal(seed + k, *shape) for k in range(3))
    mask = lengths_mask(lengths, 4)
    expected, gradient = loss_and_gradient(loss, x, old, other, mask)
    spoiled = [
        torch.cat([t.masked_fill(~mask, bad), torch.full((shape[0], 2), bad)], dim=1)
        for t, bad in ((x, 1e4), (old, -math.inf), (other, math.nan))
    ]
    wide = pad(mask, (0, 2))
    got, got_gradient = loss_and_gradient(loss, *spoiled, wide)
    assert got.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(got_gradient[:, :4], gradient, atol=1e-12)
    assert got_gradient[~wide].abs().sum() == 0


@pytest.mark.parametrize("loss", TOKEN_LOSSES)
@given(seed=seeds, lengths=st.lists(st.integers(0, 4), min_size=2, max_size=6), cut=st.integers(1))
def test_token_loss_does_not_depend_on_the_micro_batch_split(loss, seed, lengths, cut):
    cut = 1 + cut % (len(lengths) - 1)
    tensors = [*(normal(seed + k, len(lengths), 4) for k in range(3)), lengths_mask(lengths, 4)]
    whole, gradient = loss_and_gradient(loss, *tensors)
    parts = [
        loss_and_gradient(loss, *(t[rows] for t in tensors), total=sum(lengths))
        for rows in (slice(cut), slice(cut, None))
    ]
    assert sum(part for part, _ in parts).item() == pytest.approx(whole.item(), abs=1e-12)
    assert torch.allclose(torch.cat([part for _, part in parts]), gradient, atol=1e-12)


@pytest.mark.parametrize("loss", TOKEN_LOSSES)
def test_gradients_of_token_losses(loss):
    x, old, other = (normal(k, 3, 4) for k in range(3))
    mask = lengths_mask([4, 2, 1], 4)
    assert gradcheck(lambda x: loss(x, old, other, mask), x.requires_grad_())


def test_gradients_of_the_other_losses():
    ranks = torch.tensor([[1, 2, 2, 0], [3, 1, 2, 4]])
    assert gradcheck(lambda x: ranking_loss(x, ranks), normal(0, 2, 4).requires_grad_())
    both = [normal(k, 2, 4).requires_grad_() for k in range(2)]
    for smoothing in (0.0, 0.2):
        dpo = partial(dpo_loss, ranks=ranks, beta=0.3, label_smoothing=smoothing)
        assert gradcheck(lambda *x, dpo=dpo: dpo(*x)[0], both)
    tokens = torch.tensor([1, 0, 4])
    assert gradcheck(lambda x: token_logprobs(x, tokens, 0.7), normal(0, 3, 5).requires_grad_())


def test_value_clip_fraction_by_hand():
    # moves of 0.1, 0.3 and 5; the last token is padding
    values, old = torch.tensor([[1.1, 2.3, 5.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert value_clip_fraction(values, old, mask, 0.2).item() == 0.5
    assert value_clip_fraction(values, old, mask, 0.2, total=4).item() == 0.25
    assert value_clip_fraction(values, old, mask, None).item() == 0
