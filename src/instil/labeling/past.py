"""What was handed in: for the labeler who did, for the figures, for exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from instil.labeling import assign, payloads, seats
from instil.labeling.accounts import Account
from instil.labeling.assign import Assignment
from instil.labeling.database import Database
from instil.labeling.schema import (
    assignment,
    draft,
    label,
    prompt,
    response,
    seat,
    task,
    task_response,
)
from instil.records import Kind, Label, Purpose, Status

if TYPE_CHECKING:
    from instil.labeling.quality import Judgement

JUDGED: tuple[Status, ...] = ("accepted", "surplus", "gold", "repeat")
"""The status of labels that say how well labelers agree; the others have pages of their own."""

_DAY_MS = 24 * 3_600_000
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an assignment has come."""

    status: Literal["open", "done", "skipped"]
    revision: int
    """The newest one; 0 if nothing was handed in."""
    answer: dict[str, Any] | None
    """In letters; None if nothing was handed in, or it was skipped."""
    draft: dict[str, Any]
    """`version`, 0 if there is none, and `content`."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An assignment in hand."""

    id: str
    kind: Kind
    prompt: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Past:
    """The newest revision of an own label, or a skip that was not taken back."""

    assignment_id: str
    kind: Kind
    prompt: str
    revision: int
    skipped: bool
    late: bool
    at: int
    """Milliseconds since 1970, UTC."""


def latest(db: Database, account: Account, assignment_id: str) -> Standing:
    """What a page is opened with. Raises NotFound."""
    with db.read() as connection:
        held = assign.find_in(connection, account.id, assignment_id)
        last = newest(connection, held.id)
        saved = sa.select(draft).where(draft.c.assignment_id == held.id)
        found = connection.execute(saved).one_or_none()
        status: Literal["open", "done", "skipped"] = "open"
        if last is not None:
            status = "skipped" if last.status == "skipped" else "done"
        return Standing(
            status,
            last.revision if last else 0,
            said(connection, held, last),
            {
                "version": found.version if found else 0,
                "content": msgspec.json.decode(found.content) if found else None,
            },
        )


def newest(connection: sa.Connection, assignment_id: str) -> Any:
    """The row of an assignment's newest label, or None."""
    rows = sa.select(label).where(label.c.assignment_id == assignment_id)
    return connection.execute(rows.order_by(label.c.revision.desc()).limit(1)).one_or_none()


def said(connection: sa.Connection, held: Assignment, row: Any) -> dict[str, Any] | None:
    """The answer of a label row, in letters of its assignment; None for none and for a skip."""
    if row is None or row.status == "skipped":
        return None
    shown = assign.work_in(connection, held).cards
    return payloads.letters_of(payloads.load(held.kind, row.payload), shown)


def begun(db: Database, account: Account) -> list[Begun]:
    """What the labeler has in hand, the oldest first."""
    query = (
        seats.held_seats(account.id)
        .with_only_columns(
            seat.c.token.label("id"),
            seat.c.kind,
            sa.func.coalesce(prompt.c.text, "").label("prompt"),
            seat.c.expires_at,
        )
        .outerjoin(prompt, prompt.c.id == task.c.prompt_id)
        .join(assignment, assignment.c.id == seat.c.token)
        .order_by(assignment.c.claimed_at, assignment.c.id)
    )
    with db.read() as connection:
        return [Begun(*row) for row in connection.execute(query)]


def today(db: Database, account: Account) -> int:
    """How many tasks the labeler has done since midnight, UTC; skips do not count."""
    now = db.now()
    done = sa.select(sa.func.count()).where(
        label.c.labeler_id == account.id,
        label.c.revision == 1,
        label.c.status != "skipped",
        label.c.created_at >= now - now % _DAY_MS,
    )
    with db.read() as connection:
        return int(connection.execute(done).scalar_one())


def history(
    db: Database, account: Account, before: int | None = None, limit: int = 50
) -> list[Past]:
    """Own work, the newest first. before: only what was handed in before that time."""
    again = assignment.alias()
    taken_back = sa.exists().where(
        again.c.task_id == label.c.task_id,
        again.c.labeler_id == label.c.labeler_id,
        again.c.claimed_at >= label.c.created_at,
        again.c.id != label.c.assignment_id,
    )
    query = (
        sa.select(
            label.c.assignment_id,
            label.c.kind,
            sa.func.coalesce(prompt.c.text, ""),
            label.c.revision,
            label.c.status == "skipped",
            label.c.status == "surplus",
            label.c.created_at,
        )
        .join(task, task.c.id == label.c.task_id)
        .outerjoin(prompt, prompt.c.id == task.c.prompt_id)
        .where(label.c.labeler_id == account.id, _is_newest())
        .where(sa.or_(label.c.status != "skipped", ~taken_back))
        .order_by(label.c.created_at.desc(), label.c.id)
        .limit(limit)
    )
    if before is not None:
        query = query.where(label.c.created_at < before)
    with db.read() as connection:
        return [Past(*row) for row in connection.execute(query)]


def revisions(db: Database, assignment_id: str) -> list[Label]:
    """All that was handed in for one assignment, the first in front."""
    with db.read() as connection:
        return list(stored(connection, assignment_id=assignment_id))


def stored(
    connection: sa.Connection,
    *,
    kind: Kind | None = None,
    purpose: Purpose | None = None,
    status: Sequence[Status] = (),
    pool: str | None = None,
    batch_id: str | None = None,
    task_id: str | None = None,
    assignment_id: str | None = None,
    labeler_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    only_newest: bool = False,
) -> Iterator[Label]:
    """Labels as they were stored, the oldest first: every revision, unless `only_newest`.

    since, until  milliseconds since 1970: from the first on, before the second

    They are streamed: few are in memory at a time.
    """
    query = _chosen(
        sa.select(label, assignment.c.display_order, assignment.c.guideline_id, task.c.prompt_id),
        kind=kind,
        purpose=purpose,
        status=status,
        pool=pool,
        batch_id=batch_id,
        task_id=task_id,
        assignment_id=assignment_id,
        labeler_id=labeler_id,
        since=since,
        until=until,
    ).order_by(label.c.created_at, label.c.assignment_id, label.c.revision)
    if only_newest:
        query = query.where(_is_newest())
    rows = connection.execute(query.execution_options(yield_per=_AT_A_TIME))
    for some in rows.partitions():
        ids = _ids_of(connection, {row.task_id for row in some})
        for row in some:
            yield Label(
                id=row.id,
                assignment_id=row.assignment_id,
                kind=row.kind,
                purpose=row.purpose,
                status=row.status,
                labeler_id=row.labeler_id,
                pool=row.pool,
                prompt_id=row.prompt_id or "",
                revision=row.revision,
                order=_in_order(row.display_order, ids.get(row.task_id, [])),
                guideline=row.guideline_id,
                active_ms=row.active_ms,
                elapsed_ms=row.elapsed_ms,
                submitted_at=row.created_at,
                payload=msgspec.json.decode(row.payload),
            )


def judgements(
    connection: sa.Connection,
    *,
    kind: Literal["ranking", "toxicity"] = "ranking",
    status: Sequence[Status] = JUDGED,
    use_case: str | None = None,
    beside: str | None = None,
    limit: int | None = None,
    **chosen: Any,
) -> list[Judgement]:
    """The newest revisions of rankings as `quality` takes them, the newest in front.

    beside  a labeler: what others said of the prompts that this one judged
    chosen  purpose, pool, batch_id, labeler_id, since, until, as in `stored`

    `active_ms` is that of all revisions. Words are counted by the blanks between them.
    """
    from instil.labeling.quality import Judgement  # with it comes numpy, which other pages spare

    every = label.alias()
    active = sa.select(sa.func.sum(every.c.active_ms)).where(
        every.c.assignment_id == label.c.assignment_id
    )
    query = _chosen(
        sa.select(
            label,
            assignment.c.display_order,
            task.c.prompt_id,
            prompt.c.use_case,
            _words(prompt.c.text).label("words"),
            active.scalar_subquery().label("active"),
        ),
        kind=kind,
        status=status,
        **chosen,
    )
    query = query.join(prompt, prompt.c.id == task.c.prompt_id).where(_is_newest())
    if use_case is not None:
        query = query.where(prompt.c.use_case == use_case)
    if beside is not None:
        own, of = label.alias(), task.alias()
        judged = sa.select(of.c.prompt_id).join(own, own.c.task_id == of.c.id)
        judged = judged.where(
            own.c.labeler_id == beside, own.c.kind == kind, own.c.status.in_(status)
        )
        query = query.where(label.c.labeler_id != beside, task.c.prompt_id.in_(judged))
    query = query.order_by(label.c.created_at.desc(), label.c.id).limit(limit)
    rows = connection.execute(query.execution_options(yield_per=_AT_A_TIME))
    found = []
    for some in rows.partitions():
        sizes = _sizes(connection, {row.task_id for row in some})
        for row in some:
            payload = payloads.load(row.kind, row.payload)
            assert isinstance(payload, payloads.RankingPayload | payloads.ToxicityPayload)
            shown = sizes[row.task_id]
            found.append(
                Judgement(
                    label_id=row.id,
                    labeler_id=row.labeler_id,
                    prompt_id=row.prompt_id,
                    ranking=payload.ranking,
                    ratings=getattr(payload, "ratings", ()),
                    pool=row.pool,
                    use_case=row.use_case,
                    status=row.status,
                    order=_in_order(row.display_order, list(shown)),
                    lengths={response_id: length for response_id, (length, _) in shown.items()},
                    words=row.words + sum(words for _, words in shown.values()),
                    active_ms=int(row.active),
                    at=row.created_at,
                )
            )
    return found


def _chosen(
    query: sa.Select[Any],
    *,
    status: Sequence[Status] = (),
    batch_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    **equal: str | None,
) -> sa.Select[Any]:
    """Labels, with their task and assignment, of which all that is given holds."""
    query = query.select_from(label).join(task, task.c.id == label.c.task_id)
    query = query.join(assignment, assignment.c.id == label.c.assignment_id)
    for name, value in equal.items():
        if value is not None:
            query = query.where(label.c[name] == value)
    if status:
        query = query.where(label.c.status.in_(status))
    if batch_id is not None:
        query = query.where(task.c.batch_id == batch_id)
    if since is not None:
        query = query.where(label.c.created_at >= since)
    if until is not None:
        query = query.where(label.c.created_at < until)
    return query


def _is_newest() -> sa.ColumnElement[bool]:
    newer = label.alias("newer")
    return ~sa.exists().where(
        newer.c.assignment_id == label.c.assignment_id, newer.c.revision > label.c.revision
    )


def _ids_of(connection: sa.Connection, task_ids: set[str]) -> dict[str, list[str]]:
    """Task -> ids of its responses, in the task's order."""
    rows = sa.select(task_response.c.task_id, task_response.c.response_id)
    rows = rows.where(task_response.c.task_id.in_(task_ids)).order_by(task_response.c.place)
    found: dict[str, list[str]] = {}
    for task_id, response_id in connection.execute(rows):
        found.setdefault(task_id, []).append(response_id)
    return found


def _sizes(connection: sa.Connection, task_ids: set[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Task -> response -> (characters, words), in the task's order; texts stay in the database."""
    found: dict[str, dict[str, tuple[int, int]]] = {task_id: {} for task_id in task_ids}
    rows = sa.select(
        task_response.c.task_id,
        response.c.id,
        sa.func.length(response.c.text),
        _words(response.c.text),
    ).join(response, response.c.id == task_response.c.response_id)
    rows = rows.where(task_response.c.task_id.in_(task_ids)).order_by(task_response.c.place)
    for task_id, response_id, length, words in connection.execute(rows):
        found[task_id][response_id] = length, words
    return found


def _words(text: Any) -> Any:
    blanks = sa.func.replace(sa.func.replace(text, " ", ""), "\n", "")
    return sa.func.length(text) - sa.func.length(blanks) + 1


def _in_order(display_order: str, response_ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(response_ids[place] for place in json.loads(display_order))
