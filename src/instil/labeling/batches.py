"""Batches: what a lead starts. Files of prompts and responses become tasks with seats.

Everything happens in one transaction: a file with one bad line leaves no trace. What of the files a
batch takes, `planning` says; what it leaves out is counted by reason and kept with it.

Batches of purpose gold and screening have no seats of their own: gold is slipped in between other
work, screening is for candidates, and what leads label there is the key.

    counts = create(db, lead, Plan(name="round 1", kind="ranking"), prompts, [responses])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from instil.errors import InstilError
from instil.jsonl import content_id
from instil.labeling import audit, planning, schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.labeling.planning import EXPECTED, Plan
from instil.records import Kind, Prompt, Purpose

__all__ = ["Counts", "Plan", "Progress", "Seats", "State", "create", "progress", "set_state"]

CHUNK = 500
"""Rows in one statement."""

NAMING = 50
"""Texts naming their author that a batch remembers: to look for them takes minutes a million."""

STORING = 1203021551
"""PostgreSQL's advisory lock of those who put prompts and responses into the database, or take them
out: two that touch the same rows in another order would wait for each other for ever."""

State = Literal["open", "paused", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the files."""

    batch_id: str
    tasks: int
    seats: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> prompts or responses that are not in the batch."""
    few: int = 0
    """Tasks for training of fewer than 4 responses."""
    named_authors: int = 0
    """Responses whose text says which model wrote it; labelers see it."""
    naming: tuple[str, ...] = ()
    """Ids of the first of them, for the lead to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """Labels wanted of one pool. A seat whose holder's time is over is free."""

    free: int = 0
    held: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a batch is."""

    batch_id: str
    name: str
    kind: Kind
    purpose: Purpose
    state: State
    baseline: str
    created_at: int
    plan: Plan | None
    counts: Counts | None
    tasks: int
    pools: Mapping[str, Seats]
    labels: Mapping[str, int]
    """Status -> labels; a revised label counts once."""
    flagged: int
    """Tasks that a labeler flagged for the lead."""


class Kept(msgspec.Struct):
    """What the column `plan` holds."""

    plan: Plan
    counts: Counts


def create(
    db: Database,
    by: Account | None,
    plan: Plan,
    prompts: Path | None,
    responses: Sequence[Path] = (),
) -> Counts:
    """Make a batch of the prompts and responses in these files, or none at all.

    by         who starts it; None: somebody at the command line
    prompts    Prompt records; None for kind prompt
    responses  Response records, a file or more of each policy; also Demonstration records, which
               count as a policy called "demonstration" and are never shown to their author

    Raises InstilError for a bad line (with file, line and field), for a prompt or response that
    the database has with other content, if nothing is left, and for a batch that is there already.
    """
    found = planning.read(plan, prompts, responses)
    content = planning.content_hash(plan, found)
    batch_id = f"b-{content[:16]}"
    few = sum(len(answers) < EXPECTED for answers in found.tasks.values())
    ids = {prompt_id: content_id("t", batch_id, prompt_id) for prompt_id in found.tasks}
    unasked = [content_id("t", batch_id, str(number)) for number in range(plan.tasks)]
    pools = ["training"] * plan.quota_training + ["held-out"] * plan.quota_held_out
    if plan.purpose not in planning.SPLITS:
        pools = []
    work = {"kind": plan.kind, "purpose": plan.purpose}
    named = [one.id for answers in found.tasks.values() for one in answers if one.named]
    counts = Counts(
        batch_id=batch_id,
        tasks=len(ids) + len(unasked),
        seats=len(pools) * (len(ids) + len(unasked)),
        left_out=found.left_out,
        few=few if plan.kind in planning.COMPARES and plan.purpose == "training" else 0,
        named_authors=len(named),
        naming=tuple(named[:NAMING]),
    )
    with db.write() as connection:
        take_turn(connection)
        now = db.now()
        _insert_batch(connection, plan, counts, content, by, now)
        _store(connection, schema.prompt, (_prompt_row(found.prompts[i]) for i in found.tasks))
        _store(connection, schema.response, _response_rows(connection, found, responses))
        rows = [(task, prompt) for prompt, task in ids.items()] + [(t, None) for t in unasked]
        _insert(
            connection,
            schema.task,
            ({"id": t, "batch_id": batch_id, "prompt_id": prompt, **work} for t, prompt in rows),
        )
        _insert(
            connection,
            schema.task_response,
            (
                {"task_id": ids[prompt], "place": place, "response_id": answer.id}
                for prompt, answers in found.tasks.items()
                for place, answer in enumerate(answers)
            ),
        )
        seat = {"reason": "quota", "priority": plan.priority, **work}
        _insert(
            connection,
            schema.seat,
            ({"task_id": task, "pool": pool, **seat} for task, _ in rows for pool in pools),
        )
        actor = by.id if by else ""
        audit.append(connection, actor, "batch.create", batch_id, content.encode(), now)
    return counts


def progress(db: Database, batch_id: str | None = None) -> list[Progress]:
    """How far each batch is, the newest first; of one batch if it is named (none if unknown)."""
    batch, task, seat = schema.batch, schema.task, schema.seat
    label, message = schema.label, schema.message
    one = batch.c.id == batch_id if batch_id is not None else sa.true()
    joined = batch.join(task, task.c.batch_id == batch.c.id)
    seats: dict[str, dict[str, Counter[str]]] = {}
    labels: dict[str, Counter[str]] = {}
    with db.read() as connection:
        over = (seat.c.state == "held") & (seat.c.expires_at <= db.now())
        state = sa.case((over, "free"), else_=seat.c.state).label("effective")
        for found, pool, now, number in connection.execute(
            sa.select(batch.c.id, seat.c.pool, state, sa.func.count())
            .select_from(joined.join(seat, seat.c.task_id == task.c.id))
            .where(one, seat.c.reason == "quota")
            .where((task.c.state == "open") | (seat.c.state == "done"))
            .group_by(batch.c.id, seat.c.pool, sa.text("effective"))
        ):
            seats.setdefault(found, {}).setdefault(pool, Counter())[now] = number
        for found, status, number in connection.execute(
            sa.select(batch.c.id, label.c.status, sa.func.count())
            .select_from(joined.join(label, label.c.task_id == task.c.id))
            .where(one, label.c.revision == 1)
            .group_by(batch.c.id, label.c.status)
        ):
            labels.setdefault(found, Counter())[status] = number
        flagged = _by_batch(
            connection,
            sa.select(batch.c.id, sa.func.count(message.c.task_id.distinct()))
            .select_from(joined.join(message, message.c.task_id == task.c.id))
            .where(one, message.c.flag)
            .group_by(batch.c.id),
        )
        tasks = _by_batch(
            connection,
            sa.select(batch.c.id, sa.func.count())
            .select_from(joined)
            .where(one)
            .group_by(batch.c.id),
        )
        batches = connection.execute(
            sa.select(batch).where(one).order_by(batch.c.created_at.desc(), batch.c.id)
        ).all()
    made = []
    for row in batches:
        kept = None if row.plan == "{}" else msgspec.json.decode(row.plan, type=Kept)
        made.append(
            Progress(
                batch_id=row.id,
                name=row.name,
                kind=row.kind,
                purpose=row.purpose,
                state=row.state,
                baseline=row.baseline,
                created_at=row.created_at,
                plan=kept.plan if kept else None,
                counts=kept.counts if kept else None,
                tasks=tasks.get(row.id, 0),
                pools={p: Seats(**c) for p, c in sorted(seats.get(row.id, {}).items())},
                labels=labels.get(row.id, Counter()),
                flagged=flagged.get(row.id, 0),
            )
        )
    return made


def take_turn(connection: sa.Connection) -> None:
    """Wait until no other transaction stores or removes prompts; SQLite's writers wait anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(STORING)))


def _by_batch(connection: sa.Connection, counts: sa.Select) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(counts)}


def set_state(db: Database, by: Account, batch_id: str, state: State) -> None:
    """Open, pause or close a batch: only the tasks of open ones are handed out."""
    if state not in get_args(State):
        raise InstilError(f"state {state!r} is one of {', '.join(get_args(State))}")
    with db.write() as connection:
        found = connection.execute(
            schema.batch.update().where(schema.batch.c.id == batch_id).values(state=state)
        )
        if not found.rowcount:
            raise InstilError(f"batch {batch_id}: is not in this database")
        audit.append(connection, by.id, "batch.state", batch_id, state.encode(), db.now())


def _insert_batch(
    connection: sa.Connection,
    plan: Plan,
    counts: Counts,
    content: str,
    by: Account | None,
    now: int,
) -> None:
    batch = schema.batch
    row = {
        "id": counts.batch_id,
        "name": plan.name,
        "kind": plan.kind,
        "purpose": plan.purpose,
        "baseline": plan.baseline,
        "plan": msgspec.json.encode(Kept(plan, counts)).decode(),
        "content_hash": content,
        "created_by": by and by.id,
        "created_at": now,
    }
    made = _unless_there(connection, batch).values(**row).returning(batch.c.id)
    if connection.execute(made).scalar() is None:
        name = connection.execute(
            sa.select(batch.c.name).where(batch.c.content_hash == content)
        ).scalar()
        raise InstilError(f"batch {name!r} ({counts.batch_id}) has these very tasks already")


def _prompt_row(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "text": prompt.text,
        "source": prompt.source,
        "user_id": prompt.user_id,
        "use_case": prompt.use_case,
        "split": prompt.split,
        "meta": msgspec.json.encode(prompt.meta, order="sorted").decode(),
    }


def _response_rows(
    connection: sa.Connection, content: planning.Content, paths: Sequence[Path]
) -> Iterator[dict[str, Any]]:
    """The chosen responses, read again."""
    chosen = {one.id: one.digest for answers in content.tasks.values() for one in answers}
    known = set(connection.execute(sa.select(schema.labeler.c.id)).scalars())
    for path in paths:
        for response, author in planning.responses_in(path):
            if response.id not in chosen:
                continue
            if planning.digest(response.text) != chosen.pop(response.id):
                raise InstilError(f"{path}: was changed while it was read; start again")
            yield {
                "id": response.id,
                "prompt_id": response.prompt_id,
                "text": response.text,
                "policy": response.policy,
                "sampling": msgspec.json.encode(response.sampling, order="sorted").decode(),
                "author_id": author if author in known else None,
            }
    if chosen:
        raise InstilError(f"{min(chosen)}: is no longer in the files; start again")


def _store(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    """Insert what is new; what the database has already must be the same."""
    for some in _chunks(rows):
        _insert(connection, table, some)
        wanted = {row["id"]: row for row in some}
        for stored in connection.execute(sa.select(table).where(table.c.id.in_(wanted))).mappings():
            row = wanted[stored["id"]]
            if row.get("author_id", "") is None:  # an export's responses do not say who wrote them
                del row["author_id"]
            if differ := [name for name, value in row.items() if stored[name] != value]:
                raise InstilError(
                    f"{table.name} {stored['id']}: the database has it with another "
                    f"{' and '.join(differ)}; give what differs an id of its own"
                )


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows; those that are there already stay as they are."""
    for some in _chunks(rows):
        connection.execute(_unless_there(connection, table), some)


def _unless_there(connection: sa.Connection, table: sa.Table) -> Any:
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while some := list(islice(remaining, CHUNK)):
        yield some
