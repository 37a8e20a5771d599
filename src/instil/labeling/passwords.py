"""Secrets as the database keeps them, and how often somebody may guess.

Passwords are kept by argon2id, with the least memory of OWASP's list, and verified one at a time:
twenty people who sign in at once take no more memory than one. Tokens are 256 random bits, so of
them a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from instil.errors import InstilError
from instil.labeling.database import Database
from instil.labeling.schema import attempt, setting

LEAST, MOST = 12, 1024
"""Characters of a password."""
WINDOW_MS = 15 * 60_000
TRIES_PER_NAME = 10
"""Failures within WINDOW_MS after which a name is refused, whether it exists or not."""
TRIES_PER_ADDRESS = 50

_argon2 = PasswordHasher(time_cost=5, memory_cost=7 * 1024, parallelism=1)
_one_at_a_time = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")


class TooManyTries(InstilError):
    """Too many failures in the last quarter of an hour; says nothing about the password."""


def token() -> str:
    """256 random bits that can stand in a URL."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """A token as it is stored."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def name_key(name: str) -> str:
    """Names that are one account's: NFKC, casefolded. Any text has one that can be stored."""
    name = name.replace("\0", " ").encode(errors="replace").decode()
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def hashed(password: str, name: str) -> str:
    """A password as it is stored. InstilError if it is too short, or the name."""
    if not LEAST <= len(password) <= MOST:
        raise InstilError(f"a password has {LEAST} to {MOST} characters; this has {len(password)}")
    if name_key(password) == name_key(name) or len(set(password)) < 4:
        raise InstilError("this password is the first that anybody would try; choose another")
    return _one_at_a_time.submit(_argon2.hash, _typed(password)).result()


def verify(stored: str, password: str) -> bool:
    """Is this the password? One verification, whatever comes of it."""
    try:
        return _one_at_a_time.submit(_argon2.verify, stored, _typed(password)).result()
    except (VerificationError, InvalidHashError):
        return False


@cache
def nobodys() -> str:
    """A hash that no password fits, to be verified where there is no account."""
    return _one_at_a_time.submit(_argon2.hash, secrets.token_hex()).result()


def count_try(db: Database, key: str, address: str = "") -> str:
    """Count a try before it is made, so that of many at once none slips through; the name's hash.

    key      a name_key
    address  where the request came from; "" is not counted

    Raises TooManyTries. The hash is for `forget_tries`. It is keyed, since people type passwords
    into the wrong field.
    """
    name = hashlib.blake2b(key.encode(), key=db.permutation_key, digest_size=16).hexdigest()
    now = db.now()
    with db.write() as connection:
        # any row will do that makes others who count wait here
        mutex = sa.select(setting).where(setting.c.name == "permutation_key").with_for_update()
        connection.execute(mutex)
        connection.execute(attempt.delete().where(attempt.c.at <= now - WINDOW_MS))
        for column, value, most in (
            (attempt.c.name_hash, name, TRIES_PER_NAME),
            (attempt.c.address, address, TRIES_PER_ADDRESS),
        ):
            tries = sa.select(sa.func.count()).select_from(attempt).where(column == value)
            if value and connection.execute(tries).scalar_one() >= most:
                raise TooManyTries("too many tries; wait a quarter of an hour")
        connection.execute(attempt.insert().values(name_hash=name, address=address, at=now))
    return name


def forget_tries(connection: sa.Connection, name: str) -> None:
    """After a success, tries for this name begin anew. `name` is what `count_try` returned."""
    connection.execute(attempt.delete().where(attempt.c.name_hash == name))


def _typed(password: str) -> str:
    """The same characters from every keyboard."""
    return unicodedata.normalize("NFKC", password)
