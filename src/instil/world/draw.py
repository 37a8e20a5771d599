"""Chance meets the facts: entities, claims, passages and reviews for prompts and documents.

All draws keep to the entities and wordings of a split. Left out: whole prompts, see tasks.py.
"""

from __future__ import annotations

from random import Random

from instil.world import grammar
from instil.world.lexicon import (
    PLURALS,
    RELATIONS,
    WORDS,
    Claim,
    World,
    other,
    relations_of,
)
from instil.world.sentences import CLASS_OF, claim_text, fill
from instil.world.wordings import QUESTIONS


def question_text(claim: Claim, split: str, rng: Random) -> str:
    """A question whose answer is the claim's value."""
    entity = {RELATIONS[claim.relation].entity: claim.entity}
    return fill(rng.choice(QUESTIONS[claim.relation].of(split)), entity)


def draw_entity(world: World, split: str, rng: Random, kind: str = "") -> str:
    """An entity with facts; of any kind unless one is named, each kind equally often."""
    kind = kind or rng.choice(("person", "animal", "town"))
    return rng.choice(world.pool(split).known[kind])


def draw_claim(world: World, split: str, rng: Random, relations: tuple[str, ...] = ()) -> Claim:
    """A true claim, of one of these relations if any are given."""
    relation = rng.choice(relations or tuple(RELATIONS))
    entity = draw_entity(world, split, rng, RELATIONS[relation].entity)
    return Claim(entity, relation, world.truth[entity, relation])


def draw_words(world: World, split: str, rng: Random) -> dict[str, str]:
    """A word for every slot class, for templates that need any of them."""
    words = world.pool(split).words
    slots = {name: rng.choice(words[name]) for name in WORDS}
    return slots | {"person2": other(rng, words["person"], slots["person"])}


def draw_passage(world: World, split: str, rng: Random) -> list[Claim]:
    """What a passage says: two or three claims about its main entity, one about another.

    Half of the entities have no facts at all, the others stand in relations that are not theirs,
    so that only the text can tell.
    """
    pool = world.pool(split)
    kind = rng.choice(("person", "person", "animal", "town"))
    source = pool.fable if rng.random() < 0.5 else pool.known
    main = rng.choice(source[kind])
    second = other(rng, pool.fable[rng.choice(("person", "animal"))], main)
    shape = rng.choice(((2, 1), (2, 1), (3, 1)))
    passage = []
    for entity, count in zip((main, second), shape, strict=True):
        for relation in rng.sample(relations_of(entity), count):
            values = pool.words[RELATIONS[relation].value]
            passage.append(
                Claim(entity, relation, other(rng, values, world.truth.get((entity, relation), "")))
            )
    head, tail = passage[:1], passage[1:]
    rng.shuffle(tail)
    return head + tail


def passage_text(passage: list[Claim], rng: Random) -> str:
    """The claims of a passage, a sentence each."""
    return " ".join(claim_text(claim, rng.randrange(3)) for claim in passage)


def open_questions(passage: list[Claim]) -> list[Claim]:
    """What a passage leaves open about those whom it names, as claims without a value; the same
    claim as often as the passage has claims about its entity."""
    said = {(c.entity, c.relation) for c in passage}
    return [
        Claim(c.entity, relation, "")
        for c in passage
        for relation in relations_of(c.entity)
        if (c.entity, relation) not in said
    ]


def review_text(world: World, mood: str, split: str, rng: Random) -> str:
    """Two or three sentences of a review, of which all but the neutral ones show the mood."""
    parts = rng.sample(grammar.REVIEWS[mood], 2)
    if rng.random() < 0.5:
        parts.insert(rng.randrange(2), rng.choice(grammar.REVIEWS["neutral"]))
    return " ".join(fill(part, draw_words(world, split, rng)) for part in parts)


def words_in(passage: list[Claim], plural: str) -> list[str]:
    """The words of one class that a passage names, each once, in order."""
    named = [word for c in passage for word in (c.entity, c.value)]
    return list(dict.fromkeys(w for w in named if CLASS_OF[w] == PLURALS[plural]))
