"""Rewards that a reader can check by eye. A reward takes lists of prompts and responses and returns
one number for each response.

    instil ppo --rm examples/rewards.py:speech ...
"""

from __future__ import annotations

import re

_QUOTES = re.compile(r'"([^"]*)"')


def speech(prompts: list[str], responses: list[str]) -> list[float]:
    """0 when nobody speaks in the story, 0.5 when one thing is said in quotes, 1 for two or more.

    It stops at two, so there is nothing to gain from saying more.
    """
    return [min(2, sum(map(_says_something, _QUOTES.findall(text)))) / 2 for text in responses]


def _says_something(quoted: str) -> bool:
    return any(letter.isalnum() for letter in quoted)
