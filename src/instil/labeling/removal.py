"""`instil remove`: everything that came from one user, down to the runs that were trained on it.

    instil remove --db labels.db --user acme --intake-seed 0 --runs runs          # shows only
    instil remove --db labels.db --user acme --intake-seed 0 --runs runs --yes

Name all runs before the rows go: the rows are what runs and their files are recognised by.

Removed are the user's prompts and, by foreign keys, all that hangs on them: responses, tasks,
assignments, drafts, labels, questions, scores. It is one transaction; the audit log keeps ids and
hashes. A SQLite file is then rewritten, so that nothing of it is left between its pages.

Listed, because only people can delete them: exports that hold the prompts, files that runs read,
and runs. A run is concerned if it read such an export (run.json has the hash of each file), if a
file that it names still holds a prompt, or if it started from a run that is concerned.

Left out on purpose: backups of the database, and a model's memory. Delete the former, train anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from instil import jsonl
from instil.errors import InstilError
from instil.intake import pseudonym
from instil.labeling import audit, batches, payloads, schema
from instil.labeling.database import Database, open_existing
from instil.records import Prompt
from instil.runs import read_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Remove one user's data, and list what else came from it. Shows only, unless --yes."""

    db: str
    """The database: a path means SQLite; or a URL."""
    user: str
    """The user, organisation or labeler, as in prompts; with `intake_seed`, as in the log."""
    intake_seed: int | None = None
    """The seed of `instil intake`, which hides users behind keyed hashes."""
    runs: tuple[Path, ...] = ()
    """Run directories, or folders that hold some at any depth."""
    without_runs: bool = False
    """Remove without looking at runs: nothing can tell later which of them the data went into."""
    yes: bool = False
    """Remove; without it nothing is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export that holds prompts of the user."""

    path: Path
    created_at: int
    """Milliseconds since 1970, UTC."""
    there: bool
    """Whether its directory is still where it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run that the user's data went into."""

    path: Path
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All that came from one user."""

    user_ids: tuple[str, ...]
    """The names that the user has in prompts."""
    prompt_ids: tuple[str, ...]
    """Prompts of the user, and those that the user wrote as a labeler."""
    rows: Mapping[str, int]
    """Table -> rows that go."""
    exports: tuple[Export, ...] = ()
    runs: tuple[Trained, ...] = ()
    files: tuple[Path, ...] = ()
    """Files named by runs that hold a prompt of the user now."""
    unknown: tuple[Path, ...] = ()
    """Files named by runs that are gone, and of which nothing else tells what they held."""


def run(config: Config) -> None:
    """Show the lineage; with `yes`, remove what the database has.

    Raises InstilError if it is to remove and no runs are named, unless `without_runs` says so.
    """
    if config.yes and not config.runs and not config.without_runs:
        raise InstilError(
            "without the rows nothing can tell which runs the data went into; name the folders of "
            "all runs with --runs, or give --without-runs if there are none"
        )
    names = [config.user]
    if (seed := config.intake_seed) is not None:
        names = [pseudonym(config.user, seed), pseudonym(config.user, seed, "organisation")]
    db = open_existing(config.db)
    try:
        found = lineage(db, names, config.runs)
        print("\n".join(_lines(config.user, found)))
        if not config.yes:
            print("nothing was changed; add --yes to remove the rows")
        elif found.prompt_ids:
            remove(db, "", found)
            print("removed; delete the exports, files and runs above yourself, and old backups")
    finally:
        db.close()


def lineage(db: Database, user_ids: Sequence[str], runs: Sequence[Path] = ()) -> Lineage:
    """What came from the user whom prompts name so; changes nothing.

    user_ids  of a user or an organisation as prompts have them, or of a labeler
    runs      directories of runs, or folders that hold some

    Raises InstilError for a path of `runs` under which there is no run.
    """
    export, remembered, file = schema.export, schema.export_prompt, schema.export_file
    with db.read() as connection:
        texts = _texts(connection, user_ids)
        counted = {
            table.name: connection.execute(
                sa.select(sa.func.count()).select_from(table).where(rows)
            ).scalar_one()
            for table, rows in _rows(user_ids)
        }
        holding: set[str] = set()
        for prompt_id in texts:
            ids = sa.select(remembered.c.export_id).where(remembered.c.prompt_id == prompt_id)
            holding.update(connection.execute(ids).scalars())
        exports = connection.execute(
            sa.select(export.c.path, export.c.created_at)
            .where(export.c.id.in_(holding))
            .order_by(export.c.created_at, export.c.path)
        ).all()
        hashes = sa.select(file.c.sha256).where(
            file.c.export_id.in_(holding),
            file.c.name.not_like("%labelers.jsonl"),  # it names no prompt, nor does an empty file
            file.c.sha256 != sha256().hexdigest(),
        )
        search = _Search(texts, set(user_ids), set(connection.execute(hashes).scalars()))
    trained = search.through(list(_run_directories(runs))) if texts else {}
    return Lineage(
        user_ids=tuple(user_ids),
        prompt_ids=tuple(sorted(texts)),
        rows=counted,
        exports=tuple(
            Export(path=Path(row.path), created_at=row.created_at, there=Path(row.path).exists())
            for row in exports
        ),
        runs=tuple(Trained(path=path, why=tuple(why)) for path, why in trained.items()),
        files=tuple(sorted(path for path, holds in search.read.items() if holds)),
        unknown=tuple(sorted(search.gone)),
    )


def remove(db: Database, by: str, found: Lineage) -> None:
    """Remove the user's rows in one transaction, also those that came after `found` was made.

    by  id of the account that asks for it, "" for the command line

    Raises InstilError if the rows are gone but their bytes could not yet be wiped from the file.
    """
    with db.write() as connection:
        now = db.now()
        # whoever works locks an own row first: nobody adds what hangs on rows that just went
        connection.execute(sa.select(schema.labeler.c.id).with_for_update(key_share=True))
        batches.take_turn(connection)
        prompt_ids = sorted({*found.prompt_ids, *_texts(connection, found.user_ids)})
        gone = {}
        for table, rows in _rows(found.user_ids):
            gone[table.name] = connection.execute(sa.delete(table).where(rows)).rowcount
            if table is schema.assignment:  # the prompts that this labeler wrote are wanted again
                connection.execute(
                    schema.seat.update()
                    .where(schema.seat.c.kind == "prompt")
                    .where(schema.seat.c.labeler_id.in_(found.user_ids))
                    .values(state="free", labeler_id=None, token=None, expires_at=None)
                )
        detail = msgspec.json.encode(gone, order="sorted")
        for prompt_id in prompt_ids:
            audit.append(connection, by, "remove.prompt", prompt_id, detail, now)
    _wipe(db)


def _texts(connection: sa.Connection, user_ids: Sequence[str]) -> dict[str, str]:
    """Prompt id -> text, of the user's prompts and those that the user wrote as a labeler."""
    prompt, label = schema.prompt, schema.label
    asked = sa.select(prompt.c.id, prompt.c.text).where(_is_of(user_ids))
    texts = {row.id: row.text for row in connection.execute(asked)}
    written = sa.select(label.c.payload).where(
        label.c.kind == "prompt", label.c.labeler_id.in_(user_ids), label.c.status != "skipped"
    )
    for payload in connection.execute(written).scalars():
        records = payloads.records_of(payloads.load("prompt", payload))
        texts |= {record.id: record.text for record in records if isinstance(record, Prompt)}
    return texts


def _is_of(user_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a prompt is of this user, or of this organisation; intake then keeps the user's own
    name in `meta`."""
    meta = schema.prompt.c.meta
    named = [f'"user_id":{msgspec.json.encode(user_id).decode()}' for user_id in user_ids]
    return sa.or_(
        schema.prompt.c.user_id.in_(user_ids),
        # LIKE would take "u-ab" for "U-AB" on SQLite
        *(sa.func.replace(meta, name, "") != meta for name in named),
    )


def _rows(user_ids: Sequence[str]) -> Iterator[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Each table with rows of the user and which they are; what refers to another comes first."""
    s = schema
    prompts = sa.select(s.prompt.c.id).where(_is_of(user_ids))
    tasks = sa.select(s.task.c.id).where(s.task.c.prompt_id.in_(prompts))
    unasked = sa.select(s.task.c.id).where(s.task.c.prompt_id.is_(None))

    def mine(table: sa.Table) -> sa.ColumnElement[bool]:
        written = table.c.labeler_id.in_(user_ids) & table.c.task_id.in_(unasked)
        return table.c.task_id.in_(tasks) | written

    yield s.score, s.score.c.label_id.in_(sa.select(s.label.c.id).where(mine(s.label)))
    drafts = sa.select(s.assignment.c.id).where(mine(s.assignment))
    yield s.draft, s.draft.c.assignment_id.in_(drafts)
    for table in (s.label, s.message, s.assignment):
        yield table, mine(table)
    for table in (s.seat, s.task_response):
        yield table, table.c.task_id.in_(tasks)
    yield s.task, s.task.c.prompt_id.in_(prompts)
    yield s.response, s.response.c.prompt_id.in_(prompts)
    yield s.prompt, _is_of(user_ids)


def _wipe(db: Database) -> None:
    """Rewrite what the rows were in, so that no byte of them is left between others."""
    if not db.sqlite:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in ("prompt", "response", "label", "draft", "message", "task", "assignment"):
                connection.exec_driver_sql(f"VACUUM FULL {table}")
        return
    raw = db.engine.raw_connection()  # VACUUM runs outside any transaction
    try:
        cursor = raw.cursor()
        cursor.execute("VACUUM")
        busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        raise InstilError(
            f"{db.url.database}: the rows are gone, but the file still has their bytes ({error}); "
            "stop the server, make room for a copy, and run `VACUUM` on the file"
        ) from error
    finally:
        raw.close()
    if busy:
        raise InstilError(
            f"{db.url.database}: the rows are gone, but the write-ahead log still has their bytes "
            "because somebody reads; stop the server and run `PRAGMA wal_checkpoint(TRUNCATE)`"
        )


def _run_directories(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        infos = sorted(path.rglob("run.json"))
        if not infos:
            raise InstilError(f"{path}: no run.json in it or under it; name a folder of runs")
        yield from (info.parent.resolve() for info in infos)


class _Search:
    """Goes through runs for what came from some prompts."""

    def __init__(self, texts: Mapping[str, str], user_ids: set[str], hashes: set[str]) -> None:
        self.ids, self.texts = set(texts), set(texts.values())
        self.user_ids, self.hashes = user_ids, hashes
        self.read: dict[Path, bool] = {}
        """File -> whether it holds one of the prompts, or what belongs to one."""
        self.gone: set[Path] = set()

    def through(self, directories: Sequence[Path]) -> dict[Path, list[str]]:
        """Run directory -> why it is concerned, for those that are."""
        infos = {path: read_info(path) for path in directories}
        found: dict[Path, list[str]] = {}
        for path, info in infos.items():
            if why := list(self._reads(path, info)):
                found[path] = why
        more = True
        while more:  # a run that starts from one that is concerned, until there is none left
            more = False
            for path, info in infos.items():
                why = [f"started from {used}" for used in _uses(path, info) if used in found]
                if why and path not in found:
                    found[path] = why
                    more = True
        return found

    def _reads(self, run: Path, info: Mapping[str, Any]) -> Iterator[str]:
        for named, hashed in info.get("data", {}).items():
            file = _resolved(run, info, named)
            if hashed in self.hashes:
                yield f"{named} is a file of an export"
            elif not file.is_file():
                self.gone.add(file)
            elif self._holds(file):
                yield f"{named} holds a prompt"

    def _holds(self, file: Path) -> bool:
        if file not in self.read:
            try:
                self.read[file] = any(map(self._mentions, jsonl.iter_objects(file)))
            except InstilError:  # no records: a recipe, a model's file, plain text
                self.read[file] = False
        return self.read[file]

    def _mentions(self, row: tuple[int, Mapping[str, Any]]) -> bool:
        names = ("id", "prompt_id", "user_id", "text")
        found = {name: v for name in names if isinstance(v := row[1].get(name), str)}
        return (
            not self.ids.isdisjoint({found.get("id"), found.get("prompt_id")})
            or found.get("user_id") in self.user_ids
            or found.get("text") in self.texts
        )


def _uses(run: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    """The run directories, or folders in them, that a run's config names."""
    for name, value in info["config"].items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one and name != "out":
                path = _resolved(run, info, one)
                yield from (path, *path.parents)


def _resolved(run: Path, info: Mapping[str, Any], named: str) -> Path:
    """A path of a run's config. A relative one starts where the run was started: where its own
    `out` leads to the run."""
    out = Path(str(info["config"].get("out", "")))
    start = Path.cwd()
    parts = [part for part in out.parts if part != "."]
    if not out.is_absolute() and run.parts[len(run.parts) - len(parts) :] == tuple(parts):
        start = Path(*run.parts[: len(run.parts) - len(parts)])
    return (start / named).resolve()


def _lines(user: str, found: Lineage) -> Iterator[str]:
    if not found.prompt_ids:
        yield f"user {user}: no prompts in this database"
        return
    yield f"user {user}: {len(found.prompt_ids)} prompts"
    for table, number in found.rows.items():
        if number:
            yield f"  {table}: {number} rows"
    for export in found.exports:
        yield f"export: {export.path}" + ("" if export.there else " (no longer there)")
    for path in found.files:
        yield f"file: {path}"
    for trained in found.runs:
        yield f"run: {trained.path} ({'; '.join(trained.why)})"
    for path in found.unknown:
        yield f"cannot tell: {path} is gone, and no export had its hash"
