"""The few figures that an administrator sets while people work."""

from __future__ import annotations

import sqlalchemy as sa

from instil.errors import InstilError, nearest
from instil.labeling import audit, schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database

SETTINGS = {
    "gold_share": (0.04, 0.0, 0.5),
    "repeat_share": (0.04, 0.0, 0.5),
    "repeat_after_ms": (24 * 3_600_000, 0, 365 * 24 * 3_600_000),
    "cut_off_flags": (0.75, 0.0, 1.0),
    "cut_off_rankings": (0.75, 0.0, 1.0),
    "cut_off_demonstrations": (6.0, 1.0, 7.0),
}
"""name -> what it is until somebody sets it, the least and the most that it may be.

gold_share              of a labeler's work: tasks whose best answer the leads have given
repeat_share            of a labeler's work: own tasks again, after `repeat_after_ms`
cut_off_...             what a candidate should reach in the screening [Ouyang et al. 2022]
"""


def setting(connection: sa.Connection, name: str) -> float:
    """The value of one of SETTINGS."""
    default, _, _ = SETTINGS[name]
    found = sa.select(schema.setting.c.value).where(schema.setting.c.name == name)
    value = connection.execute(found).scalar()
    return default if value is None else float(value)


def set_setting(db: Database, by: Account, name: str, value: float) -> None:
    """Set one of SETTINGS; only an administrator may. InstilError if it is out of bounds."""
    if by.role != "admin":
        raise InstilError("only an administrator changes settings")
    if name not in SETTINGS:
        raise InstilError(f"no setting {name!r}{nearest(name, SETTINGS)}")
    _, low, high = SETTINGS[name]
    if not low <= value <= high:
        raise InstilError(f"{name} {value:g}: give {low:g} to {high:g}")
    with db.write() as connection:
        if value == setting(connection, name):
            return
        # first, for it makes others who set it wait
        audit.append(connection, by.id, "setting.set", name, repr(value).encode(), db.now())
        connection.execute(schema.setting.delete().where(schema.setting.c.name == name))
        connection.execute(schema.setting.insert().values(name=name, value=repr(float(value))))
