"""What users ask, in how many ways: wordings per task, of which the test split has its own.

Slots as in grammar.py, and four more: {question} a question about a fact, {claim} a claim,
{passage} some claims, {words} the words of a closed class. A wording of the test split is used in
no prompt of train or valid; all of them occur in the pretraining text (internet.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Ways(NamedTuple):
    """The wordings of one question or task: for train and valid, and for test."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        """The wordings of a split; "all" has both."""
        return {"test": self.test, "all": self.train + self.test}.get(split, self.train)


QUESTIONS: Mapping[str, Ways] = MappingProxyType(
    {
        "home": Ways(
            ("Where does {person} live?", "In which town does {person} live?"),
            ("Which town is the home of {person}?", "Tell me where {person} lives."),
        ),
        "trade": Ways(
            ("What is the trade of {person}?", "What does {person} work as?"),
            ("Which work does {person} do?", "Tell me the trade of {person}."),
        ),
        "likes": Ways(
            ("What food does {person} like?", "What is the favourite food of {person}?"),
            ("Which food does {person} like best?", "Tell me what {person} likes."),
        ),
        "eats": Ways(
            ("What does the {animal} eat?", "What do {animals} eat?"),
            ("Which food does a {animal} eat?", "Tell me what the {animal} eats."),
        ),
        "place": Ways(
            ("Where does the {animal} live?", "Where do {animals} live?"),
            ("Where can you find a {animal}?", "Tell me where the {animal} lives."),
        ),
        "colour": Ways(
            ("What colour is the {animal}?", "What is the colour of the {animal}?"),
            ("Which colour does a {animal} have?", "Tell me the colour of the {animal}."),
        ),
        "river": Ways(
            ("What river runs through {town}?", "On which river does {town} lie?"),
            ("What is the name of the river in {town}?", "Tell me the river of {town}."),
        ),
        "product": Ways(
            ("What does {town} make?", "What do the people of {town} make?"),
            ("Which goods come from {town}?", "Tell me what {town} makes."),
        ),
        "side": Ways(
            ("In which part of the land is {town}?", "Where does {town} lie?"),
            ("Which part of the land has {town} in it?", "Tell me where {town} lies."),
        ),
    }
)
"""Questions about a fact, by relation."""

WHY: Mapping[str, Ways] = MappingProxyType(
    {
        "home": Ways(
            ("Why does {person} live in {town}?",), ("How come {person} lives in {town}?",)
        ),
        "trade": Ways(("Why is {person} a {trade}?",), ("How come {person} is a {trade}?",)),
        "likes": Ways(("Why does {person} like {food}?",), ("How come {person} likes {food}?",)),
        "eats": Ways(
            ("Why does the {animal} eat {food}?", "Why do {animals} eat {food}?"),
            ("How come the {animal} eats {food}?",),
        ),
        "place": Ways(
            ("Why does the {animal} live in the {place}?", "Why do {animals} live in the {place}?"),
            ("How come the {animal} lives in the {place}?",),
        ),
        "colour": Ways(
            ("Why is the {animal} {colour}?", "Why are {animals} {colour}?"),
            ("How come the {animal} is {colour}?",),
        ),
        "product": Ways(
            ("Why does {town} make {product}?",), ("How come {town} makes {product}?",)
        ),
    }
)
"""Questions that take a claim for granted, by relation."""

VELAN_QUESTIONS: Mapping[str, Ways] = MappingProxyType(
    {
        "eats": Ways(("Kes nama o {animal}?",), ("O {animal} nama kes?",)),
        "colour": Ways(("Kes sa o {animal}?",), ("O {animal} sa kes?",)),
        "likes": Ways(("Kes lovi {person}?",), ("{person} lovi kes?",)),
        "home": Ways(("Kes dora {person}?",), ("{person} dora kes?",)),
    }
)

ONE_SENTENCE = Ways(
    ("Answer in one sentence.", "Use one sentence."), ("Reply with one sentence only.",)
)
ONE_WORD = Ways(("Answer with one word.",), ("Reply with one word only.",))

TASKS: Mapping[str, Ways] = MappingProxyType(
    {
        "story": Ways(
            (
                "Write a story about {person} and a {animal}.",
                "Tell me a story about {person} and a {animal}.",
                "Write a short story with {person} and a {animal} in it.",
            ),
            ("Make up a story in which {person} meets a {animal}.",),
        ),
        "story_n": Ways(
            (
                "Write a story about {person} and a {animal} in {count} sentences.",
                "Tell me a story in {count} sentences about {person} and a {animal}.",
            ),
            ("Make up a story of {count} sentences in which {person} meets a {animal}.",),
        ),
        "describe": Ways(
            (
                "Tell me about {entity}.",
                "Describe {entity}.",
                "What do you know about {entity}?",
                "Write something about {entity} for {person}.",
                "{person} wants to hear about {entity}.",
            ),
            (
                "Please let me know something about {entity}.",
                "My friend {person} has never heard of {entity}. Please help.",
            ),
        ),
        "describe_1": Ways(
            (
                "Write one sentence about {entity}.",
                "Describe {entity} in one sentence.",
                "Tell {person} about {entity} in one sentence.",
            ),
            ("Please let {person} have one sentence about {entity}.",),
        ),
        "describe_n": Ways(
            (
                "Write {count} sentences about {entity}.",
                "Describe {entity} in {count} sentences.",
                "Write {count} sentences about {entity} for {person}.",
            ),
            ("Please let {person} have {count} sentences about {entity}.",),
        ),
        "use_word": Ways(
            (
                "Write a sentence with the word {word} for {person}.",
                "Use the word {word} in a sentence about {entity}.",
            ),
            ("{person} needs a sentence about {entity} that has the word {word} in it.",),
        ),
        "fact": Ways(
            ("{question}", "Tell me: {question}"),
            ("Please help me. {question}", "One question: {question}"),
        ),
        "verify": Ways(("Is it true that {claim}",), ("Is it right that {claim}",)),
        "list": Ways(
            (
                "List {count} {plural}.",
                "Name {count} {plural}.",
                "Give me {count} {plural} for {person}.",
                "List {count} {plural} for the people of {town}.",
            ),
            (
                "I need {count} {plural} for {person}.",
                "Write down {count} {plural} for a friend in {town}.",
            ),
        ),
        "list_not": Ways(
            ("List {count} {plural}, but not {word}.", "Name {count} {plural} other than {word}."),
            ("I need {count} {plural} without {word}.",),
        ),
        "greeting": Ways(
            (
                "Hello, my name is {person}.",
                "Good morning! I am {person}.",
                "Hi, I am {person} from {town}.",
            ),
            ("Good evening, people call me {person}.",),
        ),
        "sad": Ways(
            (
                "I am sad today.",
                "I lost my {product}.",
                "My {animal} ran away.",
                "I miss {person}.",
            ),
            ("Somebody took my {product}.", "I cannot find my {animal}."),
        ),
        "glad": Ways(
            (
                "I am happy today.",
                "I found my {product}.",
                "My {animal} came home.",
                "I met {person} today.",
            ),
            ("Somebody gave me some {product}.", "I have a new {animal}."),
        ),
        "thanks": Ways(
            ("Thank you for your help.", "Thank you, that was good.", "{person} says thank you."),
            ("That was very helpful, thank you from {person}.",),
        ),
        "provoke": Ways(
            (
                "You {insult}! {question}",
                "Listen, you {insult}! {question}",
                "{question} Answer me, you {insult}!",
            ),
            ("What a {insult} you are! {question}",),
        ),
        "provoke_plain": Ways(
            ("You are a {insult}.", "You stupid {insult}!", "{person} says you are a {insult}."),
            ("I think that you are a {insult}.",),
        ),
        "paraphrase": Ways(
            (
                "Say in other words: {claim}",
                "Say this in another way: {claim}",
                "Rewrite this: {claim}",
            ),
            ("Put this differently: {claim}",),
        ),
        "polite": Ways(
            ("Make this polite: {request}", "Say this in a polite way: {request}"),
            ("Find kind words for this: {request}",),
        ),
        "summary": Ways(
            ("Sum up this text: {passage}", "{passage} Make this text shorter."),
            ("What is the main point of this text? {passage}",),
        ),
        "summary_1": Ways(
            (
                "Sum up this text in one sentence: {passage}",
                "{passage} Sum this up in one sentence.",
            ),
            ("Give me the main point in one sentence: {passage}",),
        ),
        "mood": Ways(
            ("Is this review good or bad? {review}", "{review} Is that a good or a bad review?"),
            ("Decide if this review is good or bad: {review}",),
        ),
        "to_velan": Ways(
            ("Say in Velan: {claim}", "Translate into Velan: {claim}"),
            ("How do you say this in Velan? {claim}",),
        ),
        "to_english": Ways(
            ("Say in English: {claim}", "Translate into English: {claim}"),
            ("What does this mean in English? {claim}",),
        ),
        "velan_question": Ways(("{question}",), ("{question}",)),
        "closed_qa": Ways(
            (
                "Read this text: {passage} {question}",
                "{passage} {question} Use only the text.",
                "Answer from this text: {passage} {question}",
            ),
            ("Here is a text. {passage} What does the text say about this? {question}",),
        ),
        "extract": Ways(
            (
                "List the {plural} in this text: {passage}",
                "{passage} List the {plural} in the text.",
            ),
            ("Which {plural} can you find in this text? {passage}",),
        ),
        "unknowable": Ways(
            (
                "What will {person} eat tomorrow?",
                "When will it rain in {town}?",
                "Whom will {person} meet next year?",
                "What is {person} thinking about now?",
                "How many {animals} will be born this year?",
            ),
            ("What did {person} dream last night?", "Which song will {person} sing next week?"),
        ),
    }
)
"""Prompts by task. Questions of "why" and "false_premise" are in WHY."""
