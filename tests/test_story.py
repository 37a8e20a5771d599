"""The stages of the whole story: who gets which prompts, and what goes to another process."""

from __future__ import annotations

import pickle

import pytest

from instil.config import find
from instil.jsonl import write_records
from instil.records import Demonstration, Prompt
from instil.story import Story


@pytest.fixture
def story(tmp_path) -> Story:
    """A story of the fast recipe, with prompts of three splits."""
    made = Story(tmp_path / "demo", find("demo-fast"), 3)
    splits = {"train": 200, "valid": 40, "test": 90}
    write_records(
        made.data / "prompts.jsonl",
        (
            Prompt(id=f"{split}-{i}", text=f"{split} {i}?", split=split)
            for split, count in splits.items()
            for i in range(count)
        ),
    )
    return made


def ids(prompts) -> list[str]:
    return [prompt.id for prompt in prompts]


def test_pickled_it_is_made_anew(story):
    again = pickle.loads(pickle.dumps(story))
    assert (again.out, again.recipe, again.seed) == (story.out, story.recipe, 3)
    assert again.size == story.size
    assert [one.id for one in again.held_out] == [one.id for one in story.held_out]
    assert again.world.truth == story.world.truth
    assert again.rm == story.rm == story.out / "rm"
    other = Story(story.out, story.recipe, 3, rm=story.out / "elsewhere")
    assert pickle.loads(pickle.dumps(other)).rm == story.out / "elsewhere"


def test_policies_are_compared_on_prompts_that_no_ranking_of_the_test_split_has(story):
    ranked, compared = story.ranked_prompts(), story.eval_prompts()
    assert ids(ranked["train"]) == [f"train-{i}" for i in range(50, 200)]
    assert ids(ranked["valid"]) == [f"valid-{i}" for i in range(30)]
    assert ids(ranked["test"]) == [f"test-{i}" for i in range(30)]
    assert ids(compared) == [f"test-{i}" for i in range(30, 90)]


def test_the_examples_before_a_prompt_are_three_short_ones_of_the_training_split(story):
    texts = {"valid-0": "No.", "train-0": "Yes.", "train-1": "x" * 60, "train-2": "So.",
             "train-3": "Here.", "train-4": "There."}  # fmt: skip
    shown = [Demonstration(prompt_id=i, labeler_id="ann", text=text) for i, text in texts.items()]
    write_records(story.data / "demonstrations.jsonl", shown)
    assert story.prefix() == "train 0?\n\nYes.\n\ntrain 2?\n\nSo.\n\ntrain 3?\n\nHere.\n\n"


def test_the_stages_stand_in_the_order_in_which_they_need_each_other(story):
    groups = [list(group) for group in story.stages()]
    assert groups[:3] == [["world"], ["intake"], ["pretrain"]]
    assert groups[-3:] == [["rm"], ["ppo-ptx", "sft", "ppo"], ["evaluate"]]
