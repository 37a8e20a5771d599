"""Questions about passages as prompts: what SQuAD, DROP and QuAC share.

A prompt is an instruction, solved passages (few-shot), and the passage of the question with all
questions that come before it there, answered right. So it is in the prompts that were released with
the paper's answers, and so its appendix D has it (a variable number of questions and answers).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from instil.errors import InstilError
from instil.evals.source import spread
from instil.evals.task import Grade, Item, Options, Task
from instil.jsonl import reading

T = TypeVar("T")

MAX_TOKENS = 32
"""Of a short answer; the answers that were released with the paper end after about 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, what a prompt shows as its answer, and what the grade takes for right."""

    id: str
    text: str
    answer: str
    references: Sequence[Any]
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A text with its questions in their order; `source` is the article that it is from."""

    text: str
    source: str
    title: str = ""
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a prompt is set: the instruction, and what stands before each part."""

    head: str
    title: str = ""
    passage: str
    question: str
    answer: str

    def opening(self, passage: Passage) -> str:
        """A passage without its questions."""
        title = f"{self.title} {passage.title}\n\n" if self.title else ""
        return f"{title}{self.passage} {passage.text}\n\n"

    def asking(self, question: Question) -> str:
        """A question, up to where its answer begins."""
        return f"{self.question} {question.text}\n\n{self.answer}"

    def solved(self, question: Question) -> str:
        """A question with its answer."""
        return f"{self.asking(question)} {one_line(question.answer)}\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Passages to ask, and solved ones to show in few-shot prompts."""

    asked: Sequence[Passage]
    shown: Sequence[Passage]
    note: str = ""


def part(
    passages: Iterable[Passage], train: Iterable[Passage] | None, n: int, pairs: int, name: str
) -> Parts:
    """All passages are asked; shown is the first passage of each of the first `n` articles.

    train  where those shown are from; None takes them from `passages`, and then nothing of their
           articles is asked
    pairs  questions of each passage shown, evenly spaced; 0 for all
    """
    asked, first = list(passages), dict[str, Passage]()
    for passage in asked if train is None else train:
        if len(first) == n:
            break
        first.setdefault(passage.source, passage)
    shown = [replace(p, questions=spread(p.questions, pairs)) for p in first.values()]
    if train is not None:
        return Parts(asked=asked, shown=shown)
    left = [passage for passage in asked if passage.source not in first]
    if asked and not left:
        raise InstilError(
            f"{name}: the file has {len(shown)} sources (articles, passages), of which {n} are "
            "shown as solved examples and not asked; put the training file beside it "
            "(docs/evals.md)"
        )
    note = f"solved examples: the first {n} sources of the file, which are not asked"
    return Parts(asked=left, shown=shown, note=note)


def tasks(
    name: str, layout: Layout, parts: Parts, options: Options, grade: Grade, note: str = ""
) -> list[Task]:
    """The same questions zero-shot and few-shot; `grade` gives "f1" and "exact", of 100."""
    shots = tuple(layout.opening(p) + "".join(map(layout.solved, p.questions)) for p in parts.shown)
    bare = spread(list(_items(layout, parts.asked)), options.limit)
    if not bare:
        raise InstilError(f"{name}: its file has no questions; docs/evals.md says which to get")
    return [
        Task(
            name=name,
            setting=setting,
            items=[replace(item, shots=given) for item in bare],
            grade=grade,
            main="f1",
            unit="points",
            tax=True,
            max_tokens=MAX_TOKENS,
            note="; ".join(text for text in (note, parts.note) if text),
        )
        for setting, given in (("zero-shot", ()), ("few-shot", shots))
    ]


def decode(path: Path, kind: type[T]) -> T:
    """The JSON of a published file; where it is another's, the error names file and field."""
    with reading(path) as handle:
        data = handle.read().removeprefix(BOM_UTF8)
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise InstilError(
            f"{path}: is not the published file: {error}; docs/evals.md says where it comes from"
        ) from error


def one_line(text: str) -> str:
    """Text as it can stand where answers end at the first line break."""
    return " ".join(text.split())


def _items(layout: Layout, passages: Iterable[Passage]) -> Iterator[Item]:
    for passage in passages:
        before = layout.opening(passage)
        for question in passage.questions:
            yield Item(
                id=question.id,
                head=layout.head,
                text=before + layout.asking(question),
                source=passage.source,
                group=question.group,
                meta={"references": question.references},
            )
            before += layout.solved(question)
