"""Logs: every kind of file, consent as it is said, and the line of what is wrong."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from instil import jsonl
from instil.errors import InstilError
from instil.intake import Config, run
from instil.intake.log import Log, RawPrompt, read_raw


def log(folder: Path, name: str = "raw.jsonl", **given: object) -> Log:
    return Log(**{"raw": folder / name, "missing_consent": "keep", **given})


def test_a_csv_and_a_file_of_raw_prompts_are_logs_too(tmp_path):
    raw = [
        RawPrompt(text='a, "b"\nc', user_id="u", consent=False),
        RawPrompt(text="d", organisation_id="o"),
    ]
    jsonl.write_records(tmp_path / "raw.jsonl", raw)
    with (tmp_path / "raw.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "user_id", "organisation_id", "consent"])
        writer.writerows([p.text, p.user_id, p.organisation_id, p.consent] for p in raw)
    for name in ("raw.jsonl", "raw.csv"):
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert list(read_raw(log(tmp_path, name))) == raw
        assert list(read_raw(log(tmp_path, f"{name}.gz"))) == raw


@pytest.mark.parametrize(
    ("answer", "consent"),
    [
        *((word, True) for word in ("true", "1", '"Yes"', '" y "', '"TRUE"', '"t"')),
        *((word, False) for word in ("false", "0", '"no"', '"N"', '"F"', '"0"')),
    ],
)
def test_a_clear_answer_is_an_answer(tmp_path, answer, consent):
    (tmp_path / "raw.jsonl").write_text(f'{{"text": "a", "consent": {answer}}}')
    assert [p.consent for p in read_raw(log(tmp_path, missing_consent="stop"))] == [consent]


@pytest.mark.parametrize("answer", ['"maybe"', '"on"', '"2"', "2", "1.0", "[]", '"opt-out"', "{}"])
def test_nothing_else_is_taken_for_an_answer(tmp_path, answer):
    (tmp_path / "raw.jsonl").write_text(f'{{"text": "a", "consent": {answer}}}')
    with pytest.raises(InstilError, match=r"raw.jsonl:1: consent: got .*, expected one of true, y"):
        list(read_raw(log(tmp_path)))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('"concent": "yes"', 'missing; did you mean "concent"?; name it with --consent-field'),
        ('"consent": null', "empty"),
        ('"consent": " "', "empty"),
    ],
)
def test_silence_is_not_consent_unless_it_is_said_to_be(tmp_path, line, what):
    (tmp_path / "raw.jsonl").write_text(f'{{"text": "a", {line}}}')
    with pytest.raises(InstilError, match="--missing-consent drop leaves") as caught:
        list(read_raw(Log(raw=tmp_path / "raw.jsonl")))
    assert f"raw.jsonl:1: consent: {what}; nobody" in str(caught.value)
    assert [p.consent for p in read_raw(log(tmp_path, missing_consent="drop"))] == [False]
    assert [p.consent for p in read_raw(log(tmp_path, missing_consent="keep"))] == [True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"txt": "a"}', 'text: missing, expected text; did you mean "txt"?; name it with'),
        ('{"text": 5}', "text: got 5, expected text"),
        ('{"text": "a", "user_id": [1]}', "user_id: got [1], expected text or a whole number"),
        ('{"text": "a", "organisation_id": true}', "organisation_id: got True, expected text or"),
        ('{"text": "a", "use_case": "chatt"}', "use_case: 'chatt' is not known; did you mean"),
        ('{"text": "a", "schema": "instil.prompt/1"}', "schema: got 'instil.prompt/1', expected"),
        ('{"text": "a"', ":2:13: not valid JSON"),
        ('{"text": "a\\ud800"}', "not valid JSON"),
    ],
)
def test_a_bad_line_of_a_log_is_named_and_nothing_is_written(tmp_path, row, message):
    (tmp_path / "raw.jsonl").write_text('{"text": "good"}\n' + row)
    with pytest.raises(InstilError) as caught:
        run(Config(raw=tmp_path / "raw.jsonl", out=tmp_path / "out", missing_consent="keep"))
    assert str(caught.value).startswith(f"{tmp_path / 'raw.jsonl'}:2:")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
