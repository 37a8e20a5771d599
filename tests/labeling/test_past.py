"""What was handed in, as labelers, figures and exports read it."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from instil.labeling import assign, labels, past
from instil.labeling.quality import overview

HOUR = 3_600_000


def do(store, name, held, base=0, best="A", active_ms=1000):
    cards = assign.work(store.db, held).cards
    letters = [card.letter for card in cards]
    rest = [x for x in letters if x != best]
    answer = {"tiers": [[best], rest], "overall": {x: 7 if x == best else 2 for x in letters}}
    key = f"{held.id}-{base}"
    sent = json.dumps(answer).encode()
    return labels.submit(store.db, store[name], held.id, key, base, sent, active_ms)


@pytest.fixture
def filled(store):
    """Three tasks of four responses; ann does two, one of them twice, and skips one; bob two."""
    store.batch("ranking", tasks=3, training=2, texts=["one two", "three\nfour five", "x", "y z"])
    held = {}
    for name, count in (("ann", 3), ("bob", 2)):
        for index in range(count):
            store.clock.pass_(minutes=1)
            one = held[name, index] = assign.claim(store.db, store[name], "ranking")
            if (name, index) == ("ann", 2):
                labels.skip(store.db, store["ann"], one.id, "k", "unclear")
            else:
                do(store, name, one)
    store.clock.pass_(minutes=1)
    do(store, "ann", held["ann", 0], base=1, best="B", active_ms=500)
    return held


def test_history_is_newest_first_and_by_cursor(store, filled):
    db, ann = store.db, store["ann"]
    found = past.history(db, ann)
    told = [(one.assignment_id, one.revision, one.skipped, one.late) for one in found]
    assert told == [
        (filled["ann", 0].id, 2, False, False),
        (filled["ann", 2].id, 1, True, False),
        (filled["ann", 1].id, 1, False, False),
    ]
    assert found[0].prompt == "What is 0 and 0?"
    assert past.history(db, ann, limit=1) == found[:1]
    assert past.history(db, ann, before=found[0].at, limit=1) == found[1:2]
    assert len(past.history(db, store["bob"])) == 2 and past.history(db, store["cid"]) == []


def test_a_skip_that_was_taken_back_leaves_the_history(store, filled):
    db, ann = store.db, store["ann"]
    new = labels.take_back(db, ann, filled["ann", 2].id)
    assert filled["ann", 2].id not in [one.assignment_id for one in past.history(db, ann)]
    labels.skip(db, ann, new.id, "k2", "unclear")
    skipped = [one.assignment_id for one in past.history(db, ann) if one.skipped]
    assert skipped == [new.id]


def test_what_is_in_hand(store, filled):
    db, bob = store.db, store["bob"]
    assert past.begun(db, bob) == []
    held = assign.claim(db, bob, "ranking")
    (one,) = past.begun(db, bob)
    assert (one.id, one.kind, one.prompt) == (held.id, "ranking", "What is 0 and 2?")
    assert one.expires_at == held.expires_at


def test_what_was_done_today(store, filled):
    assert past.today(store.db, store["ann"]) == 2
    store.clock.pass_(hours=24)
    assert past.today(store.db, store["ann"]) == 0


def test_a_page_is_opened_with_what_there_is(store, filled):
    db, ann = store.db, store["ann"]
    done = past.latest(db, ann, filled["ann", 0].id)
    assert (done.status, done.revision) == ("done", 2)
    assert done.answer["tiers"] == [["B"], ["A", "C", "D"]]
    skipped = past.latest(db, ann, filled["ann", 2].id)
    assert (skipped.status, skipped.revision, skipped.answer) == ("skipped", 1, None)
    held = assign.claim(db, store["bob"], "ranking")
    open_ = past.latest(db, store["bob"], held.id)
    assert (open_.status, open_.revision, open_.answer) == ("open", 0, None)


def test_stored_streams_every_revision(store, filled, monkeypatch):
    monkeypatch.setattr(past, "_AT_A_TIME", 2)  # several portions
    with store.db.read() as connection:
        found = list(past.stored(connection))
    assert [(one.labeler_id, one.revision, one.status) for one in found] == [
        ("l-ann", 1, "accepted"),
        ("l-ann", 1, "accepted"),
        ("l-ann", 1, "skipped"),
        ("l-bob", 1, "accepted"),
        ("l-bob", 1, "accepted"),
        ("l-ann", 2, "accepted"),
    ]
    first, last = found[0], found[-1]
    assert first.order == tuple(f"r0-0-{place}" for place in filled["ann", 0].order)
    assert first.prompt_id == "p0-0" and first.guideline == filled["ann", 0].guideline_id
    assert last.payload["ranking"]["tiers"][0] == [last.order[1]]
    assert found[2].payload == {"skipped": "unclear", "note": ""}


@pytest.mark.parametrize(
    ("chosen", "number"),
    [
        ({"labeler_id": "l-bob"}, 2),
        ({"status": ("skipped",)}, 1),
        ({"only_newest": True}, 5),
        ({"kind": "toxicity"}, 0),
        ({"kind": "ranking", "purpose": "training", "pool": "training"}, 6),
        ({"purpose": "evaluation"}, 0),
        ({"batch_id": "b0"}, 6),
        ({"batch_id": "b1"}, 0),
        ({"task_id": "t0-0"}, 3),
    ],
)
def test_stored_takes_filters(store, filled, chosen, number):
    with store.db.read() as connection:
        assert len(list(past.stored(connection, **chosen))) == number


def test_stored_takes_times(store, filled):
    with store.db.read() as connection:
        times = [one.submitted_at for one in past.stored(connection)]
        assert len(list(past.stored(connection, since=times[3]))) == 3
        assert len(list(past.stored(connection, until=times[3]))) == 3


def test_judgements_are_the_newest_revisions(store, filled):
    with store.db.read() as connection:
        found = past.judgements(connection)
    assert [(one.labeler_id, one.prompt_id) for one in found] == [
        ("l-ann", "p0-0"),
        ("l-bob", "p0-1"),
        ("l-bob", "p0-0"),
        ("l-ann", "p0-1"),
    ]
    first = found[0]
    shown = first.order
    assert first.ranking.tiers[0] == (shown[1],) and set(first.ranking.tiers[1]) == {
        shown[0],
        *shown[2:],
    }
    assert {rating.response_id: rating.overall for rating in first.ratings} == {
        response: 7 if response == shown[1] else 2 for response in shown
    }
    assert (first.pool, first.use_case, first.status) == ("training", "open_qa", "accepted")
    # "What is 0 and 0?" has 5 words; the responses have 2, 3, 1 and 2
    assert first.words == 5 + 2 + 3 + 1 + 2
    assert first.lengths == {"r0-0-0": 7, "r0-0-1": 15, "r0-0-2": 1, "r0-0-3": 3}
    assert first.active_ms == 1500  # of both revisions
    assert overview(found).labelers == 2


def test_judgements_take_filters(store, filled):
    with store.db.read() as connection:
        assert len(past.judgements(connection, limit=3)) == 3
        assert len(past.judgements(connection, labeler_id="l-ann")) == 2
        assert len(past.judgements(connection, use_case="chat")) == 0
        assert len(past.judgements(connection, use_case="open_qa", purpose=None)) == 4
        assert past.judgements(connection, status=("key",)) == []
        assert past.judgements(connection, kind="toxicity") == []
        (newest, *_) = past.judgements(connection)
        assert past.judgements(connection, since=newest.at) == [newest]


def test_judgements_beside_those_of_a_labeler(store):
    """What others said of the prompts that somebody judged, however much else came later."""
    store.batch("ranking", tasks=2, training=2)
    for name, tasks in (("ann", 1), ("bob", 2), ("cid", 1)):
        for number in range(tasks):
            held = assign.claim(store.db, store[name], "ranking")
            answer = b'{"not_rankable": true, "why": "all wrong"}'
            labels.submit(store.db, store[name], held.id, f"k{number}", 0, answer, 5)
            store.clock.pass_(minutes=1)
    with store.db.read() as connection:
        (own,) = past.judgements(connection, labeler_id="l-ann")
        (other,) = past.judgements(connection, beside="l-ann", limit=1)
        assert (other.labeler_id, other.prompt_id) == ("l-bob", own.prompt_id)
        assert len(past.judgements(connection, beside="l-bob")) == 2
        assert past.judgements(connection, beside="l-ann", kind="toxicity") == []
        assert past.judgements(connection, beside="l-hal") == []


def test_responses_that_cannot_be_ranked_are_judged_too(store):
    store.batch("ranking")
    held = assign.claim(store.db, store["ann"], "ranking")
    answer = b'{"not_rankable": true, "why": "all wrong", "overall": {"B": 1}}'
    labels.submit(store.db, store["ann"], held.id, "k", 0, answer, 5)
    with store.db.read() as connection:
        (found,) = past.judgements(connection)
    assert found.ranking is None and found.ratings[0].response_id == found.order[1]


def test_no_reader_of_labelers_asks_for_policies(store, filled):
    """What runs when a labeler's page is made never names the column that tells who wrote what."""
    db, ann = store.db, store["ann"]
    said = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda c, cur, sql, *_: said.append(sql))
    held = assign.claim(db, ann, "ranking") or filled["ann", 0]
    assign.work(db, held), past.latest(db, ann, held.id), past.history(db, ann)
    past.begun(db, ann), past.today(db, ann), assign.waiting(db, ann)
    do(store, "ann", filled["ann", 1], base=1)
    assert said and not [sql for sql in said if "policy" in sql or "sampling" in sql]


def test_the_history_page_is_one_statement(store, filled):
    said = []
    sa.event.listen(store.db.engine, "before_cursor_execute", lambda *_: said.append(1))
    past.history(store.db, store["ann"])
    assert len(said) <= 2  # BEGIN among them
