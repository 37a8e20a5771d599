"""A guess whether a text is English, from its letters and its small words.

Good enough to report the share of English in a log, which is what Ouyang et al. 2022 do with
langid.py (about 96 % English); not good enough to tell one other language from another, so it
does not try.
"""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "other", "unknown"]

# Frequent English words that are not also frequent words of other languages in Latin script.
SMALL_WORDS = frozenset(
    (
        *("the", "of", "and", "to", "is", "that", "it", "for", "you", "with", "this", "be", "are"),
        *("have", "not", "what", "how", "from", "or", "as", "at", "by", "your", "my", "which"),
        *("they", "would", "there", "their", "we", "can", "if", "do", "does", "will", "about"),
        *("when", "who", "write", "please", "should", "why", "give", "following", "explain", "i"),
    )
)
_WORD = re.compile(r"[^\W\d_]+")


def language(text: str) -> Language:
    """`en`, `other`, or `unknown` for a text with fewer than three words to judge by."""
    words = [word.lower() for word in _WORD.findall(text[:4000])]
    letters = sum(map(len, words))
    ascii_letters = sum(len(word) for word in words if word.isascii())
    if letters >= 4 and ascii_letters < 0.5 * letters:
        return "other"
    if len(words) < 3:
        return "unknown"
    small = sum(word in SMALL_WORDS for word in words) / len(words)
    if small >= 0.1 or (len(words) < 8 and small > 0):
        return "en"
    if len(words) < 8 and ascii_letters == letters:
        return "unknown"
    return "other"


def is_ascii(text: str) -> bool:
    """Only ASCII, typographic quotes and dashes aside."""
    return text.translate(dict.fromkeys(range(0x2010, 0x2028), "-")).isascii()
