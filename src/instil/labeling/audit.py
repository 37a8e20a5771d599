"""Who did what, and when: a log that shows when it was changed afterwards.

Each event carries the hash of the one before it, so a changed, moved or deleted event breaks the
chain there, and the setting `audit_head` says where the chain ends, so a cut tail shows too. The
log keeps ids and hashes of what was said, never the words: it may outlive a user's data.

Whoever may write to the database can make the whole chain anew. So note the end of it, which this
command prints, in another place, and give it back later:

    instil audit --db labels.db
    instil audit --db labels.db --noted 120:5f70bf18...
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling.database import open_existing
from instil.labeling.schema import audit, setting

EMPTY = "0:"
"""What `audit_head` is before the first event: its number and hash, as in every later one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log."""

    seq: int
    at: int
    """Milliseconds since 1970, UTC."""
    actor_id: str
    """The account, "" for the command line."""
    action: str
    object_id: str
    detail_sha256: str
    hash: str


def append(
    connection: sa.Connection, actor_id: str, action: str, object_id: str, detail: bytes, now: int
) -> None:
    """Add one event, within the transaction that does what it tells of; do it last there.

    detail  what was done, of which only the hash is kept
    now     the transaction's time
    """
    head = sa.select(setting.c.value).where(setting.c.name == "audit_head").with_for_update()
    number, _, previous = connection.execute(head).scalar_one().partition(":")
    event = {
        "seq": int(number) + 1,
        "at": now,
        "actor_id": actor_id,
        "action": action,
        "object_id": object_id,
        "detail_sha256": hashlib.sha256(detail).hexdigest(),
    }
    found = _hash(previous, list(event.values()))
    connection.execute(audit.insert().values(**event, previous=previous, hash=found))
    connection.execute(
        setting.update()
        .where(setting.c.name == "audit_head")
        .values(value=f"{event['seq']}:{found}")
    )


def first_bad(connection: sa.Connection) -> int | None:
    """The number of the first event that is not as it was written, or is missing; None if all are.

    If all are whole and only the note of the chain's end is not, that is the number after the last.
    """
    seq, previous = 0, ""
    columns = [audit.c[name] for name in _HASHED]
    rows = sa.select(*columns, audit.c.previous, audit.c.hash).order_by(audit.c.seq)
    try:
        for *event, before, found in connection.execute(rows.execution_options(yield_per=1000)):
            if event[0] != seq + 1 or before != previous or found != _hash(previous, event):
                return seq + 1
            seq, previous = seq + 1, found
    except sa.exc.DBAPIError:  # not even text any more
        return seq + 1
    return None if head(connection) == f"{seq}:{previous}" else seq + 1


def head(connection: sa.Connection) -> str:
    """Where the chain ends: `number:hash` of the last event."""
    found = sa.select(setting.c.value).where(setting.c.name == "audit_head")
    return str(connection.execute(found).scalar() or "")


def newest(connection: sa.Connection, before: int | None = None, limit: int = 100) -> list[Event]:
    """Up to `limit` events, newest first; with `before`, only those with a smaller number."""
    names = [audit.c[name] for name in (*_HASHED, "hash")]
    rows = sa.select(*names).order_by(audit.c.seq.desc()).limit(limit)
    if before is not None:
        rows = rows.where(audit.c.seq < before)
    return [Event(**row) for row in connection.execute(rows).mappings()]


_HASHED = ("seq", "at", "actor_id", "action", "object_id", "detail_sha256")


def _hash(previous: str, event: Sequence[object]) -> str:
    """Each part behind its length, so that two different events never look alike."""
    made = hashlib.sha256()
    for part in (previous, *event):
        encoded = str(part).encode()
        made.update(len(encoded).to_bytes(8, "big") + encoded)
    return made.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Check that the audit log of a labeling database is as it was written."""

    db: str
    """The database: a path means SQLite; or a URL."""
    noted: str = ""
    """The end of the log as an earlier check printed it, number:hash; that event must be there."""


def run(config: Config) -> None:
    """Print how many events there are and where the chain ends.

    Raises InstilError that names the first event that is not as it was written.
    """
    number, _, noted = config.noted.partition(":")
    if config.noted and not (number.isdecimal() and len(noted) == 64):
        raise InstilError(f"--noted {config.noted}: give it as printed, number:hash")
    with open_existing(config.db).read() as connection:
        bad = first_bad(connection)
        if bad is None and noted:
            kept = sa.select(audit.c.seq).where(audit.c.seq == int(number), audit.c.hash == noted)
            bad = None if connection.execute(kept).first() else int(number)
        if bad is not None:
            raise InstilError(
                f"{config.db}: audit event {bad} is missing or is not as it was written; events "
                "before it are whole. Compare with a backup"
            )
        end = head(connection)
    print(f"{end.partition(':')[0]} events, each as it was written\nend of the log: {end}")
