"""Duplicates among prompts: equal after normalisation, or sharing a long common prefix.

People send variants of one prompt: the same few-shot examples with another last line, the same
text with one more sentence. Ouyang et al. 2022 (section 3.2) drop prompts that share a long common
prefix; the paper gives no numbers, so both thresholds are settings.

Left out on purpose: near duplicates that differ at their start (the paper's rule does not see
them), and removal across languages or paraphrases.
"""

from __future__ import annotations

import math
import sqlite3
import unicodedata


def tidy(text: str) -> str:
    """The text as it is kept: Unicode NFC, line ends as newline, no space at either end."""
    text = unicodedata.normalize("NFC", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def normal_form(text: str) -> str:
    """The text as it is compared: compatibility forms, case and the width of spaces are ignored."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Prefixes:
    """Texts of which no two share a long prefix, in a table of `database`.

    Two texts do when their common prefix has at least `min_chars` characters and at least
    `min_share` of the shorter one.
    """

    def __init__(self, database: sqlite3.Connection, min_chars: int, min_share: float) -> None:
        self.database, self.min_chars, self.min_share = database, min_chars, min_share
        database.execute("CREATE TABLE long (text BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, text: str) -> bool:
        """Keep `text`, which is not there yet, or say False: it shares a prefix with a kept one.

        Only the two kept texts beside it in sorted order need a look. Say y shares a long prefix
        with x and z stands between them. Then z begins with what x and y share. That is enough for
        x and z to be duplicates, or for z and y, which cannot both have been kept.
        """
        if len(text) < self.min_chars:
            return True
        head, whole = _sortable(text[: self.min_chars]), _sortable(text)
        beside = self.database.execute(
            "SELECT (SELECT text FROM long WHERE text BETWEEN ?1 AND ?2 ORDER BY text DESC LIMIT 1)"
            ", (SELECT text FROM long WHERE text BETWEEN ?2 AND ?3 ORDER BY text LIMIT 1)",
            (head, whole, head + b"\xff"),
        ).fetchone()
        for other in beside:
            if other is not None and self._alike(text, other.decode("utf-8", "surrogatepass")):
                return False
        self.database.execute("INSERT INTO long VALUES (?)", (whole,))
        return True

    def _alike(self, one: str, other: str) -> bool:
        shorter = min(len(one), len(other))
        shared = max(self.min_chars, math.ceil(self.min_share * shorter))
        return one[:shared] == other[:shared]


def _sortable(text: str) -> bytes:
    """UTF-8, whose order is that of the characters."""
    return text.encode("utf-8", "surrogatepass")
