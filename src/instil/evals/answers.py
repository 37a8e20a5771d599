"""Answers on disk: what one model said to one task, kept as it is said.

    answers/MODEL/TASK.SETTING.jsonl    a first line that names model and settings by their digest;
                                        then one answer a line, with the digest of its item

An evaluation that was interrupted asks only what is missing, and so does one of more items, or of
fewer. A file of another model, or of other settings, is begun anew.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from instil.errors import InstilError
from instil.evals.task import Answer, Answerer, Item, Task

AT_A_TIME = 128
"""Items between two writes."""


class _Line(msgspec.Struct):
    id: str
    item: str
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
    found = _kept(path, key)
    asked = [digest(item) for item in task.items]
    missing = [(one, item) for one, item in zip(asked, task.items, strict=True) if one not in found]
    said(len(asked) - len(missing))
    for first in range(0, len(missing), AT_A_TIME):
        digests, items = zip(*missing[first : first + AT_A_TIME], strict=True)
        lines: list[_Line] = []
        try:
            new = _answers(model, task, items, seed)
            for one, item, answer in zip(digests, items, new, strict=True):
                if answer:
                    lines.append(_Line(item.id, one, answer))
        finally:
            if lines:
                _append(path, key, lines, fresh=not found)
        found |= {line.item: line.answer for line in lines}
        said(len(lines))
    return [found[one] for one in asked]


def _answers(
    model: Answerer, task: Task, items: Sequence[Item], seed: int
) -> Iterable[Answer | None]:
    if not task.max_tokens:
        return model.choose(items)
    return model.write(
        items,
        max_tokens=task.max_tokens,
        first_line=task.first_line,
        temperature=task.temperature,
        chat=task.chat,
        seed=seed,
    )


def answers_file(folder: Path, model: str, task: Task) -> Path:
    """Where the answers of a model to a task are."""
    one, other = (re.sub(r"[^\w.-]+|^\.+", "_", n) for n in (model, f"{task.name}.{task.setting}"))
    return folder / one / f"{other}.jsonl"


def fingerprint(model: Answerer, task: Task, seed: int) -> str:
    """Of model and settings: with the digest of an item, differs whenever its answer may."""
    asked = (task.max_tokens, task.first_line, task.temperature, task.chat, seed)
    return hashlib.sha256(repr((model.key, asked)).encode()).hexdigest()


def digest(item: Item) -> str:
    """Of what is asked, not of how it is graded."""
    asked = (item.id, item.head, item.shots, item.text, item.choices)
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]


def _kept(path: Path, key: str) -> dict[str, Answer]:
    """Digest of an item -> its answer, of a file of this model and these settings; a torn last line
    is cut off."""
    if not path.exists():
        return {}
    whole = path.read_bytes().split(b"\n")[:-1]
    if not whole or whole[0] != msgspec.json.encode({"key": key}):
        return {}
    os.truncate(path, sum(len(line) + 1 for line in whole))
    found = {}
    for number, line in enumerate(whole[1:], start=2):
        try:
            kept = msgspec.json.decode(line, type=_Line)
        except ValueError as error:
            raise InstilError(
                f"{path}:{number}: is no answer ({error}); delete the line"
            ) from error
        found[kept.item] = kept.answer
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
