"""The stages of a longer story: each is done once, and what it took is noted.

stages.jsonl has one line per stage that is done, with seconds, peak memory and what the stage
itself reports. A stage that is killed leaves no line and is done again. Stages that do not need
each other may be done side by side, in processes of their own (`Processes`): small models leave
most of a second core idle, and two of them do not.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from instil.jsonl import iter_objects, write_lines
from instil.runs import say

Item = TypeVar("Item")
Found = TypeVar("Found")
Row = dict[str, Any]


def once(out: Path, name: str, stage: Callable[[], Mapping[str, Any]]) -> None:
    """Run a stage unless out/stages.jsonl says that it is done."""
    if name not in _done(out):
        say(f"-- {name}")
        _note(out, name, timed(stage))


def side_by_side(
    out: Path, stages: Mapping[str, Callable[[], Mapping[str, Any]]], processes: Processes
) -> None:
    """`once` for stages that do not need each other; those that take longest stand first. Beside
    its own seconds each notes `waited`: for how long nothing else was waited for."""
    done = _done(out)
    waiting = {name: stage for name, stage in stages.items() if name not in done}
    if waiting:
        say(f"-- {', '.join(waiting)}")
    before = time.monotonic()
    for number, row in processes.each(timed, list(waiting.values())):
        now = time.monotonic()
        _note(out, list(waiting)[number], row | {"waited": round(now - before, 2)})
        before = now


def timed(stage: Callable[[], Mapping[str, Any]]) -> Row:
    """Run a stage; what it took, and what it reports."""
    forget_peak()
    started = time.monotonic()
    found = stage()
    seconds = round(time.monotonic() - started, 2)
    return {"seconds": seconds, "peak_mb": peak_mb(), **found}


class Processes:
    """A number of processes that work side by side, begun when there is something for them to do;
    one is this process itself. Use as a context manager.

    They end with this process, however it ends, so that they hold nothing which the next start
    wants. `prepare` is called in each of them first. What they are given and return is pickled.
    """

    def __init__(
        self,
        count: int,
        prepare: Callable[[], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.count, self._stop = count, stop
        self._pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), _begin, (os.getpid(), prepare)
        )

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for process in multiprocessing.active_children() if kind else ():
            process.terminate()  # a run stops after its step
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, function: Callable[[Item], Found], items: Sequence[Item]
    ) -> Iterator[tuple[int, Found]]:
        """The number of an item and `function(item)`, as they come. Raises KeyboardInterrupt after
        `stop()`."""
        if self.count == 1:
            yield from ((number, function(item)) for number, item in enumerate(items))
            return
        waiting: dict[Future[Found], int] = {
            self._pool.submit(function, item): number for number, item in enumerate(items)
        }
        while waiting:
            ready = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done
            if self._stop():
                raise KeyboardInterrupt
            for future in ready:
                yield waiting.pop(future), future.result()

    def map(self, function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        """`function` of every item, in their order."""
        found = dict(self.each(function, items))
        return [found[number] for number in range(len(items))]


def end_with(parent: int) -> None:
    """From now on, end this process when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(parent: int, prepare: Callable[[], None] | None) -> None:
    os.setpgrp()  # a Ctrl-C is the parent's, which passes it on
    end_with(parent)
    if prepare:
        prepare()


def _done(out: Path) -> set[str]:
    return {row["stage"] for row in _rows(out)}


def _rows(out: Path) -> list[Row]:
    path = out / "stages.jsonl"
    return [row for _, row in iter_objects(path)] if path.exists() else []


def _note(out: Path, name: str, row: Row) -> None:
    write_lines(out / "stages.jsonl", [*_rows(out), {"stage": name, **row}])


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
