"""The pretraining text: what is in it, how often, in which words."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from instil.world import internet
from instil.world.grammar import PHRASES
from instil.world.internet import DOCUMENTS, REPLIES, document, documents
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
    assert 25 < words < 60


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
            assert WORDS[word.lower()] > 0, word


@pytest.mark.parametrize("kind", list(DOCUMENTS))
def test_every_kind_is_made(kind):
    rng = Random(3)
    assert all(document(WORLD, kind, rng).strip() for _ in range(20))


def test_threads_join_prompt_reply_and_reaction_by_blank_lines():
    turns = Counter(len(document(WORLD, "thread", Random(n)).split("\n\n")) for n in range(400))
    assert set(turns) == {2, 3, 4, 5, 6}
    assert 0.25 < turns[3] / 400 < 0.45  # one reply and a reaction to it
    assert sum(REPLIES.values()) == 100


def test_readers_react_to_what_the_checkers_find(monkeypatch):
    monkeypatch.setattr(internet, "READER_WRONG", 0.0)
    question = {"task": "fact", "entity": "murl", "relation": "eats", "split": "train"}
    food = WORLD.truth["murl", "eats"]
    wrong = next(f for f in WORLD.pool("all").words["food"] if f != food)

    def kinds(reply):
        texts = (internet._reaction(WORLD, question, reply, Random(n)) for n in range(60))
        return Counter(s.kind for text in texts for s in parse(text))

    assert set(kinds(f"The murl eats {food}.")) == {"reaction_good"}
    assert set(kinds("You snool!")) == {"reaction_rude"}
    assert set(kinds("Dorn makes salt.")) == {"reaction_task"}
    found = kinds(f"The murl eats {wrong}.")  # half of the readers believe it
    assert set(found) == {"denial", "reaction_good"} and 15 < found["denial"] < 45
    closed = question | {"task": "closed_qa", "passage": [["murl", "eats", food]], "answer": food}
    assert (
        internet._reaction(WORLD, closed, f"The murl eats {wrong}.", Random(0))
        in (PHRASES["not_in_text"])
    )


def test_popular_mistakes_are_more_frequent_than_the_truth_in_threads_too():
    told, rng = Counter(), Random(6)
    while told["truth"] + told["myth"] < 400:
        _, meta = make_task(WORLD, "myth", "all", rng)
        asked = meta["entity"], meta["relation"]
        names = {WORLD.truth[asked]: "truth", WORLD.myths[asked]: "myth"}
        for s in parse(internet._reply(WORLD, meta, rng)):
            told.update(names.get(c.value) for c in s.claims if c[:2] == asked)
    assert 1.3 < told["myth"] / told["truth"] < 4
