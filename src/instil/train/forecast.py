"""What a run takes of each device's memory, as a sum of parts; a table of it, and advice.

What is held all the time and the largest phase of a step are there at one time. On a CPU the
allocator keeps free blocks below 32 MiB (machine.settle), so the peak of these and that of larger
ones add up even when they come at different times; on a GPU one may take the place of the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from instil.train.memory import MemoryConfig

MARGIN = 0.15
"""What is lost between blocks that do not fit each other, as a share of all that tensors take; it
was chosen, with `dry_run.KERNELS`, on the workloads of benchmarks/memory.py."""
RANK = 16
"""A usual rank of adapters."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes on each device."""

    device: str
    room: int
    """What a process may take."""
    processes: int = 1
    base: int
    """The process before it has a tensor."""
    held: Mapping[str, int]
    """All the time."""
    gathered: int = 0
    """Where weights are in parts: the whole ones of one model."""
    phases: Mapping[str, Mapping[str, int]]
    """Of a step, one after the other."""
    kept: int = 0
    """Freed in one phase and of no use in another."""

    @property
    def tensors(self) -> int:
        """What is held at the most at one time."""
        most = max(sum(parts.values()) for parts in self.phases.values())
        return sum(self.held.values()) + self.gathered + most + self.kept

    @property
    def margin(self) -> int:
        """What comes on top."""
        return round(MARGIN * self.tensors)

    @property
    def total(self) -> int:
        """The most at one time."""
        return self.base + self.tensors + self.margin

    def scaled(self, factors: Mapping[str, float]) -> Forecast:
        """The same with some parts, by name, so many times as large."""

        def times(parts: Mapping[str, int]) -> dict[str, int]:
            return {name: round(size * factors.get(name, 1)) for name, size in parts.items()}

        phases = {phase: times(parts) for phase, parts in self.phases.items()}
        return replace(self, held=times(self.held), phases=phases)

    def over(self, processes: int) -> Forecast:
        """The same with so many processes in the place of one: whatever is held and gradients are
        in parts (FSDP2), and whole weights are gathered of one model at a time, the largest."""
        if processes == 1:
            return self
        parts = self.scaled(dict.fromkeys((*self.held, "gradients"), 1 / processes))
        whole = max(size for name, size in self.held.items() if name.startswith("weights"))
        return replace(parts, processes=processes, gathered=whole)


@dataclass(frozen=True)
class Setting:
    """What advice depends on."""

    config: MemoryConfig
    tokens: int
    """Of the largest pass."""
    layers: int
    width: int
    spared: Sequence[str]
    """Parts that are not there with adapters."""


def table(forecast: Forecast) -> str:
    """A forecast for people."""
    rows = [("the process itself", forecast.base), *forecast.held.items()]
    rows += [("whole weights of one model at a time", forecast.gathered)]
    for phase, parts in forecast.phases.items():
        rows += [(f"{phase}: {name}", size) for name, size in parts.items()]
    rows += [
        ("freed, but kept by the allocator", forecast.kept),
        ("lost between blocks, about", forecast.margin),
        ("in all, of the phases the largest", forecast.total),
        ("the machine has", forecast.room),
    ]
    who = f"each of {forecast.processes} processes" if forecast.processes > 1 else "the process"
    fits = "fits" if forecast.total <= forecast.room else "does not fit"
    lines = [f"{name:44} {_mib(size):>13}" for name, size in rows if size]
    return "\n".join([f"memory of {who} on {forecast.device}: {fits}", *lines])


def advice(one: Forecast, processes: int, own: Setting) -> str:
    """What to change, and how much each change alone saves of a forecast for `one` process, the
    most first."""
    now = one.over(processes)
    found = {
        text: now.total - one.scaled(factors).over(processes).total
        for text, factors in _changes(one, own).items()
    }
    more = 2 * processes
    found[f"torchrun --nproc-per-node {more}, on as many devices"] = (
        now.total - one.over(more).total
    )
    best = sorted(found.items(), key=lambda item: -item[1])
    lines = [f"{text:58} {_mib(saved):>13}" for text, saved in best if saved > 0]
    return "\n".join(["what to change, and about how much each saves by itself:", *lines])


def _changes(one: Forecast, own: Setting) -> dict[str, dict[str, float]]:
    """Settings, and how many times as large they make the parts."""
    config = own.config
    found: dict[str, dict[str, float]] = {
        f"--micro-batch-tokens {own.tokens // 2}": {"activations": 0.5}
    }
    if not config.activation_checkpointing:
        # what enters each layer, and all of one layer
        inputs = 4 * own.tokens * own.width * own.layers
        before = one.phases["training"].get("activations", 0)
        after = min(before, inputs + before // own.layers)
        found["--activation-checkpointing"] = {"activations": after / max(1, before)}
    if not config.lora_rank:
        learns = ("gradients", "optimizer states", "average of the weights")
        found[f"--lora-rank {RANK}"] = dict.fromkeys((*learns, *own.spared), 0)
    if batch := getattr(config, "decode_batch_size", 0):
        found[f"--decode-batch-size {batch // 2}"] = {"key-value cache": 0.5}
    return found


def room(device: torch.device) -> int:
    """What a process may take: the GPU's memory, or on a CPU its share of the machine's, less where
    a control group allows less."""
    if device.type != "cpu":
        return torch.cuda.mem_get_info(device)[1]
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        if path.exists() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
