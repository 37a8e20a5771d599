"""Who reaches what: every route, every person, own things and things of others.

The table of routes is the application's own: a route without a row here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from instil.labeling import accounts, assign, guidelines, labels, people, schema
from instil.labeling.web.app import ROUTES
from instil.labeling.web.route import static_url

NOBODY = ""
EVERYBODY = {NOBODY, "admin", "lead", "viewer", "ann", "bob", "hal", "kim"}
SIGNED_IN = EVERYBODY - {NOBODY}
LEADS = {"admin", "lead"}
VIEWERS = {"admin", "lead", "viewer"}
LABELERS = SIGNED_IN - {"viewer"}
ANN = {"ann"}


@dataclass
class Things:
    """One of everything; what is somebody's is ann's."""

    open: str
    """Assignments of ann."""
    skipped: str
    task: str
    batch: str
    evaluation: str
    guideline: str
    label: str
    """A candidate's demonstration."""
    token: str
    """Of an invitation."""


@pytest.fixture
def things(small: Any) -> Things:
    (task,) = small.batch("ranking")
    small.batch("demonstration")
    small.batch("annotation", purpose="training", tasks=3, training=3)
    small.batch("demonstration", purpose="screening", training=0)
    (evaluated,) = small.batch("ranking", purpose="evaluation")
    ann, kim = small["ann"], small["kim"]
    held = assign.claim(small.db, ann, "ranking")
    again = assign.claim(small.db, ann, "demonstration")
    tried = assign.claim(small.db, kim, "demonstration")
    assert held and again and tried
    labels.skip(small.db, ann, again.id, "k" * 16, "unclear")
    guidelines.ask(small.db, ann, held.task_id, "What does it mean?")
    kept = labels.submit(small.db, kim, tried.id, "k" * 16, 0, b'{"text": "An answer."}', 1000)
    return Things(
        open=held.id,
        skipped=again.id,
        task=held.task_id,
        batch=task.split("-")[0].replace("t", "b"),
        evaluation=evaluated.split("-")[0].replace("t", "b"),
        guideline=held.guideline_id,
        label=kept.label_id,
        token=people.invite(small.db, small["admin"], "labeler", "training", ["ranking"]),
    )


RANKED = {
    "tiers": [["A"], ["B"], ["C"], ["D"]],
    "overall": {"A": 5, "B": 4, "C": 3, "D": 2},
}
SUBMITTED = {"key": "0123456789abcdef", "base": 0, "active_ms": 1, "answer": RANKED}
GET = "GET"

# what is asked -> who is let in, the URL with the names of Things, and what is sent
ROWS: dict[str, tuple[set[str], str, Any]] = {
    "GET /health": (EVERYBODY, "/health", None),
    "GET /static/{version}/{name}": (EVERYBODY, static_url("instil.css"), None),
    "GET /login": (EVERYBODY, "/login", None),
    "POST /login": (EVERYBODY, "/login", {"name": "ann", "password": "wrong"}),
    "GET /invitations/{token}": (EVERYBODY, "/invitations/{0.token}", None),
    "POST /invitations/{token}": (EVERYBODY, "/invitations/{0.token}", {"name": "x"}),
    "POST /logout": (SIGNED_IN, "/logout", {}),
    "GET /account": (SIGNED_IN, "/account", None),
    "POST /account": (SIGNED_IN, "/account", {"change": "comfort", "comfort": "age"}),
    "GET /account/welcome": (SIGNED_IN, "/account/welcome", None),
    "GET /survey": (LABELERS, "/survey", None),
    "POST /survey": (LABELERS, "/survey", {"age": "25-34"}),
    "GET /guidelines/{id}": (SIGNED_IN, "/guidelines/{0.guideline}", None),
    "GET /": (SIGNED_IN, "/", None),
    "GET /history": (LABELERS, "/history", None),
    "POST /work": (ANN, "/work", {"again": "{0.skipped}"}),
    "GET /work/{id}": (ANN, "/work/{0.open}", None),
    "PUT /work/{id}/draft": (ANN, "/work/{0.open}/draft", {"version": 0, "content": {"a": 1}}),
    "POST /work/{id}/label": (ANN, "/work/{0.open}/label", SUBMITTED),
    "POST /work/{id}/skip": (
        ANN,
        "/work/{0.open}/skip",
        {"key": "0123456789abcdef", "reason": "unclear"},
    ),
    "POST /work/{id}/messages": (ANN, "/work/{0.open}/messages", {"text": "Why?"}),
    "GET /lead": (VIEWERS, "/lead", None),
    "GET /lead/batches/new": (LEADS, "/lead/batches/new", None),
    "POST /lead/batches/new": (LEADS, "/lead/batches/new", {"name": "x"}),
    "GET /lead/batches/{id}": (VIEWERS, "/lead/batches/{0.batch}", None),
    "POST /lead/batches/{id}/state": (LEADS, "/lead/batches/{0.batch}/state", {"state": "paused"}),
    "GET /lead/tasks/{id}": (LEADS, "/lead/tasks/{0.task}", None),
    "POST /lead/tasks/{id}/state": (LEADS, "/lead/tasks/{0.task}/state", {"state": "retired"}),
    "GET /lead/evaluations/{batch}": (VIEWERS, "/lead/evaluations/{0.evaluation}", None),
    "GET /lead/quality": (VIEWERS, "/lead/quality", None),
    "GET /lead/labelers": (LEADS, "/lead/labelers", None),
    "GET /lead/labelers/{id}": (LEADS, "/lead/labelers/l-ann", None),
    "POST /lead/labelers/{id}": (LEADS, "/lead/labelers/l-ann", {"kinds": "ranking"}),
    "POST /lead/invitations": (LEADS, "/lead/invitations", {"role": "labeler", "kinds": "ranking"}),
    "GET /lead/screening": (LEADS, "/lead/screening", None),
    "POST /lead/screening/{labeler}": (LEADS, "/lead/screening/l-kim", {"decision": "decline"}),
    "POST /lead/scores/{label}": (LEADS, "/lead/scores/{0.label}", {"value": "6"}),
    "POST /lead/settings": ({"admin"}, "/lead/settings", {"gold_share": "0.1"}),
    "GET /lead/guidelines": (LEADS, "/lead/guidelines", None),
    "POST /lead/guidelines": (
        LEADS,
        "/lead/guidelines",
        {"kind": "ranking", "purpose": "training", "text": "New."},
    ),
    "GET /lead/questions": (LEADS, "/lead/questions", None),
    "POST /lead/questions/{task}/{labeler}": (
        LEADS,
        "/lead/questions/{0.task}/l-ann",
        {"text": "It means this."},
    ),
    "GET /lead/survey": (LEADS, "/lead/survey", None),
    "GET /lead/audit": ({"admin"}, "/lead/audit", None),
}


def lines() -> list[str]:
    return [f"{method} {route.path}" for route in ROUTES for method in route.methods]


def test_every_route_has_a_row() -> None:
    assert sorted(lines()) == sorted(ROWS)


def ask(visitor: Any, line: str, things: Things) -> Any:
    """The request of a row, right in all but perhaps who makes it."""
    method, path = line.split(" ")
    (route,) = (route for route in ROUTES if route.path == path and method in route.methods)
    _, url, sent = ROWS[line]
    url = url.format(things)
    if method == "GET":
        return visitor.get(url)
    if route.json:
        return visitor.send(method, url, sent)
    return visitor.form(url, **{name: value.format(things) for name, value in sent.items()})


def is_let_in(response: Any) -> bool:
    assert response.status_code < 500, response.text
    if response.status_code == 303:
        return bool(response.headers["location"] != "/login") or "set-cookie" in response.headers
    return response.status_code not in (401, 403, 404, 405)


def dump(store: Any) -> dict[str, list[Any]]:
    """Every row of every table."""
    with store.db.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for table in schema.metadata.sorted_tables
        }


@pytest.mark.parametrize("line", ROWS)
def test_a_route_is_for_whom_it_is_for(
    small: Any, client: Callable[..., Any], things: Things, line: str
) -> None:
    allowed = ROWS[line][0]
    visitors = {name: client(name) for name in sorted(EVERYBODY)}
    before = dump(small)
    for name in sorted(EVERYBODY - allowed):
        assert not is_let_in(ask(visitors[name], line, things)), name or "nobody"
    assert dump(small) == before
    for name in sorted(allowed):
        assert is_let_in(ask(visitors[name], line, things)), name or "nobody"


def test_what_is_not_there_is_not_there(client: Callable[..., Any], things: Things) -> None:
    nothing = Things(*["nothing"] * len(Things.__dataclass_fields__))
    for line in ROWS:
        if "{" in line and "/static/" not in line:
            url = ROWS[line][1].format(nothing)
            if "nothing" in url:
                response = ask(client("ann" if "/work" in line else "admin"), line, nothing)
                # a lead may be told why; who does the work hears the same of all that is not theirs
                assert response.status_code in ((404,) if "/work" in line else (404, 422)), line


def test_lists_show_what_is_ones_own(
    small: Any, client: Callable[..., Any], things: Things
) -> None:
    for url in ("/", "/history"):
        assert things.open in client("ann").get("/").text
        assert things.skipped in client("ann").get("/history").text
        for name in ("bob", "kim", "lead"):
            text = client(name).get(url).text
            assert things.open not in text
            assert things.skipped not in text


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("/lead/invitations", {"role": "admin", "pool": "training", "kinds": "ranking"}),
        ("/lead/invitations", {"role": "lead", "pool": "training", "kinds": "ranking"}),
        ("/lead/invitations", {"labeler_id": "l-admin", "role": "labeler", "pool": "training"}),
        ("/lead/labelers/l-lead", {"role": "admin"}),
        ("/lead/labelers/l-ann", {"role": "lead"}),
        ("/lead/labelers/l-admin", {"active": "no"}),
    ],
)
def test_a_lead_does_not_climb(
    small: Any, client: Callable[..., Any], things: Things, url: str, fields: dict[str, str]
) -> None:
    lead = client("lead")

    def held() -> Any:
        rows = dump(small)
        roles = [
            (account.id, account.role, account.active) for account in accounts.accounts(small.db)
        ]
        return roles, rows["invitation"]

    before = held()
    lead.form(url, **fields)
    assert held() == before


def test_a_labeler_cannot_ask_about_work_of_others_by_its_task(
    client: Callable[..., Any], things: Things
) -> None:
    body = {"text": "Why?", "task_id": things.task, "labeler_id": "l-ann"}
    assert client("bob").send("POST", f"/work/{things.open}/messages", body).status_code == 404
    assert client("ann").send("POST", f"/work/{things.open}/messages", body).status_code == 422
