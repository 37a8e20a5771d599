"""WMT 2015 French to English (newsdiscusstest2015): corpus BLEU.

sacrebleu's BLEU (one reference, cased, 13a tokens), bootstrapped over documents where the files
name them (.sgm), else over sentences. Answers of up to 128 tokens.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instil.errors import InstilError
from instil.evals.reading import one_line
from instil.evals.source import hub_rows, rows, spread
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task
from instil.evals.text import bleu, check_extra
from instil.jsonl import reading
from instil.stats import Estimate

PARTS = {
    "test": (
        ("newsdiscusstest2015-fren-src.fr.sgm", "newsdiscusstest2015-fren-ref.en.sgm"),
        ("newsdiscusstest2015.fr", "newsdiscusstest2015.en"),
        ("wmt15.fr-en.fr", "wmt15.fr-en.en"),
    ),
    "validation": (
        ("newsdiscussdev2015-fren-src.fr.sgm", "newsdiscussdev2015-fren-ref.en.sgm"),
        ("newsdiscussdev2015.fr", "newsdiscussdev2015.en"),
    ),
}
"""French and English, the same segment on the same line."""
TABLES = {"test": "wmt15.fr-en.tsv", "validation": "newsdiscussdev2015.tsv"}
"""Columns fr and en."""
HUB = "wmt/wmt15"
SHOWN = 15
"""Solved examples  [appendix D]."""
_TAG = re.compile(r'<doc\b[^>]*\bdocid="([^"]*)"|<seg\b[^>]*>(.*?)</seg>', re.S | re.I)
HEAD = "Translate the following sentences from French into English.\n\n"


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence, its translation, and the document that it is from."""

    french: str
    english: str
    document: str

    def asking(self) -> str:
        """The prompt up to the translation."""
        return f"French: {self.french}\n\nEnglish:"


def tasks(source: Source, options: Options) -> list[Task]:
    """French to English, zero-shot and few-shot."""
    asked = pairs(source, "test")
    if asked is None:
        names = " and ".join(PARTS["test"][0])
        raise Missing(f"{names}, or {TABLES['test']} (or .gz), see docs/evals.md")
    check_extra("sacrebleu.metrics.bleu")
    train = pairs(source, "validation")
    shown = (asked if train is None else train)[:SHOWN]
    note = "sacrebleu: one reference, cased, 13a tokens"
    if train is None:
        documents = {pair.document for pair in shown}
        asked = [pair for pair in asked if pair.document not in documents]
        note += f"; the first {len(documents)} documents are shown as solved examples and not asked"
    if not asked:
        raise InstilError(
            f"translation: all of the {len(shown)} sentences are shown as solved examples; put "
            "newsdiscussdev2015 beside the file (docs/evals.md)"
        )
    shots = tuple(f"{pair.asking()} {pair.english}\n\n" for pair in shown)
    bare = [
        Item(
            id=str(number),
            head=HEAD,
            text=pair.asking(),
            source=pair.document,
            meta={"reference": pair.english},
        )
        for number, pair in enumerate(asked, start=1)
    ]
    return [
        Task(
            name="translation",
            setting=setting,
            items=[replace(item, shots=given) for item in spread(bare, options.limit)],
            grade=_by_item,
            total=total,
            main="bleu",
            unit="points",
            tax=True,
            max_tokens=128,
            note=note,
        )
        for setting, given in (("zero-shot", ()), ("few-shot", shots))
    ]


def total(items: Sequence[Item], answers: Sequence[Answer]) -> Mapping[str, Estimate]:
    """Corpus BLEU."""
    references = [item.meta["reference"] for item in items]
    documents = [item.source for item in items]
    return {"bleu": bleu([answer.text for answer in answers], references, documents)}


def _by_item(items: Sequence[Item], answers: Sequence[Answer]) -> list[Measures]:
    """Nothing: BLEU is no mean of sentences."""
    return [{} for _ in items]


def pairs(source: Source, split: str) -> list[Pair] | None:
    """The sentences of a split; None if they are not there."""
    for names in PARTS[split]:
        found = [source.find(name) for name in names]
        if found[0] and found[1]:
            return _aligned(found[0], found[1])
    if table := source.find(TABLES[split]):
        return [_pair(where, row, where) for where, row in rows(table, "fr", "en")]
    lines = source.hub(HUB, split, "fr-en")
    if lines is None:
        return None
    return [
        _pair(f"{HUB}, row {number}", row["translation"], str(number))
        for number, row in enumerate(hub_rows(lines, HUB, "translation"), start=1)
    ]


def _aligned(french: Path, english: Path) -> list[Pair]:
    ours, theirs = segments(french), segments(english)
    if len(ours) != len(theirs):
        raise InstilError(
            f"{english}: {len(theirs)} segments, but {french.name} has {len(ours)}; a line of one "
            "is the translation of that line of the other"
        )
    return [Pair(f, e, document) for (document, f), (_, e) in zip(ours, theirs, strict=True)]


def segments(path: Path) -> list[tuple[str, str]]:
    """(document, text) of an .sgm file's segments, or of the lines of plain text."""
    with reading(path) as handle:
        data = handle.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InstilError(f"{path}: byte {error.start} is not UTF-8; convert the file") from error
    if ".sgm" not in path.suffixes:
        lines = text.removesuffix("\n").split("\n")
        return [(str(number), one_line(line)) for number, line in enumerate(lines, start=1)]
    found, document = [], ""
    for tag in re.finditer(_TAG, text):
        if tag[1] is not None:
            document = tag[1]
        else:
            found.append((document, one_line(html.unescape(tag[2]))))
    return found


def _pair(where: str, row: Mapping[str, Any], document: str) -> Pair:
    if not (row.get("fr") and row.get("en")):
        raise InstilError(f"{where}: fr, en: expected a sentence in both")
    return Pair(one_line(row["fr"]), one_line(row["en"]), document)
