"""The stages of a longer story: each is done once, and what it took is noted.

stages.jsonl has one line per stage that is done, with seconds, peak memory and what the stage
itself reports. A stage that is killed leaves no line and is done again. Stages that do not need
each other may be done side by side, in processes of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instil.jsonl import iter_objects, write_lines
from instil.processes import Processes, forget_peak, peak_mb
from instil.runs import say

Row = dict[str, Any]
Stage = Callable[[], Mapping[str, Any]]


def once(out: Path, name: str, stage: Stage) -> None:
    """Run a stage unless out/stages.jsonl says that it is done."""
    if name not in _done(out):
        say(f"-- {name}")
        _note(out, name, timed(stage))


def side_by_side(out: Path, stages: Mapping[str, Stage], processes: Processes) -> None:
    """`once` for stages that do not need each other; a single one is done in this process, and of
    several those that take longest stand first. Of several each notes, beside its own seconds,
    `waited`: for how long nothing else was waited for."""
    if len(stages) == 1:
        once(out, *next(iter(stages.items())))
        return
    done = _done(out)
    waiting = {name: stage for name, stage in stages.items() if name not in done}
    if waiting:
        say(f"-- {', '.join(waiting)}")
    before = time.monotonic()
    for number, row in processes.each(timed, list(waiting.values())):
        now = time.monotonic()
        _note(out, list(waiting)[number], row | {"waited": round(now - before, 2)})
        before = now


def timed(stage: Stage) -> Row:
    """Run a stage; what it took, and what it reports."""
    forget_peak()
    started = time.monotonic()
    found = stage()
    seconds = round(time.monotonic() - started, 2)
    return {"seconds": seconds, "peak_mb": peak_mb(), **found}


def _done(out: Path) -> set[str]:
    return {row["stage"] for row in _rows(out)}


def _rows(out: Path) -> list[Row]:
    path = out / "stages.jsonl"
    return [row for _, row in iter_objects(path)] if path.exists() else []


def _note(out: Path, name: str, row: Row) -> None:
    write_lines(out / "stages.jsonl", [*_rows(out), {"stage": name, **row}])
