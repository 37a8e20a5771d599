"""Records -> items, and the whole way there and back as commands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from instil.cli import main
from instil.convert import Config, run
from instil.convert.item import Item
from instil.convert.joined import read_joined
from instil.errors import InstilError
from instil.jsonl import iter_objects, read_records, write_records
from instil.records import Demonstration, Labeler, Prompt, Ranking, Rating, Record, Response

RECORDS: dict[str, list[Record]] = {
    "prompts": [
        Prompt(id="p1", text="Why?", use_case="open_qa", user_id="u", split="train"),
        Prompt(id="p2", text="How?", source="written", meta={"a": 1}),
        Prompt(id="p3", text="Who?"),
    ],
    "responses": [
        Response(id="r1", prompt_id="p1", text="A", policy="m", sampling={"seed": 1}),
        Response(id="r2", prompt_id="p1", text="B"),
        Response(id="r3", prompt_id="p1", text="C", policy="n"),
        Response(id="r4", prompt_id="p2", text="D"),
    ],
    "demonstrations": [Demonstration(prompt_id="p2", labeler_id="unknown", text="E")],
    "rankings": [Ranking(prompt_id="p1", labeler_id="l", tiers=(("r3",), ("r1", "r2")))],
    "ratings": [Rating(response_id="r1", labeler_id="l", overall=4)],
    "labelers": [Labeler(id="l")],
}


def write(folder: Path, **changed: list[Record]) -> tuple[Path, ...]:
    for name, records in {**RECORDS, **changed}.items():
        write_records(folder / f"{name}.jsonl", records)
    return tuple(folder / f"{name}.jsonl" for name in RECORDS)


def test_records_are_joined_and_what_nobody_judged_is_not_forgotten(tmp_path):
    lost: Counter[str] = Counter()
    assert list(read_joined(write(tmp_path), lost)) == [
        ("written", Item("How?", ("E",), meta={"a": 1})),
        (
            "api",
            Item(
                *("Why?", ("C", "A", "B"), "open_qa", (1, 2, 2), ("n", "m", "")),
                labeler="l",
                user_id="u",
            ),
        ),
        ("written", Item("How?", ("D",), policies=("",), meta={"a": 1})),
        ("api", Item("Who?")),
    ]
    assert +lost == {
        **{"rating": 1, "labeler": 1, "sampling of a response": 1},
        **{"source of a prompt": 4, "split of a prompt": 1},
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {
                "demonstrations": [
                    *RECORDS["demonstrations"],
                    Demonstration(prompt_id="p9", labeler_id="l", text="E"),
                ]
            },
            "demonstrations.jsonl:2: prompt_id: p9 is in none of the files",
        ),
        (
            {"responses": [*RECORDS["responses"], Response(id="r5", prompt_id="p9", text="A")]},
            "responses.jsonl:5: prompt_id: p9 is in none of the files",
        ),
        ({"responses": RECORDS["responses"][:2]}, "rankings.jsonl:1: tiers: r3 is in none"),
        (
            {"rankings": [Ranking(prompt_id="p2", labeler_id="l", tiers=(("r1",), ("r4",)))]},
            "rankings.jsonl:1: tiers: response r1 answers prompt p1, not p2",
        ),
        (
            {"prompts": [*RECORDS["prompts"], Prompt(id="p1", text="What?")]},
            "prompts.jsonl:4: id: p1 occurs before with other content",
        ),
    ],
)
def test_records_that_do_not_fit_together_are_named_and_nothing_is_written(
    tmp_path, changed, message
):
    files = write(tmp_path, **changed)
    with pytest.raises(InstilError) as caught:
        run(Config(files=files, to="oasst", out=tmp_path / "out.jsonl"))
    assert str(tmp_path / message) in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_holds_no_records_is_named(tmp_path):
    files = write(tmp_path)
    (tmp_path / "other.jsonl").write_text('\n{"schema": "instil.other/1"}\n')
    with pytest.raises(InstilError, match=r"other\.jsonl:2: schema: 'instil\.other/1' is not one"):
        list(read_joined((*files, tmp_path / "other.jsonl"), Counter()))


def test_the_command_there_and_back(tmp_path, capsys):
    files = [str(path) for path in write(tmp_path / "records")]
    trees = tmp_path / "trees.jsonl.gz"
    assert main(["convert", "--files", *files, "--to", "oasst", "--out", str(trees)]) == 0
    said = capsys.readouterr().out
    assert f"wrote 4 rows to {trees}" in said
    assert "split of a prompt (1)" in said and "labeler of a ranking (1)" in said
    back = tmp_path / "back"
    assert main(["convert", "--files", str(trees), "--from", "oasst", "--out", str(back)]) == 0
    prompts = {p.text: p for p in read_records(back / "prompts.jsonl", Prompt)}
    assert set(prompts) == {"Why?", "How?", "Who?"}
    assert prompts["Why?"].user_id == "u"
    responses = {r.id: r for r in read_records(back / "responses.jsonl", Response)}
    assert sorted((r.text, r.policy) for r in responses.values()) == [
        ("A", "m"),
        ("B", ""),
        ("C", "n"),
        ("D", ""),
    ]
    (ranking,) = read_records(back / "rankings.jsonl", Ranking)
    assert [{responses[i].text for i in tier} for tier in ranking.tiers] == [{"C"}, {"A", "B"}]
    (demonstration,) = read_records(back / "demonstrations.jsonl", Demonstration)
    assert demonstration.text == "E"


def test_settings_that_have_no_place_are_refused(tmp_path):
    files = write(tmp_path)
    for given, message in (
        ({"out": tmp_path / "x"}, r"x: --to alpaca writes one file, \.jsonl or \.jsonl\.gz"),
        ({"out": files[0]}, "is one of the files to convert"),
        ({"out": tmp_path / "x.jsonl", "valid": 0.1}, "source, split and valid are for records"),
    ):
        with pytest.raises(InstilError, match=message):
            Config(**{"files": files, "to": "alpaca", **given})
    with pytest.raises(InstilError, match=r"prompts\.jsonl: holds records already"):
        run(Config(files=files, out=tmp_path / "x"))
    with pytest.raises(
        InstilError, match=r"has nothing that alpaca can hold; found: .*prompt \(1\)"
    ):
        run(Config(files=files[:1], to="alpaca", out=tmp_path / "x.jsonl"))
    assert not (tmp_path / "x.jsonl").exists()
    run(Config(files=files, to="alpaca", out=tmp_path / "x.jsonl"))
    (row,) = [row for _, row in iter_objects(tmp_path / "x.jsonl")]
    assert row == {"instruction": "How?", "input": "", "output": "E"}
