"""The table of formats: what a row has, how it is read and written, and what it can hold.

A format holds what its own reader gives back. All else of an item is counted when it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from instil.convert import messages, rows, trees, ultrafeedback
from instil.convert.item import CannotHold, Item, Row, unread
from instil.errors import InstilError, one_line

Source = Literal[
    "auto",
    "instil",
    "hh",
    "preference",
    "completion",
    "prompt",
    "openai",
    "sharegpt",
    "alpaca",
    "dolly",
    "alpacafarm",
    "oasst",
    "ultrafeedback",
    "rewardbench",
    "text",
]
Target = Literal[
    "instil",
    "hh",
    "preference",
    "preference-messages",
    "completion",
    "completion-messages",
    "openai",
    "sharegpt",
    "alpaca",
    "alpacafarm",
    "oasst",
    "ultrafeedback",
    "rewardbench",
]


@dataclass(frozen=True, slots=True)
class Reader:
    """How a row becomes an item, or several."""

    read: Callable[[Row], Item | Iterable[Item]]
    fields: frozenset[str]
    """What the reader looks at; other fields that hold something are counted."""


@dataclass(frozen=True, slots=True)
class Writer:
    """How an item becomes a row."""

    write: Callable[[Item], Row]
    holds: frozenset[str]
    """Kinds of items; `ties`; `many`: more than two answers, else a ranking becomes its pairs; and
    fields: `policies`, `user_id`, `labeler of a KIND`, `meta.NAME`."""


def _reader(read: Callable[[Row], Item | Iterable[Item]], fields: str) -> Reader:
    # ids are made anew from what is said, so an old one is nothing that is lost
    return Reader(read, frozenset(["id", *fields.split()]))


def _writer(write: Callable[[Item], Row], *holds: str) -> Writer:
    return Writer(write, frozenset(holds))


_PAIR = "prompt chosen rejected"
_FARM = "instruction input output_1 output_2 preference annotator generator_1 generator_2 dataset"

READERS: Mapping[str, Reader] = {
    "hh": _reader(rows.read_hh, "chosen rejected"),
    "preference": _reader(messages.read_preference, _PAIR),
    "completion": _reader(messages.read_completion, "prompt completion"),
    "prompt": _reader(messages.read_prompt, "prompt"),
    "openai": _reader(messages.read_openai, "messages"),
    "sharegpt": _reader(messages.read_sharegpt, "conversations system"),
    "alpaca": _reader(rows.read_alpaca, "instruction input output history category"),
    "dolly": _reader(rows.read_dolly, "instruction context response history category"),
    "alpacafarm": _reader(rows.read_alpacafarm, _FARM),
    "oasst": _reader(trees.read_oasst, "message_tree_id tree_state prompt"),
    "ultrafeedback": _reader(ultrafeedback.read_ultrafeedback, "instruction models completions"),
    "rewardbench": _reader(
        messages.read_rewardbench, f"{_PAIR} chosen_model rejected_model subset"
    ),
}

WRITERS: Mapping[str, Writer] = {
    "hh": _writer(rows.write_hh, "ranking"),
    "preference": _writer(messages.write_preference, "ranking"),
    "preference-messages": _writer(messages.write_preference_messages, "ranking"),
    "completion": _writer(messages.write_completion, "demonstration"),
    "completion-messages": _writer(messages.write_completion_messages, "demonstration"),
    "openai": _writer(messages.write_openai, "demonstration", "prompt"),
    "sharegpt": _writer(messages.write_sharegpt, "demonstration", "prompt"),
    "alpaca": _writer(rows.write_alpaca, "demonstration"),
    "alpacafarm": _writer(
        rows.write_alpacafarm,
        *("ranking", "ties", "policies", "labeler of a ranking", "meta.dataset"),
    ),
    "oasst": _writer(
        trees.write_oasst,
        *("prompt", "demonstration", "response", "ranking", "ties", "many"),
        *("policies", "user_id", "labeler of a demonstration"),
    ),
    "ultrafeedback": _writer(
        ultrafeedback.write_ultrafeedback, "response", "ranking", "ties", "many", "policies"
    ),
    "rewardbench": _writer(messages.write_rewardbench, "ranking", "policies", "meta.subset"),
}


def detect(row: Row) -> str:
    """The format of a row, told from its fields; an error lists them when none fits."""
    keys = set(row)
    schema = row.get("schema")
    if isinstance(schema, str) and schema.startswith("instil."):
        return "instil"
    if {"prompt", "completion", "label"} <= keys:
        raise InstilError(
            "label: a completion that is only marked good or bad is neither a demonstration nor a "
            "comparison; keep the good ones without this field, or pair them with the bad ones"
        )
    if {"chosen", "rejected"} <= keys:
        if {"chosen_model", "subset"} <= keys:
            return "rewardbench"
        bare = "prompt" not in keys and not isinstance(row["chosen"], list)
        return "hh" if bare else "preference"
    for name, fields in (
        ("oasst", {"message_tree_id", "prompt"}),
        ("alpacafarm", {"instruction", "output_1", "output_2"}),
        ("ultrafeedback", {"instruction", "completions"}),
        ("alpaca", {"instruction", "output"}),
        ("dolly", {"instruction", "response"}),
        ("completion", {"prompt", "completion"}),
        ("sharegpt", {"conversations"}),
        ("openai", {"messages"}),
    ):
        if fields <= keys:
            return name
    if "prompt" in keys:
        # other fields may hold answers under names that are not known here
        others = keys - {"prompt", "id", "source", "meta", "split", "use_case", "user_id"}
        if not others:
            return "prompt"
        raise InstilError(f"{_listed(others)}: not known; --from prompt takes the prompts alone")
    if keys in ({"text"}, {"text", "source"}):
        return "text"
    raise InstilError(
        f"fields {_listed(keys) or '(none)'}: no format is known with these; "
        "rename them to those of a known one (`instil convert --help`)"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(one_line(name, 40) for name in sorted(names))


def read_row(reader: Reader, row: Row, lost: Counter[str]) -> list[Item]:
    """The items of one row, all of them or an InstilError; `lost` counts what they leave behind."""
    made = reader.read(row)
    items = [made] if isinstance(made, Item) else list(made)
    lost.update(unread(row, reader.fields))
    for item in items:
        lost.update(item.lost)
    return items


def write_rows(writer: Writer, item: Item, lost: Counter[str]) -> Iterator[Row]:
    """The rows of one item; `lost` counts what of it they do not hold."""
    if item.kind not in writer.holds:
        lost[item.kind] += 1
        return
    parts: Iterable[Item] = (item,)
    if len(item.answers) > 2 and "many" not in writer.holds:
        lost["ranking of more than two, written as its pairs"] += 1
        parts = item.pairs()
    for part in parts:
        try:
            if not all(answer.strip() for answer in part.answers):
                raise CannotHold("answer without text")
            if part.ranks and len(set(part.ranks)) < len(part.ranks) and "ties" not in writer.holds:
                raise CannotHold("tie")
            yield writer.write(part)
        except CannotHold as error:
            lost[str(error)] += 1
        else:
            lost.update(_unheld(part, writer.holds))


def _unheld(item: Item, holds: frozenset[str]) -> list[str]:
    """The fields of an item that say something and that the format does not hold."""
    said = {
        "use_case": item.use_case,
        "policies": any(item.policies),
        f"labeler of a {item.kind}": item.labeler,
        "user_id": item.user_id,
        **{f"meta.{name}": True for name in item.meta},
    }
    return [name for name, value in said.items() if value and name not in holds]
