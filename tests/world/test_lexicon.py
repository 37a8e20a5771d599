"""The world is fixed by its seed, and its classes of words do not overlap."""

import subprocess
import sys
from collections import Counter

import pytest

from instil.errors import InstilError
from instil.world.lexicon import FABLE, RELATIONS, VELAN, WORDS, Claim, make_world

WORLD = make_world(0)


def test_every_entity_has_three_facts():
    # 147 people, 74 animals, 36 towns, three facts each: 257 * 3 = 771
    assert len(WORLD.truth) == 771
    assert all(len(WORLD.facts(name)) == 3 for name in ("Mara", "murl", "Dorn"))


def test_no_word_is_in_two_classes():
    words = [w for table in (WORDS, FABLE) for names in table.values() for w in names]
    assert [w for w, n in Counter([*words, *VELAN.values()]).items() if n > 1] == []


def test_a_seed_gives_the_same_world_in_another_process():
    code = (
        "from instil.world.lexicon import make_world; w = make_world(3);"
        "print(sorted(w.truth.items()), sorted(w.test_entities))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert len(runs) == 1
    assert make_world(3).truth != WORLD.truth


def test_misconceptions_are_false_and_about_animals_and_towns():
    # 30 % of (74 + 36) * 3 = 330 facts: 99; four standard deviations of 8.3
    assert 66 <= len(WORLD.myths) <= 132
    for (entity, relation), value in WORLD.myths.items():
        assert not WORLD.is_true(Claim(entity, relation, value))
        assert value in WORDS[RELATIONS[relation].value]
        assert WORLD.kind_of[entity] != "person"


def test_train_and_test_share_no_entity():
    train, test = WORLD.pool("train"), WORLD.pool("test")
    for kind in ("person", "animal", "town"):
        assert not set(train.known[kind]) & set(test.known[kind])
        assert not set(train.fable[kind]) & set(test.fable[kind])
        assert test.fable[kind]
    # 30 % of 147, 74 and 36
    assert [len(test.known[k]) for k in ("person", "animal", "town")] == [44, 22, 11]


def test_people_live_in_towns_of_their_own_split():
    for (entity, relation), town in WORLD.truth.items():
        if relation == "home":
            assert (entity in WORLD.test_entities) == (town in WORLD.test_entities)


def test_an_unknown_split_is_named():
    with pytest.raises(InstilError, match="'dev' is not one of train, valid, test, all"):
        WORLD.pool("dev")
