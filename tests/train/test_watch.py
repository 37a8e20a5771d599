"""Who is gone is found out from the signs of life, and one rank says so."""

from __future__ import annotations

import os
import signal

import pytest
from torch.distributed import HashStore

from instil.train import watch
from instil.train.watch import HUNG, SHORT_SILENCE, SILENCE, Watch, deaf


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])

    def wait(seconds: float, *alive: Watch) -> None:
        """Let time pass in which only some ranks give signs."""
        now[0] += seconds
        for one in alive:
            one._sign()

    return wait


@pytest.fixture
def three() -> list[Watch]:
    """Three ranks in step 7."""
    store = HashStore()
    ranks = [Watch(store, rank, 3) for rank in range(3)]
    for one in ranks:
        one.step = 7
        one._sign()
    return ranks


def test_rank_0_finds_the_one_that_is_silent(three, clock):
    assert three[0].look() == ""
    clock(SILENCE - 1, *three[:2])
    assert three[0].look() == ""
    clock(2, *three[:2])
    assert three[0].look().startswith("rank 2 of 3 gives no sign of life")
    assert three[0].where() == "in step 7"


def test_the_others_find_rank_0(three, clock):
    three[1].look()
    clock(SILENCE + 1, three[1])
    assert three[1].look().startswith("rank 0 of 3")


def test_a_busy_rank_may_be_silent_until_a_collective_fails(three, clock):
    with three[2].busy():
        three[0].look()
        clock(SILENCE + 1, *three[:2])
        assert three[0].look() == ""
        three[0]._lost = True
        assert three[0].look().startswith("rank 2")
    three[0]._lost = False
    assert three[0].look() == ""


def test_after_a_failed_collective_a_silent_rank_is_found_sooner(three, clock):
    three[1]._lost = True
    three[1].look()
    clock(SHORT_SILENCE + 1, three[0], three[1])
    assert three[1].look().startswith("rank 2 of 3")


def test_before_the_first_step_loading_may_take_its_time(clock):
    store = HashStore()
    ranks = [Watch(store, rank, 2) for rank in range(2)]
    ranks[0].look()
    clock(SILENCE + 1, ranks[0])
    assert ranks[0].look() == ""
    assert ranks[0].where() == "before the first step"


def test_a_rank_that_keeps_the_others_waiting_hangs(three, clock):
    three[0].look()
    for one in three[:2]:
        one.pulse += 1
    clock(HUNG - 1, *three)
    assert three[0].look() == ""
    clock(2, *three)
    assert three[0].look() == (
        f"rank 2 of 3 has kept the others waiting for {HUNG / 60:.0f} minutes: it hangs"
    )


def test_nobody_hangs_while_all_wait_for_the_same(three, clock):
    three[0].look()
    clock(HUNG + 1, *three)
    assert three[0].look() == ""


def test_a_rank_that_is_done_is_not_missed(three, clock):
    three[2].stop()
    three[0].look()
    clock(HUNG + 1, *three[:2])
    assert three[0].look() == ""


def test_one_rank_only_says_why(three):
    assert [one.claim() for one in three] == [True, False, False]


def test_the_silent_thread_ends_the_process_with_one_line(three, monkeypatch, capfd):
    ended = []

    def leave(status: int) -> None:
        ended.append(status)
        raise SystemExit

    monkeypatch.setattr(watch.os, "_exit", leave)
    monkeypatch.setattr(watch, "SECOND", 0.01)
    monkeypatch.setattr(watch, "GRACE", 0.01)
    monkeypatch.setattr(three[0], "look", lambda: "rank 2 of 3 is gone")
    for one in three[:2]:
        with pytest.raises(SystemExit):
            one._run()
    assert ended == [1, 1]
    said = capfd.readouterr().err
    assert said.startswith("instil: in step 7: rank 2 of 3 is gone; ")
    assert said.count("\n") == 1


def test_signals_wait_for_nobody_while_a_run_ends():
    with deaf():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
