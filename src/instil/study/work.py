"""Jobs in processes of their own, some side by side, each after those that it needs.

Each job writes its messages to log.txt in its folder, and is itself resumable: whoever is killed,
the study or one of its jobs, goes on where it was.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from instil.errors import InstilError
from instil.jsonl import iter_objects
from instil.processes import end_with
from instil.runs import say
from instil.study.plan import Job, Plan

LAST = "compare"
"""The last stage of every job."""


def work(
    out: Path, plan: Plan, jobs: Sequence[Job], workers: int, threads: int, stop: Callable[[], bool]
) -> None:
    """Do every job that is not done, `workers` at a time. Raises an InstilError when one fails, and
    KeyboardInterrupt after `stop()`; what runs then is asked to stop after its step."""
    context = get_context("spawn")
    done = {job.name for job in jobs if is_done(out / job.name)}
    waiting = [job for job in jobs if job.name not in done]
    running: dict[str, BaseProcess] = {}
    began: dict[str, float] = {}
    try:
        while waiting or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                process: BaseProcess = context.Process(
                    target=_child, args=(os.getpid(), out, plan, job, threads)
                )
                process.start()
                running[job.name], began[job.name] = process, time.monotonic()
            connection.wait([process.sentinel for process in running.values()], timeout=1.0)
            if stop():
                raise KeyboardInterrupt
            for name in [name for name, process in running.items() if not process.is_alive()]:
                if running.pop(name).exitcode:
                    log = out / name / "log.txt"
                    raise InstilError(f"{name}: failed, see {log}; the same command goes on")
                done.add(name)
                minutes = (time.monotonic() - began[name]) / 60
                say(f"study  {len(done)}/{len(jobs)}  {name}: {minutes:.1f} minutes")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def is_done(folder: Path) -> bool:
    """Whether the last stage of a job is done."""
    path = folder / "stages.jsonl"
    return path.exists() and any(row["stage"] == LAST for _, row in iter_objects(path))


def _child(parent: int, out: Path, plan: Plan, job: Job, threads: int) -> None:
    os.setpgrp()  # a Ctrl-C is the parent's, which passes it on
    end_with(parent)  # it would hold what the next start wants
    folder = out / job.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    from instil.study import story  # torch is loaded by who trains, not by who waits

    try:
        story.run(out, plan, job, threads)
    except InstilError as error:
        say(f"{job.name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
