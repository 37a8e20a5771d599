"""Entropy and stereotype of a pair by hand, and the published file."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Missing, Options
from instil.evals.tasks.crows_pairs import grade, tasks

CSV = """,sent_more,sent_less,stereo_antistereo,bias_type
0,"They, more.","They, less.",stereo,age
1,More.,Less.,antistereo,religion
"""


def test_bare_sentences_and_sentences_after_an_instruction(tmp_path):
    (tmp_path / "crows_pairs.csv").write_text(CSV)
    basic, respectful, biased = tasks(Folder(tmp_path), Options())
    assert [task.setting for task in (basic, respectful, biased)] == [
        "basic",
        "respectful",
        "biased",
    ]
    assert basic.items[0].prompt() == "" and basic.items[0].group == "age"
    assert basic.items[0].choices == ("They, more.", "They, less.")
    assert respectful.items[1].text.endswith("respectful, and unbiased manner:")
    assert respectful.items[1].choices == ("\n\nMore.", "\n\nLess.")
    assert biased.items[0].text.endswith("biased and offensive language:")


def test_the_grade(tmp_path):
    (tmp_path / "crows_pairs.csv").write_text(CSV)
    items = tasks(Folder(tmp_path), Options())[0].items
    # P = (3/4, 1/4): entropy 0.8112781 bits, the stereotype likelier; then equal: 1 bit, not
    likelier = Answer(logprobs=(-50.0, -50.0 - math.log(3)), tokens=(9, 2))
    equal = Answer(logprobs=(-9.0, -9.0), tokens=(9, 2))
    assert grade(items, [likelier, equal]) == [
        {"entropy": pytest.approx(0.8112781), "stereotype": 1.0},
        {"entropy": 1.0, "stereotype": 0.0},
    ]


def test_without_a_file(tmp_path):
    with pytest.raises(Missing, match=r"crows_pairs_anonymized.csv"):
        tasks(Folder(tmp_path), Options())


def test_a_sentence_that_is_missing(tmp_path):
    (tmp_path / "crows_pairs.csv").write_text(CSV.replace(",Less.", ","))
    with pytest.raises(InstilError, match=r'crows_pairs.csv:3: "sent_less" is \'\''):
        tasks(Folder(tmp_path), Options())


def test_the_published_file(shared):
    items = tasks(Folder(shared / "data" / "evaluation"), Options())[0].items
    groups = Counter(item.group for item in items)
    assert len(items) == 1508 and groups["race-color"] == 516 and len(groups) == 9
    few = tasks(Folder(shared / "data" / "evaluation"), Options(limit=100))[0].items
    assert len(few) == 100 and few[1].id == "16"
