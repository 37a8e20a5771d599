"""The tables of sentences: no two mean different things by the same words."""

import re

from instil.world import grammar
from instil.world.lexicon import RELATIONS, WORDS
from instil.world.sentences import parse_sentence


def test_every_relation_has_three_wordings_with_its_own_slots():
    for relation, ways in grammar.CLAIMS.items():
        entity, value = RELATIONS[relation]
        assert len(ways) == 3
        for way in ways:
            slots = {s.replace("animals", "animal") for s in re.findall(r"\{(\w+)\}", way)}
            assert slots == {entity, value}


def test_no_word_after_the_article_a_begins_with_a_vowel():
    assert not [w for c in ("animal", "trade", "insult") for w in WORDS[c] if w[0] in "aeiou"]


def test_every_insult_is_read_as_one():
    for way in grammar.PHRASES["insult"]:
        text = way.format(insult="clod", person="Mara")
        assert parse_sentence(text).kind == "insult"


def test_every_rude_request_has_a_polite_form():
    assert set(grammar.RUDE_REQUESTS) == set(grammar.REQUESTS)
