"""What counts as made up, word by word."""

from __future__ import annotations

import json

import pytest

from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.closed_domain import digits, grade, names, tasks

TEXT = (
    "In 1912 the Norman fleet of three ships, worth $1,200.50, left Rouen. Its captain was Rollo."
)


def made_up(answer: str) -> float:
    return grade(Item(id="x", text=TEXT), Answer(text=answer))["hallucination"]


@pytest.mark.parametrize(
    "answer",
    [
        "Rollo left Rouen in 1912.",
        "It had 3 ships.",  # three
        "They cost $1200.50.",  # the comma does not count
        "The Normans left.",  # first five letters
        "1. The fleet left.\n2. It was Rollo's.",  # marks of a list
        "Somebody left. Nobody stayed.",  # capitals that begin sentences
        "There were two of them.",  # a small number in words may be a figure of speech
        "the sailors departed",
    ],
)
def test_what_the_prompt_gives(answer):
    assert made_up(answer) == 0


@pytest.mark.parametrize(
    "answer",
    ["It was 1913.", "It had 4 ships.", "They sailed to London.", "So, Rollo, Ann and I left."],
)
def test_what_it_does_not(answer):
    assert made_up(answer) == 1


def test_digits_and_names():
    assert digits("1,200 in the 1960s, 3.5%") == {"1200", "1960", "3.5"}
    said = names('Ann saw Bob, Cid. Dan said: "Eve saw Émile!" I and I left\nFay.')
    assert said == {"bob", "cid", "émile"}


def test_new_words_by_hand():
    item = Item(id="x", text=TEXT)
    # of five letters and more: captain (known), sailed, slowly
    found = grade(item, Answer(text="The captain sailed slowly on"))
    assert found["new_words"] == pytest.approx(2 / 3)
    assert "new_words" not in grade(item, Answer(text="It was."))


def test_a_summary_and_a_question_of_each_passage(tmp_path):
    asked = {"id": "q", "question": "Who?", "answers": [{"text": "x"}]}
    passages = [{"context": f"Text {n}.", "qas": [asked]} for n in range(2)]
    data = {"data": [{"title": "Lake", "paragraphs": passages}]}
    with pytest.raises(Missing, match=r"dev-v1\.1\.json"):
        tasks(Folder(tmp_path), Options())
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(data))
    (task,) = tasks(Folder(tmp_path), Options())
    assert task.chat and not task.first_line and task.temperature == 0
    assert task.better == "lower" and not task.tax
    assert [item.group for item in task.items] == ["summary", "question"] * 2
    assert task.items[0].prompt() == "Summarize the following text:\n\nText 0."
    assert task.items[3].prompt() == (
        "Answer the question with nothing but what the text says.\n\nText 1.\n\nQuestion: Who?"
    )
    assert {item.source for item in task.items} == {"Lake"}
    assert len(tasks(Folder(tmp_path), Options(limit=3))[0].items) == 3


def test_as_many_prompts_as_the_paper_has(shared):
    (task,) = tasks(Folder(shared / "data" / "evaluation"), Options())
    assert len(task.items) == 377
    # to repeat the passage is never to make up
    parrots = [Answer(text=item.text) for item in task.items]
    rows = task.grade(task.items, parrots)
    assert sum(row["hallucination"] for row in rows) == 0


def test_an_empty_answer_is_counted_as_that() -> None:
    # who says nothing makes nothing up, and should not win by it
    assert grade(Item(id="x", text=TEXT), Answer(text="")) == {"empty": 1.0}
    assert grade(Item(id="x", text=TEXT), Answer(text="No."))["empty"] == 0.0
