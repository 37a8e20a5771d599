"""From a score per response to an advantage per token, as pure functions of tensors.

Shapes are (B, T): B sequences, T response tokens. `mask` is boolean, True on sampled tokens, the
end token included. Results of the functions that take it are 0 where it is False, and what lies
there in the inputs changes nothing.

Left out on purpose:
  reward whitening and clipping   the reward model is centred once, when it is trained
  running statistics              whitening is over the batch at hand, all of it
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_shaped_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """What each token earns: the KL penalty, and at the last token the score.

    scores                        (B,)    the reward model's score of each response
    logprobs, ref_logprobs, mask  (B, T)  of the sampled tokens

    Returns (B, T): -kl_coef (logprobs - ref_logprobs), plus the score at the last True of each
    row; a row sums to score - kl_coef sum(log-ratio)  [Ouyang et al. 2022, eq. 2].

    The score lands on the last sampled token, be it the end token or the one at which the
    response was cut. Raises ValueError if a row has no token.
    """
    if not bool(mask.any(dim=1).all()):
        rows = (~mask.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} of the mask have no token, so their score has no place")
    rewards = (-kl_coef * kl_k1(logprobs, ref_logprobs)).masked_fill(~mask, 0)
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
    return rewards.scatter_add(1, last[:, None], scores.to(rewards.dtype)[:, None])


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation over the present tokens only.

    rewards, values, mask  (B, T)
    discount               1 in Ouyang et al. 2022
    lam                    1 gives return - value, 0 the one-step error

    Returns advantages and returns (B, T), returns = advantages + values, from
    advantage[t] = delta[t] + discount lam advantage[t+1],
    delta[t] = reward[t] + discount value[t+1] - value[t]   [Schulman et al. 2016, eq. 16].

    t+1 is the next present token, so a padded row gives the same as the bare one; past the
    last token value and advantage are 0, because the response is over.
    """
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + discount * next_value - values[:, t]
        advantage = delta + discount * lam * next_advantage
        advantages[:, t] = torch.where(here, advantage, 0)
        next_value = torch.where(here, values[:, t], next_value)
        next_advantage = torch.where(here, advantage, next_advantage)
    return advantages, advantages + values.masked_fill(~mask, 0)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """`x` (B, T) shifted and scaled to mean 0 and variance 1 over the True of `mask`, 0 elsewhere.

    Population variance, with 1e-8 added to it. Call it once on the whole batch, before
    minibatches: statistics of a part would make the result depend on the number of processes.
    Raises ValueError with fewer than two tokens.
    """
    count = int(mask.sum())
    if count < 2:
        raise ValueError(f"whitening {count} token(s): a variance needs at least 2")
    x = x.masked_fill(~mask, 0)
    centred = (x - x.sum() / count).masked_fill(~mask, 0)
    return centred * torch.rsqrt(centred.square().sum() / count + 1e-8)


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Log-ratio per token, an unbiased sample of the KL of the sampling policy to the reference.

    Single tokens may be negative. A negative mean over many tokens means that the tokens were
    not sampled from the policy that scored them.
    """
    return logprobs - ref_logprobs


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """1/ratio - 1 + log(ratio) per token: the same mean as `kl_k1`, never negative.

    For logs only: its gradient is not that of the KL  [Schulman 2020, "Approximating KL"].
    """
    k1 = kl_k1(logprobs, ref_logprobs)
    return (torch.expm1(-k1) + k1).clamp(min=0)  # rounding alone could fall below 0


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scalar: 1 - var(returns - values) / var(returns) over the True of `mask` (all (B, T)).

    1 is a perfect value function, 0 no better than a constant; nan if the returns are constant.
    """
    target = returns[mask]
    left = (target - values[mask]).var(correction=0)
    variance = target.var(correction=0)
    return torch.where(variance > 0, 1 - left / variance, torch.nan)
