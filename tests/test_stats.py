"""stats.py: golden values worked out by hand, other libraries as oracles, and public data."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import defaultdict

import choix
import krippendorff
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from instil.stats import (
    Estimate,
    agreement,
    agreement_with_ties,
    best_of_n_kl,
    bootstrap,
    bradley_terry,
    calibration_error,
    cohen_kappa,
    fleiss_kappa,
    forward_flops,
    kendall_tau_b,
    krippendorff_alpha,
    mean_estimate,
    petaflop_days,
    student_t,
    train_flops,
    win_rate,
    within,
)


def test_an_estimate_reads_as_mean_and_interval():
    assert str(Estimate(0.712, 0.015, 0.6834, 0.741, 90, 30)) == "0.71 [0.68, 0.74]"


def test_mean_estimate_of_four_values():
    # mean 2.5, variance (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3, stderr sqrt(5/3 / 4) = 0.645497
    # Student t with 3 degrees of freedom at 0.975 is 3.182446; 3.182446 * 0.645497 = 2.054260
    found = mean_estimate([1, 2, 3, 4])
    assert (found.mean, found.n, found.clusters) == (2.5, 4, 4)
    assert found.stderr == pytest.approx(0.645497, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.445740, 4.554260), abs=1e-5)


def test_clusters_widen_the_interval():
    # residual sums -1.5 - 0.5 = -2 and 2: sqrt(2/1 * (4 + 4)) / 4 = 1
    # Student t with 1 degree of freedom at 0.975 is 12.706205
    found = mean_estimate([1, 2, 3, 4], ["ann", "ann", "bob", "bob"])
    assert (found.mean, found.n, found.clusters) == (2.5, 4, 2)
    assert found.stderr == pytest.approx(1.0, abs=1e-12)
    assert found.high == pytest.approx(15.206205, abs=1e-5)


def test_one_group_has_no_standard_error():
    for found in (mean_estimate([3.0]), mean_estimate([2.0, 4.0], ["ann", "ann"])):
        assert found.mean == 3.0
        assert all(math.isnan(x) for x in (found.stderr, found.low, found.high))


def test_no_values_or_a_missing_cluster_is_an_error():
    with pytest.raises(ValueError, match="0 values and 0 clusters"):
        mean_estimate([])
    with pytest.raises(ValueError, match="2 values and 1 clusters"):
        mean_estimate([1, 2], ["ann"])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.integers(2, 4))
def test_repeating_every_value_in_its_cluster_adds_no_certainty(values, times):
    once = mean_estimate(values)
    again = mean_estimate(np.repeat(values, times), list(np.repeat(range(len(values)), times)))
    assert again.stderr == pytest.approx(once.stderr, rel=1e-6, abs=1e-9)
    assert again.low == pytest.approx(once.low, rel=1e-6, abs=1e-9)


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    sizes = np.array([1, 2, 3, 4] * 6)  # 24 users with a taste of their own
    users = np.repeat(np.arange(24), sizes)
    covered, naive, rounds = 0, 0, 2000
    for _ in range(rounds):
        values = 3 + rng.normal(size=24)[users] + 0.5 * rng.normal(size=len(users))
        found, blind = mean_estimate(values, users.tolist()), mean_estimate(values)
        covered += found.low <= 3 <= found.high
        naive += blind.low <= 3 <= blind.high
    # binomial noise on 2000 rounds is 0.005, and CR1 is a little short with unequal clusters
    assert 0.925 < covered / rounds < 0.965
    assert naive / rounds < 0.85


def test_bootstrap_agrees_with_the_formula_for_a_mean():
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 3)
    values = rng.normal(size=60)[users] + rng.normal(size=180)
    found = mean_estimate(values, users.tolist())
    low, high = bootstrap(values, users.tolist(), np.mean, rounds=2000, seed=0)
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.25 * found.stderr)
    assert (low, high) == bootstrap(values, users.tolist(), np.mean, rounds=2000, seed=0)


def test_bootstrap_draws_whole_clusters():
    # two clusters with sums 3 and 7: a draw is one twice or one of each, so sums 6, 10 or 14
    sums = set()

    def statistic(x):
        sums.add(float(x.sum()))
        return float(x.sum())

    low, high = bootstrap([1, 2, 3, 4], ["a", "a", "b", "b"], statistic, rounds=200, seed=0)
    assert sums == {6.0, 10.0, 14.0}
    assert (low, high) == (6.0, 14.0)


def test_bootstrap_of_rows_with_two_columns():
    x = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    slope = bootstrap(x, None, lambda rows: float((rows[:, 1] / rows[:, 0]).mean()), 50, seed=0)
    assert slope == (2.0, 2.0)


def test_win_rate_counts_ties_as_half():
    found = win_rate([1, 1, 0.5, 0])
    # mean 2.5/4; residuals 0.375, 0.375, -0.125, -0.625: sum of squares 0.6875
    # stderr sqrt(0.6875 / 3 / 4) = 0.239357; 3.182446 * 0.239357 would pass 1
    assert found.mean == 0.625
    assert found.stderr == pytest.approx(0.239357, abs=1e-6)
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_clean_sweep_is_not_certainty():
    # 20 of 20: the true rate p for which p^20 = 0.025 is 0.025^(1/20) = 0.831566
    found = win_rate([1] * 20)
    assert (found.low, found.high) == (pytest.approx(0.831566, abs=1e-6), 1.0)
    exact = scipy.stats.binomtest(20, 20).proportion_ci()
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    lost = win_rate([0] * 20)
    assert (lost.low, lost.high) == (0.0, pytest.approx(1 - 0.831566, abs=1e-6))


def test_a_lone_tie_has_a_win_rate_without_interval():
    assert math.isnan(win_rate([0.5]).low)
    assert math.isnan(win_rate([0.5]).high)


def test_an_outcome_that_is_none_is_an_error():
    with pytest.raises(ValueError, match=r"outcomes \[0.7, 2.0\]"):
        win_rate([1, 0.7, 2])


RANKINGS = [
    ("p1", {"x": 1, "y": 2, "z": 3}),
    ("p1", {"x": 1, "z": 2, "y": 3}),
    ("p1", {"x": 1, "y": 1, "z": 2}),
    ("p2", {"x": 1, "y": 2}),  # labeled once: says nothing about agreement
]


def test_agreement_of_three_labelers():
    # labelers 1 and 2: xy and xz alike, yz not; 1 and 3: xz, yz alike (3 ties xy)
    # 2 and 3: xz alike, yz not. 5 of 7
    found = agreement(RANKINGS)
    assert found.mean == pytest.approx(5 / 7)
    assert (found.n, found.clusters) == (7, 1)
    assert math.isnan(found.stderr)
    # with ties xy counts half for 1 and 3, and for 2 and 3: (5 + 0.5 + 0.5) / 9
    found = agreement_with_ties(RANKINGS)
    assert (found.mean, found.n) == (pytest.approx(6 / 9), 9)


def test_two_ties_agree_fully():
    both = [("p", {"x": 1, "y": 1}), ("p", {"x": 1, "y": 1})]
    assert agreement_with_ties(both).mean == 1.0
    with pytest.raises(ValueError, match="no two labelers ordered the same two responses"):
        agreement(both)


def test_agreement_uses_only_responses_that_both_ranked():
    found = agreement([("p", {"x": 1, "y": 2, "z": 3}), ("p", {"z": 1, "x": 2, "w": 3})])
    assert (found.mean, found.n) == (0.0, 1)  # x and z, the other way round


def test_alpha_of_two_items_is_chance():
    # judgements (1, 1) and (1, 2): observed disagreement 2 ordered pairs;
    # expected 2 * 3 * 1 / (4 - 1) = 2
    assert krippendorff_alpha([[1, 1], [1, 2]], "nominal") == 0.0


def test_alpha_of_krippendorffs_example():
    # Krippendorff 2011, "Computing Krippendorff's alpha-reliability", example C: 0.743 nominal
    x = math.nan
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, x, x, x],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, x, 3],
        [x, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, x],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, x],
    ]
    for level, expected in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert krippendorff_alpha(table, level) == pytest.approx(expected, abs=5e-4)


judgement = st.sampled_from([1.0, 2.0, 3.0, 7.0, math.nan])


@given(st.lists(st.tuples(judgement, judgement, judgement), min_size=2, max_size=10))
def test_alpha_is_that_of_the_krippendorff_package(items):
    table = np.array(items).T
    pairable = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    assume(len(np.unique(pairable[~np.isnan(pairable)])) > 1)
    for level in ("nominal", "ordinal", "interval"):
        expected = krippendorff.alpha(table, level_of_measurement=level)
        assert krippendorff_alpha(table, level) == pytest.approx(expected, abs=1e-10)


def test_alpha_without_disagreement_to_expect_or_without_pairs():
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]], "nominal"))
    for table in ([[1, 2], [math.nan, math.nan]], [[math.nan], [math.nan]]):
        with pytest.raises(ValueError, match="no item was judged twice"):
            krippendorff_alpha(table, "nominal")


def test_kendall_tau_b_with_and_without_ties():
    assert kendall_tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)  # 2 pairs alike, 1 not
    # 5 pairs alike, 1 tied in x: 5 / sqrt(5 * 6) = 0.912871
    assert kendall_tau_b([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.912871, abs=1e-6)
    assert math.isnan(kendall_tau_b([1, 1], [1, 2]))


@pytest.mark.parametrize("freedom", [*range(1, 60), 999, 1000, 1001, 10**6])
def test_the_quantile_of_student_t_is_that_of_scipy(freedom):
    assert student_t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=2e-12)


def test_an_interval_stays_within_its_scale_and_says_something_at_its_ends():
    # three clusters that all say 7 of 1 to 7: 1 + 6 * 0.025^(1/3)
    found = within(mean_estimate([7, 7, 7]), 1, 7)
    assert (found.low, found.high) == (pytest.approx(2.754411, abs=1e-6), 7)
    down = within(mean_estimate([-1, -1, -1]), -1, 1)
    assert (down.low, down.high) == (-1, pytest.approx(1 - 2 * 0.025 ** (1 / 3)))
    assert within(mean_estimate([1, 7]), 1, 7).low == 1
    none = within(mean_estimate([0, 0]), 0, math.inf)  # seconds have no most
    assert (none.low, none.high) == (0, 0)
    free = mean_estimate([3, 4, 5, 4])
    assert within(free, 1, 7) == free
    assert math.isnan(within(mean_estimate([3, 4], "pp"), 1, 7).low)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_kendall_tau_b_is_that_of_scipy(pairs):
    x, y = zip(*pairs, strict=True)
    expected = scipy.stats.kendalltau(x, y).statistic
    assert kendall_tau_b(x, y) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_cohen_kappa_of_fifty_items():
    # both yes 20, yes/no 5, no/yes 10, both no 15: observed 35/50 = 0.7
    # chance 25/50 * 30/50 + 25/50 * 20/50 = 0.5; (0.7 - 0.5) / 0.5 = 0.4
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4, abs=1e-12)
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    with pytest.raises(ValueError, match="2 and 1 labels"):
        cohen_kappa([1, 2], [1])


def test_fleiss_kappa_of_four_items():
    # agreement per item 1, 0, 1, 1: mean 0.75; shares 5/8 and 3/8: chance 34/64 = 0.53125
    # (0.75 - 0.53125) / 0.46875 = 0.466667
    counts = [[2, 0], [1, 1], [0, 2], [2, 0]]
    assert fleiss_kappa(counts) == pytest.approx(0.466667, abs=1e-6)
    with pytest.raises(ValueError, match="items have 2 to 3 labels"):
        fleiss_kappa([[2, 0], [1, 2]])


def test_bradley_terry_of_two_players():
    # 3 wins to 1: strengths in the ratio 3 : 1, so log 3 apart
    expected = [math.log(3) / 2, -math.log(3) / 2]
    assert bradley_terry([[0, 3], [1, 0]]).tolist() == pytest.approx(expected, abs=1e-9)
    # ties take the same share from both
    tied = bradley_terry([[0, 3], [1, 0]], [[0, 2], [2, 0]])
    assert tied.tolist() == pytest.approx(expected, abs=1e-9)


def test_bradley_terry_is_that_of_choix_without_ties():
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 9, size=(6, 6)) * (rng.random((6, 6)) < 0.8)
    np.fill_diagonal(wins, 0)
    games = [(i, j) for i in range(6) for j in range(6) for _ in range(wins[i, j])]
    expected = choix.opt_pairwise(6, games)
    found = bradley_terry(wins)
    assert found == pytest.approx(expected - expected.mean(), abs=1e-5)
    assert found.sum() == pytest.approx(0.0, abs=1e-12)


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=5), st.floats(0.1, 3))
def test_davidson_recovers_the_strengths_that_made_the_counts(log_strengths, c):
    s = np.exp(log_strengths)
    between = c * np.sqrt(np.outer(s, s))
    total = s[:, None] + s[None, :] + between
    wins, ties = 100 * s[:, None] / total, 100 * between / total
    np.fill_diagonal(wins, 0)
    np.fill_diagonal(ties, 0)
    found = bradley_terry(wins, ties)
    assert found == pytest.approx(np.subtract(log_strengths, np.mean(log_strengths)), abs=1e-6)


def test_only_ties_means_equal_strengths():
    assert bradley_terry(np.zeros((2, 2)), [[0, 5], [5, 0]]).tolist() == [0.0, 0.0]
    assert bradley_terry([[0]]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("wins", "ties", "message"),
    [
        ([[0, 3], [0, 0]], None, "no finite strengths are best"),
        ([[0, 3], [0, 0]], [[0, 1], [1, 0]], "no finite strengths are best"),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], None, "some players never met"),
        ([[0, 1], [1, 0]], [[0, 1], [0, 0]], "ties are not symmetric"),
    ],
)
def test_bradley_terry_refuses_what_has_no_answer(wins, ties, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(wins, ties)


def test_best_of_n_kl():
    # log 16 - 15/16 = 2.772589 - 0.9375
    assert best_of_n_kl(16) == pytest.approx(1.835089, abs=1e-6)
    assert best_of_n_kl(1) == 0.0


def test_compute_of_the_paper_at_2048_tokens_an_example():
    # Ouyang et al. 2022 report 4.9 (SFT), 60 (PPO-ptx) and 3640 (GPT-3) petaflop/s-days for 175B.
    # With every example counted as a full context of 2048 tokens:
    n, small, context = 175e9, 6e9, 2048
    # 16 epochs on 12,725 demonstrations: 6 * 175e9 * 417e6 = 4.38e20 -> 5.07
    sft = petaflop_days(train_flops(n, 16 * 12_725 * context))
    # 256k episodes: sample (2), read by the reference (2), train (6); a 6B reward model reads,
    # a 6B value function reads and trains; 8 times as many pretraining examples are trained on
    episodes = 256_000 * context
    ppo_ptx = petaflop_days(
        2 * forward_flops(n, episodes)
        + train_flops(n, episodes)
        + 2 * forward_flops(small, episodes)
        + train_flops(small, episodes)
        + train_flops(n, 8 * episodes)
    )
    gpt3 = petaflop_days(train_flops(n, 300e9))
    assert sft == pytest.approx(4.9, rel=0.05)
    assert ppo_ptx == pytest.approx(60, rel=0.05)
    assert gpt3 == pytest.approx(3640, rel=0.05)
    assert petaflop_days(8.64e19) == 1.0


def rows(shared, name):
    with gzip.open(shared / "data" / name, "rt", encoding="utf-8", newline="") as file:
        if name.endswith(".csv.gz"):
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file]


def judgement_table(by_item):
    """(labelers, items) with nan; who judged does not matter, only how many."""
    table = np.full((max(map(len, by_item)), len(by_item)), np.nan)
    for item, judged in enumerate(by_item):
        table[: len(judged), item] = judged
    return table


def test_kappas_of_the_pandalm_annotators(shared):
    items = rows(shared, "agreement/pandalm_testset_v1.jsonl.gz")
    labels = [[row[f"annotator{k}"] for row in items] for k in (1, 2, 3)]
    found = [cohen_kappa(labels[a], labels[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found == pytest.approx([0.852, 0.879, 0.862], abs=5e-4)
    counts = [[who.count(k) for k in (0, 1, 2)] for who in zip(*labels, strict=True)]
    assert fleiss_kappa(counts) == pytest.approx(0.8642, abs=5e-5)


def test_agreement_of_the_tldr_labelers(shared):
    items = rows(shared, "agreement/tldr_repeated_judgements.jsonl.gz")
    rankings = [
        (str(item), {"a": 1 + (side == "b"), "b": 1 + (side == "a")})
        for item, row in enumerate(items)
        for side in "a" * row["votes_a"] + "b" * row["votes_b"]
    ]
    found = agreement(rankings)
    assert (found.n, found.clusters) == (7257, 95)
    assert found.mean == pytest.approx(0.7273, abs=5e-5)
    assert agreement_with_ties(rankings).mean == found.mean
    table = judgement_table([[1] * row["votes_a"] + [2] * row["votes_b"] for row in items])
    assert krippendorff_alpha(table, "nominal") == pytest.approx(0.4217, abs=5e-5)


def test_alpha_of_the_llmfao_crowd(shared):
    by_pair = defaultdict(list)
    for row in rows(shared, "agreement/llmfao_crowd_comparisons.csv.gz"):
        by_pair[row["id"]].append(["left", "tie", "right"].index(row["winner"]))
    assert len(by_pair) == 2139
    table = judgement_table(list(by_pair.values()))
    assert krippendorff_alpha(table, "nominal") == pytest.approx(0.2906, abs=5e-5)


def test_win_rates_of_the_alpaca_eval_leaderboard(shared):
    outcomes = defaultdict(list)
    for row in rows(shared, "evaluation/alpaca_eval/gpt4_preferences.csv.gz"):
        preference = float(row["preference"])
        outcomes[row["model"]].append({1.0: 0.0, 2.0: 1.0}.get(preference, 0.5))
    board = {row["model"]: row for row in rows(shared, "evaluation/alpaca_eval/leaderboard.csv.gz")}
    checked = sorted(outcomes.keys() & board.keys())
    assert checked
    for model in checked:
        found = win_rate(outcomes[model])
        assert 100 * found.mean == pytest.approx(float(board[model]["win_rate"]), abs=1e-6)
        assert 100 * found.stderr == pytest.approx(float(board[model]["standard_error"]), abs=1e-6)


def test_calibration_error_by_hand():
    # two bins of [0, 1]: 0.1 and 0.3 came true half the time (gap 0.5 - 0.2), 0.9 always (gap 0.1)
    assert calibration_error([0.1, 0.3, 0.9], [0, 1, 1], bins=2) == pytest.approx(
        (2 * 0.3 + 1 * 0.1) / 3
    )
    assert calibration_error([1.0, 0.0], [1, 0]) == 0


def test_calibration_of_true_probabilities_is_near_zero():
    rng = np.random.default_rng(0)
    p = rng.random(40000)
    assert calibration_error(p, rng.random(40000) < p) < 0.01
    assert calibration_error(p, np.ones(40000)) == pytest.approx(0.5, abs=0.01)


def test_calibration_error_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="0"):
        calibration_error([], [])
