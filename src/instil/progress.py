"""Progress for people: a live bar on a terminal, a plain line every few seconds elsewhere, and from
processes that work side by side, whose bars would overwrite each other."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from multiprocessing import parent_process
from typing import Any

from instil.runs import say

EVERY = 15.0
"""Seconds between two plain lines."""


class Progress:
    """Show the steps of one loop and the metrics that matter; use as a context manager."""

    def __init__(self, name: str, total: int, shown: tuple[str, ...]) -> None:
        self.name, self.total, self.shown = name, total, shown
        self._bar: Any = None
        self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and parent_process() is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, text="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show that `step` steps are done."""
        text = "  ".join(f"{n} {metrics[n]:.4g}" for n in self.shown if n in metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif time.monotonic() - self._said >= EVERY or step == self.total:
            say(f"{self.name}  {step}/{self.total}  {text}")
            self._said = time.monotonic()
