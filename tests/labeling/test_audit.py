"""The log shows that it was changed, wherever that was."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import audit, schema
from instil.labeling.database import Database

FLIPS = 200
EVENTS = 40


def write(db: Database, count: int = EVENTS) -> None:
    for number in range(count):
        with db.write() as connection:
            detail = f"detail {number}".encode()
            audit.append(
                connection, f"l-{number % 3}", "label.keep", f"a-{number}", detail, db.now()
            )


def first_bad(db: Database) -> int | None:
    with db.read() as connection:
        return audit.first_bad(connection)


def drop_triggers(connection: sa.Connection) -> None:
    on = " ON audit" if connection.dialect.name == "postgresql" else ""
    connection.exec_driver_sql(f"DROP TRIGGER audit_update{on}")
    connection.exec_driver_sql(f"DROP TRIGGER audit_delete{on}")


def test_a_log_that_nobody_touched(db):
    assert first_bad(db) is None
    write(db)
    assert first_bad(db) is None
    with db.read() as connection:
        events = audit.newest(connection)
        assert [event.seq for event in events] == list(range(EVENTS, 0, -1))
        assert audit.head(connection) == f"{EVENTS}:{events[0].hash}"
        assert [e.seq for e in audit.newest(connection, before=11, limit=3)] == [10, 9, 8]
        previous = sa.select(schema.audit.c.previous).order_by(schema.audit.c.seq)
        chain = connection.execute(previous).scalars().all()
    assert chain == ["", *(event.hash for event in reversed(events))][:-1]


def test_every_change_is_found(db):
    write(db)
    rng = random.Random(7)
    columns = [column.name for column in schema.audit.columns]
    kinds = {"field": 0, "deleted": 0, "cut": 0, "head": 0}
    for _ in range(FLIPS):
        kind = rng.choice(list(kinds))
        kinds[kind] += 1
        row = rng.randint(1, EVENTS)
        here = schema.audit.c.seq == row
        with db.engine.connect() as connection, connection.begin() as transaction:
            drop_triggers(connection)
            if kind == "field":
                column = schema.audit.c[rng.choice(columns)]
                old = connection.execute(sa.select(column).where(here)).scalar_one()
                new = old + 1000 if isinstance(old, int) else flipped(old, rng)
                connection.execute(schema.audit.update().where(here).values({column: new}))
            elif kind == "deleted":
                connection.execute(schema.audit.delete().where(here))
            elif kind == "cut":
                connection.execute(schema.audit.delete().where(schema.audit.c.seq >= row))
            else:
                row = EVENTS + 1
                head = schema.setting.c.name == "audit_head"
                new = flipped(audit.head(connection), rng)
                connection.execute(schema.setting.update().where(head).values(value=new))
            assert audit.first_bad(connection) == row
            transaction.rollback()
    assert sum(kinds.values()) == FLIPS and min(kinds.values()) > FLIPS / 8
    assert first_bad(db) is None


def flipped(text: str, rng: random.Random) -> str:
    """The text with one character changed; one more if there is none."""
    place = rng.randrange(len(text) or 1)
    return text[:place] + chr(ord(text[place : place + 1] or "a") ^ 1) + text[place + 1 :]


def test_two_events_that_read_alike_end_to_end_have_other_hashes():
    assert audit._hash("", [1, 2, "ab", "c", "d", "e"]) != audit._hash(
        "", [1, 2, "a", "bc", "d", "e"]
    )


def test_the_database_refuses_to_change_the_log(db):
    write(db, 2)
    for statement in (schema.audit.update().values(actor_id="x"), schema.audit.delete()):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), db.write() as connection:
            connection.execute(statement)
    assert first_bad(db) is None


def test_what_is_not_kept_is_not_in_the_log(db):
    write(db, 2)
    with suppress(KeyError), db.write() as connection:
        audit.append(connection, "l-1", "label.keep", "a-9", b"", db.now())
        raise KeyError
    write(db, 1)
    assert first_bad(db) is None
    with db.read() as connection:
        assert [event.object_id for event in audit.newest(connection)] == ["a-0", "a-1", "a-0"]


def test_many_at_once_make_one_chain(db):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: write(db, 5), range(8)))
    assert first_bad(db) is None
    with db.read() as connection:
        events = audit.newest(connection)
    assert len(events) == 40
    assert all(later.seq == earlier.seq + 1 for later, earlier in pairwise(events))


def test_the_log_keeps_no_words(lite):
    with lite.write() as connection:
        audit.append(connection, "l-1", "task.message", "t-1", b"my phone is 555", lite.now())
        row = connection.execute(sa.select(schema.audit)).mappings().one()
    assert "555" not in str(dict(row))


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_where_the_log_ends(url, db, capsys):
    write(db, 3)
    audit.run(audit.Config(db=url))
    printed = capsys.readouterr().out
    with db.read() as connection:
        end = audit.head(connection)
    assert printed == f"3 events, each as it was written\nend of the log: {end}\n"
    write(db, 2)
    audit.run(audit.Config(db=url, noted=end))


def test_the_command_names_the_first_bad_event(url, db):
    write(db, 5)
    with db.write() as connection:
        drop_triggers(connection)
        third = schema.audit.update().where(schema.audit.c.seq == 3)
        connection.execute(third.values(actor_id="l-somebody-else"))
    with pytest.raises(InstilError, match="audit event 3 is missing or is not as it was written"):
        audit.run(audit.Config(db=url))


def test_a_chain_made_anew_is_found_by_an_end_noted_before(url, db):
    write(db, 5)
    with db.read() as connection:
        end = audit.head(connection)
    with db.write() as connection:
        drop_triggers(connection)
        connection.execute(schema.audit.delete())
        connection.execute(
            schema.setting.update()
            .where(schema.setting.c.name == "audit_head")
            .values(value=audit.EMPTY)
        )
    write(db, 4)
    audit.run(audit.Config(db=url))
    with pytest.raises(InstilError, match="audit event 5 is missing"):
        audit.run(audit.Config(db=url, noted=end))
    write(db, 2)
    with pytest.raises(InstilError, match="audit event 5 is missing"):
        audit.run(audit.Config(db=url, noted=end))
    with pytest.raises(InstilError, match="--noted 5: give it as printed"):
        audit.run(audit.Config(db=url, noted="5"))
