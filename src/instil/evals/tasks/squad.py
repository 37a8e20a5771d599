"""SQuAD v1.1 and v2: the answer to a question is a span of a passage, or in v2 that there is none.

F1 and exact match against the nearest reference, by the official definition. "Not in background."
counts as the empty answer that the official script wants where a question has none. Clustered by
article.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import msgspec

from instil.errors import InstilError
from instil.evals.reading import Layout, Passage, Question, decode, part
from instil.evals.reading import tasks as reading_tasks
from instil.evals.source import hub_rows
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each
from instil.evals.text import squad_scores, squad_words

FILES = {
    ("squad_v1", "validation"): ("dev-v1.1.json", "squad_v1_dev.json", "squad_v1_dev_subset.json"),
    ("squad_v1", "train"): ("train-v1.1.json", "squad_v1_train.json"),
    ("squad_v2", "validation"): ("dev-v2.0.json", "squad_v2_dev.json"),
    ("squad_v2", "train"): ("train-v2.0.json", "squad_v2_train.json"),
}
NEEDED = " or ".join(FILES[name, "validation"][0] for name in ("squad_v1", "squad_v2"))
HUB = {"squad_v1": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}
SHOWN = 4
"""Solved passages  [appendix D]."""
PAIRS = 5
"""Questions of each, of up to 17: so four passages leave room in a context of 2,048 tokens."""
NO_ANSWER = "Not in background."

_HEAD = "Answer each question using information in the preceding background paragraph."
_ELSE = f' If there is not enough information provided, answer with "{NO_ANSWER}"'
_PARTS = {"title": "Title:", "passage": "Background:", "question": "Q:", "answer": "A:"}
LAYOUT = {
    "squad_v1": Layout(head=f"{_HEAD}\n\n", **_PARTS),
    "squad_v2": Layout(head=f"{_HEAD}{_ELSE}\n\n", **_PARTS),
}


class _Answer(msgspec.Struct):
    text: str


class _Question(msgspec.Struct):
    id: str
    question: str
    answers: list[_Answer]


class _Paragraph(msgspec.Struct):
    context: str
    qas: list[_Question]


class _Article(msgspec.Struct):
    title: str
    paragraphs: list[_Paragraph]


class _File(msgspec.Struct):
    data: list[_Article]


def tasks(source: Source, options: Options) -> list[Task]:
    """v1.1 and v2, whichever is there, zero-shot and few-shot."""
    found = []
    for name in LAYOUT:
        asked = passages(source, name, "validation")
        if asked is not None:
            parts = part(asked, passages(source, name, "train"), SHOWN, PAIRS, name)
            found += reading_tasks(name, LAYOUT[name], parts, options, each(grade))
    if not found:
        raise Missing(f"{NEEDED} (or .gz), see docs/evals.md")
    return found


def grade(item: Item, answer: Answer) -> Measures:
    """F1 and exact match of 100."""
    text = "" if squad_words(answer.text) == squad_words(NO_ANSWER) else answer.text
    exact, f1 = squad_scores(text, item.meta["references"])
    return {"f1": 100 * f1, "exact": 100 * exact}


def passages(source: Source, name: str, split: str) -> Iterator[Passage] | None:
    """The passages of "squad_v1" or "squad_v2"; None if they are not there."""
    if path := source.find(*FILES[name, split]):
        articles = decode(path, _File).data
        return (_passage(name, article, p) for article in articles for p in article.paragraphs)
    rows = source.hub(HUB[name], split)
    return None if rows is None else _from_rows(name, rows)


def _from_rows(name: str, rows: Any) -> Iterator[Passage]:
    rows = hub_rows(rows, HUB[name], "id", "title", "context", "question", "answers")

    def place(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["title"], row["context"]

    for (title, context), group in groupby(rows, place):
        questions = [
            _Question(row["id"], row["question"], [_Answer(t) for t in row["answers"]["text"]])
            for row in group
        ]
        yield _passage(name, _Article(title, []), _Paragraph(context, questions))


def _passage(name: str, article: _Article, paragraph: _Paragraph) -> Passage:
    questions = [_question(name, q) for q in paragraph.qas]
    return Passage(
        text=paragraph.context, source=article.title, title=article.title, questions=questions
    )


def _question(name: str, question: _Question) -> Question:
    references = tuple(answer.text for answer in question.answers)
    if not references and name == "squad_v1":
        raise InstilError(
            f"{name}: question {question.id} has no answer, which SQuAD v1.1 always has; is the "
            "file one of v2? Then call it dev-v2.0.json"
        )
    return Question(
        id=question.id,
        text=question.question,
        answer=references[0] if references else NO_ANSWER,
        references=references,
        group="" if name == "squad_v1" else "answerable" if references else "unanswerable",
    )
