"""DROP: questions about a passage that want counting, sorting or arithmetic.

F1 and exact match against the nearest reference, by the official definition, which compares lists
of spans. An answer is one text; where the reference is a list, it is read as a list at its commas
and its "and"s, and else as one span. Files in the format of simple-evals have references joined to
one text, which leaves one span on both sides. Clustered by passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import msgspec

from instil.errors import InstilError
from instil.evals.reading import Layout, Passage, Question, decode, part
from instil.evals.reading import tasks as reading_tasks
from instil.evals.source import hub_rows, rows
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each
from instil.evals.text import check_extra, drop_scores

FILES = {
    "validation": ("drop_dataset_dev.json",),
    "train": ("drop_dataset_train.json",),
}
JOINED = {
    "validation": ("drop_v0_dev.jsonl", "drop_dev_2000.jsonl"),
    "train": ("drop_v0_train.jsonl",),
}
"""The format of simple-evals."""
HUB = "EleutherAI/drop"
"""It keeps the references of several people apart; ucinlp/drop runs them together."""
SHOWN = 4
"""Solved passages  [appendix D]."""
PAIRS = 5
"""Questions of each, of about 16: so four passages leave room in a context of 2,048 tokens."""
LAYOUT = Layout(
    head="Answer each question using information in the preceding passage.\n\n",
    passage="Passage:",
    question="Question:",
    answer="Answer:",
)


class _Date(msgspec.Struct):
    day: str = ""
    month: str = ""
    year: str = ""


class _Answer(msgspec.Struct):
    number: str = ""
    date: _Date = msgspec.field(default_factory=_Date)
    spans: list[str] = []


class _Pair(msgspec.Struct):
    query_id: str
    question: str
    answer: _Answer
    validated_answers: list[_Answer] = []


class _Section(msgspec.Struct):
    passage: str
    qa_pairs: list[_Pair]


def tasks(source: Source, options: Options) -> list[Task]:
    """DROP zero-shot and few-shot."""
    asked = passages(source, "validation")
    if asked is None:
        raise Missing(
            f"{FILES['validation'][0]} or {JOINED['validation'][0]} (or .gz), see docs/evals.md"
        )
    check_extra("scipy.optimize")
    parts = part(asked, passages(source, "train"), SHOWN, PAIRS, "drop")
    return reading_tasks("drop", LAYOUT, parts, options, each(grade))


def grade(item: Item, answer: Answer) -> Measures:
    """F1 and exact match of 100."""
    found = [
        drop_scores(spans(answer.text) if len(reference) > 1 else [answer.text], [reference])
        for reference in item.meta["references"]
    ]
    return {
        "f1": 100 * max(f1 for _, f1 in found),
        "exact": 100 * max(exact for exact, _ in found),
    }


def spans(text: str) -> list[str]:
    """The items of a list in words: "Ann, Bob and Cid" has three."""
    return [part for part in re.split(r",\s+(?:and\s+)?|\s+and\s+", text) if part] or [""]


def passages(source: Source, split: str) -> Iterator[Passage] | None:
    """The passages of a split; None if they are not there."""
    if path := source.find(*FILES[split]):
        return (_passage(key, s) for key, s in decode(path, dict[str, _Section]).items())
    if path := source.find(*JOINED[split]):
        return iter(_joined(rows(path, "context", "ref_text")))
    found = source.hub(HUB, split)
    return None if found is None else _from_hub(found)


def _passage(key: str, section: _Section) -> Passage:
    questions = [_question(pair) for pair in section.qa_pairs]
    return Passage(text=section.passage, source=key, questions=questions)


def _question(pair: _Pair) -> Question:
    references = [_spans(answer) for answer in (pair.answer, *pair.validated_answers)]
    if not any(text.strip() for text in references[0]):
        raise InstilError(f"drop: question {pair.query_id} has no answer; take it out")
    return Question(
        id=pair.query_id,
        text=pair.question,
        answer=", ".join(references[0]),
        references=tuple(dict.fromkeys(references)),
    )


def _spans(answer: _Answer) -> tuple[str, ...]:
    """The spans of an answer, of which a number and a date are one."""
    if answer.number:
        return (answer.number,)
    return tuple(answer.spans) or (
        " ".join(filter(None, (answer.date.day, answer.date.month, answer.date.year))),
    )


def _joined(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Passage]:
    """Passages in the order of their first questions, which stand apart in the file."""
    found: dict[str, list[Question]] = {}
    for where, row in lines:
        form = re.fullmatch(r"Passage: (.*)\nQuestion: (.*)\nAnswer:", row["context"], re.DOTALL)
        references = tuple((text.strip(),) for text in row["ref_text"].split("|") if text.strip())
        if not form or not references:
            field = "ref_text" if form else "context"
            raise InstilError(
                f"{where}: {field}: expected 'Passage: ...', 'Question: ...' and 'Answer:' on "
                "lines of their own, and answers with | between them"
            )
        questions = found.setdefault(form[1].strip(), [])
        questions.append(
            Question(
                id=where.rpartition(":")[2],
                text=form[2].strip(),
                answer=references[0][0],
                references=references,
            )
        )
    return [
        Passage(text=text, source=questions[0].id, questions=questions)
        for text, questions in found.items()
    ]


def _from_hub(found: Iterable[Mapping[str, Any]]) -> Iterator[Passage]:
    fields = ("section_id", "query_id", "passage", "question", "answer", "validated_answers")
    for key, group in groupby(hub_rows(found, HUB, *fields), lambda row: row["section_id"]):
        section = _Section("", [])
        for row in group:
            columns = row["validated_answers"]
            others = zip(*(columns[name] for name in ("number", "date", "spans")), strict=True)
            section.passage = row["passage"]
            section.qa_pairs.append(
                _Pair(
                    row["query_id"],
                    row["question"],
                    msgspec.convert(row["answer"], _Answer),
                    [
                        _Answer(number, msgspec.convert(d, _Date), spans)
                        for number, d, spans in others
                    ],
                )
            )
        yield _passage(key, section)
