"""The lead's pages about people: labelers, invitations, screening, settings."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import accounts, audit, people, schema
from instil.labeling.settings import SETTINGS, set_setting, setting
from instil.labeling.web.lead_figures import of_labeler
from instil.labeling.web.lead_parts import WORK, names_of
from instil.labeling.web.route import (
    ADMINS,
    LEADS,
    NotFound,
    Route,
    Seen,
    action,
    page,
    redirect,
    render,
)

POOLS = {
    "candidate": "Candidate: is screened first",
    "training": "Training",
    "held-out": "Held-out: evaluations only",
}
ROLES = {
    "labeler": "Labeler",
    "viewer": "Viewer: figures without names",
    "lead": "Lead: starts work, sees everything",
    "admin": "Administrator: also settings, roles and the audit log",
}


def labelers(seen: Seen) -> Response:
    """Everybody, and the form of an invitation."""
    return _labelers(seen)


def invite(seen: Seen) -> Response:
    """Make an invitation and show its link, this once; for a known person, one for a password."""
    known = seen.form.get("labeler_id")
    try:
        token = people.invite(
            seen.db,
            seen.account,
            seen.form.get("role", "labeler"),  # type: ignore[arg-type]
            seen.form.get("pool", "candidate"),  # type: ignore[arg-type]
            seen.form.getlist("kinds"),  # type: ignore[arg-type]
            known or None,
        )
    except accounts.NoAccount as error:
        raise NotFound from error
    except InstilError as error:
        return _labelers(seen, problem=str(error))
    return _labelers(seen, invited=f"{seen.settings.url}/invitations/{token}")


def labeler(seen: Seen) -> Response:
    """One person: figures, settings, a new password."""
    return _labeler(seen)


def change_labeler(seen: Seen) -> Response:
    """Change role, pool, kinds of work, or whether the person may sign in."""
    account_id = seen.path["id"]
    changes: dict[str, Any] = {
        "kinds": tuple(seen.form.getlist("kinds")),
        "active": "active" in seen.form,
    }
    changes |= {name: seen.form[name] for name in ("role", "pool") if name in seen.form}
    try:
        accounts.update(seen.db, seen.account, account_id, **changes)
    except accounts.NoAccount as error:
        raise NotFound from error
    except InstilError as error:
        return _labeler(seen, problem=str(error))
    return redirect(f"/lead/labelers/{account_id}?saved")


def screening(seen: Seen) -> Response:
    """The four measures of every candidate, and the demonstrations to score."""
    return _screening(seen)


def decide(seen: Seen) -> Response:
    """Accept a candidate into one of the pools, or decline."""
    decision, account_id = seen.form.get("decision", ""), seen.path["labeler"]
    changes: dict[str, Any] = {"pool": decision}
    if decision == "decline":
        changes = {"active": False}
    elif decision not in ("training", "held-out"):
        raise InstilError(f"decision {decision!r} is training, held-out or decline")
    try:
        if accounts.account(seen.db, account_id).pool != "candidate":
            raise NotFound
        accounts.update(seen.db, seen.account, account_id, **changes)
    except accounts.NoAccount as error:
        raise NotFound from error
    return redirect("/lead/screening?saved")


def score(seen: Seen) -> Response:
    """Give a candidate's demonstration 1 to 7; a lead who scores it again changes the score."""
    label_id, typed = seen.path["label"], seen.form.get("value", "")
    if typed not in set("1234567"):
        raise InstilError(f"score {typed!r}: give 1 (worst) to 7 (best)")
    label, given = schema.label, schema.score
    with seen.db.write() as connection:
        wanted = label.c.kind == "demonstration", label.c.status == "screening"
        if not connection.execute(
            sa.select(label.c.id).where(label.c.id == label_id, *wanted)
        ).first():
            raise NotFound
        mine = (given.c.label_id == label_id) & (given.c.lead_id == seen.account.id)
        now = seen.db.now()
        connection.execute(given.delete().where(mine))
        connection.execute(
            given.insert().values(
                label_id=label_id, lead_id=seen.account.id, value=int(typed), created_at=now
            )
        )
        audit.append(connection, seen.account.id, "score", label_id, typed.encode(), now)
    return redirect("/lead/screening?saved")


def change_settings(seen: Seen) -> Response:
    """Set cut-offs and the shares of hidden gold and repeats; those that were sent."""
    problems = []
    for name in SETTINGS:
        if name not in seen.form:
            continue
        try:
            set_setting(seen.db, seen.account, name, _figure(name, seen.form[name]))
        except InstilError as error:
            problems.append(str(error))
    if problems:
        return _screening(seen, problem="; ".join(problems))
    return redirect("/lead/screening?saved")


def _labelers(seen: Seen, problem: str = "", invited: str = "") -> Response:
    with seen.db.read() as connection:
        found = _people(connection)
    mine = list(ROLES) if seen.account.role == "admin" else ["labeler"]
    return render(
        seen,
        "labelers.html",
        422 if problem else 200,
        title="Labelers",
        people=found,
        invited=invited,
        problem=problem,
        roles=[(role, ROLES[role]) for role in mine],
        pools=list(POOLS.items()),
        kinds=list(WORK.items()),
    )


def _labeler(seen: Seen, problem: str = "") -> Response:
    from instil.labeling.web.figures import shown

    with seen.db.read() as connection:
        found = _people(connection, seen.path["id"])
        if not found:
            raise NotFound
        quality = of_labeler(connection, seen.path["id"])
    return render(
        seen,
        "labeler.html",
        422 if problem else 200,
        title=found[0]["name"],
        person=found[0],
        found=quality,
        problem=problem,
        admin=seen.account.role == "admin",
        roles=list(ROLES.items()),
        pools=[(pool, POOLS[pool]) for pool in ("candidate", "training", "held-out")],
        kinds=list(WORK.items()),
        shown=shown,
    )


def _screening(seen: Seen, problem: str = "") -> Response:
    from instil.labeling.screening import CutOffs
    from instil.labeling.web import figures

    with seen.db.read() as connection:
        settings = {name: setting(connection, name) for name in SETTINGS}
        cut_offs = CutOffs(
            flags=settings["cut_off_flags"],
            rankings=settings["cut_off_rankings"],
            demonstrations=settings["cut_off_demonstrations"],
        )
        candidates = figures.candidates(connection, cut_offs)
        written = figures.demonstrations(connection, seen.account.id)
        names = names_of(seen, connection)
    return render(
        seen,
        "screening.html",
        422 if problem else 200,
        title="Screening",
        candidates=candidates,
        cut_offs=cut_offs,
        settings=settings,
        written=written,
        names=names,
        admin=seen.account.role == "admin",
        problem=problem,
        shown=figures.shown,
    )


def _people(connection: sa.Connection, account_id: str | None = None) -> list[dict[str, Any]]:
    """Everybody, or one person, with what came of their work."""
    labeler, label = schema.labeler, schema.label
    counted: dict[str, dict[str, int]] = {}
    one = label.c.labeler_id == account_id if account_id else sa.true()
    done = label.c.status != "skipped"
    for row in connection.execute(
        sa.select(
            label.c.labeler_id,
            sa.func.count(sa.case((done & (label.c.revision == 1), 1))).label("labels"),
            sa.func.count(sa.case((~done, 1))).label("skipped"),
            sa.func.max(label.c.created_at).label("last"),
            sa.func.sum(label.c.active_ms).label("active_ms"),
        )
        .where(one)
        .group_by(label.c.labeler_id)
    ).mappings():
        counted[row["labeler_id"]] = {**row, "active_ms": int(row["active_ms"])}
    people = sa.select(labeler).order_by(labeler.c.active.desc(), labeler.c.name_key)
    if account_id:
        people = people.where(labeler.c.id == account_id)
    none = {"labels": 0, "skipped": 0, "last": None, "active_ms": 0}
    return [
        {
            "id": row["id"],
            "name": row["name"],
            "role": row["role"],
            "pool": row["pool"],
            "kinds": msgspec.json.decode(row["kinds"]),
            "comfort": msgspec.json.decode(row["comfort"]),
            "active": row["active"],
            "since": row["created_at"],
            **none,
            **counted.get(row["id"], {}),
        }
        for row in connection.execute(people).mappings()
    ]


def _figure(name: str, typed: str) -> float:
    try:
        return float(typed)
    except ValueError as error:
        raise InstilError(f"{name}: {typed!r} is not a number") from error


ROUTES: list[Route] = [
    page("/lead/labelers", labelers, roles=LEADS),
    page("/lead/labelers/{id}", labeler, roles=LEADS),
    action("/lead/labelers/{id}", change_labeler, roles=LEADS),
    action("/lead/invitations", invite, roles=LEADS),
    page("/lead/screening", screening, roles=LEADS),
    action("/lead/screening/{labeler}", decide, roles=LEADS),
    action("/lead/scores/{label}", score, roles=LEADS),
    action("/lead/settings", change_settings, roles=ADMINS),
]
