"""Conversations: lists of messages <-> one text, and the formats that are made of messages.

A prompt is one text. A single question stands in it as it is. A conversation stands in the layout
of hh-rlhf, with what the system says before the first turn:

    [system]

    Human: ...

    Assistant: ...

    Human: ...

    Assistant:

`split(join(turns))` gives the turns back, or the row is refused. `join(split(text))` gives the text
back, but for a single question in that layout, which comes back bare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from instil.convert.item import Item, Row, compared, optional_text, rows_of, text_of, unread
from instil.errors import InstilError

Turn = tuple[str, str]
"""Role (system, user or assistant) and text."""

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_MARKS = {"user": HUMAN, "assistant": ASSISTANT}

OPENAI = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
SHAREGPT = {
    **{"system": "system", "human": "user", "user": "user"},
    **{"gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant"},
}
"""The names that a format has for a role -> the role."""


def join(turns: Sequence[Turn]) -> str:
    """The prompt of turns that end with a question of the user."""
    return turns[0][1] if len(turns) == 1 else _layout(turns)


def split(prompt: str) -> list[Turn]:
    """The turns of a prompt, the last one the user's; what is in no layout is one question."""
    head, *parts = re.split(r"\n\n(Human|Assistant):", f"\n\n{prompt}")
    texts = [text.removeprefix(" ") for text in parts[1::2]]
    if texts and not texts.pop():  # the answer that is asked for
        roles = ("user", "assistant") * len(texts)
        turns = [("system", head.strip())] if head.strip() else []
        turns += zip(roles, texts, strict=False)
        whole = len(texts) % 2 == 1 and all(text.strip() for text in texts)
        if whole and _layout(turns) == prompt:
            return turns
    return [("user", prompt)]


def _layout(turns: Sequence[Turn]) -> str:
    parts = [f"{_MARKS[role]} {text}" if role in _MARKS else text for role, text in turns]
    return ("".join(parts) + ASSISTANT).removeprefix("\n\n")


def joined(turns: Sequence[Turn], name: str) -> str:
    """`join`, for turns of a row: the first is the system's or the user's, the last the user's."""
    first = turns[1:] if turns and turns[0][0] == "system" else turns
    if not first or first[0][0] != "user" or turns[-1][0] != "user":
        raise InstilError(f"{name}: a conversation begins with a message of the user")
    prompt = join(turns)
    if split(prompt) != list(turns):
        raise InstilError(
            f'{name}: a message has a line that begins with "Human:" or "Assistant:", which would '
            "be taken for a turn; indent the line or leave the row out"
        )
    return prompt


def read_turns(
    row: Row,
    name: str,
    roles: Mapping[str, str] = OPENAI,
    role_field: str = "role",
    text_field: str = "content",
) -> list[Turn]:
    """The turns of a list of messages, without white space around them, checked for their order."""
    turns: list[Turn] = []
    for number, message in enumerate(rows_of(row, name)):
        where = f"{name}[{number}]."
        named = message.get(role_field)
        role = roles.get(named) if isinstance(named, str) else None
        if tool := next((key for key in ("tool_calls", "function_call") if message.get(key)), None):
            raise InstilError(f"{where}{tool}: calls of tools have no place in a record")
        if role is None:
            known = ", ".join(roles)
            raise InstilError(f"{where}{role_field}: got {named!r:.40}, expected one of {known}")
        if role == "system" and not optional_text(message, text_field, where).strip():
            continue
        if turns and role in (turns[-1][0], "system"):
            raise InstilError(
                f"{where}{role_field}: {role} after {turns[-1][0]}; after at most one message of "
                "the system, user and assistant take turns"
            )
        turns.append((role, text_of(message, text_field, where).strip()))
    if not turns:
        raise InstilError(f"{name}: no message; leave the row out")
    return turns


def read_openai(row: Row) -> Item:
    """`messages` of role and content (TRL, OpenAI)."""
    return _conversation(read_turns(row, "messages"), "messages", _beside(row, "messages"))


def read_sharegpt(row: Row) -> Item:
    """`conversations` of from and value, perhaps with the system's message beside them."""
    turns = read_turns(row, "conversations", SHAREGPT, "from", "value")
    if system := optional_text(row, "system").strip():
        if turns[0][0] == "system":
            raise InstilError("system: the conversation has a message of the system too")
        turns.insert(0, ("system", system))
    return _conversation(turns, "conversations", _beside(row, "conversations", "from", "value"))


def read_completion(row: Row) -> Item:
    """A prompt and its answer, each a text or a list of messages (TRL)."""
    prompt = _prompt(row)
    if isinstance(row.get("completion"), list):
        return Item(prompt, (_one_answer(read_turns(row, "completion"), "completion"),))
    return Item(prompt, (text_of(row, "completion").strip(),))


def read_prompt(row: Row) -> Item:
    """A prompt alone."""
    return Item(_prompt(row))


def read_preference(row: Row) -> Item:
    """A prompt and two answers, the better one named (TRL).

    With messages, the prompt may stand in both answers as well or instead.
    """
    if not isinstance(row.get("chosen"), list):
        return compared(_prompt(row), text_of(row, "chosen"), text_of(row, "rejected"))
    *before, chosen = read_turns(row, "chosen")
    *also_before, rejected = read_turns(row, "rejected")
    if before != also_before:
        raise InstilError("rejected: does not answer the same conversation as chosen")
    if not before:
        prompt = _prompt(row)
    else:
        prompt = joined(before, "chosen")
        asked = row.get("prompt")
        if isinstance(asked, list):
            asked = joined(read_turns(row, "prompt"), "prompt")
        if asked is not None and asked != prompt and ("user", str(asked).strip()) not in before:
            raise InstilError("prompt: is not what chosen and rejected answer")
    pair = [_one_answer([chosen], "chosen"), _one_answer([rejected], "rejected")]
    return compared(prompt, *pair)


def read_rewardbench(row: Row) -> Item:
    """A preference whose answers name their models and that belongs to a subset."""
    policies = (optional_text(row, "chosen_model"), optional_text(row, "rejected_model"))
    subset = optional_text(row, "subset")
    return replace(
        read_preference(row),
        policies=policies if any(policies) else (),
        meta={"subset": subset} if subset else {},
    )


def write_openai(item: Item) -> Row:
    """`messages` of role and content."""
    return {"messages": _messages(item.prompt) + _answer(*item.answers)}


def write_sharegpt(item: Item) -> Row:
    """`conversations` of from and value."""
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    messages = _messages(item.prompt) + _answer(*item.answers)
    turns = [{"from": names[message["role"]], "value": message["content"]} for message in messages]
    return {"conversations": turns}


def write_completion(item: Item) -> Row:
    """prompt and completion as texts."""
    return {"prompt": item.prompt, "completion": item.answers[0]}


def write_completion_messages(item: Item) -> Row:
    """prompt and completion as lists of messages."""
    return {"prompt": _messages(item.prompt), "completion": _answer(*item.answers)}


def write_preference(item: Item) -> Row:
    """prompt, chosen and rejected as texts."""
    return {"prompt": item.prompt, "chosen": item.answers[0], "rejected": item.answers[1]}


def write_preference_messages(item: Item) -> Row:
    """prompt, chosen and rejected as lists of messages."""
    chosen, rejected = (_answer(answer) for answer in item.answers)
    return {"prompt": _messages(item.prompt), "chosen": chosen, "rejected": rejected}


def write_rewardbench(item: Item) -> Row:
    """A preference with the names of the models and the subset."""
    chosen, rejected = item.authors()
    return {
        **write_preference(item),
        "chosen_model": chosen,
        "rejected_model": rejected,
        "subset": item.meta.get("subset", ""),
    }


def _prompt(row: Row) -> str:
    """The field `prompt`: a text as it is, or messages that end with the user's."""
    if isinstance(row.get("prompt"), list):
        return joined(read_turns(row, "prompt"), "prompt")
    return text_of(row, "prompt")


def _one_answer(turns: Sequence[Turn], name: str) -> str:
    if len(turns) != 1 or turns[0][0] != "assistant":
        raise InstilError(f"{name}: expected one message of the assistant at the end")
    return turns[0][1]


def _conversation(turns: list[Turn], name: str, lost: tuple[str, ...]) -> Item:
    """The last answer and all before it; a conversation without a last answer is a prompt."""
    answer = (turns.pop()[1],) if turns[-1][0] == "assistant" else ()
    return Item(joined(turns, name), answer, lost=lost)


def _beside(row: Row, name: str, *fields: str) -> tuple[str, ...]:
    """The fields of messages that say more than who speaks what."""
    known = fields or ("role", "content")
    extra = {field for message in row[name] for field in unread(message, known)}
    return tuple(f"{name}[].{field}" for field in sorted(extra))


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in split(prompt)]


def _answer(*answer: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text} for text in answer]
