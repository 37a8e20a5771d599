"""How good labels are: agreement between labelers, and the habits of each.

Two labels of one prompt are compared on every two responses that both ranked: each puts the first
ahead, the second ahead, or ties them. Which labels are compared with which hangs on their status:

  accepted, surplus    with those of other labelers; surplus came late, and is as independent
  gold                 with the key. Not with each other: gold tasks are chosen to be clear
  repeat               with the same labeler's first label of that prompt
  screening, key       with nothing here; screening.py reads them

Left out on purpose:
  one score per labeler        the figures mean different things; the lead looks at all of them
  models of labelers' skill    Dawid-Skene and MACE want many labels of an item; most have one
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from instil import stats
from instil.labeling.panel import Meeting, Panel, meet, panels
from instil.labeling.panel import compare as compare
from instil.records import FLAGS, Ranking, Rating
from instil.stats import Array, Estimate

Mean = Callable[[ArrayLike, stats.Clusters | None], Estimate]
Level = Literal["nominal", "ordinal", "interval"]
Status = Literal["accepted", "surplus", "gold", "repeat", "screening", "key"]

INDEPENDENT = ("accepted", "surplus")
"""Status of the labels that speak for the batch, and are compared between labelers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One label of kind ranking, and how it came about.

    Raises ValueError if `order` does not hold the responses that were ranked.
    """

    label_id: str
    labeler_id: str
    prompt_id: str
    ranking: Ranking | None
    """None if the labeler found the responses not rankable; the ratings count all the same."""
    ratings: tuple[Rating, ...] = ()
    pool: str = ""
    use_case: str = ""
    status: Status = "accepted"
    order: tuple[str, ...] = ()
    """Response ids, the one shown first in front; empty if nobody wrote it down."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Characters of each response."""
    words: int = 0
    """Words that there were to read, prompt and responses; 0 if unknown."""
    active_ms: int = 0
    """Milliseconds of work, pauses left out."""
    at: int = 0
    """When it was submitted, in milliseconds since 1970."""

    def __post_init__(self) -> None:
        ranked = self.ranking.response_ids() if self.ranking else self.order
        if self.order and sorted(self.order) != sorted(ranked):
            raise ValueError(f"label {self.label_id}: shown {self.order}, ranked {ranked}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike several labelers see the same prompts.

    An Estimate is clustered by prompt, and None if no two labels can be compared. A coefficient is
    1 for perfect agreement, 0 for chance, and nan if nothing was judged twice or all is the same.
    """

    strict: Estimate | None
    """Share of pairs ordered alike, of those that neither tied: the paper's measure; chance 0.5."""
    with_ties: Estimate | None
    """The same over all pairs: two ties agree, a tie and an order agree by half."""
    same: Estimate | None
    """Share of all pairs for which both said the same of better, tied and worse."""
    tau: Estimate | None
    """Mean Kendall tau-b of two labelers' rankings of one prompt."""
    order_alpha: float
    """Krippendorff's alpha, nominal, of better, tied and worse, said of the first of two ids."""
    rank_alpha: float
    """Krippendorff's alpha, ordinal, of each response's place from best to worst."""
    overall_alpha: float
    """Krippendorff's alpha, interval, of the 1-7 ratings: interval, as their means are reported."""
    flag_alphas: Mapping[str, float]
    """Krippendorff's alpha, nominal, of each flag that anybody set."""
    fleiss: float
    """Fleiss' kappa of better, tied and worse; nan unless all pairs were judged equally often."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How labels were made, whether or not they are right; None without anything to measure."""

    seconds: Estimate | None
    """Active seconds per 100 words to read."""
    first_shown: Estimate | None
    """How much more often than 1/K the response shown first is best; 0 is no position bias.
    Of n tied for best each counts 1/n."""
    longer: Estimate | None
    """Mean Kendall tau-b of length and place: 1 if the longer is always better, 0 without bias."""
    ties: Estimate | None
    """Share of pairs of responses that were tied."""
    inversions: Estimate | None
    """Share of pairs, of those not tied, whose better response has the lower rating."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All labelers together."""

    labels: int
    labelers: int
    prompts: int
    agreement: Agreement
    habits: Habits
    by_pool: Mapping[str, Agreement]
    """Within each pool: the paper compares training labelers with each other, and held-out ones."""
    by_use_case: Mapping[str, Agreement]


@dataclass(frozen=True, slots=True)
class LabelerQuality:
    """One labeler. Agreement is the paper's measure, clustered by prompt."""

    labeler_id: str
    labels: int
    """Accepted and surplus; the habits are those of these labels."""
    others: Estimate | None
    by_use_case: Mapping[str, Estimate]
    """Agreement with others on prompts of each use case."""
    gold: Estimate | None
    repeats: Estimate | None
    """Agreement with the labeler's own first label."""
    drift: Estimate | None
    """Agreement with others on the last third of the labels, less that on the first third."""
    habits: Habits


@dataclass(frozen=True, slots=True)
class LabelerPair:
    """Two labelers, on the prompts that both judged."""

    first: str
    second: str
    strict: Estimate | None
    kappa: float
    """Cohen's kappa of better, tied and worse."""


def overview(judgements: Iterable[Judgement]) -> Overview:
    """The accepted and surplus labels among `judgements`."""
    work = [j for j in judgements if j.status in INDEPENDENT]
    of_prompts = panels(work)
    by_use_case: dict[str, list[Panel]] = defaultdict(list)
    for panel in of_prompts:
        by_use_case[panel.judgements[0].use_case].append(panel)
    pools = sorted({j.pool for j in work} - {""})
    return Overview(
        labels=len(work),
        labelers=len({j.labeler_id for j in work}),
        prompts=len(of_prompts),
        agreement=_agreement(of_prompts),
        habits=habits_of(work),
        by_pool={pool: _agreement([p.within(pool) for p in of_prompts]) for pool in pools},
        by_use_case={name: _agreement(of) for name, of in sorted(by_use_case.items()) if name},
    )


def per_labeler(
    judgements: Iterable[Judgement], keys: Iterable[Judgement] = ()
) -> list[LabelerQuality]:
    """Every labeler with a label among `judgements`, in the order of their ids.

    keys  the labels of those who set the gold tasks; gold labels are compared with each
    """
    own: dict[str, list[Judgement]] = defaultdict(list)
    for j in judgements:
        if j.status != "key":
            own[j.labeler_id].append(j)
    met: dict[str, list[tuple[Judgement, Meeting]]] = defaultdict(list)
    for meeting in _meetings(j for judged in own.values() for j in judged):
        met[meeting.one.labeler_id].append((meeting.one, meeting))
        met[meeting.other.labeler_id].append((meeting.other, meeting))
    key_of = _by_prompt(keys)
    return [_labeler(name, own[name], met[name], key_of) for name in sorted(own)]


def labeler_pairs(judgements: Iterable[Judgement]) -> list[LabelerPair]:
    """Every two labelers who judged the same responses, in the order of their ids."""
    shared: dict[tuple[str, str], list[Meeting]] = defaultdict(list)
    for m in _meetings(sorted(judgements, key=lambda j: j.labeler_id)):
        shared[m.one.labeler_id, m.other.labeler_id].append(m)
    return [
        LabelerPair(
            *two, _strict(met), stats.cohen_kappa(*(said.tolist() for said in _said(met)[:2]))
        )
        for two, met in sorted(shared.items())
    ]


def agreement_of(judgements: Iterable[Judgement]) -> Agreement:
    """Agreement of the labelers of those `judgements` that are accepted or surplus."""
    return _agreement(panels(j for j in judgements if j.status in INDEPENDENT))


def _agreement(of_prompts: Iterable[Panel]) -> Agreement:
    twice = [p for p in of_prompts if len({j.labeler_id for j in p.judgements}) > 1]
    meetings = [meeting for panel in twice for meeting in panel.meetings()]
    first, second, prompts = _said(meetings)
    last = [panel.last_of_each() for panel in twice]
    orders = _table([panel.orders for panel in last])
    flags = {flag for p in twice for j in p.judgements for r in j.ratings for flag in r.flags}
    return Agreement(
        strict=_strict(meetings),
        with_ties=_estimate(1 - abs(first - second) / 2, prompts, stats.win_rate),
        same=_estimate(first == second, prompts, stats.win_rate),
        tau=_estimate(*_taus(meetings), mean_within(-1, 1)),
        order_alpha=_alpha(orders, "nominal"),
        rank_alpha=_alpha(_table([panel.places for panel in last]), "ordinal"),
        overall_alpha=_alpha(_table([panel.overall for panel in last]), "interval"),
        flag_alphas={
            flag: _alpha(_table([panel.flagged(flag) for panel in last]), "nominal")
            for flag in FLAGS
            if flag in flags
        },
        fleiss=_fleiss(orders),
    )


def habits_of(judgements: Iterable[Judgement]) -> Habits:
    """How all of `judgements` were made; intervals are clustered by prompt."""
    found: dict[str, list[float]] = defaultdict(list)
    prompts: dict[str, list[str]] = defaultdict(list)
    for j in judgements:
        for name, values in _habits(j):
            found[name] += values
            prompts[name] += [j.prompt_id] * len(values)

    def mean(name: str, estimate: Mean) -> Estimate | None:
        return _estimate(found[name], prompts[name], estimate)

    return Habits(
        seconds=mean("seconds", mean_within(0, math.inf)),
        first_shown=mean("first_shown", mean_within(-1, 1)),
        longer=mean("longer", mean_within(-1, 1)),
        ties=mean("ties", stats.win_rate),
        inversions=mean("inversions", stats.win_rate),
    )


def mean_within(least: float, most: float) -> Mean:
    """`stats.mean_estimate` for values from `least` to `most`."""
    return lambda values, clusters: stats.within(stats.mean_estimate(values, clusters), least, most)


def _labeler(
    name: str,
    own: list[Judgement],
    met: list[tuple[Judgement, Meeting]],
    key_of: dict[str, list[Judgement]],
) -> LabelerQuality:
    work = sorted((j for j in own if j.status in INDEPENDENT), key=lambda j: (j.at, j.label_id))
    third, turn = len(work) // 3, {j.label_id: place for place, j in enumerate(work)}
    use_cases = sorted({j.use_case for j, _ in met} - {""})
    by_use_case = {u: _strict(m for j, m in met if j.use_case == u) for u in use_cases}
    gold = [m for j in own if j.status == "gold" for m in meet(j, key_of[j.prompt_id])]
    first = _by_prompt(work)
    repeats = [m for j in own if j.status == "repeat" for m in meet(j, first[j.prompt_id])]
    return LabelerQuality(
        labeler_id=name,
        labels=len(work),
        others=_strict(m for _, m in met),
        by_use_case={u: estimate for u, estimate in by_use_case.items() if estimate},
        gold=_strict(gold),
        repeats=_strict(repeats),
        drift=_difference(
            _strict(m for j, m in met if turn[j.label_id] >= len(work) - third),
            _strict(m for j, m in met if turn[j.label_id] < third),
        ),
        habits=habits_of(work),
    )


def _habits(j: Judgement) -> Iterator[tuple[str, list[float]]]:
    """The name of each habit, with what this one label says of it."""
    if j.words:
        yield "seconds", [j.active_ms / 1000 / (j.words / 100)]
    if not j.ranking:
        return
    ranks, best = j.ranking.ranks(), j.ranking.tiers[0]
    if j.order:
        yield "first_shown", [(j.order[0] in best) / len(best) - 1 / len(ranks)]
    if j.lengths:
        tau = stats.kendall_tau_b([j.lengths[r] for r in ranks], [-rank for rank in ranks.values()])
        yield "longer", [] if math.isnan(tau) else [tau]  # nan: all tied, or all of one length
    yield "ties", [float(a == b) for a, b in combinations(ranks.values(), 2)]
    overall = {r.response_id: r.overall for r in j.ratings}
    rated = [pair for pair in j.ranking.pairs() if overall.keys() >= set(pair)]
    yield "inversions", [float(overall[better] < overall[worse]) for better, worse in rated]


def _meetings(judgements: Iterable[Judgement]) -> Iterator[Meeting]:
    """Every two accepted or surplus labels of one prompt by two labelers."""
    for panel in panels(j for j in judgements if j.status in INDEPENDENT):
        yield from panel.meetings()


def _said(meetings: Sequence[Meeting]) -> tuple[Array, Array, list[str]]:
    """What the first says of every two responses, what the second, and the prompt of each."""
    if not meetings:
        return np.empty(0), np.empty(0), []
    first, second = np.concatenate([m.said for m in meetings], axis=1)
    return first, second, [m.one.prompt_id for m in meetings for _ in m.said[0]]


def _taus(meetings: Sequence[Meeting]) -> tuple[list[float], list[str]]:
    """Kendall's tau-b of two rankings, from their pairs; left out if one of them ties all."""
    found: list[float] = []
    prompts: list[str] = []
    for meeting in meetings:
        a, b = meeting.said
        if scale := math.sqrt(np.count_nonzero(a) * np.count_nonzero(b)):
            found.append(float((a * b).sum()) / scale)
            prompts.append(meeting.one.prompt_id)
    return found, prompts


def _by_prompt(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = defaultdict(list)
    for j in judgements:
        groups[j.prompt_id].append(j)
    return groups


def _table(parts: Sequence[Array]) -> Array:
    """The parts (labels, items) side by side, filled up with nan below."""
    table = np.full((max(map(len, parts), default=0), sum(p.shape[1] for p in parts)), math.nan)
    start = 0
    for part in parts:
        table[: len(part), start : start + part.shape[1]] = part
        start += part.shape[1]
    return table[:, (~np.isnan(table)).sum(axis=0) > 1]


def _alpha(table: Array, level: Level) -> float:
    return stats.krippendorff_alpha(table, level) if table.size else math.nan


def _fleiss(orders: Array) -> float:
    counts = np.stack([(orders == order).sum(axis=0) for order in (-1, 0, 1)], axis=1)
    judged = set(counts.sum(axis=1).tolist())
    return stats.fleiss_kappa(counts) if len(judged) == 1 else math.nan


def _strict(meetings: Iterable[Meeting]) -> Estimate | None:
    first, second, prompts = _said(list(meetings))
    ordered = np.flatnonzero(first * second)
    alike = (first == second)[ordered]
    return _estimate(alike, [prompts[pair] for pair in ordered], stats.win_rate)


def _estimate(values: ArrayLike, prompts: Sequence[str], estimate: Mean) -> Estimate | None:
    """The mean, clustered by prompt; None without values."""
    return estimate(values, prompts) if prompts else None


def _difference(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    """one - other; its interval is made of both intervals [Zou and Donner 2008]."""
    if not (one and other):
        return None
    mean = one.mean - other.mean
    return Estimate(
        mean,
        math.hypot(one.stderr, other.stderr),
        mean - math.hypot(one.mean - one.low, other.high - other.mean),
        mean + math.hypot(one.high - one.mean, other.mean - other.low),
        one.n + other.n,
        one.clusters + other.clusters,
    )
