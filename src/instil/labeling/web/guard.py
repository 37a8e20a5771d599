"""The only way in: what each request must pass before a handler sees it, and the headers after it.

In this order: Host; the route; size and encoding; Origin; the session; the role; the body, counted
and timed; the CSRF token. What is refused gets an error page (JSON where the route speaks JSON). A
page that is not for this role is answered like one that does not exist.

Handlers run in four threads: a fifth would wait for the database anyway, and each costs memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.datastructures import FormData, ImmutableMultiDict, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from instil.errors import InstilError
from instil.labeling import accounts, assign, people
from instil.labeling.database import Database, Unavailable
from instil.labeling.people import Session
from instil.labeling.web.route import (
    KIB,
    MIB,
    NotFound,
    Route,
    Seen,
    Settings,
    Upload,
    answer,
    redirect,
    render,
    sentence,
)

THREADS = 4
DEEPEST = 64
"""How far JSON may be nested."""
SAFE = ("GET", "HEAD")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer: browsers would then say "Origin: null" when a form is sent.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer; a route may set its own cache-control."""

T = TypeVar("T")
_log = logging.getLogger("instil.labeling")


class Refused(Exception):
    """The request goes no further; `reason` is what its sender may know."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Guard:
    """The ASGI application: a table of routes behind all checks."""

    def __init__(self, db: Database, settings: Settings, routes: Sequence[Route]) -> None:
        self.db = db
        self.settings = settings
        self.routes = routes
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="handler")
        self._hosts = settings.hosts
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            for method in route.methods:
                assert method not in self._by_path.get(route.path, {}), f"two {method} {route.path}"
                self._by_path.setdefault(route.path, {})[method] = route
        self._patterns = [(compile_path(path)[0], path) for path in self._by_path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets, no lifespan
            return
        response = await self._answer(Request(scope, receive))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if self.settings.secure:
            response.headers["strict-transport-security"] = "max-age=31536000"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        """What a handler answers, or why none was asked."""
        route: Route | None = None
        seen = Seen(
            db=self.db,
            settings=self.settings,
            session=None,
            method="GET" if request.method == "HEAD" else request.method,
            url=request.scope["path"],
            address=request.client.host if request.client else "",
        )
        try:
            self._check_host(request)
            route, path = self._route(seen)
            query = ImmutableMultiDict(request.query_params.multi_items())
            seen = replace(seen, path=path, query=query)
            _check_size(request, route)
            self._check_origin(request)
            seen = await self._admit(request, route, seen)
            return await self._handle(request, route, seen)
        except _SignInFirst:
            return redirect("/login")
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            status, reason = _reason(error)
            response = self._refusal(seen, route, status, reason, getattr(error, "field", ""))
            if request.method not in SAFE and isinstance(error, Refused | NotFound):
                response.headers["connection"] = "close"  # what is still to come is not read
            return response

    def _refusal(
        self, seen: Seen, route: Route | None, status: int, reason: str, field: str
    ) -> Response:
        if route is not None and route.json:
            return answer({"error": reason, "field": field}, status)
        title = TITLES.get(status, TITLES[500])
        # Without the session: what does not exist and what is not yours look the same.
        seen = replace(seen, session=None, query=ImmutableMultiDict())
        return render(seen, "error.html", status, title=title, reason=reason, code=status)

    def _check_host(self, request: Request) -> None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise Refused(400, "This server is not known by that name.")

    def _check_origin(self, request: Request) -> None:
        """Who sends something must come from a page of ours (CSRF, and sign-in CSRF)."""
        if request.method in SAFE:
            return
        origin = request.headers.get("origin")
        if origin is None:
            ours = request.headers.get("sec-fetch-site") == "same-origin"
        else:
            ours = origin == self.settings.origin(request.headers["host"].lower())
        if not ours:
            raise Refused(403, "This was sent from a page of another site, so it was not done.")

    def _route(self, seen: Seen) -> tuple[Route, Mapping[str, str]]:
        for pattern, path in self._patterns:
            if found := pattern.match(seen.url):
                route = self._by_path[path].get(seen.method)
                if route is None:
                    raise Refused(405, f"This page does not take {seen.method}.")
                return route, found.groupdict()
        raise NotFound

    async def _admit(self, request: Request, route: Route, seen: Seen) -> Seen:
        """`seen` with the session of the cookie, if it may come here."""
        session: Session | None = None
        if cookie := request.cookies.get(self.settings.cookie):
            session = await self._run(lambda: people.session_of(self.db, cookie))
        if route.roles and session is None:
            if route.json:
                raise Refused(401, "You are signed out. Sign in again; your work here is kept.")
            raise _SignInFirst
        if route.roles and session and session.account.role not in route.roles:
            raise NotFound
        return replace(seen, session=session)

    async def _handle(self, request: Request, route: Route, seen: Seen) -> Response:
        form = FormData()
        try:
            if request.method not in SAFE:
                try:
                    async with asyncio.timeout(route.seconds):
                        seen, form = await _read(request, route, seen)
                except TimeoutError:
                    raise Refused(408, "The rest of what you sent did not come.") from None
                _check_token(request, seen)
            _check_text(seen)
            return await self._run(lambda: _call(route, seen, form))
        finally:
            await form.close()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _SignInFirst(Exception):
    pass


TITLES = {
    400: "This could not be read",
    403: "This was not done",
    404: "There is nothing here",
    405: "There is nothing here",
    408: "This took too long",
    413: "This is too large",
    415: "This could not be read",
    422: "This was not done",
    429: "Too many tries",
    500: "Something is wrong here",
    503: "The database cannot be reached",
}


def _reason(error: Exception) -> tuple[int, str]:
    """The status and the words for what was raised. What is our mistake is logged, not told."""
    match error:
        case Refused():
            return error.status, error.reason
        case NotFound() | assign.NotFound() | accounts.NoAccount() | people.NoInvitation():
            return 404, "It does not exist, or it is not yours."
        case people.TooManyTries():
            return 429, sentence(error)
        case MultiPartException():
            return 400, "The form could not be read."
        case Unavailable():
            _log.error("the database: %s", error)
            return 503, f"{sentence(error)} Your work is kept in this browser."
        case OperationalError() | InterfaceError() | NoConnection():
            _log.error("the database: %s", getattr(error, "orig", error))
            return 503, "Nothing was changed. Try again in a moment."
        case InstilError():
            return 422, sentence(error)
    _log.error("a handler failed", exc_info=error)
    return 500, "Nothing was changed. The server's log says what happened."


def _check_size(request: Request, route: Route) -> None:
    """Refuse by what the headers say; the bytes are counted as well when they come."""
    if "content-encoding" in request.headers:
        raise Refused(415, "Send it without Content-Encoding.")
    length = request.headers.get("content-length", "0")
    limit = 0 if request.method in SAFE else route.limit
    if not length.isdecimal() or len(length) > 15 or int(length) > limit:
        raise Refused(413, f"At most {limit:,} bytes are taken here.")


async def _read(request: Request, route: Route, seen: Seen) -> tuple[Seen, FormData]:
    """`seen` with what was sent, and the files of a form, which are to be closed."""
    stream = _counted(request, route.limit)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if route.json:
        if kind != "application/json":
            raise Refused(415, "Send application/json.")
        body = b"".join([chunk async for chunk in stream])
        _check_json(body)
        return replace(seen, body=body), FormData()
    if kind == "application/x-www-form-urlencoded":
        form = await FormParser(request.headers, stream, max_part_size=route.limit).parse()
    elif kind == "multipart/form-data":
        form = await MultiPartParser(
            request.headers,
            stream,
            max_files=16 if route.limit > 2 * MIB else 0,
            max_fields=100,
            max_part_size=256 * KIB,
        ).parse()
    elif b"".join([chunk async for chunk in stream]):
        raise Refused(415, "Send a form.")
    else:
        form = FormData()
    fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return replace(seen, form=ImmutableMultiDict(fields)), form


async def _counted(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise Refused(413, f"At most {limit:,} bytes are taken here.")
        yield chunk


# Linear in every input: nothing is tried twice, and a string without an end is a string too.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def _check_json(body: bytes) -> None:
    """Refuse what is nested too deep for a parser, and text that no database takes."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Refused(400, "Send UTF-8.") from None
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise Refused(400, f"JSON may be nested {DEEPEST} deep.")
    if _NUL.search(body):
        raise Refused(400, "A text may not have the character NUL.")


def _check_text(seen: Seen) -> None:
    texts: Iterator[str] = chain(
        seen.path.values(), *seen.query.multi_items(), *seen.form.multi_items()
    )
    if any("\0" in text for text in texts):
        raise Refused(400, "A text may not have the character NUL.")


def _check_token(request: Request, seen: Seen) -> None:
    if seen.session is None:
        return
    sent = request.headers.get("x-csrf-token") or seen.form.get("csrf", "")
    if not secrets.compare_digest(sent.encode(), seen.session.csrf.encode()):
        raise Refused(403, "This page is older than your sign-in. Load it again and repeat this.")


def _call(route: Route, seen: Seen, form: FormData) -> Response:
    """Ask the handler; files lie in a folder of their own until it has answered."""
    sent = [(n, f) for n, f in form.multi_items() if isinstance(f, UploadFile) and f.filename]
    if not sent:
        return route.handler(seen)
    with TemporaryDirectory(prefix="instil-") as folder:
        uploads: dict[str, list[Upload]] = {}
        for number, (field, file) in enumerate(sent):
            path = Path(folder) / f"{number}.jsonl"
            with path.open("wb") as copy:
                shutil.copyfileobj(file.file, copy)
            uploads.setdefault(field, []).append(Upload(file.filename or "", path))
        return route.handler(replace(seen, uploads=uploads))
