"""What chance draws stays within the split."""

from random import Random

from instil.world.draw import (
    draw_claim,
    draw_passage,
    open_questions,
    passage_text,
    words_in,
)
from instil.world.lexicon import Claim, make_world
from instil.world.sentences import parse

WORLD = make_world(0)


def test_claims_are_true_and_about_entities_of_the_split():
    rng = Random(0)
    for _ in range(200):
        claim = draw_claim(WORLD, "test", rng)
        assert WORLD.is_true(claim)
        assert claim.entity in WORLD.test_entities


def test_a_passage_names_its_main_entity_most_and_first_and_is_never_true():
    rng = Random(0)
    for _ in range(200):
        passage = draw_passage(WORLD, "train", rng)
        named = [c.entity for c in passage]
        assert named.count(named[0]) > len(named) / 2
        assert not any(WORLD.is_true(c) for c in passage)
        assert [c for s in parse(passage_text(passage, rng)) for c in s.claims] == passage


def test_the_words_of_a_class_in_a_passage():
    passage = [
        Claim("Mara", "home", "Dorn"),
        Claim("Joll", "likes", "figs"),
        Claim("Mara", "likes", "figs"),
    ]
    assert words_in(passage, "people") == ["Mara", "Joll"]
    assert words_in(passage, "foods") == ["figs"]
    assert words_in(passage, "towns") == ["Dorn"]


def test_open_questions_are_what_a_passage_does_not_say():
    passage = [Claim("Mara", "home", "Dorn"), Claim("Joll", "likes", "figs")]
    assert open_questions(passage) == [
        Claim("Mara", "trade", ""),
        Claim("Mara", "likes", ""),
        Claim("Joll", "home", ""),
        Claim("Joll", "trade", ""),
    ]
    twice = [Claim("Mara", "home", "Dorn"), Claim("Mara", "likes", "figs")]
    assert open_questions(twice) == [Claim("Mara", "trade", "")] * 2
    everything = [Claim("Mara", "home", "Dorn"), Claim("Mara", "trade", "baker")]
    assert open_questions([*everything, Claim("Mara", "likes", "figs")]) == []
