"""Figures that an administrator sets while people work."""

from __future__ import annotations

import pytest

from instil.errors import InstilError
from instil.labeling import audit
from instil.labeling.settings import SETTINGS, set_setting, setting


def test_what_they_are_until_somebody_sets_them(lite):
    with lite.read() as connection:
        found = {name: setting(connection, name) for name in SETTINGS}
    assert found == {
        "gold_share": 0.04,
        "repeat_share": 0.04,
        "repeat_after_ms": 86_400_000,
        "cut_off_flags": 0.75,
        "cut_off_rankings": 0.75,
        "cut_off_demonstrations": 6,
    }


def test_an_administrator_sets_one(store):
    for value in (0.1, 0.2, 0.2):
        set_setting(store.db, store["admin"], "gold_share", value)
        with store.db.read() as connection:
            assert setting(connection, "gold_share") == value
            assert setting(connection, "repeat_share") == 0.04
    with store.db.read() as connection:
        assert [e.action for e in audit.newest(connection)] == ["setting.set"] * 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gold_share", 0.6, "gold_share 0.6: give 0 to 0.5"),
        ("gold_share", float("nan"), "gold_share nan: give 0 to 0.5"),
        ("cut_off_demonstrations", 0, "give 1 to 7"),
        ("gold_shar", 0.1, "no setting 'gold_shar'; did you mean \"gold_share\""),
        ("permutation_key", 1, "no setting 'permutation_key'"),
    ],
)
def test_what_is_no_setting(small, name, value, message):
    with pytest.raises(InstilError, match=message):
        set_setting(small.db, small["admin"], name, value)


@pytest.mark.parametrize("who", ["lead", "viewer", "ann"])
def test_nobody_else_sets_any(small, who):
    with pytest.raises(InstilError, match="only an administrator"):
        set_setting(small.db, small[who], "gold_share", 0.1)
