"""Reading names path, line and field; writing is whole or absent."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InstilError
from instil.jsonl import (
    append_line,
    content_id,
    iter_objects,
    iter_records,
    read_records,
    write_all,
    write_json,
    write_records,
)
from instil.records import Prompt, Ranking, Response

GOOD = b'{"schema":"instil.prompt/1","id":"p-1","text":"What is a prime?"}\n'
PROMPTS = [Prompt(id="p-1", text="Où?", meta={"n": 1}), Prompt(id="p-2", text="a\u2028b\nc")]


def file(folder: Path, content: bytes, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "deep/er/a.jsonl", "a.jsonl.gz"])
def test_what_was_written_is_read(tmp_path, name):
    write_records(tmp_path / name, PROMPTS)
    assert read_records(tmp_path / name, Prompt) == PROMPTS
    assert [p.name for p in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_equal_records_make_equal_bytes(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_records(tmp_path / name, PROMPTS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_bom_crlf_and_blank_lines_are_harmless(tmp_path):
    path = file(tmp_path, b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\r\n  \n" + GOOD[:-1])
    assert len(read_records(path, Prompt)) == 2


BAD_LINES = {
    "schema: its schema is 'instil.response/1', expected 'instil.prompt/1' (prompt records)": (
        b'{"schema":"instil.response/1","id":"r","prompt_id":"p","text":"t"}'
    ),
    "schema: it names no schema, expected 'instil.prompt/1'": b'{"id":"p-1","text":"t"}',
    "schema: its schema is 'none', expected": b'{"schema":"none"}',
    "schema: its schema is 5, expected": b'{"schema":5}',
    "text: Expected `str`, got `int`": GOOD.replace(b'"What is a prime?"', b"3"),
    "text: missing; add it": b'{"schema":"instil.prompt/1","id":"p-1"}',
    'usecase: unknown field; did you mean "use_case"?': GOOD.replace(b'"id"', b'"usecase":"","id"'),
    '"id" and "text" must not be empty': GOOD.replace(b"What is a prime?", b" "),
    "Expected `object`, got `array`": b"[1]",
    "nested too deeply": GOOD.replace(b'"id"', b'"meta":' + b'{"a":' * 9999),
}


@pytest.mark.parametrize("message", BAD_LINES)
def test_a_bad_line_is_named(tmp_path, message):
    path = file(tmp_path, GOOD + b"\n" + BAD_LINES[message].rstrip() + b"\n" + GOOD)
    with pytest.raises(InstilError) as caught:
        read_records(path, Prompt)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b'{"schema":"instil.prompt/1","id":NaN}', 34, "invalid character"),
        (b'{"schema":"instil.prompt/1","id', 32, "truncated"),
        (b'{"schema":"instil.prompt/1","id":"\xff"}', 35, "byte 0xff is not UTF-8"),
    ],
)
def test_a_line_that_is_not_json_has_a_column(tmp_path, line, column, reason):
    path = file(tmp_path, GOOD + line + b"\n")
    with pytest.raises(InstilError, match=f":2:{column}: .*{reason}"):
        read_records(path, Prompt)


def test_a_place_inside_a_field_is_named(tmp_path):
    line = '{"schema":"instil.ranking/1","prompt_id":"p","labeler_id":"l","tiers":[["a",3]]}'
    with pytest.raises(InstilError, match=r":1: tiers\[0\]\[1\]: Expected `str`, got `int`"):
        read_records(file(tmp_path, line.encode()), Ranking)


@given(data=st.data())
def test_a_mutated_file_gives_records_or_one_clear_error(tmp_path_factory, data):
    content = bytearray(
        GOOD * 2 + b'{"schema":"instil.prompt/1","id":"\xc3\xa9","text":"\\ud83d"}\n'
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        junk = st.sampled_from(
            [b"", b'"', b"\xff", b"\n", b"NaN", b"9" * 5000, b"\\ud800", b"{", b"\0"]
        )
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(junk)
    path = file(tmp_path_factory.mktemp("m"), bytes(content))
    for read in (lambda: read_records(path, Prompt), lambda: list(iter_objects(path))):
        message = ""
        try:
            read()
        except InstilError as error:
            message = str(error)
        assert message == "" or message.startswith(f"{path}:")


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InstilError, match="no such file"):
        read_records(tmp_path / "none.jsonl", Prompt)
    with pytest.raises(InstilError, match="directory"):
        read_records(tmp_path, Prompt)
    packed = gzip.compress(GOOD * 100)
    with pytest.raises(InstilError, match="damaged"):
        read_records(file(tmp_path, packed[: len(packed) // 2]), Prompt)


def test_an_array_of_objects_knows_its_lines(tmp_path):
    path = file(tmp_path, b'[\n{"a":\n1}, {"b":"[,"},\n\n{"c":3}]')
    assert list(iter_objects(path)) == [(2, {"a": 1}), (3, {"b": "[,"}), (5, {"c": 3})]
    with pytest.raises(InstilError, match=r":2: expected an object \{\.\.\.\}, got '3'"):
        list(iter_objects(file(tmp_path, b'[{"a":1},\n3]')))
    with pytest.raises(InstilError, match=":2:6: not valid JSON"):
        list(iter_objects(file(tmp_path, b'[{"a":1},\n{"a":}]')))


def test_csv_rows_are_objects_of_strings(tmp_path):
    path = file(tmp_path, b'\xef\xbb\xbfa,b\r\n1,"x\ny, ""z"""\r\n\r\n3,4\r\n', "a.csv")
    assert list(iter_objects(path)) == [
        (2, {"a": "1", "b": 'x\ny, "z"'}),
        (5, {"a": "3", "b": "4"}),
    ]
    long = "x" * 200_000
    path = file(tmp_path, gzip.compress(f"a\tb\n{long}\t1".encode()), "a.tsv.gz")
    assert list(iter_objects(path)) == [(2, {"a": long, "b": "1"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,"x\ny"\n5\n', ":4: 1 fields, but the header has 2"),
        (b'a,b\n1,"x\n', ":2: not valid CSV"),
        (b"a,a\n1,2\n", ":1: two columns are called 'a'"),
        (b"a,b\n1,\xff\n", "not UTF-8"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    with pytest.raises(InstilError, match=message):
        list(iter_objects(file(tmp_path, content, "a.csv")))


def test_records_are_read_one_line_at_a_time(tmp_path):
    records = iter_records(file(tmp_path, GOOD + b"broken"), Prompt)
    assert next(records).id == "p-1"
    with pytest.raises(InstilError, match=":2:"):
        next(records)


def test_a_failure_while_writing_leaves_everything_as_it_was(tmp_path):
    path, other = tmp_path / "a.jsonl", tmp_path / "new" / "b.jsonl"
    write_records(path, PROMPTS)
    before = path.read_bytes()

    def failing():
        yield Response(id="r-1", prompt_id="p-1", text="x")
        raise InstilError("the source broke")

    with pytest.raises(InstilError, match="the source broke"):
        write_all({path: [], other: failing()})
    with pytest.raises(InstilError, match=r"a\.jsonl:1: U\+D800 is half of a surrogate pair"):
        write_records(path, [Prompt(id="p", text="\ud800")])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.jsonl"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch, failing):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(InstilError, match=r"a\.jsonl: .*No space left on device"):
        write_records(tmp_path / "a.jsonl", PROMPTS)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(InstilError, match="is not a file"):
        write_records(tmp_path, PROMPTS)
    (tmp_path / "real").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real" / "a.jsonl")
    write_records(tmp_path / "link.jsonl", PROMPTS)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert read_records(tmp_path / "real" / "a.jsonl", Prompt) == PROMPTS


def test_lines_are_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1, "loss": float("nan"), "path": tmp_path})
    append_line(path, PROMPTS[0])
    first, second = path.read_text().splitlines()
    assert json.loads(first) == {"step": 1, "loss": None, "path": str(tmp_path)}
    assert json.loads(second)["schema"] == "instil.prompt/1"


def test_a_json_file_is_indented(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_ids_depend_on_where_texts_end():
    assert content_id("r", "ab", "c") != content_id("r", "a", "bc")
    assert content_id("p", "ab") == content_id("p", "ab")
    assert len(content_id("p", "ab")) == 2 + 16
