"""The application whole: its table of routes, its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from instil.labeling.web.app import ROUTES
from instil.labeling.web.guard import Guard
from instil.labeling.web.route import PUBLIC, Settings, page, static_files, static_url


def test_health_asks_the_database(client: Callable[..., Any]) -> None:
    assert client().get("/health").text == "ok"


@pytest.mark.parametrize("name", sorted(static_files()))
def test_every_file_is_served(client: Callable[..., Any], name: str) -> None:
    response = client().get(static_url(name))
    assert response.status_code == 200
    assert response.content == static_files()[name]
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    assert response.headers["content-type"] == f"{kind}; charset=utf-8"


def test_each_line_of_the_table_is_there_once() -> None:
    lines = Counter((route.path, method) for route in ROUTES for method in route.methods)
    assert max(lines.values()) == 1


def test_what_is_public_is_little() -> None:
    assert {route.path for route in ROUTES if route.roles == PUBLIC} == {
        "/health",
        "/static/{version}/{name}",
        "/login",
        "/invitations/{token}",
    }


def test_two_handlers_of_one_line_are_our_mistake(small: Any) -> None:
    route = page("/x", lambda seen: None, roles=PUBLIC)  # type: ignore[arg-type, return-value]
    with pytest.raises(AssertionError, match="two GET /x"):
        Guard(small.db, Settings(), [route, route])
