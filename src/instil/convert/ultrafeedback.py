"""UltraFeedback: an instruction and completions of several models, each with an overall score."""

from __future__ import annotations

from instil.convert.item import (
    Item,
    Row,
    number_of,
    optional_text,
    ranked,
    rows_of,
    text_of,
    unread,
)
from instil.errors import InstilError

_READ = ("model", "response", "overall_score")


def read_ultrafeedback(row: Row) -> Item:
    """The completions in the order of their scores; equal scores are a tie."""
    completions = rows_of(row, "completions")
    if not completions:
        raise InstilError("completions: there is none; leave the row out")
    judged = []
    lost: tuple[str, ...] = ()
    for number, completion in enumerate(completions):
        where = f"completions[{number}]."
        score = number_of(completion, "overall_score", where) if len(completions) > 1 else 0.0
        answer = text_of(completion, "response", where).strip()
        judged.append((-score, answer, optional_text(completion, "model", where)))
        lost += unread(completion, _READ, "completions[].")
    return ranked(text_of(row, "instruction").strip(), judged, lost)


def write_ultrafeedback(item: Item) -> Row:
    """Scores that give the order back: 1 for the worst tier, and one more for each tier above."""
    tiers = max(item.places())
    completions = [
        {"model": policy, "response": answer, "overall_score": float(tiers + 1 - place)}
        for answer, policy, place in zip(item.answers, item.authors(), item.places(), strict=True)
    ]
    return {
        "instruction": item.prompt,
        "models": [completion["model"] for completion in completions],
        "completions": completions,
    }
