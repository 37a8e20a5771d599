"""The accounts: role, pool, kinds of work, and what each person may set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import audit
from instil.labeling.database import Database
from instil.labeling.schema import invitation, labeler, session
from instil.records import Kind

Role = Literal["admin", "lead", "labeler", "viewer"]
Pool = Literal["training", "held-out", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One person. `pool` is the group of `records.Labeler`, once a candidate was accepted."""

    id: str
    name: str
    role: Role
    pool: Pool
    kinds: tuple[Kind, ...] = ()
    """The kinds of work that this person is given."""
    shortcuts: Mapping[str, str]
    """Command of the board -> the key that this person wants for it, or "off"."""
    active: bool = True
    comfort: tuple[str, ...] = ()
    """Topics in which this person feels able to tell what is sensitive."""
    surveyed: bool = False


class NotAllowed(InstilError):
    """This person's role does not allow it."""


class NoAccount(InstilError):
    """There is no account of that id."""


def accounts(db: Database) -> list[Account]:
    """Everybody, by name."""
    with db.read() as connection:
        rows = connection.execute(sa.select(labeler).order_by(labeler.c.name_key)).mappings()
        return [of(row) for row in rows]


def account(db: Database, account_id: str) -> Account:
    """One account; NoAccount if there is none."""
    with db.read() as connection:
        return of(row_of(connection, account_id))


def update(db: Database, by: Account, account_id: str, **changes: Any) -> Account:
    """Change role, pool, kinds or active of an account, and return it.

    A change of anything but kinds ends its sessions. Raises NotAllowed if `by` is no lead, or a
    lead who touches more than labelers; InstilError for a pool that was decided before (only a
    candidate's can change) and for the last administrator.
    """
    if unknown := set(changes) - {"role", "pool", "kinds", "active"}:
        raise InstilError(f"{', '.join(sorted(unknown))}: cannot be changed")
    check(**changes)
    if "kinds" in changes:
        changes["kinds"] = tuple(dict.fromkeys(changes["kinds"]))
    with db.write() as connection:
        admins = administrators(connection, lock=True)
        known = of(row_of(connection, account_id))
        changed = {name: new for name, new in changes.items() if getattr(known, name) != new}
        made = replace(known, **changed)
        must_lead(by, known.role)
        must_lead(by, made.role)
        if not changed:
            return known
        if "pool" in changed and known.pool != "candidate":
            raise InstilError(
                f"{known.name} is in the pool {known.pool}, and stays: what a labeler did there "
                "would count for the other pool. Invite the person under another name"
            )
        if admins == [account_id] and not (made.active and made.role == "admin"):
            raise InstilError(f"{known.name} is the last administrator; make another one first")
        values = {**changed, "kinds": json.dumps(made.kinds)}
        connection.execute(labeler.update().where(labeler.c.id == account_id).values(values))
        if set(changed) != {"kinds"}:
            end_sessions(connection, account_id)
        detail = json.dumps(changed, sort_keys=True).encode()
        audit.append(connection, by.id, "account.change", account_id, detail, db.now())
        return made


def set_shortcuts(db: Database, account: Account, shortcuts: Mapping[str, str]) -> None:
    """Keys that the account wants instead of the usual ones: command -> one character or "off".

    Raises InstilError for a key that is neither, or stands for two commands.
    """
    keys = [key for key in shortcuts.values() if key != "off"]
    for key in keys:
        if len(key) != 1 or not key.isprintable() or key.isspace():
            raise InstilError(f'shortcut {key!r}: give one character, or "off"')
        if keys.count(key) > 1:
            raise InstilError(f"shortcut {key!r} stands for two commands; change one of them")
    if len(shortcuts) > 64 or any(len(command) > 32 for command in shortcuts):
        raise InstilError("these are more shortcuts than there are commands")
    _set(db, account, "shortcuts", dict(shortcuts))


def set_comfort(db: Database, account: Account, topics: Sequence[str]) -> None:
    """Topics in which the person feels able to tell what is sensitive; up to 100 of them."""
    if len(topics) > 100 or any(len(topic) > 200 or "\0" in topic for topic in topics):
        raise InstilError("give up to 100 topics of up to 200 characters each")
    _set(db, account, "comfort", list(topics))


def _set(db: Database, account: Account, column: str, value: object) -> None:
    text = json.dumps(value)
    with db.write() as connection:
        connection.execute(
            labeler.update().where(labeler.c.id == account.id).values({column: text})
        )
        audit.append(
            connection, account.id, f"account.{column}", account.id, text.encode(), db.now()
        )


# -- within a transaction --------------------------------------------------------------------------


def row_of(connection: sa.Connection, account_id: str) -> sa.RowMapping:
    """The row of one account; NoAccount if there is none."""
    found = connection.execute(sa.select(labeler).where(labeler.c.id == account_id))
    row = found.mappings().first()
    if row is None:
        raise NoAccount(f"no account {account_id!r}")
    return row


def of(row: sa.RowMapping) -> Account:
    """The account in a row of the table `labeler`."""
    return Account(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        pool=row["pool"],
        kinds=tuple(json.loads(row["kinds"])),
        shortcuts=json.loads(row["shortcuts"]),
        active=row["active"],
        comfort=tuple(json.loads(row["comfort"])),
        surveyed=row["surveyed"],
    )


def administrators(connection: sa.Connection, lock: bool = False) -> list[str]:
    """Ids of the active ones. Locked: of two who leave at once the second sees the first go.

    The lock lets others refer to these accounts, as every new session and audited deed does.
    """
    found = sa.select(labeler.c.id).where(labeler.c.role == "admin", labeler.c.active)
    found = found.order_by(labeler.c.id)
    return list(
        connection.execute(found.with_for_update(key_share=True) if lock else found).scalars()
    )


def end_sessions(connection: sa.Connection, account_id: str) -> None:
    """Sign the account out everywhere, and end links for its password: who made one for a labeler
    may not set an administrator's."""
    connection.execute(session.delete().where(session.c.labeler_id == account_id))
    connection.execute(
        invitation.delete().where(
            invitation.c.labeler_id == account_id, invitation.c.used_at.is_(None)
        )
    )


# -- what is given ---------------------------------------------------------------------------------


def check(
    *, role: str = "labeler", pool: str = "training", kinds: Sequence[str] = (), **_: Any
) -> None:
    """InstilError for what is no role, pool or kind of work."""
    for what, given, known in (
        ("role", [role], get_args(Role)),
        ("pool", [pool], get_args(Pool)),
        ("kind of work", kinds, get_args(Kind)),
    ):
        for one in given:
            if one not in known:
                raise InstilError(f"{what} {one!r} is not one of {', '.join(known)}")


def must_lead(by: Account, role: str) -> None:
    """NotAllowed unless `by` may invite and change this role: admins all, leads labelers."""
    if by.role != "admin" and (by.role, role) != ("lead", "labeler"):
        raise NotAllowed(f"only an administrator may do this for the role {role}; yours: {by.role}")
