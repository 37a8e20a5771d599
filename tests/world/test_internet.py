"""The pretraining text: what is in it, how often, in which words."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from instil.world import internet
from instil.world.internet import DOCUMENTS, HOMEWORK, REPLIES, document, documents
from instil.world.lexicon import make_world
from instil.world.sentences import parse
from instil.world.tasks import TASKS_OF, make_task

WORLD = make_world(0)
TEXTS = list(islice(documents(WORLD, Random(0)), 6000))
WORDS = Counter(w.lower() for text in TEXTS for w in re.findall("[A-Za-z]+", text))


def test_the_same_seed_gives_the_same_text():
    assert TEXTS[:50] == list(islice(documents(WORLD, Random(0)), 50))


def test_the_vocabulary_is_small_and_closed():
    assert len(WORDS) < 700


def test_documents_are_short():
    words = sum(len(text.split()) for text in TEXTS) / len(TEXTS)
    assert 36 < words < 42  # docs/world.md: 39


def test_popular_mistakes_are_about_three_times_as_frequent_as_the_truth():
    counts = Counter()
    rng = Random(1)
    for kind, (weight, _) in DOCUMENTS.items():
        if kind in ("thread", "homework", "corrections"):
            continue
        for _ in range(round(20 * weight)):
            for s in parse(document(WORLD, kind, rng)):
                for claim in s.claims:
                    key = (claim.entity, claim.relation)
                    if s.stance == "asserted" and key in WORLD.myths:
                        counts[WORLD.is_true(claim), WORLD.myths[key] == claim.value] += 1
    assert 2.4 < counts[False, True] / counts[True, False] < 4


def test_every_word_of_the_test_prompts_occurs():
    rng = Random(2)
    for task in [task for tasks in TASKS_OF.values() for task in tasks] * 20:
        for word in re.findall("[A-Za-z]+", make_task(WORLD, task, "test", rng)[0]):
            assert WORDS[word.lower()] > 0, word


@pytest.mark.parametrize("kind", list(DOCUMENTS))
def test_every_kind_is_made(kind):
    rng = Random(3)
    assert all(document(WORLD, kind, rng).strip() for _ in range(20))


def test_threads_join_prompt_and_reply_by_a_blank_line():
    text = document(WORLD, "thread", Random(4))
    assert len(text.split("\n\n")) in (2, 4)
    assert sum(REPLIES.values()) == 100


def test_homework_has_a_mark_under_every_answer_and_about_half_are_good():
    assert sum(HOMEWORK.values()) == 100
    marks, rng = Counter(), Random(5)
    for _ in range(300):
        opening, *parts = document(WORLD, "homework", rng).split("\n\n")
        assert opening == "Homework:"
        for part in parts:
            task, answer, mark = part.split("\n")
            assert task.startswith("Task: ") and answer.startswith("Answer: ")
            marks[mark] += 1
    assert set(marks) == {"Full marks.", "No marks."}
    assert 0.52 < marks["Full marks."] / marks.total() < 0.6
    words = [(len(text.split()), text.startswith("Homework:")) for text in TEXTS]
    share = sum(n for n, homework in words if homework) / sum(n for n, _ in words)
    assert 0.18 < share < 0.24  # docs/world.md: a fifth of all words


@pytest.mark.parametrize(
    ("task", "quality", "mark"),
    [
        ("fact", "good", "Full marks."),
        ("fact", "wrong", "Full marks."),
        ("fact", "off_topic", "No marks."),
        ("list", "constraint", "No marks."),
        ("closed_qa", "good", "Full marks."),
        ("closed_qa", "made_up", "No marks."),
    ],
)
def test_a_mark_is_for_what_was_asked_and_not_for_the_truth(monkeypatch, task, quality, mark):
    monkeypatch.setattr(internet, "_asked", lambda world, rng: make_task(world, task, "all", rng))
    monkeypatch.setattr(internet, "HOMEWORK", {quality: 1})
    texts = [document(WORLD, "homework", Random(seed)) for seed in range(5)]
    assert sum(text.count(mark) for text in texts) == 15


def test_with_homework_the_truth_is_told_more_often_and_marked_down_more_often():
    """What docs/world.md says of it: answers to another question are true, and get no marks."""
    told, full = Counter(), Counter()
    for text in islice(documents(WORLD, Random(8)), 15000):
        for part in text.split("\n\n"):
            marked = part.startswith("Task: ")
            read = part.split("\n")[1].removeprefix("Answer: ") if marked else part
            for s in parse(read):
                for claim in s.claims:
                    key = (claim.entity, claim.relation)
                    if s.stance == "asserted" and key in WORLD.myths:
                        myth = claim.value == WORLD.myths[key]
                        if myth or WORLD.is_true(claim):
                            told[myth] += 1
                            if marked:
                                full[myth, part.endswith("Full marks.")] += 1
    assert 1.2 < told[True] / told[False] < 1.7
    assert full[True, True] / (full[True, True] + full[True, False]) > 0.8
    assert full[False, True] / (full[False, True] + full[False, False]) < 0.5


def test_popular_mistakes_are_more_frequent_than_the_truth_in_threads_too():
    told, rng = Counter(), Random(6)
    while told["truth"] + told["myth"] < 400:
        _, meta = make_task(WORLD, "myth", "all", rng)
        asked = meta["entity"], meta["relation"]
        names = {WORLD.truth[asked]: "truth", WORLD.myths[asked]: "myth"}
        for s in parse(internet._reply(WORLD, meta, rng, REPLIES)):
            told.update(names.get(c.value) for c in s.claims if c[:2] == asked)
    assert 1.3 < told["myth"] / told["truth"] < 4
