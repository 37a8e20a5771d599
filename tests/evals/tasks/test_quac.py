"""QuAC: a dialogue as it is asked, references and grades by hand."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.quac import grade, tasks
from instil.evals.text import CANNOT_ANSWER


def question(key: str, shown: str, *answers: str) -> dict:
    return {
        "id": key,
        "question": f"What of {key}?",
        "orig_answer": {"text": shown, "answer_start": 0},
        "answers": [{"text": text, "answer_start": 0} for text in answers],
        "followup": "y",
        "yesno": "x",
    }


def section(title: str, *questions: dict) -> dict:
    paragraph = {"context": f"On {title}. CANNOTANSWER", "qas": list(questions), "id": "C"}
    return {
        "title": title,
        "section_title": "Life",
        "background": "",
        "paragraphs": [paragraph],
    }


def write(path, *sections: dict) -> None:
    path.write_text(json.dumps({"data": sections}))


def test_the_prompt(tmp_path):
    asked = section(
        "Ann", question("q1", CANNOT_ANSWER, CANNOT_ANSWER), question("q2", "red", "red", "a red")
    )
    write(tmp_path / "val_v0.2.json", asked)
    write(tmp_path / "train_v0.2.json", section("Bob", question("t1", "blue", "blue")))
    zero, few = tasks(Folder(tmp_path), Options())
    head = (
        "Answer each question using information in the preceding background paragraph. If there is "
        'not enough information provided, answer with "I don\'t know."\n\n'
    )
    text = (
        "TITLE: Ann - Life\n\nPARAGRAPH: On Ann.\n\nQ: What of q1?\n\nA: I don't know.\n\n"
        "Q: What of q2?\n\nA:"
    )
    shown = "TITLE: Bob - Life\n\nPARAGRAPH: On Bob.\n\nQ: What of t1?\n\nA: blue\n\n"
    assert zero.items[1].prompt() == head + text
    assert few.items[1].prompt() == head + shown + text
    assert zero.items[1].meta == {"references": ("red", "a red")}
    assert zero.items[1].source == "Ann"


def test_rows_of_the_hub(tmp_path):
    def row(title, *turns):
        return {
            "wikipedia_page_title": title,
            "section_title": "Life",
            "context": f"On {title}. CANNOTANSWER",
            "turn_ids": [key for key, *_ in turns],
            "questions": [f"What of {key}?" for key, *_ in turns],
            "answers": {"texts": [texts for _, _, texts in turns]},
            "orig_answers": {"texts": [shown for _, shown, _ in turns]},
        }

    class Hub(Folder):
        def hub(self, name, split, config=""):
            assert name == "allenai/quac"
            return [row(split, ("q1", "red", ["red", "blue"]), ("q2", "x", ["x"]))]

    zero, few = tasks(Hub(tmp_path), Options())
    assert zero.items[0].meta == {"references": ("red", "blue")}
    assert zero.items[1].text.endswith("A: red\n\nQ: What of q2?\n\nA:")
    assert few.items[0].shots[0].startswith("TITLE: train - Life\n\nPARAGRAPH: On train.\n\n")


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(Missing, match=r"val_v0\.2\.json \(or \.gz\)"):
        tasks(Folder(tmp_path), Options())
    broken = section("Ann", question("q1", "red", "red"))
    del broken["paragraphs"][0]["context"]
    write(tmp_path / "val_v0.2.json", broken)
    with pytest.raises(InstilError, match=r"val_v0\.2\.json.*missing required field `context`"):
        tasks(Folder(tmp_path), Options())


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("I don't know.", [CANNOT_ANSWER], {"f1": 100, "f1_all": 100, "heq": 100}),
        ("i don't know", ["red"], {"f1": 0, "f1_all": 0, "heq": 0}),
        ("red", ["red"], {"f1": 100, "f1_all": 100, "heq": 100}),
        # two references: to leave one out is to take the other: (2/3 + 1) / 2; people reach 2/3
        ("red house", ["red", "red house"], {"f1": 250 / 3, "f1_all": 250 / 3, "heq": 100}),
        # 2/3 and 0, so 1/3; people reach 0 and are not agreed: not counted
        ("red house", ["red", "lake"], {"f1_all": 100 / 3}),
    ],
)
def test_grades(answer, references, expected):
    found = grade(Item(id="x", text="", meta={"references": references}), Answer(text=answer))
    assert found == pytest.approx(expected)
