"""SST-2: is a snippet of a film review positive or negative?  [Socher et al. 2013]"""

from __future__ import annotations

from instil.evals.choices import Hub, Rows, Solved, label_of, load, text_of, zero_and_few
from instil.evals.task import Missing, Options, Source, Task

HEAD = "For each snippet of text, label the sentiment of the text as positive or negative.\n\n"
SHOTS = 15
FIELDS = ("sentence", "label")
LABELS = {"0": 0, "1": 1}
CHOICES = (" negative", " positive")


def tasks(source: Source, options: Options) -> list[Task]:
    """Zero-shot and with 15 solved examples."""
    files = ("SST-2/dev.tsv", "sst2_dev.tsv")
    found = load(source, files, Hub("stanfordnlp/sst2", "validation"), *FIELDS)
    if found is None:
        raise Missing("SST-2/dev.tsv or sst2_dev.tsv (or .gz), see docs/evals.md")
    files = ("SST-2/train.tsv", "sst2_train.tsv")
    train = load(source, files, Hub("stanfordnlp/sst2", "train"), *FIELDS)
    solved = None if train is None else read(train)
    return zero_and_few("sst", read(found), solved, head=HEAD, shots=SHOTS, limit=options.limit)


def read(found: Rows) -> list[Solved]:
    """The snippets of a file."""
    return [
        Solved(
            id=str(number),
            text=f"Text: {text_of(where, row, 'sentence')}\n\nLabel:",
            answer=CHOICES[label_of(where, row, "label", LABELS)],
            choices=CHOICES,
            source=str(number),
        )
        for number, (where, row) in enumerate(found, start=1)
    ]
