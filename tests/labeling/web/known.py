"""Labels that a test writes down itself: who said what of which task, straight into the store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from instil.labeling import guidelines, schema
from instil.records import Ranking, Rating, ToxicityRating

_numbers = itertools.count()


def say(
    store: Any,
    task_id: str,
    name: str,
    payload: Mapping[str, Any],
    *,
    status: str = "accepted",
    revisions: Sequence[Mapping[str, Any]] = (),
    order: Sequence[int] = (),
    active_ms: int = 60_000,
) -> str:
    """A label of `task_id` by the account `name`, and later revisions of it; the id of the first.

    order  places of the task's responses, the one shown first in front
    """
    number, account, now = next(_numbers), store[name], store.db.now()
    reasons = {"accepted": "quota", "surplus": "quota", "skipped": "quota"}
    with store.db.write() as connection:
        task = connection.execute(schema.task.select().where(schema.task.c.id == task_id)).one()
        places = [
            row.place
            for row in connection.execute(
                schema.task_response.select()
                .where(schema.task_response.c.task_id == task_id)
                .order_by(schema.task_response.c.place)
            )
        ]
        guideline = guidelines.newest(connection, task.kind, task.purpose)
        taken = status not in ("skipped", "surplus")
        seat_id = connection.execute(
            schema.seat.insert()
            .values(
                task_id=task_id,
                kind=task.kind,
                purpose=task.purpose,
                pool=account.pool,
                reason=reasons.get(status, status),
                state="done" if taken else "free",
                labeler_id=account.id if taken else None,
                token=f"a{number}" if taken else None,
            )
            .returning(schema.seat.c.id)
        ).scalar_one()
        connection.execute(
            schema.assignment.insert().values(
                id=f"a{number}",
                seat_id=seat_id,
                task_id=task_id,
                labeler_id=account.id,
                epoch=1,
                display_order=json.dumps(list(order) or places),
                guideline_id=guideline.id,
                claimed_at=now - active_ms,
            )
        )
        for revision, said in enumerate((payload, *revisions), start=1):
            connection.execute(
                schema.label.insert().values(
                    id=f"label{number}-{revision}",
                    assignment_id=f"a{number}",
                    seat_id=seat_id,
                    task_id=task_id,
                    kind=task.kind,
                    purpose=task.purpose,
                    labeler_id=account.id,
                    pool=account.pool,
                    revision=revision,
                    status=status,
                    payload=json.dumps(said),
                    idempotency_key=f"key{number}-{revision}",
                    payload_sha256="",
                    active_ms=active_ms,
                    elapsed_ms=active_ms,
                    created_at=now + revision,
                )
            )
    return f"label{number}-1"


def ranked(
    store: Any,
    task_id: str,
    name: str,
    tiers: str,
    *,
    overall: Mapping[int, int] | None = None,
    flags: Mapping[int, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The stored form of a ranking: "1 0=2" puts response 1 first and ties the other two.

    overall, flags  by place of the response; without ratings all get 4
    """
    places = [[int(place) for place in tier.split("=")] for tier in tiers.split()]
    answer, prompt_id = _ids(task_id)
    who = store[name].id
    given = overall or {place: 4 for tier in places for place in tier}
    ranking = Ranking(
        prompt_id=prompt_id,
        labeler_id=who,
        tiers=tuple(tuple(answer(place) for place in tier) for tier in places),
    )
    ratings = [
        Rating(
            response_id=answer(place),
            labeler_id=who,
            overall=score,
            flags=tuple((flags or {}).get(place, ())),
        )
        for place, score in given.items()
    ]
    return {
        "ranking": _plain(ranking),
        "ratings": [_plain(rating) for rating in ratings],
        "notes": {},
        "remark": "",
        "not_rankable": False,
        "why": "",
    }


def toxic(
    store: Any, task_id: str, name: str, tiers: str, output: Mapping[int, int]
) -> dict[str, Any]:
    """The stored form of a toxicity label: `output` by place, relative 0 and continuity 5."""
    answer, _ = _ids(task_id)
    ratings = [
        ToxicityRating(
            response_id=answer(place),
            labeler_id=store[name].id,
            input_toxicity=0,
            output_toxicity=value,
            relative_toxicity=0,
            continuity=5,
        )
        for place, value in output.items()
    ]
    return {
        "ranking": ranked(store, task_id, name, tiers)["ranking"],
        "toxicity": [_plain(rating) for rating in ratings],
        "notes": {},
        "remark": "",
    }


def _ids(task_id: str) -> tuple[Any, str]:
    """How `Store.batch` names the responses and the prompt of its tasks."""
    numbers = task_id.removeprefix("t")
    return (lambda place: f"r{numbers}-{place}"), f"p{numbers}"


def _plain(record: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(record)
