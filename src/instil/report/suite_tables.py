"""The figures of `instil eval` as people read them: rows of task and setting, columns of models.

A figure that is told apart from the first model's is marked with a sign and in words: the 95 %
interval of the paired difference leaves 0, and for public tasks the p-value that is adjusted for
all of them (Holm) is below 0.05. Nothing is computed here; differences come with the results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from instil.errors import one_line
from instil.report import paper
from instil.report.source import Row
from instil.report.tables import LABELS, minus, words

TASKS = {
    "instructions": "Users' prompts",
    "truthfulqa": "TruthfulQA",
    "truthfulqa_mc": "TruthfulQA choices",
    "real_toxicity": "RealToxicityPrompts",
    "winogender": "Winogender",
    "crows_pairs": "CrowS-Pairs",
    "closed_domain": "Closed domain",
    "squad_v1": "SQuAD v1.1",
    "squad_v2": "SQuAD v2",
    "drop": "DROP",
    "quac": "QuAC",
    "hellaswag": "HellaSwag",
    "sst": "SST",
    "rte": "RTE",
    "wsc": "WSC",
    "translation": "French to English",
    "cnn_dm": "CNN/DM",
    "tldr": "TL;DR",
}
SETTINGS = {
    "qa": "QA prompt",
    "instruction": "instruction prompt",
    "qa+instruction": "QA + instruction prompt",
    "basic": "basic prompt",
    "respectful": "respectful prompt",
    "biased": "biased prompt",
    "prompts": "prompts given",
    "mt_bench": "MT-bench",
    "vicuna_bench": "Vicuna",
    "alpaca_eval": "AlpacaEval",
}
MEASURES = {
    "true_informative": "true and informative",
    "nearer_true": "nearer to a true answer",
    "mc1": "MC1",
    "mc2": "MC2",
    "f1": "F1",
    "f1_all": "F1, all questions",
    "exact": "exact match",
    "heq": "as good as a person",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "accuracy_total": "accuracy by total probability",
    "toxic": "toxic",
    "stereotype": "stereotype preferred",
    "male": "male pronoun preferred",
    "words": "length in words",
    "empty": "empty responses",
    "repeats": "responses that repeat themselves",
    "win_rate": "preferred",
    "win_rate_length_controlled": "preferred, at equal length",
    "first_preferred": "verdicts for what was shown first",
    "same_in_both_orders": "same verdict in both orders",
    "unreadable": "unreadable verdicts",
}
JUDGED = ("win_rate", "win_rate_length_controlled")
"""Measures of a language model that judges, each a comparison with another model."""
UNITS = {"points": "of 100", "bits": "bits"}
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Key:
    """What one row of a table is about."""

    task: str
    setting: str
    measure: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's figure."""

    text: str
    interval: str = ""
    n: str = ""
    """How many items, where the models differ in it."""
    mark: str = ""
    """Signs and words against the first model: "▲ better", "▼ alignment tax"."""
    kind: str = ""
    """Of the mark, for its colour: "better", "worse", "fall" or nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row; a model without a figure has None."""

    task: str
    """Task and setting."""
    measure: str
    n: str
    cells: list[Cell | None]
    paper: str = ""
    notes: list[int] = field(default_factory=list)
    """Numbers of its footnotes."""


@dataclass(frozen=True)
class Results:
    """What `suite.read` gives, ready to be looked up."""

    models: list[str]
    rows: Mapping[tuple[Key, str], Row]
    """(key, model) -> row."""
    differences: Mapping[tuple[Key, str], Row]
    """(key, model) -> difference to the first model."""

    @classmethod
    def of(cls, found: Row) -> Results:
        """From results.json; a figure that is not a number is left out."""
        return cls(
            models=[model["name"] for model in found["models"]],
            rows=_by_key(found["results"]),
            differences=_by_key(found["differences"]),
        )

    def keys(self, wanted: Callable[[Row], Any] = lambda row: True) -> list[Key]:
        """What the rows that are `wanted` are about, in their order."""
        return list(dict.fromkeys(key for (key, _), row in self.rows.items() if wanted(row)))

    def unit(self, key: Key) -> str:
        """In what its figures are."""
        return str(self.of_key(key)[0][1]["unit"])

    def of_key(self, key: Key) -> list[tuple[str, Row]]:
        """Models and their rows, in the order of the models."""
        return [(m, self.rows[key, m]) for m in self.models if (key, m) in self.rows]


class Footnotes:
    """Numbers footnotes in the order in which they are first needed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> int:
        """The number of a footnote."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def is_judged(row: Row) -> bool:
    """Whether it says how often a judge prefers a model to another."""
    return row["measure"] in JUDGED and not row["group"]


def label(name: str) -> str:
    """How a model is called: known policies as in the paper, others as they were named."""
    return LABELS.get(name, one_line(name, 60))


def title(key: Key) -> str:
    """Task, setting and group: "TruthfulQA, QA prompt"."""
    task = TASKS.get(key.task) or one_line(words(key.task), 80)
    return ", ".join(filter(None, (task, setting_name(key.setting), one_line(key.group, 80))))


def setting_name(setting: str) -> str:
    """A setting in words."""
    return SETTINGS.get(setting) or one_line(setting, 80)


def measure_name(measure: str) -> str:
    """A measure in words."""
    return MEASURES.get(measure) or one_line(words(measure), 80)


def amount(value: float, unit: str, bare: bool = False) -> str:
    """A number in its unit: shares in per cent; `bare` leaves the sign out."""
    if unit == "share":
        text = f"{100 * value:.1f}" + ("" if bare else "\u00a0%")
    else:
        text = f"{value:.1f}" if unit == "points" or abs(value) >= 10 else f"{value:.3f}"
    return minus(text)


def judgement(difference: Row | None) -> tuple[str, str]:
    """(mark, kind) of a difference to the first model; both empty within chance."""
    if difference is None or difference["low"] is None or difference["high"] is None:
        return "", ""
    rise, adjusted = difference["mean"] > 0, difference["p_adjusted"]
    if adjusted is not None or difference["tax"]:
        beyond = adjusted is not None and adjusted < SIGNIFICANT
    elif difference.get("p") is not None:
        beyond = difference["p"] < SIGNIFICANT
    else:
        beyond = difference["low"] > 0 or difference["high"] < 0
    if not beyond:
        return "", ""
    sign = "▲" if rise else "▼"
    if difference["better"] == "neither":
        return f"{sign} {'higher' if rise else 'lower'}", ""
    if rise == (difference["better"] == "higher"):
        return f"{sign} better", "better"
    return (f"{sign} alignment tax", "fall") if difference["tax"] else (f"{sign} worse", "worse")


def line(results: Results, key: Key, footnotes: Footnotes) -> Line:
    """The row of a table."""
    found = dict(results.of_key(key))
    first = next(iter(found.values()))
    sizes = {_size(row) for row in found.values()}
    cells = {
        model: _cell(row, results.differences.get((key, model)), len(sizes) > 1)
        for model, row in found.items()
    }
    if is_judged(first):
        cells.setdefault(first["baseline"], Cell("—", "baseline"))
    unit = UNITS.get(first["unit"], "")
    notes = []
    if not key.group:
        notes = [one_line(row["note"], 2000) for row in found.values() if row["note"]]
        notes += [
            f"{title(key)}: prompts {happened}: {models}"
            for name, happened in (
                ("dropped", "whose first solved examples were left out for want of context"),
                ("bare", "that lost all of them, so that nothing is left of the few shots"),
                ("cut", "whose beginning was cut off for want of context"),
            )
            if (models := _shares(found, name))
        ]
    return Line(
        task=title(key),
        measure=", ".join(filter(None, (measure_name(key.measure), unit))),
        n=sizes.pop() if len(sizes) == 1 else "",
        cells=[cells.get(model) for model in results.models],
        paper="" if key.group else beside(key),
        notes=list(dict.fromkeys(map(footnotes.add, notes))),
    )


def lines(results: Results, keys: Iterable[Key], footnotes: Footnotes) -> list[Line]:
    """The rows of a table."""
    return [line(results, key, footnotes) for key in keys]


def beside(key: Key) -> str:
    """The paper's figures of the 175B models: "GPT 25.1 % / SFT 27.1 % / ..."."""
    if key.task == "closed_domain" and key.measure == "hallucination":
        return paper.MEASURES["hallucination"] + " (all sizes, by labelers)"
    counterpart = table_14(key.task, key.setting, key.measure)
    if counterpart is None:
        return ""
    unit, figures = counterpart
    pairs = zip(paper.METHODS, (sizes[-1] for sizes in figures), strict=True)
    return " / ".join(f"{method}\u00a0{amount(figure, unit)}" for method, figure in pairs)


def table_14(task: str, setting: str, measure: str) -> tuple[str, list[list[float]]] | None:
    """(unit, method -> size -> figure) where Table 14 has a counterpart, else None."""
    row = paper.TABLE_14.get(f"{task}/{setting}/{measure}")
    if row is None:
        return None
    unit, *figures = row.split()
    values, sizes = [float(figure) for figure in figures], len(paper.SIZES)
    return unit, [values[at : at + sizes] for at in range(0, len(values), sizes)]


def printed(keys: Iterable[Key]) -> list[tuple[str, str, list[str]]]:
    """(task, measure, figure of each method and size) of Table 14, for tasks that were run."""
    rows = []
    for key in keys:
        if not key.group and (found := table_14(key.task, key.setting, key.measure)):
            unit, figures = found
            texts = [amount(figure, unit, bare=True) for sizes in figures for figure in sizes]
            measure = f"{measure_name(key.measure)}, {UNITS.get(unit, '%')}"
            rows.append((title(key), measure, texts))
    return rows


def markdown(columns: Sequence[str], shown: Sequence[Line]) -> str:
    """A table in Markdown; the last column is the paper's, if any row has one."""
    with_paper = any(one.paper for one in shown)
    head = ["task, setting: measure", "n", *columns]
    head += ["paper, 175B: GPT / SFT / PPO / PPO-ptx"] if with_paper else []
    rows = [head, ["---", *["---:"] * (1 + len(columns)), *["---"] * with_paper]]
    for one in shown:
        marks = "".join(f"<sup>{number}</sup>" for number in one.notes)
        cells = [_plain(cell) if cell else "not run" for cell in one.cells]
        rows.append([escape(f"{one.task}: {one.measure}") + marks, one.n, *cells])
        rows[-1] += [escape(one.paper)] if with_paper else []
    head[2 : 2 + len(columns)] = [escape(column) for column in columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def escape(text: str) -> str:
    """Text that Markdown and the HTML in it leave as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~&$@])", r"\\\1", text)


def _plain(cell: Cell) -> str:
    interval = f" [{cell.interval.replace(' to ', ', ')}]" if cell.interval else ""
    mark = f" **{cell.mark}**" if cell.mark else ""
    return cell.text + interval + (f" ({cell.n})" if cell.n else "") + mark


def _cell(row: Row, difference: Row | None, with_size: bool) -> Cell:
    unit, low, high = row["unit"], row["low"], row["high"]
    known = low is not None and high is not None
    interval = f"{amount(low, unit, bare=True)} to {amount(high, unit, bare=True)}" if known else ""
    mark, kind = judgement(difference)
    if is_judged(row) and known:  # a comparison in itself
        mark, kind = judgement(
            {**row, "low": low - 0.5, "high": high - 0.5, "mean": row["mean"] - 0.5}
        )
    cell = Cell(amount(row["mean"], unit), interval, mark=mark, kind=kind)
    return replace(cell, n=_size(row)) if with_size else cell


def _size(row: Row) -> str:
    sources = row["clusters"]
    return f"n {row['n']:,}" + (f" from {sources:,}" if 0 < sources < row["n"] else "")


def _shares(found: Mapping[str, Row], name: str) -> str:
    """ "base 12.0 %, SFT 3.1 %": of each model to which something happened."""
    return ", ".join(
        f"{label(model)} {amount(row[name], 'share')}" for model, row in found.items() if row[name]
    )


def _by_key(rows: Sequence[Row]) -> dict[tuple[Key, str], Row]:
    return {
        (Key(row["task"], row["setting"], row["measure"], row["group"]), row["model"]): row
        for row in rows
        if row["mean"] is not None and not math.isnan(row["mean"])
    }
