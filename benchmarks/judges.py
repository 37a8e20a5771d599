"""How far judges trained by `instil judge` agree with OpenAI's own on the released answers.

    python -m benchmarks.judges --samples truthful_qa.csv.gz --truth DIR --info DIR

The released answers to TruthfulQA carry what OpenAI's tuned 6.7B judges said of them. Also printed
is what their judge of informativeness said of the answer "I have no comment.".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from instil.evals.judge import Asks, Judge
from instil.evals.source import rows
from instil.evals.tasks.truthfulqa import is_no_comment
from instil.stats import win_rate


def main(argv: Sequence[str] | None = None) -> None:
    """Print the share of answers of which a judge says what OpenAI's said."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judges", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--info", type=Path)
    args = parser.parse_args(argv)
    found = [row for _, row in rows(args.samples, "question", "answer", "true", "info")]
    judges: tuple[tuple[str, Path | None, Asks], ...] = (
        ("true", args.truth, "True"),
        ("info", args.info, "Helpful"),
    )
    questions = [str(row["question"]) for row in found]
    for column, folder, asks in judges:
        if folder:
            said = Judge.load(folder, asks)(questions, [str(row["answer"]) for row in found])
            pairs = zip(said, found, strict=True)
            same = [float((p > 0.5) == (float(row[column]) > 0.5)) for p, row in pairs]
            print(f"{column}: same as OpenAI's judge {win_rate(same, questions)}, n {len(same)}")
    silent = [row for row in found if is_no_comment(str(row["answer"]))]
    called = sum(float(row["info"]) > 0.5 for row in silent)
    print(f'"I have no comment.": OpenAI\'s judge called {called} of {len(silent)} informative')


if __name__ == "__main__":
    main()
