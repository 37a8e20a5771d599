"""The stages of a longer story: each is done once, and what it took is noted.

stages.jsonl has one line per stage that is done, with seconds, peak memory and what the stage
itself reports. A stage that is killed leaves no line and is done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instil.jsonl import iter_objects, write_lines
from instil.runs import say


def once(out: Path, name: str, stage: Callable[[], Mapping[str, Any]]) -> None:
    """Run a stage unless out/stages.jsonl says that it is done."""
    path = out / "stages.jsonl"
    done = [row for _, row in iter_objects(path)] if path.exists() else []
    if any(row["stage"] == name for row in done):
        return
    say(f"-- {name}")
    forget_peak()
    started = time.monotonic()
    found = stage()
    row = {"stage": name, "seconds": round(time.monotonic() - started, 2), "peak_mb": peak_mb()}
    write_lines(path, [*done, {**row, **found}])


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
