"""Is every rank still there? When one is gone the run ends, and one line says which and where.

A rank that is killed leaves the others waiting in a collective, with some backends for ever. So
every rank has a thread that writes a sign of life into the store that they share, once a second;
rank 0 reads the signs of all, the others read that of rank 0. Whoever ends the run first says why,
the others follow in silence. Nothing is lost by that: a run can be killed at any time.

A sign tells three things apart: dead or frozen (the signs stop), at work, and busy with something
that keeps the others waiting and may keep this thread from running (loading, writing a checkpoint).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

SECOND = 1.0
"""Between two signs of life."""
SILENCE = 20.0
"""Seconds without a sign after which a rank at work is taken for dead. torchrun, too, ends the
ranks that are left on a machine, 30 seconds after one has died there."""
SHORT_SILENCE = 5.0
"""The same when a collective has failed already, so that some rank must be gone."""
HUNG = 1800.0
"""Seconds that a rank may keep the others waiting while it gives signs of life."""
GRACE = 3.0
"""Seconds that are left to a rank to end by itself."""


class Store(Protocol):
    """The part of torch.distributed's stores that is used here."""

    def set(self, key: str, value: str) -> None: ...
    def add(self, key: str, amount: int) -> int: ...
    def check(self, keys: list[str]) -> bool: ...
    def multi_get(self, keys: list[str]) -> Sequence[bytes]: ...


@contextmanager
def deaf() -> Iterator[None]:
    """Ignore the signals that nobody waits for: torchrun sends them as soon as one rank has ended,
    and the others still have to say why. (While a run is open, they ask it to stop.)"""
    try:
        before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch:
    """This rank's signs of life, and its eye on those of the others. All ranks must have made
    theirs before one of them calls `start`."""

    def __init__(self, store: Store, rank: int, ranks: int) -> None:
        self.store, self.rank, self.ranks = store, rank, ranks
        self.step: int | None = None
        """The step that the ranks are in; None before the first."""
        self.pulse = 0
        """How often this rank met the others; the same for all when nobody is late."""
        self._busy = self._over = self._lost = False
        self._signs = 0
        self._stopped = threading.Event()
        self._heard: dict[int, tuple[str, float]] = {}
        self._moved: dict[int, tuple[int, float]] = {}
        self._sign()

    def start(self) -> None:
        """Begin to write and to read signs."""
        threading.Thread(target=self._run, name="instil watch", daemon=True).start()

    def stop(self) -> None:
        """This rank has done its part; nobody shall wait for its signs."""
        self._over = True
        self._sign()
        self._stopped.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While something runs that keeps the others waiting."""
        self._busy = True
        self._sign()
        try:
            yield
        finally:
            self._busy = False
            self._sign()

    def claim(self) -> bool:
        """Whether this rank is the first that ends the run, so that it has to say why."""
        first = self.store.add("end", 1) == 1
        if first:
            self._stopped.set()
        return first

    def lost(self) -> None:
        """A collective failed here: wait until it is known who is gone, which ends this process.
        Returns when nobody is."""
        self._lost = True
        self._stopped.wait(SHORT_SILENCE + 4 * SECOND)

    def where(self) -> str:
        """The step, in words."""
        return "before the first step" if self.step is None else f"in step {self.step}"

    def _sign(self) -> None:
        state = "over" if self._over else "busy" if self._busy or self.step is None else "work"
        self._signs += 1
        self.store.set(f"sign/{self.rank}", f"{self._signs} {self.pulse} {state}")

    def _run(self) -> None:
        while not self._stopped.wait(SECOND):
            try:
                self._sign()
                if not self.store.check(["end"]):
                    gone = self.look()
                    if not gone:
                        continue
                    if self.store.add("end", 1) == 1:
                        self._exit(gone)
                gone = ""  # another rank says why; the main thread has a while to end by itself
            except RuntimeError:
                gone = f"the machine {os.environ.get('MASTER_ADDR')}, which rank 0 is on, is gone"
            if self._stopped.wait(GRACE):
                return
            self._exit(gone if os.environ.get("LOCAL_RANK", "0") == "0" else "")

    def look(self) -> str:
        """Who is gone, in words; "" when nobody is."""
        every = self.rank == 0 or self._lost
        others = [r for r in range(self.ranks if every else 1) if r != self.rank]
        now, silent, late = time.monotonic(), [], []
        signs = self.store.multi_get([f"sign/{rank}" for rank in others]) if others else []
        for rank, sign in zip(others, map(bytes.decode, signs), strict=True):
            _, pulse, state = sign.split()
            if self._heard.get(rank, ("", 0.0))[0] != sign:
                self._heard[rank] = sign, now
            if self._moved.get(rank, (-1, 0.0))[0] != int(pulse):
                self._moved[rank] = int(pulse), now
            quiet = now - self._heard[rank][1]
            if state == "work" and quiet > (SHORT_SILENCE if self._lost else SILENCE):
                silent.append((0, rank))
            elif state == "busy" and self._lost and quiet > SHORT_SILENCE:
                silent.append((1, rank))
            elif state != "over" and now - self._moved[rank][1] > HUNG:
                late.append((int(pulse), rank))
        if silent:
            return (
                f"rank {min(silent)[1]} of {self.ranks} gives no sign of life: it was killed (as "
                "systems do, without a word, when memory runs out), it is frozen, or its machine "
                "is gone"
            )
        first = max([self.pulse, *(pulse for pulse, _ in self._moved.values())])
        if late and min(late)[0] < first:
            return (
                f"rank {min(late)[1]} of {self.ranks} has kept the others waiting for "
                f"{HUNG / 60:.0f} minutes: it hangs"
            )
        return ""

    def _exit(self, why: str) -> NoReturn:
        if why:
            print(
                f"instil: {self.where()}: {why}; the same command goes on from the last checkpoint",
                file=sys.__stderr__,
                flush=True,
            )
        os._exit(1)
