"""The lead's pages about work: progress, batches. The others are in `lead_*.py`.

Viewers see the figures and the ids of people, never their names; they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa
from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import batches, schema
from instil.labeling.batches import Progress
from instil.labeling.blind import names_author
from instil.labeling.planning import Plan
from instil.labeling.web import lead_figures, lead_people, lead_task, lead_words
from instil.labeling.web.lead_parts import PURPOSES, WORK
from instil.labeling.web.route import (
    LEADS,
    MIB,
    VIEWERS,
    NotFound,
    Route,
    Seen,
    action,
    page,
    redirect,
    render,
)

UPLOAD = 256 * MIB
"""The most that a new batch may bring; `instil batch` takes any size."""
TASKS = 100
"""Tasks on one page of a batch."""

NUMBERS = {
    "quota_training": "labels by training labelers",
    "quota_held_out": "labels by held-out labelers",
    "responses_per_task": "responses of a task",
    "word_budget": "words of a task",
    "tasks": "prompts to write",
    "priority": "priority",
}


def progress(seen: Seen) -> Response:
    """Every batch and how far it is."""
    found = batches.progress(seen.db)
    return render(
        seen,
        "lead.html",
        title="Progress",
        batches=sorted(found, key=lambda batch: batch.state == "closed"),
        totals=_totals(seen, found),
        leads=seen.account.role in LEADS,
        words=WORK,
    )


def new_batch(seen: Seen) -> Response:
    """The form of a new batch; sent, it makes all of the batch or nothing."""
    typed: dict[str, Any] = {
        "name": "",
        "kind": "ranking",
        "purpose": "training",
        "baseline": "",
        "with_valid": False,
        "quota_training": 1,
        "quota_held_out": 0,
        "responses_per_task": 9,
        "word_budget": 0,
        "tasks": 0,
        "priority": 0,
    }
    problem = ""
    if seen.method == "POST":
        typed |= {name: seen.form[name].strip() for name in typed if name in seen.form}
        typed["with_valid"] = "with_valid" in seen.form
        sent = [upload for uploads in seen.uploads.values() for upload in uploads]
        try:
            plan = Plan(
                **typed | {name: _whole(typed[name], says) for name, says in NUMBERS.items()}
            )
            prompts = [upload.path for upload in seen.uploads.get("prompts", ())]
            responses = [upload.path for upload in seen.uploads.get("responses", ())]
            if len(responses) > 9:
                raise InstilError(f"{len(responses)} files of responses; at most 9 are taken here")
            made = batches.create(
                seen.db, seen.account, plan, prompts[0] if prompts else None, responses
            )
            return redirect(f"/lead/batches/{made.batch_id}?saved")
        except InstilError as error:
            problem = str(error)
            for upload in sent:  # the reader knows the file by the name it had
                problem = problem.replace(str(upload.path), upload.name)
    return render(
        seen,
        "batch_new.html",
        422 if problem else 200,
        title="Start a batch",
        typed=typed,
        problem=problem,
        kinds=list(WORK.items()),
        purposes=list(PURPOSES.items()),
        most=f"{UPLOAD // MIB} MiB",
    )


def batch(seen: Seen) -> Response:
    """One batch: how far it is, what was left out, its tasks."""
    found = _batch(seen)
    with seen.db.read() as connection:
        tasks = _tasks(connection, found.batch_id, seen.query.get("after", ""))
        naming = _naming(connection, found)
    return render(
        seen,
        "batch.html",
        title=found.name,
        batch=found,
        tasks=tasks[:TASKS],
        after=tasks[TASKS - 1].id if len(tasks) > TASKS else None,
        naming=naming,
        more_naming=found.counts is not None and found.counts.named_authors > len(naming),
        leads=seen.account.role in LEADS,
        words=WORK,
    )


def batch_state(seen: Seen) -> Response:
    """Open, pause or close a batch."""
    found = _batch(seen)
    batches.set_state(seen.db, seen.account, found.batch_id, seen.form.get("state", ""))  # type: ignore[arg-type]
    return redirect(f"/lead/batches/{found.batch_id}?saved")


def _batch(seen: Seen) -> Progress:
    found = batches.progress(seen.db, seen.path["id"])
    if not found:
        raise NotFound
    return found[0]


def _whole(typed: Any, says: str) -> int:
    try:
        return int(typed)
    except ValueError as error:
        raise InstilError(f"{says}: {typed!r} is not a whole number") from error


def _totals(seen: Seen, found: Iterable[Progress]) -> list[tuple[str, str, str]]:
    label, message = schema.label, schema.message
    kept = label.c.revision == 1, label.c.status != "skipped"
    day = seen.db.now() - 24 * 3_600_000
    with seen.db.read() as connection:
        lately, people = connection.execute(
            sa.select(sa.func.count(), sa.func.count(label.c.labeler_id.distinct())).where(
                *kept, label.c.created_at > day
            )
        ).one()
        later = message.alias()
        unanswered = connection.execute(
            sa.select(sa.func.count()).where(
                message.c.author_id == message.c.labeler_id,
                ~sa.exists().where(
                    later.c.task_id == message.c.task_id,
                    later.c.labeler_id == message.c.labeler_id,
                    later.c.id > message.c.id,
                ),
            )
        ).scalar_one()
    seats = [seats for batch in found for seats in batch.pools.values() if batch.state == "open"]
    left = sum(one.free for one in seats)
    held = sum(one.held for one in seats)
    return [
        ("Labels in the last 24 hours", f"{lately:,}", f"by {people} people"),
        ("Still to do", f"{left + held:,}", f"{held:,} of them being done now"),
        ("Questions", f"{unanswered:,}", "without an answer"),
    ]


def _tasks(connection: sa.Connection, batch_id: str, after: str) -> list[Any]:
    """One page of a batch's tasks, and one more if there are more."""
    label, task = schema.label, schema.task

    def count(*conditions: sa.ColumnElement[bool]) -> Any:
        counted = sa.select(sa.func.count()).where(
            label.c.task_id == task.c.id, label.c.revision == 1, *conditions
        )
        return counted.scalar_subquery()

    return list(
        connection.execute(
            sa.select(
                task.c.id,
                task.c.state,
                sa.func.substr(sa.func.coalesce(schema.prompt.c.text, ""), 1, 160).label("text"),
                count(label.c.status != "skipped").label("labels"),
                count(label.c.status == "skipped").label("skipped"),
            )
            .outerjoin(schema.prompt, schema.prompt.c.id == task.c.prompt_id)
            .where(task.c.batch_id == batch_id, task.c.id > after)
            .order_by(task.c.id)
            .limit(TASKS + 1)
        )
    )


class _Naming(NamedTuple):
    task_id: str
    number: int
    words: str


def _naming(connection: sa.Connection, of: Progress) -> list[_Naming]:
    """The first responses of a batch that name their author."""
    rows = (
        sa.select(schema.task.c.id, schema.task_response.c.place, schema.response.c.text)
        .join(schema.task_response, schema.task_response.c.task_id == schema.task.c.id)
        .join(schema.response, schema.response.c.id == schema.task_response.c.response_id)
        .where(schema.response.c.id.in_(of.counts.naming if of.counts else ()))
        .where(schema.task.c.batch_id == of.batch_id)
        .order_by(schema.task.c.id, schema.task_response.c.place)
    )
    return [
        _Naming(task_id, place + 1, names_author(text))
        for task_id, place, text in connection.execute(rows)
    ]


ROUTES: list[Route] = [
    page("/lead", progress, roles=VIEWERS),
    page(
        "/lead/batches/new",
        new_batch,
        roles=LEADS,
        methods=("GET", "POST"),
        limit=UPLOAD,
        seconds=60,
    ),
    page("/lead/batches/{id}", batch, roles=VIEWERS),
    action("/lead/batches/{id}/state", batch_state, roles=LEADS),
    *lead_task.ROUTES,
    *lead_figures.ROUTES,
    *lead_people.ROUTES,
    *lead_words.ROUTES,
]
