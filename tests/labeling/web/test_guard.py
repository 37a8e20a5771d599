"""Nobody comes past the guard: every route of the table, with everything that could be wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response

from instil.labeling.web.app import ROUTES
from instil.labeling.web.guard import HEADERS, Guard
from instil.labeling.web.route import (
    LABELERS,
    MIB,
    PUBLIC,
    Route,
    Seen,
    Settings,
    action,
    page,
    static_url,
)

HOST = "127.0.0.1:8000"
ORIGIN = f"http://{HOST}"
LINES = [(route, method) for route in ROUTES for method in route.methods]
NAMES = [f"{method} {route.path}" for route, method in LINES]
SENT = [(route, method) for route, method in LINES if method not in ("GET", "HEAD")]
SENT_NAMES = [f"{method} {route.path}" for route, method in SENT]
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def url_of(route: Route) -> str:
    """A URL of the route, of nothing that exists."""
    return re.sub(r"\{\w+\}", "nothing", route.path)


def somebody(route: Route) -> str:
    """One of the store's people whom the route lets in."""
    names = {"labeler": "ann", "lead": "lead", "viewer": "viewer", "admin": "admin"}
    return names[sorted(route.roles)[-1]] if route.roles else ""


@pytest.fixture
def calls() -> list[Seen]:
    """What handlers were asked."""
    return []


@pytest.fixture
def spied(small: Any, calls: list[Seen]) -> Guard:
    """The whole table, with a handler in each line that only notes that it was asked."""

    def note(seen: Seen) -> Response:
        calls.append(seen)
        return PlainTextResponse("done")

    return Guard(small.db, Settings(), [replace(route, handler=note) for route in ROUTES])


def send(visitor: Any, route: Route, method: str, **headers: str | None) -> Any:
    """A request that is right in all that `headers` do not change; None leaves a header out."""
    kind = "application/json" if route.json else "application/x-www-form-urlencoded"
    usual = {"origin": ORIGIN, "x-csrf-token": visitor.csrf, "content-type": kind}
    usual.update(headers)  # type: ignore[arg-type]
    sent = {name: value for name, value in usual.items() if value is not None}
    body = b"" if method in ("GET", "HEAD") else b"{}"
    return visitor.http.request(method, url_of(route), content=body, headers=sent)


@pytest.mark.parametrize(("route", "method"), LINES, ids=NAMES)
@pytest.mark.parametrize("name", ["", "ann", "viewer", "admin"])
def test_every_answer_has_the_headers(
    client: Callable[..., Any], route: Route, method: str, name: str
) -> None:
    response = send(client(name), route, method)
    assert response.status_code < 500
    assert response.headers["content-security-policy"] == CSP
    for header, value in HEADERS.items():
        assert response.headers[header] == value
    assert "server" not in response.headers
    assert "etag" not in response.headers
    assert "access-control-allow-origin" not in response.headers


def test_no_page_has_inline_script_or_style() -> None:
    from instil.labeling.web import route

    pages = route.Path(route.__file__).parent / "pages"
    for template in pages.glob("*.html"):
        text = re.sub(r"\{#.*?#\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\s(?:style|on\w+)\s*=", re.sub(r"\{%.*?%\}", "", text)), template
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), template
        assert "<style" not in text, template
        for safe in re.findall(r"\{\{[^}]*\|\s*safe", text):
            assert "html" in safe, (template, safe)


def test_scripts_and_styles_are_cached_and_nothing_else(client: Callable[..., Any]) -> None:
    response = client().get(static_url("instil.css"))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"].startswith("text/css")
    assert client("ann").get("/account").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("route", "method"), LINES, ids=NAMES)
def test_another_host_is_refused(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    visitor = visit(spied, somebody(route))
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1:8000.evil.example", ""):
        assert send(visitor, route, method, host=host).status_code == 400, host
    assert not calls
    assert send(visitor, route, method, host="localhost:8000", origin="http://localhost:8000").text


@pytest.mark.parametrize(("route", "method"), SENT, ids=SENT_NAMES)
def test_what_another_site_sends_is_not_done(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    visitor = visit(spied, somebody(route))
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8001", f"{ORIGIN}.evil", ""):
        assert send(visitor, route, method, origin=origin).status_code == 403, origin
    for site in (None, "cross-site", "same-site", "none"):
        headers = {"origin": None, "sec-fetch-site": site}
        assert send(visitor, route, method, **headers).status_code == 403, site
    assert not calls
    assert send(visitor, route, method).status_code == 200
    assert send(visitor, route, method, **{"origin": None, "sec-fetch-site": "same-origin"}).text
    assert len(calls) == 2


SIGNED = [(route, method) for route, method in SENT if route.roles]


@pytest.mark.parametrize(
    ("route", "method"), SIGNED, ids=[f"{method} {route.path}" for route, method in SIGNED]
)
def test_without_the_token_of_this_session_nothing_is_done(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    visitor = visit(spied, somebody(route))
    other = visit(spied, somebody(route))
    for token in (None, "", "x", other.csrf, visitor.csrf[:-1], visitor.csrf + "x", "é"):
        header = token if token is None else token.encode()
        response = send(visitor, route, method, **{"x-csrf-token": header})  # type: ignore[dict-item]
        assert response.status_code == 403, token
    assert not calls
    assert send(visitor, route, method).status_code == 200


def test_the_token_may_come_in_the_form(client: Callable[..., Any]) -> None:
    visitor = client("ann")
    assert visitor.form("/account", change="comfort").status_code == 303
    assert visitor.form("/account", change="comfort", csrf="x").status_code == 403


@pytest.mark.parametrize(("route", "method"), LINES, ids=NAMES)
def test_only_its_roles_reach_a_route(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    nobody = send(visit(spied), route, method)
    if route.roles:
        assert nobody.status_code == (401 if route.json else 303)
        assert route.json or nobody.headers["location"] == "/login"
    else:
        assert nobody.status_code == 200
    for role, name in (
        ("labeler", "ann"),
        ("lead", "lead"),
        ("viewer", "viewer"),
        ("admin", "admin"),
    ):
        expected = 200 if not route.roles or role in route.roles else 404
        assert send(visit(spied, name), route, method).status_code == expected, role


def test_a_page_of_others_looks_like_none(client: Callable[..., Any]) -> None:
    ann = client("ann")
    pages = [ann.get(url) for url in ("/lead", "/lead/audit", "/nothing", "/work/nothing")]
    assert {response.status_code for response in pages} == {404}
    assert len({response.content for response in pages}) == 1


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "TRACE", "PUT"])
def test_other_methods_do_nothing(client: Callable[..., Any], method: str) -> None:
    response = client("ann").http.request(method, "/", headers={"origin": ORIGIN})
    assert response.status_code == 405
    assert response.headers["content-security-policy"] == CSP


def test_head_is_get_without_a_body(client: Callable[..., Any]) -> None:
    assert client("ann").http.head("/account").status_code == 200


# -- size, time, form ------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "method"), SENT, ids=SENT_NAMES)
def test_more_bytes_than_a_route_takes_are_refused(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    visitor = visit(spied, somebody(route))
    said = send(visitor, route, method, **{"content-length": str(route.limit + 1)})
    assert said.status_code == 413
    assert send(visitor, route, method, **{"content-length": "-1"}).status_code == 413
    assert send(visitor, route, method, **{"content-encoding": "gzip"}).status_code == 415
    assert not calls


@pytest.mark.parametrize(("route", "method"), SENT, ids=SENT_NAMES)
def test_bytes_are_counted_whatever_the_length_says(
    small: Any, calls: list[Seen], visit: Callable[..., Any], route: Route, method: str
) -> None:
    def note(seen: Seen) -> Response:
        calls.append(seen)
        return Response()

    app = Guard(small.db, Settings(), [replace(route, handler=note, limit=1000)])
    visitor = visit(app, somebody(route))
    kind = "application/json" if route.json else "application/x-www-form-urlencoded"
    headers = {"origin": ORIGIN, "x-csrf-token": visitor.csrf, "content-type": kind}

    def chunks(n: int) -> Any:
        yield from (b" " * 100 for _ in range(n))

    response = visitor.http.request(method, url_of(route), content=chunks(11), headers=headers)
    assert response.status_code == 413
    assert not calls
    response = visitor.http.request(method, url_of(route), content=chunks(10), headers=headers)
    assert response.status_code == 200


def test_a_get_has_no_body(client: Callable[..., Any]) -> None:
    response = client("ann").http.request("GET", "/account", content=b"x")
    assert response.status_code == 413


def scope(session: Any, kind: bytes, path: str = "/sent") -> dict[str, Any]:
    """A POST as a server hands it to the application."""
    headers = {
        b"host": HOST.encode(),
        b"origin": ORIGIN.encode(),
        b"content-type": kind,
        b"cookie": f"session={session.token}".encode(),
        b"x-csrf-token": session.csrf.encode(),
    }
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": list(headers.items()),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }


@pytest.mark.parametrize("json", [True, False])
def test_a_body_that_does_not_come_is_not_awaited(
    small: Any, visit: Callable[..., Any], json: bool
) -> None:
    def never(seen: Seen) -> Response:
        raise AssertionError

    route = action("/sent", never, roles=LABELERS, json=json, seconds=0.01)
    app = Guard(small.db, Settings(), [route])
    session = visit(app, "ann").session
    sent: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": b"a=", "more_body": True}])

    async def receive() -> dict[str, Any]:
        for part in parts:
            return part
        await asyncio.sleep(3600)
        raise AssertionError

    async def note(message: Any) -> None:
        sent.append(message)

    kind = b"application/json" if json else b"application/x-www-form-urlencoded"
    asyncio.run(app(scope(session, kind), receive, note))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


NESTED = [b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 1_000_000]


@pytest.mark.parametrize("body", NESTED, ids=["lists", "objects", "a million"])
def test_deep_json_is_refused(
    spied: Guard, calls: list[Seen], visit: Callable[..., Any], body: bytes
) -> None:
    assert visit(spied, "ann").send("POST", "/work/x/label", body).status_code == 400
    assert not calls


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 64 + b"]" * 64, 200),
        (b'"' + b"[" * 1000 + b'"', 200),  # brackets in a text are a text
        (b'"\\"' + b"[" * 1000 + b'"', 200),
        (rb'"\\"' + b"[" * 1000, 400),  # that text has ended
        (b'"' + b'\\"' * 900_000, 200),  # neither slow nor deep, only wrong
        (rb'{"a": "\u0000"}', 400),
        (rb'{"a": "\\u0000"}', 200),
    ],
)
def test_what_counts_as_deep(
    spied: Guard, visit: Callable[..., Any], body: bytes, status: int
) -> None:
    assert visit(spied, "ann").send("POST", "/work/x/label", body).status_code == status


def test_a_script_says_that_it_sends_json(spied: Guard, visit: Callable[..., Any]) -> None:
    visitor = visit(spied, "ann")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = visitor.http.post(
            "/work/x/label",
            content=b"{}",
            headers={"origin": ORIGIN, "x-csrf-token": visitor.csrf, "content-type": kind},
        )
        assert response.status_code == 415
        assert response.json()["error"]


def test_forms_are_bounded(spied: Guard, calls: list[Seen], visit: Callable[..., Any]) -> None:
    visitor = visit(spied, "ann")
    assert visitor.form("/account", **{f"f{n}": "x" for n in range(1001)}).status_code == 400
    assert visitor.form("/account", change="a\0b").status_code == 400
    assert visitor.get("/account?a=%00").status_code == 400
    assert visitor.get("/guidelines/a%00").status_code == 400
    broken = visitor.http.post(
        "/account",
        content=b"--x\r\nbroken",
        headers={"origin": ORIGIN, "content-type": "multipart/form-data; boundary=x"},
    )
    assert broken.status_code in (400, 403)
    upload = visitor.upload("/account", {}, [("file", ("a.jsonl", b"x"))])
    assert upload.status_code == 400  # this form takes no files
    assert not calls


def test_files_are_gone_after_the_answer(small: Any, visit: Callable[..., Any]) -> None:
    seen: list[Seen] = []

    def look(request: Seen) -> Response:
        seen.append(request)
        (first,) = request.uploads["prompts"]
        assert first.path.read_bytes() == b"x" * 3_000_000
        assert first.name == "../../etc/passwd"
        assert "passwd" not in str(first.path)
        return PlainTextResponse(request.form["name"])

    app = Guard(small.db, Settings(), [action("/up", look, roles=LABELERS, limit=4 * MIB)])
    files = [("prompts", ("../../etc/passwd", b"x" * 3_000_000)), ("more", ("", b""))]
    response = visit(app, "ann").upload("/up", {"name": "ä"}, files)
    assert response.text == "ä"
    assert not seen[0].uploads["prompts"][0].path.exists()
    assert "more" not in seen[0].uploads


TRAVERSALS = [
    "/static/../../database.py",
    "/static/x/../../../people.py",
    "/static/{version}/..%2f..%2fpeople.py",
    "/static/{version}/%2e%2e/app.py",
    "/static/{version}/..%5capp.py",
    "/static/{version}//etc/passwd",
    "/static/{version}/instil.css%00.js",
    "/static/{version}/INSTIL.CSS",
    "/static/other/instil.css",
    "//etc/passwd",
    "/guidelines/..%2f..%2fpeople",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_way_leads_to_another_file(client: Callable[..., Any], path: str) -> None:
    version = static_url("instil.css").split("/")[2]
    visitor = client("ann")
    response = visitor.http.get(ORIGIN + path.format(version=version))
    assert response.status_code in (400, 404)
    assert b"import" not in response.content
    assert b"root:" not in response.content


# -- what goes wrong inside ------------------------------------------------------------------------


def raising(error: Exception, *, json: bool = False) -> list[Route]:
    def fail(seen: Seen) -> Response:
        raise error

    return [page("/fail", fail, roles=PUBLIC), action("/say", fail, roles=PUBLIC, json=json)]


def test_our_mistakes_are_logged_and_not_told(
    small: Any, visit: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = Guard(small.db, Settings(), raising(RuntimeError("secret of the server")))
    response = visit(app).get("/fail")
    assert response.status_code == 500
    assert response.headers["content-security-policy"] == CSP
    assert "secret" not in response.text
    assert "secret of the server" in caplog.text


def test_mistakes_of_the_reader_are_said(small: Any, visit: Callable[..., Any]) -> None:
    from instil.labeling.kinds import Refused

    app = Guard(small.db, Settings(), raising(Refused("tiers", "not ranked yet: <B>"), json=True))
    response = visit(app).send("POST", "/say", {})
    assert response.status_code == 422
    assert response.json() == {"error": "Not ranked yet: <B>.", "field": "tiers"}
    response = visit(app).get("/fail")
    assert response.status_code == 422
    assert "Not ranked yet: &lt;B&gt;." in response.text


def test_a_database_that_is_away_is_said(client: Callable[..., Any], small: Any) -> None:
    visitor = client("ann")
    assert visitor.get("/health").text == "ok"
    with small.db.write() as connection:
        connection.exec_driver_sql("DROP TABLE session")
    response = visitor.get("/")
    assert response.status_code == 503
    assert "Nothing was changed" in response.text


# -- https -----------------------------------------------------------------------------------------


def test_behind_a_proxy_the_public_address_is_the_only_one(
    small: Any, visit: Callable[..., Any]
) -> None:
    from instil.labeling.web.app import build_app

    app = build_app(small.db, Settings(host="0.0.0.0", public_url="https://labels.example.org/"))
    http = visit(app).http
    public = {"host": "labels.example.org", "origin": "https://labels.example.org"}
    response = http.get("/login", headers=public)
    assert response.status_code == 200
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    fields = {"name": "ann", "password": "wrong"}
    assert http.post("/login", data=fields, headers=public).status_code == 422
    inside = {"host": HOST, "origin": ORIGIN}
    assert http.post("/login", data=fields, headers=inside).status_code == 403
