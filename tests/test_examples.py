"""The rewards in examples/, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.lm.reward import load_reward

REWARDS = Path(__file__).parents[1] / "examples" / "rewards.py"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Tim went home.", 0.0),
        ("", 0.0),
        ('"Hello," said Tim.', 0.5),
        ('"Hello," said Tim. "Hi," said Ann.', 1.0),
        ('"Hello," said Tim. "Hi," said Ann. "Bye!" "Bye!" "Bye!"', 1.0),  # no more than two
        ('""', 0.0),  # nothing is said
        ('"!"', 0.0),
        ('Tim said: "I will', 0.0),  # the quotes are not closed
        ('"One\nsentence."', 0.5),
    ],
)
def test_speech(text, score):
    assert load_reward(f"{REWARDS}:speech")(["Tell me a story."], [text]) == [score]


def test_one_score_for_each_response_in_order():
    reward = load_reward(f"{REWARDS}:speech")
    assert reward(["a", "b", "c"], ["No.", '"Yes," she said.', "No."]) == [0.0, 0.5, 0.0]
    assert reward([], []) == []
