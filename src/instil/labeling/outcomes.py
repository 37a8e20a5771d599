"""How policies compare in the eyes of labelers: win rates against a baseline, and strengths.

A ranking of K responses is K (K - 1) / 2 comparisons; those of two responses of one policy say
nothing. All that comes from one prompt is one cluster: its comparisons, its labelers, and both
orders of showing a pair, where a judge saw both. So each order counts for itself, and a judge who
only likes what is shown first comes to 0.5. All that comes from one labeler is a cluster too, where
there are three or more: win rates are then for new labelers as well. Strengths are for new prompts.

Strengths are those of Davidson's model, not Rao and Kupper's. In it the odds between two policies
are what they are when ties are left out, and all that the fit takes from a policy's comparisons is
its wins plus half its ties: what the win rate counts. Rao and Kupper's ties come from a threshold
of perception, and weigh otherwise  [Davidson 1970; Rao and Kupper 1967].

Left out on purpose: rules for when to stop. The intervals hold for a number of prompts that was
set before; whoever watches them and stops at the first that pleases will be wrong more often.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from instil.compare import two_way_win_rate
from instil.errors import InstilError
from instil.records import Ranking
from instil.stats import Array, Estimate, bradley_terry

Numbers = NDArray[np.unsignedinteger]


class Comparisons:
    """Pairs of responses of two policies, taken from rankings; a pair takes some 12 bytes.

    prompts, labelers, policies  name -> the number that stands for it in the arrays
    """

    def __init__(self, policy_of: Mapping[str, str], rankings: Iterable[Ranking] = ()) -> None:
        """policy_of: response id -> policy."""
        self.prompts: dict[str, int] = {}
        self.labelers: dict[str, int] = {}
        self.policies: dict[str, int] = {}
        self._policy_of = policy_of
        self._pairs = array("I"), array("H"), array("H"), array("H"), array("B")
        for ranking in rankings:
            self.add(ranking)

    def add(self, ranking: Ranking) -> None:
        """Take in a ranking. Raises InstilError for a response without a policy."""
        prompts, labelers, ones, others, won = self._pairs
        ranks = ranking.ranks()
        if without := [response for response in ranks if response not in self._policy_of]:
            raise InstilError(
                f"ranking of prompt {ranking.prompt_id} by {ranking.labeler_id}: it is not known "
                f"which policy wrote {', '.join(without)}; give all the responses that were ranked"
            )
        for (x, a), (y, b) in combinations(ranks.items(), 2):  # best first, so y never beats x
            one, other = self._policy_of[x], self._policy_of[y]
            if one != other:
                prompts.append(self.prompts.setdefault(ranking.prompt_id, len(self.prompts)))
                labelers.append(self.labelers.setdefault(ranking.labeler_id, len(self.labelers)))
                ones.append(self.policies.setdefault(one, len(self.policies)))
                others.append(self.policies.setdefault(other, len(self.policies)))
                won.append(2 if a < b else 1)

    def arrays(self) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
        """Of each pair (N,): prompt, labeler, one policy, the other, and 2 if the one won or 1 if
        they tied; it never lost."""
        prompts, labelers, ones, others, won = (np.array(column) for column in self._pairs)
        return prompts, labelers, ones, others, won


def win_rates(compared: Comparisons, baseline: str) -> dict[str, Estimate]:
    """How often each policy is preferred to `baseline`, ties as half: `two_way_win_rate`.

    Policies that no ranking compares with the baseline are left out. Raises InstilError if that
    is all of them.
    """
    found = {}
    prompt, labeler, one, other, outcome = compared.arrays()
    base = compared.policies.get(baseline, -1)
    for policy, number in sorted(compared.policies.items()):
        won, lost = (one == number) & (other == base), (one == base) & (other == number)
        if (won | lost).any():
            outcomes = np.concatenate([outcome[won] / 2, 1 - outcome[lost] / 2])
            prompts, labelers = (np.concatenate([of[won], of[lost]]) for of in (prompt, labeler))
            found[policy] = two_way_win_rate(outcomes, prompts, labelers)
    if not found:
        raise InstilError(
            f"no ranking compares a policy with {baseline!r}; compared are "
            f"{', '.join(sorted(compared.policies)) or 'none'}: name one of them as the baseline"
        )
    return found


def strengths(compared: Comparisons, rounds: int, seed: int) -> dict[str, Estimate]:
    """The strength of each policy: log-odds with mean 0, by Bradley and Terry's model with ties.

    rounds  how often whole prompts are drawn with replacement for the 95 % percentile interval

    One policy beats another, ties left out, with probability sigmoid(difference of strengths). In a
    draw in which a policy only won, or only lost, its strength is infinite; with more than one such
    draw in forty so is that end of its interval, which says that more prompts are needed. Both are
    with a single prompt. The standard error leaves these draws out. n and clusters are the policy's
    comparisons and prompts.

    Raises InstilError if there are no finite strengths.
    """
    policies, row = sorted(compared.policies), compared.prompts
    if not policies:
        raise InstilError("no ranking has responses of two policies; there is nothing to compare")
    number = {policy: place for place, policy in enumerate(policies)}
    prompt, _, one, other, outcome = compared.arrays()
    place, tied = np.array([number[policy] for policy in compared.policies]), outcome == 1
    one, other = place[one], place[other]

    # (prompts, wins and ties, M, M): redrawing prompts is then weighing the first axis
    counts = np.zeros((len(row), 2, len(policies), len(policies)), np.float32)
    np.add.at(counts, (prompt, tied.astype(int), one, other), 1)
    np.add.at(counts, (prompt[tied], 1, other[tied], one[tied]), 1)

    try:
        best = bradley_terry(*counts.sum(axis=0))
    except ValueError as error:
        raise InstilError(
            f"policies {', '.join(policies)}: {error}. Or label more prompts"
        ) from error
    rng = np.random.default_rng(seed)
    even = np.full(len(row), 1 / len(row))
    weights = (rng.multinomial(len(row), even) for _ in range(rounds))
    draws = np.array([_redrawn(np.tensordot(w.astype(np.float32), counts, 1)) for w in weights])
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
