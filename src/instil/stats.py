"""Numbers with their uncertainty: means, win rates, agreement between labelers, strengths, compute.

Every mean comes with a 95 % interval. Values that share a source (a prompt, a user, a passage) are
given the same cluster, and the interval allows for it. numpy only: scipy would take more memory
than all that a server does with figures.

The intervals of agreement are for new prompts, not for new labelers. For both at once, for several
comparisons and for differences there is compare.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Clusters = Sequence[Hashable] | NDArray[np.integer[Any]]
Rankings = Sequence[tuple[str, Mapping[str, int]]]
"""One (prompt id, {response id: rank}) per labeler and prompt; 1 is best, equal ranks are ties."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval, from `n` values in `clusters` groups."""

    mean: float
    stderr: float
    low: float
    high: float
    n: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def grouped(values: ArrayLike, clusters: Clusters | None) -> tuple[Array, NDArray[np.int64]]:
    """`values` (n,) or (n, ...) as an array, and for each the number of its group (n,), from 0."""
    x = np.asarray(values, dtype=float)
    if isinstance(clusters, np.ndarray) and len(clusters) == len(x) > 0:
        return x, np.unique(clusters, return_inverse=True)[1]
    keys: Clusters = range(len(x)) if clusters is None else clusters
    if len(keys) != len(x) or not len(x):
        raise ValueError(f"{len(x)} values and {len(keys)} clusters; give one each, at least one")
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return x, np.array([number[key] for key in keys])


def mean_estimate(values: ArrayLike, clusters: Clusters | None = None) -> Estimate:
    """The mean of `values` (n,) with a Student t interval on (clusters - 1) degrees of freedom.

    clusters  which group each value belongs to; None makes every value its own group

    The standard error is the cluster-robust one, sqrt(G/(G-1) sum over groups of (sum of
    residuals)^2) / n  [Cameron and Miller 2015, "CR1"]; without clusters that is s / sqrt(n).
    With a single group, standard error and interval are nan. Raises ValueError without values.
    """
    x, group = grouped(values, clusters)
    groups, mean = int(group.max()) + 1, float(x.mean())
    if groups == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, len(x), 1)
    residuals = np.bincount(group, weights=x - mean)
    stderr = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / len(x)
    half = student_t(groups - 1) * stderr
    return Estimate(mean, stderr, mean - half, mean + half, len(x), groups)


@cache
def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` >= 1 degrees of freedom: 12.71 with one.

    The expansion by powers of 1 / freedom [Abramowitz and Stegun 26.7.5], then, where that is not
    good to 1e-12, Newton's steps on the exact distribution [26.7.3 and 26.7.4].
    """
    z, n = NormalDist().inv_cdf(0.975), freedom
    t = z + (z**3 + z) / 4 / n + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3
    if n > 1000:
        return t
    log_scale = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) - math.log(n * math.pi) / 2
    for _ in range(6):
        angle = math.atan(t / math.sqrt(n))
        terms, term = 0.0, math.cos(angle) if n % 2 else 1.0
        for k in range(2 + n % 2, n + 1, 2):
            terms += term
            term *= math.cos(angle) ** 2 * (k - 1) / k
        inside = math.sin(angle) * terms  # of -t to t
        if n % 2:
            inside = 2 / math.pi * (angle + inside)
        density = math.exp(log_scale - (n + 1) / 2 * math.log1p(t * t / n))
        t -= (inside - 0.95) / 2 / density
    return t


def bootstrap(
    values: ArrayLike,
    clusters: Clusters | None,
    statistic: Callable[[Array], float],
    rounds: int,
    seed: int,
) -> tuple[float, float]:
    """95 % percentile interval of `statistic` when whole clusters are drawn with replacement.

    values     (n,) or (n, ...)  one row per observation; `statistic` is given rows of it
    clusters   which group each row belongs to; None makes every row its own group
    """
    x, group = grouped(values, clusters)
    members = [np.flatnonzero(group == g) for g in range(int(group.max()) + 1)]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(members), size=(rounds, len(members)))
    found = [statistic(x[np.concatenate([members[g] for g in draw])]) for draw in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def within(found: Estimate, least: float, most: float) -> Estimate:
    """`found`, a mean of values from `least` to `most`, with its interval cut to that.

    If all values are at one end the standard error is 0 and says nothing; the interval is then the
    exact binomial one over clusters: from 0.025^(1/G) of the way up to `most`, or as far down. Of
    values between the ends that is a bound: no mean outside makes all at the end likelier than
    0.025.
    """
    edge, width = 0.025 ** (1 / found.clusters), most - least
    if found.mean == most:
        return replace(found, low=least + edge * width, high=most)
    if found.mean == least and math.isfinite(width):
        return replace(found, low=least, high=most - edge * width)
    # in this order an end that is nan stays nan
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def win_rate(outcomes: ArrayLike, clusters: Clusters | None = None) -> Estimate:
    """The mean of `outcomes` (n,): 1 for a win, 0.5 for a tie, 0 for a loss.

    The interval is that of `mean_estimate`, `within` 0 and 1. Raises ValueError for any other
    outcome.
    """
    x = np.asarray(outcomes, dtype=float)
    if odd := sorted(set(x.tolist()) - {0.0, 0.5, 1.0}):
        raise ValueError(f"outcomes {odd[:5]}: an outcome is 0 (loss), 0.5 (tie) or 1 (win)")
    return within(mean_estimate(x, clusters), 0.0, 1.0)


def agreement(rankings: Rankings) -> Estimate:
    """How often two labelers of one prompt order two responses alike; clustered by prompt.

    Over all pairs of labelers of a prompt and all pairs of responses that both ordered strictly,
    the share with the same order  [Ouyang et al. 2022, section 3.4 reports 72.6 %]. Chance is
    0.5. Raises ValueError if no such pair exists.
    """
    pairs = [(float(a == b), prompt) for prompt, a, b in _judged_twice(rankings) if a and b]
    return _share_alike(pairs)


def agreement_with_ties(rankings: Rankings) -> Estimate:
    """As `agreement`, with ties: two ties agree, a tie and a strict order agree by half."""
    pairs = [(1 - abs(a - b) / 2, prompt) for prompt, a, b in _judged_twice(rankings)]
    return _share_alike(pairs)


def krippendorff_alpha(table: ArrayLike, level: Literal["nominal", "ordinal", "interval"]) -> float:
    """Krippendorff's alpha: 1 is perfect agreement, 0 is chance.

    table  (labelers, items)  numbers; nan where a labeler did not judge the item

    Items judged once are left out. nan if all values are the same  [Krippendorff 2011].
    """
    items = np.asarray(table, dtype=float).T
    kinds = np.unique(items[~np.isnan(items)])
    counts = (items[:, :, None] == kinds).sum(axis=1).astype(float)  # (items, kinds)
    judged = counts.sum(axis=1)
    counts, judged = counts[judged > 1], judged[judged > 1]
    if not len(counts):
        raise ValueError("no item was judged twice; agreement needs two labelers on one item")
    totals = counts.sum(axis=0)
    if level == "nominal":
        distance = 1 - np.eye(len(kinds))
    elif level == "interval":
        distance = np.subtract.outer(kinds, kinds) ** 2
    else:  # how many values lie between the two, counting half of those at either end
        middle = np.cumsum(totals) - totals / 2
        distance = np.subtract.outer(middle, middle) ** 2
    # the distance of a value to itself is 0, so the diagonals need no care
    weight = 1 / (judged - 1)
    observed = float(np.einsum("uc,uk,u,ck->", counts, counts, weight, distance))
    expected = float((np.outer(totals, totals) * distance).sum() / (totals.sum() - 1))
    return 1 - observed / expected if expected else math.nan


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation of two sequences (n,) with ties; nan if one of them is constant.

    Compares all pairs at once: memory grows with n^2  [Kendall 1945].
    """
    a, b = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(x, float), np.asarray(y, float)))
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / scale if scale else math.nan


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Agreement of two labelers on the same items beyond chance; nan if chance is certain.

    first, second  one category per item, in the same order  [Cohen 1960]
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} labels; give both one label per item")
    a, b = np.asarray(first), np.asarray(second)
    chance = sum(float((a == k).mean() * (b == k).mean()) for k in {*a.tolist(), *b.tolist()})
    return _beyond_chance(float((a == b).mean()), chance)


def fleiss_kappa(counts: ArrayLike) -> float:
    """Agreement beyond chance when every item has the same number of labels; nan if undefined.

    counts  (items, categories)  how many labelers chose each category  [Fleiss 1971]
    """
    table = np.asarray(counts, dtype=float)
    labels = table.sum(axis=1)
    if labels.min() != labels.max() or labels[0] < 2:
        raise ValueError(
            f"items have {labels.min():g} to {labels.max():g} labels; Fleiss' kappa wants the same "
            "number on each, at least 2; krippendorff_alpha takes any"
        )
    n = labels[0]
    observed = float(((table**2).sum(axis=1) - n).mean() / (n * (n - 1)))
    return _beyond_chance(observed, float(((table.sum(axis=0) / table.sum()) ** 2).sum()))


def bradley_terry(wins: ArrayLike, ties: ArrayLike | None = None) -> Array:
    """Log strengths (M,) with mean 0 that best explain who beat whom.

    wins  (M, M)  wins[i, j] = how often i beat j
    ties  (M, M)  symmetric: how often i and j tied, the same number in both places

    Maximum likelihood of p(i beats j) = s_i / (s_i + s_j + c sqrt(s_i s_j)), a tie having the
    last term of the sum as numerator [Davidson 1970]; without ties c = 0 [Bradley and Terry 1952].
    Raises ValueError if no finite strengths are best.
    """
    won = np.asarray(wins, dtype=float)
    tied = np.zeros_like(won) if ties is None else np.asarray(ties, dtype=float)
    if not np.array_equal(tied, tied.T):
        raise ValueError("ties are not symmetric; ties[i, j] and ties[j, i] are the same ties")
    m = len(won)
    if not _connected(won + won.T + tied):
        raise ValueError("some players never met, even through others; rank each group alone")
    i, j = np.triu_indices(m, k=1)
    ahead = np.eye(m)[i] - np.eye(m)[j]  # (pairs, M): theta -> theta_i - theta_j
    seen = np.stack([won[i, j], tied[i, j], won[j, i]])  # (3, pairs): i won, tied, j won
    games = seen.sum(axis=0)

    theta: Array = np.zeros(m)
    tie = 0.0 if tied.any() else -np.inf  # log c
    for _ in range(100):  # Newton's method: the likelihood is concave in (theta, log c)
        gap = ahead @ theta / 2
        utility = np.stack([gap, np.full_like(gap, tie), -gap])
        win, draw, loss = np.exp(utility - np.logaddexp.reduce(utility, axis=0))
        lead = win - loss
        slope = np.append(
            ahead.T @ (seen[0] - seen[2] - games * lead) / 2, (seen[1] - games * draw).sum()
        )
        curve = np.zeros((m + 1, m + 1))
        curve[:m, :m] = ahead.T @ ((games * (win + loss - lead**2) / 4)[:, None] * ahead)
        curve[:m, m] = curve[m, :m] = ahead.T @ (-games * lead * draw / 2)
        curve[m, m] = (games * draw * (1 - draw)).sum()
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]  # the shortest: theta keeps mean 0
        theta, tie = theta + step[:m], tie + float(step[m])
        if np.ptp(theta) > 20:
            break
        if np.abs(step).max() < 1e-8:
            return theta
    raise ValueError(
        "no finite strengths are best: some players only ever won or only ever lost against the "
        "rest; add half a win each way to every pair that met"
    )


def best_of_n_kl(n: int) -> float:
    """Upper bound of the KL, in nats, of the best of `n` samples to the policy they came from.

    log n - (n - 1)/n  [Stiennon et al. 2020, appendix G.3; Beirami et al. 2024: a bound].
    """
    return math.log(n) - (n - 1) / n


def calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: how far predicted probabilities are from what happened.

    probabilities  (n,) in [0, 1];  outcomes (n,) in [0, 1]

    The probabilities are cut into `bins` of equal width; returned is the mean over examples of the
    distance between mean probability and mean outcome of the example's bin [Guo et al. 2017,
    eq. 3]. Raises ValueError when there is nothing to judge.
    """
    p, happened = np.asarray(probabilities, float), np.asarray(outcomes, float)
    if p.shape != happened.shape or not p.size:
        raise ValueError(f"{p.shape} probabilities for {happened.shape} outcomes")
    place = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=p - happened, minlength=bins)
    return float(np.abs(gaps).sum() / p.size)


def forward_flops(params: float, tokens: float) -> float:
    """Floating-point operations to read or sample `tokens`: 2 per parameter and token."""
    return 2 * params * tokens


def train_flops(params: float, tokens: float) -> float:
    """Floating-point operations to train on `tokens`: 6 per parameter and token.

    Attention over the context is left out  [Kaplan et al. 2020, section 2.1].
    """
    return 6 * params * tokens


def petaflop_days(flops: float) -> float:
    """Operations in petaflop/s-days: 10^15 operations a second for a day."""
    return flops / (1e15 * 86400)


def _judged_twice(rankings: Rankings) -> list[tuple[str, int, int]]:
    """(prompt, order by one labeler, by the other) for each pair of responses; order -1, 0 or 1."""
    by_prompt: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for prompt, ranks in rankings:
        by_prompt[prompt].append(ranks)
    return [
        (prompt, _order(one[a], one[b]), _order(other[a], other[b]))
        for prompt, judged in by_prompt.items()
        for one, other in combinations(judged, 2)
        for a, b in combinations(sorted(one.keys() & other.keys()), 2)
    ]


def _order(a: int, b: int) -> int:
    return (a > b) - (a < b)


def _share_alike(pairs: list[tuple[float, str]]) -> Estimate:
    if not pairs:
        raise ValueError("no two labelers ordered the same two responses; let some prompts overlap")
    return win_rate([alike for alike, _ in pairs], [prompt for _, prompt in pairs])


def _beyond_chance(observed: float, chance: float) -> float:
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def _connected(games: Array) -> bool:
    reach = (games + np.eye(len(games))) > 0
    for _ in range(len(games).bit_length()):
        reach = reach @ reach
    return bool(reach.all())
