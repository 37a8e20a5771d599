"""Rows of plain texts: dialogues of hh-rlhf, Alpaca, Dolly, AlpacaFarm."""

from __future__ import annotations

from collections.abc import Iterable

from instil.convert.item import (
    CannotHold,
    Item,
    Row,
    compared,
    number_of,
    optional_text,
    ranked,
    text_of,
)
from instil.convert.messages import ASSISTANT, HUMAN, Turn, join
from instil.errors import InstilError

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
    return compared(chosen[:cut].strip(), chosen[cut:], rejected[cut:])


def write_hh(item: Item) -> Row:
    """Two dialogues; a question that is no dialogue becomes the first turn of one."""
    dialogue = item.prompt
    if not dialogue.endswith(ASSISTANT):
        dialogue = f"Human: {dialogue}{ASSISTANT}"
    chosen, rejected = (f"\n\n{dialogue} {answer}" for answer in item.answers)
    row = {"chosen": chosen, "rejected": rejected}
    try:
        back = read_hh(row).answers
    except InstilError:
        back = ()
    if back != tuple(answer.strip() for answer in item.answers):
        raise CannotHold("answer with turns of its own")
    return row


def read_alpaca(row: Row) -> Item:
    """An instruction, perhaps with an input of its own or earlier turns, and the answer."""
    return _instruction(row, "input", "output")


def write_alpaca(item: Item) -> Row:
    """The prompt as an instruction without an input."""
    return {"instruction": item.prompt, "input": "", "output": item.answers[0]}


def read_dolly(row: Row) -> Item:
    """The same under the names of databricks-dolly-15k."""
    return _instruction(row, "context", "response")


def read_alpacafarm(row: Row) -> Item:
    """An instruction and two outputs; preference is 1 or 2, or between them how sure of 2 one is.

    1.5, and 0 as older files have it, is a tie.
    """
    preference = number_of(row, "preference")
    if preference != 0 and not 1 <= preference <= 2:
        raise InstilError(f"preference: got {preference:g}, expected 1, 2, between them, or 0")
    second = 0.5 if preference == 0 else preference - 1
    judged = []
    for number, place in ((1, second), (2, 1 - second)):
        policy = optional_text(row, f"generator_{number}")
        judged.append((place, text_of(row, f"output_{number}").strip(), policy))
    dataset = optional_text(row, "dataset")
    return ranked(
        _asked(row, "input"),
        judged,
        () if second in (0, 0.5, 1) else ("strength of a preference",),
        labeler=optional_text(row, "annotator"),
        meta={"dataset": dataset} if dataset else {},
    )


def write_alpacafarm(item: Item) -> Row:
    """The better output first."""
    row = {"instruction": item.prompt, "input": ""}
    for number, (answer, policy) in enumerate(zip(item.answers, item.authors(), strict=True), 1):
        row |= {f"output_{number}": answer, f"generator_{number}": policy}
    better, worse = item.places()
    return {
        **row,
        "preference": 1.5 if better == worse else 1,
        "annotator": item.labeler,
        "dataset": item.meta.get("dataset", ""),
    }


def _instruction(row: Row, about_field: str, answer_field: str) -> Item:
    asked, answer = _asked(row, about_field), text_of(row, answer_field).strip()
    category = row.get("category")
    use_case = USE_CASE_OF_CATEGORY.get(category, "") if isinstance(category, str) else ""
    lost = ("category",) if category and not use_case else ()
    return Item(join([*_earlier(row), ("user", asked)]), (answer,), use_case, lost=lost)


def _asked(row: Row, about_field: str) -> str:
    instruction, about = (
        text_of(row, "instruction").strip(),
        optional_text(row, about_field).strip(),
    )
    return f"{instruction}\n\n{about}" if about else instruction


def _earlier(row: Row) -> Iterable[Turn]:
    """The earlier turns of a row: pairs of what was asked and answered."""
    history = row.get("history") or []
    right = isinstance(history, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in history
    )
    if not right:
        raise InstilError(f"history: got {history!r:.40}, expected pairs [question, answer]")
    for question, answer in history:
        yield from (("user", question.strip()), ("assistant", answer.strip()))
