"""Signing in: sessions, links and what those learn who have no password."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from instil.labeling import accounts, passwords, people

PASSWORD = "correct horse battery"


@pytest.fixture
def known(small: Any) -> str:
    """The name of an account that has a password."""
    token = people.invite(small.db, small["admin"], "labeler", "training", ["ranking"])
    return people.accept(small.db, token, "Zoë", PASSWORD).name


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every hash that a password was held against."""
    hashes: list[str] = []
    verify = passwords.verify

    def note(stored: str, password: str) -> bool:
        hashes.append(stored)
        return verify(stored, password)

    monkeypatch.setattr(passwords, "verify", note)
    return hashes


def cookie(response: Any) -> str:
    return str(response.headers["set-cookie"])


def test_a_name_and_a_password_make_a_session(client: Callable[..., Any], known: str) -> None:
    visitor = client()
    response = visitor.form("/login", name=known, password=PASSWORD)
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    said = cookie(response)
    assert re.fullmatch(
        r"session=[\w-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=lax", said
    ), said
    assert visitor.get("/").status_code == 200


def test_over_https_the_cookie_is_of_this_host_alone(
    small: Any, visit: Callable[..., Any], known: str
) -> None:
    from instil.labeling.web.app import build_app
    from instil.labeling.web.route import Settings

    http = visit(build_app(small.db, Settings(public_url="https://l.example"))).http
    headers = {"host": "l.example", "origin": "https://l.example"}
    response = http.post("/login", data={"name": known, "password": PASSWORD}, headers=headers)
    said = cookie(response)
    assert said.startswith("__Host-session=")
    for part in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert part in said
    assert "Domain" not in said


def test_a_cookie_from_before_means_nothing_after(client: Callable[..., Any], known: str) -> None:
    victim = client()
    victim.http.cookies.set("session", "chosen-by-somebody-else")
    response = victim.form("/login", name=known, password=PASSWORD)
    assert "chosen-by-somebody-else" not in cookie(response)
    other = client()
    other.http.cookies.set("session", "chosen-by-somebody-else")
    assert other.get("/").headers["location"] == "/login"


def test_signing_in_again_ends_the_session_before(client: Callable[..., Any], known: str) -> None:
    visitor = client("ann")
    before = visitor.http.cookies["session"]
    assert visitor.form("/login", name=known, password=PASSWORD).status_code == 303
    old = client()
    old.http.cookies.set("session", before)
    assert old.get("/").headers["location"] == "/login"


def test_signing_out_ends_the_session_on_the_server(client: Callable[..., Any]) -> None:
    visitor = client("ann")
    token = visitor.http.cookies["session"]
    response = visitor.form("/logout")
    assert response.headers["location"] == "/login"
    assert 'session=""' in cookie(response)
    old = client()
    old.http.cookies.set("session", token)
    assert old.get("/").headers["location"] == "/login"


def test_a_new_password_ends_every_session_but_gives_one(
    client: Callable[..., Any], known: str
) -> None:
    here, there = client(), client()
    for visitor in (here, there):
        visitor.form("/login", name=known, password=PASSWORD)
    csrf = re.search(r'name="csrf" content="([^"]+)"', here.get("/").text)
    assert csrf
    new = "another long password"
    fields = {"change": "password", "old": PASSWORD, "new": new, "again": new, "csrf": csrf[1]}
    response = here.form("/account", **fields)
    assert response.headers["location"] == "/account?password"
    assert here.get("/account?password").status_code == 200
    assert "Everywhere else" in here.get("/account?password").text
    assert there.get("/").headers["location"] == "/login"
    assert client().form("/login", name=known, password=PASSWORD).status_code == 422
    assert client().form("/login", name=known, password=new).status_code == 303


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"old": "wrong" * 4, "new": "x" * 6 + "longer", "again": "x" * 6 + "longer"}, "password"),
        ({"old": PASSWORD, "new": "short", "again": "short"}, "12"),
        ({"old": PASSWORD, "new": "long enough 1", "again": "long enough 2"}, "not the same"),
    ],
)
def test_a_new_password_that_is_refused_changes_nothing(
    client: Callable[..., Any], known: str, fields: dict[str, str], said: str
) -> None:
    visitor = client()
    visitor.form("/login", name=known, password=PASSWORD)
    csrf = re.search(r'name="csrf" content="([^"]+)"', visitor.get("/").text)
    assert csrf
    response = visitor.form("/account", change="password", csrf=csrf[1], **fields)
    assert response.status_code == 422
    assert said in response.text
    assert client().form("/login", name=known, password=PASSWORD).status_code == 303


# -- those who have no password --------------------------------------------------------------------


def test_known_and_unknown_names_are_answered_alike(
    client: Callable[..., Any], known: str, verified: list[str]
) -> None:
    answers = []
    for name in (known, "Zoé"):  # as many characters, and as many bytes
        response = client().form("/login", name=name, password="wrong password")
        text = response.text.replace(name, "NAME")
        headers = {k: v for k, v in response.headers.items() if k != "date"}
        answers.append((response.status_code, len(response.content), text, headers))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422
    assert len(verified) == 2  # the same work for both
    assert verified[0] != verified[1]


def test_ten_failures_close_a_name_known_or_not(
    client: Callable[..., Any], known: str, verified: list[str], small: Any
) -> None:
    for name in (known, "nobody"):
        answers = [client().form("/login", name=name, password=f"guess {n}") for n in range(12)]
        assert [a.status_code for a in answers] == [422] * 10 + [429] * 2
    assert len(verified) == 20
    refused = client().form("/login", name=known, password=PASSWORD)
    assert refused.status_code == 429  # the right one, too
    small.clock.pass_(minutes=16)
    assert client().form("/login", name=known, password=PASSWORD).status_code == 303


def test_fifty_failures_close_an_address(client: Callable[..., Any], known: str) -> None:
    statuses = [
        client().form("/login", name=f"name {n}", password="guess").status_code for n in range(52)
    ]
    assert statuses == [422] * 50 + [429] * 2
    assert client().form("/login", name=known, password=PASSWORD).status_code == 429


def test_a_session_ends_after_twelve_hours(client: Callable[..., Any], small: Any) -> None:
    visitor = client("ann")
    small.clock.pass_(hours=11.9)
    assert visitor.get("/").status_code == 200
    small.clock.pass_(hours=0.2)
    assert visitor.get("/").headers["location"] == "/login"
    response = visitor.send("POST", "/work/x/label", {})
    assert response.status_code == 401
    assert "signed out" in response.json()["error"]


def test_another_role_ends_the_session(client: Callable[..., Any], small: Any) -> None:
    visitor = client("lead")
    accounts.update(small.db, small["admin"], "l-lead", role="labeler")
    assert visitor.get("/lead").headers["location"] == "/login"


# -- invitations -----------------------------------------------------------------------------------


@pytest.fixture
def link(small: Any) -> str:
    token = people.invite(small.db, small["admin"], "labeler", "training", ["ranking"])
    return f"/invitations/{token}"


def test_an_invitation_makes_one_account(client: Callable[..., Any], link: str, small: Any) -> None:
    visitor = client()
    assert "Create the account" in visitor.get(link).text
    response = visitor.form(link, name="Noor", password=PASSWORD, again=PASSWORD)
    assert response.headers["location"] == "/account/welcome"
    assert visitor.get("/account/welcome").status_code == 200
    made = [account for account in accounts.accounts(small.db) if account.name == "Noor"]
    assert [(a.role, a.pool, a.kinds) for a in made] == [("labeler", "training", ("ranking",))]
    assert client().get(link).status_code == 404
    assert client().form(link, name="Nia", password=PASSWORD, again=PASSWORD).status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Noor", "password": "short", "again": "short"}, "12"),
        ({"name": "Noor", "password": PASSWORD, "again": PASSWORD + "x"}, "not the same"),
        ({"name": "", "password": PASSWORD, "again": PASSWORD}, "name"),
        ({"name": "ANN", "password": PASSWORD, "again": PASSWORD}, "taken"),
    ],
)
def test_what_is_refused_uses_no_invitation_up(
    client: Callable[..., Any], link: str, fields: dict[str, str], said: str
) -> None:
    response = client().form(link, **fields)
    assert response.status_code == 422
    assert said in response.text
    assert PASSWORD not in response.text
    assert client().get(link).status_code == 200


def test_old_used_and_unknown_links_look_the_same(
    client: Callable[..., Any], link: str, small: Any
) -> None:
    old = people.invite(small.db, small["admin"], "labeler", "training", ["ranking"])
    small.clock.pass_(hours=24 * 7 + 1)
    used = people.invite(small.db, small["admin"], "labeler", "training", ["ranking"])
    people.accept(small.db, used, "Noor", PASSWORD)
    pages = [client().get(f"/invitations/{token}") for token in (old, used, "x" * 43)]
    assert {page.status_code for page in pages} == {404}
    assert len({page.content for page in pages}) == 1


def test_a_link_for_a_password_asks_for_no_name(
    client: Callable[..., Any], known: str, small: Any
) -> None:
    (account,) = (a for a in accounts.accounts(small.db) if a.name == known)
    signed_in = client()
    signed_in.form("/login", name=known, password=PASSWORD)
    token = people.invite(
        small.db, small["admin"], "labeler", "training", ["ranking"], account_id=account.id
    )
    visitor = client()
    page = visitor.get(f"/invitations/{token}")
    assert known in page.text
    assert 'name="name"' not in page.text
    new = "a third long password"
    assert visitor.form(f"/invitations/{token}", password=new, again=new).status_code == 303
    assert signed_in.get("/").headers["location"] == "/login"
    assert client().form("/login", name=known, password=new).status_code == 303


def test_only_a_demonstration_lets_a_link_in_without_a_password(
    small: Any, visit: Callable[..., Any], known: str
) -> None:
    from instil.labeling.web.app import build_app
    from instil.labeling.web.route import Settings

    (account,) = (a for a in accounts.accounts(small.db) if a.name == known)
    for demo, status in ((False, 422), (True, 303)):
        token = people.invite(
            small.db, small["admin"], "labeler", "training", ["ranking"], account_id=account.id
        )
        visitor = visit(build_app(small.db, Settings(demo=demo)))
        assert visitor.form(f"/invitations/{token}").status_code == status
