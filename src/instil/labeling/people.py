"""How people come in: invitations, passwords, sessions.

Nobody signs up: an invitation, good for one account and seven days, says role, pool and kinds of
work. The first is the set-up link for an administrator; there are no default passwords. Of tokens
the database has only hashes. A known name and an unknown one are answered alike, after the same
work, and both are refused after ten failures in a quarter of an hour.

What there is to know and to change about accounts is in accounts.py.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import accounts, audit, passwords
from instil.labeling.accounts import Account, Pool, Role
from instil.labeling.database import Database
from instil.labeling.passwords import TooManyTries as TooManyTries
from instil.labeling.schema import invitation, labeler, session
from instil.records import Kind

INVITATION_MS = 7 * 24 * 3_600_000
SESSION_MS = 12 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is signed in. `token` is the cookie; only its hash is stored."""

    token: str
    csrf: str
    account: Account
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a link that still works offers."""

    role: Role
    pool: Pool
    kinds: tuple[Kind, ...]
    account: Account | None
    """Whose password it sets anew; None for a new account."""


class NoInvitation(InstilError):
    """The link was used, is too old, or never was."""


def set_up_link(db: Database) -> str | None:
    """The token of a new invitation for the first administrator; None if there is one already.

    Set-up links made before, and not used, work no longer.
    """
    with db.write() as connection:
        if accounts.administrators(connection):
            return None
        connection.execute(
            invitation.delete().where(
                invitation.c.created_by.is_(None), invitation.c.used_at.is_(None)
            )
        )
        return _invite(connection, "", "admin", "training", get_args(Kind), None, db.now())


def invite(
    db: Database,
    by: Account,
    role: Role,
    pool: Pool,
    kinds: Sequence[Kind],
    account_id: str | None = None,
) -> str:
    """The token of a new invitation; with `account_id`, one that sets that account's password.

    For a password, role, pool and kinds stay as they are. Raises NotAllowed if `by` is no lead, or
    a lead who invites more than labelers; InstilError for what is no role, pool or kind.
    """
    accounts.check(role=role, pool=pool, kinds=kinds)
    with db.write() as connection:
        if account_id is not None:
            known = accounts.of(accounts.row_of(connection, account_id))
            role, pool, kinds = known.role, known.pool, known.kinds
        accounts.must_lead(by, role)
        return _invite(connection, by.id, role, pool, kinds, account_id, db.now())


def invited(db: Database, token: str) -> Invitation:
    """What the link offers; NoInvitation if it was used, is too old, or never was."""
    with db.read() as connection:
        found = sa.select(invitation).where(*_open(token, db.now()))
        row = connection.execute(found).mappings().first()
        if row is None:
            raise _no_invitation()
        known = row["labeler_id"]
        return Invitation(
            role=row["role"],
            pool=row["pool"],
            kinds=tuple(json.loads(row["kinds"])),
            account=accounts.of(accounts.row_of(connection, known)) if known else None,
        )


def accept(db: Database, token: str, name: str, password: str) -> Account:
    """Make the account of an invitation, or give an account the new password; the link is used up.

    name  of the new account; of no meaning where the link is for a password

    Raises NoInvitation; InstilError for a name that is taken or none, or a password under 12
    characters: then the link still works.
    """
    offer = invited(db, token)
    name = offer.account.name if offer.account else _name(name)
    hashed = passwords.hashed(password, name)
    with db.write() as connection:
        now = db.now()
        used = connection.execute(
            invitation.update()
            .where(*_open(token, now))
            .values(used_at=now)
            .returning(invitation.c.created_by)
        ).first()
        if used is None:
            raise _no_invitation()
        if offer.account:
            _set_password(connection, offer.account, hashed, now)
            return offer.account
        if used.created_by is None and accounts.administrators(connection):
            raise _no_invitation()  # a set-up link is for the first alone
        return _make(connection, offer, name, hashed, now)


def sign_in(db: Database, name: str, password: str, address: str) -> Session:
    """A new session.

    address  where the request came from, for the throttle

    Raises TooManyTries after ten failures for this name, or fifty from this address, within a
    quarter of an hour; else InstilError with one message for all that can be wrong.
    """
    key = passwords.name_key(name)
    tried = passwords.count_try(db, key, address)
    nobodys = passwords.nobodys()
    with db.read() as connection:
        found = connection.execute(
            sa.select(labeler.c.id, labeler.c.password)
            .where(labeler.c.name_key == key)
            .where(labeler.c.active)
        ).first()
    right = passwords.verify(found.password if found else nobodys, password)
    if found and right:
        with db.write() as connection:
            row = accounts.row_of(connection, found.id)
            # it may have been changed, or the account closed, while the password was verified
            if row["active"] and row["password"] == found.password:
                passwords.forget_tries(connection, tried)
                return _begin(connection, accounts.of(row), db.now())
    raise InstilError("name or password is wrong")


def begin(db: Database, account_id: str) -> Session:
    """A new session of an account whose owner was just made sure of, as by an invitation."""
    with db.write() as connection:
        row = accounts.row_of(connection, account_id)
        if not row["active"]:
            raise InstilError("this account is closed; ask whoever leads the work")
        return _begin(connection, accounts.of(row), db.now())


def session_of(db: Database, cookie: str) -> Session | None:
    """The session that a cookie stands for; None if it ended or never was."""
    found = (
        sa.select(labeler, session.c.csrf, session.c.expires_at)
        .join(labeler, labeler.c.id == session.c.labeler_id)
        .where(session.c.token_hash == passwords.digest(cookie))
        .where(session.c.expires_at > db.now(), labeler.c.active)
    )
    with db.read() as connection:
        row = connection.execute(found).mappings().first()
    if row is None:
        return None
    return Session(
        token=cookie, csrf=row["csrf"], account=accounts.of(row), expires_at=row["expires_at"]
    )


def sign_out(db: Database, ended: Session) -> None:
    """End this session; others of the account go on."""
    with db.write() as connection:
        hashed = passwords.digest(ended.token)
        connection.execute(session.delete().where(session.c.token_hash == hashed))
        audit.append(connection, ended.account.id, "session.end", ended.account.id, b"", db.now())


def change_password(db: Database, account: Account, old: str, new: str) -> Session:
    """Set a new password, end all sessions, and begin a new one.

    Raises TooManyTries as `sign_in` does; InstilError if `old` is wrong or `new` no password.
    """
    tried = passwords.count_try(db, passwords.name_key(account.name))
    with db.read() as connection:
        before = accounts.row_of(connection, account.id)["password"]
    if not passwords.verify(before, old):
        raise InstilError("the old password is wrong")
    hashed = passwords.hashed(new, account.name)
    with db.write() as connection:
        row = accounts.row_of(connection, account.id)
        if row["password"] != before or not row["active"]:
            raise InstilError("the account was changed at the same moment; sign in again")
        now = db.now()
        passwords.forget_tries(connection, tried)
        _set_password(connection, account, hashed, now)
        return _begin(connection, accounts.of(row), now)


def _invite(
    connection: sa.Connection,
    by: str,
    role: Role,
    pool: Pool,
    kinds: Sequence[Kind],
    account_id: str | None,
    now: int,
) -> str:
    token = passwords.token()
    offer = {"role": role, "pool": pool, "kinds": json.dumps(list(dict.fromkeys(kinds)))}
    connection.execute(
        invitation.insert().values(
            **offer,
            token_hash=passwords.digest(token),
            labeler_id=account_id,
            created_by=by or None,
            created_at=now,
            expires_at=now + INVITATION_MS,
        )
    )
    action = "invitation.password" if account_id else "invitation.make"
    audit.append(connection, by, action, account_id or role, json.dumps(offer).encode(), now)
    return token


def _open(token: str, now: int) -> list[sa.ColumnElement[bool]]:
    return [
        invitation.c.token_hash == passwords.digest(token),
        invitation.c.used_at.is_(None),
        invitation.c.expires_at > now,
    ]


def _no_invitation() -> NoInvitation:
    return NoInvitation("this link was used or is too old; ask for a new one")


def _make(
    connection: sa.Connection, offer: Invitation, name: str, hashed: str, now: int
) -> Account:
    made = Account(
        id=f"l-{secrets.token_hex(8)}",
        name=name,
        role=offer.role,
        pool=offer.pool,
        kinds=offer.kinds,
        shortcuts={},
    )
    values: Mapping[str, Any] = {
        "id": made.id,
        "name": name,
        "role": made.role,
        "pool": made.pool,
        "kinds": json.dumps(made.kinds),
    }
    try:
        connection.execute(
            labeler.insert().values(
                **values, name_key=passwords.name_key(name), password=hashed, created_at=now
            )
        )
    except sa.exc.IntegrityError as error:
        raise InstilError(f"the name {name!r} is taken; choose another") from error
    audit.append(connection, made.id, "account.make", made.id, json.dumps(values).encode(), now)
    return made


def _begin(connection: sa.Connection, account: Account, now: int) -> Session:
    made = Session(
        token=passwords.token(),
        csrf=passwords.token(),
        account=account,
        expires_at=now + SESSION_MS,
    )
    connection.execute(session.delete().where(session.c.expires_at <= now))
    connection.execute(
        session.insert().values(
            token_hash=passwords.digest(made.token),
            labeler_id=account.id,
            csrf=made.csrf,
            created_at=now,
            expires_at=made.expires_at,
        )
    )
    audit.append(connection, account.id, "session.begin", account.id, b"", now)
    return made


def _set_password(connection: sa.Connection, account: Account, hashed: str, now: int) -> None:
    own = labeler.c.id == account.id
    connection.execute(labeler.update().where(own).values(password=hashed))
    accounts.end_sessions(connection, account.id)
    audit.append(connection, account.id, "password.set", account.id, b"", now)


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > 64 or not name.isprintable():
        raise InstilError("give a name of 1 to 64 characters that can be printed")
    return name
