"""Spoiled answers are mostly caught, and stay within the world."""

from random import Random

import pytest

from instil.errors import InstilError
from instil.world.check import check
from instil.world.flaws import FLAWS, flawed, wrong_value
from instil.world.lexicon import Claim, make_world
from instil.world.sentences import parse
from instil.world.tasks import TASKS_OF, make_task

WORLD = make_world(0)
TASKS = [task for tasks in TASKS_OF.values() for task in tasks]


@pytest.mark.parametrize("flaw", ["wrong", "made_up", "rude", "off_topic", "asks", "rambles"])
def test_a_spoiled_answer_is_flagged(flaw):
    rng = Random(0)
    caught = []
    for task in TASKS * 10:
        _, meta = make_task(WORLD, task, "train", rng)
        caught.append(bool(check(WORLD, meta, flawed(WORLD, meta, rng, flaw)).flags()))
    assert sum(caught) / len(caught) > 0.97


def test_every_flaw_works_for_every_task_in_every_split():
    rng = Random(1)
    for flaw in FLAWS:
        for task in TASKS:
            for split in ("train", "test", "all"):
                _, meta = make_task(WORLD, task, split, rng)
                text = flawed(WORLD, meta, rng, flaw)
                assert all(s.kind != "unknown" for s in parse(text)), (flaw, task, text)


def test_a_wrong_value_is_wrong_and_often_the_popular_one():
    (entity, relation), myth = next(iter(WORLD.myths.items()))
    true = Claim(entity, relation, WORLD.truth[entity, relation])
    values = [wrong_value(WORLD, true, Random(seed)).value for seed in range(100)]
    assert true.value not in values
    assert values.count(myth) > 50


def test_an_unknown_flaw_is_named():
    with pytest.raises(InstilError, match='did you mean "rude"'):
        flawed(WORLD, {"task": "sad"}, Random(0), "ruude")
