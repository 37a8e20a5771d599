"""Duplicates: the prefix rule against its definition, and recall on planted variants."""

from __future__ import annotations

import math
import random
import sqlite3
from os.path import commonprefix

from hypothesis import given
from hypothesis import strategies as st

from instil.intake.dedup import Prefixes, normal_form, tidy


def prefix_duplicates(texts: list[str], min_chars: int, min_share: float) -> list[bool]:
    database = sqlite3.connect("")
    prefixes = Prefixes(database, min_chars, min_share)
    duplicates = [not prefixes.add(text) for text in texts]
    database.close()
    return duplicates


def by_definition(texts: list[str], min_chars: int, min_share: float) -> list[bool]:
    """Every text against every text kept before it."""
    kept: list[str] = []
    duplicate = []
    for text in texts:
        same = False
        for other in kept:
            shared = len(commonprefix([text, other]))  # noqa: RUF071
            shorter = min(len(text), len(other))
            same |= shared >= max(min_chars, math.ceil(min_share * shorter))
        duplicate.append(same)
        if not same:
            kept.append(text)
    return duplicate


@given(
    st.lists(st.text("abé🙂", min_size=1, max_size=12), unique=True, max_size=40),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
)
def test_the_fast_rule_is_the_definition(texts, min_chars, min_share):
    assert prefix_duplicates(texts, min_chars, min_share) == by_definition(
        texts, min_chars, min_share
    )


def test_three_texts_by_hand():
    # 1 and 0 share "abcd", 4 of the shorter one's 5 characters: 0.8, a duplicate
    # 2 and 0 share "ab", 2 of 4 characters: 0.5, none
    assert prefix_duplicates(["abcde", "abcdxyz", "abxx"], 2, 0.8) == [False, True, False]
    # with 5 characters to share at least, 4 are too few
    assert prefix_duplicates(["abcde", "abcdxyz", "abxx"], 5, 0.8) == [False, False, False]


def test_variants_of_long_prompts_are_found():
    # 300 prompts of 60 words; in each variant the last tenth of the words is new
    rng = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    prompts = [" ".join(rng.choices(words, k=60)) for _ in range(300)]
    variants = [" ".join(p.split()[:54] + rng.choices(words, k=6)) for p in prompts]
    found = prefix_duplicates(prompts + variants, 100, 0.8)
    assert sum(found[:300]) == 0
    assert sum(found[300:]) >= 0.95 * 300


def test_texts_are_compared_without_case_width_and_spacing():
    assert normal_form("Ｗhat  is\n\tTHIS?") == normal_form("what is this?")
    assert tidy(" e\u0301\r\nx ") == "é\nx"
