"""One self-contained HTML page of a demo, evaluation, study or run: no script, nothing loaded.

What the runs wrote is only read; a part that was not run is named in its place. The same files give
the same page to the byte. Left out: statistics. Every interval was computed by whoever measured.

    instil report --run runs/demo                       # writes runs/demo/report.html
    instil report --run runs/ppo --out ppo.html         # one run alone
    instil report --run runs/eval                       # the page that `instil eval` writes
    instil report --run runs/study                      # the page that `instil study` writes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instil.jsonl import replace_files
from instil.report import study, suite
from instil.report.page import render
from instil.report.source import read_source
from instil.runs import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Make one HTML page of a directory of runs."""

    run: Path
    """Directory that `instil demo`, `eval` or `study` wrote, or the directory of one run."""
    out: Path | None = None
    """Where the page goes; report.html in the directory itself when not given."""


def run(config: Config) -> None:
    """Write the page, whole or not at all."""
    out = config.out or config.run / "report.html"
    if (config.run / "results.json").is_file():
        page = suite.render(suite.read(config.run), config.run.resolve().name)
    elif (config.run / "findings.json").is_file():
        page = study.render(study.read(config.run))
    else:
        page = render(read_source(config.run))
    replace_files({out: [page.encode()]})
    say(f"report: {out} ({len(page.encode()) // 1024} KiB)")
