"""A live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest

from instil import progress
from instil.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand: clock[0] += seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_plain_line_every_few_seconds_and_at_the_end(clock, capsys):
    with Progress("sft", 4, ("loss", "eval/loss")) as bar:
        bar.update(1, {"loss": 2.34567, "lr": 1})
        clock[0] += progress.EVERY
        bar.update(2, {"loss": 2.34567, "lr": 1})
        bar.update(3, {"loss": 1.0})
        bar.update(4, {"loss": 0.5, "eval/loss": 123456.0})
    shown = capsys.readouterr()
    assert shown.out == ""  # standard output is for data
    assert shown.err.splitlines() == [
        "sft  2/4  loss 2.346",
        "sft  4/4  loss 0.5  eval/loss 1.235e+05",
    ]


def test_nan_is_shown(clock, capsys):
    with Progress("ppo", 1, ("val/explained_var",)) as bar:
        bar.update(1, {"val/explained_var": float("nan")})
    assert capsys.readouterr().err == "ppo  1/1  val/explained_var nan\n"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("rm", 2, ("loss",)) as bar:
        bar.update(1, {"loss": 0.25})
        bar.update(2, {"loss": 0.125})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rm" in shown.err and "2/2" in shown.err and "loss 0.125" in shown.err


def test_the_bar_goes_away_when_the_loop_breaks(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Progress("rm", 2, ())
    with suppress(KeyboardInterrupt), bar:
        raise KeyboardInterrupt
    assert not bar._bar.live.is_started
