"""The jobs of a study in processes of their own: which are done, and how the others are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from instil import processes
from instil.jsonl import iter_objects
from instil.runs import say
from instil.study.plan import Job, Plan

LAST = "compare"
"""The last stage of every job."""


def work(
    out: Path, plan: Plan, jobs: Sequence[Job], workers: int, threads: int, stop: Callable[[], bool]
) -> None:
    """Do every job that is not done, `workers` at a time; see `processes.work`."""
    done = [job.name for job in jobs if is_done(out / job.name)]

    def told(name: str, seconds: float) -> None:
        done.append(name)
        say(f"study  {len(done)}/{len(jobs)}  {name}: {seconds / 60:.1f} minutes")

    todo = {
        job.name: processes.Job(
            _tell, (out, plan, job, threads), out / job.name / "log.txt", job.needs
        )
        for job in jobs
    }
    processes.work(todo, workers, stop, told, tuple(done))


def is_done(folder: Path) -> bool:
    """Whether the last stage of a job is done."""
    path = folder / "stages.jsonl"
    return path.exists() and any(row["stage"] == LAST for _, row in iter_objects(path))


def _tell(out: Path, plan: Plan, job: Job, threads: int) -> None:
    from instil.study import story  # torch is loaded by who trains, not by who waits

    story.run(out, plan, job, threads)
