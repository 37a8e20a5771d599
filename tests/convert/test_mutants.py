"""Files with something wrong in them: all rows are taken or none, and never a traceback.

Each valid file is changed as bytes (cut, doubled, overwritten) and as JSON (another value, another
name, a name twice). What is taken must be what Python's own readers find in the changed file; what
is refused must be named by file, line and column or field, in one line that a terminal can show.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.convert import Config, convert, documents, run
from instil.convert.formats import READERS, WRITERS, detect, read_row, write_rows
from instil.convert.item import Item, ranked
from instil.convert.joined import read_joined
from instil.errors import InstilError
from instil.jsonl import iter_objects, read_records
from instil.labeling import batches, schema
from instil.labeling.database import Database
from instil.records import Demonstration, Prompt, Ranking, Response, Text

TIMES = int(os.environ.get("INSTIL_TIMES", "1"))
"""How many times as many the long tests are to try."""

DIALOGUE = "Human: Hi\n\nAssistant: Hello!\n\nHuman: Wie geht’s?\n\nAssistant:"
MADE = [(1, "Gut — “danke”.", "x"), (2, "Bad, very", "y"), (2, "<b>so</b>", "z")]
ITEMS = (
    ranked(DIALOGUE, MADE, user_id="u", labeler="l", meta={"subset": "s", "dataset": "d"}),
    ranked("What is a prime?", MADE[:2]),
    Item(DIALOGUE, ("Fine.",), labeler="l"),
    Item("Write a line,\nthen another.", ("One\ntwo",), use_case="chat"),
)
ROWS: dict[str, list[Any]] = {
    name: [row for item in ITEMS for row in write_rows(writer, item, Counter())]
    for name, writer in WRITERS.items()
}
ROWS["dolly"] = [
    {"instruction": "Why?", "context": about, "response": "So.", "category": "open_qa"}
    for about in ("", "In Rome.")
]
ROWS["prompt"] = [{"prompt": "Why?"}, {"prompt": [{"role": "user", "content": "Why not?"}]}]
ROWS["text"] = [{"text": "Once."}, {"text": "Twice.\n\nAnd more."}]
PLAIN = "One\n\nmore\n<|endoftext|>\nTwo é\n"


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[Any], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


FILES = {f"{name}.jsonl": lines(rows) for name, rows in ROWS.items()} | {
    "openai.json": json.dumps(ROWS["openai"], indent=1).encode(),
    "preference.csv": table(ROWS["preference"], ","),
    "alpacafarm.tsv": table(ROWS["alpacafarm"], "\t"),
    "hh.jsonl.gz": gzip.compress(lines(ROWS["hh"]), mtime=0),
    "text.txt": PLAIN.encode(),
}
PIECES = (
    *(b"\xef\xbb\xbf", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800"),
    *(b"NaN", b"1e999", b"9" * 5000, b"null", b"true", b'""', b"{}", b'"', b",", b"\t", b"\\"),
    *(b"[" * 5000, b'{"a":' * 5000, b"[", b"]", b"{", b"}", b'"prompt": "again",', b"\x1b[2J"),
    *(
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xd9\xa3",
        b"\n\nHuman:",
        b"\n\nAssistant:",
        b"x" * 2**20,
    ),
)
VALUES = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"-0.0", b"1e999", b"NaN", b"1" * 40, b"9" * 5000),
    *(b'""', b'" "', b'"x"', b'"\\u0000"', b'"\\ud800"', b'"\\u202ex"', b'"\\n\\u001b[2J"'),
    *(
        b"[]",
        b"{}",
        b"[[]]",
        b"[null]",
        b"[{}]",
        b'{"":{}}',
        b'{"\\n\\u001b[2J":1}',
        b'"assistant"',
    ),
    *('"é' + "é" * 60 + '"', '{"' + "é" * 2000 + '":1}', '"' + "x" * 2**20 + '"'),
)
WAYS_OUT = re.compile(
    "has nothing that .* can hold|there is no row to convert|is plain text, which|no such file"
    "|holds records already|the packed file is damaged|nothing is left for a batch"
)
"""Errors of a file as a whole."""


@st.composite
def changed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """The file after one to four changes: cut, overwritten, doubled, or with a piece put in."""
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(data[start:end] * 2))
        data = data[:start] + piece + (b"" if draw(st.integers(0, 9)) == 0 else data[end:])
    return data


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """JSON, or nearly, that does not belong where it is put."""
    if draw(st.integers(0, 4)) == 0:
        depth = draw(st.sampled_from([64, 5000]) | st.integers(850, 1000))
        opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
        return opening * depth + b"1" * (opening != b"[") + closing * depth
    value = draw(st.sampled_from(VALUES))
    return value.encode() if isinstance(value, str) else value


@st.composite
def changed_rows(draw: st.DrawFn, rows: list[Any]) -> bytes:
    """The lines, one of them with a value, at any depth, replaced, renamed, doubled or left out."""
    at = draw(st.integers(0, len(rows) - 1))
    made = [json.dumps(one, ensure_ascii=False).encode() for one in rows]
    if draw(st.integers(0, 9)) == 0:
        made[at] = draw(values())
        return b"\n".join(made) + b"\n"
    row = here = json.loads(made[at])
    while True:
        name = draw(st.sampled_from([*here] if isinstance(here, dict) else range(len(here))))
        if not (isinstance(here[name], dict | list) and here[name] and draw(st.booleans())):
            break
        here = here[name]
    piece = draw(values())
    match draw(st.sampled_from(["replace", "replace", "drop", "add", "twice"])):
        case "drop":
            del here[name]
        case "add" if isinstance(here, dict):
            here[draw(st.sampled_from(["rank", "deleted", "system", "history", "new"]))] = "@@"
        case "twice" if isinstance(here, dict):
            here["@@"] = here[name]
            piece = json.dumps(name).encode()
        case _:
            here[name] = "@@"
    made[at] = json.dumps(row, ensure_ascii=False).encode().replace(b'"@@"', piece)
    return b"\n".join(made) + b"\n"


def found_in(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, by Python's own readers."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    data = data.removeprefix(b"\xef\xbb\xbf")
    if path.suffix in (".csv", ".tsv"):
        text = io.StringIO(data.decode(), newline="")
        yield from csv.DictReader(text, delimiter="," if path.suffix == ".csv" else "\t")
    elif data.lstrip().startswith(b"["):
        yield from json.loads(data)
    else:
        yield from (json.loads(line) for line in data.split(b"\n") if line.strip())


def check_error(error: InstilError, paths: list[Path]) -> None:
    """It names a file, the line, and the column or the field, in one printable line."""
    message = str(error)
    assert message.isprintable() and len(message) < 1000, message[:2000]
    [path] = [path for path in paths if message.startswith(f"{path}:")]
    said = message.removeprefix(f"{path}:")
    if WAYS_OUT.search(said):
        return
    place = re.match(r"\d+(:\d+)?: ", said)
    assert place, message
    column_or_field = place[1] or re.match(r"(schema|prompt|demonstration|[\w.\[\]]+:)", said)
    assert column_or_field or "header has" in said or "nested too" in said, message


def check_taken(path: Path, out: Path, to: str) -> None:
    """What was written is what the rows give."""
    if path.suffix == ".txt":
        text = path.read_bytes().decode("utf-8-sig")
        whole = io.StringIO(text, newline="\n").readlines()
        marked = any(line.strip() == "<|endoftext|>" for line in whole)
        wanted = list(documents(whole, "endoftext" if marked else "blank"))
        assert [record.text for record in read_records(out / "text.jsonl", Text)] == wanted
        return
    rows = list(found_in(path))
    kind = detect(rows[0])
    if kind == "text":
        written = read_records(out / "text.jsonl", Text)
        assert [record.text for record in written] == [row["text"] for row in rows]
        return
    items = [item for row in rows for item in read_row(READERS[kind], row, Counter())]
    if to != "instil":
        wanted = [row for item in items for row in write_rows(WRITERS[to], item, Counter())]
        assert [row for _, row in iter_objects(out)] == wanted
        return
    made = convert([(path.name, item) for item in items])
    for name, record in (
        ("prompts", Prompt),
        ("demonstrations", Demonstration),
        ("responses", Response),
        ("rankings", Ranking),
    ):
        there = out / f"{name}.jsonl"
        assert (read_records(there, record) if there.exists() else []) == getattr(made, name)


def all_or_none(name: str, data: bytes, to: str) -> bool:
    """Convert the file; whether it was taken."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / name, Path(folder) / "out.jsonl"
        path.write_bytes(data)
        try:
            run(Config(files=(path,), out=out, to=to))
        except InstilError as error:
            check_error(error, [path])
            assert list(Path(folder).iterdir()) == [path]
            return False
        check_taken(path, out, to)
        return True


TO = st.sampled_from(["instil", "instil", *WRITERS])


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_it_should_be(name):
    assert all_or_none(name, FILES[name], "instil")


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_file_with_changed_bytes_is_taken_whole_or_not_at_all(name, data):
    all_or_none(name, data.draw(changed_bytes(FILES[name])), data.draw(TO))


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_a_file_with_a_changed_value_is_taken_whole_or_not_at_all(name, data):
    all_or_none(f"{name}.jsonl", data.draw(changed_rows(ROWS[name])), data.draw(TO))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=200 * TIMES)
@given(data=st.data())
def test_so_are_many_more_with_changed_bytes(name, data):
    all_or_none(name, data.draw(changed_bytes(FILES[name])), data.draw(TO))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=200 * TIMES)
@given(data=st.data())
def test_so_are_many_more_with_a_changed_value(name, data):
    all_or_none(f"{name}.jsonl", data.draw(changed_rows(ROWS[name])), data.draw(TO))


# --- records ----------------------------------------------------------------------------------

PROMPTS = [
    {"schema": "instil.prompt/1", "id": f"p{n}", "text": f"What is {n}?", "meta": {"n": [n, {}]}}
    for n in range(3)
]
RESPONSES = [
    {
        **{"schema": "instil.response/1", "id": f"r{n}{k}", "prompt_id": f"p{n}"},
        **{"text": f"It is {k}.", "policy": f"m{k}", "sampling": {"seed": k}},
    }
    for n in range(3)
    for k in range(4)
]
RANKINGS = [
    {
        **{"schema": "instil.ranking/1", "prompt_id": f"p{n}", "labeler_id": "ann"},
        "tiers": [[f"r{n}1"], [f"r{n}0", f"r{n}2"], [f"r{n}3"]],
    }
    for n in range(3)
]
DEMONSTRATIONS = [
    {"schema": "instil.demonstration/1", "prompt_id": f"p{n}", "labeler_id": "ann", "text": "So."}
    for n in range(3)
]
RECORDS = {
    "prompts.jsonl": PROMPTS,
    "responses.jsonl": RESPONSES,
    "rankings.jsonl": RANKINGS,
    "demonstrations.jsonl": DEMONSTRATIONS,
}


def written(folder: Path, changed: str, data: bytes) -> list[Path]:
    """The files of records, one of them changed."""
    paths = [folder / name for name in RECORDS]
    for path in paths:
        path.write_bytes(data if path.name == changed else lines(RECORDS[path.name]))
    return paths


def records_all_or_none(name: str, data: bytes, to: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths, out = written(Path(folder), name, data), Path(folder) / "out.jsonl"
        try:
            run(Config(files=tuple(paths), out=out, to=to, from_format="instil"))
        except InstilError as error:
            check_error(error, paths)
            assert sorted(Path(folder).iterdir()) == sorted(paths)
            return
        items = [item for _, item in read_joined(paths, Counter())]
        wanted = [row for item in items for row in write_rows(WRITERS[to], item, Counter())]
        assert [row for _, row in iter_objects(out)] == wanted
        named = {row["id"] for row in found_in(paths[0])}
        assert {item.prompt for item in items} == {
            row["text"] for row in found_in(paths[0]) if row["id"] in named
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without anything in it, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    database = Database(path)
    database.migrate()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


def batch_all_or_none(template: Path, name: str, data: bytes) -> None:
    plan = batches.Plan(name="b", kind="ranking")
    with tempfile.TemporaryDirectory() as folder:
        database = Database(shutil.copy(template, Path(folder) / "labels.db"))
        prompts, *answers = written(Path(folder), name, data)
        answers.remove(Path(folder) / "rankings.jsonl")
        try:
            counts = batches.create(database, None, plan, prompts, answers)
        except InstilError as error:
            check_error(error, [prompts, *answers])
            rows = 0
        else:
            left_out = [n for why, n in counts.left_out.items() if why.startswith("prompts")]
            assert counts.tasks + sum(left_out) == len(list(found_in(prompts)))
            rows = counts.tasks
        with database.read() as connection:
            for table in (schema.batch, schema.prompt, schema.task, schema.response, schema.audit):
                count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
                assert (count or 0) >= (rows > 0) and bool(count) == (rows > 0)
            tasks = connection.execute(sa.select(sa.func.count()).select_from(schema.task))
            assert tasks.scalar() == rows
        database.close()


Check = Callable[[str, bytes], None]


@pytest.fixture(scope="module", params=["convert", "batch"])
def check(request: pytest.FixtureRequest, template: Path) -> Check:
    """What records must pass: conversion to rows, or a batch of a labeling database."""
    if request.param == "batch":
        return lambda name, data: batch_all_or_none(template, name, data)
    return lambda name, data: records_all_or_none(name, data, "oasst")


@pytest.mark.parametrize("name", RECORDS)
def test_records_as_they_should_be(check, name):
    check(name, lines(RECORDS[name]))


def changed_record(draw: st.DrawFn, name: str) -> bytes:
    return draw(changed_rows(RECORDS[name]) | changed_bytes(lines(RECORDS[name])))


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
def test_changed_records_are_taken_whole_or_not_at_all(check, name, data):
    check(name, changed_record(data.draw, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=200 * TIMES)
@given(data=st.data())
def test_so_are_many_more_records(check, name, data):
    check(name, changed_record(data.draw, name))
