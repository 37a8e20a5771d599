"""Summaries of news (CNN/DM) and of posts (TL;DR): ROUGE-L against the summary that people wrote.

The F measure of ROUGE-L from rouge-score, without stemming, averaged over items; of 100, where the
paper prints it of 1. A prompt is a text and "TL;DR:" [appendix D]; answers have up to 128 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from instil.errors import InstilError
from instil.evals.reading import one_line
from instil.evals.source import hub_rows, rows, spread
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each
from instil.evals.text import check_extra, rouge_l

SHOWN = 15
"""Solved examples  [appendix D]; of news, few contexts have room for more than two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the texts of a task are, and what they are called there."""

    test: tuple[str, ...]
    train: tuple[str, ...]
    text: str
    summary: str
    hub: str
    config: str = ""
    hub_text: str
    hub_summary: str


DATA = {
    "cnn_dm": Data(
        test=("cnn_dailymail_test.jsonl", "cnn_dailymail_test.csv"),
        train=("cnn_dailymail_validation.jsonl", "cnn_dailymail_train.jsonl"),
        text="article",
        summary="highlights",
        hub="abisee/cnn_dailymail",
        config="3.0.0",
        hub_text="article",
        hub_summary="highlights",
    ),
    "tldr": Data(
        test=("tldr_3_filtered_test.jsonl", "tldr_test.jsonl"),
        train=("tldr_3_filtered_valid.jsonl", "tldr_3_filtered_train.jsonl", "tldr_train.jsonl"),
        text="post",
        summary="summary",
        hub="trl-lib/tldr",
        hub_text="prompt",
        hub_summary="completion",
    ),
}


def tasks(source: Source, options: Options) -> list[Task]:
    """CNN/DM and TL;DR, whichever is there, zero-shot and few-shot."""
    found = [task for name in DATA for task in _tasks(name, source, options)]
    if not found:
        names = " or ".join(data.test[0] for data in DATA.values())
        raise Missing(f"{names} (or .gz), see docs/evals.md")
    check_extra("rouge_score.rouge_scorer")
    return found


def grade(item: Item, answer: Answer) -> Measures:
    """ROUGE-L of 100."""
    return {"rouge_l": 100 * rouge_l(answer.text, item.meta["reference"])}


def _tasks(name: str, source: Source, options: Options) -> Iterator[Task]:
    """Zero-shot and few-shot; nothing where the data are not there."""
    asked = _pairs(DATA[name], source, DATA[name].test, "test")
    if asked is None:
        return
    train = _pairs(DATA[name], source, DATA[name].train, "validation")
    note = "ROUGE-L without stemming"
    shown = list(islice(asked if train is None else train, SHOWN))
    if train is None:  # those taken are gone from `asked`
        note += f"; the first {len(shown)} texts are shown as solved examples and not asked"
    shots = tuple(f"{text}\n\nTL;DR: {summary}\n\n" for text, summary in shown)
    bare = [
        Item(id=str(number), text=f"{text}\n\nTL;DR:", meta={"reference": summary})
        for number, (text, summary) in enumerate(asked, start=1)
    ]
    if not bare:
        raise InstilError(
            f"{name}: all of its {len(shown)} texts are shown as solved examples; put the training "
            "file beside it (docs/evals.md)"
        )
    for setting, given in (("zero-shot", ()), ("few-shot", shots)):
        yield Task(
            name=name,
            setting=setting,
            items=[replace(item, shots=given) for item in spread(bare, options.limit)],
            grade=each(grade),
            main="rouge_l",
            unit="points",
            tax=True,
            max_tokens=128,
            note=note,
        )


def _pairs(
    data: Data, source: Source, names: tuple[str, ...], split: str
) -> Iterator[tuple[str, str]] | None:
    """(text, summary on one line) of a split; None if it is not there."""
    if path := source.find(*names):
        return _texts(rows(path, data.text, data.summary), data.text, data.summary)
    found = source.hub(data.hub, split, data.config)
    if found is None:
        return None
    fields = (data.hub_text, data.hub_summary)
    numbered = enumerate(hub_rows(found, data.hub, *fields), start=1)
    return _texts(((f"{data.hub}, row {number}", row) for number, row in numbered), *fields)


def _texts(
    numbered: Iterable[tuple[str, Mapping[str, Any]]], text: str, summary: str
) -> Iterator[tuple[str, str]]:
    for where, row in numbered:
        for field in (text, summary):
            if not isinstance(row[field], str) or not row[field].strip():
                raise InstilError(f"{where}: {field}: expected a text, got {row[field]!r:.40}")
        # trl-lib/tldr has whole prompts: SUBREDDIT, TITLE, POST and TL;DR
        body = row[text].strip().removesuffix("TL;DR:")
        yield body.rpartition("\nPOST: ")[2].strip(), one_line(row[summary])
