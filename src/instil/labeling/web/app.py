"""The labeling server as one ASGI application: the table of its routes, behind the guard."""

from __future__ import annotations

from pathlib import PurePath

from starlette.responses import PlainTextResponse, Response

from instil.labeling.database import Database
from instil.labeling.web import account, lead, work
from instil.labeling.web.guard import Guard
from instil.labeling.web.route import (
    MEDIA_TYPES,
    PUBLIC,
    NotFound,
    Route,
    Seen,
    Settings,
    page,
    static_files,
    static_version,
)


def build_app(db: Database, settings: Settings) -> Guard:
    """All pages of `db`, to be served as `settings` say."""
    return Guard(db, settings, ROUTES)


def health(seen: Seen) -> Response:
    """Whether this process serves and reaches its database."""
    with seen.db.read() as connection:
        connection.exec_driver_sql("SELECT 1")
    return PlainTextResponse("ok")


def static(seen: Seen) -> Response:
    """A style sheet or a script. Its URL changes with what is in it."""
    name = seen.path["name"]
    if seen.path["version"] != static_version() or name not in static_files():
        raise NotFound
    return Response(
        static_files()[name],
        media_type=MEDIA_TYPES[PurePath(name).suffix],
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


ROUTES: list[Route] = [
    page("/health", health, roles=PUBLIC),
    page("/static/{version}/{name}", static, roles=PUBLIC),
    *account.ROUTES,
    *work.ROUTES,
    *lead.ROUTES,
]
"""The whole table. Tests ask of every line that it is guarded."""
