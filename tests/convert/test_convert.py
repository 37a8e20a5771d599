"""Conversion: each format by hand, the published files as a whole, broken files."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.convert import Config, convert, documents, run
from instil.convert.formats import READERS, WRITERS, detect, read_row
from instil.convert.item import Item
from instil.convert.messages import join, split
from instil.errors import InstilError
from instil.jsonl import iter_objects, read_records
from instil.records import Demonstration, Prompt, Ranking, Response, Text

HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Because.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Be quiet.",
}
USER, BOT = {"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}
ROWS = {
    "hh": (HH, Item(HH["chosen"][2:-9], ("Because.", "Be quiet."))),
    "preference": (
        {"prompt": "p", "chosen": " a\n", "rejected": "b", "id": 3},
        Item("p", ("a", "b")),
    ),
    "completion": ({"prompt": "p", "completion": " a"}, Item("p", ("a",))),
    "prompt": ({"prompt": "p"}, Item("p")),
    "openai": ({"messages": [USER, BOT]}, Item("p", ("a",))),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "a"}]},
        Item("p", ("a",)),
    ),
    "alpaca": ({"instruction": "i", "input": "x ", "output": "o"}, Item("i\n\nx", ("o",))),
    "dolly": (
        {"instruction": "i", "context": "", "response": "o", "category": "general_qa"},
        Item("i", ("o",), "open_qa"),
    ),
    "alpacafarm": (
        {"instruction": "i", "input": "", "output_1": "a", "output_2": "b", "preference": 2}
        | {"annotator": "gpt-4", "generator_1": "x", "generator_2": "y", "dataset": "koala"},
        Item("i", ("b", "a"), policies=("y", "x"), labeler="gpt-4", meta={"dataset": "koala"}),
    ),
    "oasst": (
        {"message_tree_id": "m", "prompt": {"text": "p", "role": "prompter", "replies": []}},
        Item("p"),
    ),
    "ultrafeedback": (
        {"instruction": "i", "models": ["x"], "completions": [{"model": "x", "response": "a"}]},
        Item("i", ("a",), policies=("x",)),
    ),
    "rewardbench": (
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": "x", "subset": "s"},
        Item("p", ("a", "b"), policies=("x", ""), meta={"subset": "s"}),
    ),
}


def write(folder: Path, *rows: object, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_recognised_and_read(name):
    row, item = ROWS[name]
    assert detect(row) == name
    read = READERS[name].read(row)
    assert (read if isinstance(read, Item) else next(iter(read))) == item


def test_earlier_turns_become_a_dialogue():
    row = {"instruction": "And 3?", "input": "", "output": "9", "history": [["2 squared?", "4"]]}
    item = READERS["alpaca"].read(row)
    assert item.prompt == "Human: 2 squared?\n\nAssistant: 4\n\nHuman: And 3?\n\nAssistant:"


def test_rows_of_one_prompt_share_its_id_and_stand_together():
    items = [Item("p", ("a", "b")), Item("q", ("a", "b")), Item("p", ("b", "c"))]
    made = convert([("file", item) for item in items])
    p, q = made.prompts
    assert (p.text, p.source, p.split, q.text) == ("p", "file", "train", "q")
    assert [r.prompt_id for r in made.rankings] == [p.id, p.id, q.id]
    assert [(r.prompt_id, r.text) for r in made.responses] == [
        (p.id, "a"),
        (p.id, "b"),
        (p.id, "c"),
        (q.id, "a"),
        (q.id, "b"),
    ]
    text = {r.id: r.text for r in made.responses}
    chosen = [[text[i] for tier in r.tiers for i in tier] for r in made.rankings]
    assert chosen == [["a", "b"], ["b", "c"], ["a", "b"]]
    assert len(text) == 5  # "a" to p and "a" to q are two responses
    assert {r.labeler_id for r in made.rankings} == {"unknown"}


def test_a_share_of_the_prompts_is_for_validation():
    items = [("file", Item(f"prompt {i}")) for i in range(1000)]
    splits = Counter(p.split for p in convert(items, "train", 0.1).prompts)
    assert 60 < splits["valid"] < 140  # 100 expected, standard deviation 9.5
    assert splits["train"] == 1000 - splits["valid"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "chosen: not known; --from prompt takes"),
        ({"prompt": "p", "completion": "a", "label": True}, "label: a completion that is only"),
        ({"question": "p"}, "fields question: no format is known"),
        ({"prompt": "p", "chosen": 5, "rejected": "b"}, "chosen: got 5, expected text"),
        ({"prompt": "p", "chosen": [BOT], "rejected": "b"}, "rejected: got 'b', expected a list"),
        ({"prompt": "p", "chosen": "a", "rejected": " a"}, "rejected: is the same as chosen"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt: is empty"),
        ({"chosen": "a", "rejected": "b"}, 'chosen: no "Assistant:" turn'),
        ({**HH, "rejected": HH["rejected"].replace("Hello", "Howdy")}, "before the last Assistant"),
        ({**HH, "rejected": HH["rejected"][:-9]}, "rejected: the answer is empty"),
        ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "nothing stands before"),
        ({"instruction": "i", "input": 5, "output": "o"}, "input: got 5"),
        ({"instruction": "i", "output": ""}, "output: is empty"),
        ({"instruction": "i", "output": "o", "history": [["a"]]}, "history: got [['a']], expected"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, row, message):
    path = write(tmp_path, row)
    with pytest.raises(InstilError) as caught:
        run(Config(files=(path,), out=tmp_path / "out"))
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_rows_can_be_left_out(tmp_path, capsys):
    good, bad = ROWS["completion"][0], {"prompt": "p", "completion": ""}
    path = write(tmp_path, good, bad, good)
    with pytest.raises(InstilError, match=r":2: completion: is empty \(--bad-rows skip"):
        run(Config(files=(path,), out=tmp_path / "out"))
    run(Config(files=(path,), out=tmp_path / "out", bad_rows="skip"))
    assert len(read_records(tmp_path / "out" / "demonstrations.jsonl", Demonstration)) == 2
    assert f"left out 1 rows, the first: {path}:2: completion: is empty" in capsys.readouterr().out


def test_a_format_can_be_forced_and_files_are_put_together(tmp_path):
    first = write(tmp_path, {"prompt": "p", "answer": "a"})
    second = write(tmp_path, {"prompt": "q"}, name="b.jsonl")
    run(Config(files=(first, second), out=tmp_path / "out", from_format="prompt", split="test"))
    prompts = read_records(tmp_path / "out" / "prompts.jsonl", Prompt)
    assert [(p.text, p.source, p.split) for p in prompts] == [
        ("p", "a.jsonl", "test"),
        ("q", "b.jsonl", "test"),
    ]


def test_a_second_conversion_repeats_but_does_not_mix(tmp_path):
    demonstrations = write(tmp_path, ROWS["completion"][0])
    rankings = write(tmp_path, ROWS["preference"][0], name="b.jsonl")
    out = tmp_path / "out"
    run(Config(files=(demonstrations,), out=out))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    run(Config(files=(demonstrations,), out=out))
    with pytest.raises(InstilError, match=r"demonstrations\.jsonl: is from another conversion"):
        run(Config(files=(rankings,), out=out))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_documents_end_at_their_separator():
    lines = ["One\n", "\n", "more\n", "<|endoftext|>\n", "\n", "Two\n", "<|endoftext|>\n", " \n"]
    assert list(documents(lines, "endoftext")) == ["One\n\nmore", "Two"]
    assert list(documents(["a\r\n", "b\r\n", " \n", "\n", "c"], "blank")) == ["a\nb", "c"]
    assert list(documents(["a\n", "\n", "b\n"], "none")) == ["a\n\nb"]


def test_text_files_become_documents(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffA\n\nB\n")
    (tmp_path / "b.txt").write_text("C\n\nD\n<|endoftext|>\nE\n")
    run(Config(files=(tmp_path / "a.txt", tmp_path / "b.txt"), out=tmp_path / "out"))
    texts = read_records(tmp_path / "out" / "text.jsonl", Text)
    assert [(t.text, t.source) for t in texts] == [
        ("A", "a.txt"),
        ("B", "a.txt"),
        ("C\n\nD", "b.txt"),
        ("E", "b.txt"),
    ]
    rows = write(tmp_path, {"text": "F"})
    run(Config(files=(rows,), out=tmp_path / "rows"))
    assert read_records(tmp_path / "rows" / "text.jsonl", Text) == [
        Text(text="F", source="a.jsonl")
    ]
    with pytest.raises(InstilError, match="cannot be converted together"):
        run(Config(files=(rows, tmp_path / "a.txt"), out=tmp_path / "both"))
    (tmp_path / "c.txt").write_bytes(b"ok\n\nno\xff\n")
    with pytest.raises(InstilError, match=r"c\.txt:3:3: byte 0xff is not UTF-8"):
        run(Config(files=(tmp_path / "c.txt",), out=tmp_path / "c"))
    assert not (tmp_path / "c" / "text.jsonl").exists()


def test_a_file_without_rows_is_an_error(tmp_path):
    with pytest.raises(InstilError, match="there is no row to convert"):
        run(Config(files=(write(tmp_path),), out=tmp_path / "out"))
    with pytest.raises(InstilError, match="name at least one with --files"):
        Config(files=(), out=tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def mutated(draw, value):
    """`value` with one thing in it, at any depth, replaced by another."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from([*value]))
        return {**value, name: mutated(draw, value[name])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(draw, value[at]), *value[at + 1 :]]
    return draw(JSON)


@pytest.mark.slow
@given(data=st.data())
def test_a_mutated_file_is_converted_whole_or_not_at_all(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("m")
    row = data.draw(st.sampled_from([row for row, _ in ROWS.values()]))
    rows = [row, row, row]
    name = data.draw(st.sampled_from([*row, "history", "category", "text", "system"]))
    change = {name: mutated(data.draw, row.get(name))}
    rows[data.draw(st.integers(0, 2))] = {**row, **change}
    content = bytearray(write(folder, *rows).read_bytes())
    at = data.draw(st.integers(0, len(content)))
    junk = data.draw(
        st.sampled_from([b"", b"", b'"', b"\xff", b"\n", b"\\ud800", b"\\udc00 ", b"\0"])
    )
    content[at : at + data.draw(st.integers(0, 3))] = junk
    path, out = folder / "a.jsonl", folder / "out.jsonl"
    path.write_bytes(bytes(content))
    to = data.draw(st.sampled_from(["instil", "instil", *WRITERS]))
    try:
        run(Config(files=(path,), out=out, to=to))
    except InstilError as error:
        message = str(error)
        assert (str(path) in message, out.exists()) == (True, False)
        assert list(folder.iterdir()) == [path]
    else:
        records = out / "prompts.jsonl" if to == "instil" else out
        assert len(list(iter_objects(records))) >= 1


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "prompts", "rows", "bad"),
    [
        # of hh, four rows have an empty answer; of alpaca, four an empty output
        ("comparisons/hh_helpful_base_test", 2348, 2348, 4),
        ("comparisons/tldr_comparisons_train", 2049, 3959, 0),
        ("comparisons/tldr_comparisons_valid", 195, 2000, 0),
        slow("evaluation/truthfulqa_judge_info", 18311, 22434, 0),
        slow("evaluation/truthfulqa_judge_truth", 18311, 22434, 0),
        ("instructions/alpaca_9k", 9225, 9225, 4),
        ("instructions/dolly_3k", 2981, 2996, 0),
        ("instructions/lima_1k", 1029, 1029, 0),
    ],
)
def test_published_files(shared, tmp_path, capsys, name, prompts, rows, bad):
    path = shared / "data" / f"{name}.jsonl.gz"
    run(Config(files=(path,), out=tmp_path, bad_rows="skip"))
    ids = {p.id for p in read_records(tmp_path / "prompts.jsonl", Prompt)}
    assert len(ids) == prompts
    assert (f"left out {bad} rows" in capsys.readouterr().out) == (bad > 0)
    if not name.startswith("comparisons"):
        made = read_records(tmp_path / "demonstrations.jsonl", Demonstration)
        assert {d.prompt_id for d in made} == ids
        assert len(made) == rows
    else:
        rankings = read_records(tmp_path / "rankings.jsonl", Ranking)
        responses = {r.id: r for r in read_records(tmp_path / "responses.jsonl", Response)}
        assert len(rankings) == rows
        assert {r.prompt_id for r in rankings} == ids
        assert {i for r in rankings for i in r.response_ids()} == set(responses)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        slow("comparisons/hh_helpful_base_test", ("hh", "oasst")),
        slow("comparisons/tldr_comparisons_valid", ("preference", "alpacafarm", "ultrafeedback")),
        slow("evaluation/truthfulqa_judge_info", ("completion",)),
        slow("instructions/dolly_3k", ("alpaca", "openai")),
        ("instructions/lima_1k", ("sharegpt", "completion-messages")),
    ],
)
def test_published_files_come_back_from_another_format(shared, tmp_path, name, formats):
    path = shared / "data" / f"{name}.jsonl.gz"
    run(Config(files=(path,), out=tmp_path / "records", bad_rows="skip"))
    records = tuple((tmp_path / "records").iterdir())
    before = said(path)
    for to in formats:
        there = tmp_path / f"{to}.jsonl.gz"
        run(Config(files=records, to=to, out=there))
        back = said(there)
        # an earlier turn in a tree is an answer of its own
        assert back >= before if to == "oasst" else back == before, to


def said(path: Path) -> Counter[tuple[str, tuple[str, ...]]]:
    """How often a file has each prompt with its answers, without white space around the turns."""
    found: Counter[tuple[str, tuple[str, ...]]] = Counter()
    reader = READERS[detect(next(iter_objects(path))[1])]
    for _, row in iter_objects(path):
        with suppress(InstilError):
            for item in read_row(reader, row, Counter()):
                turns = [(role, text.strip()) for role, text in split(item.prompt)]
                found[join(turns), item.answers] += 1
    return found


def test_published_preferences_of_alpaca_eval(shared, tmp_path, capsys):
    folder = shared / "data" / "evaluation" / "alpaca_eval"
    outputs = {row["item"]: row for _, row in iter_objects(folder / "outputs.jsonl.gz")}
    rows = [
        {
            **{name: outputs[int(row["item"])][name] for name in ("instruction", "input")},
            "output_1": outputs[int(row["item"])]["text_davinci_003"],
            "output_2": outputs[int(row["item"])]["text_davinci_001"],
            "generator_1": "text_davinci_003",
            "generator_2": "text_davinci_001",
            "preference": row["preference"],
        }
        for _, row in iter_objects(folder / "gpt4_preferences.csv.gz")
        if row["model"] == "text_davinci_001"
    ]
    run(Config(files=(write(tmp_path, *rows),), out=tmp_path / "out", bad_rows="skip"))
    told = capsys.readouterr().out
    # two outputs are empty; all 20 ties are between equal outputs, which are one response
    assert "left out 2 rows" in told and "no place for: answer equal to another (20)" in told
    policy = {r.id: r.policy for r in read_records(tmp_path / "out" / "responses.jsonl", Response)}
    won = Counter()
    for ranking in read_records(tmp_path / "out" / "rankings.jsonl", Ranking):
        won[policy[ranking.tiers[0][0]]] += 1
    assert won == {"text_davinci_003": 670, "text_davinci_001": 112}


def test_published_stories(shared, tmp_path):
    path = shared / "data" / "pretraining" / "tinystories_sample.txt.gz"
    run(Config(files=(path,), out=tmp_path))
    texts = read_records(tmp_path / "text.jsonl", Text)
    assert len(texts) == 2316
    assert texts[0].text.startswith("One day, a little girl named Lily found a needle")
