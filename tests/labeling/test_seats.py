"""The statements on seats, as SQL and as they plan."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from instil.labeling import schema, seats


def sql(dialect, **changed):
    given = {"labeler_id": "l", "kind": "ranking", "pool": "training", "now": 5, "until": 9}
    statement = seats.claim_statement(**{**given, "token": "t", **changed})
    return str(statement.compile(dialect=dialect.dialect()))


def test_a_claim_is_one_statement_that_waits_for_nobody():
    on_postgres = sql(postgresql)
    assert on_postgres.startswith("UPDATE seat SET ")
    assert "FOR UPDATE OF seat SKIP LOCKED" in on_postgres
    assert on_postgres.endswith("RETURNING seat.id")
    assert "FOR UPDATE" not in sql(sqlite)


def test_the_next_seat_is_found_by_its_index(small):
    """However many are done: the index holds open seats alone, in the order of their turn."""
    small.batch("ranking", tasks=50)
    statement = seats.claim_statement("l-ann", "ranking", "training", 5, 9, "t")
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with small.db.read() as connection:
        plan = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {compiled}")).all()
    steps = "\n".join(row[3] for row in plan)
    assert "SEARCH seat USING INDEX seat_open (kind=? AND pool=?)" in steps
    assert "TEMP B-TREE" not in steps and "SCAN" not in steps


def test_each_condition_keeps_a_seat_from_being_taken(store):
    """One seat; each way of it not being open, alone, hides it."""
    (task,) = store.batch("ranking")
    db, seat = store.db, schema.seat
    now = db.now()

    def count(labeler="l-ann", pool="training", at=now):
        with db.read() as connection:
            return len(connection.execute(seats.open_seats(labeler, pool, at)).all())

    def change(table, **values):
        with db.write() as connection:
            connection.execute(table.update().values(**values))

    assert count() == 1 and count(pool="held-out") == 0
    change(schema.batch, state="closed")
    assert count() == 0
    change(schema.batch, state="open")
    change(schema.task, state="retired")
    assert count() == 0
    change(schema.task, state="open")
    change(schema.response, author_id="l-ann")
    assert count() == 0 and count("l-bob") == 1
    change(schema.response, author_id=None)
    change(seat, state="held", labeler_id="l-bob", token="t", expires_at=now + 1)
    assert count() == 0 and count(at=now + 1) == 1
    assert count("l-bob", at=now + 1) == 0  # bob's own is renewed, not taken
    change(seat, state="done")
    assert count(at=now + 1) == 0
    change(seat, state="free", labeler_id=None, token=None, expires_at=None, reason="gold")
    assert count() == 0
    assert task == "t0-0"
