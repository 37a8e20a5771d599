"""Record files -> what the methods train on: joined, filtered by length, counted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from instil.convert import read_texts
from instil.errors import InstilError
from instil.jsonl import read_records
from instil.lm.batches import document_rows
from instil.lm.text import Codec
from instil.records import Prompt, Record
from instil.runs import say

Kind = TypeVar("Kind", bound=Record)


def read_all(paths: Sequence[Path], kind: type[Kind]) -> list[Kind]:
    """The records of several files; an empty list of files or records is an error."""
    records = [record for path in paths for record in read_records(path, kind)]
    if not records:
        names = ", ".join(map(str, paths)) or "no file given"
        raise InstilError(f"{names}: no {kind.__name__.lower()} to read")
    return records


def by_prompt(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompt id -> prompt; one id with two texts is an error."""
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        if found.setdefault(prompt.id, prompt).text != prompt.text:
            raise InstilError(f"prompt {prompt.id} occurs with two texts; ids must be unique")
    return found


def context_of(model: nn.Module) -> int:
    """The longest sequence that a model reads, in tokens."""
    context = getattr(model.config, "max_position_embeddings", None)
    return context if isinstance(context, int) else sys.maxsize


def fitting(
    pairs: Sequence[tuple[list[int], list[int]]],
    max_prompt: int,
    max_response: int,
    what: str,
    context: int = sys.maxsize,
) -> list[tuple[list[int], list[int]]]:
    """The (prompt, response) pairs that are short enough; says how many are not."""
    kept = [
        (p, r)
        for p, r in pairs
        if len(p) <= max_prompt and len(r) <= max_response and len(p) + len(r) <= context
    ]
    if dropped := len(pairs) - len(kept):
        say(
            f"{dropped} of {len(pairs)} {what} left out: prompt over {max_prompt} tokens, response "
            f"over {max_response}, or both together over the model's context"
        )
    return kept


def pretraining_rows(codec: Codec, paths: Sequence[Path], length: int, at_least: int = 0) -> Tensor:
    """Pretraining text as rows (n, length) of tokens, documents joined end to end.

    Raises InstilError when there are fewer than `at_least` rows, those of one batch.
    """
    texts = [text for path in paths for text in read_texts(path)]
    rows = document_rows(list(codec.encode_documents(texts)), length)
    if len(rows) < at_least:
        raise InstilError(
            f"{', '.join(map(str, paths))}: {len(rows)} rows of {length} tokens, and one batch "
            f"takes {at_least}; give more text, or lower row_length or its share of a batch"
        )
    return rows
