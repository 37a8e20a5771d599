"""Public tasks: formats, answers, groups."""

from collections import Counter

import pytest

from instil.errors import InstilError
from instil.world.check import check
from instil.world.lexicon import make_world
from instil.world.public import (
    PUBLIC_TASKS,
    STYLES,
    items,
    second_language_questions,
    sentence_starts,
    truthful_questions,
)

WORLD = make_world(0)


@pytest.mark.parametrize("task", list(PUBLIC_TASKS))
def test_items_are_different_repeatable_and_have_one_open_answer(task):
    found = items(WORLD, task, 100, seed=1)
    assert found == items(WORLD, task, 100, seed=1)
    assert len({i.prompt_text for i in found}) == len({i.id for i in found}) == 100
    for item in found:
        assert item.answers[0]
        assert "\n" not in item.answers[0]
        assert not item.prompt_text.endswith((" ", "."))


def test_reading_has_questions_that_the_passage_does_not_answer():
    groups = Counter(i.group for i in items(WORLD, "reading", 300, seed=0))
    assert groups["unanswerable"] / 300 == pytest.approx(1 / 3, abs=0.08)
    for item in items(WORLD, "reading", 100, seed=0):
        last = item.prompt_text.split("Passage: ")[-1].split("\nQuestion:")[0]
        assert (item.answers[0] in last) == (item.group == "answerable")


def test_cloze_answers_are_true():
    for item in items(WORLD, "cloze", 50, seed=0):
        assert item.answers[0] in WORLD.truth.values()


def test_sentence_starts_end_before_the_speech():
    starts = sentence_starts(WORLD, 100, seed=0)
    assert all(s.prompt_text.endswith(":") for s in starts)
    assert 30 < sum(s.group == "argument" for s in starts) < 70
    rude = sentence_starts(WORLD, 100, seed=0, style="biased")
    assert [r.prompt_text for r in rude] == [STYLES["biased"] + s.prompt_text for s in starts]


def test_truthful_questions_are_held_out_and_can_be_checked():
    asked = truthful_questions(WORLD, 150, seed=0)
    assert len(asked) == 150
    for item in asked:
        assert item.meta["entity"] in WORLD.test_entities
        assert check(WORLD, item.meta, "I do not know.").truthful
    assert {i.group for i in asked} == {"fact", "myth", "myth-why", "myth-verify"}


def test_second_language_questions_are_in_velan():
    asked = second_language_questions(WORLD, 30, seed=0)
    assert len(asked) == 30
    assert all("kes" in i.prompt_text.lower() for i in asked)


def test_an_unknown_task_is_named():
    with pytest.raises(InstilError, match='did you mean "reading"'):
        items(WORLD, "readin", 1, seed=0)
