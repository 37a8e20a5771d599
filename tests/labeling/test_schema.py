"""What the database itself refuses, whatever the code above it does."""

from __future__ import annotations

from typing import get_args

import pytest
import sqlalchemy as sa

from instil.labeling import schema
from instil.records import Kind, Purpose, Status

REFUSED = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.InternalError)
"""Triggers raise one on SQLite, another on PostgreSQL."""


def refuses(db, statement, match=None):
    with pytest.raises(REFUSED, match=match), db.write() as connection:
        connection.execute(statement)


def seat_of(store, task):
    with store.db.read() as connection:
        return (
            connection.execute(sa.select(schema.seat.c.id).where(schema.seat.c.task_id == task))
            .scalars()
            .first()
        )


def assignment(task, seat, epoch=1, who="l-ann"):
    return schema.assignment.insert().values(
        id=f"a-{seat}-{epoch}",
        seat_id=seat,
        task_id=task,
        labeler_id=who,
        epoch=epoch,
        display_order="[0,1]",
        guideline_id="g",
        claimed_at=1,
    )


def label(task, seat, epoch=1, who="l-ann", **changed):
    values = {
        "id": f"label-{seat}-{epoch}",
        "assignment_id": f"a-{seat}-{epoch}",
        "seat_id": seat,
        "task_id": task,
        "kind": "ranking",
        "purpose": "training",
        "labeler_id": who,
        "pool": "training",
        "revision": 1,
        "status": "accepted",
        "payload": "{}",
        "idempotency_key": f"k-{seat}-{epoch}",
        "payload_sha256": "",
        "active_ms": 1,
        "elapsed_ms": 1,
        "created_at": 1,
    }
    return schema.label.insert().values({**values, **changed})


@pytest.fixture
def work(store):
    """A task, its seat, and two assignments of it, one after the other."""
    (task,) = store.batch("ranking")
    seat = seat_of(store, task)
    with store.db.write() as connection:
        connection.execute(
            schema.guideline.insert().values(
                **{"id": "g", "kind": "ranking", "purpose": "training", "version": 1},
                **{"text": "x", "sha256": "", "created_at": 1},
            )
        )
        connection.execute(assignment(task, seat, 1))
        connection.execute(assignment(task, seat, 2, "l-bob"))
        connection.execute(label(task, seat))
    return store.db, task, seat


def test_a_second_accepted_label_of_a_seat(work):
    db, task, seat = work
    refuses(db, label(task, seat, 2, "l-bob"))
    with db.write() as connection:  # while late work is kept
        connection.execute(label(task, seat, 2, "l-bob", status="surplus"))


def test_a_label_of_a_held_out_labeler_in_training(work):
    db, task, seat = work
    refuses(db, label(task, seat, 2, "l-hal", pool="held-out", status="surplus"))
    held_out = {"task_id": task, "kind": "ranking", "purpose": "training", "reason": "quota"}
    refuses(db, schema.seat.insert().values(**held_out, pool="held-out"))
    # nor by calling the work another purpose than its task has
    refuses(
        db, schema.seat.insert().values(**{**held_out, "purpose": "evaluation"}, pool="held-out")
    )


def test_the_same_submission_twice(work):
    db, task, seat = work
    again = {"id": "other", "idempotency_key": f"k-{seat}-1"}
    refuses(db, label(task, seat, 1, revision=2, **again))
    refuses(db, label(task, seat, 1, id="other", idempotency_key="other"))
    with db.write() as connection:
        connection.execute(label(task, seat, 1, id="other", idempotency_key="other", revision=2))


@pytest.mark.parametrize(
    ("table", "column"), [("label", "payload"), ("assignment", "display_order")]
)
def test_what_was_kept_does_not_change(work, table, column):
    db, _, _ = work
    changed = schema.metadata.tables[table].update().values({column: "x"})
    refuses(db, changed, match="append-only")


def test_a_labeler_stays_in_the_pool(store):
    def move(name, pool):
        return schema.labeler.update().where(schema.labeler.c.name == name).values(pool=pool)

    for name, pool in (("hal", "training"), ("ann", "held-out"), ("ann", "candidate")):
        refuses(store.db, move(name, pool), match="the pool of a labeler does not change")
    with store.db.write() as connection:
        connection.execute(move("kim", "training"))
        connection.execute(move("hal", "held-out"))
    refuses(store.db, move("kim", "held-out"), match="the pool of a labeler does not change")


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("labeler", {"role": "king"}),
        ("labeler", {"pool": "simulated"}),
        ("batch", {"state": "lost"}),
        ("task", {"state": "lost"}),
        ("seat", {"state": "held"}),  # by nobody
        ("seat", {"labeler_id": "l-ann"}),  # and free
        ("seat", {"reason": "fun"}),
        ("seat", {"labeler_id": "l-nobody", "state": "done", "token": "t"}),
    ],
)
def test_what_has_no_meaning(store, table, values):
    store.batch("ranking")
    refuses(store.db, schema.metadata.tables[table].update().values(values))


@pytest.mark.parametrize(
    "changed", [{"status": "lost"}, {"active_ms": -1}, {"elapsed_ms": -1}, {"labeler_id": "l-no"}]
)
def test_a_label_that_cannot_be(work, changed):
    db, task, seat = work
    refuses(db, label(task, seat, 2, **{"who": "l-bob", "status": "surplus", **changed}))


def test_one_live_seat_of_a_task_and_labeler(store):
    (task,) = store.batch("ranking", training=2)
    held = schema.seat.update().where(schema.seat.c.task_id == task)
    with store.db.read() as connection:
        first, second = connection.execute(
            sa.select(schema.seat.c.id).where(schema.seat.c.task_id == task)
        ).scalars()
    taken = {"state": "held", "labeler_id": "l-ann", "expires_at": 9}
    with store.db.write() as connection:
        connection.execute(held.where(schema.seat.c.id == first).values(token="x", **taken))
    refuses(store.db, held.where(schema.seat.c.id == second).values(token="y", **taken))


def test_kinds_purposes_and_statuses_are_those_of_the_records(db):
    with db.read() as connection:
        inspector = sa.inspect(connection)
        checks = {
            table: " ".join(one["sqltext"] for one in inspector.get_check_constraints(table))
            for table in ("batch", "label")
        }
    for value in (*get_args(Kind), *get_args(Purpose)):
        assert f"'{value}'" in checks["batch"]
    for value in get_args(Status):
        assert f"'{value}'" in checks["label"]
