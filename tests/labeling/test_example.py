from __future__ import annotations

import json
import shutil

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import assign, batches, example, past, people, schema
from instil.labeling.database import Database
from instil.labeling.quality import overview, per_labeler


@pytest.fixture(scope="module")
def filled(sqlite_template, tmp_path_factory):
    """A database with the example, and the token of its link."""
    path = tmp_path_factory.mktemp("example") / "labels.db"
    shutil.copy(sqlite_template, path)
    db = Database(path)
    yield db, example.fill(db)
    db.close()


def test_there_is_work_of_every_kind_and_figures_of_work_done(filled):
    db, token = filled
    found = {progress.name: progress for progress in batches.progress(db)}
    assert {(p.kind, p.purpose) for p in found.values()} == {
        ("ranking", "training"),
        ("demonstration", "training"),
        ("annotation", "training"),
        ("ranking", "evaluation"),
        ("toxicity", "evaluation"),
    }
    for progress in found.values():
        assert progress.state == "open" and progress.counts.few == 0
        assert progress.pools["training"].free and progress.labels["accepted"]
    first = found["Rankings, first round"]
    assert first.tasks == 40
    with db.read() as connection:
        shown = connection.execute(
            sa.select(sa.func.count())
            .select_from(schema.task_response.join(schema.task))
            .where(schema.task.c.batch_id == first.batch_id)
            .group_by(schema.task_response.c.task_id)
        ).scalars()
        assert set(shown) == {4, 5, 6, 7}
        judgements = past.judgements(connection)
    assert people.invited(db, token).account.name == "you"
    whole = overview(judgements)
    assert whole.agreement.strict.n > 50 and 0.55 < whole.agreement.strict.mean < 0.95
    by_labeler = {one.labeler_id: one for one in per_labeler(judgements)}
    assert set(by_labeler) == {"l-demo-ann", "l-demo-bob", "l-demo-hal"}


def test_it_keeps_away_from_a_database_in_use(small):
    before = small.batch("ranking", tasks=3)
    with pytest.raises(InstilError, match=r"lite.db: has people or work already"):
        example.fill(small.db)
    with small.db.read() as connection:
        assert connection.execute(sa.select(schema.task.c.id)).scalars().all() == before
        assert not connection.execute(sa.select(schema.label.c.id)).all()


def test_the_lead_can_begin_at_once(filled):
    db, token = filled
    you = people.accept(db, token, "you", "correct horse battery")
    assert you.role == "lead"
    for kind in ("ranking", "demonstration", "annotation", "toxicity"):
        assert assign.claim(db, you, kind) is not None


def test_a_second_call_gives_a_new_link_to_the_same(filled):
    db, first = filled
    before = batches.progress(db)
    assert example.fill(db) != first
    assert batches.progress(db) == before


def test_no_policy_is_named_where_labelers_can_see(filled):
    db, _ = filled
    with db.read() as connection:
        seen = connection.execute(sa.select(schema.response.c.id, schema.response.c.text)).all()
    said = json.dumps([list(row) for row in seen])
    assert not any(policy in said for policy in ("early", "latest", "middle"))
