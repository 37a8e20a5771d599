"""Leases, resubmission, skips and two windows, in any order, with a clock that jumps.

A machine of hypothesis plays several labelers. It knows what each window shows, so it knows what
each request must give; after every step the whole database is held against what was promised.

    INSTIL_TIMES=10 pytest tests/labeling/test_leases.py -m slow      # 600 orders
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from instil.errors import InstilError
from instil.labeling import assign, labels, schema
from instil.labeling.assign import NotFound
from instil.labeling.labels import Stale

HOUR = 3_600_000
QUOTA = 2
ORDERS = 60 * int(os.environ.get("INSTIL_TIMES", "1"))


@dataclass
class Window:
    """An assignment as its labeler sees it; all its windows share what was handed in."""

    account: object
    held: assign.Assignment
    revision: int = 0
    skipped: bool = False
    sent: list = field(default_factory=list)  # (key, base, answer, what came of it)
    draft: tuple[int, bytes] | None = None


class Leases(RuleBasedStateMachine):
    """Three labelers, one held-out labeler, a lead; five tasks, one of them ann's own text."""

    def __init__(self, store) -> None:
        super().__init__()
        self.store, self.db = store, store.db
        name = str(next(store.numbers))
        self.ann, self.bob, self.cid = (store.person(f"{n}-{name}") for n in "abc")
        self.hal = store.person(f"h-{name}", pool="held-out")
        self.lead = store.person(f"l-{name}", role="lead")
        self.people = [self.ann, self.bob, self.cid, self.hal]
        self.tasks = [
            *store.batch("ranking", tasks=2, responses=3, training=QUOTA),
            *store.batch("ranking", responses=2, author=f"a-{name}", training=QUOTA),
            *store.batch("ranking", "evaluation", responses=2, training=1, held_out=QUOTA),
            *store.batch("ranking", "gold", responses=2, training=0),
        ]
        self.own = self.tasks[2]
        self.windows: list[Window] = []
        self.labels: dict[str, tuple] = {}  # id -> (assignment, revision, overall)
        self.hide(gold_share=0, repeat_share=0)
        key = assign.claim(self.db, self.lead, "ranking")
        self.windows.append(Window(self.lead, key))
        self.submit(0, 0, False, 0, 3)

    def teardown(self) -> None:
        with self.db.write() as connection:
            connection.execute(schema.batch.update().values(state="closed"))

    def window(self, which: int) -> Window:
        return self.windows[which % len(self.windows)]

    @rule(person=st.integers(0, 3), hours=st.sampled_from([0, 1, 4]))
    def claim(self, person, hours) -> None:
        account = self.people[person]
        held = assign.claim(self.db, account, "ranking", hours * HOUR)
        if held is None:
            return
        assert held.labeler_id == account.id and held.task_id in self.tasks
        assert not (held.task_id == self.own and account is self.ann)
        known = [window for window in self.windows if window.held.id == held.id]
        assert all(not w.revision and not w.skipped for w in known), "ended work was handed out"
        if not known:
            self.windows.append(Window(account, held))

    @rule(
        which=st.integers(0, 50),
        behind=st.integers(0, 2),
        again=st.booleans(),
        key=st.integers(0, 5),
        overall=st.integers(1, 7),
    )
    def submit(self, which, behind, again, key, overall) -> None:
        """From a window that is up to date or `behind`; or a request `again`, its reply lost."""
        if not self.windows:
            return
        window = self.window(which)
        if again and window.sent:
            name, base, answer, before = window.sent[key % len(window.sent)]
            assert self.send(window, name, base, answer) == before
            return
        base = max(window.revision - behind, 0)
        cards = assign.work(self.db, window.held).cards
        letters = [card.letter for card in cards]
        answer = json.dumps(
            {"tiers": [letters], "overall": dict.fromkeys(letters, overall)}
        ).encode()
        name = secrets.token_hex(8)
        if base != window.revision or window.skipped:
            with pytest.raises(Stale) as stale:
                self.send(window, name, base, answer)
            assert stale.value.revision == (1 if window.skipped else window.revision)
            return
        kept = self.send(window, name, base, answer)
        window.revision += 1
        assert kept.revision == window.revision
        window.sent.append((name, base, answer, kept))
        window.draft = None
        self.labels[kept.label_id] = (window.held.id, kept.revision, overall)

    def send(self, window, key, base, answer):
        return labels.submit(self.db, window.account, window.held.id, key, base, answer, 10)

    @rule(which=st.integers(0, 50))
    def submit_for_somebody_else(self, which) -> None:
        window = self.window(which)
        other = next(one for one in self.people if one is not window.account)
        with pytest.raises(NotFound):
            labels.submit(self.db, other, window.held.id, "k" * 8, 0, b"{}", 0)

    @rule(which=st.integers(0, 50))
    def skip(self, which) -> None:
        window = self.window(which)
        if window.revision:
            with pytest.raises(Stale):
                labels.skip(self.db, window.account, window.held.id, "k", "unclear")
            return
        key = secrets.token_hex(8)
        for _ in range(2):  # the second is the first once more
            labels.skip(self.db, window.account, window.held.id, key, "unclear")
        window.skipped = True

    @rule(which=st.integers(0, 50))
    def take_back(self, which) -> None:
        window = self.window(which)
        try:
            held = labels.take_back(self.db, window.account, window.held.id, HOUR)
        except InstilError:
            return
        assert window.skipped and held.task_id == window.held.task_id and held.id != window.held.id
        if all(known.held.id != held.id for known in self.windows):
            assert held.order == window.held.order
            self.windows.append(Window(window.account, held, draft=window.draft))
            window.draft = None

    @rule(which=st.integers(0, 50), behind=st.integers(0, 1), number=st.integers())
    def save_draft(self, which, behind, number) -> None:
        window = self.window(which)
        version, content = window.draft or (0, b"")
        new = b'{"number": %d}' % number
        base = version - behind
        if window.skipped or (window.draft and behind and new != content):
            with pytest.raises(Stale):
                labels.save_draft(self.db, window.account, window.held.id, base, new, HOUR)
            return
        if window.draft and behind:  # the same content again: its reply was lost
            base = version - 1
        saved = labels.save_draft(self.db, window.account, window.held.id, max(base, 0), new, HOUR)
        window.draft = (saved, new)

    @rule(hours=st.sampled_from([-30, -1, 1, 3, 5, 48]))
    def time_passes_or_jumps(self, hours) -> None:
        self.store.clock.pass_(hours=hours)

    @rule(gold=st.booleans(), repeat=st.booleans())
    def hidden_work_comes_and_goes(self, gold, repeat) -> None:
        self.hide(gold_share=int(gold), repeat_share=int(repeat), repeat_after_ms=0)

    def hide(self, **values) -> None:
        with self.db.write() as connection:
            connection.execute(
                schema.setting.delete().where(schema.setting.c.name.in_(list(values)))
            )
            for name, value in values.items():
                connection.execute(schema.setting.insert().values(name=name, value=str(value)))

    @rule(which=st.integers(0, 50))
    def release(self, which) -> None:
        try:
            assign.release(self.db, self.lead, self.window(which).held.id)
        except NotFound:
            return

    @invariant()
    def all_is_as_it_was_acknowledged(self) -> None:
        with self.db.read() as connection:
            rows = connection.execute(
                sa.select(schema.label).where(schema.label.c.task_id.in_(self.tasks))
            ).all()
            seats = connection.execute(
                sa.select(schema.seat).where(schema.seat.c.task_id.in_(self.tasks))
            ).all()
            drafts = dict(
                connection.execute(
                    sa.select(schema.draft.c.assignment_id, schema.draft.c.content).where(
                        schema.draft.c.assignment_id.in_([w.held.id for w in self.windows])
                    )
                ).all()
            )
        skips = {row.assignment_id for row in rows if row.status == "skipped"}
        kept = {row.id: row for row in rows if row.status != "skipped"}
        # nothing that was acknowledged is lost or changed, and nothing is there twice
        assert set(kept) == set(self.labels)
        for label_id, (assignment_id, revision, overall) in self.labels.items():
            row = kept[label_id]
            assert (row.assignment_id, row.revision) == (assignment_id, revision)
            assert {r["overall"] for r in json.loads(row.payload)["ratings"]} == {overall}
            assert row.elapsed_ms >= 0
        assert skips == {window.held.id for window in self.windows if window.skipped}
        for window in self.windows:
            content = window.draft[1].decode() if window.draft else None
            assert drafts.get(window.held.id) == content
        # the quota holds, and each seat that is done has one label that filled it
        first = [row for row in kept.values() if row.revision == 1]
        accepted = [row for row in first if row.status == "accepted"]
        counts = Counter((row.task_id, row.pool) for row in accepted)
        assert max(counts.values(), default=0) <= QUOTA
        assert Counter(row.seat_id for row in first if row.status != "surplus") == Counter(
            seat.id for seat in seats if seat.state == "done"
        )
        # one labeler fills one seat of a task, and holds one
        twice = Counter((row.task_id, row.labeler_id, row.status) for row in accepted)
        assert max(twice.values(), default=0) <= 1
        held = Counter((seat.task_id, seat.labeler_id) for seat in seats if seat.state == "held")
        assert max(held.values(), default=0) <= 1
        # who must not train does not, and nobody judges an own text
        for row in [*rows, *seats]:
            assert row.purpose != "training" or row.pool == "training"
            assert not (row.task_id == self.own and row.labeler_id == self.ann.id)
        assert {row.pool for row in rows if row.labeler_id == self.hal.id} <= {"held-out"}


def play(store, examples: int) -> None:
    run_state_machine_as_test(
        lambda: Leases(store),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_leases_in_any_order(store):
    play(store, 8)


@pytest.mark.slow
def test_leases_in_many_orders(small):
    play(small, ORDERS)
