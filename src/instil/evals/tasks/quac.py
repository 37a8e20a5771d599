"""QuAC: a dialogue of questions about a section of an article, which may not hold the answer.

F1 by the official scorer (`text.quac_scores`), over questions on which people agree (F1 of people
at least 0.4), as it has it; "f1_all" is over all questions, "heq" how often a model is at least as
near as people are to each other. "I don't know." counts as CANNOTANSWER. Clustered by article.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from instil.evals.reading import Layout, Passage, Question, decode, part
from instil.evals.reading import tasks as reading_tasks
from instil.evals.source import hub_rows
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each
from instil.evals.text import CANNOT_ANSWER, quac_scores, squad_words

FILES = {
    "validation": ("val_v0.2.json", "quac_val.json"),
    "train": ("train_v0.2.json", "quac_train.json"),
}
HUB = "allenai/quac"
SHOWN = 2
"""Solved dialogues, each whole  [appendix D]."""
NO_ANSWER = "I don't know."
AGREED = 0.4
"""F1 of people below which the official scorer leaves a question out."""
LAYOUT = Layout(
    head="Answer each question using information in the preceding background paragraph. If there "
    f'is not enough information provided, answer with "{NO_ANSWER}"\n\n',
    title="TITLE:",
    passage="PARAGRAPH:",
    question="Q:",
    answer="A:",
)


class _Answer(msgspec.Struct):
    text: str


class _Question(msgspec.Struct):
    id: str
    question: str
    answers: list[_Answer]
    orig_answer: _Answer


class _Paragraph(msgspec.Struct):
    context: str
    qas: list[_Question]


class _Section(msgspec.Struct):
    title: str
    section_title: str
    paragraphs: list[_Paragraph]


class _File(msgspec.Struct):
    data: list[_Section]


def tasks(source: Source, options: Options) -> list[Task]:
    """QuAC zero-shot and few-shot."""
    asked = passages(source, "validation")
    if asked is None:
        raise Missing(f"{FILES['validation'][0]} (or .gz), see docs/evals.md")
    parts = part(asked, passages(source, "train"), SHOWN, 0, "quac")
    return reading_tasks("quac", LAYOUT, parts, options, each(grade))


def grade(item: Item, answer: Answer) -> Measures:
    """F1 of 100; without "f1" and "heq" where people do not agree."""
    cannot = squad_words(answer.text) == squad_words(NO_ANSWER)
    f1, people = quac_scores(CANNOT_ANSWER if cannot else answer.text, item.meta["references"])
    every = {"f1_all": 100 * f1}
    return every if people < AGREED else {**every, "f1": 100 * f1, "heq": 100.0 * (f1 >= people)}


def passages(source: Source, split: str) -> Iterator[Passage] | None:
    """The dialogues of a split; None if they are not there."""
    if path := source.find(*FILES[split]):
        sections = decode(path, _File).data
        return (_passage(section, p) for section in sections for p in section.paragraphs)
    rows = source.hub(HUB, split)
    return None if rows is None else (_passage(*found) for found in _from_hub(rows))


def _passage(section: _Section, paragraph: _Paragraph) -> Passage:
    return Passage(
        text=paragraph.context.removesuffix(CANNOT_ANSWER).rstrip(),
        source=section.title,
        title=f"{section.title} - {section.section_title}",
        questions=[_question(question) for question in paragraph.qas],
    )


def _question(question: _Question) -> Question:
    shown = question.orig_answer.text
    return Question(
        id=question.id,
        text=question.question,
        answer=NO_ANSWER if shown == CANNOT_ANSWER else shown,
        references=tuple(answer.text for answer in question.answers),
    )


def _from_hub(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[_Section, _Paragraph]]:
    fields = ("wikipedia_page_title", "section_title", "context", "turn_ids", "questions")
    for row in hub_rows(rows, HUB, *fields, "answers", "orig_answers"):
        turns = zip(
            row["turn_ids"],
            row["questions"],
            row["answers"]["texts"],
            row["orig_answers"]["texts"],
            strict=True,
        )
        questions = [
            _Question(key, question, [_Answer(text) for text in texts], _Answer(shown))
            for key, question, texts, shown in turns
        ]
        section = _Section(row["wikipedia_page_title"], row["section_title"], [])
        yield section, _Paragraph(row["context"], questions)
