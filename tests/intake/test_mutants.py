"""Logs with something wrong in them: all rows are taken or none, and never a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil import jsonl
from instil.errors import InstilError
from instil.intake import Config, run
from instil.records import Prompt

TIMES = int(os.environ.get("INSTIL_TIMES", "1"))
"""How many times as many the long tests are to try."""

ROWS = [
    {"text": "What is a prime?", "user_id": 7, "consent": True, "use_case": "open_qa"},
    {"text": 'Sätze, "quoted"\nüber zwei Zeilen', "user_id": "a", "consent": "yes"},
    {"text": "Mail ann@example.org", "organisation_id": "o", "consent": 1, "meta": {"k": [1]}},
    {"text": "No, thank you", "user_id": "b", "consent": "no"},
]
FIELDS = ("text", "user_id", "organisation_id", "consent", "use_case")


def table(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FIELDS, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
LOGS = {
    "raw.jsonl": LINES,
    "raw.json": json.dumps(ROWS, indent=1).encode(),
    "raw.csv": table(","),
    "raw.tsv": table("\t"),
    "raw.jsonl.gz": gzip.compress(LINES, mtime=0),
}
PIECES = (
    *(b"\xef\xbb\xbf", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800"),
    *(b"NaN", b"1e999", b"1" * 30, b"9" * 5000, b"-0", b"null", b"true", b'""', b"{}", b'"', b","),
    *(b"[" * 5000, b'{"a":' * 5000, b"[", b"]", b"{", b"}", b"\t", b"\\", b'"text": "again",'),
    *(b"\xe2\x80\xa8", b"\xc2\xb2", b"\xd9\xa3" * 16, b"\xef\xb7\xba", b"@", b" "),
)


@st.composite
def mutants(draw: st.DrawFn, valid: bytes) -> bytes:
    """The log after one to four changes: cut, overwritten, doubled, or with a piece put in."""
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(
            st.one_of(
                st.sampled_from(PIECES),
                st.binary(max_size=4),
                st.just(data[start:end] * 2),
                st.just(data[end:] if draw(st.booleans()) else b""),
            )
        )
        data = data[:start] + piece + (b"" if draw(st.integers(0, 9)) == 0 else data[end:])
    return data


def rows_of(name: str, data: bytes) -> int:
    """How many rows a reader without our rules finds."""
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if name.endswith(("csv", "tsv")):
        delimiter = "," if name.endswith("csv") else "\t"
        text = io.StringIO(data.decode(), newline="")
        return max(sum(1 for row in csv.reader(text, delimiter=delimiter) if row) - 1, 0)
    if data.lstrip().startswith(b"["):
        return len(json.loads(data))
    return sum(1 for line in data.split(b"\n") if line.strip())


def all_or_none(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder) / name, Path(folder) / "out"
        log.write_bytes(data)
        error = None
        try:
            run(Config(raw=log, out=out, missing_consent="drop"))
        except InstilError as found:
            error = str(found)
        if error is not None:
            assert error.startswith(f"{log}:"), "names no file"
            whole = ": has no prompts" in error or "packed file is damaged" in error
            assert whole or re.match(r":\d+:", error[len(str(log)) :]), "names no line"
            assert "\n" not in error
            assert not out.exists()
            return
        report = json.loads((out / "intake.json").read_bytes())
        assert report["read"] == rows_of(name, data)
        assert report["read"] == report["kept"] + sum(report["dropped"].values())
        assert len(jsonl.read_records(out / "prompts.jsonl", Prompt)) == report["kept"]


@pytest.mark.parametrize("name", LOGS)
def test_a_log_as_it_should_be(name):
    all_or_none(name, LOGS[name])


@pytest.mark.parametrize("name", LOGS)
@given(data=st.data())
def test_a_changed_log_is_taken_whole_or_not_at_all(name, data):
    all_or_none(name, data.draw(mutants(LOGS[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGS)
@settings(max_examples=200 * TIMES)
@given(data=st.data())
def test_so_are_many_more(name, data):
    all_or_none(name, data.draw(mutants(LOGS[name])))
