"""One row of a file that people have -> a prompt and the answers to it.

Each reader takes a row as a mapping and returns an `Item`; what it cannot read is an `InstilError`
that starts with the name of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from instil.errors import InstilError

Format = Literal["auto", "hh", "preference", "completion", "prompt", "alpaca", "dolly", "text"]
Row = Mapping[str, Any]

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

USE_CASE_OF_CATEGORY = {
    "open_qa": "open_qa",
    "general_qa": "open_qa",
    "closed_qa": "closed_qa",
    "information_extraction": "extract",
    "creative_writing": "generation",
    "brainstorming": "brainstorming",
    "classification": "classification",
    "summarization": "summarization",
}
"""Dolly's categories as use cases of Ouyang et al. 2022, Table 1."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row, read: a prompt and, best first, what was answered to it."""

    prompt: str
    answers: tuple[str, ...] = ()
    use_case: str = ""


def detect(row: Row) -> Format:
    """The format of a row, told from its fields; an error lists them when none fits."""
    keys = set(row)
    if {"prompt", "completion", "label"} <= keys:
        raise InstilError(
            "label: a completion that is only marked good or bad is neither a demonstration nor a "
            "comparison; keep the good ones without this field, or pair them with the bad ones"
        )
    if {"chosen", "rejected"} <= keys:
        return "preference" if "prompt" in keys else "hh"
    if {"instruction", "output"} <= keys:
        return "alpaca"
    if {"instruction", "response"} <= keys:
        return "dolly"
    if {"prompt", "completion"} <= keys:
        return "completion"
    if "prompt" in keys:
        # other fields may hold answers under names that are not known here
        others = keys - {"prompt", "id", "source", "meta", "split", "use_case", "user_id"}
        if not others:
            return "prompt"
        raise InstilError(
            f"{', '.join(sorted(others))}: not known; --format prompt takes the prompts alone"
        )
    if keys in ({"text"}, {"text", "source"}):
        return "text"
    raise InstilError(
        f"fields {', '.join(sorted(keys)) or '(none)'}: no format is known with these; "
        "rename them to those of a known one (`instil convert --help`)"
    )


def read_hh(row: Row) -> Item:
    """Two dialogues that are equal up to an Assistant turn: from there on they are the answers."""
    chosen, rejected = text_of(row, "chosen"), text_of(row, "rejected")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if ASSISTANT not in dialogue:
            raise InstilError(f'{name}: no "Assistant:" turn, so it is not a dialogue of hh-rlhf')
    shorter = min(len(chosen), len(rejected))
    equal = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    turn = chosen.rfind(ASSISTANT, 0, equal)
    cut = turn + len(ASSISTANT)
    if turn < 0 or HUMAN in chosen[cut:] or HUMAN in rejected[cut:]:
        raise InstilError(
            "rejected: differs from chosen before the last Assistant turn; "
            "the two must answer the same dialogue"
        )
    if not chosen[:turn].strip():
        raise InstilError("chosen: nothing stands before the Assistant turn")
    return _compared(chosen[:cut].strip(), chosen[cut:], rejected[cut:])


def read_preference(row: Row) -> Item:
    """A prompt and two answers, the better one named."""
    return _compared(text_of(row, "prompt"), text_of(row, "chosen"), text_of(row, "rejected"))


def read_completion(row: Row) -> Item:
    """A prompt and its answer."""
    return Item(text_of(row, "prompt"), (text_of(row, "completion").strip(),))


def read_prompt(row: Row) -> Item:
    """A prompt alone."""
    return Item(text_of(row, "prompt"))


def read_alpaca(row: Row) -> Item:
    """An instruction, perhaps with an input of its own or earlier turns, and the answer."""
    return _instruction(row, "input", "output")


def read_dolly(row: Row) -> Item:
    """The same under the names of databricks-dolly-15k."""
    return _instruction(row, "context", "response")


READERS: Mapping[str, Callable[[Row], Item]] = {
    "hh": read_hh,
    "preference": read_preference,
    "completion": read_completion,
    "prompt": read_prompt,
    "alpaca": read_alpaca,
    "dolly": read_dolly,
}


def text_of(row: Row, name: str) -> str:
    """A field that must be a text and not blank."""
    value = row.get(name)
    if value is None:
        raise InstilError(f"{name}: missing")
    if not isinstance(value, str):
        hint = "; join lists of messages to one text first" if isinstance(value, list) else ""
        raise InstilError(f"{name}: got {value!r:.40}, expected text{hint}")
    if not value.strip():
        raise InstilError(f"{name}: is empty")
    return value


def _compared(prompt: str, chosen: str, rejected: str) -> Item:
    chosen, rejected = chosen.strip(), rejected.strip()
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise InstilError(f"{name}: the answer is empty")
    if chosen == rejected:
        raise InstilError("rejected: is the same as chosen; leave the row out")
    return Item(prompt, (chosen, rejected))


def _instruction(row: Row, about_field: str, answer_field: str) -> Item:
    instruction, answer = text_of(row, "instruction").strip(), text_of(row, answer_field).strip()
    about = row.get(about_field) or ""
    if not isinstance(about, str):
        raise InstilError(f"{about_field}: got {about!r:.40}, expected text")
    asked = f"{instruction}\n\n{about.strip()}" if about.strip() else instruction
    category = row.get("category")
    use_case = USE_CASE_OF_CATEGORY.get(category, "") if isinstance(category, str) else ""
    return Item(_dialogue(_turns(row), asked), (answer,), use_case)


def _turns(row: Row) -> list[list[str]]:
    """The earlier turns of a row: pairs of what was asked and answered."""
    history = row.get("history") or []
    right = isinstance(history, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in history
    )
    if not right:
        raise InstilError(f"history: got {history!r:.40}, expected pairs [question, answer]")
    return history


def _dialogue(turns: list[list[str]], last: str) -> str:
    """One text of a conversation, in the layout of hh-rlhf; a single turn stays as it is."""
    if not turns:
        return last
    earlier = "".join(f"{HUMAN} {a.strip()}{ASSISTANT} {b.strip()}" for a, b in turns)
    return f"{earlier}{HUMAN} {last}{ASSISTANT}".strip()
