"""The parts that pages are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from instil.errors import InstilError
from instil.labeling.web.route import Settings, sentence, static_files, static_url


@pytest.mark.parametrize(
    ("settings", "hosts", "origin"),
    [
        (Settings(), {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}, "http://127.0.0.1:8000"),
        (Settings(port=80), {"127.0.0.1", "localhost", "[::1]"}, "http://127.0.0.1:8000"),
        (
            Settings(public_url="https://l.example/"),
            {"127.0.0.1:8000", "localhost:8000", "[::1]:8000", "l.example"},
            "https://l.example",
        ),
    ],
)
def test_the_names_of_a_server(settings: Settings, hosts: set[str], origin: str) -> None:
    assert settings.hosts == hosts
    assert settings.origin("127.0.0.1:8000") == origin


def test_an_address_to_print() -> None:
    assert Settings(host="::1").url == "http://[::1]:8000"
    assert Settings(public_url="https://l.example/").url == "https://l.example"


def test_errors_become_sentences() -> None:
    assert sentence(InstilError("give a name")) == "Give a name."
    assert sentence(InstilError("What?")) == "What?"


def test_a_static_file_has_its_version_in_its_url() -> None:
    assert static_url("instil.css").split("/")[1::2] == ["static", "instil.css"]
    with pytest.raises(KeyError):
        static_url("../route.py")
    assert all(name.endswith((".css", ".js")) for name in static_files())


@pytest.mark.parametrize(
    ("name", "there", "missing"),
    [
        ("ann", ["/history"], ["/lead", "/lead/audit"]),
        ("lead", ["/history", "/lead", "/lead/labelers"], ["/lead/audit"]),
        ("viewer", ["/lead", "/lead/quality"], ["/history", "/lead/labelers"]),
        ("admin", ["/lead/audit"], []),
    ],
)
def test_the_navigation_shows_what_one_may_see(
    client: Callable[..., Any], name: str, there: list[str], missing: list[str]
) -> None:
    page = client(name).get("/account").text
    for url in there:
        assert f'<a href="{url}"' in page
    for url in missing:
        assert f'<a href="{url}"' not in page


def test_the_navigation_says_where_one_is(client: Callable[..., Any]) -> None:
    ann = client("ann")
    assert '<a href="/history" aria-current="page"' in ann.get("/history").text
    assert ann.get("/history").text.count("aria-current") == 1
    assert '<a href="/" aria-current="page"' in ann.get("/").text
    assert ann.get("/account").text.count("aria-current") == 0
    assert client().get("/login").text.count("<nav") == 0


def test_beside_the_work_a_lead_has_room_for_tools(client: Callable[..., Any], small: Any) -> None:
    small.batch("ranking")
    lead = client("lead")
    page = lead.get(lead.form("/work", kind="ranking").headers["location"]).text
    assert '<a href="/" aria-current="page"' in page
    assert '<a href="/lead/quality"' not in page
    assert '<a href="/lead"' in page


def test_a_notice_is_one_of_ours(client: Callable[..., Any]) -> None:
    ann = client("ann")
    assert "Saved." in ann.get("/account?saved").text
    assert "<b>mine" not in ann.get("/account?notice=<b>mine&<b>mine").text


def test_a_public_address_in_capitals_is_the_same_address():
    settings = Settings(public_url="https://Labels.Example.org/")
    assert "labels.example.org" in settings.hosts
    assert settings.origin("labels.example.org") == "https://labels.example.org"
