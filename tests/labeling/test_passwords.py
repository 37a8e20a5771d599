"""Secrets are kept as hashes, and guessing is counted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import passwords, schema
from instil.labeling.passwords import TooManyTries, count_try, forget_tries, hashed, verify


def test_a_password_is_verified():
    stored = hashed("correct horse battery", "ann")
    assert stored.startswith("$argon2id$v=19$m=7168,t=5,p=1$")
    assert hashed("correct horse battery", "ann") != stored  # a salt of its own
    assert verify(stored, "correct horse battery")
    assert not verify(stored, "correct horse batterx")
    assert not verify("!", "correct horse battery")
    assert not verify(passwords.nobodys(), "correct horse battery")


def test_the_same_characters_from_every_keyboard():
    assert verify(hashed("caf\u00e9 au lait!", "ann"), "cafe\u0301 au lait!")


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("", "12 to 1024 characters; this has 0"),
        ("x1y2z3a4b5c", "12 to 1024 characters; this has 11"),
        ("x" * 1025, "this has 1025"),
        ("aaaaaaaaaaaab", "the first that anybody would try"),
        ("ANNA  Maria Berg", "the first that anybody would try"),
    ],
)
def test_what_is_no_password(password, message):
    with pytest.raises(InstilError, match=message):
        hashed(password, "Anna Maria Berg")


def test_twenty_at_once_are_hashed_one_after_another(monkeypatch):
    running, most, lock = 0, 0, threading.Lock()

    class Counting:
        def verify(self, stored, password):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.002)
            with lock:
                running -= 1
            return True

    monkeypatch.setattr(passwords, "_argon2", Counting())
    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(lambda _: verify("", ""), range(20)))
    assert most == 1


def test_tokens_have_256_bits_and_are_stored_as_hashes():
    tokens = {passwords.token() for _ in range(100)}
    assert len(tokens) == 100 and all(len(token) == 43 for token in tokens)
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in tokens)
    assert passwords.digest("abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("other", ["ANN", " ann ", "\uff41nn", "a\u200dnn".replace("\u200d", "")])
def test_names_that_look_alike_are_one(other):
    assert passwords.name_key(other) == passwords.name_key("ann")


def test_ten_tries_for_a_name_in_a_quarter_of_an_hour(db, clock):
    for number in range(10):
        count_try(db, "ann", f"10.0.0.{number}")
        clock.pass_(minutes=1)
    with pytest.raises(TooManyTries, match="wait a quarter of an hour"):
        count_try(db, "ann", "10.0.0.99")
    count_try(db, "bob", "10.0.0.99")  # others go on
    clock.pass_(minutes=4, seconds=59)
    with pytest.raises(TooManyTries):
        count_try(db, "ann")
    clock.pass_(seconds=1)
    count_try(db, "ann")  # the first is a quarter of an hour ago, so there is one again
    with pytest.raises(TooManyTries):
        count_try(db, "ann")


def test_fifty_tries_from_an_address(db, clock):
    for number in range(50):
        count_try(db, f"name {number}", "10.0.0.1")
    with pytest.raises(TooManyTries):
        count_try(db, "ann", "10.0.0.1")
    count_try(db, "ann", "10.0.0.2")
    clock.pass_(minutes=15)
    count_try(db, "ann", "10.0.0.1")


def test_none_slips_through_at_once(db):
    def attempt(_):
        try:
            count_try(db, "ann", "10.0.0.1")
        except TooManyTries:
            return False
        return True

    with ThreadPoolExecutor(12) as threads:
        assert sum(threads.map(attempt, range(40))) == 10


def test_after_a_success_tries_begin_anew_for_that_name_alone(db):
    for name in ("ann", "bob"):
        for _ in range(9):
            count_try(db, name, "10.0.0.1")
    name = count_try(db, "ann", "10.0.0.1")
    with db.write() as connection:
        forget_tries(connection, name)
    for _ in range(10):
        count_try(db, "ann", "10.0.0.1")
    count_try(db, "bob", "10.0.0.1")
    with pytest.raises(TooManyTries):
        count_try(db, "bob", "10.0.0.1")


def test_what_was_typed_as_a_name_is_not_in_the_database(lite):
    count_try(lite, "hunter2 hunter2", "10.0.0.1")
    with lite.read() as connection:
        row = connection.execute(sa.select(schema.attempt)).mappings().one()
    assert "hunter2" not in str(dict(row))
    assert row["name_hash"] != passwords.digest("hunter2 hunter2")  # not to be looked up either
