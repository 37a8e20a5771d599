"""What labelers hand in: labels in revisions, skips, drafts.

A label is never changed: what is handed in again is its next revision. The reply comes after the
transaction is on the disk, and a request that comes twice, because its reply was lost, is
answered as before: the key that the page made for it says that it is the same.

A label of the quota is `accepted` if its seat was still held or another one could be had, else
`surplus`: kept, exported with the raw labels, never counted twice.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import assign, audit, kinds, seats
from instil.labeling.accounts import Account
from instil.labeling.assign import LEASE_MS, Assignment
from instil.labeling.database import Database
from instil.labeling.past import newest, said
from instil.labeling.schema import draft, label, seat

_MOST_ACTIVE_MS = 30 * 24 * 3_600_000


class Stale(InstilError):
    """Another window of the same person was quicker; nothing was kept of this one.

    revision, answer   of the label that stands; answer is None if it was skipped
    version, content   of the draft that stands, where a draft was to be saved
    """

    def __init__(
        self,
        message: str,
        *,
        revision: int = 0,
        answer: dict[str, Any] | None = None,
        version: int = 0,
        content: Any = None,
    ) -> None:
        super().__init__(message)
        self.revision, self.answer = revision, answer
        self.version, self.content = version, content


@dataclass(frozen=True, slots=True)
class Kept:
    """What a labeler is told of a label."""

    label_id: str
    revision: int
    status: Literal["kept", "late"]
    """Late: kept, but others had done the task by then."""


def submit(
    db: Database,
    account: Account,
    assignment_id: str,
    key: str,
    base: int,
    answer: bytes,
    active_ms: int,
) -> Kept:
    """Keep an answer as the next revision.

    key        names this attempt; sent again with the same answer, it gives the same reply
    base       the revision that the page shows, 0 if none was handed in
    active_ms  milliseconds of work since the page was opened

    Raises NotFound; Refused for an incomplete answer; Stale if `base` is not the newest revision.
    """
    now = db.now()
    with db.write() as connection:
        assign.lock(connection, account)
        held = assign.find_in(connection, account.id, assignment_id)
        work = assign.work_in(connection, held)
        payload = kinds.parse(held.kind, answer, work.cards, work.prompt_id, account.id)
        encoded = msgspec.json.encode(payload).decode()
        row = _keep(connection, held, key, base, encoded, now, active_ms)
        return Kept(row.id, row.revision, "late" if row.status == "surplus" else "kept")


def skip(
    db: Database, account: Account, assignment_id: str, key: str, reason: str, note: str = ""
) -> None:
    """Give a task back for good reason; it ends the assignment, and others get the task.

    Raises NotFound; Refused for a reason that is none; Stale if a label was handed in.
    """
    now = db.now()
    payload = kinds.parse_skip(reason, note)
    with db.write() as connection:
        assign.lock(connection, account)
        held = assign.find_in(connection, account.id, assignment_id)
        last = newest(connection, held.id)
        if last is None or last.status != "skipped":
            encoded = msgspec.json.encode(payload).decode()
            _keep(connection, held, key, 0, encoded, now, 0, skipped=True)


def take_back(
    db: Database, account: Account, assignment_id: str, lease_ms: int = LEASE_MS
) -> Assignment:
    """A new assignment of a task that this labeler skipped, with the draft there was.

    Raises NotFound; InstilError if it was not skipped, or nothing is left to do of the task.
    """
    with db.write() as connection:
        assign.lock(connection, account)
        old = assign.find_in(connection, account.id, assignment_id)
        last = newest(connection, old.id)
        if last is None or last.status != "skipped":
            raise InstilError("only a task that was skipped can be taken back; reopen this one")
        return assign.retake(connection, db, old, lease_ms)


def save_draft(
    db: Database,
    account: Account,
    assignment_id: str,
    version: int,
    content: bytes,
    lease_ms: int = LEASE_MS,
) -> int:
    """Keep a draft, a JSON value, and hold the seat for longer. Returns the draft's new version.

    version  the one that the page has seen last, 0 if none

    Raises NotFound; Stale if another window saved one since, or skipped the task.
    """
    now = db.now()
    with db.write() as connection:
        assign.lock(connection, account)
        held = assign.find_in(connection, account.id, assignment_id)
        last = newest(connection, held.id)
        if last is not None and last.status == "skipped":
            raise Stale("this task was skipped in another window", revision=last.revision)
        where = draft.c.assignment_id == held.id
        there = connection.execute(sa.select(draft).where(where)).one_or_none()
        fields = {"version": version + 1, "content": content.decode(), "saved_at": now}
        if there is None:  # also after a label, which takes the draft away
            connection.execute(draft.insert().values(assignment_id=held.id, **fields))
        elif there.version == version:
            connection.execute(draft.update().where(where).values(**fields))
        elif there.content != fields["content"]:
            raise Stale(
                "another window has saved a draft since",
                version=there.version,
                content=msgspec.json.decode(there.content),
            )
        else:  # the same again: the reply was lost
            version = there.version - 1
        assign.extend(connection, held.id, now, lease_ms)
        return version + 1


def _keep(
    connection: sa.Connection,
    held: Assignment,
    key: str,
    base: int,
    payload: str,
    now: int,
    active_ms: int,
    *,
    skipped: bool = False,
) -> Any:
    """The label row that was added, or the one that the same request added before."""
    sha256 = hashlib.sha256(payload.encode()).hexdigest()
    last = newest(connection, held.id)
    before = sa.select(label).where(
        label.c.labeler_id == held.labeler_id, label.c.idempotency_key == key
    )
    if (row := connection.execute(before).one_or_none()) and (
        row.assignment_id == held.id and row.payload_sha256 == sha256
    ):
        return row
    current = last.revision if last else 0
    if row or base != current or (last and last.status == "skipped"):
        raise Stale(
            "another window has handed this in or skipped it since",
            revision=current,
            answer=said(connection, held, last),
        )
    own = connection.execute(sa.select(seat).where(seat.c.id == held.seat_id)).one()
    seat_id = own.id
    if last:
        status, seat_id = last.status, last.seat_id
    elif skipped:
        status = "skipped"
        assign.give_back(connection, held.id)
    elif taken := _finish(connection, held, now):
        status, seat_id = "accepted" if own.reason == "quota" else own.reason, taken
    else:
        status = "surplus"
    added = label.insert().values(
        id=secrets.token_urlsafe(12),
        assignment_id=held.id,
        seat_id=seat_id,
        task_id=held.task_id,
        kind=held.kind,
        purpose=own.purpose,
        labeler_id=held.labeler_id,
        pool=own.pool,
        revision=current + 1,
        status=status,
        payload=payload,
        idempotency_key=key,
        payload_sha256=sha256,
        active_ms=min(max(active_ms, 0), _MOST_ACTIVE_MS),
        elapsed_ms=max(now - held.claimed_at, 0),
        created_at=now,
    )
    row = connection.execute(added.returning(label)).one()
    if not skipped:  # a skipped task that is taken back goes on with its draft
        connection.execute(draft.delete().where(draft.c.assignment_id == held.id))
    action = "label.skip" if skipped else "label.submit"
    audit.append(connection, held.labeler_id, action, row.id, payload.encode(), now)
    return row


def _finish(connection: sa.Connection, held: Assignment, now: int) -> int | None:
    """The seat that a first revision fills: the one that is held, or if lost another; or None."""
    done: dict[str, Any] = {"state": "done", "expires_at": None}
    still = seat.update().where(seat.c.token == held.id, seat.c.state == "held").values(**done)
    found = connection.execute(still.returning(seat.c.id)).scalar()
    if found is None:
        late = seats.late_statement(held.labeler_id, held.task_id, held.seat_id, now, held.id)
        found = connection.execute(late.values(**done)).scalar()
    return found
