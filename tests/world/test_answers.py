"""Right answers pass every check, whatever the task, the split and the world."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.world.answers import ideal
from instil.world.check import check
from instil.world.lexicon import make_world
from instil.world.tasks import TASKS_OF, make_task

WORLDS = [make_world(seed) for seed in range(3)]
TASKS = [task for tasks in TASKS_OF.values() for task in tasks]


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WORLDS),
    st.sampled_from(["train", "valid", "test", "all"]),
    st.randoms(use_true_random=False),
)
def test_a_right_answer_passes_every_check(task, world, split, rng):
    prompt, meta = make_task(world, task, split, rng)
    answer = ideal(world, meta, rng)
    verdict = check(world, meta, answer)
    assert verdict.flags() == (), (prompt, answer)
    assert verdict.follows
    assert verdict.truthful
    assert verdict.constraint is not False
    assert (verdict.well_formed, verdict.extra, verdict.repetition) == (1.0, 0, False)
    assert verdict.words <= 40
