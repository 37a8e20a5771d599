"""Long logs: the memory they take, and kills in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instil import intake, jsonl
from instil.intake import Config, RawPrompt, run

# VmHWM is of this process alone; ru_maxrss begins with that of whoever started it
MEASURE = """
import re, sys
from pathlib import Path
from instil.intake import Config, run
run(Config(raw=Path(sys.argv[1]), out=Path(sys.argv[2])))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def write_log(path: Path, rows: int) -> None:
    """Prompts of many users, every tenth with a beginning that others have too."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    shared = " ".join(rng.choices(words, k=40))

    def prompts():
        for number in range(rows):
            text = f"{number} " + " ".join(rng.choices(words, k=20))
            if number % 10 == 0:
                text = shared[: number % 200] + text
            yield RawPrompt(text=text, user_id=f"user {rng.randrange(rows // 5)}")

    jsonl.write_records(path, prompts())


def peak_mb(folder: Path, rows: int) -> int:
    write_log(folder / "raw.jsonl", rows)
    command = [sys.executable, "-c", MEASURE, folder / "raw.jsonl", folder / "out"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert sum(1 for _ in jsonl.iter_lines(folder / "out" / "prompts.jsonl")) > 0.8 * rows
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path):
    small, large = peak_mb(tmp_path, 10_000), peak_mb(tmp_path, 50_000)
    assert large < 300
    assert large - small < 16


@pytest.mark.parametrize("when", ["while reading", "before the first file", "before the second"])
def test_a_kill_leaves_nothing_half_written_and_the_next_run_ends_the_same(tmp_path, when):
    def wanted() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith(".")}

    out, log = tmp_path / "out", tmp_path / "raw.jsonl"
    raw = [RawPrompt(text=f"Number {i}", user_id=f"u{i % 7}") for i in range(200)]
    jsonl.write_records(log, raw)
    fresh = Config(raw=log, out=tmp_path / "fresh")
    run(fresh)
    whole = {path.name: path.read_bytes() for path in fresh.out.iterdir()}
    child = os.fork()
    if not child:
        die_in(when)
        run(Config(raw=log, out=out))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = wanted() if out.exists() else {}
    assert left == ({"prompts.jsonl": whole["prompts.jsonl"]} if "second" in when else {})
    run(Config(raw=log, out=out))
    assert wanted() == whole


def die_in(when: str) -> None:
    """Let this process kill itself at that moment of the next run."""
    calls = 0
    module, name, last = {
        "while reading": (intake, "normal_form", 100),
        "before the first file": (os, "replace", 1),
        "before the second": (os, "replace", 2),
    }[when]
    original = getattr(module, name)

    def deadly(*args):
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(module, name, deadly)
