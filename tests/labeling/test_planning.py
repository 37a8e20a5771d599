from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InstilError
from instil.jsonl import write_records
from instil.labeling import planning
from instil.labeling.planning import Plan
from instil.records import Demonstration, Prompt, Response

RANKING = {"name": "round 1", "kind": "ranking"}


def write(folder, answers, policies=("a",), splits=("train",)):
    """A prompt for each number in `answers`, with so many responses of each policy."""
    prompts = [
        Prompt(id=f"p{i}", text=f"Say {i}.", split=splits[i % len(splits)])
        for i in range(len(answers))
    ]
    write_records(folder / "prompts.jsonl", prompts)
    files = []
    for policy in policies:
        files.append(folder / f"{policy}.jsonl")
        responses = [
            Response(id=f"{policy}{i}-{n}", prompt_id=f"p{i}", text=f"{i} {n}.", policy=policy)
            for i, count in enumerate(answers)
            for n in range(count)
        ]
        write_records(files[-1], responses)
    return folder / "prompts.jsonl", files


def test_k_is_nine_at_most_and_two_at_least(tmp_path):
    prompts, files = write(tmp_path, [12, 9, 4, 2, 1, 0])
    found = planning.read(Plan(**RANKING), prompts, files)
    assert [len(answers) for answers in found.tasks.values()] == [9, 9, 4, 2]
    assert found.left_out == {
        "responses over the number of a task": 3,
        "prompts with fewer than 2 responses": 2,
    }


def test_policies_take_turns_and_the_baseline_is_always_there(tmp_path):
    prompts, files = write(tmp_path, [3], policies="abcd", splits=["test"])
    plan = Plan(**RANKING, purpose="evaluation", baseline="d", responses_per_task=6)
    found = planning.read(plan, prompts, files)
    assert [answer.policy for answer in found.tasks["p0"]] == list("dabcda")


def test_a_prompt_without_the_baseline_is_left_out(tmp_path):
    prompts, files = write(tmp_path, [2, 2], policies="ab", splits=["test"])
    write_records(files[1], [Response(id="b0", prompt_id="p0", text="b", policy="b")])
    plan = Plan(**RANKING, purpose="evaluation", baseline="b")
    found = planning.read(plan, prompts, files)
    assert list(found.tasks) == ["p0"]
    assert found.left_out == {"prompts without a response of the baseline": 1}
    with pytest.raises(InstilError, match="baseline 'sft' wrote none"):
        planning.read(Plan(**RANKING, purpose="evaluation", baseline="sft"), prompts, files)


@pytest.mark.parametrize(
    ("kind", "purpose", "left"),
    [
        ("ranking", "training", ["p1"]),
        ("ranking", "evaluation", ["p0", "p1"]),
        ("ranking", "gold", ["p0", "p1"]),
        ("toxicity", "training", ["p0", "p1"]),
    ],
)
def test_a_ranking_without_a_pair_is_not_for_training(tmp_path, kind, purpose, left):
    splits = ["test" if purpose == "evaluation" else "train"]
    prompts, files = write(tmp_path, [2, 2], policies="ab", splits=splits)
    for file in files:
        file.write_text(file.read_text().replace("0 0.", "Same.").replace("0 1.", "Same."))
    found = planning.read(Plan(name="r", kind=kind, purpose=purpose), prompts, files)
    assert list(found.tasks) == left
    counted = {"prompts whose responses are all the same": 1}
    assert found.left_out == (counted if len(left) == 1 else {})


@pytest.mark.parametrize(("budget", "words", "k"), [(1800, 250, 7), (1800, 1000, 4), (90, 5, 9)])
def test_k_by_words_to_read(tmp_path, budget, words, k):
    # 1800 / 250 = 7.2; 1800 / 1000 = 1.8, never under 4; 90 / 5 = 18, never over 9
    write_records(tmp_path / "p.jsonl", [Prompt(id="p", text="?")])
    text = "word " * (words - 1)
    responses = [Response(id=f"r{i}", prompt_id="p", text=f"{text}{i}") for i in range(9)]
    write_records(tmp_path / "r.jsonl", responses)
    plan = Plan(**RANKING, word_budget=budget)
    found = planning.read(plan, tmp_path / "p.jsonl", [tmp_path / "r.jsonl"])
    assert len(found.tasks["p"]) == k


@pytest.mark.parametrize(
    ("more", "splits"),
    [
        ({}, {"", "train"}),
        ({"with_valid": True}, {"", "train", "valid"}),
        ({"purpose": "evaluation"}, {"valid", "test"}),
        ({"purpose": "gold"}, {"", "train", "valid", "test"}),
        ({"purpose": "screening"}, {"", "train", "valid", "test"}),
    ],
)
def test_each_purpose_takes_its_splits(tmp_path, more, splits):
    every = ["", "train", "valid", "test"]
    prompts = [Prompt(id=f"p-{s}", text=f"Say {s}.", split=s) for s in every]
    write_records(tmp_path / "p.jsonl", prompts)
    found = planning.read(Plan(name="d", kind="annotation", **more), tmp_path / "p.jsonl", [])
    assert set(found.tasks) == {f"p-{s}" for s in splits}
    assert sum(found.left_out.values()) == 4 - len(splits)


def test_nothing_left_is_a_mistake(tmp_path):
    prompts, files = write(tmp_path, [4], splits=["test"])
    with pytest.raises(InstilError, match=r"nothing is left .*prompts of split test: 1"):
        planning.read(Plan(**RANKING), prompts, files)


def test_errors_name_file_line_and_field(tmp_path):
    prompts, (file,) = write(tmp_path, [2])
    good = file.read_text()
    ends = {
        '\n\n{"schema": "instil.response/1", "id": "x", "prompt_id": "p0", "text": 5}': "5: text:",
        '{"schema": "instil.response/1", "id": "x", "prompt_id": "p9", "text": ""}': (
            "3: prompt_id: 'p9' is not in"
        ),
        '\n{"schema": "instil.response/1", "id": "a0-0", "prompt_id": "p0", "text": ""}': (
            "4: id: response 'a0-0' occurs twice"
        ),
        '{"schema": "instil.ranking/1"}': "3: schema:",
    }
    for bad, message in ends.items():
        file.write_text(good + bad)
        with pytest.raises(InstilError, match=f"{file}:{message}"):
            planning.read(Plan(**RANKING), prompts, [file])
    file.write_text(good)
    prompts.write_text(prompts.read_text() * 2)
    with pytest.raises(InstilError, match=f"{prompts}:2: id: prompt 'p0' occurs twice"):
        planning.read(Plan(**RANKING), prompts, [file])


NUL = "a\0b"


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (Prompt(id=NUL, text="?"), "id"),
        (Prompt(id="p9", text=NUL), "text"),
        (Prompt(id="p9", text="?", source=NUL), "source"),
        (Prompt(id="p9", text="?", user_id=NUL, split="test"), "user_id"),
        (Response(id=NUL, prompt_id="p0", text=""), "id"),
        (Response(id="r", prompt_id="p0", text=NUL), "text"),
        (Response(id="r", prompt_id="p0", text="", policy=NUL), "policy"),
        (Demonstration(prompt_id="p0", labeler_id="l", text=NUL), "text"),
    ],
)
def test_what_postgresql_cannot_store_is_refused(tmp_path, record, field):
    prompts, files = write(tmp_path, [2])
    bad = prompts if isinstance(record, Prompt) else tmp_path / "bad.jsonl"
    write_records(bad, [record])
    with pytest.raises(InstilError, match=f"{bad}:1: {field}: has a NUL character"):
        planning.read(Plan(**RANKING), prompts, [*files, tmp_path / "bad.jsonl"])


def test_a_line_of_more_than_four_mib_is_not_read(tmp_path):
    prompts, (file,) = write(tmp_path, [2])
    good = file.read_bytes()
    head = b'{"schema": "instil.response/1", "id": "x", "prompt_id": "p0", "text": "'
    longest = head.ljust(planning.LONGEST - 2, b"x") + b'"}'
    file.write_bytes(good + longest + b"\n")
    assert len(planning.read(Plan(**RANKING), prompts, [file]).tasks["p0"]) == 3
    packed = tmp_path / "packed.jsonl.gz"
    with gzip.open(packed, "wb") as handle:
        handle.write(good + head)
        for _ in range(64):
            handle.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(InstilError, match=f"{packed}:3: the line is longer than 4,194,304 bytes"):
        planning.read(Plan(**RANKING), prompts, [packed])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * planning.LONGEST  # of a line of 64 MiB
    prompts.write_bytes(b"x" * (planning.LONGEST + 1))
    with pytest.raises(InstilError, match=f"{prompts}:1: the line is longer"):
        planning.read(Plan(**RANKING), prompts, [file])


def test_an_evaluation_wants_to_know_the_policies(tmp_path):
    prompts, files = write(tmp_path, [2], splits=["test"])
    files[0].write_text(files[0].read_text().replace('"policy":"a"', '"policy":""'))
    with pytest.raises(InstilError, match=r"a.jsonl:1: policy: is empty"):
        planning.read(Plan(**RANKING, purpose="evaluation"), prompts, files)


def test_demonstrations_stand_beside_responses(tmp_path):
    prompts, files = write(tmp_path, [3])
    shown = Demonstration(prompt_id="p0", labeler_id="l-ann", text="Zero.")
    write_records(tmp_path / "d.jsonl", [shown])
    found = planning.read(Plan(**RANKING), prompts, [*files, tmp_path / "d.jsonl"])
    assert [answer.policy for answer in found.tasks["p0"]] == ["a", "demonstration", "a", "a"]
    ((response, author),) = planning.responses_in(tmp_path / "d.jsonl")
    assert (response.text, author) == ("Zero.", "l-ann")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "name: is empty"),
        ({"name": "a\0b"}, "name: is empty or has a NUL"),
        ({"kind": "sorting"}, "kind 'sorting'"),
        ({"quota_training": -1}, "quotas are 0 or more"),
        ({"quota_training": 0}, "both quotas are 0"),
        ({"quota_held_out": 1}, "held-out labelers never label for training"),
        ({"responses_per_task": 10}, "responses_per_task 10 is 2 to 9"),
        ({"tasks": 3}, "tasks 3: how many prompts labelers are to write"),
        ({"kind": "prompt"}, "tasks 0: how many prompts"),
        ({"kind": "prompt", "tasks": 1, "purpose": "gold"}, "kind prompt has no key"),
        ({"kind": "demonstration", "purpose": "gold"}, "kind demonstration has no key"),
        ({"quota_training": 101}, "quotas are at most 100"),
        ({"kind": "prompt", "tasks": 10**9}, "tasks 1000000000 and priority 0: neither"),
        ({"priority": 2**40}, "priority 1099511627776: neither"),
    ],
)
def test_a_plan_that_cannot_be(fields, message):
    with pytest.raises(InstilError, match=message):
        Plan(**{**RANKING, **fields})


@pytest.mark.parametrize(
    ("kind", "prompts", "responses"),
    [("ranking", True, False), ("ranking", False, True), ("demonstration", True, True)],
)
def test_each_kind_takes_its_files(tmp_path, kind, prompts, responses):
    asked, files = write(tmp_path, [2])
    with pytest.raises(InstilError, match=f"a batch of kind {kind} takes"):
        planning.read(
            Plan(name="x", kind=kind), asked if prompts else None, files if responses else []
        )


@given(st.permutations(range(4)), st.sampled_from(["name", "quota", "text", "kind"]))
def test_the_content_hash_knows_what_is_asked_and_no_more(tmp_path_factory, order, change):
    folder = tmp_path_factory.mktemp("hash")
    prompts, (file,) = write(folder, [2, 2])
    plan = Plan(**RANKING)
    before = planning.content_hash(plan, planning.read(plan, prompts, [file]))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[i] for i in order))
    other = {
        "name": Plan(name="round 2", kind="ranking"),
        "quota": Plan(**RANKING, quota_training=2),
        "kind": Plan(name="round 1", kind="toxicity"),
        "text": plan,
    }[change]
    if change == "text":
        file.write_text(file.read_text().replace("0 1.", "0 one."))
    after = planning.content_hash(other, planning.read(other, prompts, [file]))
    assert (before == after) == (change == "name")


def test_an_endless_id_is_not_repeated_whole(tmp_path):
    asked, answers = tmp_path / "prompts.jsonl", tmp_path / "responses.jsonl"
    write_records(asked, [Prompt(id="p", text="?", split="train")])
    write_records(answers, [Response(id="r", prompt_id="x" * 1_000_000, text="t", policy="m")])
    plan = Plan(name="b", kind="ranking", purpose="training", quota_training=1)
    with pytest.raises(
        InstilError, match=r"responses.jsonl:1: prompt_id: 'x+…' is not in"
    ) as found:
        planning.read(plan, asked, [answers])
    assert len(str(found.value)) < 500
