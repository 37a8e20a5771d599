"""The lead's pages of figures: how policies did, and how good labels are.

The modules that compute are imported by the handlers: with them comes numpy, which a server
whose leads look at other pages spares.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import batches, past
from instil.labeling.database import Database
from instil.labeling.web.lead_parts import PURPOSES, WORK, names_of
from instil.labeling.web.route import LEADS, VIEWERS, NotFound, Route, Seen, page, render
from instil.records import USE_CASES, Status

if TYPE_CHECKING:
    from instil.labeling.quality import LabelerQuality
    from instil.labeling.web.figures import Evaluation

MOST = 2000
"""Labels that a page of quality counts, the newest: with more it would take seconds, and 20 MB."""
COUNTED: tuple[Status, ...] = ("accepted", "surplus", "repeat")
KEYS: Mapping[str, Any] = {"purpose": "gold", "status": ("key",)}


def evaluation(seen: Seen) -> Response:
    """How the policies of one batch did, as far as it has come."""
    from instil.labeling.web import figures

    found = batches.progress(seen.db, seen.path["batch"])
    if not found or found[0].kind not in ("ranking", "toxicity"):
        raise NotFound
    batch = found[0]
    wanted = sum(s.free + s.held + s.done for s in batch.pools.values())
    baseline = seen.query.get("baseline", batch.baseline)
    with seen.db.read() as connection:
        stamp = (wanted, *figures.stamp(connection, batch.batch_id))
    result = _evaluation(seen.db, batch.batch_id, baseline, stamp)
    return render(
        seen,
        "evaluation.html",
        title=f"{batch.name}: policies",
        batch=batch,
        found=result,
        wanted=wanted,
        reach=_reach(result),
        ranges=figures.TOXICITY,
        shown=figures.shown,
    )


@lru_cache(maxsize=8)
def _evaluation(db: Database, batch_id: str, baseline: str, _stamp: Hashable) -> Evaluation:
    """The figures of a batch, kept until another stamp says that its labels changed."""
    from instil.labeling.web import figures

    with db.read() as connection:
        policy_of = figures.policies_of(connection, batch_id)
        if baseline and baseline not in policy_of.values():
            raise InstilError(f"baseline {baseline!r}: no response of this batch is of that policy")
        return figures.evaluation(figures.work_of(connection, batch_id), policy_of, baseline)


def _reach(found: Evaluation) -> float:
    """How far from 0 the line of strengths goes: a whole number, infinite ends left out."""
    ends = [abs(x) for e in found.strengths.values() for x in (e.mean, e.low, e.high)]
    return float(math.ceil(max((end for end in ends if math.isfinite(end)), default=1.0)))


def quality_page(seen: Seen) -> Response:
    """Agreement between labelers, and the habits of each."""
    from instil.labeling import quality
    from instil.labeling.web import figures

    query = _query(seen.query)
    problem = ""
    try:
        chosen = _chosen(query)
    except InstilError as error:
        problem, chosen = str(error), _chosen(_query({}))
    with seen.db.read() as connection:
        judged = past.judgements(connection, **chosen, status=COUNTED, limit=MOST + 1)
        # gold tasks are hidden among work of every purpose
        gold = past.judgements(
            connection, **chosen | {"purpose": "gold"}, status=("gold",), limit=MOST
        )
        keys = past.judgements(connection, **KEYS, kind=chosen["kind"])
        names = names_of(seen, connection)
    capped = len(judged) > MOST
    judged = judged[:MOST]
    found = quality.overview(judged)
    return render(
        seen,
        "quality.html",
        422 if problem else 200,
        title="Quality",
        query=query,
        problem=problem,
        kinds=[(kind, WORK[kind]) for kind in ("ranking", "toxicity")],
        purposes=[("", "All"), ("training", "Training"), ("evaluation", "Evaluation")],
        use_cases=[("", "All"), *((name, name.replace("_", " ")) for name in USE_CASES)],
        found=found,
        agreements=[("all", found.agreement), *sorted(found.by_pool.items(), reverse=True)],
        labelers=quality.per_labeler([*judged, *gold], keys),
        pairs=quality.labeler_pairs(judged),
        names=names,
        linked=seen.account.role in LEADS,
        paper=figures.PAPER,
        capped=MOST if capped else 0,
        shown=figures.shown,
    )


def of_labeler(connection: sa.Connection, labeler_id: str) -> LabelerQuality | None:
    """The figures of one person's rankings, beside those of everybody else; None without any."""
    from instil.labeling import quality

    own = past.judgements(connection, kind="ranking", labeler_id=labeler_id, limit=MOST)
    others = past.judgements(connection, kind="ranking", beside=labeler_id, limit=MOST)
    keys = past.judgements(connection, **KEYS, kind="ranking")
    found = quality.per_labeler([*own, *others], keys)
    return next((one for one in found if one.labeler_id == labeler_id), None)


QUERY = ("kind", "purpose", "use_case", "from", "to")


def _query(typed: Mapping[str, str]) -> dict[str, str]:
    """What was asked for, with the usual choices where nothing was."""
    return (
        dict.fromkeys(QUERY, "")
        | {"kind": "ranking"}
        | {name: typed[name] for name in QUERY if name in typed}
    )


def _chosen(query: Mapping[str, str]) -> dict[str, Any]:
    """The filters that `past.judgements` takes. InstilError for what is none."""
    for name, known in (
        ("kind", ("ranking", "toxicity")),
        ("purpose", ("", *PURPOSES)),
        ("use_case", ("", *USE_CASES)),
    ):
        if query[name] not in known:
            raise InstilError(f"{name} {query[name]!r} is not one of {', '.join(known)}")
    return {
        "kind": query["kind"],
        "purpose": query["purpose"] or None,
        "use_case": query["use_case"] or None,
        "since": _day("from", query["from"]),
        "until": _day("to", query["to"], days=1),
    }


def _day(name: str, typed: str, days: int = 0) -> int | None:
    """When a day begins (or, with days=1, ends), in milliseconds since 1970, UTC."""
    if not typed:
        return None
    try:
        day = datetime.fromisoformat(typed).replace(tzinfo=UTC) + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise InstilError(f"{name} {typed!r}: give a day as 2026-11-21") from error
    return round(day.timestamp() * 1000)


ROUTES: list[Route] = [
    page("/lead/evaluations/{batch}", evaluation, roles=VIEWERS),
    page("/lead/quality", quality_page, roles=VIEWERS),
]
