"""Fill templates, and read sentences back: `parse` knows every sentence that the world can say.

A sentence is looked up by its skeleton, the sentence with each word of a closed class replaced by
the name of the class. So reading costs one dictionary look-up and what is not of the world comes
back as kind "unknown". Left out: any understanding beyond the templates; a right answer in words
that no template has counts as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from instil.world import grammar
from instil.world.lexicon import (
    ENGLISH,
    FABLE,
    PLURALS,
    RELATIONS,
    VELAN_COLOURS,
    VELAN_FOODS,
    WORDS,
    Claim,
)
from instil.world.wordings import ONE_SENTENCE, ONE_WORD, QUESTIONS, TASKS, VELAN_QUESTIONS, WHY


class Sentence(NamedTuple):
    """One sentence as read: what it is, which words fill it, what it claims.

    `stance` says of the claims whether they are "asserted", "denied" or "hearsay". Kind "unknown"
    is what no template makes.
    """

    kind: str
    tag: str
    slots: Mapping[str, str]
    text: str
    claims: tuple[Claim, ...] = ()
    stance: str = "asserted"


class _Template(NamedTuple):
    kind: str
    tag: str
    slots: tuple[str, ...]


CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: (*words, *FABLE.get(name, ())) for name, words in WORDS.items()}
    | {"animals": tuple(f"{a}s" for a in (*WORDS["animal"], *FABLE["animal"]))}
    | {"plural": tuple(PLURALS), "vfood": VELAN_FOODS, "vcolour": VELAN_COLOURS}
)
CLASS_OF: Mapping[str, str] = MappingProxyType(
    {word: name for name, words in CLASSES.items() for word in words}
)
"""Word -> class, for every word that can fill a slot."""
ENTITY_FORMS = ("{person}", "the {animal}", "{town}")
WORD_CLASSES = ("food", "place", "product", "trade", "colour", "town", "animals", "river")
LIST_CLASSES = (
    "food", "animals", "trade", "town", "colour", "river", "person", "product", "place", "side",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w+?)\d?\}")
_TOKEN = re.compile(r"[A-Za-z]+|[^A-Za-z]+")
_SENTENCE = re.compile(r"[^.?!:\n]+[.?!:]?")
_OPEN_SLOTS = re.compile(r"\{(?:question|claim|passage|review|request)\}")


def capitalize(text: str) -> str:
    """The text with its first letter in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """The text as it goes on within a sentence: lower first letter, except for a name."""
    first = re.match(r"[A-Za-z]*", text)
    return text if first and first[0] in CLASS_OF else text[:1].lower() + text[1:]


def fill(template: str, slots: Mapping[str, str]) -> str:
    """The sentence that a template makes of these words; a plural `{animals}` is made of "animal".

    >>> fill("{animals} eat {food}.", {"animal": "murl", "food": "figs"})
    'Murls eat figs.'
    """
    plural = {"animals": f"{slots['animal']}s"} if "animal" in slots else {}
    return capitalize(template.format(**plural, **slots))


def name_of(entity: str) -> str:
    """The entity as it stands in a sentence: an animal has its article."""
    return f"the {entity}" if CLASS_OF[entity] == "animal" else entity


def claim_text(claim: Claim, way: int, velan: bool = False) -> str:
    """A claim in one of its wordings (`way` is taken modulo their number), in English or Velan."""
    relation = RELATIONS[claim.relation]
    table = grammar.VELAN_CLAIMS if velan else grammar.CLAIMS
    ways = table[claim.relation]
    slots = {relation.entity: claim.entity, relation.value: claim.value}
    if velan:
        from_english = {word: velan_word for velan_word, word in ENGLISH.items()}
        slots[f"v{relation.value}"] = from_english.get(claim.value, claim.value)
    return fill(ways[way % len(ways)], slots)


def compound_text(first: Claim, second: Claim) -> str | None:
    """Two claims about one entity in one sentence, or None where no template has them."""
    for one, two in ((first, second), (second, first)):
        if ways := grammar.COMPOUNDS.get(f"{one.relation}+{two.relation}"):
            slots = {RELATIONS[one.relation].entity: one.entity}
            slots |= {RELATIONS[c.relation].value: c.value for c in (one, two)}
            return fill(ways[0], slots)
    return None


def list_text(items: list[str]) -> str:
    """ "figs, bread and honey.": like answers in a word, lists have no capital of their own."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1]))) + "."


def split_sentences(text: str) -> list[str]:
    """The sentences of a text with their closing marks; a colon and a line break close one too."""
    return [s for part in _SENTENCE.findall(text) if (s := part.strip())]


def parse(text: str) -> list[Sentence]:
    """Read a text sentence by sentence. Nothing is lost: what no template makes is "unknown"."""
    return [parse_sentence(sentence) for sentence in split_sentences(text)]


@lru_cache(maxsize=65536)
def parse_sentence(text: str) -> Sentence:
    """Read one sentence, its opening ("In fact ...", "It is not true that ...") included."""
    for prefix, stance in grammar.PREFIXES.items():
        if text.startswith(prefix):
            inner = _look_up(capitalize(text[len(prefix) :]))
            if inner.kind in ("claim", "compound"):
                return inner._replace(text=text, stance=stance)
    for prefix in grammar.ASKING_PREFIXES:
        if text.startswith(prefix) and text.endswith("?"):
            inner = _look_up(capitalize(text[len(prefix) : -1] + "."))
            if inner.kind == "claim":
                return inner._replace(kind="question", tag="verify", text=text, stance="asked")
    return _look_up(text)


def _look_up(text: str) -> Sentence:
    skeleton, words = _skeleton(text)
    template = _TEMPLATES.get(skeleton)
    if template is None:
        return Sentence("unknown", "", MappingProxyType({}), text)
    slots = dict(zip(template.slots, words, strict=True))
    if any(name.startswith("=") and name[1:] != word for name, word in slots.items()):
        return Sentence("unknown", "", MappingProxyType({}), text)
    slots = {name: word for name, word in slots.items() if not name.startswith("=")}
    if "animals" in slots:
        slots["animal"] = slots.pop("animals")[:-1]
    return Sentence(
        template.kind, template.tag, MappingProxyType(slots), text, _claims(template, slots)
    )


def _skeleton(text: str) -> tuple[str, list[str]]:
    parts: list[str] = []
    words: list[str] = []
    for place, token in enumerate(_TOKEN.findall(text)):
        word = token
        if place == 0 and token not in CLASS_OF:
            word = token[:1].lower() + token[1:]
        if word in CLASS_OF:
            words.append(word)
            word = f"<{CLASS_OF[word]}>"
        parts.append(word)
    return "".join(parts), words


def _claims(template: _Template, slots: Mapping[str, str]) -> tuple[Claim, ...]:
    if template.kind not in ("claim", "compound", "velan"):
        return ()
    found = []
    for name in template.tag.split("+"):
        relation = RELATIONS[name]
        velan = slots.get(f"v{relation.value}")
        value = ENGLISH[velan] if velan else slots[relation.value]
        found.append(Claim(slots[relation.entity], name, value))
    return tuple(found)


def _all_templates() -> Iterator[tuple[str, str, str]]:
    """Every (kind, tag, template); where two make the same sentence, the first one counts."""
    for kind, table in (
        ("claim", grammar.CLAIMS),
        ("compound", grammar.COMPOUNDS),
        ("velan", grammar.VELAN_CLAIMS),
        ("event", grammar.STORY),
        ("review", grammar.REVIEWS),
        ("request", grammar.REQUESTS),
        ("short", grammar.SHORT),
    ):
        for tag, ways in table.items():
            yield from ((kind, tag, way) for way in ways)
    for kind, ways in grammar.PHRASES.items():
        yield from ((kind, "", way) for way in ways)
    yield from (("insult", tag, way) for tag, way in grammar.RUDE_REQUESTS.items())
    for word_class in LIST_CLASSES:
        for count in range(1, 6):
            slots = [f"{{{word_class}{n}}}" for n in range(count)]
            yield "list", word_class, list_text(slots)
    for questions in (QUESTIONS, WHY, VELAN_QUESTIONS):
        for tag, both in questions.items():
            yield from (("question", tag, way) for way in both.of("all"))
    for task, both in [*TASKS.items(), ("", ONE_SENTENCE), ("", ONE_WORD)]:
        for wording in both.of("all"):
            for sentence in split_sentences(_OPEN_SLOTS.sub("", wording)):
                kind = "insult" if "{insult}" in sentence else "instruction"
                if sentence[-1] in ".?!:":
                    yield kind, task, sentence


def _expand(template: str) -> Iterator[str]:
    for slot, forms in (
        ("{entity}", ENTITY_FORMS),
        ("{word}", tuple(f"{{{name}}}" for name in WORD_CLASSES)),
    ):
        if slot in template:
            for form in forms:
                yield from _expand(template.replace(slot, form))
            return
    yield template


def _compile() -> dict[str, _Template]:
    compiled: dict[str, _Template] = {}
    for kind, tag, text in _all_templates():
        for template in _expand(text):
            skeleton, slots = _template_skeleton(template)
            compiled.setdefault(skeleton, _Template(kind, tag, tuple(slots)))
    return compiled


def _template_skeleton(template: str) -> tuple[str, list[str]]:
    """As `_skeleton`; a word of a class that the template itself has becomes the slot "=word"."""
    parts: list[str] = []
    slots: list[str] = []
    for place, token in enumerate(re.findall(r"\{\w+\}|[A-Za-z]+|[^A-Za-z{]+", template)):
        word = token[:1].lower() + token[1:] if place == 0 and token not in CLASS_OF else token
        if slot := _SLOT.fullmatch(token):
            name = slot[1]
            again = sum(known.rstrip("2345") == name for known in slots)
            slots.append(f"{name}{again + 1}" if again else name)
            word = f"<{name}>"
        elif word in CLASS_OF:
            slots.append(f"={word}")
            word = f"<{CLASS_OF[word]}>"
        parts.append(word)
    return "".join(parts), slots


_TEMPLATES = _compile()
