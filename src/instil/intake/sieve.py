"""What a cleaning remembers of the prompts that it has read: on disk, so that memory stays flat.

The candidates, their normal forms and the splits of users lie in a database without a name in the
temporary folder (`TMPDIR`), about twice as large as the log. It is gone when the process ends, in
whatever way. Prompts without consent, and those that the PII gate stops, never get there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from instil.errors import InstilError
from instil.intake.dedup import Prefixes

CACHE = 16 * 1024
"""KiB of the database that may stay in memory."""

Traits = tuple[str, str, str, bool]
"""Split, use case, language and plain ASCII of a prompt: what is counted."""


class Candidate(NamedTuple):
    """A prompt that has passed the rules that look at it alone."""

    key: str
    """Its normal form."""
    owner: bytes
    """Who the cap counts; empty where nobody is known to have sent it."""
    draw: bytes
    """Those of an owner that sort first by it survive the cap."""
    traits: Traits
    record: bytes
    """The prompt as its file will have it."""


class Sieve:
    """Keeps candidates in order; use as a context manager."""

    def __init__(self, prefix_chars: int, prefix_share: float) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{CACHE}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("BEGIN")  # never committed: nobody else will read it
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._database.execute(
            "CREATE TABLE member (user BLOB PRIMARY KEY, split TEXT) WITHOUT ROWID"
        )
        self._database.execute(
            "CREATE TABLE candidate (number INTEGER PRIMARY KEY, owner BLOB, "
            "draw BLOB, split TEXT, use_case TEXT, language TEXT, is_ascii INTEGER, record BLOB)"
        )
        self._prefixes = Prefixes(self._database, prefix_chars, prefix_share)

    def __enter__(self) -> Sieve:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._database.close()
        if isinstance(error, sqlite3.OperationalError):  # the disk
            raise InstilError(
                f"working files in the temporary folder: {error}; make room there, or set TMPDIR "
                "to a folder that has room for about twice the log"
            ) from error

    def split_of(self, user_id: str, split: str) -> str:
        """The split in which a user was first seen; `split` for somebody new."""
        user = _digest(user_id)
        self._database.execute("INSERT OR IGNORE INTO member VALUES (?, ?)", (user, split))
        found = self._database.execute("SELECT split FROM member WHERE user = ?", (user,))
        return str(found.fetchone()[0])

    def add(self, candidate: Candidate) -> str:
        """Keep the candidate, or say why not: "duplicate" or "prefix" of one kept before it."""
        key = _digest(candidate.key)
        new = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))
        if not new.rowcount:
            return "duplicate"
        if not self._prefixes.add(candidate.key):
            return "prefix"
        values = (candidate.owner or None, candidate.draw, *candidate.traits, candidate.record)
        self._database.execute("INSERT INTO candidate VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", values)
        return ""

    def cap(self, most: int) -> int:
        """Leave at most `most` of each owner, in whatever order they came; how many went."""
        gone = self._database.execute(
            "DELETE FROM candidate WHERE number IN (SELECT number FROM ("
            "SELECT number, row_number() OVER (PARTITION BY owner ORDER BY draw, number) place "
            "FROM candidate WHERE owner IS NOT NULL) WHERE place > ?)",
            (most,),
        )
        return gone.rowcount

    def users(self) -> tuple[int, int]:
        """How many sent what is kept, and how many prompts nobody is known to have sent."""
        found = self._database.execute(
            "SELECT COUNT(DISTINCT owner), COUNT(*) - COUNT(owner) FROM candidate"
        )
        owners, unsigned = found.fetchone()
        return owners, unsigned

    def traits(self) -> list[tuple[Traits, int]]:
        """How many of the kept prompts have which traits."""
        found = self._database.execute(
            "SELECT split, use_case, language, is_ascii, COUNT(*) FROM candidate "
            "GROUP BY split, use_case, language, is_ascii"
        )
        return [((*row[:3], bool(row[3])), row[4]) for row in found]

    def records(self) -> Iterator[bytes]:
        """What is kept, in the order in which it came."""
        for (record,) in self._database.execute("SELECT record FROM candidate ORDER BY number"):
            yield record


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
