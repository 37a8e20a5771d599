"""Answers on disk: what one model said to one task, kept as it is said.

    answers/MODEL/TASK.SETTING.jsonl    a first line that names model, items and settings by their
                                        digest; then one answer a line, in the order of the items

An evaluation that was interrupted asks only what is missing. A file of another model, or of other
items or settings, is begun anew.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from instil.errors import InstilError
from instil.evals.task import Answer, Answerer, Task

AT_A_TIME = 256
"""Items between two writes."""


class _Line(msgspec.Struct):
    id: str
    answer: Answer


def ask(
    model: Answerer,
    task: Task,
    folder: Path,
    seed: int,
    said: Callable[[int], None] = lambda n: None,
) -> list[Answer]:
    """The model's answers to all items, those that are in `folder` taken from there.

    said  is told how many items were answered, now and then; it may raise to stop
    """
    path = answers_file(folder, model.name, task)
    key = fingerprint(model, task, seed)
    found = _kept(path, key, task)
    said(len(found))
    while len(found) < len(task.items):
        items = task.items[len(found) : len(found) + AT_A_TIME]
        if task.max_tokens:
            new = model.write(
                items,
                max_tokens=task.max_tokens,
                first_line=task.first_line,
                temperature=task.temperature,
                chat=task.chat,
                seed=seed,
            )
        else:
            new = model.choose(items)
        lines = [_Line(i.id, a) for i, a in zip(items, new, strict=True)]
        _append(path, key, lines, fresh=not found)
        found += new
        said(len(new))
    return found


def answers_file(folder: Path, model: str, task: Task) -> Path:
    """Where the answers of a model to a task are."""
    one, other = (re.sub(r"[^\w.-]+", "_", name) for name in (model, f"{task.name}.{task.setting}"))
    return folder / one / f"{other}.jsonl"


def fingerprint(model: Answerer, task: Task, seed: int) -> str:
    """Differs whenever an answer may."""
    asked = (task.max_tokens, task.first_line, task.temperature, task.chat, seed)
    found = hashlib.sha256(repr((model.key, asked)).encode())
    for item in task.items:
        found.update(repr((item.id, item.head, item.shots, item.text, item.choices)).encode())
    return found.hexdigest()


def _kept(path: Path, key: str, task: Task) -> list[Answer]:
    """The answers in a file that belongs to this model and task; a torn last line is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    if not whole or whole[0] != msgspec.json.encode({"key": key}):
        return []
    found = []
    for item, line in zip(task.items, whole[1:], strict=False):
        kept = msgspec.json.decode(line, type=_Line)
        if kept.id != item.id:
            raise InstilError(
                f"{path}: answers are not in the order of the items; delete this file"
            )
        found.append(kept.answer)
    size = sum(len(line) + 1 for line in whole[: 1 + len(found)])
    os.truncate(path, size)
    return found


def _append(path: Path, key: str, lines: list[_Line], fresh: bool) -> None:
    """On the disk before it returns."""
    head = [msgspec.json.encode({"key": key})] if fresh else []
    text = b"".join(line + b"\n" for line in [*head, *map(msgspec.json.encode, lines)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if fresh else "ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InstilError(
            f"{path}: cannot write answers ({error.strerror}); make room and start again"
        ) from error
