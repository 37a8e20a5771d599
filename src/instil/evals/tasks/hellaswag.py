"""HellaSwag: which of four endings goes on with a paragraph?  [Zellers et al. 2019]

The half from WikiHow carries marks such as [step]; they are taken out, as is usual. The figure of
the paper is "accuracy", per token; "accuracy_total" is what lm-evaluation-harness calls acc.
"""

from __future__ import annotations

import re

from instil.errors import InstilError
from instil.evals.choices import Hub, Rows, Solved, label_of, load, text_of, zero_and_few
from instil.evals.task import Missing, Options, Source, Task

HEAD = "Complete each independent paragraph using common-sense reasoning.\n\n"
SHOTS = 15
FIELDS = ("activity_label", "ctx_a", "ctx_b", "endings", "label", "source_id")
NAME = "Rowan/hellaswag"


def tasks(source: Source, options: Options) -> list[Task]:
    """Zero-shot and with 15 solved examples."""
    found = load(source, ("hellaswag_val.jsonl",), Hub(NAME, "validation"), *FIELDS)
    if found is None:
        raise Missing("hellaswag_val.jsonl (or .gz), see docs/evals.md")
    train = load(source, ("hellaswag_train.jsonl",), Hub(NAME, "train"), *FIELDS)
    return zero_and_few(
        "hellaswag",
        read(found),
        None if train is None else read(train),
        head=HEAD,
        shots=SHOTS,
        limit=options.limit,
    )


def read(found: Rows) -> list[Solved]:
    """The paragraphs of a file."""
    solved = []
    for number, (where, row) in enumerate(found, start=1):
        endings = row["endings"]
        if not isinstance(endings, list) or not all(isinstance(e, str) and e for e in endings):
            raise InstilError(f'{where}: "endings" is {endings!r:.60}; expected a list of texts')
        # the second part begins a sentence, and is empty in the half from WikiHow
        second = str(row["ctx_b"]).strip()
        begun = f"{row['ctx_a']} {second[:1].upper()}{second[1:]}".strip()
        choices = tuple(f" {clean(ending)}" for ending in endings)
        right = label_of(where, row, "label", {str(i): i for i in range(len(endings))})
        origin = text_of(where, row, "source_id")
        solved.append(
            Solved(
                id=str(number),
                text=f"{text_of(where, row, 'activity_label')}: {clean(begun)}",
                answer=choices[right],
                choices=choices,
                source=origin,
                group=origin.split("~")[0],
            )
        )
    return solved


def clean(text: str) -> str:
    """Without the marks of WikiHow; what stands before a title ends with a full stop."""
    text = re.sub(r" \[title\]", ". ", text)
    return re.sub(r" +", " ", re.sub(r"\[(header|title|step|substeps)\]", "", text)).strip()
