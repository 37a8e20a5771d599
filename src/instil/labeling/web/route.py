"""What a page is made of: a line of the table of routes, what its handler sees, what it answers.

A handler is a plain function of one `Seen`, run in a thread. It never checks who may call it, where
a request came from or how large it is: its `Route` says so, and `guard` has refused the rest.

    ROUTES = [
        page("/lead/questions", questions, roles=LEADS),
        action("/lead/questions/{task}/{labeler}", reply, roles=LEADS),
    ]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from starlette.datastructures import URL, ImmutableMultiDict
from starlette.responses import HTMLResponse, RedirectResponse, Response

from instil.labeling.accounts import Account, Role
from instil.labeling.database import Database
from instil.labeling.people import Session

Roles = frozenset[Role]
Form = ImmutableMultiDict[str, str]
_NOTHING: Form = ImmutableMultiDict()

LABELERS: Roles = frozenset({"labeler", "lead", "admin"})
"""Who labels; leads and administrators do it too, to give the key of gold tasks."""
LEADS: Roles = frozenset({"lead", "admin"})
ADMINS: Roles = frozenset({"admin"})
VIEWERS: Roles = frozenset({"viewer", "lead", "admin"})
ANYONE: Roles = frozenset({"labeler", "viewer", "lead", "admin"})
"""Everybody who is signed in."""
PUBLIC: Roles = frozenset()
"""Nobody need be signed in."""

KIB, MIB = 1024, 1024 * 1024


class NotFound(Exception):
    """There is no such thing, or it is somebody else's: the page does not say which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server is reached, and what it takes."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = ""
    """Under what https address others reach it; empty: on this machine alone."""
    demo: bool = False

    @property
    def secure(self) -> bool:
        """Whether browsers come by https."""
        return self.public_url.startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. Browsers take a __Host- cookie from https alone, and
        from no other host of the same domain."""
        return "__Host-session" if self.secure else "session"

    @property
    def hosts(self) -> frozenset[str]:
        """What a request may say in its Host header; anything else was meant for somebody else."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == 80 else f":{self.port}"
        names = {f"{name}{port}" for name in (own, "127.0.0.1", "localhost", "[::1]")}
        public = {URL(self.public_url).netloc.lower()} if self.public_url else set()
        return frozenset(names | public)

    def origin(self, host: str) -> str:
        """The origin of the pages that browsers get which say `host`."""
        return self.public_url.rstrip("/").lower() or f"http://{host}"

    @property
    def url(self) -> str:
        """The address to print."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url.rstrip("/") or f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came with a form; it is gone after the answer."""

    name: str
    """What the browser called it. For messages only, never a path."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that was let through, as a handler sees it."""

    db: Database
    settings: Settings
    session: Session | None
    """None on public pages when nobody is signed in."""
    method: str
    url: str
    """The path as it was asked for."""
    path: Mapping[str, str] = field(default_factory=dict)
    """The parts of the path that the route names."""
    query: Form = field(default_factory=lambda: _NOTHING)
    form: Form = field(default_factory=lambda: _NOTHING)
    uploads: Mapping[str, Sequence[Upload]] = field(default_factory=dict)
    body: bytes = b""
    """The body, where the route takes JSON."""
    address: str = ""

    @property
    def account(self) -> Account:
        """Who is signed in; only for routes that want a role."""
        assert self.session is not None
        return self.session.account


Handler = Callable[[Seen], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the table: what is answered to whom, and how much it may be asked."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    roles: Roles
    json: bool
    """Called by scripts: JSON in, JSON out, also when it is refused."""
    limit: int
    """The most bytes of a body."""
    seconds: float
    """In what time the body must have come."""


def page(
    path: str,
    handler: Handler,
    *,
    roles: Roles,
    methods: tuple[str, ...] = ("GET",),
    limit: int = 256 * KIB,
    seconds: float = 10,
) -> Route:
    """A page that is looked at, or that is looked at and sent: `Seen.method` tells which.

    A form may bring files (`Seen.uploads`) if `limit` is above 2 MiB.
    """
    return Route(
        path=path,
        methods=methods,
        handler=handler,
        roles=roles,
        json=False,
        limit=limit,
        seconds=seconds,
    )


def action(
    path: str,
    handler: Handler,
    *,
    roles: Roles,
    methods: tuple[str, ...] = ("POST",),
    json: bool = False,
    limit: int = 256 * KIB,
    seconds: float = 10,
) -> Route:
    """Something that is only sent: a form, or with `json` what a script says (`Seen.body`)."""
    return Route(
        path=path,
        methods=methods,
        handler=handler,
        roles=roles,
        json=json,
        limit=limit,
        seconds=seconds,
    )


NAVIGATION: tuple[tuple[str, str, Roles], ...] = (
    ("/", "Work", LABELERS),
    ("/history", "History", LABELERS),
    ("/lead", "Progress", VIEWERS),
    ("/lead/quality", "Quality", VIEWERS),
    ("/lead/questions", "Questions", LEADS),
    ("/lead/labelers", "Labelers", LEADS),
    ("/lead/screening", "Screening", LEADS),
    ("/lead/guidelines", "Guidelines", LEADS),
    ("/lead/survey", "Survey", LEADS),
    ("/lead/audit", "Audit", ADMINS),
)
"""What stands above every page, for whom."""

NOTICES = {
    "nothing": "There is nothing of this kind left for you at the moment.",
    "saved": "Saved.",
    "welcome": "Welcome. Choose what to do first.",
    "survey": "Thank you. Your answers were stored without your name.",
    "password": "Your password is changed. Everywhere else you have been signed out.",
    "skipped": "Skipped.",
}
"""What a page may say because the page before it asked so, by a word in its query."""


def render(seen: Seen, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template. `title` is required; `notice` is shown above the content."""
    account = seen.session.account if seen.session else None
    values.setdefault("notice", next((NOTICES[k] for k in seen.query if k in NOTICES), ""))
    text = (
        _templates()
        .get_template(template)
        .render(
            account=account,
            csrf=seen.session.csrf if seen.session else "",
            nav=_navigation(account, seen.url),
            static=static_url,
            **values,
        )
    )
    return HTMLResponse(text, status)


def redirect(url: str) -> RedirectResponse:
    """See another page of this server; the browser fetches it with GET."""
    return RedirectResponse(url, 303)


def answer(data: Any, status: int = 200) -> Response:
    """JSON for a script."""
    return Response(msgspec.json.encode(data), status, media_type="application/json")


def sentence(error: Exception) -> str:
    """What an error says, as a page says it: a capital in front, a full stop at the end."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def cursor(seen: Seen) -> int | None:
    """Where a list goes on that is shown a page at a time; None at its beginning."""
    before = seen.query.get("before", "")
    if before and not (before.isascii() and before.isdecimal() and len(before) < 18):
        raise NotFound
    return int(before) if before else None


def _navigation(account: Account | None, url: str) -> list[tuple[str, str, bool]]:
    if account is None:
        return []
    working = url.startswith("/work/")  # there the room above is for tools
    shown = [
        (href, text)
        for href, text, roles in NAVIGATION
        if account.role in roles and not (working and href.startswith("/lead/"))
    ]
    parts = {"/": "/work"}  # where the pages below an entry are, if not below its own URL
    inside = [h for h, _ in shown if url == h or url.startswith(f"{parts.get(h, h)}/")]
    here = max(inside, key=len, default="")
    return [(href, text, href == here) for href, text in shown]


@cache
def _templates() -> jinja2.Environment:
    pages = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    made = jinja2.Environment(loader=pages, autoescape=True)
    made.filters["when"] = _when
    return made


def _when(ms: int) -> str:
    """A moment in words: 2026-11-21 15:04 UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}


@cache
def static_files() -> Mapping[str, bytes]:
    """All files of /static by name. There is no way from a URL to any other file."""
    folder = Path(__file__).parent / "static"
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in MEDIA_TYPES}


@cache
def static_version() -> str:
    """A hash of what is in all of them: another version is another URL, so caches keep them."""
    content = blake2b(digest_size=8)
    for name, data in static_files().items():
        content.update(f"{name} {len(data)} ".encode() + data)
    return content.hexdigest()


def static_url(name: str) -> str:
    """The URL of a file of /static. Raises KeyError if there is none of this name."""
    static_files()[name]
    return f"/static/{static_version()}/{name}"
