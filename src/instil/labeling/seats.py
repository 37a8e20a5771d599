"""The statements on seats: which are open to a labeler, and how one is taken.

Every taking is one UPDATE that chooses and takes at once, and skips seats that another transaction
is just taking: nobody waits, nobody shares. SQLite, where writers take turns, leaves `FOR UPDATE`
out.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from instil.labeling.schema import batch, label, response, seat, task, task_response
from instil.records import Kind, Purpose

_other = seat.alias("other")


def claim_statement(
    labeler_id: str, kind: Kind, pool: str, now: int, until: int, token: str
) -> sa.Update:
    """Takes the next seat for a labeler and returns its id, if there is any."""
    chosen = (
        open_seats(labeler_id, pool, now)
        .with_only_columns(seat.c.id)
        .where(seat.c.kind == kind)
        .order_by(seat.c.priority, seat.c.id)
        .limit(1)
        .with_for_update(of=seat, skip_locked=True)
    )
    return _take(chosen, labeler_id, token).values(state="held", expires_at=until)


def late_statement(
    labeler_id: str, task_id: str, old_seat_id: int, now: int, token: str
) -> sa.Update:
    """Takes another seat like one that was lost; the caller adds what state it is to be in.

    None is taken if the labeler has a seat of that task and reason by now.
    """
    old, own = seat.alias("old"), seat.alias("own")
    has_another = sa.exists().where(
        own.c.task_id == seat.c.task_id,
        own.c.labeler_id == labeler_id,
        own.c.reason == seat.c.reason,
    )
    chosen = (
        sa.select(seat.c.id)
        .join(old, sa.and_(old.c.pool == seat.c.pool, old.c.reason == seat.c.reason))
        .where(old.c.id == old_seat_id, seat.c.task_id == task_id, _is_free(now), ~has_another)
        .order_by(seat.c.id)
        .limit(1)
        .with_for_update(of=seat, skip_locked=True)
    )
    return _take(chosen, labeler_id, token)


def renew_statement(labeler_id: str, kind: Kind, until: int) -> sa.Update:
    """Holds for longer what the labeler holds of a kind, expired or not; returns the token."""
    chosen = held_seats(labeler_id).with_only_columns(seat.c.id).where(seat.c.kind == kind)
    chosen = chosen.order_by(seat.c.id).limit(1).with_for_update(of=seat)
    return (
        seat.update()
        .where(seat.c.id == chosen.correlate(None).scalar_subquery())
        .values(expires_at=until)
        .returning(seat.c.token)
    )


def open_seats(labeler_id: str, pool: str, now: int) -> sa.Select[Any]:
    """Seats of the quota that this labeler could take."""
    return (
        sa.select(seat)
        .join(task, task.c.id == seat.c.task_id)
        .join(batch, batch.c.id == task.c.batch_id)
        .where(
            seat.c.pool == pool,
            seat.c.reason == "quota",
            seat.c.state != "done",  # said again for the partial index
            _is_free(now),
            _is_open(),
            _is_new(labeler_id),
        )
    )


def held_seats(labeler_id: str) -> sa.Select[Any]:
    """Seats that the labeler holds, of any reason, and of work that is not paused."""
    return (
        sa.select(seat)
        .join(task, task.c.id == seat.c.task_id)
        .join(batch, batch.c.id == task.c.batch_id)
        .where(
            seat.c.labeler_id == labeler_id,
            seat.c.state == "held",
            seat.c.state != "done",  # said again for the partial index
            _is_open(),
        )
    )


def asked_tasks(labeler_id: str, leads: bool) -> sa.Select[Any]:
    """Tasks without a quota: screening for candidates; for leads also gold, to give the keys."""
    purposes: tuple[Purpose, ...] = ("screening", "gold") if leads else ("screening",)
    return _tasks().where(_is_for(*purposes), _is_new(labeler_id))


def gold_tasks(labeler_id: str, kind: Kind) -> sa.Select[Any]:
    """Gold tasks that the labeler never saw and a lead has given the key of."""
    key = sa.exists().where(label.c.task_id == task.c.id, label.c.status == "key")
    return _tasks().where(task.c.kind == kind, _is_for("gold"), key, _is_new(labeler_id))


def own_tasks(labeler_id: str, kind: Kind, before: int) -> sa.Select[Any]:
    """Tasks whose accepted label the labeler gave before a time; each is repeated once."""
    given = sa.select(label.c.task_id).where(
        label.c.labeler_id == labeler_id,
        label.c.status == "accepted",
        label.c.revision == 1,
        label.c.created_at <= before,
    )
    again = sa.exists().where(
        label.c.task_id == task.c.id,
        label.c.labeler_id == labeler_id,
        label.c.status.in_(("repeat", "skipped")),
    )
    holds = sa.exists().where(
        _other.c.task_id == task.c.id,
        _other.c.labeler_id == labeler_id,
        _other.c.reason == "repeat",
    )
    return _tasks().where(task.c.kind == kind, task.c.id.in_(given), ~again, ~holds)


def is_open(task_id: str) -> sa.Select[Any]:
    """The task, if it and its batch are open."""
    return _tasks().where(task.c.id == task_id)


def _tasks() -> sa.Select[Any]:
    return sa.select(task).join(batch, batch.c.id == task.c.batch_id).where(_is_open())


def _take(chosen: sa.Select[Any], labeler_id: str, token: str) -> Any:
    return (
        seat.update()
        .where(seat.c.id == chosen.correlate(None).scalar_subquery())
        .values(labeler_id=labeler_id, token=token, epoch=seat.c.epoch + 1)
        .returning(seat.c.id)
    )


def _is_free(now: int) -> sa.ColumnElement[bool]:
    expired = sa.and_(seat.c.state == "held", seat.c.expires_at <= now)
    return sa.or_(seat.c.state == "free", expired)


def _is_open() -> sa.ColumnElement[bool]:
    return sa.and_(task.c.state == "open", batch.c.state == "open")


def _is_for(*purposes: Purpose) -> sa.ColumnElement[bool]:
    """Of `task`; by way of the few batches, for tasks have no index on purpose."""
    some = batch.alias("some")
    return task.c.batch_id.in_(sa.select(some.c.id).where(some.c.purpose.in_(purposes)))


def _is_new(labeler_id: str) -> sa.ColumnElement[bool]:
    """Of `task`: the labeler does not hold it, never labeled or skipped it, wrote none of it."""
    holds = sa.exists().where(_other.c.task_id == task.c.id, _other.c.labeler_id == labeler_id)
    saw = sa.exists().where(label.c.task_id == task.c.id, label.c.labeler_id == labeler_id)
    wrote = sa.exists(
        sa.select(1)
        .select_from(task_response)
        .join(response, response.c.id == task_response.c.response_id)
        .where(task_response.c.task_id == task.c.id, response.c.author_id == labeler_id)
    )
    return sa.and_(~holds, ~saw, ~wrote)
