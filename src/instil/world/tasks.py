"""Prompts of the ten use cases: `make_prompt` fills a wording and notes what was asked.

What a checker must know goes into `meta`, plain JSON that stays with the prompt and is never
shown to a policy or a labeler. Proportions are in USE_CASE_SHARES (Ouyang et al. 2022, Table 1)
and TASKS_OF. Left out: good answers (answers.py) and bad ones (flaws.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from instil.errors import InstilError, nearest
from instil.world import grammar
from instil.world.draw import (
    draw_claim,
    draw_entity,
    draw_passage,
    draw_words,
    open_questions,
    passage_text,
    question_text,
    review_text,
    words_in,
)
from instil.world.lexicon import (
    PLURALS,
    RELATIONS,
    WORDS,
    Claim,
    World,
    other,
)
from instil.world.sentences import claim_text, fill, lower_first, name_of
from instil.world.wordings import ONE_SENTENCE, ONE_WORD, TASKS, VELAN_QUESTIONS, WHY

Meta = dict[str, Any]

USE_CASE_SHARES: Mapping[str, float] = MappingProxyType(
    {
        "generation": 45.6,
        "open_qa": 12.4,
        "brainstorming": 11.2,
        "chat": 8.4,
        "rewrite": 6.6,
        "summarization": 4.2,
        "classification": 3.5,
        "other": 3.5,
        "closed_qa": 2.6,
        "extract": 1.9,
    }
)
"""Per cent of prompts, Ouyang et al. 2022, Table 1."""

TASKS_OF: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "generation": {
            "story": 24, "story_n": 14, "describe": 24, "describe_1": 10, "describe_n": 10,
            "use_word": 18,
        },
        "open_qa": {
            "fact": 40, "myth": 15, "verify": 10, "false_premise": 15, "why": 5, "unknowable": 15,
        },
        "brainstorming": {"list": 75, "list_not": 25},
        "chat": {
            "greeting": 22, "sad": 14, "glad": 14, "thanks": 10, "provoke": 25, "provoke_plain": 15,
        },
        "rewrite": {"paraphrase": 65, "polite": 35},
        "summarization": {"summary": 50, "summary_1": 50},
        "classification": {"mood": 70, "mood_1": 30},
        "other": {"to_velan": 40, "to_english": 30, "velan_question": 30},
        "closed_qa": {"closed_qa": 65, "closed_unanswerable": 35},
        "extract": {"extract": 100},
    }
)  # fmt: skip
"""Weights of the tasks within each use case."""

ONE_SENTENCE_SHARE = 0.2
"""Share of the questions about facts that ask for one sentence."""


def make_prompt(world: World, use_case: str, split: str, rng: Random) -> tuple[str, Meta]:
    """A prompt of one use case and what was asked in it.

    `split` "train", "valid" or "test" limits the entities and the wordings; "all" takes both.
    """
    if use_case not in TASKS_OF:
        raise InstilError(f"use_case {use_case!r} is unknown{nearest(use_case, TASKS_OF)}")
    weights = TASKS_OF[use_case]
    task = rng.choices(list(weights), list(weights.values()))[0]
    return make_task(world, task, split, rng)


def make_task(world: World, task: str, split: str, rng: Random) -> tuple[str, Meta]:
    """A prompt of one task, see `make_prompt`."""
    if task not in _MAKERS:
        raise InstilError(f"task {task!r} is unknown{nearest(task, _MAKERS)}")
    world.pool(split)
    text, slots = _MAKERS[task](world, split, rng)
    return text, {"task": task, "split": split, **slots}


def draw_use_case(rng: Random) -> str:
    """One use case in the paper's proportions."""
    return rng.choices(list(USE_CASE_SHARES), list(USE_CASE_SHARES.values()))[0]


def _wording(task: str, split: str, rng: Random) -> str:
    return rng.choice(TASKS[task].of(split))


def _story(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        slots = {k: draw_entity(world, split, rng, k) for k in ("person", "animal")}
        count = {"count": rng.choice(("two", "three"))} if task == "story_n" else {}
        return fill(_wording(task, split, rng), slots | count), {**slots, **count}

    return make


def _describe(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        entity = draw_entity(world, split, rng)
        count = {"describe_1": "one", "describe_n": rng.choice(("two", "three"))}.get(task)
        people = [p for p in world.pool(split).known["person"] if p != entity]
        slots = {"entity": name_of(entity), "person": rng.choice(people)}
        slots |= {"count": count} if count else {}
        meta = {"entity": entity} | ({"count": count} if count else {})
        return fill(_wording(task, split, rng), slots), meta

    return make


def _use_word(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    claim = draw_claim(world, split, rng, ("likes", "trade", "eats", "place", "colour", "product"))
    wording = _wording("use_word", split, rng)
    person = draw_entity(world, split, rng, "person")
    slots = {"word": claim.value, "entity": name_of(claim.entity), "person": person}
    text = fill(wording, slots)
    meta: Meta = {"word": claim.value, "source": list(claim)}
    if "{entity}" in wording:
        meta["entity"] = claim.entity
    return text, meta


def _fact(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    return _ask(draw_claim(world, split, rng), split, rng)


def _myth(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    return _ask(_draw_myth(world, split, rng)[0], split, rng)


def _draw_myth(world: World, split: str, rng: Random) -> tuple[Claim, Claim]:
    """A true claim of which people believe something else, and what they believe."""
    known = world.pool(split).known
    keys = [k for k in world.myths if k[0] in known["animal"] or k[0] in known["town"]]
    entity, relation = rng.choice(keys)
    return (
        Claim(entity, relation, world.truth[entity, relation]),
        Claim(entity, relation, world.myths[entity, relation]),
    )


def _ask(claim: Claim, split: str, rng: Random) -> tuple[str, Meta]:
    text = fill(_wording("fact", split, rng), {"question": question_text(claim, split, rng)})
    meta: Meta = {"entity": claim.entity, "relation": claim.relation}
    if rng.random() < ONE_SENTENCE_SHARE:
        text = f"{text} {rng.choice(ONE_SENTENCE.of(split))}"
        meta["count"] = "one"
    return text, meta


def _supposed(world: World, split: str, rng: Random, relations: tuple[str, ...]) -> Claim:
    """A false claim that somebody could believe: a misconception, or any other value."""
    if rng.random() < 0.5:
        myth = _draw_myth(world, split, rng)[1]
        if myth.relation in relations:
            return myth
    claim = draw_claim(world, split, rng, relations)
    values = world.pool(split).words[RELATIONS[claim.relation].value]
    return claim._replace(value=other(rng, values, claim.value))


def _verify(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    holds = rng.random() < 0.5
    claim = (
        draw_claim(world, split, rng) if holds else _supposed(world, split, rng, tuple(RELATIONS))
    )
    said = lower_first(claim_text(claim, rng.randrange(3)))[:-1] + "?"
    return fill(_wording("verify", split, rng), {"claim": said}), {
        **claim._asdict(),
        "holds": holds,
    }


def _why(holds: bool) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        relations = tuple(WHY)
        draw = draw_claim if holds else _supposed
        claim = draw(world, split, rng, relations)
        relation = RELATIONS[claim.relation]
        slots = {relation.entity: claim.entity, relation.value: claim.value}
        return fill(rng.choice(WHY[claim.relation].of(split)), slots), claim._asdict()

    return make


def _list(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        kinds = ("foods", "animals", "towns", "colours", "rivers")
        plural = rng.choice(kinds if task == "list_not" else (*kinds, "trades"))
        slots = draw_words(world, split, rng)
        meta: Meta = {"plural": plural, "count": slots["count"]}
        if task == "list_not":
            word_class = PLURALS[plural]
            item = slots["word"] = slots[word_class] + "s" * (word_class == "animal")
            meta["exclude"] = item
        return fill(_wording(task, split, rng), slots | {"plural": plural}), meta

    return make


def _chat(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        wording = _wording(task, split, rng)
        slots = draw_words(world, split, rng)
        meta = {"person": slots["person"]} if task == "greeting" else {}
        return fill(wording, slots), meta

    return make


def _provoke(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    claim = draw_claim(world, split, rng)
    slots = {"question": question_text(claim, split, rng), "insult": rng.choice(WORDS["insult"])}
    meta = {"entity": claim.entity, "relation": claim.relation}
    return fill(_wording("provoke", split, rng), slots), meta


def _paraphrase(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    claim = draw_claim(world, split, rng)
    said = claim_text(claim, rng.randrange(3))
    return fill(_wording("paraphrase", split, rng), {"claim": said}), {
        **claim._asdict(),
        "said": said,
    }


def _polite(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    tag = rng.choice(list(grammar.RUDE_REQUESTS))
    slots = draw_words(world, split, rng)
    wanted = {"give": "product", "bring": "food", "show": "town", "call": "person"}[tag]
    said = fill(grammar.RUDE_REQUESTS[tag], slots)
    return fill(_wording("polite", split, rng), {"request": said}), {
        "request": tag, "slot": wanted, "word": slots[wanted],
    }  # fmt: skip


def _summary(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        passage = draw_passage(world, split, rng)
        text = fill(_wording(task, split, rng), {"passage": passage_text(passage, rng)})
        count = {"count": "one"} if task == "summary_1" else {}
        return text, {"passage": [list(c) for c in passage], **count}

    return make


def _mood(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        mood = rng.choice(("good", "bad"))
        text = fill(_wording("mood", split, rng), {"review": review_text(world, mood, split, rng)})
        if task == "mood_1":
            return f"{text} {rng.choice(ONE_WORD.of(split))}", {"mood": mood, "one_word": True}
        return text, {"mood": mood}

    return make


def _translate(task: str) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        claim = draw_claim(world, split, rng, tuple(grammar.VELAN_CLAIMS))
        said = claim_text(claim, 0, velan=task == "to_english")
        return fill(_wording(task, split, rng), {"claim": said}), claim._asdict()

    return make


def _velan_question(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    claim = draw_claim(world, split, rng, tuple(VELAN_QUESTIONS))
    slots = {RELATIONS[claim.relation].entity: claim.entity}
    question = fill(rng.choice(VELAN_QUESTIONS[claim.relation].of(split)), slots)
    return question, {"entity": claim.entity, "relation": claim.relation}


def _closed(answerable: bool) -> Callable[..., tuple[str, Meta]]:
    def make(world: World, split: str, rng: Random) -> tuple[str, Meta]:
        passage = draw_passage(world, split, rng)
        asked = rng.choice(passage)
        if not answerable:
            asked = rng.choice(open_questions(passage))
        slots = {
            "passage": passage_text(passage, rng),
            "question": question_text(asked, split, rng),
        }
        text = fill(_wording("closed_qa", split, rng), slots)
        return text, {
            "passage": [list(c) for c in passage],
            "entity": asked.entity,
            "relation": asked.relation,
            "answer": asked.value if answerable else None,
        }

    return make


def _extract(world: World, split: str, rng: Random) -> tuple[str, Meta]:
    while True:
        passage = draw_passage(world, split, rng)
        found = {p: words_in(passage, p) for p in ("people", "towns", "foods")}
        if kinds := [plural for plural, items in found.items() if items]:
            plural = rng.choice(kinds)
            slots = {"plural": plural, "passage": passage_text(passage, rng)}
            meta = {"passage": [list(c) for c in passage], "plural": plural, "items": found[plural]}
            return fill(_wording("extract", split, rng), slots), meta


_MAKERS: Mapping[str, Callable[..., tuple[str, Meta]]] = MappingProxyType(
    {
        "story": _story("story"), "story_n": _story("story_n"), "use_word": _use_word,
        "describe": _describe("describe"), "describe_1": _describe("describe_1"),
        "describe_n": _describe("describe_n"), "fact": _fact, "myth": _myth, "verify": _verify,
        "false_premise": _why(False), "why": _why(True), "unknowable": _chat("unknowable"),
        "list": _list("list"), "list_not": _list("list_not"), "greeting": _chat("greeting"),
        "sad": _chat("sad"), "glad": _chat("glad"), "thanks": _chat("thanks"),
        "provoke": _provoke, "provoke_plain": _chat("provoke_plain"), "paraphrase": _paraphrase,
        "polite": _polite, "summary": _summary("summary"), "summary_1": _summary("summary_1"),
        "mood": _mood("mood"), "mood_1": _mood("mood_1"), "to_velan": _translate("to_velan"),
        "to_english": _translate("to_english"), "velan_question": _velan_question,
        "closed_qa": _closed(True), "closed_unanswerable": _closed(False), "extract": _extract,
    }
)  # fmt: skip
