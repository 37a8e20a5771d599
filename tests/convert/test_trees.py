"""Trees of Open-Assistant, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from instil.convert.item import CannotHold, Item
from instil.convert.trees import read_oasst, write_oasst
from instil.errors import InstilError


def message(text: str, role: str, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "replies": list(replies), **fields}


def tree(*replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"message_tree_id": "m", "prompt": message("Hi", "prompter", *replies, **fields)}


def test_ranked_replies_are_a_ranking_and_what_is_asked_next_a_prompt():
    asked = message("Why?", "prompter", message("So.", "assistant", user_id="u3"), user_id="u1")
    row = tree(
        message("Second", "assistant", rank=1, user_id="u2"),
        message("First", "assistant", asked, rank=0),
        message("Also second", "assistant", rank=1),
        message("Not ranked", "assistant", user_id="u2"),
        message("A model's", "assistant", synthetic=True, model_name="m1"),
        user_id="u1",
    )
    items = list(read_oasst(row))
    assert items == [
        Item("Hi", ("First", "Second", "Also second"), ranks=(1, 2, 2), user_id="u1"),
        Item("Hi", ("Not ranked",), labeler="u2", user_id="u1"),
        Item("Hi", ("A model's",), policies=("m1",), user_id="u1"),
        Item(
            "Human: Hi\n\nAssistant: First\n\nHuman: Why?\n\nAssistant:",
            ("So.",),
            labeler="u3",
            user_id="u1",
        ),
    ]
    assert items[0].lost == ("author of a ranked reply",)


def test_one_ranked_reply_is_an_answer_and_no_reply_a_prompt():
    assert list(read_oasst(tree(message("a", "assistant", rank=0)))) == [Item("Hi", ("a",))]
    assert list(read_oasst(tree())) == [Item("Hi")]


def test_deleted_and_refused_messages_are_left_out_and_told():
    below = message("x", "prompter", message("y", "assistant"))
    row = tree(
        message("a", "assistant", below, deleted=True),
        message("b", "assistant", message("z", "prompter", review_result=False), lang="de"),
        message("c", "assistant", review_result=False),
    )
    (item,) = read_oasst(row)
    assert item == Item("Hi", ("b",))
    gone = "deleted or refused message, with all below it"
    assert sorted(item.lost) == [gone, gone, gone, "messages[].lang"]
    with pytest.raises(InstilError, match=r"^prompt: was deleted or failed review"):
        list(read_oasst(tree(deleted=True)))


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "Hi"}, "prompt: got 'Hi', expected the first message"),
        (tree(message("a", "prompter")), "prompt.replies[0].role: got 'prompter', expected"),
        (tree(message("", "assistant")), "prompt.replies[0].text: is empty"),
        (
            tree(message("a", "assistant", message("b", "prompter", "c"))),
            "prompt.replies[0].replies[0].replies[0]: got 'c', expected an object",
        ),
        (
            tree(message("a", "assistant", rank="x"), message("b", "assistant", rank=0)),
            "prompt.replies[0].rank: got 'x', expected a number",
        ),
    ],
)
def test_a_wrong_message_is_named(row, error):
    with pytest.raises(InstilError) as caught:
        list(read_oasst(row))
    assert str(caught.value).startswith(error)


def test_a_tree_as_deep_as_json_can_be_is_read():
    # a reader that calls itself would end here
    row = tree()
    last = row["prompt"]
    for _ in range(400):
        last["replies"] = [message("a", "assistant", message("b", "prompter"))]
        last = last["replies"][0]["replies"][0]
    assert len(list(read_oasst(row))) == 401


def test_a_written_tree():
    prompt = "Human: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
    item = Item(prompt, ("a", "b"), ranks=(1, 1), policies=("m", ""), user_id="u")
    row = write_oasst(item)
    root = row["prompt"]
    (hello,) = root["replies"]
    (why,) = hello["replies"]
    assert [m["text"] for m in (root, hello, why, *why["replies"])] == [
        "Hi",
        "Hello!",
        "Why?",
        "a",
        "b",
    ]
    assert [m["parent_id"] for m in (root, hello, why)] == [
        None,
        row["message_tree_id"],
        hello["message_id"],
    ]
    assert {m["parent_id"] for m in why["replies"]} == {why["message_id"]}
    assert [(m["rank"], m["model_name"]) for m in why["replies"]] == [(0, "m"), (0, None)]
    assert list(read_oasst(row)) == [Item("Hi", ("Hello!",)), item]
    (alone,) = write_oasst(Item("Hi", ("a",), labeler="l"))["prompt"]["replies"]
    assert (alone["rank"], alone["user_id"], alone["synthetic"]) == (None, "l", False)
    with pytest.raises(CannotHold, match="message of the system"):
        write_oasst(Item(f"Be kind.\n\n{prompt}"))
