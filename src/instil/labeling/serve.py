"""`instil label`: the pages on which people label, served by one process.

    instil label --demo                                      # try it: prompts and outputs are there
    instil label --db labels.db                              # on this machine alone
    instil label --db postgresql://db/labels --host 0.0.0.0 \\
        --public-url https://labels.example.org --workers 4   # for a team, behind a proxy

At the first start a link is printed that makes the first administrator, once; everybody else is
invited from the pages. There are no default passwords.

Left out on purpose: https. Whoever serves beyond this machine has a proxy that does it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from starlette.datastructures import URL
from uvicorn.supervisors import Multiprocess

from instil.errors import InstilError
from instil.labeling import people
from instil.labeling.database import Database
from instil.labeling.web.app import build_app
from instil.labeling.web.guard import Guard
from instil.labeling.web.route import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Serve the pages on which people write and rank, and look at what came of it."""

    db: str = ""
    """The database: a path means SQLite; or a URL, which INSTIL_DATABASE_URL gives too."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine alone needs `public_url`."""
    port: int = 8000
    """0 takes a free one."""
    public_url: str = ""
    """The https address under which others reach it, through a proxy."""
    workers: int = 1
    """Processes; more than one wants PostgreSQL."""
    demo: bool = False
    """Fill an empty database with an example; without `db`, one that is gone afterwards."""


def run(config: Config) -> None:
    """Serve until interrupted."""
    settings = settings_of(config)
    with TemporaryDirectory(prefix="instil-") as folder:
        db = _database(config, Path(folder))
        try:
            listening = _listen(settings)
            settings = replace(settings, port=listening.getsockname()[1])
            _welcome(db, settings)
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as quiet as Ctrl-C
            with suppress(KeyboardInterrupt):
                _serve(db, settings, listening, config.workers)
            print("stopped")
        finally:
            db.close()


def settings_of(config: Config) -> Settings:
    """How the server is reached. Raises InstilError for a way that would not be safe."""
    url = URL(config.public_url)
    if config.public_url and (
        url.scheme != "https" or not url.netloc or url.path not in ("", "/") or url.query
    ):
        raise InstilError(
            f"--public-url {config.public_url}: give https and a name, such as "
            "https://labels.example.org"
        )
    if not _is_loopback(config.host) and not config.public_url:
        raise InstilError(
            f"--host {config.host}: others could reach it, and would send passwords in the clear; "
            "put a proxy with https before it and name its address with --public-url"
        )
    if not 0 <= config.port <= 65535:
        raise InstilError(f"--port {config.port}: give 1 to 65535, or 0 for a free one")
    if config.workers < 1:
        raise InstilError(f"--workers {config.workers}: give 1 or more")
    return Settings(
        host=config.host, port=config.port, public_url=config.public_url, demo=config.demo
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database(config: Config, folder: Path) -> Database:
    named = config.db or os.environ.get("INSTIL_DATABASE_URL", "")
    if config.demo and not config.db:
        named = str(folder / "demo.db")
    if not named:
        raise InstilError("name the database: --db labels.db; or look around first with --demo")
    db = Database(named)
    if config.workers > 1 and db.sqlite:
        raise InstilError(
            f"--workers {config.workers}: SQLite takes one writer at a time, so one process is "
            "as fast; for more, name a PostgreSQL database"
        )
    db.migrate()
    return db


def _listen(settings: Settings) -> Any:
    """A socket that listens: who follows a link as soon as it is printed waits, and gets a page."""
    log = logging.getLogger("uvicorn.error")
    log.disabled = True  # it would say in its own words what the error below says
    try:
        made = uvicorn.Config("", settings.host, settings.port, log_config=None).bind_socket()
        made.listen(2048)
    except (OSError, SystemExit) as error:
        why = error.__context__ if isinstance(error, SystemExit) else error
        reason = why.strerror if isinstance(why, OSError) else why
        raise InstilError(
            f"{settings.host}:{settings.port}: {reason}; choose another with --port, or 0"
        ) from why
    finally:
        log.disabled = False
    return made


def _welcome(db: Database, settings: Settings) -> None:
    """Say where the pages are; with the link that is needed first, if one is."""
    token: str | None
    if settings.demo:
        from instil.labeling import example

        token = example.fill(db)
        print(f"A demonstration on {db.url.render_as_string()}. Open this link, and rank:")
    else:
        token = people.set_up_link(db)
        print(f"Serving {db.url.render_as_string()} on {settings.url}")
        if token:
            print("There is no administrator yet. This link makes one, once, within seven days:")
    if token:
        print(f"\n    {settings.url}/invitations/{token}\n")
    print("Ctrl-C stops it.", flush=True)


def _serve(db: Database, settings: Settings, listening: Any, workers: int) -> None:
    app: Any = build_app(db, settings)
    if workers > 1:  # each process makes its own
        app = partial(_app, db.url.render_as_string(hide_password=False), settings)
    config = uvicorn.Config(
        app,
        factory=workers > 1,
        workers=workers,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,  # the tokens of invitations are in paths
        server_header=False,
        proxy_headers=bool(settings.public_url),
        limit_concurrency=200,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=10,
    )
    if workers > 1:
        Multiprocess(config, [listening]).run()
    else:
        uvicorn.Server(config).run([listening])


def _app(url: str, settings: Settings) -> Guard:
    return build_app(Database(url), settings)
