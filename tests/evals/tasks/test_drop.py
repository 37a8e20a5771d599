"""DROP: three formats, lists as answers, grades by hand."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.drop import grade, spans, tasks

NO_DATE = {"day": "", "month": "", "year": ""}


def said(number="", spans=(), **date) -> dict:
    return {"number": number, "spans": list(spans), "date": {**NO_DATE, **date}}


def pair(key: str, answer: dict, *validated: dict) -> dict:
    return {
        "query_id": key,
        "question": f"What is {key}?",
        "answer": answer,
        "validated_answers": list(validated),
    }


def write(path, **sections: list[dict]) -> None:
    found = {key: {"passage": f"On {key}.", "qa_pairs": pairs} for key, pairs in sections.items()}
    path.write_text(json.dumps(found))


def test_the_prompt_and_the_references(tmp_path):
    pairs = [
        pair("q1", said(spans=["Ann", "Bob"]), said(spans=["Ann"]), said(spans=["Ann", "Bob"])),
        pair("q2", said(day="3", year="1912"), said(number="3")),
    ]
    write(tmp_path / "drop_dataset_dev.json", lake=pairs)
    write(tmp_path / "drop_dataset_train.json", hill=[pair("t1", said(number="7"))])
    zero, few = tasks(Folder(tmp_path), Options())
    head = "Answer each question using information in the preceding passage.\n\n"
    asked = (
        "Passage: On lake.\n\nQuestion: What is q1?\n\nAnswer: Ann, Bob\n\n"
        "Question: What is q2?\n\nAnswer:"
    )
    shown = "Passage: On hill.\n\nQuestion: What is t1?\n\nAnswer: 7\n\n"
    assert zero.items[1].prompt() == head + asked
    assert few.items[1].prompt() == head + shown + asked
    # what two people said is kept apart, and said once
    assert zero.items[0].meta["references"] == (("Ann", "Bob"), ("Ann",))
    assert zero.items[1].meta["references"] == (("3 1912",), ("3",))
    assert zero.items[1].source == "lake"


def test_joined_rows_come_together_by_passage(tmp_path):
    def row(passage, question, answers):
        text = f"Passage: {passage}\nQuestion: {question}\nAnswer:"
        return json.dumps({"context": text, "completion": "", "ref_text": answers}) + "\n"

    lines = [row(f"P{n}", f"q{n}", "x") for n in range(4)]  # the four that are shown
    lines += [row("Lake", "a", " 10|ten "), row("Hill", "b", "5"), row("Lake", "c", "wet")]
    path = tmp_path / "drop_dev_2000.jsonl"
    path.write_text("".join(lines))
    zero, few = tasks(Folder(tmp_path), Options())
    assert [item.id for item in zero.items] == ["5", "7", "6"]  # lines
    assert zero.items[1].text == (
        "Passage: Lake\n\nQuestion: a\n\nAnswer: 10\n\nQuestion: c\n\nAnswer:"
    )
    assert zero.items[0].meta["references"] == (("10",), ("ten",))
    assert zero.items[0].source == zero.items[1].source != zero.items[2].source
    assert few.items[0].shots[3] == "Passage: P3\n\nQuestion: q3\n\nAnswer: x\n\n"

    path.write_text(lines[0] + row("Lake", "a", "10").replace("Passage", "Text"))
    with pytest.raises(InstilError, match=r"drop_dev_2000\.jsonl:2: context: expected 'Passage"):
        tasks(Folder(tmp_path), Options())
    path.write_text(lines[0] + row("Lake", "a", " "))
    with pytest.raises(InstilError, match=r"drop_dev_2000\.jsonl:2: ref_text: expected"):
        tasks(Folder(tmp_path), Options())


def test_rows_of_the_hub(tmp_path):
    def row(key, query, answer, *validated):
        columns = {name: [v[name] for v in validated] for name in ("number", "date", "spans")}
        found = {"section_id": key, "passage": f"On {key}.", **pair(query, answer)}
        return {**found, "validated_answers": {**columns, "worker_id": ["w"] * len(validated)}}

    class Hub(Folder):
        def hub(self, name, split, config=""):
            assert name == "EleutherAI/drop"
            if split == "train":
                return [row("hill", "t1", said(number="7"))]
            one = row("lake", "q1", said(number="1"), said(spans=["a", "b"]), said(year="1912"))
            return [one, row("lake", "q2", said(number="2"))]

    zero, _ = tasks(Hub(tmp_path), Options())
    assert zero.items[0].meta["references"] == (("1",), ("a", "b"), ("1912",))
    assert zero.items[1].text.startswith("Passage: On lake.\n\nQuestion: What is q1?")


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(Missing, match=r"drop_dataset_dev\.json or drop_v0_dev\.jsonl"):
        tasks(Folder(tmp_path), Options())
    write(tmp_path / "drop_dataset_dev.json", lake=[pair("q1", said())])
    with pytest.raises(InstilError, match="question q1 has no answer"):
        tasks(Folder(tmp_path), Options())


def test_a_list_in_words_has_items():
    assert spans("Ann, Bob and Cid") == ["Ann", "Bob", "Cid"]
    assert spans("Ann, Bob, and Cid") == ["Ann", "Bob", "Cid"]
    assert spans("5,000 and Andes") == ["5,000", "Andes"]
    assert spans("") == [""]


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("Bob and Ann", [("Ann", "Bob")], 100, 100),
        ("Ann", [("Ann", "Bob")], 50, 0),
        # one span: the answer is one, too, and {ann, and, bob} against {ann}: 2 / (3 + 1)
        ("Ann and Bob", [("Ann",)], 50, 0),
        ("Ann and Bob", [("Ann and Bob",)], 100, 100),
        ("40", [("41",), ("40", "42"), ("40 yards",)], 67, 0),
        ("", [("Ann",)], 0, 0),
    ],
)
def test_grades(answer, references, f1, exact):
    found = grade(Item(id="x", text="", meta={"references": references}), Answer(text=answer))
    assert found == {"f1": pytest.approx(f1), "exact": exact}


def test_the_shared_subset(shared):
    zero, few = tasks(Folder(shared / "data" / "evaluation"), Options())
    # 507 passages, 4 of which are shown
    assert len({item.source for item in zero.items}) == 503
    assert len(few.items[0].shots) == 4
    right = [Answer(text=item.meta["references"][0][0]) for item in zero.items]
    assert {row["exact"] for row in zero.grade(zero.items, right)} == {100.0}
