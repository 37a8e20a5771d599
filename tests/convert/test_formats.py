"""The table of formats: what each holds comes back, what it does not hold is counted."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.convert import Config, run
from instil.convert.formats import READERS, WRITERS, Source, Target, detect, read_row, write_rows
from instil.convert.item import Item, ranked
from instil.convert.messages import ASSISTANT, join
from instil.jsonl import iter_objects, write_lines

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() != ""
)
SYSTEM = "Whatever you are asked, be kind."
PROMPTS = WORDS | st.lists(WORDS, min_size=2, max_size=4).map(
    lambda texts: (
        join([("user", t) if n % 2 == 0 else ("assistant", t) for n, t in enumerate(texts)])
        if len(texts) % 2
        else join([("system", SYSTEM), ("user", texts[1])])
    )
)


@st.composite
def items(draw) -> Item:
    """An item of any kind that says as much as it can."""
    prompt, kind = draw(PROMPTS), draw(st.sampled_from(["none", "one", "model", "many"]))
    answers = draw(st.lists(WORDS, min_size=2, max_size=5, unique=True))
    said = {
        "user_id": draw(st.sampled_from(["", "u"])),
        "labeler": draw(st.sampled_from(["", "l"])),
    }
    if kind == "many":
        judged = [(draw(st.integers(1, 3)), text, draw(st.sampled_from("xyz"))) for text in answers]
        return ranked(prompt, judged, meta={"subset": "s", "dataset": "d"}, **said)
    if kind == "model":
        return Item(prompt, (answers[0],), policies=("x",), user_id=said["user_id"])
    if kind == "one":
        return Item(prompt, (answers[0],), use_case="chat", **said)
    return Item(prompt, user_id=said["user_id"])


def held(item: Item, name: str) -> list[Item]:
    """What of an item a format gives back, by what the table says that it holds."""
    holds = WRITERS[name].holds
    if item.kind not in holds:
        return []
    parts = [item] if "many" in holds or item.kind != "ranking" else list(item.pairs())
    kept = []
    for part in parts:
        tied = len(set(part.places())) < len(part.answers)
        if (tied and "ties" not in holds) or (name == "oasst" and SYSTEM in part.prompt):
            continue
        if name == "hh" and not part.prompt.endswith(ASSISTANT):
            part = replace(part, prompt=f"Human: {part.prompt}{ASSISTANT}")
        authored = "policies" in holds
        kept.append(
            replace(
                part,
                use_case="",
                policies=part.policies if authored else (),
                user_id=part.user_id if "user_id" in holds else "",
                labeler=part.labeler if f"labeler of a {part.kind}" in holds else "",
                meta={k: v for k, v in part.meta.items() if f"meta.{k}" in holds},
            )
        )
    return kept


@pytest.mark.parametrize("name", WRITERS)
@given(item=items())
def test_what_a_format_holds_comes_back(name, item):
    rows = list(write_rows(WRITERS[name], item, Counter()))
    reader = READERS[name.removesuffix("-messages")]
    assert all(detect(row) == name.removesuffix("-messages") for row in rows)
    lost: Counter[str] = Counter()
    back = [found for row in rows for found in read_row(reader, row, lost)]
    if name == "oasst":  # an earlier turn in a tree is an answer of its own
        back = [found for found in back if found.prompt == item.prompt]
    assert back == held(item, name)


RANKING = Item(
    *("p", ("a", "b", "c"), "chat", (1, 2, 2), ("x", "y", "")),
    **{"labeler": "l", "user_id": "u", "meta": {"subset": "s"}},
)
PAIRS = {"ranking of more than two, written as its pairs": 1, "use_case": 2, "user_id": 2}


@pytest.mark.parametrize(
    ("name", "rows", "lost"),
    [
        ("alpaca", 0, {"ranking": 1}),
        (
            "preference",
            2,
            PAIRS | {"tie": 1, "policies": 2, "labeler of a ranking": 2, "meta.subset": 2},
        ),
        ("rewardbench", 2, PAIRS | {"tie": 1, "labeler of a ranking": 2}),
        ("alpacafarm", 3, PAIRS | {"use_case": 3, "user_id": 3, "meta.subset": 3}),
        (
            "ultrafeedback",
            1,
            {"use_case": 1, "user_id": 1, "labeler of a ranking": 1, "meta.subset": 1},
        ),
        ("oasst", 1, {"use_case": 1, "labeler of a ranking": 1, "meta.subset": 1}),
    ],
)
def test_what_a_format_does_not_hold_is_counted(name, rows, lost):
    counted: Counter[str] = Counter()
    assert len(list(write_rows(WRITERS[name], RANKING, counted))) == rows
    assert counted == lost


@pytest.mark.parametrize(
    ("name", "item", "lost"),
    [
        ("hh", Item("p", ("a", "b\n\nHuman: c")), "answer with turns of its own"),
        (
            "hh",
            Item("p", ("a\n\nAssistant: b", "a\n\nAssistant: c")),
            "answer with turns of its own",
        ),
        ("preference", Item("p", ("a", " ")), "answer without text"),
        ("oasst", Item(join([("system", "s"), ("user", "u")])), "message of the system"),
        ("openai", Item("p", ("a",), policies=("",)), "response"),
    ],
)
def test_an_item_that_would_not_come_back_is_not_written(name, item, lost):
    counted: Counter[str] = Counter()
    assert list(write_rows(WRITERS[name], item, counted)) == []
    assert counted == {lost: 1}


def test_what_a_row_says_beside_its_item_is_counted():
    row = {"instruction": "i", "input": "", "output_1": "a", "output_2": "b", "preference": 1.2}
    counted: Counter[str] = Counter()
    read_row(READERS["alpacafarm"], {**row, "id": 7, "price": 1, "note": ""}, counted)
    assert counted == {"price": 1, "strength of a preference": 1}


def test_the_names_on_the_command_line_are_those_of_the_table():
    assert set(get_args(Source)) == {"auto", "instil", "text", *READERS}
    assert set(get_args(Target)) == {"instil", *WRITERS}


def test_rows_are_converted_one_at_a_time(tmp_path):
    def long(rows):
        text = "word " * 2000
        return ({"prompt": f"{n} {text}", "completion": text} for n in range(rows))

    peaks = []
    for rows in (50, 500):
        write_lines(tmp_path / "a.jsonl", long(rows))
        tracemalloc.start()
        run(Config(files=(tmp_path / "a.jsonl",), to="openai", out=tmp_path / "b.jsonl"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(1 for _ in iter_objects(tmp_path / "b.jsonl")) == rows
    assert peaks[1] < 1.5 * peaks[0]  # ten times the rows, 10 MB
