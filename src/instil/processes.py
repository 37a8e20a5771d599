"""Jobs in processes of their own, some side by side, each after those that it needs.

Each writes its messages into a log of its own, and must be resumable: whoever is killed, the
caller or a job, goes on where it was when it is started again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from instil.errors import InstilError
from instil.runs import say


@dataclass(frozen=True, slots=True)
class Job:
    """A function of a module with its arguments. `log` gets what it prints, `needs` names the jobs
    that must be done before."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path
    needs: tuple[str, ...] = ()


def work(
    jobs: Mapping[str, Job],
    workers: int,
    stop: Callable[[], bool],
    told: Callable[[str, float], None],
    done: Iterable[str] = (),
) -> None:
    """Do every job that is not in `done`, `workers` at a time, in their order; `told` gets the name
    and the seconds of each. Raises an InstilError when one fails, and KeyboardInterrupt after
    `stop()`; what runs then is asked to stop after its step."""
    context = get_context("spawn")
    finished = set(done)
    waiting = [name for name in jobs if name not in finished]
    running: dict[str, BaseProcess] = {}
    began: dict[str, float] = {}
    try:
        while waiting or running:
            ready = [name for name in waiting if finished.issuperset(jobs[name].needs)]
            for name in ready[: workers - len(running)]:
                waiting.remove(name)
                process: BaseProcess = context.Process(
                    target=_child, args=(os.getpid(), jobs[name])
                )
                process.start()
                running[name], began[name] = process, time.monotonic()
            connection.wait([process.sentinel for process in running.values()], timeout=1.0)
            if stop():
                raise KeyboardInterrupt
            for name in [name for name, process in running.items() if not process.is_alive()]:
                if running.pop(name).exitcode:
                    raise InstilError(
                        f"{name}: failed, see {jobs[name].log}; the same command goes on"
                    )
                finished.add(name)
                told(name, time.monotonic() - began[name])
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _child(parent: int, job: Job) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    try:
        job.function(*job.arguments)
    except InstilError as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: it would hold what the next start wants."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
