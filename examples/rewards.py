"""Rewards that a reader can check by eye. A reward takes lists of prompts and responses and returns
one number for each response.

    instil ppo --rm examples/rewards.py:speech ...
"""

from __future__ import annotations

import re


def speech(prompts: list[str], responses: list[str]) -> list[float]:
    """0 when nobody speaks in the story, 0.5 when one thing is said in quotes, 1 for two or more.

    It stops at two, so there is nothing to gain from saying more.
    """
    return [min(2, len(re.findall(r'"[^"]*\w[^"]*"', text))) / 2 for text in responses]
