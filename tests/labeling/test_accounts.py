"""Roles and pools change only as they may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from instil.errors import InstilError
from instil.labeling import audit, people
from instil.labeling.accounts import (
    NoAccount,
    NotAllowed,
    account,
    accounts,
    set_comfort,
    set_shortcuts,
    update,
)


def actions(db):
    with db.read() as connection:
        return [event.action for event in reversed(audit.newest(connection))]


def test_who_there_is(store):
    assert [one.name for one in accounts(store.db)] == sorted(store.accounts)
    assert account(store.db, "l-ann") == store["ann"]
    with pytest.raises(NoAccount, match="no account 'l-nobody'"):
        account(store.db, "l-nobody")


def test_a_change_is_kept_ends_sessions_and_is_in_the_log(store):
    session = people.begin(store.db, "l-ann")
    made = update(store.db, store["lead"], "l-ann", kinds=["ranking", "ranking"])
    assert made.kinds == ("ranking",) and account(store.db, "l-ann") == made
    assert people.session_of(store.db, session.token).account == made  # the session goes on
    made = update(store.db, store["lead"], "l-ann", active=False)
    assert account(store.db, "l-ann") == made and not made.active
    assert people.session_of(store.db, session.token) is None
    assert actions(store.db) == ["session.begin", "account.change", "account.change"]
    # what does not change anything is not in the log
    update(store.db, store["lead"], "l-ann", active=False, kinds=("ranking",))
    assert len(actions(store.db)) == 3


@pytest.mark.parametrize(
    ("who", "change"),
    [("kim", {"pool": "training"}), ("ann", {"active": False}), ("ann", {"role": "lead"})],
)
def test_role_pool_and_closing_end_sessions(store, who, change):
    session = people.begin(store.db, f"l-{who}")
    other = people.begin(store.db, "l-bob")
    update(store.db, store["admin"], f"l-{who}", **change)
    assert people.session_of(store.db, session.token) is None
    assert people.session_of(store.db, other.token) is not None


def test_only_a_candidate_changes_the_pool(store):
    for who, pool in (("ann", "held-out"), ("hal", "training"), ("ann", "candidate")):
        with pytest.raises(InstilError, match=f"{who} is in the pool .*, and stays"):
            update(store.db, store["admin"], f"l-{who}", pool=pool)
    assert update(store.db, store["lead"], "l-kim", pool="held-out").pool == "held-out"
    with pytest.raises(InstilError, match="kim is in the pool held-out, and stays"):
        update(store.db, store["admin"], "l-kim", pool="training")


@pytest.mark.parametrize("change", [{"role": "lead"}, {"active": False}, {"role": "viewer"}])
def test_the_last_administrator_stays(store, change):
    with pytest.raises(InstilError, match="admin is the last administrator; make another"):
        update(store.db, store["admin"], "l-admin", **change)
    update(store.db, store["admin"], "l-lead", role="admin")
    update(store.db, store["admin"], "l-admin", **change)
    with pytest.raises(InstilError, match="lead is the last administrator"):
        update(store.db, account(store.db, "l-lead"), "l-lead", **change)


def test_of_two_administrators_who_leave_at_once_one_stays(store):
    for _ in range(10):
        for name in ("x", "y"):
            if name not in store.accounts:
                store.person(name, "admin")
        update(store.db, store["x"], "l-x", kinds=())  # nothing to do with it
        for name in ("x", "y"):
            update(store.db, store["admin"], f"l-{name}", role="admin", active=True)
        update(store.db, store["x"], "l-admin", active=False)

        def leave(name):
            try:
                update(store.db, store[name], f"l-{name}", active=False)
            except InstilError:
                return 0
            return 1

        with ThreadPoolExecutor(2) as threads:
            assert sum(threads.map(leave, ("x", "y"))) == 1
        update(store.db, store["x"], "l-admin", active=True)


@pytest.mark.parametrize(
    ("by", "whom", "change"),
    [
        ("ann", "bob", {"active": False}),
        ("ann", "ann", {"role": "lead"}),
        ("viewer", "ann", {"kinds": ()}),
        ("lead", "ann", {"role": "lead"}),
        ("lead", "lead", {"role": "admin"}),
        ("lead", "admin", {"active": False}),
        ("lead", "viewer", {"active": False}),
    ],
)
def test_who_may_not(small, by, whom, change):
    before = account(small.db, f"l-{whom}")
    with pytest.raises(NotAllowed):
        update(small.db, small[by], f"l-{whom}", **change)
    assert account(small.db, f"l-{whom}") == before and actions(small.db) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "king"}, "role 'king' is not one of admin, lead, labeler, viewer"),
        ({"pool": "ai"}, "pool 'ai' is not one of"),
        ({"kinds": ["ranking", "chess"]}, "kind of work 'chess' is not one of"),
        ({"password": "x", "id": "y"}, "id, password: cannot be changed"),
    ],
)
def test_what_is_no_change(small, change, message):
    with pytest.raises(InstilError, match=message):
        update(small.db, small["admin"], "l-ann", **change)


def test_shortcuts(store):
    wanted = {"compare": "x", "guidelines": "off", "prompt": "off", "help": "é"}
    set_shortcuts(store.db, store["ann"], wanted)
    assert account(store.db, "l-ann").shortcuts == wanted
    assert account(store.db, "l-bob").shortcuts == {}
    for odd, message in (
        ({"compare": "xy"}, "shortcut 'xy': give one character"),
        ({"compare": ""}, "give one character"),
        ({"compare": " "}, "give one character"),
        ({"compare": "x", "help": "x"}, "shortcut 'x' stands for two commands"),
        ({str(number): "off" for number in range(65)}, "more shortcuts than"),
    ):
        with pytest.raises(InstilError, match=message):
            set_shortcuts(store.db, store["ann"], odd)
    assert account(store.db, "l-ann").shortcuts == wanted
    assert actions(store.db) == ["account.shortcuts"]


def test_comfort(store):
    set_comfort(store.db, store["ann"], ["medicine", "<b>law</b>"])
    assert account(store.db, "l-ann").comfort == ("medicine", "<b>law</b>")
    with pytest.raises(InstilError, match="up to 100 topics"):
        set_comfort(store.db, store["ann"], ["x" * 201])
    assert actions(store.db) == ["account.comfort"]
