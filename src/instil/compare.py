"""Comparisons with their uncertainty: two models on the same items, labelers who recur over
prompts, judges who see a pair in both orders, lengths that differ, several comparisons at once.

numpy only. What is estimated here has the same `Estimate` as all other figures; the ground under it
(clusters, Student's t, the exact ends of a clean sweep) is in stats.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from instil.stats import (
    Array,
    Clusters,
    Estimate,
    grouped,
    mean_estimate,
    student_t,
    win_rate,
    within,
)

PRIOR = 10.0
"""Standard deviation of the normal prior on both coefficients of the length-controlled win rate; it
only keeps them finite where length, or nothing, tells wins from losses."""


def two_way_mean(values: ArrayLike, prompts: Clusters, labelers: Clusters) -> Estimate:
    """The mean of `values` (n,) for new prompts *and* new labelers, each of whom recurs.

    prompts, labelers  of each value; values of one prompt, or of one labeler, may depend

    The variance is V(prompts) + V(labelers) - V(prompt and labeler both), each the cluster-robust
    one of `mean_estimate`  [Cameron, Gelbach and Miller 2011, eq. 2.11]. That sum can fall short of
    its parts, and below 0; the largest of the three is its floor. Student's t has about the degrees
    of freedom of Satterthwaite [1946]: the variance squared over the sum of V^2 / (G - 1) of the
    three, G their numbers of clusters, rounded down; so a few labelers who hardly differ say more
    than as many who do. (The three are taken as independent, which they are not: tests say how well
    it covers.) Two labelers, or two prompts, cannot say whether they differ: one degree. `clusters`
    is the number of prompts or of labelers, whichever are fewer; with one of either, standard error
    and interval are nan.
    """
    x, prompt = grouped(values, prompts)
    labeler = grouped(values, labelers)[1]
    pair = prompt * (labeler.max() + 1) + labeler
    parts = [mean_estimate(x, keys) for keys in (prompt, labeler, pair)]
    fewer = min(parts, key=lambda found: found.clusters)
    if fewer.clusters == 1:
        return fewer
    by_prompt, by_labeler, both = (found.stderr**2 for found in parts)
    variance = max(by_prompt + by_labeler - both, by_prompt, by_labeler, both)
    if variance == 0:
        return replace(fewer, stderr=0.0, low=fewer.mean, high=fewer.mean)
    spread = sum((part.stderr**2 / variance) ** 2 / (part.clusters - 1) for part in parts)
    freedom = 1 if fewer.clusters == 2 else max(1, int(1 / spread))
    half = student_t(freedom) * math.sqrt(variance)
    return replace(fewer, stderr=math.sqrt(variance), low=fewer.mean - half, high=fewer.mean + half)


def two_way_win_rate(outcomes: ArrayLike, prompts: Clusters, labelers: Clusters) -> Estimate:
    """`two_way_mean` of outcomes in [0, 1], `within` them; `clusters` is the number of prompts.

    One labeler, or two, are too few to say anything of others: where there are no more, outcomes
    are clustered by prompt alone.
    """
    over_prompts = mean_estimate(outcomes, prompts)
    several = len(set(labelers)) > 2
    found = two_way_mean(outcomes, prompts, labelers) if several else over_prompts
    return within(replace(found, clusters=over_prompts.clusters), 0.0, 1.0)


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, clusters: Clusters | None = None
) -> Estimate:
    """The mean of ours - theirs, both (n,) on the same items in the same order.

    Far narrower than the difference of two independent means, as an item that is hard for one model
    is hard for the other. Raises ValueError if the two are not of one length.
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} values: a pair needs one of each model")
    return mean_estimate(a - b, clusters)


def p_value(estimate: Estimate, against: float = 0.0) -> float:
    """Two-sided probability of a mean so far from `against` or farther, were that the truth.

    Student's t with (clusters - 1) degrees of freedom. Without any spread it is the sign test over
    the clusters, 2^(1 - clusters); 1 if the mean is `against`, or if there is a single cluster.
    Good to 1e-12.
    """
    gap, clusters = abs(estimate.mean - against), estimate.clusters
    if gap == 0 or clusters == 1:
        return 1.0
    if estimate.stderr <= 1e-12 * gap:  # 0, but for rounding
        return 2.0 ** (1 - clusters)
    return _beyond(gap / estimate.stderr, clusters - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the same order: compare each with 0.05 as if it were the only one.

    Needed whenever several comparisons are looked at and those that stand out are reported: several
    models against one baseline, or one model on several tasks. With 14 comparisons and no true
    difference every second study would otherwise report one. The chance of even one false report
    stays under 0.05, however the comparisons depend on each other  [Holm 1979]. Not needed for a
    single comparison that was the question from the beginning.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


@dataclass(frozen=True, slots=True)
class BothOrders:
    """What a judge says who sees every pair twice, in either order."""

    win_rate: Estimate
    """Of ours; each order counts for itself, so a win and a loss make a tie."""
    first: Estimate | None
    """Share of the verdicts other than ties that went to what was shown first: 0.5 without position
    bias. None if all were ties."""
    consistent: Estimate
    """Share of the pairs with the same verdict in both orders."""


def both_orders(
    shown_first: ArrayLike, shown_second: ArrayLike, clusters: Clusters | None = None
) -> BothOrders:
    """Outcomes of ours (n,) when it was shown first and when second: 1 win, 0.5 tie, 0 loss.

    clusters  of each pair, such as its prompt; None makes every pair its own. A pair's two orders
              are always in one cluster. Raises ValueError for any other outcome.
    """
    one, other = np.asarray(shown_first, float), np.asarray(shown_second, float)
    if one.shape != other.shape:
        raise ValueError(f"{one.shape} and {other.shape} outcomes: every pair is shown twice")
    each: Clusters = range(len(one)) if clusters is None else clusters
    outcomes, groups = np.concatenate([one, other]), [*each, *each]
    rate = win_rate(outcomes, groups)
    to_first = np.concatenate([one, 1 - other])
    decided = np.flatnonzero(to_first != 0.5)
    first = win_rate(to_first[decided], [groups[i] for i in decided]) if len(decided) else None
    return BothOrders(rate, first, win_rate((one == other).astype(float), each))


def length_controlled_win_rate(
    outcomes: ArrayLike,
    lengths: ArrayLike,
    their_lengths: ArrayLike,
    clusters: Clusters | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The win rate that would be had, were both responses equally long.

    outcomes       (n,) in [0, 1]  of ours: 1 win, 0.5 tie, 0 loss, or the mean over both orders
    lengths        (n,)            of our responses, in any unit;  their_lengths (n,) of the others
    rounds         how often whole clusters are drawn with replacement for the interval

    Fits, by maximum likelihood, outcome ~ sigmoid(a + b tanh(d / s)), where d is our length less
    theirs and s the standard deviation of d, and gives sigmoid(a): the fitted outcome at d = 0. The
    interval is the 95 % percentile interval of the bootstrap, the standard error the standard
    deviation of its draws. A simplification of AlpacaEval 2  [Dubois et al. 2024, section 3], which
    adds a term for how hard each instruction is, fitted over all models of its leaderboard; that is
    left out, as is its cross-validated penalty: a and b have a normal prior of standard deviation
    10. Length is controlled as far as such a curve describes what it does.

    When every outcome is a win (or a loss) there is nothing to control, and the result is that of
    `stats.win_rate`. With a single cluster standard error and interval are nan.
    """
    y = np.asarray(outcomes, float)
    d = np.asarray(lengths, float) - np.asarray(their_lengths, float)
    if y.shape != d.shape or not len(y) or y.min() < 0 or y.max() > 1:
        raise ValueError(f"{y.shape} outcomes and {d.shape} lengths; give one in [0, 1] for each")
    keys: Clusters = range(len(y)) if clusters is None else clusters
    if y.min() == y.max() and y[0] in (0, 1):
        return win_rate(y, keys)
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    group = np.array([number[key] for key in keys])
    x = np.stack([np.ones_like(d), np.tanh(d / (d.std() or 1.0))], axis=1)  # (n, 2)
    best = _logistic(x, y, np.ones_like(y), np.zeros(2))
    if len(number) == 1:
        return Estimate(_sigmoid(best[0]), math.nan, math.nan, math.nan, len(y), 1)
    rng = np.random.default_rng(seed)
    draws = []
    for draw in rng.integers(len(number), size=(rounds, len(number))):
        weights = np.bincount(draw, minlength=len(number))[group].astype(float)
        draws.append(_sigmoid(_logistic(x, y, weights, best)[0]))
    low, high = np.quantile(draws, [0.025, 0.975])
    stderr = float(np.std(draws, ddof=1))
    return Estimate(_sigmoid(best[0]), stderr, float(low), float(high), len(y), len(number))


def _logistic(x: Array, y: Array, weights: Array, start: Array) -> Array:
    """Coefficients (2,) of the weighted logistic regression of y (n,) on x (n, 2), by Newton's
    method, which the prior and a bound on its steps keep from running away."""
    found = start
    for _ in range(100):
        p = 1 / (1 + np.exp(-(x @ found)))
        slope = x.T @ (weights * (y - p)) - found / PRIOR**2
        curve = (x.T * (weights * p * (1 - p))) @ x + np.eye(2) / PRIOR**2
        step = np.linalg.solve(curve, slope)
        found = found + step * min(1.0, 2 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    return found


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _beyond(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's t, the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    steps = np.arange(2 + odd, freedom, 2)  # from a term to the next
    first = math.cos(angle) if odd else 1.0
    factors = math.cos(angle) ** 2 * (steps - 1) / steps
    terms = first * (1 + float(np.cumprod(factors).sum()))
    if odd:
        inside = 2 / math.pi * (angle + math.sin(angle) * (terms if freedom > 1 else 0.0))
    else:
        inside = math.sin(angle) * terms
    return min(1.0, max(0.0, 1 - inside))
