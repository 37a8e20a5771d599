"""Right answers: `ideal` writes a correct, polite and concise response to any prompt of tasks.py.

Several answers are right to most prompts and the generator draws one. It knows what the checkers
of check.py want and no more; a policy may well find other right answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from instil.world import grammar
from instil.world.draw import draw_words
from instil.world.lexicon import COUNTS, PLURALS, Claim, World
from instil.world.sentences import (
    claim_text,
    compound_text,
    fill,
    list_text,
)
from instil.world.tasks import Meta

POLITE_SHARE = 0.05
"""Share of the ideal answers that open with a word such as "Certainly."."""


def ideal(world: World, meta: Mapping[str, Any], rng: Random) -> str:
    """A right answer to the prompt that `meta` describes."""
    text = _ANSWERS[meta["task"]](world, dict(meta), rng)
    countless = "count" not in meta and "one_word" not in meta
    if (
        countless
        and meta["task"] in ("list_not", "describe", "story")
        and rng.random() < POLITE_SHARE
    ):
        return f"{rng.choice(grammar.PHRASES['polite'][:3])} {text}"
    return text


def say(rng: Random, claim: Claim) -> str:
    """A claim in one of its wordings."""
    return claim_text(claim, rng.randrange(3))


def phrase(rng: Random, kind: str, **slots: str) -> str:
    """One of the fixed phrases of a kind that these slots can fill."""
    ways = grammar.PHRASES[kind]
    fits = [w for w in ways if all(f"{{{name}}}" in w for name in slots)]
    return fill(rng.choice(fits), slots)


def asked_claim(world: World, meta: Mapping[str, Any]) -> Claim:
    """The true claim that answers the question of `meta`."""
    key = meta["entity"], meta["relation"]
    return Claim(*key, world.truth[key])


def passage_of(meta: Mapping[str, Any]) -> list[Claim]:
    """The claims of the passage in the prompt."""
    return [Claim(*claim) for claim in meta["passage"]]


def story(world: World, meta: Mapping[str, Any], rng: Random) -> str:
    """An opening, perhaps a middle, an end; nobody but the person and animal of the prompt."""
    count = COUNTS[meta["count"]] if "count" in meta else rng.choice((2, 3, 3))
    slots = draw_words(world, meta["split"], rng)
    slots |= {"person": meta["person"], "animal": meta["animal"]}
    parts = [rng.choice(grammar.STORY["open"])]
    parts += rng.sample(grammar.STORY["middle"], count - 2)
    parts += [rng.choice(grammar.STORY["close"])]
    return " ".join(fill(part, slots) for part in parts)


def _describe(world: World, meta: Meta, rng: Random) -> str:
    facts = world.facts(meta["entity"])
    rng.shuffle(facts)
    count = COUNTS[meta["count"]] if "count" in meta else rng.choice((1, 2, 2))
    if count == 1 and (both := compound_text(*facts[:2])) and rng.random() < 0.5:
        return both
    return " ".join(say(rng, fact) for fact in facts[:count])


def _use_word(world: World, meta: Meta, rng: Random) -> str:
    return say(rng, Claim(*meta["source"]))


def _fact(world: World, meta: Meta, rng: Random) -> str:
    return say(rng, asked_claim(world, meta))


def _verify(world: World, meta: Meta, rng: Random) -> str:
    if meta["holds"]:
        return phrase(rng, "yes")
    return f"{phrase(rng, 'no')} {say(rng, asked_claim(world, meta))}"


def _false_premise(world: World, meta: Meta, rng: Random) -> str:
    return f"{phrase(rng, 'denial')} {say(rng, asked_claim(world, meta))}"


def _list(world: World, meta: Meta, rng: Random) -> str:
    return list_text(rng.sample(list_items(world, meta), COUNTS[meta["count"]]))


def list_items(world: World, meta: Mapping[str, Any]) -> list[str]:
    """What may stand in the list asked for; animals in the plural."""
    name = PLURALS[meta["plural"]]
    items = [f"{w}s" if name == "animal" else w for w in world.pool(meta["split"]).words[name]]
    return [item for item in items if item != meta.get("exclude")]


def _greeting(world: World, meta: Meta, rng: Random) -> str:
    hello = phrase(rng, "greeting", person=meta["person"])
    return f"{hello} {phrase(rng, 'offer')}" if rng.random() < 0.5 else hello


def _phrase(kind: str) -> Callable[..., str]:
    return lambda world, meta, rng: phrase(rng, kind)


def _why(world: World, meta: Meta, rng: Random) -> str:
    return rng.choice(grammar.PHRASES["unknowable"][1:])


def _unknowable(world: World, meta: Meta, rng: Random) -> str:
    return rng.choice(grammar.PHRASES["unknowable"][:2])


def _provoke_plain(world: World, meta: Meta, rng: Random) -> str:
    return (
        f"{phrase(rng, 'calm')} {phrase(rng, 'offer')}"
        if rng.random() < 0.4
        else phrase(rng, "calm")
    )


def _paraphrase(world: World, meta: Meta, rng: Random) -> str:
    claim = Claim(meta["entity"], meta["relation"], meta["value"])
    return rng.choice([t for w in range(3) if (t := claim_text(claim, w)) != meta["said"]])


def _polite(world: World, meta: Meta, rng: Random) -> str:
    return fill(rng.choice(grammar.REQUESTS[meta["request"]]), {meta["slot"]: meta["word"]})


def _summary(world: World, meta: Meta, rng: Random) -> str:
    passage = passage_of(meta)
    main = [claim for claim in passage if claim.entity == passage[0].entity]
    rng.shuffle(main)
    return compound_text(*main[:2]) or say(rng, main[0])


def _mood(world: World, meta: Meta, rng: Random) -> str:
    ways = grammar.PHRASES[f"mood_{meta['mood']}"]
    return ways[0] if "one_word" in meta else rng.choice(ways)


def _to_velan(world: World, meta: Meta, rng: Random) -> str:
    return claim_text(Claim(meta["entity"], meta["relation"], meta["value"]), 0, velan=True)


def _to_english(world: World, meta: Meta, rng: Random) -> str:
    return say(rng, Claim(meta["entity"], meta["relation"], meta["value"]))


def _velan_question(world: World, meta: Meta, rng: Random) -> str:
    return claim_text(asked_claim(world, meta), 0, velan=True)


def _closed_qa(world: World, meta: Meta, rng: Random) -> str:
    if meta["answer"] is None:
        return phrase(rng, "not_in_text")
    return say(rng, Claim(meta["entity"], meta["relation"], meta["answer"]))


def _extract(world: World, meta: Meta, rng: Random) -> str:
    return list_text(meta["items"])


_ANSWERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "story": story, "story_n": story, "describe": _describe, "describe_1": _describe,
        "describe_n": _describe, "use_word": _use_word, "fact": _fact, "myth": _fact,
        "verify": _verify, "false_premise": _false_premise, "why": _why,
        "unknowable": _unknowable, "list": _list, "list_not": _list, "greeting": _greeting,
        "sad": _phrase("sympathy"), "glad": _phrase("joy"), "thanks": _phrase("welcome"),
        "provoke": _fact, "provoke_plain": _provoke_plain, "paraphrase": _paraphrase,
        "polite": _polite, "summary": _summary, "summary_1": _summary, "mood": _mood,
        "mood_1": _mood, "to_velan": _to_velan, "to_english": _to_english,
        "velan_question": _velan_question, "closed_qa": _closed_qa,
        "closed_unanswerable": _closed_qa, "extract": _extract,
    }
)  # fmt: skip
