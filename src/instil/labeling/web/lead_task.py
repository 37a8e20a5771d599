"""The lead's page of one task: who wrote what, and all that was said of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import audit, schema
from instil.labeling.blind import names_author
from instil.labeling.web.lead_parts import names_of
from instil.labeling.web.route import (
    LEADS,
    NotFound,
    Route,
    Seen,
    action,
    page,
    redirect,
    render,
)


class _Revision(NamedTuple):
    number: int
    at: int
    active_ms: int
    lines: list[tuple[str, str]]


def task(seen: Seen) -> Response:
    """One task: its prompt, its responses with their policies, everything that was said of it."""
    task_id = seen.path["id"]
    with seen.db.read() as connection:
        found = connection.execute(
            sa.select(schema.task).where(schema.task.c.id == task_id)
        ).first()
        if found is None:
            raise NotFound
        of = connection.execute(
            sa.select(schema.batch).where(schema.batch.c.id == found.batch_id)
        ).one()
        prompt = connection.execute(
            sa.select(schema.prompt).where(schema.prompt.c.id == found.prompt_id)
        ).first()
        responses = connection.execute(
            sa.select(schema.response)
            .join(schema.task_response, schema.task_response.c.response_id == schema.response.c.id)
            .where(schema.task_response.c.task_id == task_id)
            .order_by(schema.task_response.c.place)
        ).all()
        numbers = {response.id: number for number, response in enumerate(responses, start=1)}
        labels = _labels(connection, task_id, numbers)
        threads: dict[str, list[Any]] = defaultdict(list)
        for message in connection.execute(
            sa.select(schema.message)
            .where(schema.message.c.task_id == task_id)
            .order_by(schema.message.c.id)
        ):
            threads[message.labeler_id].append(message)
        names = names_of(seen, connection)
    return render(
        seen,
        "task.html",
        title="Task",
        task=found,
        batch=of,
        prompt=prompt,
        responses=[{**r._mapping, "named": names_author(r.text)} for r in responses],
        labels=labels,
        threads=list(threads.items()),
        names=names,
    )


def task_state(seen: Seen) -> Response:
    """Retire a task, so that nobody is given it any more, or open it again. Labels stay."""
    task_id, state = seen.path["id"], seen.form.get("state", "")
    if state not in ("open", "retired"):
        raise InstilError(f"state {state!r}: a task is open or retired")
    with seen.db.write() as connection:
        changed = connection.execute(
            schema.task.update().where(schema.task.c.id == task_id).values(state=state)
        )
        if not changed.rowcount:
            raise NotFound
        audit.append(
            connection, seen.account.id, "task.state", task_id, state.encode(), seen.db.now()
        )
    return redirect(f"/lead/tasks/{task_id}?saved")


def _labels(
    connection: sa.Connection, task_id: str, numbers: dict[str, int]
) -> list[dict[str, Any]]:
    """What was said of a task: one entry an assignment, with all its revisions."""
    found: dict[str, dict[str, Any]] = {}
    given, label = schema.assignment, schema.label
    for row in connection.execute(
        sa.select(label, given.c.display_order, given.c.guideline_id)
        .join(given, given.c.id == label.c.assignment_id)
        .where(label.c.task_id == task_id)
        .order_by(label.c.created_at, label.c.revision)
    ):
        of = found.setdefault(
            row.assignment_id,
            {
                "labeler_id": row.labeler_id,
                "pool": row.pool,
                "status": row.status,
                "order": [place + 1 for place in msgspec.json.decode(row.display_order)],
                "guideline_id": row.guideline_id,
                "revisions": [],
            },
        )
        says = lines(msgspec.json.decode(row.payload), numbers)
        of["revisions"].append(_Revision(row.revision, row.created_at, row.active_ms, says))
    return list(found.values())


def lines(payload: Mapping[str, Any], number_of: Mapping[str, int]) -> list[tuple[str, str]]:
    """What a label says, as (name, text), with responses called by their numbers."""

    def name(response_id: str) -> str:
        return str(number_of.get(response_id, response_id))

    found: list[tuple[str, str]] = []
    if ranking := payload.get("ranking"):
        tiers = [" = ".join(sorted(map(name, tier))) for tier in ranking["tiers"]]
        found.append(("Best to worst", " › ".join(tiers)))
    rated = sorted(payload.get("ratings", ()), key=lambda r: name(r["response_id"]))
    if rated:
        found.append(
            ("Ratings", ", ".join(f"{name(r['response_id'])}: {r['overall']}" for r in rated))
        )
    for r in rated:
        if r.get("flags"):
            found.append((f"Flags of {name(r['response_id'])}", ", ".join(r["flags"])))
    for t in sorted(payload.get("toxicity", ()), key=lambda t: name(t["response_id"])):
        questions = [
            f"{question.removesuffix('_toxicity')} {t[question]}"
            for question in ("input_toxicity", "output_toxicity", "relative_toxicity", "continuity")
        ]
        found.append((f"Toxicity of {name(t['response_id'])}", ", ".join(questions)))
    for response_id, text in sorted((payload.get("notes") or {}).items()):
        found.append((f"Note on {name(response_id)}", text))
    if annotation := payload.get("annotation"):
        found.append(("Use case", annotation["use_case"]))
        found.append(("Flags", ", ".join(annotation.get("flags", ())) or "none"))
    if demonstration := payload.get("demonstration"):
        found.append(("Demonstration", demonstration["text"]))
    if payload.get("not_rankable"):
        found.append(("None acceptable", payload.get("why") or "yes"))
    if prompts := payload.get("prompts"):
        found.append(("Style", payload["style"]))
        found += [("Prompt", prompt["text"]) for prompt in prompts]
    for key in ("skipped", "note", "remark"):
        if payload.get(key):
            found.append((key.capitalize(), payload[key]))
    return found


ROUTES: list[Route] = [
    page("/lead/tasks/{id}", task, roles=LEADS),
    action("/lead/tasks/{id}/state", task_state, roles=LEADS),
]
