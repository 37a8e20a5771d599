"""The nouns of `instil eval`: an item that is asked, an answer, a task, a source of data.

A task is a data set, a question and a grade, in one small file of `tasks/`. It never sees a model:
whoever answers (`local.py`, `endpoint.py`) is given items and returns answers, and the answers of a
task are kept on disk and graded together. So grading can be changed, and done again, without a
model; and a grade that wants a model of its own (a judge) has all texts at once.

    def tasks(source: Source, options: Options) -> list[Task]: ...     # one per file of tasks/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from instil.errors import InstilError, one_line
from instil.stats import Estimate

Unit = Literal["share", "points", "bits", "score"]
"""How a mean is written: 0.726 as a share is 72.6 %; points are of 100 (F1, BLEU, ROUGE)."""
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question, ready to be asked: head + shots + text, and nothing between them."""

    id: str
    """Unique within its task."""
    head: str = ""
    """The instruction, its line breaks included."""
    shots: tuple[str, ...] = ()
    """Solved examples, line breaks included; where the model's context is too short, the first are
    left out, and the answer says how many."""
    text: str
    """The question; it ends where the answer begins, without a trailing blank."""
    choices: tuple[str, ...] = ()
    """Continuations of `text` to score, each with its leading blank; () if an answer is written."""
    source: str = ""
    """What it shares with others (a passage, a user): the cluster of the interval. "" is `id`."""
    group: str = ""
    """Reported apart, too."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the grade must know: references, labels."""

    def prompt(self, without: int = 0) -> str:
        """What the model reads, without the first so many shots."""
        return self.head + "".join(self.shots[without:]) + self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to one item."""

    text: str = ""
    """Written, stripped; where the task wants the first line only, that."""
    logprobs: tuple[float, ...] = ()
    """Of each choice after the prompt: the sum over its tokens, in nats."""
    tokens: tuple[int, ...] = ()
    """Of each choice."""
    dropped: int = 0
    """Shots that were left out because the context is too short."""
    cut: int = 0
    """Tokens at the beginning of the prompt that were cut off for the same reason."""

    def best(self) -> int:
        """The choice of the highest logprob *per token*  [the paper prints "lowest": PAPER.md,
        section 0, trap 8]; the first of equals."""
        means = [lp / max(n, 1) for lp, n in zip(self.logprobs, self.tokens, strict=True)]
        return means.index(max(means))

    def probabilities(self) -> list[float]:
        """Of each choice, proportional to its *total* probability, summing to 1."""
        top = max(self.logprobs)
        weights = [math.exp(lp - top) for lp in self.logprobs]
        return [weight / sum(weights) for weight in weights]


Measures = Mapping[str, float]
"""Measure -> value; one that is left out does not count this item."""
Grade = Callable[[Sequence[Item], Sequence[Answer]], Sequence[Measures]]
"""All items of a task and their answers -> the measures of each."""
Total = Callable[[Sequence[Item], Sequence[Answer]], Mapping[str, Estimate]]
"""Measures that are no means of items, such as BLEU, with their intervals."""


def each(grade: Callable[[Item, Answer], Measures]) -> Grade:
    """A grade that looks at one item at a time."""
    return lambda items, answers: [grade(i, a) for i, a in zip(items, answers, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Items that are asked alike, and their grade."""

    name: str
    """As on the command line: squad_v2, truthfulqa."""
    setting: str
    """zero-shot, few-shot, basic, respectful, ..."""
    items: Sequence[Item]
    grade: Grade
    main: str
    """The measure that the table shows."""
    unit: Unit = "share"
    units: Mapping[str, Unit] = field(default_factory=dict)
    """Of measures in another unit than `unit`."""
    better: Better = "higher"
    """Of `main`; "neither" for what only describes, such as an entropy."""
    tax: bool = False
    """Whether a fall of `main` is an alignment tax (the public tasks of Table 14)."""
    max_tokens: int = 0
    """Longest answer to write; 0 if choices are scored."""
    first_line: bool = True
    """Cut what is written at its first line break  [appendix D]."""
    temperature: float = 0.0
    chat: bool = False
    """Asked as a user would, through the model's prompt template; else continued as plain text."""
    total: Total | None = None
    note: str = ""
    """What a reader of the table must know: a subset, a grade that is not the paper's."""

    def unit_of(self, measure: str) -> Unit:
        """In what a measure is written."""
        return self.units.get(measure, self.unit)

    def __post_init__(self) -> None:
        if not self.items:
            raise InstilError(
                f"{self.name} ({self.setting}): its data file has no rows; docs/evals.md says "
                "where it comes from"
            )
        once = set[str]()
        for item in self.items:
            if item.id in once:
                raise InstilError(
                    f"{self.name} ({self.setting}): its data file has {one_line(item.id, 80)!r} "
                    "twice; take one out"
                )
            once.add(item.id)
        if any(bool(item.choices) == bool(self.max_tokens) for item in self.items):
            raise ValueError(f"{self.name}: give items choices, or the task max_tokens")


class Answerer(Protocol):
    """Whoever answers: a model directory, an endpoint."""

    @property
    def name(self) -> str:
        """The column of the table."""
        ...

    @property
    def key(self) -> str:
        """Differs whenever answers may: a digest of weights and tokenizer, or a URL and name."""
        ...

    def write(
        self,
        items: Sequence[Item],
        *,
        max_tokens: int,
        first_line: bool,
        temperature: float,
        chat: bool,
        seed: int,
    ) -> Iterable[Answer | None]:
        """One text for each item, in their order; what comes before an error is kept. None is an
        item that stays without an answer; an error follows."""
        ...

    def choose(self, items: Sequence[Item]) -> Iterable[Answer | None]:
        """The logprobs of each item's choices, likewise."""
        ...


class Source(Protocol):
    """Where data come from: a folder of files in their published formats, or a hub by name."""

    def find(self, *names: str) -> Path | None:
        """The first of these files that is there, also with .gz; None if none is."""
        ...

    def hub(self, name: str, split: str, config: str = "") -> Sequence[Mapping[str, Any]] | None:
        """The rows of a data set of a hub; None where only files are read."""
        ...


class CannotAnswer(InstilError):
    """This model cannot answer a task, though it may answer others."""


class Missing(Exception):
    """What a task needs is not there; the message names the files, or the extra to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What tasks are told."""

    limit: int = 0
    """Items of each task, spread evenly over the data; 0 asks all."""
    seed: int = 0
    truth_judge: Path | None = None
    """Model that says whether an answer is true (`instil judge`)."""
    info_judge: Path | None = None
    """Model that says whether an answer is informative."""
    toxicity: str = "lexicon"
    """Whoever scores toxicity: "lexicon", a directory of a text classifier, module:function."""
    judge: str = ""
    """URL#MODEL of an OpenAI-compatible server that compares answers; "" leaves that out."""
    baseline: str = ""
    """Name of the model that others are compared with."""
    prompts: tuple[Path, ...] = ()
    """Users' prompts (record files) for instruction following."""
