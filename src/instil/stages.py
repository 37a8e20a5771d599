"""The stages of a longer story: each is done once, and what it took is noted.

stages.jsonl has one line per stage that is done, with seconds, peak memory and what the stage
itself reports. A stage that is killed leaves no line and is done again. Several processes may do
stages of one story at a time.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.jsonl import iter_objects, write_lines
from instil.processes import Job, work
from instil.runs import say


def once(out: Path, name: str, stage: Callable[[], Mapping[str, Any]]) -> None:
    """Run a stage unless out/stages.jsonl says that it is done."""
    if any(row["stage"] == name for row in stages_done(out)):
        return
    say(f"-- {name}")
    forget_peak()
    started = time.monotonic()
    found = stage()
    out.mkdir(parents=True, exist_ok=True)
    row = {"stage": name, "seconds": round(time.monotonic() - started, 2), "peak_mb": peak_mb()}
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed
        write_lines(out / "stages.jsonl", [*stages_done(out), {**row, **found}])
    finally:
        os.close(folder)


def side_by_side(
    out: Path,
    names: Sequence[str],
    do: Callable[..., None],
    given: tuple[Any, ...],
    threads: int,
    stop: Callable[[], bool],
) -> None:
    """Those of the stages that are not done, each in a process that calls do(name, its share of the
    threads, *given); nothing where there is one thread or one stage. Small models use two processes
    of one thread better than one process of two. Each writes what it says into out/NAME.log."""
    done = {row["stage"] for row in stages_done(out)}
    todo = [name for name in names if name not in done]
    workers = min(threads, len(todo))
    if workers > 1:
        say(f"-- {', '.join(todo)}: side by side, see {out}/*.log")
        jobs = {
            name: Job(do, (name, threads // workers, *given), out / f"{name}.log") for name in todo
        }
        work(jobs, workers, stop, lambda name, seconds: say(f"{name}: {seconds:.0f} s"))


def stages_done(out: Path) -> list[dict[str, Any]]:
    """The lines of out/stages.jsonl."""
    path = out / "stages.jsonl"
    return [row for _, row in iter_objects(path)] if path.exists() else []


def forget_peak() -> None:
    """Let Linux count the peak memory of this process anew; elsewhere nothing happens."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float | None:
    """Peak memory of this process since `forget_peak`, in MiB; None where it is not counted."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(peaks[0]) / 1024, 1) if peaks else None
