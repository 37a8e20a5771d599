"""Speed and memory of `instil intake` on logs of a hundred thousand and of a million rows.

    python -m benchmarks.intake                       # both; the longer log has 0.8 GB
    python -m benchmarks.intake --rows 1000000 --folder /scratch

Prompts are as long as those of Ouyang et al. 2022, Table 9 (quartiles of 20, 64 and 203 tokens, at
4.5 characters each), pieces of one long text of made-up words. One in fifty holds an e-mail
address, one in thirty is a copy of an earlier one, one in thirty begins like an earlier one; half
of the users belong to an organisation, one in fifty did not consent. Each log is cleaned by a
process of its own; written is a row for each. Seconds are of the processor, start included,
which is what it would take on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from instil import jsonl
from instil.intake import Config, RawPrompt, run
from instil.records import USE_CASES

MEDIAN, SPREAD = 64 * 4.5, 1.7
"""Of the lengths in characters: log-normal, SPREAD being the deviation of the logarithm."""


def main() -> None:
    """Make, clean and measure each log."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000])
    flags.add_argument("--folder", type=Path, help="for the logs, instead of the temporary folder")
    flags.add_argument("--log", type=Path, help="only clean this log, in this process")
    args = flags.parse_args()
    if args.log:
        print(_measured(args.log))
        return
    print("|    rows | MB of log | CPU s | rows per CPU s | MB per CPU s | peak RSS, MiB |")
    for rows in args.rows:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            log = Path(folder) / "raw.jsonl"
            jsonl.write_records(log, prompts(rows))
            command = [sys.executable, "-m", "benchmarks.intake", "--log", str(log)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1].replace("ROWS", f"{rows:7}"), flush=True)


def _measured(log: Path) -> str:
    run(Config(raw=log, out=log.parent / "out"))
    seconds = time.process_time()
    megabytes = log.stat().st_size / 1e6
    rows = sum(1 for _ in jsonl.iter_lines(log))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| ROWS | {megabytes:9.0f} | {seconds:5.0f} | {rows / seconds:14.0f} "
        f"| {megabytes / seconds:12.1f} | {peak:13.0f} |"
    )


def prompts(rows: int) -> Iterator[RawPrompt]:
    """A log like those of an API, the same at every call."""
    rng = random.Random(0)
    letters = "aaabcdeeeefghiiijklmnooopqrstuuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(5000)]
    pool = " ".join(rng.choices([*words, *["the", "of", "and", "to", "is"] * 200], k=2_000_000))
    earlier: list[str] = []
    for number in range(rows):
        length = min(max(int(rng.lognormvariate(0, SPREAD) * MEDIAN), 8), 2048 * 5)
        start = rng.randrange(len(pool) - length)
        text = pool[start : start + length]
        chance = rng.random()
        if earlier and chance < 1 / 30:
            text = rng.choice(earlier)
        elif earlier and chance < 2 / 30:
            text = rng.choice(earlier) + " " + text
        elif chance < 2 / 30 + 1 / 50:
            text += f" Write to user{number}@example.org"
        if len(earlier) < 10_000:
            earlier.append(text)
        user = int(rng.random() ** 2 * rows / 6)  # six prompts each on average, some far more
        yield RawPrompt(
            text=text,
            user_id=f"user {user}",
            organisation_id=f"organisation {user // 8}" if user % 2 else "",
            use_case=rng.choice(USE_CASES),
            consent=user % 50 != 49,
        )


if __name__ == "__main__":
    main()
