"""What labelers hand in, on both engines: revisions, keys, late work, skips, drafts."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import assign, audit, labels, past, schema
from instil.labeling.kinds import Refused
from instil.labeling.labels import Stale

HOUR = 3_600_000


def answer(n: int, best: str = "A", **more) -> bytes:
    """A ranking of n cards, `best` in front and the others tied."""
    letters = "ABCDEFGHI"[:n]
    rest = [x for x in letters if x != best]
    overall = {x: 7 if x == best else 3 for x in letters}
    return json.dumps({"tiers": [[best], rest], "overall": overall, **more}).encode()


def rows(db, query=None):
    query = sa.select(schema.label) if query is None else query
    with db.read() as connection:
        return connection.execute(query).all()


def seats(db):
    columns = schema.seat.c
    return rows(db, sa.select(columns.state, columns.labeler_id).order_by(columns.id))


@pytest.fixture
def held(store):
    """A ranking task of four responses and two seats, one of which ann holds."""
    store.batch("ranking", training=2)
    return assign.claim(store.db, store["ann"], "ranking")


def test_a_label_is_kept_with_all_that_was_so(store, held):
    store.clock.pass_(minutes=3)
    kept = labels.submit(store.db, store["ann"], held.id, "key-1", 0, answer(4), 90_000)
    assert (kept.revision, kept.status) == (1, "kept")
    (row,) = rows(store.db)
    assert (row.id, row.assignment_id, row.seat_id) == (kept.label_id, held.id, held.seat_id)
    assert (row.labeler_id, row.pool, row.purpose) == ("l-ann", "training", "training")
    assert (row.revision, row.status, row.idempotency_key) == (1, "accepted", "key-1")
    assert (row.active_ms, row.elapsed_ms, row.created_at) == (90_000, 180_000, store.clock())
    assert row.payload_sha256 == hashlib.sha256(row.payload.encode()).hexdigest()
    best = json.loads(row.payload)["ranking"]["tiers"][0]
    assert best == [f"r0-0-{held.order[0]}"]  # A is what stood first on the screen
    assert seats(store.db) == [("done", "l-ann"), ("free", None)]
    with store.db.read() as connection:
        (event,) = audit.newest(connection)
        assert audit.first_bad(connection) is None
    assert (event.actor_id, event.action, event.object_id) == ("l-ann", "label.submit", row.id)
    assert event.detail_sha256 == row.payload_sha256


def test_the_same_request_twice_is_one_label(store, held):
    sent = (store.db, store["ann"], held.id, "key-1", 0, answer(4), 5)
    first = labels.submit(*sent)
    store.clock.pass_(hours=50)
    assert labels.submit(*sent) == first
    labels.submit(store.db, store["ann"], held.id, "key-2", 1, answer(4, "B"), 5)
    assert labels.submit(*sent) == first  # long after, too
    assert len(rows(store.db)) == 2


def test_the_same_request_many_times_at_once_is_one_label(store, held):
    sent = (store.db, store["ann"], held.id, "key-1", 0, answer(4), 5)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: labels.submit(*sent), range(16)))
    assert len(set(replies)) == 1 and len(rows(store.db)) == 1


def test_a_key_is_for_one_answer(store, held):
    labels.submit(store.db, store["ann"], held.id, "key-1", 0, answer(4), 5)
    for base in (0, 1):
        with pytest.raises(Stale) as stale:
            labels.submit(store.db, store["ann"], held.id, "key-1", base, answer(4, "B"), 5)
        assert stale.value.revision == 1
    other = assign.claim(store.db, store["bob"], "ranking")
    # another person's key may be the same
    assert labels.submit(store.db, store["bob"], other.id, "key-1", 0, answer(4), 5).revision == 1


def test_the_second_of_two_windows_is_shown_the_first(store, held):
    labels.submit(store.db, store["ann"], held.id, "key-1", 0, answer(4, "C", remark="hm"), 5)
    with pytest.raises(Stale) as stale:
        labels.submit(store.db, store["ann"], held.id, "key-2", 0, answer(4, "D"), 5)
    assert stale.value.revision == 1
    assert stale.value.answer["tiers"] == [["C"], ["A", "B", "D"]]
    assert stale.value.answer["remark"] == "hm"
    again = msgspec.json.encode(stale.value.answer)  # and it can be handed in as it is
    assert labels.submit(store.db, store["ann"], held.id, "key-3", 1, again, 5).revision == 2


def test_every_revision_stays(store, held):
    for base, best in enumerate("ABCD"):
        labels.submit(store.db, store["ann"], held.id, f"key-{best}", base, answer(4, best), 5)
    found = past.revisions(store.db, held.id)
    assert [one.revision for one in found] == [1, 2, 3, 4]
    assert {one.status for one in found} == {"accepted"}
    tops = [one.payload["ranking"]["tiers"][0][0] for one in found]
    assert tops == list(found[0].order)
    assert seats(store.db) == [("done", "l-ann"), ("free", None)]


def test_an_answer_that_is_refused_leaves_nothing(store, held):
    for bad in (b"{}", answer(3), b"junk"):
        with pytest.raises(Refused):
            labels.submit(store.db, store["ann"], held.id, "key-1", 0, bad, 5)
    assert rows(store.db) == [] and seats(store.db)[0] == ("held", "l-ann")


def test_a_failure_before_the_end_leaves_nothing(store, held, monkeypatch):
    def fail(*_):
        raise RuntimeError("the audit log is not to be had")

    labels.save_draft(store.db, store["ann"], held.id, 0, b"1")
    before = seats(store.db)
    monkeypatch.setattr(audit, "append", fail)
    with pytest.raises(RuntimeError):
        labels.submit(store.db, store["ann"], held.id, "key-1", 0, answer(4), 5)
    assert rows(store.db) == [] and seats(store.db) == before
    assert past.latest(store.db, store["ann"], held.id).draft["version"] == 1


def test_late_work_is_accepted_while_a_seat_is_free(store, held):
    store.clock.pass_(hours=5)
    taken = assign.claim(store.db, store["bob"], "ranking")
    assert taken.seat_id == held.seat_id
    kept = labels.submit(store.db, store["ann"], held.id, "key-1", 0, answer(4), 5)
    assert kept.status == "kept"
    (row,) = rows(store.db)
    assert row.status == "accepted" and row.seat_id != held.seat_id
    assert sorted(seats(store.db)) == [("done", "l-ann"), ("held", "l-bob")]
    assert labels.submit(store.db, store["bob"], taken.id, "k", 0, answer(4), 5).status == "kept"


def test_late_work_takes_a_seat_whose_time_is_over(store, held):
    store.clock.pass_(hours=5)
    bob, cid = (assign.claim(store.db, store[name], "ranking") for name in ("bob", "cid"))
    store.clock.pass_(hours=5)
    assert labels.submit(store.db, store["ann"], held.id, "k", 0, answer(4), 5).status == "kept"
    told = [
        labels.submit(store.db, store[name], one.id, "k", 0, answer(4), 5).status
        for name, one in (("bob", bob), ("cid", cid))
    ]
    assert sorted(told) == ["kept", "late"]


def test_late_work_is_surplus_when_all_is_done(store, held):
    store.clock.pass_(hours=5)
    for name in ("bob", "cid"):
        other = assign.claim(store.db, store[name], "ranking")
        labels.submit(store.db, store[name], other.id, "k", 0, answer(4), 5)
    kept = labels.submit(store.db, store["ann"], held.id, "k", 0, answer(4), 5)
    assert kept.status == "late"
    again = labels.submit(store.db, store["ann"], held.id, "k2", 1, answer(4, "B"), 5)
    assert (again.status, again.revision) == ("late", 2)
    found = [(row.labeler_id, row.status) for row in rows(store.db)]
    assert sorted(found) == [
        ("l-ann", "surplus"),
        ("l-ann", "surplus"),
        ("l-bob", "accepted"),
        ("l-cid", "accepted"),
    ]


def test_one_labeler_is_not_counted_twice(store):
    """The lease ran out, the task came back to the same labeler, and the old window hands in."""
    store.batch("ranking", training=3)
    db, ann, bob = store.db, store["ann"], store["bob"]
    old = assign.claim(db, ann, "ranking")
    store.clock.pass_(hours=5)
    taken = assign.claim(db, bob, "ranking")
    new = assign.claim(db, ann, "ranking")
    assert new.task_id == old.task_id and new.id != old.id and taken.seat_id == old.seat_id
    labels.submit(db, ann, new.id, "k1", 0, answer(4), 5)
    assert labels.submit(db, ann, old.id, "k2", 0, answer(4), 5).status == "late"
    assert sorted(state for state, _ in seats(db)) == ["done", "free", "held"]
    labels.submit(db, bob, taken.id, "k", 0, answer(4), 5)
    assert [row.status for row in rows(db)].count("accepted") == 2


def test_a_clock_that_jumps_back_gives_no_negative_time(store, held):
    store.clock.pass_(hours=-3)
    labels.submit(store.db, store["ann"], held.id, "k", 0, answer(4), -7)
    (row,) = rows(store.db)
    assert (row.elapsed_ms, row.active_ms) == (0, 0)


def test_a_skipped_task_goes_to_others(store):
    store.batch("ranking")
    db, ann, bob = store.db, store["ann"], store["bob"]
    held = assign.claim(db, ann, "ranking")
    labels.skip(db, ann, held.id, "k", "other", "not my field")
    labels.skip(db, ann, held.id, "k", "other", "not my field")
    (row,) = rows(db)
    assert (row.status, row.revision) == ("skipped", 1)
    assert json.loads(row.payload) == {"skipped": "other", "note": "not my field"}
    assert seats(db) == [("free", None)]
    assert assign.claim(db, ann, "ranking") is None
    assert assign.claim(db, bob, "ranking").task_id == held.task_id


def test_a_skip_ends_the_work_in_other_windows(store, held):
    db, ann = store.db, store["ann"]
    labels.skip(db, ann, held.id, "k", "unclear")
    for base in (0, 1):
        with pytest.raises(Stale) as stale:
            labels.submit(db, ann, held.id, f"k{base}", base, answer(4), 5)
        assert stale.value.answer is None
    with pytest.raises(Stale):
        labels.save_draft(db, ann, held.id, 0, b"{}")


def test_what_was_handed_in_is_not_skipped(store, held):
    db, ann = store.db, store["ann"]
    labels.submit(db, ann, held.id, "k", 0, answer(4), 5)
    with pytest.raises(Stale) as stale:
        labels.skip(db, ann, held.id, "k2", "unclear")
    assert stale.value.answer["tiers"][0] == ["A"]
    with pytest.raises(Refused):
        labels.skip(db, ann, held.id, "k3", "bored")


def test_a_skip_can_be_taken_back(store, held):
    db, ann = store.db, store["ann"]
    labels.save_draft(db, ann, held.id, 0, b'{"best":"A"}')
    labels.skip(db, ann, held.id, "k", "unclear")
    with pytest.raises(InstilError, match="reopen"):
        labels.take_back(db, ann, labels.take_back(db, ann, held.id).id)
    new = labels.take_back(db, ann, held.id)  # twice is once
    assert new.id != held.id and (new.task_id, new.order) == (held.task_id, held.order)
    assert past.latest(db, ann, new.id).draft["content"] == {"best": "A"}
    assert labels.submit(db, ann, new.id, "k2", 0, answer(4), 5).status == "kept"
    assert sorted(row.status for row in rows(db)) == ["accepted", "skipped"]


def test_a_skip_cannot_be_taken_back_when_others_did_the_task(store, held):
    db, ann = store.db, store["ann"]
    labels.skip(db, ann, held.id, "k", "unclear")
    for name in ("bob", "cid"):
        other = assign.claim(db, store[name], "ranking")
        labels.submit(db, store[name], other.id, "k", 0, answer(4), 5)
    with pytest.raises(InstilError, match="done or closed"):
        labels.take_back(db, ann, held.id)


def test_drafts_go_from_version_to_version(store, held):
    db, ann = store.db, store["ann"]
    assert labels.save_draft(db, ann, held.id, 0, b'{"n":1}') == 1
    assert labels.save_draft(db, ann, held.id, 1, b'{"n":2}') == 2
    assert labels.save_draft(db, ann, held.id, 1, b'{"n":2}') == 2  # the reply was lost
    with pytest.raises(Stale) as stale:
        labels.save_draft(db, ann, held.id, 1, b'{"n":3}')
    assert (stale.value.version, stale.value.content) == (2, {"n": 2})
    assert past.latest(db, ann, held.id).draft == {"version": 2, "content": {"n": 2}}
    labels.submit(db, ann, held.id, "k", 0, answer(4), 5)
    assert past.latest(db, ann, held.id).draft == {"version": 0, "content": None}
    assert labels.save_draft(db, ann, held.id, 2, b'{"n":4}') == 3  # reopened


def test_a_draft_keeps_the_seat(store, held):
    for version in range(3):
        store.clock.pass_(hours=3)
        labels.save_draft(store.db, store["ann"], held.id, version, b"{}")
    expires = assign.find(store.db, store["ann"], held.id).expires_at
    assert expires == store.clock() + assign.LEASE_MS
    assert assign.claim(store.db, store["bob"], "ranking").seat_id != held.seat_id


def test_a_label_of_a_removed_kind_is_still_taken(store, held):
    """The lead takes the kind away while the labeler is at it: what is in hand is kept."""
    account = schema.labeler
    with store.db.write() as connection:
        connection.execute(account.update().where(account.c.id == "l-ann").values(kinds="[]"))
    kept = labels.submit(store.db, store["ann"], held.id, "k", 0, answer(4), 5)
    assert kept.status == "kept"


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("prompt", {"style": "plain", "text": "Sing."}),
        ("annotation", {"use_case": "chat", "flags": []}),
        ("demonstration", {"text": "Lima."}),
        (
            "toxicity",
            {
                "input": 0,
                "output": {"A": 0, "B": 1},
                "relative": {"A": 0, "B": 1},
                "continuity": {"A": 4, "B": 1},
                "tiers": [["A"], ["B"]],
            },
        ),
    ],
)
def test_every_kind_is_kept_and_reopened(store, kind, given):
    store.batch(kind, responses=2)
    db, ann = store.db, store["ann"]
    held = assign.claim(db, ann, kind)
    shown = assign.work(db, held)
    assert (shown.prompt_id == "") == (kind == "prompt")
    labels.submit(db, ann, held.id, "k", 0, json.dumps(given).encode(), 5)
    standing = past.latest(db, ann, held.id)
    assert standing.status == "done"
    assert {name: standing.answer[name] for name in given} == given
    again = msgspec.json.encode(standing.answer)
    assert labels.submit(db, ann, held.id, "k2", 1, again, 5).revision == 2


def test_odd_characters_come_back_as_they_went(store):
    store.batch("demonstration")
    db, ann = store.db, store["ann"]
    held = assign.claim(db, ann, "demonstration")
    text = "nul \0, quote ' \", back \\, \u202eright to left, \U0001f600, é é, <b>, {{x}}"
    labels.save_draft(db, ann, held.id, 0, json.dumps({"text": text}).encode())
    assert past.latest(db, ann, held.id).draft["content"] == {"text": text}
    labels.submit(db, ann, held.id, "k", 0, json.dumps({"text": text}).encode(), 5)
    assert past.latest(db, ann, held.id).answer == {"text": text}
    assert past.revisions(db, held.id)[0].payload["demonstration"]["text"] == text
