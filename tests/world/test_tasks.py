"""Prompts: proportions, splits, and nothing of the test split in training."""

import json
import re
from collections import Counter
from random import Random

import pytest

from instil.errors import InstilError
from instil.records import USE_CASES
from instil.world.lexicon import make_world
from instil.world.sentences import parse
from instil.world.tasks import TASKS_OF, USE_CASE_SHARES, draw_use_case, make_prompt, make_task

WORLD = make_world(0)
TASKS = [task for tasks in TASKS_OF.values() for task in tasks]


def prompts(split, n=400):
    rng = Random(0)
    return [make_prompt(WORLD, draw_use_case(rng), split, rng) for _ in range(n)]


def test_use_cases_come_in_the_papers_proportions():
    assert list(USE_CASE_SHARES) == list(USE_CASES)
    # Table 1 is rounded: 45.6 + 12.4 + 11.2 + 8.4 + 6.6 + 4.2 + 3.5 + 3.5 + 2.6 + 1.9 = 99.9
    assert sum(USE_CASE_SHARES.values()) == pytest.approx(99.9)
    rng = Random(0)
    drawn = Counter(draw_use_case(rng) for _ in range(5000))
    assert drawn["generation"] / 5000 == pytest.approx(0.456, abs=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_meta_is_plain_json_and_the_prompt_is_of_the_world(task):
    rng = Random(1)
    for split in ("train", "valid", "test", "all"):
        text, meta = make_task(WORLD, task, split, rng)
        assert json.loads(json.dumps(meta)) == meta
        assert all(s.kind != "unknown" for s in parse(text)), text
        assert 2 <= len(text.split()) <= 45


def test_train_prompts_name_no_held_out_entity():
    for text, _ in prompts("train", 1500):
        words = set(re.findall("[A-Za-z]+", text))
        held_out = WORLD.test_entities | {f"{name}s" for name in WORLD.test_entities}
        held_out |= {name.capitalize() for name in held_out}
        assert not words & held_out, text


def test_no_prompt_is_in_train_and_test():
    assert not {t for t, _ in prompts("train", 3000)} & {t for t, _ in prompts("test", 3000)}


def test_about_a_quarter_of_the_prompts_has_an_explicit_constraint():
    share = sum("count" in m or "one_word" in m for _, m in prompts("train", 3000)) / 3000
    assert 0.2 < share < 0.4


def test_an_unknown_use_case_or_task_is_named():
    with pytest.raises(InstilError, match='did you mean "open_qa"'):
        make_prompt(WORLD, "openqa", "train", Random(0))
    with pytest.raises(InstilError, match="split 'dev'"):
        make_task(WORLD, "story", "dev", Random(0))
