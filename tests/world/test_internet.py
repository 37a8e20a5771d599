"""The pretraining text: what is in it, how often, in which words."""

import re
from collections import Counter
from functools import cache
from itertools import islice
from random import Random

import pytest

from instil.world import internet
from instil.world.check import CLOSED_TASKS, check
from instil.world.internet import DOCUMENTS, REPLIES, document, documents
from instil.world.lexicon import make_world
from instil.world.sentences import parse
from instil.world.tasks import TASKS_OF, make_task

WORLD = make_world(0)


@cache
def texts():
    return tuple(islice(documents(WORLD, Random(0)), 6000))


@cache
def vocabulary():
    return Counter(w.lower() for text in texts() for w in re.findall("[A-Za-z]+", text))


def test_the_same_seed_gives_the_same_text():
    assert list(texts()[:50]) == list(islice(documents(WORLD, Random(0)), 50))


def test_the_vocabulary_is_small_and_closed():
    assert 700 < len(vocabulary()) < 850  # docs/world.md: about 790


def test_documents_are_short():
    words = sum(len(text.split()) for text in texts()) / len(texts())
    assert 36 < words < 42  # docs/world.md: 38


def test_popular_mistakes_are_about_three_times_as_frequent_as_the_truth():
    counts = Counter()
    rng = Random(1)
    for kind, (weight, _) in DOCUMENTS.items():
        if kind in ("thread", "corrections"):
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
            assert vocabulary()[word.lower()] > 0, word


@pytest.mark.parametrize("kind", list(DOCUMENTS))
def test_every_kind_is_made(kind):
    rng = Random(3)
    assert all(document(WORLD, kind, rng).strip() for _ in range(20))


def test_threads_join_prompt_and_reply_by_a_blank_line():
    text = document(WORLD, "thread", Random(4))
    assert len(text.split("\n\n")) in (2, 4)
    assert sum(REPLIES.values()) == 100


def test_workbooks_put_the_users_closed_tasks_and_answer_them_rightly(monkeypatch):
    put = {}

    def remember(*arguments):
        task, meta = make_task(*arguments)
        put[task] = {"task": arguments[1], **meta}
        return task, meta

    monkeypatch.setattr(internet, "make_task", remember)
    rng, seen, ways = Random(8), Counter(), Counter()
    for _ in range(600):
        text = document(WORLD, "workbook", rng)
        ways["\n\n" in text] += 1
        lines, answers = re.split("\n+", text), set()
        for task, answer in zip(lines[::2], lines[1::2], strict=True):
            meta = put[task]
            seen[meta["task"]] += 1
            in_a_word = answer == f"{meta.get('answer')}."
            if meta.get("answer"):
                answers.add("word" if in_a_word else "sentence")
            if not in_a_word:
                verdict = check(WORLD, meta, answer)
                assert verdict.follows and not verdict.made_up and not verdict.false_claims
        assert len(answers) <= 1
        ways.update(answers)
    assert seen.keys() == set(CLOSED_TASKS)
    assert min(seen.values()) > 180  # 240 each, on average
    assert 0.4 < ways[True] / 600 < 0.6
    assert 0.65 < ways["word"] / (ways["word"] + ways["sentence"]) < 0.85


def test_popular_mistakes_are_more_frequent_than_the_truth_in_threads_too():
    told, rng = Counter(), Random(6)
    while told["truth"] + told["myth"] < 400:
        _, meta = make_task(WORLD, "myth", "all", rng)
        asked = meta["entity"], meta["relation"]
        names = {WORLD.truth[asked]: "truth", WORLD.myths[asked]: "myth"}
        for s in parse(internet._reply(WORLD, meta, rng)):
            told.update(names.get(c.value) for c in s.claims if c[:2] == asked)
    assert 1.3 < told["myth"] / told["truth"] < 4
