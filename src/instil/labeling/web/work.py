"""Pages of those who label: what waits for them, one task at a time, what they have handed in.

What is said here of a response is its letter and its text; of a task, nothing that would tell gold
from other work. Policies are in no query of this file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from starlette.responses import Response

from instil.convert.messages import split
from instil.errors import InstilError
from instil.labeling import assign, guidelines, kinds, labels, past
from instil.labeling.assign import Assignment
from instil.labeling.web.route import (
    ANYONE,
    KIB,
    LABELERS,
    MIB,
    Seen,
    action,
    answer,
    cursor,
    page,
    redirect,
    render,
)
from instil.records import Kind

KIND_NAMES: dict[Kind, str] = {
    "ranking": "Rate and rank outputs",
    "demonstration": "Write answers",
    "prompt": "Write prompts",
    "annotation": "Sort prompts",
    "toxicity": "Judge toxicity",
}
TEMPLATES: dict[Kind, str] = {
    "ranking": "board.html",
    "toxicity": "board.html",
    "demonstration": "write.html",
    "prompt": "write.html",
    "annotation": "annotate.html",
}
PAGE_LABELS = 30
"""How many labels a page of the history has."""

Key = Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Draft(_Body, frozen=True):
    version: Count
    """The version that the page has seen last."""
    content: Any


class Submission(_Body, frozen=True):
    key: Key
    """Chosen by the page, once for each attempt: sent twice, it counts once."""
    base: Count
    """The revision that the page began with; 0 if there was none."""
    active_ms: Count
    answer: msgspec.Raw
    then: Literal["next", "stay"] = "next"


class Skip(_Body, frozen=True):
    key: Key
    reason: str
    note: str = ""


class Message(_Body, frozen=True):
    text: str
    flag: bool = False


Body = TypeVar("Body", bound=_Body)


def home(seen: Seen) -> Response:
    """What waits for this person, what is begun, what was done today."""
    if seen.account.role == "viewer":
        return redirect("/lead")
    waiting = assign.waiting(seen.db, seen.account)
    return render(
        seen,
        "home.html",
        title="Work",
        kinds=[(kind, KIND_NAMES[kind], waiting[kind]) for kind in KIND_NAMES if kind in waiting],
        counted=assign.COUNTED,
        begun=past.begun(seen.db, seen.account),
        today=past.today(seen.db, seen.account),
        names=KIND_NAMES,
        now=seen.db.now(),
    )


def begin(seen: Seen) -> Response:
    """Hand out the next task of a kind, or a task again that this person skipped."""
    if again := seen.form.get("again"):
        return redirect(_url(labels.take_back(seen.db, seen.account, again).id))
    wanted = seen.form.get("kind", "")
    for kind in KIND_NAMES:
        if kind == wanted:
            return redirect(_next(seen, kind))
    raise InstilError(f"There is no kind of work called {wanted}.")


def work(seen: Seen) -> Response:
    """The board or the form of one assignment, with draft and label where there are some."""
    held = assign.find(seen.db, seen.account, seen.path["id"])
    return render(seen, TEMPLATES[held.kind], title=KIND_NAMES[held.kind], task=_task(seen, held))


def save_draft(seen: Seen) -> Response:
    """Keep a draft; the assignment stays with this person for another while."""
    held, draft = _read(seen, Draft)
    content = msgspec.json.encode(draft.content)
    try:
        version = labels.save_draft(seen.db, seen.account, held.id, draft.version, content)
    except labels.Stale as stale:
        if stale.version == 0:  # skipped since: there is no other draft to choose from
            raise
        return answer({"version": stale.version, "content": stale.content}, 409)
    return answer({"version": version})


def submit(seen: Seen) -> Response:
    """Keep an answer for good, as the next revision of this assignment's label."""
    held, sent = _read(seen, Submission)
    try:
        kept = labels.submit(
            seen.db,
            seen.account,
            held.id,
            sent.key,
            sent.base,
            bytes(sent.answer),
            sent.active_ms,
        )
    except labels.Stale as stale:
        return answer(
            {"error": str(stale), "revision": stale.revision, "answer": stale.answer}, 409
        )
    following = _next(seen, held.kind) if sent.then == "next" else None
    return answer({"kept": kept.status, "revision": kept.revision, "next": following})


def skip(seen: Seen) -> Response:
    """Give a task back, with the reason."""
    held, sent = _read(seen, Skip)
    labels.skip(seen.db, seen.account, held.id, sent.key, sent.reason, sent.note)
    return answer({"next": _next(seen, held.kind)})


def ask(seen: Seen) -> Response:
    """Ask the lead about a task, or flag it."""
    held, sent = _read(seen, Message)
    guidelines.ask(seen.db, seen.account, held.task_id, sent.text, sent.flag)
    return answer({"messages": _messages(seen, held)})


def history(seen: Seen) -> Response:
    """What this person handed in or skipped, the newest first."""
    rows = past.history(seen.db, seen.account, cursor(seen), PAGE_LABELS + 1)
    more = len(rows) > PAGE_LABELS
    rows = rows[:PAGE_LABELS]
    return render(
        seen,
        "history.html",
        title="History",
        rows=rows,
        names=KIND_NAMES,
        older=rows[-1].at if more else None,
    )


def _url(assignment_id: str) -> str:
    return f"/work/{assignment_id}"


def _next(seen: Seen, kind: Kind) -> str:
    claimed = assign.claim(seen.db, seen.account, kind)
    return _url(claimed.id) if claimed else "/?nothing"


def _read(seen: Seen, kind: type[Body]) -> tuple[Assignment, Body]:
    """The assignment, which is this person's own, and what was sent about it."""
    held = assign.find(seen.db, seen.account, seen.path["id"])
    try:
        return held, msgspec.json.decode(seen.body, type=kind)
    except (ValueError, RecursionError) as error:
        raise kinds.Refused("", f"this is not what the page sends: {error}") from error


def _messages(seen: Seen, held: Assignment) -> list[dict[str, Any]]:
    """The thread about this task; who of the leads answered is not said."""
    return [
        {
            "who": "you" if message.by_labeler else "lead",
            "text": message.text,
            "at": message.created_at,
            "flag": message.flag,
        }
        for message in guidelines.thread(seen.db, held.task_id, seen.account.id)
    ]


def _task(seen: Seen, held: Assignment) -> dict[str, Any]:
    """All that a labeler's browser learns about a task."""
    shown = assign.work(seen.db, held)
    state = past.latest(seen.db, seen.account, held.id)
    with seen.db.read() as connection:
        guideline = guidelines.find(connection, held.guideline_id)
    assert guideline is not None  # a foreign key
    turns = split(shown.prompt)
    return {
        "id": held.id,
        "kind": held.kind,
        "purpose": held.purpose,
        "prompt": {
            "text": shown.prompt,
            "messages": [{"role": role, "text": text} for role, text in turns]
            if len(turns) > 1
            else None,
        }
        if shown.prompt_id
        else None,
        "cards": [
            {
                "letter": card.letter,
                "text": card.text,
                "words": len(card.text.split()),
                "copies": len(card.response_ids),
            }
            for card in shown.cards
        ],
        "form": kinds.form_json(held.kind),
        "guideline": {
            "id": guideline.id,
            "version": guideline.version,
            "html": guidelines.html(guideline.text),
        },
        "draft": state.draft,
        "revision": state.revision,
        "answer": state.answer,
        "status": state.status,
        "messages": _messages(seen, held),
        "shortcuts": dict(seen.account.shortcuts),
        "expires_at": held.expires_at,
        "now": seen.db.now(),
    }


ROUTES = [
    page("/", home, roles=ANYONE),
    action("/work", begin, roles=LABELERS),
    page("/work/{id}", work, roles=LABELERS),
    action(
        "/work/{id}/draft",
        save_draft,
        roles=LABELERS,
        methods=("PUT",),
        json=True,
        limit=64 * KIB,
    ),
    action("/work/{id}/label", submit, roles=LABELERS, json=True, limit=2 * MIB),
    action("/work/{id}/skip", skip, roles=LABELERS, json=True, limit=64 * KIB),
    action("/work/{id}/messages", ask, roles=LABELERS, json=True, limit=64 * KIB),
    page("/history", history, roles=LABELERS),
]
