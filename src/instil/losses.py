"""Every loss that instil trains with, as pure functions of tensors.

Tensors in, scalar out: no model, config, device or logging. Masks are boolean, True where the
thing named is present. What lies under a False, inf and nan too, changes neither loss nor gradient.

A sum is divided by `total`, the count over all micro-batches and processes of one optimizer step,
so that a token weighs the same wherever it fell; the losses of the micro-batches then add up to
the loss of the batch. Without `total` the count is that of the tensors at hand; a count of 0
gives a loss of 0.

Left out on purpose:
  entropy bonus          the KL to the SFT policy keeps the policy broad
  clamps on log-ratios   a ratio that overflows is a fault to be seen, not hidden
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor, total: float | Tensor | None = None) -> Tensor:
    """Scalar: sum of `x` where `mask`, divided by `total` (default: the count of True).

    x, mask  the same shape
    total    the count of True over all micro-batches and processes; 0 gives 0
    """
    return _divide(_present(x, mask).sum(), mask.sum() if total is None else total)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token under the softmax of `logits / temperature`.

    logits  (..., V)  any floating type; the log-softmax is taken in float32 (float64 stays)
    tokens  (...)     long; logits[t] must already be the prediction for tokens[t]

    Returns (...) float32. Sampling and scoring must use the same temperature, or the ratio and
    the KL of PPO are wrong from the first step. Raises ValueError if it is not positive.
    """
    if temperature <= 0:
        raise ValueError(
            f"temperature {temperature} is not positive; greedy has no log-probability"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:
        logits = logits / temperature
    return F.log_softmax(logits, dim=-1).gather(-1, tokens[..., None]).squeeze(-1)


def lm_loss(logprobs: Tensor, mask: Tensor, total: float | Tensor | None = None) -> Tensor:
    """Language-model loss: the mean of -log p over the tokens that count (SFT, pretraining).

    logprobs, mask  (B, S)
    total           tokens that count over all micro-batches and processes

    The mean is over tokens, not sequences. Ouyang et al. 2022, eq. 2 leaves this open for the
    pretraining term; its coefficient of 27.8 makes sense only with a mean per token.
    """
    return -masked_mean(logprobs, mask, total)


def ranking_loss(scores: Tensor, ranks: Tensor, total: float | Tensor | None = None) -> Tensor:
    """Reward-model loss: in every pair the better response should score higher.

    scores  (B, K)  one score per response
    ranks   (B, K)  1 is best, equal ranks are ties, 0 is padding
    total           prompts with at least one pair over all micro-batches and processes

    Returns a scalar: over prompts, the mean of the mean over pairs of
    -log sigmoid(score of the better - score of the worse)   [Ouyang et al. 2022, eq. 1].

    A tie makes no pair. The mean inside the prompt comes first, so a prompt with K = 9
    (36 pairs) weighs as much as one with K = 4 (6 pairs).
    """
    margin, pair_mask = _pairs(scores, ranks)
    return _mean_over_pairs(-F.logsigmoid(margin), pair_mask, total)


def ranking_accuracy(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """How many pairs of each prompt the scores put in the right order.

    scores, ranks  (B, K)  as in `ranking_loss`

    Returns correct (B,) and pairs (B,), both floating: sums, so that they add up over batches.
    Equal scores count one half, so a model that scores everything alike has accuracy 0.5.
    """
    margin, pair_mask = _pairs(scores, ranks)
    right = (margin > 0).to(margin.dtype) + 0.5 * (margin == 0)
    pairs = pair_mask.to(margin.dtype)
    return (right * pairs).sum(dim=(1, 2)), pairs.sum(dim=(1, 2))


def fitted_weight(feature: Tensor, ranks: Tensor) -> float:
    """The weight w at which the scores w * feature have the least ranking loss.

    feature  (B, K)  one number per response
    ranks    (B, K)  as in `ranking_loss`

    The loss is convex in w, so this is logistic regression on pairs with one feature. Raises
    ValueError if there is no such w: the feature orders all pairs rightly, or all wrongly, or none.
    """
    margins, present = _pairs(feature.double(), ranks)
    if not (margins[present] < 0).any() or not (margins[present] > 0).any():
        raise ValueError("the feature orders all pairs alike, so no weight of it is best")
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = ranking_loss(weight * feature.double(), ranks)
        found.backward()
        return found

    optimizer.step(loss)
    return weight.item()


def pair_shares(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Of the pairs of a prompt, in which share each response is the better, and the worse one.

    ranks  (B, K)  as in `ranking_loss`

    Both are (B, K) float32 and add up to 1 over a prompt (0 where it has no pair), so that the sum
    of `better * x` is the mean of x over the better ones of all pairs.
    """
    pair_mask = _better(ranks)
    pairs = pair_mask.sum(dim=(1, 2)).clamp(min=1)[:, None]
    return pair_mask.sum(dim=2) / pairs, pair_mask.sum(dim=1) / pairs


def dpo_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    ranks: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
    total: float | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization: the ranking loss on the rewards that a policy implies.

    logprobs         (B, K)  of each whole response under the policy: the sum over its tokens
    ref_logprobs     (B, K)  the same under the reference, the SFT policy
    ranks            (B, K)  as in `ranking_loss`
    beta             weight of the KL to the reference
    label_smoothing  share of the pairs that are taken to be labelled the wrong way round
                     [Mitchell 2023, "conservative DPO"]
    total            prompts with at least one pair over all micro-batches and processes

    Returns the loss and the rewards (B, K) beta (logprobs - ref_logprobs), detached. The loss is,
    over prompts, the mean of the mean over pairs of -log sigmoid(reward of the better - reward of
    the worse)  [Rafailov et al. 2023, eq. 7]. As in `ranking_loss` all pairs of a prompt together
    weigh as one, so a single pair is the paper's case.
    """
    rewards = beta * (logprobs - ref_logprobs)
    margin, pair_mask = _pairs(rewards, ranks)
    right, wrong = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    each = (1 - label_smoothing) * right + label_smoothing * wrong
    return _mean_over_pairs(each, pair_mask, total), rewards.detach()


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    total: float | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Clipped policy loss of PPO  [Schulman et al. 2017, eq. 7, with its sign turned].

    logprobs, old_logprobs  (B, T)  of the sampled tokens, now and when they were sampled
    advantages, mask        (B, T)
    clip                    half-width of the band around ratio 1 (0.2 in Ouyang et al. 2022)
    total                   response tokens over all micro-batches and processes

    Returns the loss, the mean over tokens of max(-A ratio, -A clamp(ratio, 1 - clip, 1 + clip)),
    and the clip fraction (detached): the share of tokens for which the clip takes the gradient
    away, ratio > 1 + clip with A > 0 or ratio < 1 - clip with A < 0. Both are divided by `total`.
    """
    advantages = _present(advantages, mask)
    ratio = torch.exp(_present(logprobs, mask) - _present(old_logprobs, mask))
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(free, clipped), mask, total)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > free).to(loss.dtype), mask, total)
    return loss, clip_fraction


def ppo_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None,
    total: float | Tensor | None = None,
) -> Tensor:
    """Value loss of PPO: half the squared error to the returns, mean over tokens.

    values, old_values, returns, mask  (B, T)
    clip   None, or how far a value may move from its old one: the loss is then the larger of
           those of the value and of the clamped value [Ziegler et al. 2019, released code];
           0.2 fits returns of unit scale only
    total  response tokens over all micro-batches and processes
    """
    values, old_values, returns = (_present(x, mask) for x in (values, old_values, returns))
    error = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * masked_mean(error, mask, total)


def value_clip_fraction(
    values: Tensor,
    old_values: Tensor,
    mask: Tensor,
    clip: float | None,
    total: float | Tensor | None = None,
) -> Tensor:
    """Scalar, detached: the share of tokens whose value has moved by more than `clip` (or 0 without
    one); arguments as in `ppo_value_loss`."""
    moved = (values - old_values).detach().abs()
    return masked_mean((moved > (math.inf if clip is None else clip)).to(moved.dtype), mask, total)


def _present(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with 0 where nothing is present, so that inf and nan there reach no gradient."""
    return x.masked_fill(~mask, 0)


def _divide(amount: Tensor, total: float | Tensor) -> Tensor:
    return amount / (total + (total == 0))


def _pairs(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, K): the margin of i over j, and whether the ranks put i before j."""
    scores = _present(scores, ranks > 0)
    return scores[:, :, None] - scores[:, None, :], _better(ranks)


def _better(ranks: Tensor) -> Tensor:
    """(B, K, K): whether i and j are present and i is before j."""
    before = ranks[:, :, None] < ranks[:, None, :]
    return before & (ranks > 0)[:, :, None]  # so j, with a higher rank, is present too


def _mean_over_pairs(each: Tensor, pair_mask: Tensor, total: float | Tensor | None) -> Tensor:
    """Scalar: over prompts, the mean of the mean over pairs of `each` (B, K, K)."""
    pairs = pair_mask.sum(dim=(1, 2))
    per_prompt = (each * pair_mask).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return masked_mean(per_prompt, pairs > 0, total)
