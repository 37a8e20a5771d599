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
from typing import Any, Literal, NamedTuple

import numpy as np

from instil import stats
from instil.records import FLAGS, Ranking, Rating
from instil.stats import Estimate

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


class Meeting(NamedTuple):
    """Two labels of one prompt, and what each says of every two responses: see `compare`."""

    one: Judgement
    other: Judgement
    said: list[tuple[int, int]]


def overview(judgements: Iterable[Judgement]) -> Overview:
    """The accepted and surplus labels among `judgements`."""
    work = [j for j in judgements if j.status in INDEPENDENT]

    def within(name: str) -> dict[str, Agreement]:
        kinds = sorted({getattr(j, name) for j in work} - {""})
        return {k: agreement_of(j for j in work if getattr(j, name) == k) for k in kinds}

    return Overview(
        labels=len(work),
        labelers=len({j.labeler_id for j in work}),
        prompts=len({j.prompt_id for j in work}),
        agreement=agreement_of(work),
        habits=habits_of(work),
        by_pool=within("pool"),
        by_use_case=within("use_case"),
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
    said = {two: [said for m in met for said in m.said] for two, met in shared.items()}
    return [
        LabelerPair(*two, _strict(shared[two]), stats.cohen_kappa(*zip(*said[two], strict=True)))
        for two in sorted(shared)
    ]


def agreement_of(judgements: Iterable[Judgement]) -> Agreement:
    """Agreement of the labelers of those `judgements` that are accepted or surplus."""
    groups = _by_prompt(j for j in judgements if j.status in INDEPENDENT).values()
    twice = [j for group in groups if len({j.labeler_id for j in group}) > 1 for j in group]
    ranked = [(j.labeler_id, j.ranking) for j in twice if j.ranking]
    ratings = [rating for j in twice for rating in j.ratings]
    meetings = list(_meetings(twice))
    said = [(a, b, m.one.prompt_id) for m in meetings for a, b in m.said]
    orders = _judged_twice((labeler, _orders(ranking)) for labeler, ranking in ranked)
    places = _judged_twice((labeler, _places(ranking)) for labeler, ranking in ranked)
    overall = _judged_twice((r.labeler_id, {r.response_id: r.overall}) for r in ratings)
    flags = {
        flag: _judged_twice((r.labeler_id, {r.response_id: flag in r.flags}) for r in ratings)
        for flag in FLAGS
        if any(flag in r.flags for r in ratings)
    }
    counts = [[judged.count(order) for order in (-1, 0, 1)] for judged in orders]
    return Agreement(
        strict=_strict(meetings),
        with_ties=_estimate(
            [(1 - abs(a - b) / 2, prompt) for a, b, prompt in said], stats.win_rate
        ),
        same=_estimate([(float(a == b), prompt) for a, b, prompt in said], stats.win_rate),
        tau=_estimate([(tau, m.one.prompt_id) for m in meetings for tau in _tau(m.said)]),
        order_alpha=_alpha(orders, "nominal"),
        rank_alpha=_alpha(places, "ordinal"),
        overall_alpha=_alpha(overall, "interval"),
        flag_alphas={flag: _alpha(judged, "nominal") for flag, judged in flags.items()},
        fleiss=stats.fleiss_kappa(counts) if len(set(map(sum, counts))) == 1 else math.nan,
    )


def habits_of(judgements: Iterable[Judgement]) -> Habits:
    """How all of `judgements` were made; intervals are clustered by prompt."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for j in judgements:
        for name, values in _habits(j):
            found[name] += [(value, j.prompt_id) for value in values]
    return Habits(
        seconds=_estimate(found["seconds"]),
        first_shown=_estimate(found["first_shown"]),
        longer=_estimate(found["longer"]),
        ties=_estimate(found["ties"], stats.win_rate),
        inversions=_estimate(found["inversions"], stats.win_rate),
    )


def compare(one: Ranking, other: Ranking) -> list[tuple[int, int]]:
    """What each says of every two responses of both: -1 the first by id is better, 0 tied, 1."""
    mine, theirs = _orders(one), _orders(other)
    return [(order, theirs[two]) for two, order in mine.items() if two in theirs]


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
    gold = [m for j in own if j.status == "gold" for m in _meet(j, key_of[j.prompt_id])]
    first = _by_prompt(work)
    repeats = [m for j in own if j.status == "repeat" for m in _meet(j, first[j.prompt_id])]
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


def _orders(ranking: Ranking) -> dict[tuple[str, str], int]:
    ranks = sorted(ranking.ranks().items())
    return {(x, y): (a > b) - (a < b) for (x, a), (y, b) in combinations(ranks, 2)}


def _places(ranking: Ranking) -> dict[str, float]:
    """Each response's place, 0 best and 1 worst whatever K; those tied share their mean place."""
    places: dict[str, float] = {}
    last = len(ranking.response_ids()) - 1
    for tier in ranking.tiers:
        places |= dict.fromkeys(tier, (len(places) + (len(tier) - 1) / 2) / last)
    return places


def _meet(one: Judgement, others: Iterable[Judgement]) -> Iterator[Meeting]:
    for other in others:
        if one.ranking and other.ranking and (said := compare(one.ranking, other.ranking)):
            yield Meeting(one, other, said)


def _meetings(judgements: Iterable[Judgement]) -> Iterator[Meeting]:
    """Every two accepted or surplus labels of one prompt by two labelers."""
    for group in _by_prompt(j for j in judgements if j.status in INDEPENDENT).values():
        for place, one in enumerate(group):
            yield from _meet(one, (j for j in group[place + 1 :] if j.labeler_id != one.labeler_id))


def _tau(said: list[tuple[int, int]]) -> list[float]:
    """Kendall's tau-b of two rankings, from their pairs; nothing if one of them ties all."""
    a, b = np.array(said).T
    scale = math.sqrt(float((a @ a) * (b @ b)))
    return [float(a @ b) / scale] if scale else []


def _by_prompt(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = defaultdict(list)
    for j in judgements:
        groups[j.prompt_id].append(j)
    return groups


def _judged_twice(judged: Iterable[tuple[str, Mapping[Any, float]]]) -> list[list[float]]:
    """From (labeler, {item: value}) the values of each item that two labelers judged."""
    items: dict[Any, dict[str, float]] = defaultdict(dict)
    for labeler, values in judged:
        for item, value in values.items():
            items[item][labeler] = value
    return [list(values.values()) for values in items.values() if len(values) > 1]


def _alpha(items: Sequence[Sequence[float]], level: Level) -> float:
    if not items:
        return math.nan
    table = np.full((max(map(len, items)), len(items)), math.nan)
    for place, judged in enumerate(items):
        table[: len(judged), place] = judged
    return stats.krippendorff_alpha(table, level)


def _strict(meetings: Iterable[Meeting]) -> Estimate | None:
    said = [(a == b, m.one.prompt_id) for m in meetings for a, b in m.said if a and b]
    return _estimate([(float(alike), prompt) for alike, prompt in said], stats.win_rate)


def _estimate(
    values: Sequence[tuple[float, str]],
    estimate: Callable[[Sequence[float], Sequence[str]], Estimate] = stats.mean_estimate,
) -> Estimate | None:
    """From (value, prompt) the mean, clustered by prompt; None without values."""
    return estimate([x for x, _ in values], [prompt for _, prompt in values]) if values else None


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
