"""How policies compare in the eyes of labelers: win rates against a baseline, and strengths.

A ranking of K responses is K (K - 1) / 2 comparisons; those of two responses of one policy say
nothing. All that comes from one prompt is one cluster: its comparisons, its labelers, and both
orders of showing a pair, where a judge saw both. So each order counts for itself, and a judge who
only likes what is shown first comes to 0.5.

Strengths are those of Davidson's model, not Rao and Kupper's. In it the odds between two policies
are what they are when ties are left out, and all that the fit takes from a policy's comparisons is
its wins plus half its ties: what the win rate counts. Rao and Kupper's ties come from a threshold
of perception, and weigh otherwise  [Davidson 1970; Rao and Kupper 1967].

Left out on purpose: rules for when to stop. The intervals hold for a number of prompts that was
set before; whoever watches them and stops at the first that pleases will be wrong more often.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

import numpy as np

from instil.errors import InstilError
from instil.records import Ranking
from instil.stats import Array, Estimate, bradley_terry, win_rate


def win_rates(
    rankings: Iterable[Ranking], policy_of: Mapping[str, str], baseline: str
) -> dict[str, Estimate]:
    """How often each policy is preferred to `baseline`, ties as half, clustered by prompt.

    policy_of  response id -> policy

    Policies that no ranking compares with the baseline are left out. Raises InstilError if that
    is all of them, and for a response without a policy.
    """
    outcomes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    seen: set[str] = set()
    for prompt, one, other, outcome in _comparisons(rankings, policy_of):
        seen |= {one, other}
        if other == baseline:
            outcomes[one].append((outcome, prompt))
        elif one == baseline:
            outcomes[other].append((1 - outcome, prompt))
    if not outcomes:
        raise InstilError(
            f"no ranking compares a policy with {baseline!r}; compared are "
            f"{', '.join(sorted(seen)) or 'none'}: name one of them as the baseline"
        )
    return {
        policy: win_rate([won for won, _ in found], [prompt for _, prompt in found])
        for policy, found in sorted(outcomes.items())
    }


def strengths(
    rankings: Iterable[Ranking], policy_of: Mapping[str, str], rounds: int, seed: int
) -> dict[str, Estimate]:
    """The strength of each policy: log-odds with mean 0, by Bradley and Terry's model with ties.

    policy_of  response id -> policy
    rounds     how often whole prompts are drawn with replacement for the 95 % percentile interval

    One policy beats another, ties left out, with probability sigmoid(difference of strengths). In a
    draw in which a policy only won, or only lost, its strength is infinite; with more than one such
    draw in forty so is that end of its interval, which says that more prompts are needed. Both are
    with a single prompt. The standard error leaves these draws out. n and clusters are the policy's
    comparisons and prompts.

    Raises InstilError if there are no finite strengths, and for a response without a policy.
    """
    rankings = list(rankings)  # gone through twice: their comparisons would be many times as large
    seen: set[str] = set()
    row: dict[str, int] = {}
    for prompt, one, other, _ in _comparisons(rankings, policy_of):
        seen |= {one, other}
        row.setdefault(prompt, len(row))
    policies = sorted(seen)
    if not policies:
        raise InstilError("no ranking has responses of two policies; there is nothing to compare")
    number = {policy: place for place, policy in enumerate(policies)}

    # (prompts, wins and ties, M, M): redrawing prompts is then weighing the first axis
    counts = np.zeros((len(row), 2, len(policies), len(policies)))
    for prompt, one, other, outcome in _comparisons(rankings, policy_of):
        here, i, j = counts[row[prompt]], number[one], number[other]
        if outcome == 1:
            here[0, i, j] += 1
        else:
            here[1, i, j] += 1
            here[1, j, i] += 1

    try:
        best = bradley_terry(*counts.sum(axis=0))
    except ValueError as error:
        raise InstilError(
            f"policies {', '.join(policies)}: {error}. Or label more prompts"
        ) from error
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(row), np.full(len(row), 1 / len(row)), size=rounds)
    draws = np.array([_redrawn(np.tensordot(w, counts, axes=1)) for w in weights])
    if len(row) == 1:
        draws[:] = math.nan  # drawn again and again, one prompt says nothing of others

    games = counts[:, 0] + counts[:, 0].transpose(0, 2, 1) + counts[:, 1]  # (prompts, M, M)
    found = {}
    for policy, i in number.items():
        drawn = draws[:, i]
        finite = drawn[np.isfinite(drawn)]
        # these two methods pick a draw and never interpolate, so an end may be infinite
        low = np.quantile(np.where(np.isnan(drawn), -np.inf, drawn), 0.025, method="lower")
        high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), 0.975, method="higher")
        found[policy] = Estimate(
            mean=float(best[i]),
            stderr=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
            low=float(low),
            high=float(high),
            n=int(games[:, i].sum()),
            clusters=int(games[:, i].any(axis=1).sum()),
        )
    return found


def _comparisons(
    rankings: Iterable[Ranking], policy_of: Mapping[str, str]
) -> Iterator[tuple[str, str, str, float]]:
    """(prompt, policy, other policy, 1 if it won or 0.5 if they tied) for every two responses."""
    for ranking in rankings:
        ranks = ranking.ranks()
        if without := [response for response in ranks if response not in policy_of]:
            raise InstilError(
                f"ranking of prompt {ranking.prompt_id} by {ranking.labeler_id}: it is not known "
                f"which policy wrote {', '.join(without)}; give all the responses that were ranked"
            )
        for (x, a), (y, b) in combinations(ranks.items(), 2):  # best first, so y never beats x
            one, other = policy_of[x], policy_of[y]
            if one != other:
                yield ranking.prompt_id, one, other, 1.0 if a < b else 0.5


def _redrawn(counts: Array) -> Array:
    """Strengths (M,) of one draw; without a finite answer inf, -inf or, if unclear, nan."""
    try:
        return bradley_terry(*counts)
    except ValueError:
        beats = (counts[0] > 0) | np.eye(len(counts[0]), dtype=bool)
        for _ in range(len(beats).bit_length()):
            beats = beats @ beats  # also through others
        above, below = (beats & ~beats.T).any(axis=1), (beats.T & ~beats).any(axis=1)
        return np.select([above & ~below, below & ~above], [math.inf, -math.inf], math.nan)
