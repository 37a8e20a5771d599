"""Who is handed what, on both engines: races, leases, pools, gold and repeats."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import assign, labels, past, schema
from instil.labeling.assign import NotFound

HOUR = 3_600_000


def answer(cards) -> bytes:
    """A ranking in the order of the screen."""
    letters = [card.letter for card in cards]
    return json.dumps(
        {"tiers": [[x] for x in letters], "overall": dict.fromkeys(letters, 4)}
    ).encode()


def do(db, account, held):
    """Hand in a ranking."""
    shown = assign.work(db, held)
    key = secrets.token_hex(8)
    return labels.submit(db, account, held.id, key, 0, answer(shown.cards), 1000)


def rows(db, query):
    with db.read() as connection:
        return connection.execute(query).all()


def set_to(db, **settings):
    with db.write() as connection:
        for name, value in settings.items():
            connection.execute(schema.setting.delete().where(schema.setting.c.name == name))
            connection.execute(schema.setting.insert().values(name=name, value=str(value)))


def set_state(db, table, row_id, state):
    with db.write() as connection:
        connection.execute(table.update().where(table.c.id == row_id).values(state=state))


def race(store, rounds):
    """In each round a task, 3 seats, and 12 labelers who claim and hand in at once.

    Some leases are over as soon as they begin, so that others take the seat meanwhile.
    """
    people, quota = [store.person(f"racer{n}") for n in range(12)], 3
    db, kept = store.db, Counter()
    with ThreadPoolExecutor(len(people)) as threads:
        for number in range(rounds):
            (task,) = store.batch("ranking", training=quota)
            start, random = threading.Barrier(len(people)), Random(number)
            leases = [random.choice([0, HOUR]) for _ in people]

            def one(account, lease, start=start):
                start.wait()
                held = assign.claim(db, account, "ranking", lease)
                return do(db, account, held).status if held else "none"

            told = Counter(threads.map(one, people, leases))
            found = rows(db, sa.select(schema.label).where(schema.label.c.task_id == task))
            done = Counter(label.status for label in found)
            assert done["accepted"] == told["kept"] == quota, (number, done, told)
            assert done["surplus"] == told["late"] and len(found) == told["kept"] + told["late"]
            seats = Counter(label.seat_id for label in found if label.status == "accepted")
            assert set(seats.values()) == {1}
            assert len({label.labeler_id for label in found}) == len(found)
            kept += told
    return kept


def test_twelve_labelers_never_exceed_the_quota(store):
    told = race(store, 15)
    assert told["kept"] == 45 and told["none"]


@pytest.mark.slow
def test_the_quota_holds_in_many_races(store):
    races = 25 * int(os.environ.get("INSTIL_TIMES", "1"))
    told = race(store, races)
    assert told["kept"] == 3 * races and told["late"] and told["none"]


def test_one_labeler_in_many_windows_holds_one_task(store):
    store.batch("ranking", tasks=20)
    with ThreadPoolExecutor(12) as threads:
        held = list(
            threads.map(lambda _: assign.claim(store.db, store["ann"], "ranking"), range(12))
        )
    assert len({one.id for one in held}) == 1


def test_the_same_task_until_it_is_done(store):
    store.batch("ranking", tasks=2, training=2)
    db, ann = store.db, store["ann"]
    assert assign.waiting(db, ann)["ranking"] == 2
    first = assign.claim(db, ann, "ranking")
    assert assign.waiting(db, ann)["ranking"] == 2  # the other seat of it is for others
    store.clock.pass_(hours=5)  # over, and nobody took it: it is held again, by the same token
    again = assign.claim(db, ann, "ranking")
    assert (again.id, again.order) == (first.id, first.order)
    assert again.expires_at == first.expires_at + 5 * HOUR
    do(db, ann, again)
    second = assign.claim(db, ann, "ranking")
    assert second.task_id != first.task_id
    assert assign.find(db, ann, first.id).expires_at is None
    do(db, ann, second)
    assert assign.claim(db, ann, "ranking") is None


def test_what_waits_is_counted_so_far(small, monkeypatch):
    monkeypatch.setattr(assign, "COUNTED", 4)
    db, ann = small.db, small["ann"]
    small.batch("ranking", "gold", tasks=3, training=0)
    for _ in range(3):
        do(db, small["lead"], assign.claim(db, small["lead"], "ranking"))
    small.batch("ranking", tasks=6, training=3)
    small.batch("toxicity", tasks=3, training=3)
    set_to(db, gold_share=1.0, repeat_share=0.0)
    seen = []
    while held := assign.claim(db, ann, "ranking"):
        found = assign.waiting(db, ann)
        seen.append(found["ranking"])
        assert found["toxicity"] == 3
        do(db, ann, held)
    # three gold tasks stand in for three of the six, and the last of all says 1 as long as it lasts
    assert seen == [4, 4, 4, 3, 2, 1, 1, 1, 1]


def test_a_seat_whose_time_is_over_is_handed_on(store):
    (task,) = store.batch("ranking")
    db, ann, bob = store.db, store["ann"], store["bob"]
    lost = assign.claim(db, ann, "ranking")
    assert assign.claim(db, bob, "ranking") is None
    store.clock.pass_(hours=4)
    taken = assign.claim(db, bob, "ranking")
    assert (taken.task_id, taken.seat_id) == (task, lost.seat_id) and taken.id != lost.id
    with db.write() as connection:
        assert not assign.extend(connection, lost.id, db.now(), HOUR)
        assert assign.extend(connection, taken.id, db.now(), HOUR)
    assert assign.find(db, ann, lost.id).expires_at is None
    assert assign.claim(db, ann, "ranking") is None
    assert rows(db, sa.select(schema.seat.c.epoch)) == [(2,)]


def test_somebody_elses_work_is_not_found(store):
    store.batch("ranking")
    held = assign.claim(store.db, store["ann"], "ranking")
    for account, name in ((store["bob"], held.id), (store["ann"], "x"), (store["admin"], held.id)):
        with pytest.raises(NotFound):
            assign.find(store.db, account, name)
        with pytest.raises(NotFound):
            labels.submit(store.db, account, name, "key", 0, b"{}", 0)
        with pytest.raises(NotFound):
            labels.save_draft(store.db, account, name, 0, b"{}")
        with pytest.raises(NotFound):
            labels.skip(store.db, account, name, "key", "unclear")
        with pytest.raises(NotFound):
            past.latest(store.db, account, name)
        with pytest.raises(NotFound):
            labels.take_back(store.db, account, name)


def test_pools_are_kept_apart(store):
    training = store.batch("ranking", tasks=2, training=1)
    evaluation = store.batch("ranking", "evaluation", tasks=2, training=0, held_out=1)
    db = store.db
    assert assign.claim(db, store["hal"], "ranking").task_id in evaluation
    assert assign.claim(db, store["ann"], "ranking").task_id in training
    assert assign.claim(db, store["kim"], "ranking") is None
    assert assign.claim(db, store["hal"], "ranking").purpose == "evaluation"


def test_the_database_itself_refuses_a_held_out_seat_for_training(store):
    with pytest.raises(sa.exc.IntegrityError):
        store.batch("ranking", "training", training=0, held_out=1)


def test_only_the_kinds_that_an_account_is_given(store):
    store.batch("toxicity")
    db, ann = store.db, store["ann"]
    with db.write() as connection:
        connection.execute(
            schema.labeler.update().where(schema.labeler.c.id == ann.id).values(kinds='["ranking"]')
        )
    assert assign.waiting(db, ann) == {"ranking": 0}
    with pytest.raises(InstilError, match="not among the kinds"):
        assign.claim(db, ann, "toxicity")
    with pytest.raises(InstilError, match="not given work"):
        assign.claim(db, store["viewer"], "toxicity")
    with db.write() as connection:
        connection.execute(
            schema.labeler.update().where(schema.labeler.c.id == ann.id).values(active=False)
        )
    with pytest.raises(InstilError, match="not given work"):
        assign.claim(db, ann, "ranking")


def test_nobody_is_handed_an_own_text(store):
    own = set(store.batch("ranking", tasks=10, author="ann"))
    gold = set(store.batch("ranking", "gold", tasks=10, training=0, author="ann"))
    db, ann, bob = store.db, store["ann"], store["bob"]
    for _ in range(10):
        key = assign.claim(db, store["lead"], "ranking")
        assert key.task_id in gold
        do(db, store["lead"], key)
    set_to(db, gold_share=0.5)
    others = store.batch("ranking", tasks=10)
    seen = set()
    while held := assign.claim(db, ann, "ranking"):
        do(db, ann, held)
        seen.add(held.task_id)
    assert seen == set(others)
    assert assign.claim(db, bob, "ranking").task_id in own | gold
    assert assign.waiting(db, ann)["ranking"] == 0


def test_closed_batches_and_retired_tasks_are_not_handed_out(store):
    first, second = store.batch("ranking", tasks=2)
    db, ann, bob = store.db, store["ann"], store["bob"]
    held = assign.claim(db, ann, "ranking")
    assert held.task_id == first
    set_state(db, schema.batch, "b0", "paused")
    assert assign.claim(db, ann, "ranking") is None and past.begun(db, ann) == []
    assert assign.claim(db, bob, "ranking") is None
    set_state(db, schema.batch, "b0", "open")
    assert assign.claim(db, ann, "ranking").id == held.id
    set_state(db, schema.task, second, "retired")
    assert assign.claim(db, bob, "ranking") is None
    set_state(db, schema.task, first, "retired")
    assert assign.claim(db, ann, "ranking") is None
    assert do(db, ann, held).status == "kept"  # what was done is kept


def test_batches_of_a_smaller_priority_number_go_first(store):
    store.batch("ranking")
    (urgent,) = store.batch("ranking")
    with store.db.write() as connection:
        seat = schema.seat
        connection.execute(seat.update().where(seat.c.task_id == urgent).values(priority=-1))
    assert assign.claim(store.db, store["ann"], "ranking").task_id == urgent


def test_the_order_is_kept_with_the_assignment(store):
    store.batch("ranking", responses=9, training=2)
    db = store.db
    ann, bob = (assign.claim(db, store[name], "ranking") for name in ("ann", "bob"))
    assert sorted(ann.order) == list(range(9)) and ann.order != bob.order
    assert assign.find(db, store["ann"], ann.id) == ann
    (card, *_) = assign.work(db, ann).cards
    assert card.letter == "A" and card.response_ids == (f"r0-0-{ann.order[0]}",)


def test_a_lead_takes_a_seat_back(store):
    store.batch("ranking")
    db, ann, bob = store.db, store["ann"], store["bob"]
    held = assign.claim(db, ann, "ranking")
    assign.release(db, store["lead"], held.id)
    assert assign.claim(db, bob, "ranking").task_id == held.task_id
    with pytest.raises(NotFound):
        assign.release(db, store["lead"], held.id)


def test_candidates_do_every_screening_task_once(store):
    store.batch("ranking", tasks=3)
    tasks = store.batch("ranking", "screening", tasks=4, training=0)
    db = store.db
    for name in ("kim", "lea"):
        account = store.accounts.get(name) or store.person(name, pool="candidate")
        assert assign.waiting(db, account)["ranking"] == 4
        seen = []
        while held := assign.claim(db, account, "ranking"):
            seen.append(held.task_id)
            do(db, account, held)
        assert seen == tasks
    found = Counter(rows(db, sa.select(schema.label.c.status, schema.label.c.pool)))
    assert found == {("screening", "candidate"): 8}
    assert assign.claim(db, store["ann"], "ranking").task_id not in tasks


def test_leads_give_the_keys_first(store):
    (work,) = store.batch("ranking")
    gold = store.batch("ranking", "gold", training=0)
    screening = store.batch("ranking", "screening", training=0)
    db, lead = store.db, store["lead"]
    assert assign.waiting(db, lead)["ranking"] == 3
    seen = []
    while held := assign.claim(db, lead, "ranking"):
        seen.append(held.task_id)
        do(db, lead, held)
    assert seen == [*gold, *screening, work]
    found = rows(db, sa.select(schema.label.c.task_id, schema.label.c.status))
    assert dict(found) == {gold[0]: "key", screening[0]: "key", work: "accepted"}


def test_gold_waits_for_its_key_and_for_other_work(store):
    gold = store.batch("ranking", "gold", training=0)
    (first, second) = store.batch("ranking", tasks=2)
    db, ann = store.db, store["ann"]
    set_to(db, gold_share=1, repeat_share=0)
    held = assign.claim(db, ann, "ranking")
    assert held.task_id == first  # no key yet
    do(db, ann, held)
    do(db, store["lead"], assign.claim(db, store["lead"], "ranking"))
    held = assign.claim(db, ann, "ranking")
    assert held.task_id == gold[0]
    do(db, ann, held)
    held = assign.claim(db, ann, "ranking")
    assert held.task_id == second
    do(db, ann, held)
    more = store.batch("ranking", "gold", training=0)
    key = assign.claim(db, store["lead"], "ranking")
    assert key.task_id in more
    do(db, store["lead"], key)
    assert assign.claim(db, ann, "ranking") is None  # alone it would be seen to be gold


def shares(store, tasks, gold_tasks, hours):
    """(status of each label of one labeler, in turn) who does all there is."""
    db, ann = store.db, store["ann"]
    store.batch("ranking", "gold", tasks=gold_tasks, training=0)
    for _ in range(gold_tasks):
        do(db, store["lead"], assign.claim(db, store["lead"], "ranking"))
    store.batch("ranking", tasks=tasks)
    while held := assign.claim(db, ann, "ranking"):
        do(db, ann, held)
        store.clock.pass_(hours=hours)
    label = schema.label
    own = sa.select(label.c.status).where(label.c.labeler_id == ann.id)
    return [status for (status,) in rows(db, own.order_by(label.c.created_at))]


@pytest.mark.slow
def test_one_in_twenty_five_is_gold_and_one_a_repeat(small):
    found = shares(small, tasks=300, gold_tasks=40, hours=2)
    done = Counter(found)
    assert done["accepted"] == 300
    for status in ("gold", "repeat"):  # binomial, six standard deviations
        assert abs(done[status] - 0.04 * len(found)) < 6 * (0.04 * 0.96 * len(found)) ** 0.5
    assert "repeat" not in found[:12]  # nothing was a day old
    seat = schema.seat
    repeats = sa.select(seat.c.task_id).where(seat.c.reason == "repeat")
    assert max(Counter(rows(small.db, repeats)).values()) == 1  # each at most once


@pytest.mark.slow
def test_a_labeler_is_not_told_what_is_hidden(small):
    db, ann = small.db, small["ann"]
    small.batch("ranking", "gold", tasks=20, training=0)
    for _ in range(20):
        do(db, small["lead"], assign.claim(db, small["lead"], "ranking"))
    small.batch("ranking", tasks=25)
    set_to(db, gold_share=0.3, repeat_share=0.3, repeat_after_ms=0)
    seat, heard, left = schema.seat, {}, []
    while True:
        left.append(assign.waiting(db, ann)["ranking"])
        held = assign.claim(db, ann, "ranking")
        if held is None:
            break
        assert assign.waiting(db, ann)["ranking"] == left[-1]
        ((reason,),) = rows(db, sa.select(seat.c.reason).where(seat.c.id == held.seat_id))
        told = [
            (held.kind, held.purpose, held.guideline_id, held.expires_at - held.claimed_at),
            [one.letter for one in assign.work(db, held).cards],
            [type(one).__name__ for one in past.begun(db, ann)],
            past.latest(db, ann, held.id),
        ]
        told.append(do(db, ann, held).status)
        told.append(past.latest(db, ann, held.id).status)
        last = past.history(db, ann, limit=1)[0]
        told.append((last.revision, last.skipped, last.late))
        heard.setdefault(reason, set()).add(repr(told))
        small.clock.pass_(seconds=1)
    assert set(heard) == {"quota", "gold", "repeat"}
    assert len(set.union(*heard.values())) == 1
    # the number that waits falls by one with each, and says 1 at the end, where nobody can count
    assert left[0] == 25 and left[-1] == 0
    fell = [a - b for a, b in pairwise(left)]
    assert set(fell[: left.index(1)]) == {1} and set(left[left.index(1) : -1]) == {1}


def test_gold_looks_like_the_evaluation_around_it(store):
    store.batch("ranking", "gold", training=0)
    db, hal = store.db, store["hal"]
    do(db, store["lead"], assign.claim(db, store["lead"], "ranking"))
    store.batch("ranking", "evaluation", training=0, held_out=1)
    set_to(db, gold_share=1)
    hidden = assign.claim(db, hal, "ranking")
    do(db, hal, hidden)
    plain = assign.claim(db, hal, "ranking")
    label = schema.label
    statuses = rows(db, sa.select(label.c.status).where(label.c.labeler_id == hal.id))
    assert statuses == [("gold",)]
    assert (hidden.purpose, hidden.guideline_id) == (plain.purpose, plain.guideline_id)
    assert hidden.purpose == "evaluation"


def test_a_repeat_is_shown_in_another_order(store):
    store.batch("ranking", responses=9, tasks=2)
    db, ann = store.db, store["ann"]
    set_to(db, gold_share=0, repeat_share=0, repeat_after_ms=0)
    first = assign.claim(db, ann, "ranking")
    do(db, ann, first)
    set_to(db, repeat_share=1)
    again = assign.claim(db, ann, "ranking")
    assert again.task_id == first.task_id and again.order != first.order
    assert do(db, ann, again).status == "kept"
    label = schema.label
    found = rows(db, sa.select(label.c.status).order_by(label.c.status))
    assert found == [("accepted",), ("repeat",)]


@pytest.mark.parametrize("kind", ["prompt", "demonstration"])
def test_what_labelers_write_is_always_wanted(small, kind):
    small.batch(kind, tasks=12)
    db, ann = small.db, small["ann"]
    set_to(db, gold_share=0.5, repeat_share=0.5, repeat_after_ms=0)
    while held := assign.claim(db, ann, kind):
        text = json.dumps({"text": "Why?"} | ({"style": "plain"} if kind == "prompt" else {}))
        labels.submit(db, ann, held.id, secrets.token_hex(8), 0, text.encode(), 1000)
    assert set(rows(db, sa.select(schema.label.c.status))) == {("accepted",)}
    assert len(rows(db, sa.select(schema.label.c.id))) == 12


def test_a_claim_is_a_dozen_statements_at_most(store):
    store.batch("ranking", "gold", training=0)
    db, ann = store.db, store["ann"]
    do(db, store["lead"], assign.claim(db, store["lead"], "ranking"))
    store.batch("ranking", tasks=3)
    set_to(db, gold_share=0.5, repeat_share=0.5, repeat_after_ms=0)
    counts = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *_: counts.append(1))
    while True:
        counts.clear()
        held = assign.claim(db, ann, "ranking")
        assert len(counts) <= 13, counts  # BEGIN among them
        if held is None:
            break
        do(db, ann, held)
