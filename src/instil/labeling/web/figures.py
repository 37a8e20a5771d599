"""Figures for the lead's pages: what the store holds, through quality, screening and outcomes.

A page never shows a mean without its interval and its n: `shown` says all three. Everything here
reads within one transaction and in one query a question.

With it comes numpy, some 12 MB: handlers import it when they are asked for figures.

`evaluation` takes seconds with many labels: `stamp` says whether it would find anything new.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from instil.errors import InstilError
from instil.labeling import outcomes, schema, screening
from instil.labeling.quality import INDEPENDENT, Mean, mean_within
from instil.labeling.schema import label, labeler, response, score, task, task_response
from instil.records import FLAGS, Annotation, Ranking, Rating, ToxicityRating
from instil.stats import Estimate, win_rate

Unit = Literal["percent", "points", "number", "seconds"]

PAPER = {"training": (0.726, 0.015), "held-out": (0.773, 0.013)}
"""Agreement of the labelers of each pool, and its standard error  [Ouyang et al. 2022, 3.4]."""

TOXICITY = {"output_toxicity": (0, 2), "relative_toxicity": (-1, 1), "continuity": (1, 7)}
"""Questions on toxicity, and the least and the most that an answer may be."""

ROUNDS = 200
"""How often prompts are redrawn for the intervals of strengths."""


class Shown(NamedTuple):
    """An estimate as a page says it. `low` and `high` are nan where there is no interval."""

    value: str
    interval: str
    counts: str
    mean: float
    low: float
    high: float


def shown(estimate: Estimate, unit: Unit = "percent", clusters: str = "prompts") -> Shown:
    """The words for an estimate: 0.726 is 72.6 % (percent) or +72.6 (points)."""
    ends = (estimate.low, estimate.high)
    if any(map(math.isnan, ends)):
        interval = "no interval yet"
    else:
        interval = " to ".join(_number(end, unit) for end in ends)
    one = clusters.removesuffix("s") if estimate.clusters == 1 else clusters
    return Shown(
        value=_number(estimate.mean, unit) + (" %" if unit == "percent" else ""),
        interval=interval,
        counts=f"n = {estimate.n:,} from {estimate.clusters:,} {one}",
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
    )


def _number(value: float, unit: Unit) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    form = {"percent": ".1f", "points": "+.1f", "number": ".2f", "seconds": ".1f"}[unit]
    scale = 100 if unit in ("percent", "points") else 1
    text = format(value * scale, form)
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


class Payload(msgspec.Struct):
    """What figures read of a stored label; the rest of it is passed over."""

    ranking: Ranking | None = None
    ratings: tuple[Rating, ...] = ()
    toxicity: tuple[ToxicityRating, ...] = ()
    annotation: Annotation | None = None


_payload = msgspec.json.Decoder(Payload)


class Work(NamedTuple):
    """One label that counts for its batch."""

    pool: str
    prompt_id: str
    said: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the policies of one batch did, as far as it has come. Clustered by prompt."""

    labels: Mapping[str, int]
    """Pool -> labels in it."""
    policies: Sequence[str]
    baseline: str
    win_rates: Mapping[str, Mapping[str, Estimate]]
    """Pool, or `all` -> policy -> how often it is preferred to the baseline."""
    strengths: Mapping[str, Estimate]
    overall: Mapping[str, Estimate]
    """Policy -> mean rating, 1 to 7."""
    flags: Mapping[str, Mapping[str, Estimate]]
    """Flag that anybody set -> policy -> share of its ratings that have it."""
    toxicity: Mapping[str, Mapping[str, Estimate]]
    """Question -> policy -> mean answer."""
    problems: Sequence[str] = field(default=())
    """Why a figure is not there yet, for the reader."""


def last_revision() -> sa.ColumnElement[bool]:
    """True of a label that no later revision replaced."""
    later = label.alias()
    newest = sa.select(sa.func.max(later.c.revision)).where(
        later.c.assignment_id == label.c.assignment_id
    )
    return label.c.revision == newest.scalar_subquery()


def stamp(connection: sa.Connection, batch_id: str) -> tuple[int, int, str]:
    """How many labels a batch has, the time of the last, the greatest id: another, if any changed.

    Labels only come, and go with a user's data.
    """
    found = connection.execute(
        sa.select(sa.func.count(), sa.func.max(label.c.created_at), sa.func.max(label.c.id))
        .join(task, task.c.id == label.c.task_id)
        .where(task.c.batch_id == batch_id)
    ).one()
    return found[0], found[1] or 0, found[2] or ""


def work_of(connection: sa.Connection, batch_id: str) -> Iterator[Work]:
    """The accepted and surplus labels of a batch, each in its last revision; few are in memory."""
    rows = connection.execute(
        sa.select(label.c.pool, task.c.prompt_id, label.c.payload)
        .join(task, task.c.id == label.c.task_id)
        .where(task.c.batch_id == batch_id, label.c.status.in_(INDEPENDENT), last_revision())
        .order_by(label.c.created_at, label.c.id)
        .execution_options(yield_per=500)
    )
    for pool, prompt, payload in rows:
        yield Work(pool, prompt, _payload.decode(payload))


def policies_of(connection: sa.Connection, batch_id: str) -> dict[str, str]:
    """Response id -> policy, for all responses of a batch."""
    rows = connection.execute(
        sa.select(response.c.id, response.c.policy)
        .join(task_response, task_response.c.response_id == response.c.id)
        .join(task, task.c.id == task_response.c.task_id)
        .where(task.c.batch_id == batch_id)
    )
    return {response_id: intern(policy) for response_id, policy in rows}


def evaluation(work: Iterable[Work], policy_of: Mapping[str, str], baseline: str) -> Evaluation:
    """The figures of one batch. `work` is gone through once.

    baseline  a policy; "" leaves the win rates out
    """
    labels: dict[str, int] = defaultdict(int)
    compared: dict[str, outcomes.Comparisons] = defaultdict(lambda: outcomes.Comparisons(policy_of))
    ratings, toxicity = _Rows(2), _Rows(len(TOXICITY))
    for pool, prompt, said in work:
        labels[pool] += 1
        if said.ranking:
            compared["all"].add(said.ranking)
            compared[pool].add(said.ranking)
        for r in said.ratings:
            flagged = sum(1 << FLAGS.index(flag) for flag in r.flags)
            ratings.add(policy_of[r.response_id], prompt, r.overall, flagged)
        for t in said.toxicity:
            toxicity.add(policy_of[t.response_id], prompt, *(getattr(t, q) for q in TOXICITY))
    pools = sorted(labels, reverse=True)  # training, then held-out
    problems: list[str] = []
    win_rates: dict[str, dict[str, Estimate]] = {}
    for name in ("all", *pools) if baseline else ():
        if name in compared:
            try:
                win_rates[name] = outcomes.win_rates(compared[name], baseline)
            except InstilError as error:
                problems.append(f"{name} labelers: {error}" if name != "all" else str(error))
    strengths: dict[str, Estimate] = {}
    if "all" in compared:
        try:
            strengths = outcomes.strengths(compared["all"], ROUNDS, seed=0)
        except InstilError as error:
            problems.append(str(error))
    overall, flags = ratings.column(0), ratings.column(1)
    return Evaluation(
        labels={pool: labels[pool] for pool in pools},
        policies=sorted(set(policy_of.values())),
        baseline=baseline,
        win_rates=win_rates,
        strengths=strengths,
        overall=ratings.by_policy(overall, mean_within(1, 7)),
        flags={
            flag: ratings.by_policy(flags >> place & 1, win_rate)
            for place, flag in enumerate(FLAGS)
            if (flags >> place & 1).any()
        },
        toxicity={
            question: toxicity.by_policy(toxicity.column(place), mean_within(*scale))
            for place, (question, scale) in enumerate(TOXICITY.items())
            if len(toxicity.column(place))
        },
        problems=problems,
    )


class _Rows:
    """Whole numbers, each row of one policy and prompt: 4 bytes a number, as there may be many."""

    def __init__(self, columns: int) -> None:
        self.names: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self.rows, self.width = array("i"), 2 + columns

    def add(self, policy: str, prompt: str, *values: int) -> None:
        of_policy, of_prompt = self.names
        self.rows.append(of_policy.setdefault(policy, len(of_policy)))
        self.rows.append(of_prompt.setdefault(prompt, len(of_prompt)))
        self.rows.extend(values)

    def column(self, place: int) -> NDArray[np.int32]:
        return np.array(self.rows[2 + place :: self.width], np.int32)

    def by_policy(self, values: NDArray[np.int32], estimate: Mean) -> dict[str, Estimate]:
        """From one value a row the mean of each policy, clustered by prompt."""
        policies, prompts = self.column(-2), self.column(-1)
        return {
            policy: estimate(values[policies == number], prompts[policies == number])
            for policy, number in sorted(self.names[0].items())
        }


class Candidate(NamedTuple):
    """Somebody with screening labels, or in the pool of candidates."""

    id: str
    name: str
    pool: str
    active: bool
    tasks: int
    """Screening tasks done."""
    found: screening.Screening


class Written(NamedTuple):
    """A candidate's demonstration, to be scored."""

    label_id: str
    labeler_id: str
    prompt: str
    text: str
    scores: Sequence[int]
    own: int | None
    """The score that the lead who looks at it gave."""


def candidates(connection: sa.Connection, cut_offs: screening.CutOffs) -> list[Candidate]:
    """Everybody who was screened, those to be decided on first, and their four measures."""
    said: dict[tuple[str, str], list[Payload]] = defaultdict(list)
    for person, status, payload in connection.execute(
        sa.select(label.c.labeler_id, label.c.status, label.c.payload).where(
            label.c.purpose == "screening",
            label.c.status.in_(("screening", "key")),
            label.c.kind.in_(("annotation", "ranking")),
            last_revision(),
        )
    ):
        said[status, person].append(_payload.decode(payload))
    done = connection.execute(
        sa.select(label.c.labeler_id, sa.func.count(label.c.assignment_id.distinct()))
        .where(label.c.status == "screening")
        .group_by(label.c.labeler_id)
    )
    tasks: dict[str, int] = dict(done.all())
    scores: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for person, label_id, value in connection.execute(
        sa.select(label.c.labeler_id, score.c.label_id, score.c.value)
        .join(label, label.c.id == score.c.label_id)
        .where(last_revision())
    ):
        scores[person].append((label_id, value))
    keys = [_answers(payloads) for (status, _), payloads in said.items() if status == "key"]
    people = connection.execute(
        sa.select(labeler)
        .where(sa.or_(labeler.c.pool == "candidate", labeler.c.id.in_(tasks)))
        .where(labeler.c.role == "labeler")
        .order_by(labeler.c.pool != "candidate", labeler.c.active.desc(), labeler.c.created_at)
    )
    return [
        Candidate(
            id=row.id,
            name=row.name,
            pool=row.pool,
            active=row.active,
            tasks=tasks.get(row.id, 0),
            found=screening.measures(
                _answers(said["screening", row.id]),
                keys,
                scores[row.id],
                msgspec.json.decode(row.comfort),
                cut_offs,
            ),
        )
        for row in people
    ]


def demonstrations(connection: sa.Connection, lead_id: str) -> list[Written]:
    """The demonstrations of all candidates, those that `lead_id` has not scored first."""
    given: dict[str, dict[str, int]] = defaultdict(dict)
    for label_id, who, value in connection.execute(
        sa.select(score.c.label_id, score.c.lead_id, score.c.value)
    ):
        given[label_id][who] = value
    rows = connection.execute(
        sa.select(label.c.id, label.c.labeler_id, schema.prompt.c.text, label.c.payload)
        .join(task, task.c.id == label.c.task_id)
        .join(schema.prompt, schema.prompt.c.id == task.c.prompt_id)
        .where(label.c.status == "screening", label.c.kind == "demonstration", last_revision())
        .order_by(label.c.created_at, label.c.id)
    )
    written = [
        Written(
            label_id,
            person,
            asked,
            msgspec.json.decode(payload)["demonstration"]["text"],
            list(given[label_id].values()),
            given[label_id].get(lead_id),
        )
        for label_id, person, asked, payload in rows
    ]
    return sorted(written, key=lambda w: w.own is not None)


def _answers(said: Sequence[Payload]) -> screening.Answers:
    annotated = [s.annotation for s in said if s.annotation]
    return screening.answers(
        [s.ranking for s in said if s.ranking],
        [rating for s in said for rating in s.ratings],
        {a.prompt_id: "sensitive" in a.flags for a in annotated},
    )
