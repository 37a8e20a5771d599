"""The lead's pages of words: guidelines, labelers' questions, the survey, the audit log."""

from __future__ import annotations

from itertools import groupby

from starlette.responses import Response

from instil.errors import InstilError
from instil.labeling import audit, guidelines, survey
from instil.labeling.web.lead_parts import PURPOSES, WORK, names_of
from instil.labeling.web.route import (
    ADMINS,
    LEADS,
    Route,
    Seen,
    action,
    cursor,
    page,
    redirect,
    render,
)

EVENTS = 100
"""Events on one page of the audit log."""


def versions(seen: Seen) -> Response:
    """All guidelines, and the form of a new version."""
    return _versions(seen, seen.query.get("kind", ""), seen.query.get("purpose", ""))


def publish(seen: Seen) -> Response:
    """Put a new version in force. Work that was begun keeps the one it began with."""
    kind, purpose, text = (seen.form.get(name, "") for name in ("kind", "purpose", "text"))
    try:
        guidelines.publish(seen.db, seen.account, kind, purpose, text)  # type: ignore[arg-type]
    except InstilError as error:
        return _versions(seen, kind, purpose, text, str(error))
    return redirect("/lead/guidelines?saved")


def questions(seen: Seen) -> Response:
    """Threads in which the labeler had the last word, flags first."""
    return _questions(seen)


def answer_question(seen: Seen) -> Response:
    """Answer one thread."""
    path = seen.path
    try:
        guidelines.reply(
            seen.db, seen.account, path["task"], path["labeler"], seen.form.get("text", "")
        )
    except InstilError as error:
        return _questions(seen, str(error))
    return redirect("/lead/questions?saved")


def survey_counts(seen: Seen) -> Response:
    """How often each answer was given, once enough people answered. Never a row."""
    answered, counts = survey.survey_counts(seen.db)
    return render(
        seen,
        "survey_counts.html",
        title="Survey",
        answered=answered,
        least=survey.LEAST_ANSWERS,
        counts=[(q, counts[q.name]) for q in survey.QUESTIONS if q.name in counts],
    )


def audit_log(seen: Seen) -> Response:
    """Who did what, newest first; with `check`, whether the whole log is as it was written."""
    check = "check" in seen.query
    with seen.db.read() as connection:
        bad = audit.first_bad(connection) if check else None
        end = audit.head(connection)
        events = audit.newest(connection, cursor(seen), EVENTS + 1)
        names = names_of(seen, connection)
    return render(
        seen,
        "audit.html",
        title="Audit log",
        check=check,
        bad=bad,
        end=end,
        events=events[:EVENTS],
        older=events[EVENTS - 1].seq if len(events) > EVENTS else None,
        names=names,
    )


def _versions(
    seen: Seen, kind: str, purpose: str, text: str | None = None, problem: str = ""
) -> Response:
    groups = [
        {
            "kind": key[0],
            "purpose": key[1],
            "words": f"{WORK[key[0]]}, {PURPOSES[key[1]].lower()}",
            "versions": list(found)[::-1],
        }
        for key, found in groupby(
            guidelines.versions(seen.db), key=lambda version: (version.kind, version.purpose)
        )
    ]
    groups.sort(key=lambda of: (list(WORK).index(of["kind"]), list(PURPOSES).index(of["purpose"])))
    chosen = next((of for of in groups if (of["kind"], of["purpose"]) == (kind, purpose)), None)
    if chosen and text is None:
        text = chosen["versions"][0].text
    return render(
        seen,
        "guidelines.html",
        422 if problem else 200,
        title="Guidelines",
        groups=groups,
        chosen=chosen,
        text=text,
        problem=problem,
    )


def _questions(seen: Seen, problem: str = "") -> Response:
    with seen.db.read() as connection:
        names = names_of(seen, connection)
    return render(
        seen,
        "questions.html",
        422 if problem else 200,
        title="Questions",
        threads=guidelines.open_threads(seen.db),
        names=names,
        problem=problem,
    )


ROUTES: list[Route] = [
    page("/lead/guidelines", versions, roles=LEADS),
    action("/lead/guidelines", publish, roles=LEADS),
    page("/lead/questions", questions, roles=LEADS),
    action("/lead/questions/{task}/{labeler}", answer_question, roles=LEADS),
    page("/lead/survey", survey_counts, roles=LEADS),
    page("/lead/audit", audit_log, roles=ADMINS),
]
