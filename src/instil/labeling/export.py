"""`instil export`: labels -> files of records that the trainers read, whole or not at all.

    instil export --db labels.db --out data/labels
    instil rm --rankings data/labels/rankings.jsonl --responses data/labels/responses.jsonl \\
        --prompts data/labels/prompts.jsonl --labelers data/labels/labelers.jsonl ...

  *.jsonl             what training labelers did for training: prompts, responses, demonstrations,
                      rankings, ratings, annotations, toxicity, labelers. Rankings of the toxicity
                      task prefer the less toxic, so they are a file of their own
  evaluation/*.jsonl  the same of evaluations, by training and by held-out labelers
  labels.jsonl        every revision of every label as it was stored, with order and times
  MANIFEST.json       SHA-256 and lines of each file, what was chosen, guidelines, place in the log

Rankings are each person's own, never merged. Of a label that was revised, the last revision
counts. All files are of one moment, however long the writing takes and whoever labels meanwhile.
The database remembers the export, so that `instil remove` can say where a prompt went.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import sqlalchemy as sa

from instil import __version__, jsonl
from instil.errors import InstilError
from instil.labeling import audit, past, payloads, schema
from instil.labeling.database import Database, open_existing
from instil.labeling.planning import COMPARES
from instil.records import (
    Annotation,
    Demonstration,
    Labeler,
    Prompt,
    Purpose,
    Ranking,
    Rating,
    Record,
    Response,
    ToxicityRating,
)

FOLDERS: Mapping[Purpose, str] = {"training": "", "evaluation": "evaluation"}
"""Purpose -> where its records go. What is screening, gold or repeated is in labels.jsonl only."""
FILES: Mapping[type[Record], str] = {
    Prompt: "prompts",
    Response: "responses",
    Demonstration: "demonstrations",
    Ranking: "rankings",
    Rating: "ratings",
    Annotation: "annotations",
    ToxicityRating: "toxicity",
    Labeler: "labelers",
}
TOXICITY_RANKINGS = "toxicity_rankings"
AT_A_TIME = 100
"""Rows in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Write labels as files of records, with checksums: all of one moment, whole or not at all."""

    db: str
    """The database: a path means SQLite; or a URL."""
    out: Path
    """The directory to make; it must not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of an export."""

    sha256: str
    bytes: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an export holds."""

    schema: str = "instil.export/1"
    id: str
    created_at: int
    """Milliseconds since 1970, UTC: the moment that all files are of."""
    instil: str = __version__
    database_schema: str
    audit: str
    """The end of the audit log at that moment; `instil audit --noted` checks it."""
    chosen: Mapping[str, str]
    """Folder -> which labels are in it."""
    guidelines: tuple[Mapping[str, Any], ...]
    """Those that the labels were made by."""
    files: Mapping[str, File]


CHOSEN = {
    ".": "purpose training, status accepted, last revision, labelers of pool training",
    "evaluation": "purpose evaluation, status accepted, last revision",
    "labels.jsonl": "every revision of every label",
}


def run(config: Config) -> None:
    """Export, and say what was written."""
    db = open_existing(config.db)
    try:
        manifest = export(db, config.out)
    finally:
        db.close()
    for name, file in manifest.files.items():
        if file.records:
            print(f"{config.out / name}: {file.records} lines")


def export(db: Database, out: Path) -> Manifest:
    """Write an export to `out`. Killed at any moment it leaves the whole of it there, or nothing.

    Raises InstilError if `out` exists, cannot be written, or is just being written.
    """
    with _staging(out) as partial:
        with db.read() as connection:
            files, prompt_ids = _write(connection, partial)
            manifest = Manifest(
                id=f"e-{secrets.token_hex(8)}",
                created_at=db.now(),
                database_schema=schema.HEAD,
                audit=audit.head(connection),
                chosen=CHOSEN,
                guidelines=tuple(_guidelines(connection)),
                files=files,
            )
        jsonl.write_json(partial / "MANIFEST.json", manifest)
        # Remembered first: an export that is remembered and missing does no harm, one that is
        # there and forgotten would keep a user's data for ever.
        _remember(db, out.absolute(), manifest, prompt_ids)
        os.rename(partial, out)
        _to_disk(out.absolute().parent)
    return manifest


def _write(connection: sa.Connection, root: Path) -> tuple[dict[str, File], set[str]]:
    """All files of records; and the prompts that any of them names."""
    with ExitStack() as stack:
        written: dict[str, _Writer] = {}
        for purpose, folder in FOLDERS.items():
            (root / folder).mkdir(exist_ok=True)
            of = {}
            for name in (*FILES.values(), TOXICITY_RANKINGS):
                path = Path(folder, f"{name}.jsonl")
                of[name] = stack.enter_context(_Writer.open(root / path))
                written[str(path)] = of[name]
            _write_purpose(connection, purpose, of)
        prompt_ids: set[str] = set()
        every = written["labels.jsonl"] = stack.enter_context(_Writer.open(root / "labels.jsonl"))
        for label in past.stored(connection):
            every.write(label)
            prompt_ids.add(label.prompt_id)
            prompt_ids.update(prompt["id"] for prompt in label.payload.get("prompts", ()))
    for made in FOLDERS.values():
        _to_disk(root / made)
    return {name: writer.file for name, writer in written.items()}, prompt_ids - {""}


def _write_purpose(connection: sa.Connection, purpose: Purpose, of: Mapping[str, _Writer]) -> None:
    """The records of one purpose."""
    pool = "training" if purpose == "training" else None  # the database refuses others as well
    s, done = schema, schema.label
    labeled = sa.select(done.c.task_id).where(
        done.c.purpose == purpose, done.c.status == "accepted"
    )
    if pool:
        labeled = labeled.where(done.c.pool == pool)
    asked: set[str] = set()
    prompts = sa.select(s.task.c.prompt_id).where(s.task.c.id.in_(labeled))
    for row in _all(connection, s.prompt, prompts):
        asked.add(row["id"])
        of["prompts"].write(Prompt(**{**row, "meta": msgspec.json.decode(row["meta"])}))
    for label in past.stored(
        connection, purpose=purpose, status=("accepted",), pool=pool, only_newest=True
    ):
        stored = msgspec.json.encode(label.payload)
        for record in payloads.records_of(payloads.load(label.kind, stored)):
            name = FILES[type(record)]
            if isinstance(record, Ranking) and label.kind == "toxicity":
                name = TOXICITY_RANKINGS
            if isinstance(record, Prompt):
                if record.id in asked:  # twice the same, or since in a batch, by now with a split
                    continue
                asked.add(record.id)
            of[name].write(record)
    compared = labeled.where(done.c.kind.in_(COMPARES))
    shown = sa.select(s.task_response.c.response_id).where(s.task_response.c.task_id.in_(compared))
    for row in _all(connection, s.response, shown):
        fields = {name: row[name] for name in ("id", "prompt_id", "text", "policy")}
        of["responses"].write(Response(**fields, sampling=msgspec.json.decode(row["sampling"])))
    for row in _all(connection, s.labeler, labeled.with_only_columns(done.c.labeler_id)):
        of["labelers"].write(Labeler(id=row["id"], group=row["pool"]))


def _all(connection: sa.Connection, table: sa.Table, ids: sa.Select) -> Iterator[Any]:
    """The rows of a table with these ids, in their order, few in memory at a time."""
    rows = sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id)
    yield from connection.execute(rows.execution_options(yield_per=AT_A_TIME)).mappings()


def _guidelines(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    guideline, assignment, label = schema.guideline, schema.assignment, schema.label
    used = sa.select(assignment.c.guideline_id).where(
        assignment.c.id.in_(sa.select(label.c.assignment_id))
    )
    columns = [guideline.c[name] for name in ("id", "kind", "purpose", "version", "sha256")]
    for row in connection.execute(
        sa.select(*columns).where(guideline.c.id.in_(used)).order_by(*columns[1:4])
    ).mappings():
        yield dict(row)


def _remember(db: Database, out: Path, manifest: Manifest, prompt_ids: set[str]) -> None:
    """Note where the prompts went, unless one of them was removed while the files were written."""
    found = msgspec.json.encode(manifest)
    files = {"export_id": manifest.id}
    with db.write() as connection:
        now = db.now()
        event = schema.audit
        later = event.c.seq > int(manifest.audit.partition(":")[0])
        if connection.execute(
            sa.select(event.c.seq).where(later, event.c.action == "remove.prompt")
        ).first():
            raise InstilError(f"{out}: a user's data were removed meanwhile; export again")
        connection.execute(
            schema.export.insert().values(
                id=manifest.id, path=str(out), manifest=found.decode(), created_at=now
            )
        )
        connection.execute(
            schema.export_file.insert(),
            [{"name": n, "sha256": f.sha256, **files} for n, f in manifest.files.items()],
        )
        if prompt_ids:
            connection.execute(
                schema.export_prompt.insert(),
                [{"prompt_id": prompt_id, **files} for prompt_id in sorted(prompt_ids)],
            )
        audit.append(connection, "", "export", manifest.id, found, now)


class _Writer:
    """One file of records: how many there are, and their checksum."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.hash = hashlib.sha256()
        self.bytes = self.records = 0

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[_Writer]:
        """A new file, on the disk when the block has ended."""
        with path.open("xb") as handle:
            yield cls(handle)
            handle.flush()
            os.fsync(handle.fileno())

    def write(self, record: Record) -> None:
        line = msgspec.json.encode(record) + b"\n"
        self.handle.write(line)
        self.hash.update(line)
        self.bytes += len(line)
        self.records += 1

    @property
    def file(self) -> File:
        return File(sha256=self.hash.hexdigest(), bytes=self.bytes, records=self.records)


def _to_disk(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A directory beside `out`, empty and ours alone, that the block renames to `out`.

    What a killed export left there is removed first; a block that fails leaves nothing.
    """
    if out.exists() or out.is_symlink():
        raise InstilError(f"{out}: exists; name a directory that does not")
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InstilError(f"{partial}: cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = partial.stat().st_ino == os.fstat(lock).st_ino
        except OSError:
            ours = False
        if not ours:
            raise InstilError(f"{out}: another export is writing it; wait for it")
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield partial
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise InstilError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        os.close(lock)
