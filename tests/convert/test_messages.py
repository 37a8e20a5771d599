"""Conversations: one text <-> turns, and the formats of messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.convert.item import Item
from instil.convert.messages import (
    join,
    joined,
    read_completion,
    read_openai,
    read_preference,
    read_sharegpt,
    split,
    write_openai,
    write_preference_messages,
    write_sharegpt,
)
from instil.errors import InstilError

TURNS = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?")]
TEXT = "Be kind.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def test_turns_and_their_text():
    assert join(TURNS) == TEXT
    assert split(TEXT) == TURNS
    assert join(TURNS[1:]) == TEXT[10:]
    assert split(TEXT[10:]) == TURNS[1:]
    assert join([("user", "Why?")]) == "Why?"
    assert split("Why?") == [("user", "Why?")]


def test_one_question_in_the_layout_comes_back_bare():
    assert split("Human: Why?\n\nAssistant:") == [("user", "Why?")]


@pytest.mark.parametrize(
    "text",
    [
        "Human: a\n\nAssistant: b",  # nobody asks
        "Human: a\n\nHuman: b\n\nAssistant:",
        "Human: a\n\nAssistant: b\n\nAssistant:",
        "Assistant:",
        "Human: \n\nAssistant:",
        "Human:a\n\nAssistant:",  # without the space
        "Human: a\n\nAssistant: ",
    ],
)
def test_what_is_not_quite_a_conversation_is_one_question(text):
    assert split(text) == [("user", text)]


PIECES = ["a", " ", "\n", "\n\n", "Human:", "Assistant:", " b"]
PROMPTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(
    lambda text: text == text.strip() != ""
)


@given(PROMPTS)
def test_a_prompt_comes_back_from_its_turns(text):
    turns = split(text)
    roles = [role for role, _ in turns]
    assert roles[-1] == "user" and "assistant" not in roles[:1]
    assert join(turns) == text or text == f"Human: {join(turns)}\n\nAssistant:"


@pytest.mark.slow
@given(st.lists(PROMPTS.map(str.strip).filter(bool) | WORDS, min_size=1, max_size=5), st.booleans())
def test_turns_come_back_or_are_refused(texts, with_system):
    texts = texts if len(texts) % 2 else texts[:-1] or texts
    turns = [("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]
    turns = [("system", "s"), *turns] if with_system else turns
    try:
        prompt = joined(turns, "messages")
    except InstilError as error:
        message = str(error)
        assert any(mark in "".join(texts) for mark in ("Human:", "Assistant:"))
        assert message.startswith("messages: a message has a line that begins")
    else:
        assert split(prompt) == turns


def test_a_conversation_of_messages():
    item = Item(TEXT, ("Because.",))
    row = {"messages": messages(*TURNS, ("assistant", "Because."))}
    assert (read_openai(row), write_openai(item)) == (item, row)
    assert read_openai({"messages": messages(*TURNS)}) == Item(TEXT)
    developer = {"messages": messages(("developer", " Be kind. "), *TURNS[1:])}
    assert read_openai(developer) == Item(TEXT)
    assert read_openai({"messages": messages(("system", ""), ("user", "x"))}) == Item("x")
    weighed = {"messages": [{"role": "user", "content": "x", "weight": 1, "name": None}]}
    assert read_openai(weighed).lost == ("messages[].weight",)


def test_a_conversation_of_sharegpt():
    turns = [("human", "Hi"), ("gpt", "Hello!"), ("human", "Why?"), ("gpt", "Because.")]
    says = [{"from": role, "value": text} for role, text in turns]
    item = Item(TEXT, ("Because.",))
    assert read_sharegpt({"conversations": says, "system": "Be kind."}) == item
    whole = {"conversations": [{"from": "system", "value": "Be kind."}, *says]}
    assert (read_sharegpt(whole), write_sharegpt(item)) == (item, whole)
    with pytest.raises(InstilError, match=r"^system: the conversation has a message of the system"):
        read_sharegpt({**whole, "system": "Be brief."})


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "messages: no message"),
        ([("assistant", "a")], "messages: a conversation begins with a message of the user"),
        ([("system", "a")], "messages: a conversation begins with a message of the user"),
        ([("user", "a"), ("user", "b")], "messages[1].role: user after user"),
        ([("user", "a"), ("system", "b")], "messages[1].role: system after user"),
        ([("user", "a"), ("tool", "b")], "messages[1].role: got 'tool', expected one of system"),
        ([("user", "a"), ("assistant", " ")], "messages[1].content: is empty"),
        ([("user", [{"type": "text"}])], "messages[0].content: got [{'type': 'text'}], expected"),
        ([("user", "a\n\nHuman: b\n\nAssistant:")], "messages: a message has a line that begins"),
    ],
)
def test_a_wrong_turn_is_named(turns, message):
    with pytest.raises(InstilError) as caught:
        read_openai({"messages": messages(*turns)})
    assert str(caught.value).startswith(message)


def test_calls_of_tools_are_refused():
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}
    with pytest.raises(InstilError, match=r"^messages\[0\]\.tool_calls: calls of tools have no"):
        read_openai(row)


def test_preferences_of_messages():
    item = Item(TEXT, ("Because.", "No."))
    explicit = {
        "prompt": messages(*TURNS),
        "chosen": messages(("assistant", "Because.")),
        "rejected": messages(("assistant", "No.")),
    }
    assert (read_preference(explicit), write_preference_messages(item)) == (item, explicit)
    implicit = {
        "chosen": messages(*TURNS, ("assistant", "Because.")),
        "rejected": messages(*TURNS, ("assistant", "No.")),
    }
    assert read_preference(implicit) == item
    for prompt in ("Why?", "Hi", TEXT, messages(*TURNS)):  # the binarized UltraFeedback has both
        assert read_preference({"prompt": prompt, **implicit}) == item
    with pytest.raises(InstilError, match=r"^prompt: is not what chosen and rejected answer"):
        read_preference({"prompt": "How?", **implicit})
    with pytest.raises(InstilError, match=r"^rejected: does not answer the same conversation"):
        read_preference({**implicit, "rejected": explicit["rejected"]})
    with pytest.raises(InstilError, match=r"^prompt: missing"):
        read_preference({**explicit, "prompt": None})
    with pytest.raises(InstilError, match=r"^chosen: expected one message of the assistant"):
        read_preference({**explicit, "chosen": messages(("user", "x"))})


def test_a_completion_of_messages():
    row = {"prompt": messages(*TURNS), "completion": messages(("assistant", "Because."))}
    assert read_completion(row) == Item(TEXT, ("Because.",))
    with pytest.raises(InstilError, match=r"^completion: expected one message of the assistant"):
        read_completion({**row, "completion": messages(("assistant", "a"), ("user", "b"))})
