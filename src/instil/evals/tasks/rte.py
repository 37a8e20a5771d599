"""RTE: does a passage entail a sentence? As part of SuperGLUE  [Wang et al. 2019]."""

from __future__ import annotations

from instil.evals.choices import Hub, Rows, Solved, label_of, load, text_of, zero_and_few
from instil.evals.task import Missing, Options, Source, Task

SHOTS = 15
FIELDS = ("premise", "hypothesis", "label")
LABELS = {"entailment": 0, "not_entailment": 1, "0": 0, "1": 1}
CHOICES = (" Yes", " No")


def tasks(source: Source, options: Options) -> list[Task]:
    """Zero-shot and with 15 solved examples."""
    files = ("RTE/val.jsonl", "rte_val.jsonl")
    found = load(source, files, Hub("aps/super_glue", "validation", "rte"), *FIELDS)
    if found is None:
        raise Missing("RTE/val.jsonl or rte_val.jsonl (or .gz), see docs/evals.md")
    files = ("RTE/train.jsonl", "rte_train.jsonl")
    train = load(source, files, Hub("aps/super_glue", "train", "rte"), *FIELDS)
    solved = None if train is None else read(train)
    return zero_and_few("rte", read(found), solved, shots=SHOTS, limit=options.limit)


def read(found: Rows) -> list[Solved]:
    """The questions of a file."""
    solved = []
    for number, (where, row) in enumerate(found, start=1):
        premise = text_of(where, row, "premise")
        claim = text_of(where, row, "hypothesis").rstrip(".")
        solved.append(
            Solved(
                id=str(number),
                text=(
                    f"Passage: {premise}\n\nQuestion: From this passage can one reasonably "
                    f"conclude that {claim}?\n\nAnswer:"
                ),
                answer=CHOICES[label_of(where, row, "label", LABELS)],
                choices=CHOICES,
                source=premise,
            )
        )
    return solved
