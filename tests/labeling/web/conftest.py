"""Somebody at a browser, signed in as one of the people of `small`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from instil.labeling import people
from instil.labeling.web.app import build_app
from instil.labeling.web.guard import Guard
from instil.labeling.web.route import Settings

HOST = "127.0.0.1:8000"
ORIGIN = f"http://{HOST}"


@dataclass
class Visitor:
    """One browser: it keeps cookies, says where it comes from, and does not follow redirects."""

    http: TestClient
    session: people.Session | None

    @property
    def csrf(self) -> str:
        return self.session.csrf if self.session else ""

    def get(self, url: str, **headers: str) -> Response:
        return self.http.get(url, headers=headers)

    def form(self, url: str, **fields: Any) -> Response:
        """Send a form as a page of the server would."""
        return self.http.post(url, data={"csrf": self.csrf, **fields}, headers={"origin": ORIGIN})

    def upload(self, url: str, fields: dict[str, Any], files: list[Any]) -> Response:
        """Send a form with files: [(field, (name, bytes))]."""
        data = {"csrf": self.csrf, **fields}
        return self.http.post(url, data=data, files=files, headers={"origin": ORIGIN})

    def send(self, method: str, url: str, body: Any) -> Response:
        """Send JSON as a script of the server would; bytes are sent as they are."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"origin": ORIGIN, "x-csrf-token": self.csrf, "content-type": "application/json"}
        return self.http.request(method, url, content=content, headers=headers)


@pytest.fixture
def app(small: Any) -> Guard:
    """The application on the database of `small`."""
    return build_app(small.db, Settings())


@pytest.fixture
def visit(small: Any) -> Callable[..., Visitor]:
    """`visit(app, "ann")`: a browser at any application, signed in or (without a name) not."""

    def visit(app: Any, name: str = "") -> Visitor:
        session = people.begin(small.db, small[name].id) if name else None
        cookies = {"session": session.token} if session else {}
        http = TestClient(app, base_url=ORIGIN, cookies=cookies, follow_redirects=False)
        return Visitor(http, session)

    return visit


@pytest.fixture
def client(app: Guard, visit: Callable[..., Visitor]) -> Callable[..., Visitor]:
    """`client("ann")`: a browser signed in as ann; `client()`: one that is not."""
    return lambda name="": visit(app, name)


@pytest.fixture(scope="session")
def known() -> Any:
    """The module known.py: labels that a test writes down itself."""
    spec = importlib.util.spec_from_file_location("known", Path(__file__).with_name("known.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
