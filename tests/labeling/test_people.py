"""Only who was invited comes in, and once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from instil.errors import InstilError
from instil.labeling import accounts, audit, passwords, people, schema
from instil.labeling.accounts import NoAccount, NotAllowed, account, update
from instil.labeling.people import (
    NoInvitation,
    TooManyTries,
    accept,
    begin,
    change_password,
    invite,
    invited,
    session_of,
    set_up_link,
    sign_in,
    sign_out,
)
from instil.records import Kind

PASSWORD = "correct horse battery"
ADDRESS = "10.0.0.1"
DAY = 24  # hours


class Counting(PasswordHasher):
    """A quick hasher, since what is tested here is not how slow it is; counts verifications."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified = 0

    def verify(self, *args, **options):
        self.verified += 1
        return super().verify(*args, **options)


@pytest.fixture(autouse=True)
def hasher(monkeypatch):
    made = Counting()
    monkeypatch.setattr(passwords, "_argon2", made)
    return made


def come_in(store, name="New Person", role="labeler", pool="training"):
    token = invite(store.db, store["admin"], role, pool, ["ranking"])
    return accept(store.db, token, name, PASSWORD)


def fails(store, name, password=PASSWORD, address=ADDRESS):
    with pytest.raises(InstilError) as raised:
        sign_in(store.db, name, password, address)
    return str(raised.value)


def actions(db):
    with db.read() as connection:
        return [event.action for event in reversed(audit.newest(connection))]


# -- invitations -----------------------------------------------------------------------------------


def test_the_first_comes_in_by_the_set_up_link_and_no_other_does(db):
    first, second = set_up_link(db), set_up_link(db)
    assert first and second
    with pytest.raises(NoInvitation):  # a new link ends those before
        accept(db, first, "Mallory", PASSWORD)
    made = accept(db, second, "  Ada   Byron ", PASSWORD)
    assert (made.name, made.role, made.kinds) == ("Ada Byron", "admin", get_args(Kind))
    assert set_up_link(db) is None
    assert account(db, made.id) == made
    assert session_of(db, sign_in(db, "ada byron", PASSWORD, ADDRESS).token).account == made
    assert actions(db) == ["invitation.make"] * 2 + ["account.make", "session.begin"]


def test_a_second_set_up_link_is_of_no_use_once_there_is_an_administrator(store):
    with store.db.write() as connection:
        now = store.db.now()
        token = people._invite(connection, "", "admin", "training", (), None, now)
    with pytest.raises(NoInvitation):
        accept(store.db, token, "Mallory", PASSWORD)
    with pytest.raises(NoInvitation):
        accept(store.db, "", "Mallory", PASSWORD)


def test_an_invitation_says_what_the_account_may(store):
    token = invite(store.db, store["lead"], "labeler", "candidate", ["ranking", "prompt"])
    offer = invited(store.db, token)
    assert (offer.role, offer.pool, offer.kinds, offer.account) == (
        *("labeler", "candidate", ("ranking", "prompt"), None),
    )
    made = accept(store.db, token, "Zoë", PASSWORD)
    assert (made.role, made.pool, made.kinds) == ("labeler", "candidate", ("ranking", "prompt"))
    for again in (lambda: invited(store.db, token), lambda: accept(store.db, token, "X", PASSWORD)):
        with pytest.raises(NoInvitation, match="this link was used or is too old"):
            again()


def test_an_invitation_is_good_for_seven_days(store):
    token = invite(store.db, store["lead"], "labeler", "training", [])
    store.clock.pass_(hours=7 * DAY, seconds=-1)
    assert invited(store.db, token).account is None
    store.clock.pass_(seconds=1)
    with pytest.raises(NoInvitation):
        invited(store.db, token)
    with pytest.raises(NoInvitation):
        accept(store.db, token, "Late", PASSWORD)


def test_of_many_who_use_a_link_at_once_one_comes_in(store):
    token = invite(store.db, store["lead"], "labeler", "training", [])

    def come(number):
        try:
            return accept(store.db, token, f"Number {number}", PASSWORD)
        except NoInvitation:
            return None

    with ThreadPoolExecutor(8) as threads:
        assert sum(made is not None for made in threads.map(come, range(8))) == 1
    names = [one.name for one in accounts.accounts(store.db)]
    assert sum(name.startswith("Number") for name in names) == 1


def test_of_two_who_want_a_name_at_once_one_has_it(store):
    tokens = [invite(store.db, store["lead"], "labeler", "training", []) for _ in range(4)]

    def come(token):
        try:
            return accept(store.db, token, "Zoë", PASSWORD)
        except InstilError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(come, tokens))
    assert found.count("the name 'Zoë' is taken; choose another") == 3


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [
        ("ANN", PASSWORD, "the name 'ANN' is taken; choose another"),
        ("\uff41nn", PASSWORD, "is taken"),
        ("", PASSWORD, "give a name of 1 to 64 characters"),
        ("x" * 65, PASSWORD, "give a name of 1 to 64 characters"),
        ("a\0b", PASSWORD, "that can be printed"),
        ("a\u202eb", PASSWORD, "that can be printed"),
        ("Zoë", "too short", "a password has 12 to 1024 characters; this has 9"),
        ("Zoë", "zoezoezoezoe", "the first that anybody would try"),
    ],
)
def test_after_a_mistake_the_link_still_works(store, name, password, message):
    token = invite(store.db, store["lead"], "labeler", "training", [])
    with pytest.raises(InstilError, match=message):
        accept(store.db, token, name, password)
    assert accept(store.db, token, "Zoë", PASSWORD).name == "Zoë"


@pytest.mark.parametrize(
    ("by", "role"),
    [
        *(("lead", role) for role in ("admin", "lead", "viewer")),
        *((by, role) for by in ("viewer", "ann") for role in ("labeler", "viewer", "admin")),
    ],
)
def test_who_may_not_invite(small, by, role):
    with pytest.raises(NotAllowed):
        invite(small.db, small[by], role, "training", [])
    assert actions(small.db) == []


def test_what_is_no_invitation(small):
    for odd in (("king", "training", []), ("lead", "ai", []), ("lead", "training", ["chess"])):
        with pytest.raises(InstilError, match="is not one of"):
            invite(small.db, small["admin"], *odd)
    with pytest.raises(NoAccount):
        invite(small.db, small["admin"], "labeler", "training", [], "l-nobody")


def test_tokens_are_not_in_the_database(store):
    token = invite(store.db, store["lead"], "labeler", "training", [])
    session = begin(store.db, "l-ann")
    with store.db.read() as connection:
        rows = [
            connection.execute(sa.select(table)).fetchall()
            for table in schema.metadata.sorted_tables
        ]
    assert token not in str(rows) and session.token not in str(rows)


# -- passwords -------------------------------------------------------------------------------------


def test_a_link_for_a_new_password(store):
    made = come_in(store)
    session = begin(store.db, made.id)
    token = invite(store.db, store["lead"], "labeler", "held-out", [], made.id)
    offer = invited(store.db, token)
    assert offer.account == made and (offer.pool, offer.kinds) == ("training", ("ranking",))
    assert accept(store.db, token, "another name", "another password!") == made
    assert session_of(store.db, session.token) is None
    assert fails(store, made.name) == "name or password is wrong"
    assert sign_in(store.db, made.name, "another password!", ADDRESS).account == made
    with pytest.raises(NoInvitation):
        accept(store.db, token, "", "another password!")


def test_a_lead_makes_no_password_link_for_those_above(small):
    for whom in ("admin", "lead", "viewer"):
        with pytest.raises(NotAllowed):
            invite(small.db, small["lead"], "labeler", "training", [], f"l-{whom}")


def test_a_link_for_a_password_ends_when_the_account_changes(store):
    made = come_in(store)
    for change in ({"role": "lead"}, {"role": "labeler"}, {"active": False}):
        token = invite(store.db, store["admin"], "labeler", "training", [], made.id)
        update(store.db, store["admin"], made.id, **change)
        with pytest.raises(NoInvitation):
            accept(store.db, token, "", "another password!")


def test_changing_the_password_ends_all_sessions_and_begins_one(store):
    made = come_in(store)
    before = [sign_in(store.db, made.name, PASSWORD, ADDRESS) for _ in range(2)]
    with pytest.raises(InstilError, match="the old password is wrong"):
        change_password(store.db, made, "something else", "another password!")
    with pytest.raises(InstilError, match="12 to 1024 characters"):
        change_password(store.db, made, PASSWORD, "short")
    assert session_of(store.db, before[0].token)
    session = change_password(store.db, made, PASSWORD, "another password!")
    assert [session_of(store.db, one.token) for one in before] == [None, None]
    assert session_of(store.db, session.token) == session
    assert fails(store, made.name) == "name or password is wrong"
    assert actions(store.db)[-2:] == ["password.set", "session.begin"]


def test_a_stolen_session_does_not_guess_the_password(store, hasher):
    made = come_in(store)
    for _ in range(10):
        with pytest.raises(InstilError, match="the old password is wrong"):
            change_password(store.db, made, "a guess", "another password!")
    with pytest.raises(TooManyTries):
        change_password(store.db, made, PASSWORD, "another password!")
    assert hasher.verified == 10


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_is_good_for_twelve_hours(store):
    made = come_in(store)
    session = sign_in(store.db, made.name, PASSWORD, ADDRESS)
    store.clock.pass_(hours=12, seconds=-1)
    assert session_of(store.db, session.token) == session
    store.clock.pass_(seconds=1)
    assert session_of(store.db, session.token) is None
    begin(store.db, made.id)
    with store.db.read() as connection:  # and is not kept for ever
        count = sa.select(sa.func.count()).select_from(schema.session)
        assert connection.execute(count).scalar() == 1


def test_every_sign_in_has_a_token_of_its_own(store):
    made = come_in(store)
    one, other = (sign_in(store.db, made.name, PASSWORD, ADDRESS) for _ in range(2))
    assert len({one.token, other.token, one.csrf, other.csrf}) == 4
    sign_out(store.db, one)
    assert session_of(store.db, one.token) is None
    assert session_of(store.db, other.token) == other
    for nothing in ("", "x", "\ud800", "\0", one.csrf, passwords.digest(other.token)):
        assert session_of(store.db, nothing) is None
    assert actions(store.db)[-3:] == ["session.begin", "session.begin", "session.end"]


def test_a_session_shows_the_account_as_it_is_now(store):
    session = begin(store.db, "l-ann")
    accounts.set_comfort(store.db, store["ann"], ["law"])
    assert session_of(store.db, session.token).account.comfort == ("law",)


def test_a_closed_account_stays_out(store):
    made = come_in(store)
    update(store.db, store["lead"], made.id, active=False)
    assert fails(store, made.name) == "name or password is wrong"
    with pytest.raises(InstilError, match="this account is closed"):
        begin(store.db, made.id)
    update(store.db, store["lead"], made.id, active=True)
    assert sign_in(store.db, made.name, PASSWORD, ADDRESS)


@pytest.mark.parametrize("change", ["close", "password"])
def test_what_changed_while_the_password_was_verified_counts(store, hasher, monkeypatch, change):
    made = come_in(store)
    verify = passwords.verify

    def slow(stored, password):
        right = verify(stored, password)
        if change == "close":
            update(store.db, store["lead"], made.id, active=False)
        else:
            token = invite(store.db, store["lead"], "labeler", "training", [], made.id)
            accept(store.db, token, "", "another password!")
        return right

    monkeypatch.setattr(passwords, "verify", slow)
    assert fails(store, made.name) == "name or password is wrong"


# -- guessing --------------------------------------------------------------------------------------


def test_known_and_unknown_names_are_answered_alike(store, hasher):
    made = come_in(store)
    closed = come_in(store, "Closed")
    update(store.db, store["lead"], closed.id, active=False)
    answers = {}
    # ann never set a password
    for name in (made.name, "Nobody", "Closed", "ann", "", "x" * 10_000, "a\0b", "\ud800"):
        before = hasher.verified
        answers[name] = fails(store, name, "a wrong password")
        assert hasher.verified == before + 1
    assert set(answers.values()) == {"name or password is wrong"}


@pytest.mark.parametrize("name", ["New Person", "Nobody"])
def test_ten_failures_for_a_name(store, hasher, name):
    made = come_in(store)
    for number in range(10):
        assert "is wrong" in fails(store, name, "a wrong password", f"10.0.0.{number}")
    with pytest.raises(TooManyTries):
        sign_in(store.db, name.upper(), PASSWORD, "10.9.9.9")
    assert hasher.verified == 10  # refused without a look
    store.clock.pass_(minutes=15)
    if name == made.name:
        assert sign_in(store.db, name, PASSWORD, ADDRESS)


def test_fifty_failures_from_an_address(store):
    made = come_in(store)
    for number in range(50):
        fails(store, f"name {number}")
    with pytest.raises(TooManyTries):
        sign_in(store.db, made.name, PASSWORD, ADDRESS)
    assert sign_in(store.db, made.name, PASSWORD, "10.0.0.2")


def test_a_thousand_guesses_at_once(store, hasher):
    made = come_in(store)

    def guess(number):
        try:
            sign_in(store.db, made.name, f"guess number {number}", f"10.0.{number % 250}.1")
        except InstilError as error:
            return type(error)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(guess, range(1000 if store.db.sqlite else 200)))
    assert found.count(TooManyTries) == len(found) - 10
    assert hasher.verified == 10


def test_a_success_begins_anew(store):
    made = come_in(store)
    for _ in range(3):
        for _ in range(9):
            fails(store, made.name, "a wrong password", "10.0.0.7")
        sign_in(store.db, made.name, PASSWORD, "10.0.0.7")


def test_the_log_names_no_secret(store):
    token = invite(store.db, store["lead"], "labeler", "training", [])
    made = accept(store.db, token, "Zoë", PASSWORD)
    sign_in(store.db, made.name, PASSWORD, ADDRESS)
    with store.db.read() as connection:
        events = audit.newest(connection)
        assert audit.first_bad(connection) is None
    text = json.dumps([event.object_id + event.action for event in events])
    assert PASSWORD not in text and token not in text and "Zoë" not in text
