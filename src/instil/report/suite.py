"""The page of an evaluation: results.json of `instil eval` -> table.md and report.html.

    instil report --run runs/eval

The page has the figures and the tables, the Markdown the tables alone. Which model is better is not
worked out here: results.json has every difference to the first model with its interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import msgspec

from instil.errors import InstilError, one_line
from instil.jsonl import reading, replace_files
from instil.report import paper, suite_figures
from instil.report.source import Row
from instil.report.suite_tables import (
    Footnotes,
    Key,
    Line,
    Results,
    escape,
    is_judged,
    judgement,
    label,
    line,
    lines,
    markdown,
    printed,
    title,
)
from instil.report.template import fill


class _Figure(msgspec.Struct):
    task: str
    setting: str
    measure: str
    model: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    stderr: float | None = None
    clusters: int = 0
    unit: Literal["share", "points", "bits", "score"] = "share"
    better: Literal["higher", "lower", "neither"] = "neither"
    tax: bool = False
    group: str = ""
    baseline: str = ""
    p: float | None = None
    p_adjusted: float | None = None


class _Row(_Figure):
    main: bool = False
    dropped: float = 0.0
    bare: float = 0.0
    cut: float = 0.0
    note: str = ""


class _Model(msgspec.Struct):
    name: str
    where: str = ""


class _Missing(msgspec.Struct):
    task: str
    why: str


class _Found(msgspec.Struct):
    models: list[_Model]
    results: list[_Row]
    differences: list[_Figure] = msgspec.field(default_factory=list)
    missing: list[_Missing] = msgspec.field(default_factory=list)
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """The rows of all tables, and what stands under them."""

    behaviour: list[Line]
    tax: list[Line]
    judged: list[Line]
    others: list[Line]
    groups: dict[str, list[Line]]
    """Task -> its rows."""
    notes: list[str]


def plain(found: object) -> Any:
    """The same in types of JSON: None for nan and infinity, text for paths, lists for tuples."""
    if isinstance(found, Mapping):
        return {str(name): plain(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(value) for value in found]
    if found is None or isinstance(found, str | bool):
        return found
    if isinstance(found, Integral):
        return int(found)
    if isinstance(found, Real):
        return float(found) if math.isfinite(found) else None
    if isinstance(found, Path):
        return str(found)
    raise TypeError(f"{type(found).__name__} has no place in results.json")


def read(out: Path) -> dict[str, Any]:
    """results.json in `out`, checked, what was left out filled in."""
    path = out / "results.json"
    with reading(path) as file:
        raw = file.read()
    again = "give the directory that `instil eval --out` wrote, or run that command again"
    try:
        json.loads(raw)  # says where a file is torn
        found = msgspec.json.decode(raw, type=_Found)
    except msgspec.ValidationError as error:
        raise InstilError(f"{path}: {one_line(error)}; {again}") from error
    except (ValueError, RecursionError) as error:
        raise InstilError(f"{path}: not JSON ({one_line(error)}); {again}") from error
    names = [model.name for model in found.models]
    if not names or len(set(names)) < len(names):
        raise InstilError(f"{path}: models: expected one or more, of different names; {again}")
    for field in ("results", "differences"):
        for number, row in enumerate(getattr(found, field)):
            if row.model not in names:
                raise InstilError(
                    f"{path}: {field}[{number}].model: {one_line(row.model, 60)!r} is none of "
                    f"the models; {again}"
                )
    return dict(msgspec.to_builtins(found))


def write(out: Path) -> None:
    """table.md and report.html of out/results.json, both or neither."""
    found, name = read(out), out.resolve().name
    pages = {"table.md": table(found, name), "report.html": render(found, name)}
    replace_files({out / file: [text.encode()] for file, text in pages.items()})


def table(found: Row, name: str) -> str:
    """The tables in Markdown."""
    results = Results.of(found)
    tables, columns = _tables(results), [label(model) for model in results.models]
    parts = [f"# instil eval: {escape(one_line(name))}\n", f"{escape(headline(results))}\n"]
    parts += [
        "Means with 95 % intervals in brackets. ▼ and ▲ mark what is told apart from "
        f"{escape(columns[0])} on the same items; on public tasks after Holm's adjustment for all "
        "of them, and a fall there is an alignment tax.\n"
    ]
    for heading, shown in (
        ("Behaviour", tables.behaviour),
        ("Public tasks: the alignment tax", tables.tax),
        ("Other measures", tables.others),
        ("By group", [one for rows in tables.groups.values() for one in rows]),
    ):
        if shown:
            parts.append(f"## {heading}\n\n{markdown(columns, shown)}")
    if tables.judged:
        compared = f"## Preferred to {escape(_compared_with(results))}, by a judge\n\n"
        parts.insert(3, compared + markdown(columns, tables.judged))
    if tables.notes:
        numbered = enumerate(tables.notes, start=1)
        parts.append("## Notes\n\n" + "".join(f"{n}. {escape(note)}\n" for n, note in numbered))
    if found["missing"]:
        rows = [f"- {escape(task)}: {escape(why)}\n" for task, why in _missing(found)]
        parts.append("## Not run\n\n" + "".join(rows))
    return "\n".join(parts)


def render(found: Row, name: str) -> str:
    """The page."""
    results = Results.of(found)
    tables, roles = _tables(results), suite_figures.roles(results.models)
    context = {
        "name": one_line(name),
        "title": f"{one_line(name)} · instil eval",
        "headline": headline(results),
        "models": [(roles[m["name"]], m["name"], one_line(m["where"])) for m in found["models"]],
        "tables": tables,
        "cards": _cards(results, roles),
        "compared_with": _compared_with(results),
        "first_is_judged": any(
            model == results.models[0] and is_judged(row)
            for (_, model), row in results.rows.items()
        ),
        "preference": suite_figures.preference(results, roles),
        "sections": {
            name: suite_figures.by_setting(results, roles, name) for name in suite_figures.SECTIONS
        },
        "tax": suite_figures.tax(results, roles),
        "levels": suite_figures.levels(results, roles),
        "printed": printed(results.keys()),
        "methods": paper.METHODS,
        "sizes": paper.SIZES,
        "unadjusted": sum(not row["tax"] for row in results.differences.values()),
        "missing_tasks": _missing(found),
        "settings": [
            (name, one_line(", ".join(map(str, value)) if isinstance(value, list) else value))
            for name, value in found["settings"].items()
            if value and name != "model"
        ],
    }
    return fill("suite.html", context, model=label)


def headline(results: Results) -> str:
    """What became of the last model, in one sentence."""
    first, last = results.models[0], results.models[-1]
    if first == last:
        settings = {(key.task, key.setting) for key, _ in results.rows}
        return f"{label(first)} on {len(settings)} tasks and settings."
    own = [row for (_, model), row in results.differences.items() if model == last]
    parts = []
    if asked := [row for row in own if not row["tax"] and row["better"] != "neither"]:
        kinds = [judgement(row)[1] for row in asked]
        better, worse = kinds.count("better"), kinds.count("worse")
        parts.append(f"better on {better} and worse on {worse} of {len(asked)} measures")
    if taxed := [row for row in own if row["tax"]]:
        fell = sum(judgement(row)[1] == "fall" for row in taxed)
        parts.append(f"an alignment tax on {fell} of {len(taxed)} public tasks and settings")
    return f"{label(last)} against {label(first)}: {'; '.join(parts) or 'nothing to compare'}."


def _tables(results: Results) -> Tables:
    notes, every = Footnotes(), results.keys()
    main = results.keys(lambda row: row["main"] and not is_judged(row))
    taxed = results.keys(lambda row: row["main"] and row["tax"])
    judged = results.keys(is_judged)
    grouped = results.keys(lambda row: row["group"])
    others = [key for key in every if key not in {*main, *judged, *grouped}]
    by_task: dict[str, list[Key]] = {}
    for key in grouped:
        by_task.setdefault(title(Key(key.task, "", "")), []).append(key)
    return Tables(
        behaviour=lines(results, [key for key in main if key not in taxed], notes),
        tax=lines(results, taxed, notes),
        judged=lines(results, judged, notes),
        others=lines(results, others, notes),
        groups={task: lines(results, keys, notes) for task, keys in by_task.items()},
        notes=notes.texts,
    )


def _compared_with(results: Results) -> str:
    """What a judge saw beside every model: the first of them, or what came with the data."""
    found = {row["baseline"]: None for row in results.rows.values() if is_judged(row)}
    return label(next(iter(found))) if len(found) == 1 else "a baseline"


def _missing(found: Row) -> list[tuple[str, str]]:
    return [(title(Key(row["task"], "", "")), one_line(row["why"])) for row in found["missing"]]


def _cards(results: Results, roles: Mapping[str, str]) -> list[tuple[str, str, list[Any]]]:
    """(title, what is shown, rows of (role, model, figure, interval, mark, kind)) of three."""
    wanted = (
        (f"Preferred to {_compared_with(results)}", results.keys(is_judged)),
        ("Truth", results.keys(lambda r: r["main"] and r["task"] == "truthfulqa")),
    )
    cards: list[tuple[str, str, list[Any]]] = []
    for name, keys in wanted:
        rows, what = [], ""
        for key in keys[:1]:
            shown = line(results, key, Footnotes())
            what = f"{shown.task}: {shown.measure}"
            for model, cell in zip(results.models, shown.cells, strict=True):
                if cell and (key, model) in results.rows:
                    rows.append(
                        (roles[model], model, cell.text, cell.interval, cell.mark, cell.kind)
                    )
        cards.append((name, what, rows))
    rows = []
    for model in results.models[1:]:
        own = [d for (_, m), d in results.differences.items() if m == model and d["tax"]]
        fell = sum(judgement(difference)[1] == "fall" for difference in own)
        if own:
            text = f"{fell} of {len(own)}"
            rows.append((roles[model], model, text, "", "", "fall" if fell else ""))
    return [*cards, ("Alignment tax", "public tasks and settings with a fall beyond chance", rows)]
