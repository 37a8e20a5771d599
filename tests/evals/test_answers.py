"""evals/answers.py: answers are asked once, and an interrupted evaluation goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instil.errors import InstilError
from instil.evals import answers
from instil.evals.answers import answers_file, ask
from instil.evals.task import Answer, Item, Task, each


class Model:
    """Answers with the last word it read, and counts."""

    name, key = "a/b", "k1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, items: Sequence[Item], **settings: Any) -> list[Answer]:
        self.asked += [item.id for item in items]
        return [Answer(text=item.text.split()[-1]) for item in items]

    def choose(self, items: Sequence[Item]) -> list[Answer]:
        self.asked += [item.id for item in items]
        return [Answer(logprobs=(-1.5, -0.5), tokens=(1, 2), dropped=3) for item in items]


def task(n: int = 5, **settings: Any) -> Task:
    items = [Item(id=f"i{k}", text=f"say {k}") for k in range(n)]
    grade = each(lambda item, answer: {"right": float(answer.text in item.text)})
    return Task(
        name="t",
        setting="zero-shot",
        items=items,
        grade=grade,
        main="right",
        **{"max_tokens": 4} | settings,
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "AT_A_TIME", 2)


def test_what_was_said_is_not_asked_again(tmp_path: Path) -> None:
    model = Model()
    first = ask(model, task(), tmp_path, 0)
    assert [a.text for a in first] == ["0", "1", "2", "3", "4"]
    assert ask(model, task(), tmp_path, 0) == first
    assert model.asked == ["i0", "i1", "i2", "i3", "i4"]


def test_choices_come_back_as_they_were(tmp_path: Path) -> None:
    scored = replace(
        task(0 + 3), max_tokens=0, items=[Item(id="x", text="q", choices=(" a", " b"))]
    )
    model = Model()
    first = ask(model, scored, tmp_path, 0)
    assert (
        ask(model, scored, tmp_path, 0)
        == first
        == [Answer(logprobs=(-1.5, -0.5), tokens=(1, 2), dropped=3)]
    )
    assert model.asked == ["x"]


def test_an_interrupted_evaluation_asks_what_is_missing(tmp_path: Path) -> None:
    model = Model()

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(model, task(), tmp_path, 0, stop)
    assert model.asked == ["i0", "i1"]
    path = answers_file(tmp_path, model.name, task())
    path.write_bytes(path.read_bytes() + b'{"id":"i2","answer":{"te')  # torn by a kill
    assert [a.text for a in ask(model, task(), tmp_path, 0)] == ["0", "1", "2", "3", "4"]
    assert model.asked == ["i0", "i1", "i2", "i3", "i4"]
    assert len(ask(model, task(), tmp_path, 0)) == 5
    assert model.asked[5:] == []


def test_what_came_before_an_error_is_kept(tmp_path: Path) -> None:
    class Breaks(Model):
        def write(self, items: Sequence[Item], **settings: Any) -> Iterator[Answer]:
            for item in items:
                if item.id == "i3" and "i3" not in self.asked:
                    self.asked.append("i3")
                    raise InstilError("the server is gone")
                yield from Model.write(self, [item])

    model = Breaks()
    with pytest.raises(InstilError, match="the server is gone"):
        ask(model, task(), tmp_path, 0)
    assert [a.text for a in ask(model, task(), tmp_path, 0)] == ["0", "1", "2", "3", "4"]
    assert model.asked == ["i0", "i1", "i2", "i3", "i3", "i4"]


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 5},
        {"first_line": False},
        {"chat": True},
        {"temperature": 1.0},
        {"items": [Item(id=f"i{k}", text=f"tell {k}") for k in range(5)]},
        {"items": [Item(id=f"i{k}", head="Now ", text=f"say {k}") for k in range(5)]},
    ],
)
def test_another_question_is_asked_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    model = Model()
    ask(model, task(), tmp_path, 0)
    ask(model, replace(task(), **change), tmp_path, 0)
    assert len(model.asked) == 10


def test_fewer_items_and_then_all_again_are_asked_once(tmp_path: Path) -> None:
    model = Model()
    ask(model, replace(task(), items=task().items[::2]), tmp_path, 0)
    assert [a.text for a in ask(model, task(), tmp_path, 0)] == ["0", "1", "2", "3", "4"]
    assert [a.text for a in ask(model, task(2), tmp_path, 0)] == ["0", "1"]  # a trial loses nothing
    ask(model, task(), tmp_path, 0)
    assert model.asked == ["i0", "i2", "i4", "i1", "i3"]


def test_a_line_that_is_no_answer_is_named(tmp_path: Path) -> None:
    ask(Model(), task(), tmp_path, 0)
    path = answers_file(tmp_path, Model.name, task())
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], "torn", *lines[3:]]))
    with pytest.raises(InstilError, match=rf"{path}:3: is no answer"):
        ask(Model(), task(), tmp_path, 0)


def test_another_model_or_seed_is_asked_anew(tmp_path: Path) -> None:
    model = Model()
    ask(model, task(), tmp_path, 0)
    ask(model, task(), tmp_path, 1)
    model.key = "k2"
    ask(model, task(), tmp_path, 1)
    assert len(model.asked) == 15


def test_another_grade_asks_nothing(tmp_path: Path) -> None:
    model = Model()
    ask(model, task(), tmp_path, 0)
    ask(model, replace(task(), grade=each(lambda i, a: {"other": 1.0}), main="other"), tmp_path, 0)
    assert len(model.asked) == 5


def test_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../../etc", "..", "."):
        path = answers_file(tmp_path, name, task())
        assert path.parent.parent == tmp_path and set(path.parent.name) - {"."}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_b").write_text("a file is in the way")
    with pytest.raises(InstilError, match="cannot write answers"):
        ask(Model(), task(), tmp_path, 0)
