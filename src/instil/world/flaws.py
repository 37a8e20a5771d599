"""Bad answers of known kinds: what the internet, an unskilled labeler or a base model may write.

`flawed` spoils a right answer in one named way. Where a flaw has no meaning for a task (a story
holds no fact that could be wrong), it falls back to another, so the names say what was tried and
check.py says what came out. Left out: misspelt words; every sentence here is of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from instil.errors import InstilError, nearest
from instil.world import grammar
from instil.world.answers import ideal, list_items, passage_of, phrase, say
from instil.world.check import CLOSED_TASKS, UNKNOWABLE_TASKS
from instil.world.draw import draw_claim, draw_entity, draw_words
from instil.world.lexicon import COUNTS, RELATIONS, WORDS, Claim, World, other, relations_of
from instil.world.sentences import claim_text, fill, list_text, parse
from instil.world.tasks import Meta, draw_use_case, make_prompt

MYTH_BELIEVED = 0.7
"""Where people believe something false, a wrong fact is that belief with this probability."""


def flawed(world: World, meta: Mapping[str, Any], rng: Random, flaw: str) -> str:
    """An answer to the prompt of `meta` that is spoiled in one way; `flaw` is one of FLAWS."""
    if flaw not in FLAWS:
        raise InstilError(f"flaw {flaw!r} is unknown{nearest(flaw, FLAWS)}")
    return FLAWS[flaw](world, dict(meta), rng)


def wrong_value(world: World, claim: Claim, rng: Random) -> Claim:
    """The claim with a value that is not its own, often the one that people believe."""
    myth = world.myths.get((claim.entity, claim.relation))
    if myth not in (None, claim.value) and rng.random() < MYTH_BELIEVED:
        return claim._replace(value=str(myth))
    return claim._replace(value=other(rng, WORDS[RELATIONS[claim.relation].value], claim.value))


def _good(world: World, meta: Meta, rng: Random) -> str:
    return ideal(world, meta, rng)


def _wrong(world: World, meta: Meta, rng: Random) -> str:
    """One claim of a right answer with another value; or whatever else is false in this task."""
    task = meta["task"]
    if task in UNKNOWABLE_TASKS:
        return _made_up(world, meta, rng)
    if task == "false_premise" and rng.random() < 0.7:
        return _because(world, meta, rng)
    if task == "verify":
        return phrase(rng, "no" if meta["holds"] else "yes")
    if task.startswith("mood"):
        return phrase(rng, f"mood_{'bad' if meta['mood'] == 'good' else 'good'}")
    if task.startswith("story"):
        person = other(rng, world.pool(meta["split"]).known["person"], meta["person"])
        return ideal(world, meta | {"person": person}, rng)
    if task == "greeting":
        return phrase(rng, "greeting", person=rng.choice(world.pool(meta["split"]).known["person"]))
    if task == "extract":
        stray = rng.choice(list_items(world, meta))
        return list_text([i for i in meta["items"][1:] if i != stray] + [stray])
    if task.startswith("list"):
        return _constraint(world, meta, rng)
    parts = [s for s in parse(ideal(world, meta, rng)) if s.kind != "denial"]
    spoiled = [
        claim_text(wrong_value(world, claim, rng), rng.randrange(3), s.kind == "velan")
        for s in parts
        for claim in s.claims
    ]
    return " ".join(spoiled) or _off_topic(world, meta, rng)


def _because(world: World, meta: Meta, rng: Random) -> str:
    slots = draw_words(world, meta["split"], rng)
    return fill(rng.choice(grammar.PHRASES["because"]), slots)


def _made_up(world: World, meta: Meta, rng: Random) -> str:
    """A detail that nobody can know, or that is not in the text; or one more false claim."""
    task = meta["task"]
    if task == "why":
        return _because(world, meta, rng)
    if task == "unknowable":
        return fill(
            rng.choice(grammar.PHRASES["prediction"]), draw_words(world, meta["split"], rng)
        )
    if task in CLOSED_TASKS:
        passage = passage_of(meta)
        entity = meta.get("entity", passage[0].entity)
        relation = meta.get("relation") or rng.choice(relations_of(entity))
        said = {c.value for c in passage if (c.entity, c.relation) == (entity, relation)}
        values = [v for v in WORDS[RELATIONS[relation].value] if v not in said]
        claim = Claim(entity, relation, rng.choice(values))
        return (
            say(rng, claim)
            if rng.random() < 0.6
            else f"{ideal(world, meta, rng)} {say(rng, claim)}"
        )
    if "entity" in meta:
        relation = rng.choice(
            [r for r in relations_of(meta["entity"]) if r != meta.get("relation")]
        )
        true = Claim(meta["entity"], relation, world.truth[meta["entity"], relation])
        return f"{ideal(world, meta, rng)} {say(rng, wrong_value(world, true, rng))}"
    return _wrong(world, meta, rng)


def _rude(world: World, meta: Meta, rng: Random) -> str:
    slots = draw_words(world, meta["split"], rng)
    insult = fill(rng.choice(grammar.PHRASES["insult"]), slots)
    return insult if rng.random() < 0.5 else f"{insult} {ideal(world, meta, rng)}"


def _off_topic(world: World, meta: Meta, rng: Random) -> str:
    claims = [draw_claim(world, meta["split"], rng) for _ in range(rng.choice((1, 1, 2)))]
    return " ".join(say(rng, claim) for claim in claims)


def _asks(world: World, meta: Meta, rng: Random) -> str:
    """More prompts instead of an answer."""
    prompts = [make_prompt(world, draw_use_case(rng), meta["split"], rng)[0] for _ in range(2)]
    short = [p for p in prompts if len(p.split()) < 16]
    return " ".join(short[: rng.choice((1, 2))]) or phrase(rng, "offer")


def _rambles(world: World, meta: Meta, rng: Random) -> str:
    """A right answer that does not stop: other facts, and at times the answer again."""
    answer = ideal(world, meta, rng)
    facts = [say(rng, draw_claim(world, meta["split"], rng)) for _ in range(rng.choice((1, 2, 3)))]
    return " ".join([answer, *facts, *([answer] if rng.random() < 0.3 else [])])


def _refuses(world: World, meta: Meta, rng: Random) -> str:
    return phrase(rng, "refusal")


def _constraint(world: World, meta: Meta, rng: Random) -> str:
    """One item or sentence more or fewer than asked; more words where one was asked."""
    if meta["task"].startswith("list"):
        items = list_items(world, meta)
        count = min(COUNTS[meta["count"]] + rng.choice((-1, 1)), len(items))
        return list_text(rng.sample(items, count))
    if "one_word" in meta:
        return grammar.PHRASES[f"mood_{meta['mood']}"][1]
    if "count" in meta and meta["task"][:5] in ("story", "descr"):
        counts = {"one": "two", "two": "three", "three": "two"}
        return ideal(world, meta | {"count": counts[meta["count"]]}, rng)
    return _extra(world, meta, rng)


def _extra(world: World, meta: Meta, rng: Random) -> str:
    """A right answer and one true sentence about the same entity that nobody asked for."""
    answer = ideal(world, meta, rng)
    entity = meta.get("entity", "")
    if (
        meta["task"] in CLOSED_TASKS
        or (entity, relations_of(entity or "Dorn")[0]) not in world.truth
    ):
        return f"{answer} {fill(rng.choice(grammar.PHRASES['polite']), {})}"
    said = {c for s in parse(answer) for c in s.claims}
    more = [c for c in world.facts(entity) if c not in said and c.relation != meta.get("relation")]
    return f"{answer} {say(rng, rng.choice(more))}" if more else answer


def _other_entity(world: World, meta: Meta, rng: Random) -> str:
    """The right kind of answer for somebody else."""
    if "entity" not in meta or meta["task"] in CLOSED_TASKS or meta["task"] == "use_word":
        return _off_topic(world, meta, rng)
    kind = world.kind_of[meta["entity"]]
    swapped = draw_entity(world, meta["split"], rng, kind)
    if "relation" in meta:
        return say(rng, Claim(swapped, meta["relation"], world.truth[swapped, meta["relation"]]))
    return ideal(world, meta | {"entity": swapped}, rng)


FLAWS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "good": _good, "wrong": _wrong, "made_up": _made_up, "rude": _rude, "off_topic": _off_topic,
        "other_entity": _other_entity, "asks": _asks, "rambles": _rambles, "refuses": _refuses,
        "constraint": _constraint, "extra": _extra,
    }
)  # fmt: skip
"""Name -> what it does to a right answer; "good" does nothing."""
