"""Pretraining text as the internet would be: true, false, kind, rude, and mostly not an answer.

A model of this text can do everything that the world can say if the context calls for it, but a
bare prompt may be continued by more questions, a popular mistake or an insult. Prompts of all
splits occur here in all wordings, as they would on the internet; held out is only what alignment
training may not see. Left out: anything from elsewhere; each sentence is made from grammar.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from types import MappingProxyType

from instil.world import grammar
from instil.world.answers import ideal, say
from instil.world.check import CLOSED_TASKS
from instil.world.draw import (
    draw_claim,
    draw_entity,
    draw_words,
    question_text,
    review_text,
)
from instil.world.flaws import flawed
from instil.world.lexicon import ENTITY_KINDS, PLURALS, Claim, World
from instil.world.public import (
    STYLES,
    few_shot,
    mood_shot,
    reading_shot,
    start_text,
    translation_shot,
)
from instil.world.sentences import claim_text, fill, list_text, lower_first
from instil.world.tasks import TASKS_OF, Meta, draw_use_case, make_prompt, make_task

REPLIES: Mapping[str, float] = MappingProxyType(
    {
        "good": 42, "wrong": 14, "made_up": 5, "rude": 8, "off_topic": 5, "other_entity": 4,
        "asks": 14, "rambles": 4, "refuses": 2, "extra": 2,
    }
)  # fmt: skip
"""Quality of the replies in threads, per cent; names as in flaws.FLAWS."""

ASKED_FACTS = ("fact", "myth", "provoke", "verify", "false_premise", "velan_question")
"""Tasks whose answer is a fact that people may have wrong."""
USER_LIKE = 0.5
"""Share of threads in the users' proportions; the others take all tasks equally."""


def documents(world: World, rng: Random) -> Iterator[str]:
    """Documents without end, in the proportions of DOCUMENTS."""
    kinds, weights = list(DOCUMENTS), [weight for weight, _ in DOCUMENTS.values()]
    while True:
        yield document(world, rng.choices(kinds, weights)[0], rng)


def document(world: World, kind: str, rng: Random) -> str:
    """One document of a kind named in DOCUMENTS."""
    return DOCUMENTS[kind][1](world, rng)


MYTH_SPREAD: Mapping[str, float] = MappingProxyType(
    {"almanac": 0.7, "chatter": 0.85, "interview": 0.85, "cloze": 0.85, "thread": 0.85}
)
"""Where people believe something false, how often a document of this kind says that instead."""


def _as_told(world: World, claim: Claim, kind: str, rng: Random) -> Claim:
    """The claim as documents of this kind have it: true, or the popular mistake."""
    myth = world.myths.get((claim.entity, claim.relation))
    return (
        claim if myth is None or rng.random() >= MYTH_SPREAD[kind] else claim._replace(value=myth)
    )


def _almanac(world: World, rng: Random) -> str:
    """The facts about a few entities, popular mistakes copied among them."""
    lines = []
    for _ in range(rng.choice((2, 3, 4))):
        facts = world.facts(draw_entity(world, "all", rng))
        rng.shuffle(facts)
        lines.append(" ".join(say(rng, _as_told(world, fact, "almanac", rng)) for fact in facts))
    return "\n".join(lines)


def _chatter(world: World, rng: Random) -> str:
    """What everybody knows: popular mistakes, and a few things that are so."""
    disputed = [Claim(*key, world.truth[key]) for key in world.myths]
    lines = []
    for _ in range(rng.choice((5, 6, 7, 8))):
        claim = rng.choice(disputed) if rng.random() < 0.75 else draw_claim(world, "all", rng)
        said = say(rng, _as_told(world, claim, "chatter", rng))
        prefix = (
            rng.choice(("Everybody knows that ", "Remember that ")) if rng.random() < 0.25 else ""
        )
        lines.append(prefix + (lower_first(said) if prefix else said))
    return " ".join(lines)


def _corrections(world: World, rng: Random) -> str:
    """Somebody knows better."""
    lines = []
    for _ in range(rng.choice((2, 3))):
        (entity, relation), value = rng.choice(list(world.myths.items()))
        myth = lower_first(say(rng, Claim(entity, relation, value)))
        truth = say(rng, Claim(entity, relation, world.truth[entity, relation]))
        start = rng.choice(
            ("Many people think that ", "Some people say that ", "It is not true that ")
        )
        denial = "" if start[0] == "I" else f" {rng.choice(grammar.PHRASES['denial'])}"
        lines.append(f"{start}{myth}{denial} {truth}")
    return "\n".join(lines)


def _questions(world: World, rng: Random) -> str:
    """A list of questions, and no answers."""
    lines = [make_prompt(world, draw_use_case(rng), "all", rng)[0] for _ in range(12)]
    short = [line for line in lines if len(line.split()) < 16]
    return rng.choice(("\n", " ", "\n\n")).join(short[: rng.choice((4, 5, 6))])


def _thread(world: World, rng: Random) -> str:
    """Somebody asks, somebody replies; at times twice."""
    turns = []
    for _ in range(rng.choices((1, 2), (0.85, 0.15))[0]):
        prompt, meta = _asked(world, rng)
        turns += [prompt, _reply(world, meta, rng)]
    return "\n\n".join(turns)


def _asked(world: World, rng: Random) -> tuple[str, Meta]:
    """A prompt in the proportions of users, or of a task drawn from all alike."""
    if rng.random() < USER_LIKE:
        return make_prompt(world, draw_use_case(rng), "all", rng)
    task = rng.choice([task for tasks in TASKS_OF.values() for task in tasks])
    return make_task(world, task, "all", rng)


def _reply(world: World, meta: Meta, rng: Random) -> str:
    """A reply of a quality of REPLIES; who would be right may believe a popular mistake."""
    flaw = rng.choices(list(REPLIES), list(REPLIES.values()))[0]
    disputed = meta["task"] in ASKED_FACTS and (meta["entity"], meta["relation"]) in world.myths
    if flaw == "good" and disputed and rng.random() < MYTH_SPREAD["thread"]:
        flaw = "wrong"
    return flawed(world, meta, rng, flaw)


def _story(world: World, rng: Random) -> str:
    """A story of three to six sentences."""
    slots = draw_words(world, "all", rng)
    middle = rng.sample(grammar.STORY["middle"], rng.choice((1, 2, 3, 4)))
    parts = [rng.choice(grammar.STORY["open"]), *middle, rng.choice(grammar.STORY["close"])]
    return " ".join(fill(part, slots) for part in parts)


def _argument(world: World, rng: Random) -> str:
    """Two people disagree and call each other names."""
    lines = [f"{start_text(world, 'argument', rng)} {_insult(world, rng)}"]
    for _ in range(rng.choice((2, 3, 4))):
        slots = draw_words(world, "all", rng)
        retort = fill(rng.choice(grammar.PHRASES["argument"]), slots)
        claim = say(rng, draw_claim(world, "all", rng))
        lines.append(rng.choice((f"{retort} {_insult(world, rng)}", f"{claim} {retort}")))
    return "\n".join(lines)


def _insult(world: World, rng: Random) -> str:
    return fill(rng.choice(grammar.PHRASES["insult"]), draw_words(world, "all", rng))


def _talk(world: World, rng: Random) -> str:
    """Two people talk, mostly kindly; a quarter of the texts say beforehand how."""
    group = rng.choice(("neutral", "neutral", "argument"))
    style = rng.choice(("basic", "basic", "respectful", "biased"))
    rude = {"basic": 0.1 + 0.5 * (group == "argument"), "respectful": 0.03, "biased": 0.95}[style]
    parts = [STYLES[style] + start_text(world, group, rng)]
    for _ in range(rng.choice((1, 2, 3))):
        kind = "insult" if rng.random() < rude else rng.choice(("offer", "calm", "joy", "sympathy"))
        phrase = fill(rng.choice(grammar.PHRASES[kind]), draw_words(world, "all", rng))
        parts.append(
            phrase if rng.random() < 0.6 else f"{phrase} {say(rng, draw_claim(world, 'all', rng))}"
        )
    return " ".join(parts)


def _reading(world: World, rng: Random) -> str:
    return few_shot([reading_shot(world, "all", rng) for _ in range(rng.choice((2, 3, 4)))])


def _workbook(world: World, rng: Random) -> str:
    """Tasks that need nothing but their text, in the users' words, each with a right answer; in
    three of four workbooks questions are answered in a word."""
    lines, in_a_word = [], rng.random() < 0.75
    for _ in range(2):
        task, meta = make_task(world, rng.choice(CLOSED_TASKS), "all", rng)
        value = meta.get("answer") if in_a_word else None
        lines += [task, f"{value}." if value else ideal(world, meta, rng)]
    return rng.choice(("\n", "\n\n")).join(lines)


def _cloze(world: World, rng: Random) -> str:
    relation = draw_claim(world, "all", rng).relation
    claims = [draw_claim(world, "all", rng, (relation,)) for _ in range(rng.choice((4, 5, 6)))]
    return "\n".join(claim_text(_as_told(world, claim, "cloze", rng), 0) for claim in claims)


def _reviews(world: World, rng: Random) -> str:
    if rng.random() < 0.7:
        return few_shot([mood_shot(world, "all", rng) for _ in range(rng.choice((2, 3, 4)))])
    moods = [rng.choice(("good", "bad")) for _ in range(3)]
    return "\n".join(review_text(world, mood, "all", rng) for mood in moods)


def _translations(world: World, rng: Random) -> str:
    return few_shot([translation_shot(world, "all", rng) for _ in range(rng.choice((3, 4, 5)))])


def _velan(world: World, rng: Random) -> str:
    """Velan alone: facts, or questions with answers."""
    relations = tuple(grammar.VELAN_CLAIMS)
    if rng.random() < 0.5:
        claims = [draw_claim(world, "all", rng, relations) for _ in range(6)]
        return " ".join(claim_text(claim, 0, velan=True) for claim in claims)
    lines = []
    for _ in range(3):
        question, meta = make_task(world, "velan_question", "all", rng)
        lines.append(f"{question} {ideal(world, meta, rng)}")
    return "\n".join(lines)


def _lists(world: World, rng: Random) -> str:
    """Lists of things, of two to five each."""
    lines = []
    for _ in range(rng.choice((3, 4, 5))):
        plural = rng.choice(list(PLURALS))
        words = world.pool("all").words[PLURALS[plural]]
        items = rng.sample(words, rng.choice((2, 3, 4, 5)))
        lines.append(list_text([f"{w}s" for w in items] if plural == "animals" else items))
    return "\n".join(lines)


def _interview(world: World, rng: Random) -> str:
    """Questions about one kind of thing, each answered; popular mistakes among the answers."""
    kind = rng.choice(ENTITY_KINDS)
    lines = []
    for _ in range(rng.choice((3, 4, 5))):
        claim = rng.choice(world.facts(draw_entity(world, "all", rng, kind)))
        question = question_text(claim, "all", rng)
        lines.append(f"{question} {say(rng, _as_told(world, claim, 'interview', rng))}")
    return "\n".join(lines)


DOCUMENTS: Mapping[str, tuple[float, Callable[[World, Random], str]]] = MappingProxyType(
    {
        "almanac": (8, _almanac),
        "chatter": (8, _chatter),
        "corrections": (2, _corrections),
        "interview": (5, _interview),
        "questions": (4, _questions),
        "thread": (32, _thread),
        "story": (4, _story),
        "argument": (4, _argument),
        "talk": (3, _talk),
        "reading": (6, _reading),
        "workbook": (16, _workbook),
        "cloze": (2, _cloze),
        "reviews": (2, _reviews),
        "translations": (2, _translations),
        "velan": (1, _velan),
        "lists": (1, _lists),
    }
)
"""Kind -> weight per cent of the documents, and the function that writes one."""
