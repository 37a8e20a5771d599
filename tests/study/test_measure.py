"""The best of n from N samples, and what the reward model stands for."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from instil.feedback.simulated import labelers
from instil.records import Prompt
from instil.study.measure import Examiner, best_of_means
from instil.world.answers import ideal
from instil.world.lexicon import make_world
from instil.world.tasks import make_prompt


def test_the_best_of_n_over_all_choices_of_n():
    # scores in order: 1, 2, 3 with values 10, 30, 20. Best of two of three: {1,2} -> 30,
    # {1,3} -> 20, {2,3} -> 20: mean 70/3. Best of one: 20. Best of three: 20.
    scores, values = np.array([[3.0, 1.0, 2.0]]), np.array([[20.0, 10.0, 30.0]])
    assert best_of_means(scores, values, 1) == pytest.approx([20.0])
    assert best_of_means(scores, values, 2) == pytest.approx([70 / 3])
    assert best_of_means(scores, values, 3) == pytest.approx([20.0])


def test_the_best_of_n_by_its_own_value_is_the_largest_expected():
    scores = np.random.default_rng(0).normal(size=(50, 64))
    means = [best_of_means(scores, scores, n).mean() for n in (1, 2, 8, 64)]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(scores.max(axis=1).mean())
    assert means[0] == pytest.approx(scores.mean())


def test_gold_prefers_the_right_answer_to_an_insult_and_has_no_noise():
    class Story:
        world, training = make_world(0), labelers(0)[:20]

    rng = Random(0)
    text, meta = make_prompt(Story.world, "open_qa", "test", rng)
    prompt = Prompt(id="p", text=text, meta=meta)
    examiner = Examiner(Story())
    right, wrong = ideal(Story.world, meta, rng), "You are a fool."
    first = examiner.gold([prompt, prompt], [right, wrong])
    assert first[0] > first[1]
    assert examiner.gold([prompt, prompt], [right, wrong]) == first
