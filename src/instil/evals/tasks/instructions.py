"""Instruction following: what a model says to users' prompts, asked through its prompt template.

Which response is better cannot be graded here: people say (`instil label`), or a judge does after
all models have answered (llm_judge.py). The measures of this file describe: how long the responses
are, how many are empty, how many repeat themselves.

    --prompts FILES                users' own prompts, `instil.prompt/1` records, not of split train
    mt_bench_questions.jsonl       MT-bench, first turn only
    vicuna_bench_questions.jsonl   Vicuna's questions
    alpaca_eval/outputs.jsonl      AlpacaEval with the responses of text-davinci-003, which may be
                                   the baseline; the published alpaca_eval.json does as well

The 80 questions of Vicuna are also among AlpacaEval's 805 prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.errors import InstilError, one_line
from instil.evals.choices import Hub, load, text_of
from instil.evals.source import rows, spread
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each
from instil.jsonl import iter_records
from instil.records import Prompt
from instil.train.rollout import repetition

MAX_TOKENS = 256
REFERENCE = "text_davinci_003"


def tasks(source: Source, options: Options) -> list[Task]:
    """One task for each set of prompts that is there."""
    found = {
        "prompts": (users(options.prompts), "of --prompts, those of split train left out"),
        "mt_bench": (
            questions(
                source,
                ("mt_bench_questions.jsonl", "mt_bench/question.jsonl"),
                Hub("lighteval/mt-bench", "train"),
            ),
            "first turn only",
        ),
        "vicuna_bench": (
            questions(source, ("vicuna_bench_questions.jsonl", "vicuna_bench/question.jsonl")),
            "",
        ),
        "alpaca_eval": (alpaca(source), ""),
    }
    listed = [
        Task(
            name="instructions",
            setting=setting,
            items=spread(items, options.limit),
            grade=each(grade),
            main="words",
            units={"words": "score"},
            better="neither",
            max_tokens=MAX_TOKENS,
            first_line=False,
            chat=True,
            note=note,
        )
        for setting, (items, note) in found.items()
        if items
    ]
    if not listed:
        raise Missing(
            "--prompts, mt_bench_questions.jsonl, vicuna_bench_questions.jsonl or "
            "alpaca_eval/outputs.jsonl (or .gz), see docs/evals.md"
        )
    return listed


def grade(item: Item, answer: Answer) -> Measures:
    """Length in words; 1 for an empty response; 1 for one in which four words occur twice."""
    words = answer.text.split()
    return {
        "words": len(words),
        "empty": float(not words),
        "repeats": repetition([words]),
    }


def users(paths: Sequence[Path]) -> list[Item]:
    """The prompts of record files that a model was not trained on, clustered by user."""
    found: dict[str, Item] = {}
    for path in paths:
        for prompt in iter_records(path, Prompt):
            if prompt.split == "train":
                continue
            if prompt.id in found:
                raise InstilError(f"{path}: prompt {prompt.id} is there twice; give each file once")
            found[prompt.id] = Item(
                id=prompt.id,
                text=prompt.text.strip(),
                source=prompt.user_id,
                group=prompt.use_case,
            )
    if paths and not found:
        raise InstilError(
            f"{', '.join(map(str, paths))}: every prompt is of split train; a model is judged on "
            "prompts that it was not trained on: give those of split valid or test"
        )
    return list(found.values())


def questions(source: Source, files: tuple[str, ...], hub: Hub | None = None) -> list[Item]:
    """The first turns of a file of FastChat's benchmarks."""
    fields = ("question_id", "category", "turns")
    if hub:
        found = load(source, files, hub, *fields) or []
    else:
        path = source.find(*files)
        found = list(rows(path, *fields)) if path else []
    items = []
    for where, row in found:
        turns = row["turns"]
        if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
            raise InstilError(
                f'{where}: "turns" is {one_line(repr(turns), 60)}; expected a list of texts'
            )
        items.append(_item(row["question_id"], turns[0], str(row["category"])))
    return items


def alpaca(source: Source) -> list[Item]:
    """The instructions of AlpacaEval, each with the response of text-davinci-003."""
    reference = REFERENCE
    path = source.find("alpaca_eval/outputs.jsonl")
    if not path:
        reference = "output"
        path = source.find("alpaca_eval.json", "alpaca_eval/alpaca_eval.json")
    items = []
    found = rows(path, "instruction", "dataset", reference) if path else ()
    for number, (where, row) in enumerate(found):
        text = text_of(where, row, "instruction")
        if extra := str(row.get("input") or "").strip():
            text = f"{text}\n\n{extra}"
        response = row[reference]
        if not isinstance(response, str):
            raise InstilError(f'{where}: "{reference}" is not a text')
        meta = {"references": {REFERENCE: response}}
        items.append(_item(row.get("item", number), text, str(row["dataset"]), meta))
    return items


def _item(name: object, text: str, group: str, meta: Mapping[str, Any] | None = None) -> Item:
    return Item(id=str(name), text=text.strip(), group=group, meta=meta or {})
