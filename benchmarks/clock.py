"""A stopwatch for a machine whose speed changes while it measures.

A shared virtual machine is twice as fast at one minute as at another, and nothing inside it shows
why. So at every `tick` a square matrix product is timed (and its own time left out), and the time
since the last tick also counts in `norm`: the seconds that a machine would have taken on which this
product always runs at `reference` GFLOP/s. `norm` repeats within a few percent where `seconds` does
not. On a CPU the product is 2048^3 in fp32 and the reference 150 GFLOP/s, as on the peer's side; on
a GPU it is 8192^3 in bf16 and the reference the rate found there at the start.

A `Reading` also knows how much CPU time other processes took, so that disturbed windows can be told
from clean ones.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CPU_REFERENCE_GFLOPS = 150.0

Phases = dict[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """All values count from some start; only differences mean something."""

    seconds: float
    norm: float
    wall: float
    """Seconds, the clock's own matrix products included."""
    others: float
    """CPU seconds of all other processes."""


@dataclass(frozen=True, slots=True)
class Window:
    """One measured piece of work."""

    seconds: float
    norm: float
    foreign: float
    """Cores used by other processes."""
    phases: Phases
    """Normalised seconds of its parts, where it has some."""

    @classmethod
    def between(cls, start: Reading, end: Reading, phases: Phases) -> Window:
        """What happened between two readings."""
        return cls(
            seconds=end.seconds - start.seconds,
            norm=end.norm - start.norm,
            foreign=max(0.0, (end.others - start.others) / max(end.wall - start.wall, 1e-3)),
            phases=phases,
        )


class Clock:
    """Seconds, raw and normalised, of what happens between its ticks."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._size, dtype = (2048, torch.float32) if on_cpu else (8192, torch.bfloat16)
        shape = (self._size, self._size)
        self._a, self._b = (torch.randn(shape, device=self.device, dtype=dtype) for _ in range(2))
        self._out = torch.empty(shape, device=self.device, dtype=dtype)
        self._seconds = self._norm = 0.0
        rates = [self.gflops() for _ in range(11)][1:]
        self.reference = CPU_REFERENCE_GFLOPS if on_cpu else statistics.median(rates)
        self._rate, self._last = rates[-1], time.perf_counter()

    def gflops(self) -> float:
        """The rate of one matrix product now."""
        synchronize(self.device)
        start = time.perf_counter()
        with torch.no_grad():
            torch.mm(self._a, self._b, out=self._out)
        synchronize(self.device)
        return 2 * self._size**3 / (time.perf_counter() - start) / 1e9

    def tick(self) -> Reading:
        """Everything since the last tick is counted; the product timed here is not."""
        synchronize(self.device)
        now = time.perf_counter()
        rate = self.gflops()
        piece = now - self._last
        self._seconds += piece
        self._norm += piece * (rate + self._rate) / 2 / self.reference
        self._rate, self._last = rate, time.perf_counter()
        return Reading(self._seconds, self._norm, self._last, _cpu_seconds_of_others())


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    clock: Clock,
    window: Callable[[], Phases],
    *,
    repeats: int,
    max_foreign: float,
    patience: float,
    until: float,
    report: Callable[[str], None],
) -> list[Window]:
    """Windows until `repeats` of them were undisturbed, at most twice as many in all.

    window    does the work once, ticking where it likes, and returns the seconds of its phases
    patience  seconds to wait for a quiet machine before each window
    until     time.monotonic() after which no further window begins
    """
    found: list[Window] = []
    while sum(w.foreign <= max_foreign for w in found) < repeats and len(found) < 2 * repeats:
        if found and time.monotonic() > until:
            break
        _wait_quiet(patience)
        start = clock.tick()
        phases = window()
        one = Window.between(start, clock.tick(), phases)
        found.append(one)
        report(
            f"window: {one.seconds:.3f} s, normalised {one.norm:.3f} s, others used "
            f"{one.foreign:.2f} cores"
        )
    return found


def summary(windows: Sequence[Window], max_foreign: float, reference: float) -> dict[str, Any]:
    """Median, least and greatest of the undisturbed windows, or of all when all were disturbed."""
    clean = [w for w in windows if w.foreign <= max_foreign]
    used = clean or list(windows)
    fields: dict[str, Any] = {}
    for name, values in (
        ("seconds", [w.seconds for w in used]),
        ("seconds_norm", [w.norm for w in used]),
    ):
        fields[name] = statistics.median(values)
        fields[f"{name}_min"], fields[f"{name}_max"] = min(values), max(values)
    if used[0].phases:
        fields["phases_seconds_norm"] = {
            name: round(statistics.median(w.phases[name] for w in used), 3)
            for name in used[0].phases
        }
    return fields | {
        "windows": len(used),
        "windows_clean": len(clean),
        "windows_all": [round(w.seconds, 4) for w in windows],
        "windows_norm": [round(w.norm, 4) for w in windows],
        "machine_gflops": [round(reference * w.norm / w.seconds, 1) for w in windows],
        "foreign_cpu": [round(w.foreign, 3) for w in windows],
    }


def _cpu_seconds_of_others() -> float:
    """CPU time that the machine has spent on all processes but this one and its children."""
    names = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, names)
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    mine = os.times()
    return busy - (mine.user + mine.system + mine.children_user + mine.children_system)


def _wait_quiet(patience: float, calm: float = 0.1) -> None:
    """Sleep until others use less than `calm` cores for two seconds in a row."""
    give_up, quiet = time.monotonic() + patience, 0
    while quiet < 2 and time.monotonic() < give_up:
        before = _cpu_seconds_of_others()
        time.sleep(1)
        quiet = quiet + 1 if _cpu_seconds_of_others() - before < calm else 0
