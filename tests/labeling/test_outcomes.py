"""labeling/outcomes.py: small evaluations by hand, choix, and a published leaderboard."""

from __future__ import annotations

import csv
import gzip
import math
import random

import choix
import pytest

from instil.errors import InstilError
from instil.labeling.outcomes import Comparisons, strengths, win_rates
from instil.records import Ranking


def ranking(prompt, *tiers, labeler="ann"):
    """Responses are named policy or policy:number, several in a tier with a space between."""
    return Ranking(
        prompt_id=prompt,
        labeler_id=labeler,
        tiers=tuple(tuple(f"{prompt}/{name}" for name in tier.split()) for tier in tiers),
    )


def policies(rankings):
    return {
        response: response.split("/")[1].split(":")[0]
        for found in rankings
        for response in found.response_ids()
    }


def test_win_rates_of_three_policies():
    rankings = [
        ranking("p1", "ppo", "sft", "gpt"),
        ranking("p2", "ppo sft"),
        ranking("p3", "sft", "ppo"),
        ranking("p4", "ppo", "gpt"),  # the baseline is not in it
    ]
    found = win_rates(Comparisons(policies(rankings), rankings), "sft")
    assert list(found) == ["gpt", "ppo"]
    assert (found["ppo"].mean, found["ppo"].n) == ((1 + 0.5 + 0) / 3, 3)
    assert found["ppo"].stderr == pytest.approx(0.5 / math.sqrt(3))  # of 1, 0.5, 0
    assert (found["gpt"].mean, found["gpt"].n) == (0, 1)
    # seen from the other side
    back = win_rates(Comparisons(policies(rankings), rankings[:3]), "ppo")["sft"]
    assert back.mean == 1 - found["ppo"].mean
    assert back.stderr == pytest.approx(found["ppo"].stderr)


def test_several_responses_and_labelers_of_a_prompt_are_one_cluster():
    rankings = [
        ranking("p1", "ppo:1", "sft:1 ppo:2", "sft:2"),  # 1, 1, 0.5, 1
        ranking("p1", "sft:1", "ppo:1", labeler="bob"),  # 0
        ranking("p2", "sft", "ppo"),  # 0
    ]
    found = win_rates(Comparisons(policies(rankings), rankings), "sft")["ppo"]
    assert (found.mean, found.n, found.clusters) == (3.5 / 6, 6, 2)


def test_labelers_who_disagree_make_a_win_rate_less_sure():
    # ann always prefers ppo, bob and cid never: not sixty independent outcomes but three tastes
    rankings = [
        found
        for number in range(20)
        for found in (
            ranking(f"p{number}", "ppo", "sft"),
            ranking(f"p{number}", "sft", "ppo", labeler="bob"),
            ranking(f"p{number}", "sft", "ppo", labeler="cid"),
        )
    ]
    found = win_rates(Comparisons(policies(rankings), rankings), "sft")["ppo"]
    assert (found.mean, found.n, found.clusters) == (pytest.approx(1 / 3), 60, 20)
    # residuals of the labelers sum to 40/3, -20/3 and -20/3: V = 3/2 * 2400/9 / 60^2 = 1/9; those
    # of a prompt to 0
    assert found.stderr == pytest.approx(1 / 3)
    assert (found.low, found.high) == (0, 1)
    alone = win_rates(Comparisons(policies(rankings), rankings[::3]), "sft")["ppo"]
    assert (alone.mean, alone.clusters) == (1, 20)


def test_whoever_likes_the_first_shown_is_at_one_half():
    # each pair is judged in both orders, and what is shown first always wins
    rankings = [
        found
        for number in range(10)
        for found in (ranking(f"p{number}", "ppo", "sft"), ranking(f"p{number}", "sft", "ppo"))
    ]
    found = win_rates(Comparisons(policies(rankings), rankings), "sft")["ppo"]
    # ten prompts that all say 0.5, not twenty independent outcomes
    assert (found.mean, found.stderr, found.clusters) == (0.5, 0.0, 10)


def test_a_baseline_that_was_not_compared_is_an_error():
    rankings = [ranking("p", "ppo", "sft"), ranking("q", "old:1", "old:2")]
    for baseline in ("gpt", "old"):
        with pytest.raises(InstilError, match=f"'{baseline}'; compared are ppo, sft"):
            win_rates(Comparisons(policies(rankings), rankings), baseline)
    with pytest.raises(InstilError, match="compared are none"):
        win_rates(Comparisons({}, []), "sft")


def test_a_response_without_a_policy_is_an_error():
    found = ranking("p", "ppo", "sft")
    for figures in (
        lambda: win_rates(Comparisons({"p/ppo": "ppo"}, [found]), "sft"),
        lambda: strengths(Comparisons({"p/ppo": "ppo"}, [found]), 2, seed=0),
    ):
        with pytest.raises(InstilError, match=r"ranking of prompt p by ann: .* wrote p/sft"):
            figures()


def against(wins, losses, ties=0, labelers=1):
    """One prompt for each outcome of ppo against sft, labeled alike by several."""
    tiers = [("ppo", "sft")] * wins + [("sft", "ppo")] * losses + [("ppo sft",)] * ties
    return [
        ranking(f"p{number}", *found, labeler=f"l{labeler}")
        for number, found in enumerate(tiers)
        for labeler in range(labelers)
    ]


def test_ties_leave_the_odds_between_two_policies_alone():
    # 6 wins to 2: odds 3, so the strengths are log 3 apart, however many ties there are
    for ties in (0, 4, 40):
        rankings = against(6, 2, ties)
        found = strengths(Comparisons(policies(rankings), rankings), rounds=2, seed=0)
        assert found["ppo"].mean == pytest.approx(math.log(3) / 2, abs=1e-9)
        assert found["sft"].mean == pytest.approx(-math.log(3) / 2, abs=1e-9)
        assert (found["ppo"].n, found["ppo"].clusters) == (8 + ties, 8 + ties)


@pytest.mark.slow
def test_the_bootstrap_draws_whole_prompts():
    # half of log(40/20): standard error sqrt(1/40 + 1/20) / 2 = 0.136931, and labeling each prompt
    # three times over with the same result adds no certainty
    once, thrice = (
        strengths(Comparisons(policies(rankings), rankings), rounds=1000, seed=0)["ppo"]
        for rankings in (against(40, 20), against(40, 20, labelers=3))
    )
    assert once.stderr == pytest.approx(0.136931, rel=0.1)
    assert once.low == pytest.approx(once.mean - 1.96 * 0.136931, abs=0.05)
    assert once.high == pytest.approx(once.mean + 1.96 * 0.136931, abs=0.05)
    assert (thrice.mean, thrice.stderr) == pytest.approx((once.mean, once.stderr))
    assert (thrice.n, thrice.clusters) == (180, 60)
    rankings = against(40, 20)
    assert strengths(Comparisons(policies(rankings), rankings), rounds=1000, seed=0)["ppo"] == once


def test_an_end_without_evidence_is_infinite():
    # one loss in ten is missing from a third of the draws: nothing bounds ppo from above
    rankings = against(9, 1)
    found = strengths(Comparisons(policies(rankings), rankings), rounds=300, seed=0)
    assert math.isfinite(found["ppo"].low) and found["ppo"].high == math.inf
    assert found["sft"].low == -math.inf and math.isfinite(found["sft"].high)
    assert math.isfinite(found["ppo"].stderr)


def test_who_never_met_in_a_draw_is_open_at_both_ends():
    # gpt meets the others in one prompt only, and is not in a third of the draws
    rankings = [*against(8, 8), ranking("q", "gpt:1", "ppo", "gpt:2")]
    found = strengths(Comparisons(policies(rankings), rankings), rounds=300, seed=0)["gpt"]
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert (found.n, found.clusters) == (2, 1)


def test_one_prompt_has_no_interval():
    rankings = [ranking("p", "ppo:1", "sft", "ppo:2")]
    found = strengths(Comparisons(policies(rankings), rankings), rounds=50, seed=0)["ppo"]
    assert (found.mean, found.low, found.high) == (pytest.approx(0), -math.inf, math.inf)
    assert math.isnan(found.stderr)


def test_strengths_that_are_not_finite_are_refused():
    rankings = against(3, 0, 2)
    with pytest.raises(InstilError, match=r"policies ppo, sft: no finite strengths.*more prompts"):
        strengths(Comparisons(policies(rankings), rankings), rounds=2, seed=0)
    rankings = [ranking("p", "sft:1", "sft:2")]
    with pytest.raises(InstilError, match="no ranking has responses of two policies"):
        strengths(Comparisons(policies(rankings), rankings), rounds=2, seed=0)


def test_strengths_are_those_of_choix():
    rng = random.Random(0)
    names = ["gpt", "ppo", "rm", "sft"]
    rankings = [
        ranking(f"p{n}", *sorted(rng.sample(names, 3), key=lambda name: rng.gauss(len(name), 2)))
        for n in range(60)
    ]
    of = policies(rankings)
    games = [
        (names.index(of[better]), names.index(of[worse]))
        for found in rankings
        for better, worse in found.pairs()
    ]
    expected = choix.opt_pairwise(4, games)
    found = strengths(Comparisons(of, rankings), rounds=2, seed=0)
    assert [found[name].mean for name in names] == pytest.approx(
        list(expected - expected.mean()), abs=1e-5
    )


@pytest.fixture(scope="module")
def leaderboard(shared):
    """Model -> its published row, and a ranking for each of its outcomes against the reference."""
    folder = shared / "data" / "evaluation" / "alpaca_eval"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")

    def rows(name):
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    board = {row["model"]: row for row in rows("leaderboard.csv.gz")}
    rankings = {model: [] for model in board}
    for row in rows("gpt4_preferences.csv.gz"):
        model = row["model"]
        tiers = {1.0: ("reference", model), 2.0: (model, "reference")}.get(
            float(row["preference"]), (f"{model} reference",)
        )
        rankings[model].append(ranking(row["item"], *tiers))
    return board, rankings


def test_win_rates_of_the_alpaca_eval_leaderboard(leaderboard):
    board, by_model = leaderboard
    rankings = [found for of_model in by_model.values() for found in of_model]
    found = win_rates(Comparisons(policies(rankings), rankings), "reference")
    assert found.keys() == board.keys() and len(board) == 29
    for model, row in board.items():
        assert found[model].n == int(float(row["n_total"]))
        assert 100 * found[model].mean == pytest.approx(float(row["win_rate"]), abs=1e-6)
        assert 100 * found[model].stderr == pytest.approx(float(row["standard_error"]), abs=1e-6)


def test_strengths_order_the_alpaca_eval_leaderboard(leaderboard):
    # all models met the reference only: then more wins plus half ties is more strength
    board, by_model = leaderboard
    rankings = [found for of_model in by_model.values() for found in of_model]
    found = strengths(Comparisons(policies(rankings), rankings), rounds=2, seed=0)
    published = sorted(board, key=lambda model: float(board[model]["win_rate"]))
    assert sorted(board, key=lambda model: found[model].mean) == published


def test_the_bootstrap_has_the_standard_error_of_alpaca_eval(leaderboard):
    # p = sigmoid(2 s) nearly, as ties are few: the error of s is that of p over 2 p (1 - p)
    board, by_model = leaderboard
    model = min(board, key=lambda model: float(board[model]["n_draws"]))
    p, stderr = (float(board[model][name]) / 100 for name in ("win_rate", "standard_error"))
    found = strengths(Comparisons(policies(by_model[model]), by_model[model]), rounds=500, seed=0)[
        model
    ]
    assert found.stderr == pytest.approx(stderr / (2 * p * (1 - p)), rel=0.1)
