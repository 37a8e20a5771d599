"""The pages about the person: keys, topics, guidelines, survey."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.labeling import accounts, guidelines
from instil.labeling.web import account
from instil.labeling.web.route import static_files

USUAL = {command: key for command, (_, key) in account.SHORTCUTS.items()}


def shortcuts(store: Any) -> dict[str, str]:
    return dict(accounts.account(store.db, "l-ann").shortcuts)


def test_the_keys_are_those_of_the_board() -> None:
    script = static_files()["keys.js"].decode()
    listed = re.search(r"SHORTCUTS = \{(.*?)\}", script, re.DOTALL)
    assert listed
    assert dict(re.findall(r'(\w+): "(.)"', listed[1])) == USUAL


def test_keys_may_be_changed_and_switched_off(client: Callable[..., Any], small: Any) -> None:
    ann = client("ann")
    response = ann.form("/account", change="shortcuts", **{**USUAL, "tie": "T", "help": "off"})
    assert response.headers["location"] == "/account?saved"
    assert "Saved." in ann.get("/account?saved").text
    assert shortcuts(small) == {"tie": "t", "help": "off"}
    ann.form("/account", change="shortcuts", **{**USUAL, "letters": "off"})
    assert shortcuts(small) == {"letters": "off"}
    ann.form("/account", change="shortcuts", **USUAL)
    assert shortcuts(small) == {}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tie": "c"}, "belongs to an output"),
        ({"tie": "3"}, "belongs to an output"),
        ({"tie": "vv"}, "not one key"),
        ({"tie": "v"}, "already the key of"),
    ],
)
def test_keys_that_collide_are_refused(
    client: Callable[..., Any], small: Any, keys: dict[str, str], said: str
) -> None:
    response = client("ann").form("/account", change="shortcuts", **{**USUAL, **keys})
    assert response.status_code == 422
    assert said in response.text
    assert shortcuts(small) == {}


def test_topics_are_kept_and_only_those_there_are(client: Callable[..., Any], small: Any) -> None:
    ann = client("ann")
    chosen = {"change": "comfort", "comfort": ["age", "nonsense", "violence"]}
    assert ann.form("/account", **chosen).status_code == 303
    assert accounts.account(small.db, "l-ann").comfort == ("age", "violence")
    page = ann.get("/account").text
    assert re.search(r'value="age" checked', page)
    assert not re.search(r'value="religion" checked', page)
    assert ann.form("/account", **chosen, then="work").headers["location"] == "/?welcome"


def test_a_change_of_nothing_is_refused(client: Callable[..., Any]) -> None:
    assert client("ann").form("/account").status_code == 422


def test_guidelines_are_shown_in_every_version(client: Callable[..., Any], small: Any) -> None:
    new = guidelines.publish(small.db, small["lead"], "ranking", "training", "# New\n\n<b>x</b>")
    page = client("viewer").get(f"/guidelines/{new.id}").text
    assert "<h1>New</h1>" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "Version 2" in page
    assert client("ann").get("/guidelines/ranking-training-1").status_code == 200


def test_the_survey_is_answered_once_and_not_joined(client: Callable[..., Any], small: Any) -> None:
    ann = client("ann")
    assert "survey" in ann.get("/").text
    assert ann.form("/survey", age="nonsense").status_code == 422
    response = ann.form("/survey", age="25-34")
    assert response.headers["location"] == "/?survey"
    assert "without your name" in ann.get("/?survey").text
    assert "You have answered it" in ann.get("/survey").text
    assert ann.form("/survey", age="25-34").status_code == 422
    with small.db.read() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM survey").mappings().all()
    assert set(row) == {"id", "month", "answers"}
    assert "ann" not in str(dict(row))


def test_the_first_page_of_each_role(client: Callable[..., Any]) -> None:
    assert "Go on to the work" in client("ann").get("/account/welcome").text
    assert "See the progress" in client("viewer").get("/account/welcome").text


def test_forms_have_labels_and_browsers_know_passwords() -> None:
    pages = Path(account.__file__).parent / "pages"
    for name in ("login.html", "invitation.html", "account.html"):
        text = (pages / name).read_text()
        for field in re.findall(r'kind="password"[^}]*', text):
            assert "autocomplete=" in field, (name, field)
