"""Duplicates among prompts: equal after normalisation, or sharing a long common prefix.

People send variants of one prompt: the same few-shot examples with another last line, the same
text with one more sentence. Ouyang et al. 2022 (section 3.2) drop prompts that share a long common
prefix; the paper gives no numbers, so both thresholds are settings.

Left out on purpose: near duplicates that differ at their start (the paper's rule does not see
them), and removal across languages or paraphrases.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def tidy(text: str) -> str:
    """The text as it is kept: Unicode NFC, line ends as newline, no space at either end."""
    text = unicodedata.normalize("NFC", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def normal_form(text: str) -> str:
    """The text as it is compared: compatibility forms, case and the width of spaces are ignored."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prefix_duplicates(texts: Sequence[str], min_chars: int, min_share: float) -> list[bool]:
    """For each of `texts` (distinct): does it share a long prefix with one kept before it?

    Two texts do when their common prefix has at least `min_chars` characters and at least
    `min_share` of the shorter one. In the order given, a text is kept when it does so with no
    kept text; hence the kept ones are pairwise different and a second pass drops nothing.

    O(n log n): among the sorted texts, those that begin with a given prefix stand side by side.
    Text x needs the prefix of length p(x) = max(min_chars, min_share * len(x)); x and y are
    duplicates if and only if x stands in the interval of y's prefix or y in that of x's.
    """
    long = [i for i, text in enumerate(texts) if len(text) >= min_chars]
    order = sorted(long, key=texts.__getitem__)
    ranked = [texts[i] for i in order]
    place = {i: position for position, i in enumerate(order)}
    kept = _Counts(len(order))  # kept[i]: is the text at sorted place i kept?
    covered = _Counts(len(order) + 1)  # prefix sums: how many kept texts' intervals hold place i?
    duplicate = [False] * len(texts)
    for i in long:
        text, here = texts[i], place[i]
        needed = max(min_chars, math.ceil(min_share * len(text)))
        prefix = text[:needed]

        def cut(other: str, length: int = needed) -> str:
            return other[:length]

        first = bisect_left(ranked, prefix, 0, here, key=cut)
        last = bisect_right(ranked, prefix, here, len(ranked), key=cut)
        if covered.before(here + 1) or kept.before(last) - kept.before(first):
            duplicate[i] = True
            continue
        kept.add(here, 1)
        covered.add(first, 1)
        covered.add(last, -1)
    return duplicate


class _Counts:
    """Numbers at places 0 to n-1 with sums over a beginning in O(log n) (a Fenwick tree)."""

    def __init__(self, n: int) -> None:
        self.sums = [0] * (n + 1)

    def add(self, place: int, amount: int) -> None:
        place += 1
        while place < len(self.sums):
            self.sums[place] += amount
            place += place & -place

    def before(self, place: int) -> int:
        """The sum over the places 0 to place-1."""
        total = 0
        while place > 0:
            total += self.sums[place]
            place -= place & -place
        return total
