"""Trees of Open-Assistant: a prompt, the replies to it with their ranks, what was asked next.

Every message of the user is a prompt with all that was said before it. Its ranked replies are a
ranking, the others answers of their own. So an earlier turn of a conversation is an answer too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from instil import jsonl
from instil.convert.item import (
    CannotHold,
    Item,
    Row,
    number_of,
    optional_text,
    ranked,
    rows_of,
    text_of,
    unread,
)
from instil.convert.messages import Turn, joined, split
from instil.errors import InstilError

_READ = frozenset(
    {
        *("message_id", "parent_id", "text", "role", "rank", "replies", "user_id"),
        *("deleted", "review_result", "synthetic", "model_name"),
    }
)


def read_oasst(row: Row) -> Iterator[Item]:
    """The items of one tree, from its root down; messages that were deleted or failed review are
    left out with all below them."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise InstilError(f"prompt: got {root!r:.40}, expected the first message of a tree")
    if _is_left_out(root):
        raise InstilError("prompt: was deleted or failed review; leave the tree out")
    waiting: list[tuple[str, Row, tuple[Turn, ...]]] = [("prompt.", root, ())]
    while waiting:
        where, message, before = waiting.pop()
        turns = (*before, _turn(message, where, "prompter"))
        replies, lost = _replies(message, where)
        lost += unread(message, _READ, "messages[].")
        below: list[tuple[str, Row, tuple[Turn, ...]]] = []
        for place, reply in replies:
            questions, left_out = _replies(reply, place)
            lost += left_out + unread(reply, _READ, "messages[].")
            so_far = (*turns, _turn(reply, place, "assistant"))
            below += ((deeper, question, so_far) for deeper, question in questions)
        yield from _answers(joined(turns, f"{where}text"), message, replies, lost)
        waiting += reversed(below)


def write_oasst(item: Item) -> Row:
    """A tree: the turns of the prompt as a chain, the answers as replies to the last of them."""
    turns = split(item.prompt)
    if turns[0][0] == "system":
        raise CannotHold("message of the system")
    name = jsonl.content_id("m", item.prompt, *item.answers)
    is_ranking, by_model = item.kind == "ranking", bool(item.policies)
    replies: list[dict[str, Any]] = []
    answers = zip(item.answers, item.authors(), item.places(), strict=True)
    for number, (answer, policy, rank) in enumerate(answers):
        replies.append(
            {
                **_message(f"{name}-{len(turns)}-{number}", "assistant", answer),
                "parent_id": f"{name}-{len(turns) - 1}",
                "user_id": (item.labeler or None) if item.kind == "demonstration" else None,
                "rank": rank - 1 if is_ranking else None,
                "synthetic": by_model,
                "model_name": policy or None,
            }
        )
    for number in reversed(range(len(turns))):
        role, text = turns[number]
        message = _message(f"{name}-{number}", "prompter" if role == "user" else role, text)
        message["parent_id"] = f"{name}-{number - 1}" if number else None
        message["user_id"] = (item.user_id or None) if number == len(turns) - 1 else None
        replies = [{**message, "replies": replies}]
    return {"message_tree_id": f"{name}-0", "tree_state": "ready_for_export", "prompt": replies[0]}


def _answers(
    prompt: str, asked: Row, replies: list[tuple[str, Row]], lost: tuple[str, ...]
) -> Iterator[Item]:
    """The ranked replies as one item, the others as one each; without any, the prompt."""
    user_id = optional_text(asked, "user_id")
    with_rank = [(place, reply) for place, reply in replies if reply.get("rank") is not None]
    if len(with_rank) > 1:
        judged = []
        for place, reply in with_rank:
            _, text = _turn(reply, place, "assistant")
            judged.append((number_of(reply, "rank", place), text, _model(reply, place)))
            lost += ("author of a ranked reply",) if reply.get("user_id") else ()
        yield ranked(prompt, judged, lost, user_id=user_id)
        lost, replies = (), [(p, reply) for p, reply in replies if reply.get("rank") is None]
        if not replies:
            return
    elif not replies:
        yield Item(prompt, user_id=user_id, lost=lost)
    for place, reply in replies:
        yield Item(
            prompt,
            (_turn(reply, place, "assistant")[1],),
            policies=(_model(reply, place),) if reply.get("synthetic") else (),
            labeler="" if reply.get("synthetic") else optional_text(reply, "user_id", place),
            user_id=user_id,
            lost=lost,
        )
        lost = ()


def _replies(message: Row, where: str) -> tuple[list[tuple[str, Row]], tuple[str, ...]]:
    """The replies that count, each with the way to it, and a word for each of the others."""
    rows = rows_of(message, "replies", where)
    kept = [(f"{where}replies[{i}].", row) for i, row in enumerate(rows) if not _is_left_out(row)]
    left_out = ("deleted or refused message, with all below it",) * (len(rows) - len(kept))
    return kept, left_out


def _turn(message: Row, where: str, role: str) -> Turn:
    if message.get("role") != role:
        raise InstilError(f"{where}role: got {message.get('role')!r:.40}, expected {role!r}")
    return ("user" if role == "prompter" else "assistant", text_of(message, "text", where).strip())


def _model(reply: Row, where: str) -> str:
    return optional_text(reply, "model_name", where)


def _is_left_out(message: Row) -> bool:
    return bool(message.get("deleted")) or message.get("review_result") is False


def _message(name: str, role: str, text: str) -> dict[str, Any]:
    return {
        "message_id": name,
        "text": text,
        "role": role,
        "deleted": False,
        "review_result": True,
        "synthetic": False,
        "rank": None,
        "replies": [],
    }
