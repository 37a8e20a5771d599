"""Grades of written answers against references.

`token_f1`, `best_f1` and `exact` are those of the embedded world. The others follow the definitions
by which published figures were made, quirks included, so that ours can be set beside them:

    squad_scores   SQuAD 2.0's evaluate script           quac_scores    QuAC's scorer
    drop_scores    DROP's evaluation script              bleu, rouge_l  sacrebleu, rouge-score
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from instil.errors import InstilError
from instil.evals.task import Missing
from instil.stats import Array, Clusters, Estimate, bootstrap

CANNOT_ANSWER = "CANNOTANSWER"
"""QuAC's reference where the text has no answer."""

PUNCTUATION = str.maketrans("", "", string.punctuation)
"""ASCII only, as in the official scripts: a typographic quote stays."""


def normalise(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def token_f1(answer: str, reference: str) -> float:
    """F1 over words (Rajpurkar et al. 2016); 1 when both texts have none."""
    return _shared_f1(normalise(answer), normalise(reference))


def best_f1(answer: str, references: Sequence[str]) -> float:
    """F1 against the nearest of the right answers."""
    return max(token_f1(answer, reference) for reference in references)


def exact(answer: str, references: Sequence[str]) -> float:
    """1 when the answer is one of the right ones, word for word."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def squad_words(text: str) -> list[str]:
    """Lower-case words without ASCII punctuation and articles  [Rajpurkar et al. 2016]."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def squad_scores(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) of SQuAD, each 0 to 1 and against the nearest reference.

    references  without any, or with none that has a word, "" is right  [Rajpurkar et al. 2018]
    """
    ours = squad_words(answer)
    theirs = [words for text in references if (words := squad_words(text))] or [[]]
    return (
        max(float(ours == words) for words in theirs),
        max(_shared_f1(ours, words) for words in theirs),
    )


def quac_scores(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """(F1, F1 of people), each 0 to 1, as QuAC's scorer has them  [Choi et al. 2018, section 5.1].

    answer, references  `CANNOT_ANSWER` where there is none; it is right only as a whole

    Where at least half of the references say that there is no answer, that alone is right; else
    those that say so do not count. Of several references one is left out in turn, and the best F1
    against the others averaged, so that a model has as many to match as a person had.
    """
    spans = [text for text in references if text != CANNOT_ANSWER]
    if 2 * len(spans) <= len(references):
        return float(answer == CANNOT_ANSWER), 1.0
    scores = [0.0 if answer == CANNOT_ANSWER else _quac_f1(answer, text) for text in spans]
    people = [
        max(_quac_f1(text, other) for j, other in enumerate(spans) if j != i)
        for i, text in enumerate(spans)
        if len(spans) > 1
    ]
    if not people:
        return scores[0], 1.0
    others = [max(scores[:i] + scores[i + 1 :]) for i in range(len(scores))]
    return sum(others) / len(others), sum(people) / len(people)


def drop_scores(answer: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, float]:
    """(exact match, F1) of DROP, each 0 to 1 and against the nearest reference.

    answer, references  spans; most have one

    F1 compares *sets* of words, is 0 where the reference has numbers and the answer none of them,
    is averaged over the best assignment of spans to spans, one that is left over counting 0, and
    is rounded to two decimals  [Dua et al. 2019, section 5.1 and its script].
    """
    found = [_drop_score(answer, spans) for spans in references if spans and spans[0].strip()]
    if not found:
        return 0.0, 0.0
    return max(exact for exact, _ in found), max(f1 for _, f1 in found)


def bleu(
    answers: Sequence[str], references: Sequence[str], clusters: Clusters, seed: int = 0
) -> Estimate:
    """Corpus BLEU, 0 to 100: sacrebleu's, one reference, cased, 13a tokens  [Post 2018].

    clusters  of each answer: its document

    The interval is that of 1,000 bootstrap rounds over clusters; the standard error is that of a
    normal interval as wide. Both are nan with one cluster.
    """
    sacrebleu = _extra("sacrebleu.metrics.bleu")
    scorer = sacrebleu.BLEU(effective_order=True)
    found = [
        scorer.sentence_score(a, [r]) for a, r in zip(answers, references, strict=True)
    ]  # only their counts are taken, which smoothing and effective order leave alone
    counts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found])

    def corpus(chosen: Array) -> float:
        total = [int(count) for count in chosen.sum(axis=0)]
        score = sacrebleu.BLEU.compute_bleu(total[:4], total[4:8], *total[8:], smooth_method="exp")
        return float(score.score)

    groups = len(set(clusters))
    low, high = bootstrap(counts, clusters, corpus, 1000, seed)
    if groups == 1:
        low = high = float("nan")
    return Estimate(corpus(counts), (high - low) / 3.92, low, high, len(answers), groups)


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1: rouge-score's, without stemming.

    [Lin 2004; the paper's figures are those without stemming]
    """
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def _shared_f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def _quac_f1(answer: str, reference: str) -> float:
    ours, theirs = squad_words(answer), squad_words(reference)
    return _shared_f1(ours, theirs) if ours and theirs else 0.0


def _drop_score(answer: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    ours, theirs = ([_drop_text(span) for span in spans] for spans in (answer, reference))
    by_span = np.zeros(max(len(ours), len(theirs)))
    scores = np.array([[_drop_f1(a, r) for a in ours] for r in theirs])
    rows, columns = _extra("scipy.optimize").linear_sum_assignment(scores, maximize=True)
    by_span[rows] = scores[rows, columns]
    exact = set(ours) == set(theirs) and len(ours) == len(theirs)
    # rounded as numpy does, like the script: 0.225 to 0.22
    return float(exact), float(round(by_span.mean(), 2))


def _drop_f1(answer: str, reference: str) -> float:
    ours, theirs = set(answer.split()), set(reference.split())
    numbers = {word for word in theirs if _is_number(word)}
    if numbers and not numbers & ours:
        return 0.0
    if not ours or not theirs:  # nothing said is precise, nothing wanted is found
        return float(ours == theirs)
    precision, recall = len(ours & theirs) / len(ours), len(ours & theirs) / len(theirs)
    # not 2 shared / (ours + theirs): it may be another float, and round to another figure
    return 2 * precision * recall / (precision + recall) if precision else 0.0


def _drop_text(span: str) -> str:
    """Parts at blanks and hyphens: numbers as floats, other parts as SQuAD's words."""
    parts = []
    for part in re.split("[ -]", span.lower()):
        text = part if _is_number(part) else part.translate(PUNCTUATION)
        parts += [str(float(text))] if _is_number(text) else squad_words(text)
    return " ".join(parts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_extra(module: str) -> None:
    """`Missing` if a module of the extra `eval` is not there, which a task needs for its grades."""
    try:
        _extra(module)
    except InstilError as error:
        raise Missing(str(error)) from error


@cache
def _rouge() -> Any:
    return _extra("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)


def _extra(module: str) -> Any:
    """A module of the extra `eval`."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise InstilError(
            f"{module.split('.')[0]} is not installed; pip install 'instil[eval]'"
        ) from error
