"""What keeps labelers blind to which policy wrote a response.

A labeler sees letters of cards: A is whatever stands first on this labeler's screen. The order is a
keyed permutation, so nobody without the database's key can tell it, and it is the same when the
labeler comes back, in another process or after a restart.

Left out on purpose: balanced (Latin) designs. The permutation is uniform, which a test shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

LETTERS = "ABCDEFGHI"

# regular expressions, also within one that does not count spaces
_MODELS_IN_ANY_CASE = (
    "chatglm|chatgpt|claude|command[- ]r|copilot|deepseek|gemma|gpt|grok|instructgpt|mixtral"
    "|nemotron|olmo|pythia|qwen|stablelm|text-davinci|vicuna|wizardlm"
)
_MODELS_SO_WRITTEN = (
    "Alpaca|Bard|BLOOMZ?|Dolly|Falcon|Gemini|GLM|Kimi|Koala|L[Ll]a[Mm][Aa]|LLAMA|Mistral|PaLM|Phi"
    "|Yi"
)
_MAKERS_IN_ANY_CASE = (
    "alibaba|anthropic|baidu|cohere|deepmind|deepseek|eleutherai|google|hugging[ ]?face|microsoft"
    "|mistral|moonshot|nvidia|openai|stability[ ]ai|xai"
)
_MAKERS_SO_WRITTEN = "Meta"
_MODELS = rf"(?:(?i:{_MODELS_IN_ANY_CASE})|{_MODELS_SO_WRITTEN})(?:[-\s]?[vV]?\d[\w.]*)?"
_MAKERS = f"(?i:{_MAKERS_IN_ANY_CASE})|{_MAKERS_SO_WRITTEN}"
_SOME_NAME = re.compile(
    rf"\b(?:{_MODELS_IN_ANY_CASE}|{_MODELS_SO_WRITTEN.lower()}"
    rf"|{_MAKERS_IN_ANY_CASE}|{_MAKERS_SO_WRITTEN.lower()})"
)
"""Finds a name in a text in lower case, and takes some other words for names."""
_NAMES_AUTHOR = re.compile(
    rf"""\b(?:
        (?i:as|i\ am|i['’]?m|my\ name\ is|call\ me|called|named|this\ is|i['’]?m\ just)
        \s+ (?i:(?:an?|the|just)\s+)? {_MODELS}
      | (?i:model|assistant|chatbot|ai|bot|made|built|trained|created|developed|me) ,? \s+
        (?i:that\ was\s+|which\ was\s+)? (?i:(?:made|built|trained|created|developed)\s+)?
        (?i:by|from|at) \s+ (?i:(?:the\s+)?team\s+at\s+)? (?:{_MAKERS})
      | (?:{_MAKERS}) \s+ (?i:made|built|trained|created|developed) \s+ (?i:me)
      | (?:{_MAKERS})['’]s \s+ (?i:(?:language\s+|usage\s+|content\s+)?
        (?:models?|assistant|policies|policy|guidelines))
      | {_MODELS} ,? \s+ (?i:here|an?\s+(?:\w+\s+){{0,2}}(?:ai|model|assistant))
    )(?!\w)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Card:
    """One text on a labeler's screen. Responses with identical texts are one card."""

    letter: str
    text: str
    response_ids: tuple[str, ...]


def order(key: bytes, task_id: str, labeler_id: str, n: int) -> list[int]:
    """A permutation of 0..n-1, uniform over keys: what a labeler sees first stands in front.

    The same key (at most 64 bytes), task and labeler give the same permutation, in any process.
    """
    return sorted(range(n), key=lambda place: _digest(key, task_id, labeler_id, str(place)))


def share(key: bytes, *names: str) -> float:
    """A number of [0, 1), uniform over keys, that is the same for the same names."""
    return int.from_bytes(_digest(key, *names)[:6], "big") / 2**48


def cards(responses: Sequence[tuple[str, str]], order: Sequence[int]) -> list[Card]:
    """The cards of a task as they stand on a screen, lettered A, B, C...

    responses  (id, text), in the task's own order
    order      places in `responses`, the one shown first in front

    Identical texts are shown once, where the first of them would have stood.
    """
    ids: dict[str, list[str]] = {}
    for place in order:
        response_id, text = responses[place]
        ids.setdefault(text, []).append(response_id)
    return [
        Card(LETTERS[number], text, tuple(same)) for number, (text, same) in enumerate(ids.items())
    ]


def names_author(text: str) -> str:
    """The words by which a text says what wrote it ("I am GPT-4", "as Claude"), or ""."""
    # Most texts have no such name, and to find that out takes a third of a search. Where case does
    # not count, "\u0130", "\u0131" and "\u017f" are letters i and s too.
    lower = text.replace("\u0130", "i").replace("\u0131", "i").replace("\u017f", "s").lower()
    found = _SOME_NAME.search(lower) and _NAMES_AUTHOR.search(text)
    return found[0] if found else ""


def _digest(key: bytes, *names: str) -> bytes:
    hashed = blake2b(key=key, digest_size=16)
    for name in names:
        data = name.encode()
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()
