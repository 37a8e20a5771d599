"""Grades of short answers against references."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def normalise(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def token_f1(answer: str, reference: str) -> float:
    """F1 over words (Rajpurkar et al. 2016); 1 when both texts have none."""
    ours, theirs = normalise(answer), normalise(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def best_f1(answer: str, references: Sequence[str]) -> float:
    """F1 against the nearest of the right answers."""
    return max(token_f1(answer, reference) for reference in references)


def exact(answer: str, references: Sequence[str]) -> float:
    """1 when the answer is one of the right ones, word for word."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))
