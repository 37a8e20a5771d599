"""What a demo directory or a single run directory holds, read without judging it.

Every part may be missing: a report of half a demo is a report. A part that is there and cannot be
read is an `InstilError` with file and line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instil.errors import InstilError
from instil.jsonl import iter_objects, read_records
from instil.records import Labeler, Ranking
from instil.runs import read_info, read_lines
from instil.stats import Estimate

Row = dict[str, Any]

POLICIES = ("base", "base-prompted", "sft", "best-of-16", "ppo", "ppo-ptx")
"""In the order in which the method makes them; other policies follow by name."""


@dataclass(frozen=True)
class Result:
    """One line of evals/results.jsonl."""

    eval: str
    policy: str
    setting: str
    unit: str
    estimate: Estimate


@dataclass(frozen=True)
class RunFiles:
    """One run directory."""

    name: str
    info: Row
    metrics: list[Row]
    samples: list[Row]
    accuracy: list[Row]

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """Steps and values of one metric, where it was logged and is a number."""
        found = [
            (float(row["step"]), float(row[metric]))
            for row in self.metrics
            if is_number(row.get(metric)) and is_number(row.get("step"))
        ]
        return [step for step, _ in found], [value for _, value in found]


@dataclass(frozen=True)
class Source:
    """All that a report can be made of."""

    name: str
    single: bool = False
    """One run alone, not a demo: only its own sections are shown."""
    runs: dict[str, RunFiles] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    stages: list[Row] = field(default_factory=list)
    intake: Row = field(default_factory=dict)
    agreement: Row = field(default_factory=dict)
    rankings: list[Ranking] = field(default_factory=list)
    labelers: list[Labeler] = field(default_factory=list)

    def find(self, name: str, policy: str, setting: str | None = None) -> Estimate | None:
        """The estimate of one eval for one policy; any setting when none is asked for."""
        for result in self.results:
            if (result.eval, result.policy) == (name, policy) and setting in (None, result.setting):
                return result.estimate
        return None

    def settings(self, name: str) -> list[str]:
        """The settings of an eval in the order in which they were written."""
        return list(dict.fromkeys(r.setting for r in self.results if r.eval == name))

    def policies(self, names: Iterable[str]) -> list[str]:
        """The policies that took part in some evals, in the order of the method."""
        wanted = set(names)
        return in_order({r.policy for r in self.results if r.eval in wanted})


def read_source(path: Path) -> Source:
    """Read a demo directory, or the directory of one run."""
    if not path.is_dir():
        raise InstilError(f"{path}: no such directory; give one that `instil demo` or a run wrote")
    story = (path / "stages.jsonl").is_file()
    if (path / "run.json").is_file() and not story:
        run = _run(path)
        return Source(name=path.resolve().name, single=True, runs={run.name: run})
    folders = sorted(p for p in path.iterdir() if (p / "run.json").is_file())
    marks = ("data", "evals", "stages.jsonl")
    if not folders and not any((path / mark).exists() for mark in marks):
        raise InstilError(
            f"{path}: neither a run (run.json) nor a demo (runs, data/, evals/ or stages.jsonl) "
            "is there; give the directory that `instil demo --out` or a run wrote"
        )
    data, evals = path / "data", path / "evals"
    return Source(
        name=path.resolve().name,
        runs={folder.name: _run(folder, folder.name) for folder in folders},
        results=_results(evals / "results.jsonl"),
        samples=_objects(evals / "samples.jsonl"),
        stages=_objects(path / "stages.jsonl"),
        intake=_object(data / "intake.json"),
        agreement=_object(data / "agreement.json"),
        rankings=_records(data / "rankings.jsonl", Ranking),
        labelers=_records(data / "labelers.jsonl", Labeler),
    )


def in_order(policies: Iterable[str]) -> list[str]:
    """Known policies in the order of the method, the others after them by name."""
    found = set(policies)
    return [p for p in POLICIES if p in found] + sorted(found - set(POLICIES))


def to_estimate(row: Any) -> Estimate | None:
    """An estimate from its JSON, where a missing bound is nan; None without a mean."""
    if not isinstance(row, dict) or not is_number(row.get("mean")):
        return None
    stderr, low, high = (_number(row.get(name)) for name in ("stderr", "low", "high"))
    n, clusters = (int(_number(row.get(name), 0.0)) for name in ("n", "clusters"))
    return Estimate(float(row["mean"]), stderr, low, high, n, clusters)


def is_number(value: Any) -> bool:
    """A finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any, default: float = math.nan) -> float:
    return float(value) if is_number(value) else default


def _run(path: Path, name: str = "") -> RunFiles:
    info = read_info(path)
    if not isinstance(info, dict) or not isinstance(info.get("config", {}), dict):
        raise InstilError(
            f"{path / 'run.json'}: not the description of a run; is it the right one?"
        )
    accuracy = _object(path / "accuracy.json").get("accuracy", [])
    return RunFiles(
        name=name or _role(info, path),
        info=info,
        metrics=_lines(path / "metrics.jsonl"),
        samples=_lines(path / "samples.jsonl"),
        accuracy=[row for row in accuracy if isinstance(row, dict)],
    )


def _role(info: Row, path: Path) -> str:
    """Under which name a run stands in a demo, from its command."""
    command = str(info.get("command", path.resolve().name))
    if command == "ppo" and info.get("config", {}).get("ptx_coef"):
        return "ppo-ptx"
    return {"pretrain": "base"}.get(command, command)


def _lines(path: Path) -> list[Row]:
    """Metrics or samples; a run that is going on may have a torn last line."""
    rows = read_lines(path) if path.is_file() else []
    return [row for row in rows if isinstance(row, dict)]


def _objects(path: Path) -> list[Row]:
    return [row for _, row in iter_objects(path)] if path.is_file() else []


def _object(path: Path) -> Row:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InstilError(f"{path}: not JSON ({error}); make it again or remove it") from error
    if not isinstance(value, dict):
        raise InstilError(f"{path}: expected an object {{...}}, got {str(value)[:40]!r}")
    return value


def _records(path: Path, kind: type[Any]) -> list[Any]:
    return read_records(path, kind) if path.is_file() else []


def _results(path: Path) -> list[Result]:
    if not path.is_file():
        return []
    found = []
    for number, row in iter_objects(path):
        estimate = to_estimate(row)
        if not isinstance(row.get("eval"), str) or not isinstance(row.get("policy"), str):
            raise InstilError(f'{path}:{number}: a result names its "eval" and its "policy"')
        if estimate is not None:  # an eval without items has no mean: "not run"
            setting, unit = str(row.get("setting") or ""), str(row.get("unit") or "")
            found.append(Result(row["eval"], row["policy"], setting, unit, estimate))
    return found
