"""Raw prompts: uneven users, duplicates, personal data that detectors find."""

import re
from collections import Counter
from random import Random

import phonenumbers
import pytest
from stdnum import iban, luhn

from instil.errors import InstilError
from instil.world.lexicon import make_world
from instil.world.users import OVERACTIVE_USER, draw_pii, raw_prompts

WORLD = make_world(0)


def split_of(user):
    return ("train", "train", "valid", "test")[int(user[1:]) % 4]


PROMPTS = list(raw_prompts(WORLD, 3000, 250, 0, split_of))


def test_all_users_are_there_and_one_is_over_active():
    counts = Counter(p["user_id"] for p in PROMPTS)
    assert len(PROMPTS) == 3000
    assert len(counts) == 250
    assert counts[OVERACTIVE_USER] == 320
    assert sorted(counts.values())[-2] < 150


def test_prompts_are_repeatable_and_have_the_fields_of_a_raw_prompt():
    assert PROMPTS[:100] == list(raw_prompts(WORLD, 3000, 250, 0, split_of))[:100]
    assert set(PROMPTS[0]) == {"text", "user_id", "use_case", "source", "consent", "meta"}


def test_test_users_have_the_held_out_names_for_themselves():
    for prompt in PROMPTS:
        named = set(re.findall("[A-Z][a-z]+", prompt["text"])) & WORLD.test_entities
        assert not named or split_of(prompt["user_id"]) == "test" or "pii" in prompt["meta"]
        assert prompt["meta"]["split"] == split_of(prompt["user_id"])


def test_there_is_something_to_clean():
    pii = sum("pii" in p["meta"] for p in PROMPTS) / 3000
    assert pii == pytest.approx(0.02, abs=0.01)
    assert len({(p["user_id"], p["text"]) for p in PROMPTS}) < 2950
    assert not all(p["consent"] for p in PROMPTS)
    assert {p["source"] for p in PROMPTS} == {"api", "labeler"}
    assert len({p["use_case"] for p in PROMPTS}) == 10


def test_planted_numbers_are_valid():
    rng = Random(0)
    for _ in range(300):
        kind, pii = draw_pii(rng)
        if kind == "card":
            luhn.validate(pii.replace(" ", ""))
        elif kind == "iban":
            iban.validate(pii)
        elif kind == "phone":
            region = "US" if pii.startswith("(") else None
            assert phonenumbers.is_possible_number(phonenumbers.parse(pii, region))
        else:
            assert "@" in pii


def test_fewer_prompts_than_users_is_an_error():
    with pytest.raises(InstilError, match="3 prompts of 5 users"):
        list(raw_prompts(WORLD, 3, 5, 0, split_of))
