"""Who is called how: leads read names, viewers ids."""

from __future__ import annotations

import pytest

from instil.labeling import people
from instil.labeling.web.lead_parts import PURPOSES, WORK, names_of
from instil.labeling.web.route import Seen, Settings
from instil.records import Kind, Purpose


@pytest.mark.parametrize(("reader", "called"), [("lead", "ann"), ("viewer", "l-ann")])
def test_names(small, reader, called):
    session = people.begin(small.db, small[reader].id)
    seen = Seen(db=small.db, settings=Settings(), session=session, method="GET", url="/lead")
    with small.db.read() as connection:
        assert names_of(seen, connection)["l-ann"] == called


def test_every_kind_and_purpose_has_its_words():
    assert set(WORK) == set(Kind.__args__)
    assert set(PURPOSES) == set(Purpose.__args__)
