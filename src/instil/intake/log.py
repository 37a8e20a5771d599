"""The log of an application -> raw prompts, one line in memory at a time.

A line is an object (JSON lines, a JSON array) or a row under a header (.csv, .tsv). The names of
the fields are settings, other fields are ignored, and the first bad line is an error that names it.

Whether a user agreed to the use of what he wrote is never guessed: an answer is a clear yes or a
clear no, anything else is an error, and what happens to lines without an answer has to be said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from instil import jsonl
from instil.errors import InstilError, nearest
from instil.records import USE_CASES, Record

YES, NO = ("true", "yes", "y", "t", "1"), ("false", "no", "n", "f", "0")
"""Answers to the question for consent, in upper or lower case. No other word is taken for one."""


class RawPrompt(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.raw_prompt/1"):
    """A prompt as a user sent it. Without consent it goes no further."""

    text: str
    user_id: str = ""
    organisation_id: str = ""
    use_case: str = ""
    source: str = "api"
    consent: bool = True
    meta: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.use_case and self.use_case not in USE_CASES:
            raise InstilError(
                f"use_case: {self.use_case!r} is not known{nearest(self.use_case, USE_CASES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where the log is and what its fields are called."""

    raw: Path
    """The log: JSON lines, .csv or .tsv, read line by line, or a JSON array; also with .gz."""
    text_field: str = "text"
    """Name of the field with the prompt, in the log."""
    user_field: str = "user_id"
    """Name of the field with the user; where no organisation is named, cap and splits are by it."""
    organisation_field: str = "organisation_id"
    """Name of the field with the user's organisation; where it is filled, cap and splits are by it.
    If two organisations may have different users of one id, give --user-field ''."""
    use_case_field: str = "use_case"
    """Name of the field with the use case, if there is one."""
    consent_field: str = "consent"
    """Name of the field with the user's consent: true, yes, y, t, 1 or false, no, n, f, 0."""
    missing_consent: Literal["stop", "drop", "keep"] = "stop"
    """What to do at a line that does not say whether the user consented: stop and write nothing,
    leave it out, or keep it (all users were asked elsewhere)."""
    source: str = "api"
    """Where the prompts come from, for lines that do not say it in the field `source`."""


def read_raw(log: Log) -> Iterator[RawPrompt]:
    """The lines of `log.raw` as raw prompts; fields that are not asked for are ignored."""
    schema = RawPrompt.__struct_config__.tag
    for number, row in jsonl.iter_objects(log.raw):
        where = f"{log.raw}:{number}"
        if row.get("schema", schema) != schema:
            raise InstilError(
                f"{where}: schema: got {row['schema']!r}, expected {schema!r} or none"
            )
        text = row.get(log.text_field)
        if not isinstance(text, str):
            got = f"got {text!r:.40}" if log.text_field in row else "missing"
            hint = nearest(log.text_field, row) + "; name it with --text-field"
            raise InstilError(f"{where}: {log.text_field}: {got}, expected text{hint}")
        meta = row.get("meta")
        try:
            yield RawPrompt(
                text=text,
                user_id=_word(row, log.user_field),
                organisation_id=_word(row, log.organisation_field),
                use_case=_word(row, log.use_case_field),
                source=_word(row, "source") or log.source,
                consent=_consent(row, log),
                meta=meta if isinstance(meta, dict) else {},
            )
        except InstilError as error:
            raise InstilError(f"{where}: {error}") from error


def _word(row: dict[str, Any], name: str) -> str:
    """An optional field that is a text or a number."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InstilError(f"{name}: got {value!r:.40}, expected text or a whole number")
    return str(value).strip()


def _consent(row: dict[str, Any], log: Log) -> bool:
    """Whether the user agreed; only a clear answer counts as one."""
    name = log.consent_field
    value = row.get(name)
    answer = "" if value is None else str(value).strip().lower()
    if answer in YES:
        return True
    if answer in NO or (not answer and log.missing_consent == "drop"):
        return False
    if answer:
        raise InstilError(f"{name}: got {value!r:.40}, expected one of {', '.join(YES + NO)}")
    if log.missing_consent == "keep":
        return True
    what = "empty" if name in row else f"missing{nearest(name, row)}; name it with --consent-field"
    raise InstilError(
        f"{name}: {what}; nobody knows whether this user agreed: --missing-consent drop leaves "
        "such lines out, keep takes them"
    )
