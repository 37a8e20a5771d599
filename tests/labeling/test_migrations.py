"""Migrations keep all data, whole or not at all, and end in the tables of schema.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from instil.errors import InstilError
from instil.labeling import accounts, schema, survey
from instil.labeling import database as databases
from instil.labeling.database import VERSIONS, Database, open_existing

SCRIPTS = Path(databases.__file__).parent / "migrations"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        made = Database(tmp_path / "empty.db")
        yield made
        made.close()
        return
    server = request.getfixturevalue("postgres")
    admin = sa.create_engine(
        sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE bare")
        made = Database(sa.make_url(server).set(database="bare").render_as_string(False))
        yield made
        made.close()
        connection.exec_driver_sql("DROP DATABASE bare WITH (FORCE)")
    admin.dispose()


def contents(database: Database) -> dict[str, Any]:
    """All that the database has: tables as they are, and rows."""
    with database.engine.connect() as connection:
        return {
            **tables(connection),
            "triggers": triggers(connection),
            "rows": {
                name: sorted(
                    map(repr, connection.exec_driver_sql(f'SELECT * FROM "{name}"').fetchall())
                )
                for name in sa.inspect(connection).get_table_names()
            },
        }


def tables(connection: sa.Connection) -> dict[str, Any]:
    """What the database says of its tables."""
    inspector = sa.inspect(connection)

    def plain(value: Any) -> Any:
        """Types and conditions as their SQL."""
        if isinstance(value, dict):
            return sorted((key, plain(one)) for key, one in value.items() if key != "comment")
        return SAME.get(str(value), str(value))

    def listed(found: list[Any]) -> list[str]:
        return sorted(repr(plain(one)) for one in found)

    return {
        name: {
            "columns": listed(inspector.get_columns(name)),
            "key": inspector.get_pk_constraint(name)["constrained_columns"],
            "foreign": listed(inspector.get_foreign_keys(name)),
            "unique": listed(inspector.get_unique_constraints(name)),
            "checks": sorted(one["sqltext"] for one in inspector.get_check_constraints(name)),
            "indexes": listed(inspector.get_indexes(name)),
        }
        for name in inspector.get_table_names()
    }


SAME = {"FALSE": "0", "'0'": "0", "TRUE": "1"}
"""Ways of writing a default on SQLite."""


def triggers(connection: sa.Connection) -> list[str]:
    catalog = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if connection.dialect.name == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    return sorted(connection.exec_driver_sql(catalog).scalars())


def fill(database: Database) -> None:
    """Data of the first schema, in every table that has a foreign key to lose."""
    with database.write() as connection:
        for name in ("ann", "bob"):
            connection.execute(
                schema.labeler.insert().values(
                    **{"id": name, "name": name, "name_key": name, "password": "!"},
                    **{"role": "labeler", "pool": "training", "created_at": 1},
                )
            )
        task = {"kind": "ranking", "purpose": "training"}
        for table, values in (
            (schema.batch, {"id": "b", "name": "b", "plan": "{}", "content_hash": "h", **task}),
            (
                schema.prompt,
                {
                    **{"id": "p", "text": "Ünïcode \U0001f600?", "source": "api"},
                    **{"user_id": "u", "use_case": "chat", "split": "train", "meta": "{}"},
                },
            ),
            (schema.task, {"id": "t", "batch_id": "b", "prompt_id": "p", **task}),
            (schema.seat, {"task_id": "t", "pool": "training", "reason": "quota", **task}),
        ):
            made = {"created_at": 1} if "created_at" in table.c else {}
            connection.execute(table.insert().values(**values, **made))


def test_the_versions_are_those_of_the_scripts():
    scripts = ScriptDirectory(str(SCRIPTS))
    oldest_first = reversed([one.revision for one in scripts.walk_revisions()])
    assert tuple(oldest_first) == VERSIONS
    assert schema.HEAD == VERSIONS[-1] == scripts.get_current_head()


def test_they_end_in_the_tables_of_the_schema(empty):
    empty.migrate()
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        migrated = tables(connection)
        assert len(triggers(connection)) == 5
    del migrated["alembic_version"]
    with empty.engine.begin() as connection:  # the same tables as SQLAlchemy makes them
        for name in sa.inspect(connection).get_table_names():
            cascade = "" if empty.sqlite else " CASCADE"
            if empty.sqlite:
                connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            connection.exec_driver_sql(f"DROP TABLE {name}{cascade}")
        schema.metadata.create_all(connection)
        assert tables(connection) == migrated


@pytest.mark.parametrize("old", VERSIONS[:-1])
def test_they_go_forward_with_data(empty, old):
    empty.migrate(old)
    fill(empty)
    before = contents(empty)
    key = empty.permutation_key
    empty.migrate()
    after = contents(empty)
    assert after["rows"].pop("survey") == []
    assert after["rows"].pop("alembic_version") == [repr((schema.HEAD,))]
    assert before["rows"].pop("alembic_version") == [repr((old,))]
    assert after["rows"] == before["rows"]
    assert after["triggers"] == before["triggers"]
    assert Database(empty.url.render_as_string(False)).permutation_key == key
    survey.answer_survey(empty, accounts.account(empty, "ann"), {})
    assert survey.survey_counts(empty)[0] == 1
    again = contents(empty)
    empty.migrate()
    assert contents(empty) == again


class Failure(Exception):
    """Raised in place of a statement."""


@pytest.mark.parametrize("old", ["", *VERSIONS[:-1]])
def test_one_that_fails_leaves_all_as_it_was(empty, old):
    if old:
        empty.migrate(old)
        fill(empty)
    before = contents(empty)
    statements = 0

    def fail(_connection, _cursor, statement, *_):
        nonlocal statements
        if statement.startswith("BEGIN"):
            return
        statements += 1
        if statements > until:
            raise Failure

    until = 0
    while True:
        statements = 0
        sa.event.listen(empty.engine, "before_cursor_execute", fail)
        try:
            empty.migrate()
        except Failure:
            assert statements == until + 1
        else:
            break
        finally:
            sa.event.remove(empty.engine, "before_cursor_execute", fail)
        assert contents(empty) == before
        until += 1
    assert until > (3 if old else 50)
    assert open_existing(empty.url.render_as_string(False)).version() == schema.HEAD


def test_several_servers_that_start_at_once(empty):
    url = empty.url.render_as_string(False)
    failed: list[BaseException] = []

    def start() -> None:
        database = Database(url)
        try:
            database.migrate()
        except BaseException as error:
            failed.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with empty.read() as connection:
        names = set(connection.execute(sa.select(schema.setting.c.name)).scalars())
    assert names == {"permutation_key", "audit_head"}


def test_a_schema_that_is_newer_than_the_code(empty):
    empty.migrate()
    with empty.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for opening in (empty.migrate, lambda: open_existing(empty.url.render_as_string(False))):
        with pytest.raises(InstilError, match="its schema 9999 is newer than this instil"):
            opening()
