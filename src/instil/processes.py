"""Work side by side in processes of their own: small models leave most of a second core idle, and
two of them do not.

Not `concurrent.futures`: its processes take work from one queue under one lock, so that ending one
that waits for work can leave the others stuck, and the queue holds an item more than there are
processes, which is begun after a stop.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from instil.errors import InstilError

Item = TypeVar("Item")
Found = TypeVar("Found")
Prepare = Callable[[], None] | None


class Processes:
    """A number of processes that work side by side, begun when there is something for them to do;
    one is this process itself. Use as a context manager; after an error there is no more of them.

    They end with this process, however it ends, so that they hold nothing which the next start
    wants. `prepare` is called in each of them first. What they are given and return is pickled.
    """

    def __init__(
        self, count: int, prepare: Prepare = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.count, self._prepare, self._stop = count, prepare, stop
        self._begun: dict[Connection, BaseProcess] = {}
        self._busy: dict[Connection, int] = {}
        self._peaks: dict[Connection, float | None] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._busy:
            self._begun[pipe].terminate()  # a run stops after its step
        for pipe in self._begun:
            pipe.close()  # those that wait for work end
        for process in self._begun.values():
            process.join()

    def each(
        self, function: Callable[[Item], Found], items: Sequence[Item]
    ) -> Iterator[tuple[int, Found]]:
        """The number of an item and `function(item)`, as they come. Raises what `function` raises,
        an InstilError when a process was killed, and KeyboardInterrupt after `stop()`."""
        waiting = list(enumerate(items))
        self._peaks = {}
        while waiting and self.count == 1:
            if self._stop():
                raise KeyboardInterrupt
            number, item = waiting.pop(0)
            yield number, function(item)
        while len(self._begun) < min(self.count, len(waiting)):
            self._begin()
        while waiting or self._busy:
            for pipe in [pipe for pipe in self._begun if pipe not in self._busy][: len(waiting)]:
                self._busy[pipe], item = waiting.pop(0)
                with suppress(BrokenPipeError):  # it is gone, which reading from it will tell
                    pipe.send((function, item))
            ready = connection.wait(list(self._busy), timeout=1.0)
            if self._stop():
                raise KeyboardInterrupt
            answers = [(self._busy.pop(pipe), *self._hear(pipe)) for pipe in ready]  # type: ignore[arg-type, call-overload]
            yield from ((number, found) for number, found, error in answers if error is None)
            for _, _, error in answers:
                if error is not None:
                    raise error

    def map(self, function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        """`function` of every item, in their order."""
        found = dict(self.each(function, items))
        return [found[number] for number in range(len(items))]

    def peak_mb(self) -> float | None:
        """Peak memory of this process and of those that worked at the last `each`, added up, in
        MiB; None where it is not counted."""
        peaks = [peak_mb(), *self._peaks.values()]
        return None if None in peaks else round(sum(filter(None, peaks)), 1)

    def _begin(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, os.getpid(), self._prepare), daemon=True
        )
        process.start()
        theirs.close()
        self._begun[ours] = process

    def _hear(self, pipe: Connection) -> tuple[Any, Exception | None]:
        try:
            found, error, peak = pipe.recv()
        except (EOFError, OSError):
            process = self._begun.pop(pipe)
            process.join()
            return None, InstilError(
                f"a process that worked beside this one ended ({process.exitcode}; -9 is often for "
                "want of memory); the same command goes on"
            )
        self._peaks[pipe] = max(peak or 0, self._peaks.get(pipe) or 0) if peak else None
        return found, error


def _serve(pipe: Connection, parent: int, prepare: Prepare) -> None:
    """What a process does: it hears a function and an item, and answers."""
    os.setpgrp()  # a Ctrl-C is the parent's, which passes it on
    end_with(parent)
    if prepare:
        prepare()
    try:
        while True:
            pipe.send(_answer(*pipe.recv()))
    except (EOFError, OSError):  # nobody is there any more
        return
    except KeyboardInterrupt:
        sys.exit(130)


def _answer(
    function: Callable[[Item], Found], item: Item
) -> tuple[Found | None, Exception | None, float | None]:
    forget_peak()
    try:
        return function(item), None, peak_mb()
    except Exception as error:
        error.add_note(f"In a process of its own:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RuntimeError("".join(traceback.format_exception(error))), None
        return None, error, None


def end_with(parent: int) -> None:
    """From now on, end this process when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
