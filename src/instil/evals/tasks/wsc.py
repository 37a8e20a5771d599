"""WSC: which noun does a pronoun refer to? As part of SuperGLUE  [Levesque et al. 2012].

SuperGLUE asks whether the pronoun refers to one given noun. The paper lets the model write the
noun, and takes "true" if what is written contains the given noun or the other way round (appendix
D); here by whole words, in lower case, and an empty answer contains nothing. The pronoun is marked
*so*, and examples are only those whose answer is true, as for GPT-3  [Brown et al. 2020].
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from instil.errors import InstilError
from instil.evals.choices import Hub, Rows, Solved, label_of, load, settings, text_of
from instil.evals.source import spread
from instil.evals.task import Answer, Item, Measures, Missing, Options, Source, Task, each

HEAD = (
    "Final Exam with Answer Key\n\n"
    "Instructions: Please carefully read the following passages. For each passage, you must "
    "identify which noun the pronoun marked in *bold* refers to.\n\n"
)
SHOTS = 15
LABELS = {"True": 1, "False": 0, "1": 1, "0": 0}
SPANS = ("span1_text", "span2_text", "span2_index")


def tasks(source: Source, options: Options) -> list[Task]:
    """Zero-shot and with 15 solved examples."""
    files = ("WSC/val.jsonl", "wsc_val.jsonl")
    found = load(source, files, Hub("aps/super_glue", "validation", "wsc.fixed"), "text", "label")
    if found is None:
        raise Missing("WSC/val.jsonl or wsc_val.jsonl (or .gz), see docs/evals.md")
    files = ("WSC/train.jsonl", "wsc_train.jsonl")
    train = load(source, files, Hub("aps/super_glue", "train", "wsc.fixed"), "text", "label")
    solved = None if train is None else read(train)
    return [_task(*setting, options.limit) for setting in settings(read(found), solved, SHOTS)]


def read(found: Rows) -> list[Solved]:
    """The passages of a file."""
    solved = []
    for number, (where, row) in enumerate(found, start=1):
        spans = row.get("target", row)  # SuperGLUE's files have them in an object of their own
        missing = [name for name in SPANS if name not in spans]
        if missing or not isinstance(spans["span2_index"], int):
            raise InstilError(
                f"{where}: no {(missing or ['whole number span2_index'])[0]}; is this the "
                "published file? docs/evals.md says where it comes from"
            )
        pronoun, noun = (text_of(where, spans, name) for name in ("span2_text", "span1_text"))
        passage = text_of(where, row, "text")
        true = bool(label_of(where, row, "label", LABELS))
        solved.append(
            Solved(
                id=str(number),
                text=(
                    f"Passage: {marked(where, passage, spans)}\n\nQuestion: In the passage "
                    f'above, what does the pronoun "*{pronoun}*" refer to?\n\nAnswer:'
                ),
                answer=f" {noun}",
                source=passage,
                example=true,
                meta={"noun": noun, "true": true},
            )
        )
    return solved


def marked(where: str, text: str, spans: Mapping[str, Any]) -> str:
    """The passage with stars about the pronoun: the one nearest to the word that the file names,
    since a few of its places are off by some words."""
    words, pronoun, place = text.split(), spans["span2_text"].strip(), spans["span2_index"]
    found = [i for i, word in enumerate(words) if _plain(word) == _plain(pronoun)]
    if not found:
        raise InstilError(
            f'{where}: the pronoun {pronoun!r:.40} ("span2_text") is no word of the "text"'
        )
    nearest = min(found, key=lambda i: abs(i - place))
    words[nearest] = words[nearest].replace(pronoun, f"*{pronoun}*", 1)
    return " ".join(words)


@each
def grade(item: Item, answer: Answer) -> Measures:
    """Whether what is written and the given noun agree as the label says."""
    return {"accuracy": float(same(answer.text, item.meta["noun"]) == item.meta["true"])}


def same(said: str, noun: str) -> bool:
    """Whether one of two phrases contains the other, word by word."""
    one, other = (f" {' '.join(map(_plain, text.split()))} " for text in (said, noun))
    return one in other or other in one


def _plain(word: str) -> str:
    return word.strip(string.punctuation + "“”‘’").lower()


def _task(
    setting: str, questions: list[Solved], shots: tuple[str, ...], note: str, limit: int
) -> Task:
    items = [one.item(HEAD, shots) for one in spread(questions, limit)]
    false = sum(not item.meta["true"] for item in items) / len(items)
    return Task(
        name="wsc",
        setting=setting,
        items=items,
        grade=grade,
        main="accuracy",
        tax=True,
        max_tokens=32,
        note="; ".join(filter(None, (note, f"who never writes the noun: {false:.1%} right"))),
    )
