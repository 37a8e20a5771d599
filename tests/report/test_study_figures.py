"""Which numbers a figure draws, and that it is drawn with them."""

from __future__ import annotations

import math

import pytest

from instil.report.study_figures import (
    KL_SCAN,
    by_size,
    epochs,
    glance,
    optimisation,
    over_seeds,
    scan,
)
from instil.stats import Estimate


def row(name, policy, mean, size="S", seed=0, setting="", params=1000):
    return {
        **{"eval": name, "policy": policy, "mean": mean, "setting": setting},
        **{"size": size, "seed": seed, "params": params},
    }


def test_over_seeds_is_the_mean_with_its_interval():
    rows = [row("likert", "ppo", 3.0), row("likert", "ppo", 5.0, seed=1)]
    rows += [row("likert", "ppo", 9.0, size="L"), row("likert", "ppo", None, size="L", seed=1)]
    rows += [row("likert", "sft", 0.0), row("likert", "ppo", 0.0, setting="other")]
    found = over_seeds(rows, "likert", "ppo")
    assert found["S"].mean == 4.0 and found["S"].n == 2
    assert found["L"].mean == 9.0 and math.isnan(found["L"].low)


def test_a_figure_without_measurements_is_left_out():
    rows = [row("kl", "ppo", 1.0)]
    assert by_size(rows, "public_mean", "", "Public tasks") is None
    assert scan(rows, "S", KL_SCAN, "likert", "held-out", "kl_coef") is None
    assert optimisation(rows, "S", "S", "gold", "Gold") is None
    assert epochs(rows, "sft_loss", "Loss") is None


def test_sizes_stand_at_their_parameters():
    rows = [row("public_mean", "base", 0.5), row("public_mean", "base", 0.7, "L", 0, "", 2_000_000)]
    figure = by_size(rows, "public_mean", "", "Public tasks")
    assert figure.title == "Public tasks"
    assert "base: 0.5, 0.7" in figure.svg
    assert ">1 k<" in figure.svg and ">2 M<" in figure.svg


def test_a_scan_draws_its_values_side_by_side_and_the_base_as_a_line():
    rows = [row("public_mean", name, 0.1 * n) for n, name in enumerate(KL_SCAN)]
    figure = scan(
        [*rows, row("public_mean", "base", 0.9)], "S", KL_SCAN, "public_mean", "", "kl, x"
    )
    assert "PPO: 0, 0.1, 0.2, 0.3" in figure.svg
    assert all(f">{tick}<" in figure.svg for tick in ("0", "1", "10", "100", "base"))


def test_over_optimisation_is_drawn_over_the_root_of_the_kl():
    rows = [row("best_of_kl", f"best-of-{n}", kl) for n, kl in ((1, 0.0), (4, 1.0))]
    rows += [row("best_of_gold", f"best-of-{n}", gold) for n, gold in ((1, 0.1), (4, 0.3))]
    rows += [row("kl", "ppo", 4.0, setting="ppo-init"), row("gold", "ppo", 0.6)]
    figure = optimisation(rows, "S", "S", "gold", "Gold")
    assert "best of n: 0.1, 0.3" in figure.svg
    assert "PPO, by kl_coef: 0.6" in figure.svg


def test_at_a_glance_are_differences_with_their_verdicts():
    figure = glance([("a-b", "reproduced", Estimate(0.1, 0.05, 0.0, 0.2, 3, 3))])
    assert "a b: ppo-ptx 10 %" in figure.svg
    assert glance([]) is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_epochs_of_every_size(seeds):
    rows = [
        row("sft_loss", "sft", loss, size, seed, f"epoch {epoch}")
        for size in ("S", "L")
        for seed in range(seeds)
        for epoch, loss in ((1, 2.0), (2, 1.5))
    ]
    figure = epochs([*rows, row("sft_loss", "sft", 9.0, setting="last")], "sft_loss", "Loss")
    assert "S: 2, 1.5; L: 2, 1.5" in figure.svg
