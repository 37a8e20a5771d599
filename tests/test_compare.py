"""compare.py: small cases by hand, scipy, and simulations in which the truth is known."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats

from instil.compare import (
    both_orders,
    holm,
    length_controlled_win_rate,
    p_value,
    paired_difference,
    two_way_mean,
    two_way_win_rate,
)
from instil.stats import Estimate, mean_estimate, win_rate

PROMPTS, LABELERS = ["p", "p", "q", "q"], ["ann", "bob", "ann", "bob"]


def test_two_way_mean_by_hand():
    # mean 4, residuals -4 0 0 4. By prompt their sums are -4 and 4: V = 2/1 (16 + 16) / 4^2 = 4; by
    # labeler the same; by both, each value alone: V = 4/3 * 32 / 16 = 8/3. 4 + 4 - 8/3 = 16/3.
    # Student's t with one degree of freedom is 12.706205
    found = two_way_mean([0, 4, 4, 8], PROMPTS, LABELERS)
    assert (found.mean, found.n, found.clusters) == (4.0, 4, 2)
    assert found.stderr == pytest.approx(math.sqrt(16 / 3), abs=1e-12)
    assert found.high == pytest.approx(4 + 12.706205 * math.sqrt(16 / 3), abs=1e-4)


def test_two_way_mean_is_never_surer_than_one_way():
    # mean 3, residuals -2 -1 0 3: V = 2 (9 + 9) / 16 = 2.25 by prompt, 2 (4 + 4) / 16 = 1 by
    # labeler, 4/3 * 14 / 16 = 1.1667 by both; 2.25 + 1 - 1.1667 is less than 2.25
    assert two_way_mean([1, 2, 3, 6], PROMPTS, LABELERS).stderr == pytest.approx(1.5, abs=1e-12)
    # residuals 1 -1 -1 1 sum to 0 in every prompt and for every labeler; less 4/3 * 4 / 16 they
    # would make a negative variance: that of independent values is the least
    assert two_way_mean([1, -1, -1, 1], PROMPTS, LABELERS).stderr == pytest.approx(3**-0.5)
    assert two_way_mean([2, 2, 2, 2], PROMPTS, LABELERS).high == 2


def test_degrees_of_freedom_are_those_of_satterthwaite():
    # nine prompts, three labelers who do not differ: residuals of a prompt's three values sum to
    # -3, 0 or 3, V = 9/8 * 6 * 9 / 27^2 = 1/12; by labeler to 0; by both each is alone, V = 27/26 *
    # 18 / 27^2 = 0.0256410; freedom 1 / (1/8 + (0.0256410 * 12)^2 / 26) = 7.77, so 7: t is 2.364624
    values, prompts = np.repeat([1.0, 2, 3], 9), np.repeat(np.arange(9), 3)
    found = two_way_mean(values, prompts, ["ann", "bob", "cid"] * 9)
    assert (found.stderr, found.clusters) == (pytest.approx(12**-0.5), 3)
    assert (found.high - found.mean) / found.stderr == pytest.approx(2.364624, abs=1e-5)


def test_a_two_way_win_rate_rises_with_its_wins():
    prompts, labelers = np.repeat(np.arange(20), 3), ["ann", "bob", "cid"] * 20
    swept = two_way_win_rate([1] * 60, prompts, labelers)
    # twenty prompts: 0.025^(1/20), as sure as one labeler would make it, and surer than with a loss
    assert (swept.low, swept.high, swept.clusters) == (pytest.approx(0.831567, abs=1e-6), 1, 20)
    assert two_way_win_rate([0, *[1] * 59], prompts, labelers).low < swept.low + 0.1
    nothing = two_way_win_rate([0] * 60, prompts, labelers)
    assert (nothing.low, nothing.high) == (0, pytest.approx(0.168433, abs=1e-6))
    assert two_way_win_rate([1, 1, 0.5, 0], PROMPTS, LABELERS).high == 1


@pytest.mark.parametrize("labelers", [["ann"] * 4, ["ann", "bob"] * 2])
def test_the_win_rate_of_one_or_two_labelers_is_over_prompts(labelers):
    outcomes, prompts = [1, 0, 0.5, 1], ["p", "p", "q", "r"]
    assert two_way_win_rate(outcomes, prompts, labelers) == win_rate(outcomes, prompts)


def test_one_labeler_says_nothing_of_others():
    found = two_way_mean([1, 2, 3], ["p", "q", "r"], ["ann"] * 3)
    assert found.mean == 2
    assert all(math.isnan(x) for x in (found.stderr, found.low, found.high))


def test_every_value_has_a_prompt_and_a_labeler():
    with pytest.raises(ValueError):
        two_way_mean([1, 2], ["p", "q"], ["ann"])


def test_a_paired_difference_takes_out_what_both_find_hard():
    # differences 1 1 0 2: mean 1, s = sqrt(2/3), standard error sqrt(2/3 / 4) = 0.408248
    found = paired_difference([11, 21, 30, 42], [10, 20, 30, 40])
    assert (found.mean, found.n) == (1.0, 4)
    assert found.stderr == pytest.approx(0.408248, abs=1e-6)
    # in two clusters residual sums are 0 and 0
    assert paired_difference([11, 21, 30, 42], [10, 20, 30, 40], [0, 0, 1, 1]).stderr == 0
    with pytest.raises(ValueError, match="one of each model"):
        paired_difference([1, 2], [1])


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for clusters in (2, 3, 4, 5, 12, 31, 800, 20_001):
        values = rng.normal(0.5 / math.sqrt(clusters), size=clusters)
        expected = scipy.stats.ttest_1samp(values, 0.1).pvalue
        assert p_value(mean_estimate(values), 0.1) == pytest.approx(expected, abs=1e-12)


def test_p_values_at_the_edges():
    assert p_value(mean_estimate([0.5, 0.5]), 0.5) == 1
    assert p_value(mean_estimate([3.0])) == 1  # one cluster cannot say
    # five of five in one direction by the same amount: the sign test, 2 / 2^5
    assert p_value(mean_estimate([0.1] * 5)) == 1 / 16
    assert p_value(Estimate(9.0, 0.01, 0, 0, 50, 50)) == pytest.approx(0, abs=1e-12)


def test_holm_by_hand():
    # 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, then 0.04 * 1 but never below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_reports_falsely_one_time_in_twenty():
    rng, rounds = np.random.default_rng(0), 2000
    alone, adjusted = 0, 0
    for _ in range(rounds):
        p = rng.random(14).tolist()
        alone += min(p) < 0.05
        adjusted += min(holm(p)) < 0.05
    assert alone / rounds == pytest.approx(1 - 0.95**14, abs=0.03)  # 0.512, as the docstring says
    assert 0.035 < adjusted / rounds < 0.06


def test_both_orders_by_hand():
    # ours first: win, win, tie, tie; ours second: win, loss, win, tie. Mean (2 + 1 + 1.5 + 1) / 8.
    # Of the five verdicts that are no ties three went to the first: all wins of ours when first
    # (2), its loss when second (1), not its two wins when second
    found = both_orders([1, 1, 0.5, 0.5], [1, 0, 1, 0.5])
    assert (found.win_rate.mean, found.win_rate.n, found.win_rate.clusters) == (5.5 / 8, 8, 4)
    assert found.first is not None and (found.first.mean, found.first.n) == (0.6, 5)
    assert (found.consistent.mean, found.consistent.n) == (0.5, 4)


def test_a_judge_who_likes_the_first_is_found_out():
    found = both_orders([1] * 10, [0] * 10)
    assert (found.win_rate.mean, found.win_rate.stderr) == (0.5, 0)
    assert found.first is not None and found.first.mean == 1
    assert found.consistent.mean == 0


def test_both_orders_of_ties_only_and_of_what_is_no_outcome():
    assert both_orders([0.5], [0.5]).first is None
    with pytest.raises(ValueError, match=r"outcomes \[0\.7\]"):
        both_orders([0.7], [0])
    with pytest.raises(ValueError, match="shown twice"):
        both_orders([1, 0], [0])


def test_length_controlled_win_rate_of_two_lengths():
    # our response is one standard deviation longer or shorter; it wins 90 % when longer, 50 % when
    # shorter: a + b t = log 9 and a - b t = 0, so a = log 3 and sigmoid(a) = 3/4, not 0.7
    wins = [1] * 900 + [0] * 100 + [1] * 500 + [0] * 500
    found = length_controlled_win_rate(wins, [20] * 1000 + [10] * 1000, [15] * 2000, rounds=100)
    assert found.mean == pytest.approx(0.75, abs=1e-4)
    assert (found.n, found.clusters) == (2000, 2000)
    # standard error of a: half of sqrt(1/90 + 1/250), by the delta method times 0.75 * 0.25
    assert found.stderr == pytest.approx(math.sqrt(1 / 90 + 1 / 250) / 2 * 0.1875, rel=0.2)
    assert found.low < 0.75 < found.high


def test_length_control_finds_no_winner_where_only_length_wins():
    rng = np.random.default_rng(0)
    ours, theirs = rng.poisson(80, 3000), rng.poisson(60, 3000)
    wins = rng.random(3000) < 1 / (1 + np.exp(-3 * np.tanh((ours - theirs) / 12)))
    plain = win_rate(wins)
    found = length_controlled_win_rate(wins, ours, theirs, rounds=100)
    assert plain.low > 0.75
    assert found.low < 0.5 < found.high and found.high - found.low < 0.15


def test_equal_lengths_leave_the_win_rate_alone():
    outcomes = [1, 1, 0.5, 0, 1, 0.5] * 20
    found = length_controlled_win_rate(outcomes, [7] * 120, [7] * 120, rounds=100)
    assert found.mean == pytest.approx(4 / 6, abs=1e-4)


def test_length_control_draws_whole_clusters():
    outcomes, lengths = [1, 0, 0.5, 1, 0, 1] * 10, [3, 9, 4, 1, 2, 6] * 10
    alone = length_controlled_win_rate(outcomes, lengths, [5] * 60, rounds=400)
    thrice = length_controlled_win_rate(
        np.repeat(outcomes, 3),
        np.repeat(lengths, 3),
        [5] * 180,
        np.repeat(range(60), 3).tolist(),
        400,
    )
    assert thrice.mean == pytest.approx(alone.mean, abs=2e-3)  # but for the prior
    assert thrice.stderr == pytest.approx(alone.stderr, rel=0.05)
    assert thrice.clusters == 60


def test_length_control_at_the_edges():
    swept = length_controlled_win_rate([1] * 20, range(20), [0] * 20)
    assert swept == win_rate([1] * 20)
    # every longer response wins: no finite b is best, and the prior keeps the answer finite
    apart = length_controlled_win_rate([1, 1, 0, 0] * 9, [9, 8, 1, 2] * 9, [5] * 36, rounds=100)
    assert 0.2 < apart.mean < 0.8
    assert math.isnan(length_controlled_win_rate([1, 0], [1, 2], [2, 1], ["p", "p"]).low)
    for wrong in ([], [1, 2], [1]):
        with pytest.raises(ValueError, match="outcomes and"):
            length_controlled_win_rate(wrong, [1, 2], [1, 1])


def coverage(interval, truth, rounds=4000):
    """How often a 95 % interval holds the truth; binomial noise on 4000 rounds is 0.0034."""
    rng = np.random.default_rng(0)
    return sum(found.low <= truth <= found.high for found in map(interval, [rng] * rounds)) / rounds


USERS = np.repeat(np.arange(48), np.tile([1, 2, 3, 4], 12))  # 48 users, unequally many values each


def clustered_mean(rng):
    return mean_estimate(
        3 + rng.normal(size=48)[USERS] + 0.5 * rng.normal(size=len(USERS)), USERS.tolist()
    )


def clustered_win_rate(rng):
    # 100 prompts, 3 labelers each, a fifth ties; a prompt's own rate is Beta(1.24, 0.76), mean 0.62
    prompts = np.repeat(np.arange(100), 3)
    wins = rng.random(300) < rng.beta(1.24, 0.76, size=100)[prompts]
    return win_rate(np.where(rng.random(300) < 0.2, 0.5, wins), prompts.tolist())


def crossed(rng, estimate, people=20, taste=0.5, spread=0.7, each=3):
    # 60 prompts, each judged by `each` of `people`; both have a taste of their own
    prompts = np.repeat(np.arange(60), each)
    labelers = np.concatenate([rng.choice(people, each, replace=False) for _ in range(60)])
    tastes = spread * rng.normal(size=60)[prompts] + taste * rng.normal(size=people)[labelers]
    return estimate(tastes + rng.normal(size=60 * each), prompts, labelers)


def paired(rng):
    hard = 2 * rng.normal(size=48)[USERS] + rng.normal(size=len(USERS))
    ours = hard + 0.3 + 0.5 * rng.normal(size=48)[USERS] + rng.normal(size=len(USERS))
    return paired_difference(ours, hard, USERS.tolist())


CROSSED = (
    {},
    {"people": 5},
    {"people": 3},
    {"people": 6, "each": 1},
    {"taste": 0.0},
    {"spread": 0.0},
)


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (clustered_mean, 3.0),
        (clustered_win_rate, 0.8 * 0.62 + 0.2 * 0.5),
        (paired, 0.3),
        *(
            pytest.param(
                partial(crossed, estimate=two_way_mean, **case), 0.0, marks=pytest.mark.slow
            )
            for case in CROSSED
        ),
    ],
    ids=[
        *("mean", "win rate", "paired"),
        *("two-way", "five labelers", "three labelers", "one each", "of one taste", "like prompts"),
    ],
)
def test_intervals_cover_the_truth_nineteen_times_in_twenty(interval, truth):
    assert 0.93 < coverage(interval, truth) < 0.97


@pytest.mark.slow
def test_the_two_way_interval_is_wide_where_neither_prompts_nor_labelers_matter():
    found = coverage(lambda rng: crossed(rng, two_way_mean, 5, taste=0.0, spread=0.0), 0.0)
    assert 0.95 < found < 0.99


def test_clusters_of_one_kind_are_not_enough_where_labelers_recur():
    found = coverage(
        lambda rng: crossed(rng, lambda x, prompts, _: mean_estimate(x, prompts)), 0.0, 500
    )
    assert found < 0.9


@pytest.mark.slow
def test_length_controlled_interval_covers_the_truth():
    def interval(rng):
        ours, theirs = rng.poisson(80, 200), rng.poisson(70, 200)
        # the estimator's own s varies a little; the truth is at length difference 0 all the same
        chance = 1 / (1 + np.exp(-0.5 - 1.5 * np.tanh((ours - theirs) / math.sqrt(150))))
        outcomes = (rng.random(200) < chance).astype(float)
        return length_controlled_win_rate(outcomes, ours, theirs, rounds=200)

    assert 0.92 < coverage(interval, 1 / (1 + math.exp(-0.5)), rounds=250) < 0.98
