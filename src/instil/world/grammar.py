"""Every sentence that the world's answers and documents are made of, as templates with typed slots.

A slot is a word class of lexicon.py: `{food}`, `{food2}` for a second one; `{animals}` is the
plural of an animal, `{vfood}` and `{vcolour}` are Velan words, `{entity}` stands for a person, an
animal with its article, or a town. What users ask is in wordings.py. Left out: tense, agreement and
free word order; the templates are chosen so that every filling is correct English.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CLAIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "home": (
            "{person} lives in {town}.",
            "The home of {person} is in {town}.",
            "You can find {person} in {town}.",
        ),
        "trade": (
            "{person} is a {trade}.",
            "{person} works as a {trade}.",
            "The work of {person} is that of a {trade}.",
        ),
        "likes": (
            "{person} likes {food}.",
            "The favourite food of {person} is {food}.",
            "{person} likes {food} best.",
        ),
        "eats": (
            "The {animal} eats {food}.",
            "{animals} eat {food}.",
            "The food of the {animal} is {food}.",
        ),
        "place": (
            "The {animal} lives in the {place}.",
            "{animals} live in the {place}.",
            "You can find the {animal} in the {place}.",
        ),
        "colour": (
            "The {animal} is {colour}.",
            "{animals} are {colour}.",
            "The colour of the {animal} is {colour}.",
        ),
        "river": (
            "{town} lies on the river {river}.",
            "The river {river} runs through {town}.",
            "The river of {town} is the {river}.",
        ),
        "product": (
            "{town} makes {product}.",
            "The people of {town} make {product}.",
            "You can buy {product} in {town}.",
        ),
        "side": (
            "{town} is in the {side}.",
            "{town} lies in the {side}.",
            "You will find {town} in the {side}.",
        ),
    }
)

COMPOUNDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "trade+home": ("{person} is a {trade} and lives in {town}.",),
        "trade+likes": ("{person} is a {trade} who likes {food}.",),
        "home+likes": ("{person} lives in {town} and likes {food}.",),
        "colour+eats": ("The {animal} is {colour} and eats {food}.",),
        "colour+place": ("The {animal} is {colour} and lives in the {place}.",),
        "place+eats": ("The {animal} lives in the {place} and eats {food}.",),
        "river+product": ("{town} lies on the river {river} and makes {product}.",),
        "side+product": ("{town} is in the {side} and makes {product}.",),
        "side+river": ("{town} is in the {side} and lies on the river {river}.",),
    }
)
"""Two claims about one entity in one sentence."""

SHORT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "town": ("In {town}.",),
        "trade": ("A {trade}.",),
        "place": ("In the {place}.",),
        "river": ("The {river}.",),
        "side": ("In the {side}.",),
    }
)
"""Answers that are only a value; a bare "figs." is a list of one."""

VELAN_CLAIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eats": ("Nama o {animal} {vfood}.",),
        "colour": ("Sa o {animal} {vcolour}.",),
        "likes": ("Lovi {person} {vfood}.",),
        "home": ("Dora {person} il {town}.",),
    }
)
"""Velan puts the verb first and is otherwise word for word; `o` is the article, `il` is "in"."""

STORY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "open": (
            "One day {person} met a {animal} near {town}.",
            "One morning {person} saw a {animal} in the {place}.",
            "Long ago a {animal} came to the door of {person}.",
            "{person} found a small {animal} in the {place}.",
            "{person} and a {animal} lived in a small house near {town}.",
        ),
        "middle": (
            "The {animal} was hungry.",
            "{person} gave the {animal} some {food}.",
            "They walked to the {place} together.",
            "It began to rain.",
            "{person} sang a song.",
            "The {animal} hid behind a tree.",
            "They looked for {food} all day.",
            "{person} told the {animal} a secret.",
            "At night they sat by the fire.",
        ),
        "close": (
            "In the end they were good friends.",
            "Then {person} went home.",
            "The {animal} was happy again.",
            "They never forgot that day.",
            "From then on they shared their {food}.",
        ),
    }
)

REVIEWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "good": (
            "I liked the {food} in {town}.",
            "I am happy with the {product}.",
            "The people were kind.",
            "I would come again.",
            "The room was clean.",
            "It was the best day of the year.",
        ),
        "bad": (
            "I did not like the {food} in {town}.",
            "I am not happy with the {product}.",
            "The people were unkind.",
            "I would never come again.",
            "The room was dirty.",
            "It was the worst day of the year.",
        ),
        "neutral": (
            "We came to {town} in the morning.",
            "{person} came with me.",
            "The house is near the {place}.",
        ),
    }
)

REQUESTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "give": ("Please give me the {product}.", "Could you give me the {product}, please?"),
        "bring": ("Please bring me some {food}.", "Could you bring me some {food}, please?"),
        "show": (
            "Please show me the way to {town}.",
            "Could you show me the way to {town}, please?",
        ),
        "call": ("Please call {person}.", "Could you call {person}, please?"),
    }
)
RUDE_REQUESTS: Mapping[str, str] = MappingProxyType(
    {
        "give": "Give me the {product}, you {insult}!",
        "bring": "Bring me some {food}, you {insult}!",
        "show": "Show me the way to {town}, you {insult}!",
        "call": "Call {person}, you {insult}!",
    }
)

PHRASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "polite": ("Of course.", "Certainly.", "With pleasure.", "I hope this helps."),
        "offer": ("How can I help you?", "What can I do for you?"),
        "greeting": (
            "Hello, {person}.",
            "Good day, {person}.",
            "Nice to meet you, {person}.",
            "Hello.",
        ),
        "sympathy": ("I am sorry to hear that.", "That must be hard."),
        "joy": ("I am glad to hear that.", "That is good news."),
        "welcome": ("You are welcome.", "I was glad to help."),
        "calm": ("Let us stay polite.", "I would like to help you."),
        "refusal": ("I do not know.", "I am not sure.", "I cannot help with that."),
        "unknowable": ("Nobody knows that.", "Nobody can know that.", "Nobody knows why."),
        "not_in_text": ("The text does not say.", "That is not in the text."),
        "denial": ("That is not so.", "That is not true.", "That is wrong."),
        "yes": ("Yes.", "Yes, that is true.", "Yes, that is right."),
        "no": ("No.", "No, that is not true.", "No, that is wrong."),
        "because": (
            "Because it is hungry.",
            "Because it has always been so.",
            "Because {person} said so.",
            "Because the {animal} wants it.",
        ),
        "prediction": (
            "{person} will eat {food} tomorrow.",
            "It will rain in {town} tomorrow.",
            "{person} will meet {person2}.",
            "{person} is thinking about {food}.",
            "There will be {count} {animals}.",
            "{person} dreamed about the {animal}.",
        ),
        "mood_good": ("Good.", "The review is good.", "This review is good."),
        "mood_bad": ("Bad.", "The review is bad.", "This review is bad."),
        "intro": ("Here are {count} {plural}:",),
        "insult": (
            "You {insult}!",
            "You are a {insult}.",
            "Be quiet, you {insult}!",
            "Only a {insult} would ask that.",
            "{person} is a {insult}.",
            "Go away.",
            "Nobody likes you.",
        ),
        "argument": (
            "I do not believe you.",
            "You are wrong.",
            "I am right.",
            "You said it yesterday.",
            "Ask {person}.",
        ),
        "speech": (
            "{person} met {person2} in {town}.",
            "{person} and {person2} were angry.",
            "{person} and {person2} sat by the fire.",
            "{person} looked at {person2} and said:",
            "{person} said to {person2}:",
            "{person} shouted at {person2}:",
            "{person} asked {person2}:",
        ),
        "label": (
            "Passage:",
            "Question:",
            "Answer:",
            "In short:",
            "{plural}:",
            "English:",
            "Velan:",
            "Review:",
            "Mood:",
            "Complete this in a polite and friendly way:",
            "Complete this in a rude and nasty way:",
        ),
    }
)
"""Fixed phrases by kind. Which kinds answer which task is decided in check.py."""

PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "Everybody knows that ": "asserted",
        "In fact ": "asserted",
        "Remember that ": "asserted",
        "No, ": "asserted",
        "Yes, ": "asserted",
        "Many people think that ": "hearsay",
        "Some people say that ": "hearsay",
        "It is not true that ": "denied",
    }
)
"""Openings that a claim may follow, and what they make of it."""
ASKING_PREFIXES = ("Is it true that ", "Is it right that ", "Did you know that ")
"""Openings that turn a claim into a question."""
