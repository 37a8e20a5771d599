"""Who is handed what: a seat, held for a while by one labeler.

A seat is one label that is wanted of a task. `claim` takes one in a single statement, so that two
labelers never hold the same, however many servers there are; whoever is away for too long loses it
to the next who asks. The id of an assignment is its fencing token: the seat carries it only while
it is held, so a late answer is known as late.

All that changes a labeler's seats locks that labeler first: two windows of one person take turns,
different people do not wait for each other.

What labelers do not notice: a small share of their tasks are gold (a lead has given the best
answer) or repeats of their own work. Both are handed out only while other work waits, and look
like it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import audit, guidelines, seats
from instil.labeling.accounts import Account
from instil.labeling.blind import Card, cards, order, share
from instil.labeling.database import Database
from instil.labeling.schema import (
    assignment,
    draft,
    guideline,
    labeler,
    prompt,
    response,
    seat,
    task,
    task_response,
)
from instil.labeling.settings import setting
from instil.records import Kind, Purpose

LEASE_MS = 4 * 3_600_000
"""How long a seat is held without a sign of life: longer than any lunch."""

COUNTED = 1_000
"""What waits is counted to here: to count a queue of 20,000 takes longer than all else there."""

_DAY_MS = 24 * 3_600_000


class NotFound(InstilError):
    """There is no such thing, or it is somebody else's; the two are not told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One labeler holding one seat. Nothing in it tells gold and repeats from other work."""

    id: str
    seat_id: int
    task_id: str
    kind: Kind
    purpose: Purpose
    """That of the guidelines, which is what a labeler is told: `training` or `evaluation`."""
    labeler_id: str
    order: tuple[int, ...]
    """Places in the task's own order of responses, the one shown first in front."""
    guideline_id: str
    claimed_at: int
    expires_at: int | None
    """None once the seat is done, given back, or somebody else's."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a labeler sees of a task."""

    prompt_id: str
    """Empty, as is the text, where the labeler is to write a prompt."""
    prompt: str
    cards: tuple[Card, ...]


def claim(
    db: Database, account: Account, kind: Kind, lease_ms: int = LEASE_MS
) -> Assignment | None:
    """Work of this kind: what the labeler holds already, else something new; None without any.

    Raises InstilError if the account is not given this kind of work.
    """
    now = db.now()
    until = now + lease_ms
    with db.write() as connection:
        pool, leads, kinds = lock(connection, account)
        if kind not in kinds:
            raise InstilError(f"{kind} is not among the kinds of work of this account; ask a lead")
        renewed = seats.renew_statement(account.id, kind, until)
        if token := connection.execute(renewed).scalar():
            return find_in(connection, account.id, token)
        token = secrets.token_urlsafe(16)
        given, reason, told = None, "", None
        if leads or pool == "candidate":
            asked = seats.asked_tasks(account.id, leads).where(task.c.kind == kind)
            given = connection.execute(asked.order_by(task.c.batch_id, task.c.id).limit(1)).first()
            reason = "key" if leads else "screening"
        if given is None:
            given, reason, told = _hidden(connection, db, account.id, kind, pool, now)
        if given:
            added = seat.insert().values(
                task_id=given.id,
                kind=kind,
                purpose=given.purpose,
                pool=pool,
                reason=reason,
                state="held",
                labeler_id=account.id,
                token=token,
                epoch=1,
                expires_at=until,
            )
            seat_id = connection.execute(added.returning(seat.c.id)).scalar()
        else:
            taken = seats.claim_statement(account.id, kind, pool, now, until, token)
            seat_id = connection.execute(taken).scalar()
        return _assign(connection, db, seat_id, told, now) if seat_id is not None else None


def find(db: Database, account: Account, assignment_id: str) -> Assignment:
    """An assignment of this account, live or ended. Raises NotFound."""
    with db.read() as connection:
        return find_in(connection, account.id, assignment_id)


def find_in(connection: sa.Connection, labeler_id: str, assignment_id: str) -> Assignment:
    """The same within a transaction."""
    query = (
        sa.select(assignment, task.c.kind, guideline.c.purpose, seat.c.expires_at)
        .join(task, task.c.id == assignment.c.task_id)
        .join(guideline, guideline.c.id == assignment.c.guideline_id)
        .outerjoin(seat, sa.and_(seat.c.token == assignment.c.id, seat.c.state == "held"))
        .where(assignment.c.id == assignment_id, assignment.c.labeler_id == labeler_id)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no such work of yours")
    fields = {name: row[name] for name in Assignment.__slots__ if name != "order"}
    return Assignment(**fields, order=tuple(json.loads(row["display_order"])))


def work(db: Database, held: Assignment) -> Work:
    """What the labeler of an assignment sees."""
    with db.read() as connection:
        return work_in(connection, held)


def work_in(connection: sa.Connection, held: Assignment) -> Work:
    """The same within a transaction: texts and ids of responses, never a policy."""
    asked = sa.select(prompt.c.id, prompt.c.text).join(task, task.c.prompt_id == prompt.c.id)
    found = connection.execute(asked.where(task.c.id == held.task_id)).one_or_none()
    answers = (
        sa.select(response.c.id, response.c.text)
        .join(task_response, task_response.c.response_id == response.c.id)
        .where(task_response.c.task_id == held.task_id)
        .order_by(task_response.c.place)
    )
    responses = [(row.id, row.text) for row in connection.execute(answers)]
    prompt_id, text = found or ("", "")
    return Work(prompt_id, text, tuple(cards(responses, held.order)))


def extend(connection: sa.Connection, assignment_id: str, now: int, lease_ms: int) -> bool:
    """Hold the seat for longer. False: it is done, given back, or somebody else's by now."""
    held = seat.update().where(seat.c.token == assignment_id, seat.c.state == "held")
    return connection.execute(held.values(expires_at=now + lease_ms)).rowcount == 1


def give_back(connection: sa.Connection, assignment_id: str) -> bool:
    """Free the seat for others. False: it is done, given back, or somebody else's by now."""
    held = seat.update().where(seat.c.token == assignment_id, seat.c.state == "held")
    freed = held.values(state="free", labeler_id=None, token=None, expires_at=None)
    return connection.execute(freed).rowcount == 1


def release(db: Database, by: Account, assignment_id: str) -> None:
    """Take a seat from its labeler, so that somebody else is handed the work.

    What the labeler submits later is kept all the same. Raises NotFound if nobody holds the seat.
    """
    with db.write() as connection:
        if not give_back(connection, assignment_id):
            raise NotFound("nobody holds this seat any more; nothing was changed")
        audit.append(connection, by.id, "seat.release", assignment_id, b"", db.now())


def retake(connection: sa.Connection, db: Database, old: Assignment, lease_ms: int) -> Assignment:
    """A new assignment of a task whose seat was given back; its live one, if it has one.

    The draft goes along. Raises InstilError if there is nothing left to do of the task.
    """
    now = db.now()
    held = seats.held_seats(old.labeler_id).where(seat.c.task_id == old.task_id)
    if token := connection.execute(held.with_only_columns(seat.c.token)).scalar():
        return find_in(connection, old.labeler_id, token)
    seat_id = None
    if connection.execute(seats.is_open(old.task_id)).first():
        token = secrets.token_urlsafe(16)
        taken = seats.late_statement(old.labeler_id, old.task_id, old.seat_id, now, token)
        taken = taken.values(state="held", expires_at=now + lease_ms)
        seat_id = connection.execute(taken).scalar()
    if seat_id is None:
        raise InstilError("this task is done or closed by now; go on with another one")
    made = _assign(connection, db, seat_id, old.purpose, now)
    moved = draft.update().where(draft.c.assignment_id == old.id).values(assignment_id=made.id)
    connection.execute(moved)
    return made


def waiting(db: Database, account: Account) -> dict[Kind, int]:
    """How many tasks there are to do of each kind that the account is given, with those in hand,
    and no more than COUNTED.

    Gold tasks and repeats stand in for other work here: those of today are taken off what waits,
    so the number falls by one with each. It says 1 as long as anything waits.
    """
    now = db.now()
    hidden = (
        sa.select(seat.c.kind, sa.func.count())
        .join(assignment, assignment.c.seat_id == seat.c.id)
        .where(
            assignment.c.labeler_id == account.id,
            assignment.c.claimed_at >= now - now % _DAY_MS,
            seat.c.reason.in_(("gold", "repeat")),
        )
        .group_by(seat.c.kind)
    )
    with db.read() as connection:
        pool, leads, kinds = _standing(connection, account)
        off = _counts(connection, hidden)
        held = seats.held_seats(account.id).with_only_columns(seat.c.kind, sa.func.count())
        found = _counts(connection, held.group_by(seat.c.kind))
        queued = seats.open_seats(account.id, pool, now).with_only_columns(seat.c.task_id)
        for kind in kinds:
            some = queued.where(seat.c.kind == kind).distinct().limit(COUNTED + off[kind])
            count = sa.select(sa.func.count()).select_from(some.subquery())
            found[kind] += connection.execute(count).scalar_one()
        if leads or pool == "candidate":
            asked = seats.asked_tasks(account.id, leads)
            asked = asked.with_only_columns(task.c.kind, sa.func.count())
            found += _counts(connection, asked.group_by(task.c.kind))
        left = found - off
    return {kind: min(left[kind], COUNTED) or min(found[kind], 1) for kind in kinds}


def lock(connection: sa.Connection, account: Account) -> tuple[str, bool, Sequence[Kind]]:
    """What `_standing` says of a labeler, all of whose other windows now wait for this one."""
    return _standing(connection, account, wait=True)


def _standing(
    connection: sa.Connection, account: Account, wait: bool = False
) -> tuple[str, bool, Sequence[Kind]]:
    """(pool, is it a lead, kinds of work) as they are now, whatever the session remembers.

    Raises InstilError if the account gets no work at all.
    """
    query = sa.select(labeler.c.pool, labeler.c.role, labeler.c.kinds, labeler.c.active)
    query = query.where(labeler.c.id == account.id)
    row = connection.execute(query.with_for_update(key_share=True) if wait else query).one_or_none()
    if row is None or not row.active or row.role == "viewer":
        raise InstilError("this account is not given work; ask a lead")
    leads = row.role in ("lead", "admin")
    return row.pool, leads, get_args(Kind) if leads else json.loads(row.kinds)


def _hidden(
    connection: sa.Connection, db: Database, labeler_id: str, kind: Kind, pool: str, now: int
) -> tuple[sa.Row[Any] | None, str, Purpose | None]:
    """(task, reason, purpose to tell) of a gold task or a repeat, if it is the turn of one."""
    nothing = None, "", None
    if kind in ("demonstration", "prompt"):
        return nothing  # no two texts can be compared, and one written again would train nobody
    own = sa.select(sa.func.count()).where(assignment.c.labeler_id == labeler_id)
    turn = str(connection.execute(own).scalar())
    draw = share(db.permutation_key, "hidden", labeler_id, turn)
    gold = setting(connection, "gold_share")
    if draw >= gold + setting(connection, "repeat_share"):
        return nothing
    queue = seats.open_seats(labeler_id, pool, now).where(seat.c.kind == kind)
    queue = queue.with_only_columns(seat.c.purpose).order_by(seat.c.priority, seat.c.id).limit(1)
    told = connection.execute(queue).scalar()
    if told is None:
        return nothing
    if draw < gold:
        among = connection.execute(seats.gold_tasks(labeler_id, kind).order_by(task.c.id)).all()
        reason = "gold"
    else:
        before = now - int(setting(connection, "repeat_after_ms"))
        repeated = seats.own_tasks(labeler_id, kind, before)
        among = connection.execute(repeated.order_by(task.c.id)).all()
        reason, told = "repeat", None
    if not among:
        return nothing
    which = share(db.permutation_key, "which", labeler_id, turn)
    return among[int(which * len(among))], reason, told


def _assign(
    connection: sa.Connection, db: Database, seat_id: int, told: Purpose | None, now: int
) -> Assignment:
    """The assignment of a seat that was just taken. told: a purpose, if not the task's own."""
    size = sa.select(sa.func.count()).where(task_response.c.task_id == seat.c.task_id)
    query = sa.select(seat, size.scalar_subquery().label("size")).where(seat.c.id == seat_id)
    row = connection.execute(query).one()
    # a repeat in the order of the first time would be answered from memory
    name = f"{row.task_id} again" if row.reason == "repeat" else row.task_id
    shown = order(db.permutation_key, name, row.labeler_id, row.size)
    given = guidelines.newest(connection, row.kind, told or row.purpose)
    made = Assignment(
        id=row.token,
        seat_id=seat_id,
        task_id=row.task_id,
        kind=row.kind,
        purpose=given.purpose,
        labeler_id=row.labeler_id,
        order=tuple(shown),
        guideline_id=given.id,
        claimed_at=now,
        expires_at=row.expires_at,
    )
    connection.execute(
        assignment.insert().values(
            id=made.id,
            seat_id=seat_id,
            task_id=made.task_id,
            labeler_id=made.labeler_id,
            epoch=row.epoch,
            display_order=json.dumps(shown),
            guideline_id=made.guideline_id,
            claimed_at=now,
        )
    )
    return made


def _counts(connection: sa.Connection, query: sa.Select[Any]) -> Counter[Kind]:
    return Counter({row[0]: row[1] for row in connection.execute(query)})
