"""The labeling server, in a thread on a free port, for tests that look at it in a browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from instil.labeling import people
from instil.labeling.database import Database
from instil.labeling.web.app import build_app
from instil.labeling.web.route import Settings


@dataclass(frozen=True)
class Site:
    """A running server and its database."""

    db: Database
    settings: Settings

    @property
    def url(self) -> str:
        return self.settings.url

    def context(self, browser: Any, person: str | None, **options: Any) -> Any:
        """A browser context, signed in as the account of this id."""
        made = browser.new_context(**options)
        if person:
            token = people.begin(self.db, person).token
            cookie = {"name": self.settings.cookie, "value": token, "url": self.url}
            made.add_cookies([cookie])
        return made


@contextmanager
def serving(db: Database, wrap: Callable[[Any], Any] = lambda app: app) -> Iterator[Site]:
    """Serve `db`; `wrap` may put something around the application."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = Settings(port=listener.getsockname()[1])
        config = uvicorn.Config(wrap(build_app(db, settings)), log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Site(db, settings)
        finally:
            server.should_exit = True
            thread.join(10)
