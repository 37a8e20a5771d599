"""evals/tasks/instructions.py: which prompts are asked, and what is said of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.instructions import grade, tasks
from instil.jsonl import write_records
from instil.records import Prompt


def put(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def prompts(path: Path, *records: Prompt) -> Options:
    write_records(path, records)
    return Options(prompts=(path,))


def test_measures_of_a_response() -> None:
    item = Item(id="1", text="Ask")
    assert grade(item, Answer(text="one two three")) == {"words": 3, "empty": 0, "repeats": 0}
    assert grade(item, Answer(text="")) == {"words": 0, "empty": 1, "repeats": 0}
    # "to be or not" twice
    again = Answer(text="to be or not to be or not at all")
    assert grade(item, again) == {"words": 10, "empty": 0, "repeats": 1}


def test_users_prompts_that_training_has_not_seen(tmp_path: Path) -> None:
    options = prompts(
        tmp_path / "p.jsonl",
        Prompt(id="a", text="One ", user_id="u", use_case="chat", split="test"),
        Prompt(id="b", text="Two", user_id="u", split="train"),
        Prompt(id="c", text="Three"),
    )
    (task,) = tasks(Folder(tmp_path), options)
    assert (task.name, task.setting, task.chat, task.first_line) == (
        *("instructions", "prompts"),
        *(True, False),
    )
    assert (task.max_tokens, task.temperature, task.better) == (256, 0.0, "neither")
    assert [(i.id, i.text, i.source, i.group) for i in task.items] == [
        ("a", "One", "u", "chat"),
        ("c", "Three", "", ""),
    ]


def test_prompts_of_training_only_and_prompts_given_twice(tmp_path: Path) -> None:
    options = prompts(tmp_path / "p.jsonl", Prompt(id="b", text="Two", split="train"))
    with pytest.raises(InstilError, match=r"p\.jsonl: every prompt is of split train"):
        tasks(Folder(tmp_path), options)
    twice = prompts(tmp_path / "p.jsonl", Prompt(id="b", text="Two")).prompts * 2
    with pytest.raises(InstilError, match=r"p\.jsonl: prompt b is there twice"):
        tasks(Folder(tmp_path), Options(prompts=twice))


def test_first_turns_of_mt_bench(tmp_path: Path) -> None:
    row = {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}
    put(tmp_path, "mt_bench_questions.jsonl", row, row | {"question_id": 82})
    (task,) = tasks(Folder(tmp_path), Options())
    assert (task.setting, task.note) == ("mt_bench", "first turn only")
    assert [(i.id, i.text, i.group) for i in task.items] == [
        ("81", "Write.", "writing"),
        ("82", "Write.", "writing"),
    ]
    assert len(tasks(Folder(tmp_path), Options(limit=1))[0].items) == 1


def test_alpaca_eval_brings_the_responses_of_a_baseline(tmp_path: Path) -> None:
    row = {"instruction": "Fix it.", "input": "a b", "dataset": "koala"}
    put(tmp_path, "alpaca_eval/outputs.jsonl", row | {"item": 7, "text_davinci_003": "ab"})
    (task,) = tasks(Folder(tmp_path), Options())
    (item,) = task.items
    assert (item.id, item.text, item.group) == ("7", "Fix it.\n\na b", "koala")
    assert item.meta == {"references": {"text_davinci_003": "ab"}}
    published = tmp_path / "published"
    put(published, "alpaca_eval.json", row | {"output": "ab", "generator": "text_davinci_003"})
    ((again,),) = [task.items for task in tasks(Folder(published), Options())]
    assert (again.id, again.text, again.meta) == ("0", item.text, item.meta)


def test_bad_files_name_line_and_field(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"alpaca_eval/outputs\.jsonl .* docs/evals\.md"):
        tasks(Folder(tmp_path), Options())
    put(tmp_path, "vicuna_bench_questions.jsonl", {"question_id": 1, "category": "x"})
    with pytest.raises(InstilError, match=r"vicuna_bench_questions\.jsonl:1: no field 'turns'"):
        tasks(Folder(tmp_path), Options())
    row = {"question_id": 1, "category": "x", "turns": "How?"}
    put(tmp_path, "vicuna_bench_questions.jsonl", row)
    with pytest.raises(InstilError, match=r"jsonl:1: \"turns\" is 'How\?'; expected a list"):
        tasks(Folder(tmp_path), Options())


def test_the_shared_prompts(shared: Path) -> None:
    folder = shared / "data" / "evaluation"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found = {task.setting: task for task in tasks(Folder(folder), Options())}
    counts = {setting: len(task.items) for setting, task in found.items()}
    assert counts == {"mt_bench": 80, "vicuna_bench": 80, "alpaca_eval": 805}
    # as its docstring says
    vicuna = {item.text for item in found["vicuna_bench"].items}
    assert len(vicuna & {item.text for item in found["alpaca_eval"].items}) == 80
