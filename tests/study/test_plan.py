"""Which jobs there are and which wait for which; a recipe for every size."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from instil.config import find, read_recipe
from instil.errors import InstilError
from instil.study.plan import Plan, jobs, read_plan, tables_of, to_toml, write_recipes

PLAN = Plan(
    sizes=("S", "M", "L"),
    width=(8, 16, 32),
    layers=(1, 2, 3),
    heads=(2, 2, 4),
    rate=(2.0, 1.0, 0.5),
    seeds=(0, 7),
    reward_size="M",
    scan_size="S",
)


def test_nothing_is_done_before_what_it_needs():
    done: set[str] = set()
    for job in jobs(PLAN):
        assert done.issuperset(job.needs)
        done.add(job.name)
    assert done == {f"{size}-{seed}" for size in ("S", "M", "L", "compare") for seed in (0, 7)}


def test_the_reward_models_size_comes_first_and_the_others_wait_for_it_alone():
    needs = {job.name: job.needs for job in jobs(PLAN)}
    assert needs["M-7"] == ()
    assert needs["S-7"] == needs["L-7"] == ("M-7",)
    assert needs["compare-7"] == ("S-7", "M-7", "L-7")
    assert [job.name for job in jobs(PLAN)][:3] == ["M-0", "M-7", "L-0"]


def test_a_size_has_its_shape_and_its_learning_rates_and_all_else_alike():
    tables = {
        "study": {"sizes": ["S"]},
        "pretrain": {"lr": 0.004, "context": 64},
        "ppo": {"lr": 0.25, "value_lr": 0.5, "kl_coef": 0.1},
    }
    assert tables_of(PLAN, tables, "L") == {
        "pretrain": {"lr": 0.002, "context": 64, "width": 32, "layers": 3, "heads": 4},
        "ppo": {"lr": 0.125, "value_lr": 0.25, "kl_coef": 0.1},
    }


def test_tables_are_written_as_they_are_read():
    tables = {"a": {"x": 1e-4, "y": "muon", "z": True, "w": [0.9, 0.95]}, "b": {"n": 1e9}}
    assert tomllib.loads(to_toml(tables)) == tables


@pytest.mark.parametrize("name", ["study", "study-hour", "study-fast"])
def test_packaged_studies_are_whole(name):
    plan, tables = read_plan(find(name)), read_recipe(find(name))
    needed = {"study", "demo", "intake", "pretrain", "ppo-init", "rm", "sft", "ppo", "ppo-ptx"}
    assert set(tables) == needed
    assert {8, 64} <= set(plan.best_of)  # the finding "best-of-falls" compares these
    if name != "study-fast":
        assert len(plan.sizes) >= 3 and len(plan.seeds) >= 3


def test_a_study_goes_on_only_with_the_recipe_it_was_begun_with(tmp_path):
    recipe, folder = tmp_path / "r.toml", tmp_path / "recipes"
    recipe.write_text("[pretrain]\nlr = 1.0\n")
    write_recipes(PLAN, recipe, folder)
    write_recipes(PLAN, recipe, folder)
    assert tomllib.loads((folder / "S.toml").read_text())["pretrain"]["lr"] == 2.0
    recipe.write_text("[pretrain]\nlr = 1.5\n")
    with pytest.raises(InstilError, match=r"S.toml: the study was begun with another recipe"):
        write_recipes(PLAN, recipe, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": (8, 16)}, "width has 2 values for 3 sizes"),
        ({"reward_size": "XL"}, "reward_size: no size 'XL'"),
        ({"seeds": (1, 1)}, r"seeds \[1, 1\]: give at least one, none twice"),
        ({"sizes": ()}, "has 3 values for 0 sizes"),
        ({"folds": 1}, "folds 1: at least 2"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message):
    with pytest.raises(InstilError, match=message):
        dataclasses.replace(PLAN, **change)
