"""Filling and reading are inverse to each other."""

from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.world import grammar
from instil.world.internet import documents
from instil.world.lexicon import RELATIONS, WORDS, Claim, make_world
from instil.world.sentences import (
    _SLOT,
    CLASSES,
    _all_templates,
    _expand,
    claim_text,
    compound_text,
    fill,
    list_text,
    lower_first,
    parse,
    parse_sentence,
)

CLAIM = Claim("murl", "eats", "figs")


def test_a_claim_in_its_wordings():
    assert [claim_text(CLAIM, way) for way in range(3)] == [
        "The murl eats figs.",
        "Murls eat figs.",
        "The food of the murl is figs.",
    ]
    assert claim_text(CLAIM, 0, velan=True) == "Nama o murl fisko."


@st.composite
def claims(draw):
    relation = draw(st.sampled_from(sorted(RELATIONS)))
    kinds = RELATIONS[relation]
    return Claim(
        draw(st.sampled_from(CLASSES[kinds.entity])),
        relation,
        draw(st.sampled_from(WORDS[kinds.value])),
    )


@given(claims(), st.integers(0, 2), st.sampled_from(["", *grammar.PREFIXES]))
def test_a_claim_is_read_back(claim, way, prefix):
    text = claim_text(claim, way)
    text = prefix + lower_first(text) if prefix else text
    read = parse_sentence(text)
    assert read.claims == (claim,)
    assert read.text == text
    assert read.stance == (grammar.PREFIXES[prefix] if prefix else "asserted")


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_every_template_is_read_back_with_its_slots(rng):
    for kind, tag, text in _all_templates():
        for template in _expand(text):
            names = _SLOT.findall(template)
            if kind == "list" or len(set(names)) < len(names):
                continue
            slots = {name: rng.choice(CLASSES[name]) for name in names if name != "animals"}
            if "animals" in names:
                slots["animal"] = slots.get("animal", rng.choice(CLASSES["animal"]))
                slots.pop("animals", None)
            read = parse_sentence(fill(template, slots))
            assert dict(read.slots) == slots, template
            if kind in ("claim", "compound", "velan", "event", "review", "request"):
                assert (read.kind, read.tag) == (kind, tag)


def test_two_claims_in_one_sentence():
    place = Claim("murl", "place", "lake")
    text = compound_text(CLAIM, place)
    assert text == "The murl lives in the lake and eats figs."
    assert parse(text)[0].claims == (place, CLAIM)
    assert compound_text(CLAIM, CLAIM) is None


@pytest.mark.parametrize("items", [["figs"], ["figs", "bread"], ["figs", "bread", "rice", "eggs"]])
def test_a_list_is_read_back(items):
    read = parse(list_text(items))
    assert [s.kind for s in read] == ["list"]
    assert list(read[0].slots.values()) == items


@pytest.mark.parametrize(
    "text",
    [
        "The murl eats",
        "The murl eat figs.",
        "Dorn eats figs.",
        "murl murl murl.",
        "The foods of Dorn make boots.",
        "Figs, Mara and bread.",
        "The murl eats figs",
    ],
)
def test_what_no_template_makes_is_unknown(text):
    assert [s.kind for s in parse(text)] == ["unknown"]


@given(st.text(alphabet="abM .?!:\n,murlfigs", max_size=60))
def test_reading_never_fails(text):
    kept = "".join(s.text for s in parse(text))
    assert len(kept) <= len(text)


def test_nothing_of_the_pretraining_text_is_unknown_but_bare_answers():
    texts = list(islice(documents(make_world(1), Random(1)), 500))
    unknown = {s.text for text in texts for s in parse(text) if s.kind == "unknown"}
    assert unknown <= {"not in the text."}
