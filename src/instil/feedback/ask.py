"""Ask the simulated labelers: demonstrations, rankings of K = 4 to 9 responses, ratings.

What comes back are the same records that people's labels are exported as; the trainers cannot tell
the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from instil.feedback.simulated import SimulatedLabeler, demonstrate, rank, rate, truth_judge
from instil.records import Demonstration, Prompt, Ranking, Rating, Response
from instil.stats import Estimate, agreement, mean_estimate
from instil.world.lexicon import World

FEWEST, MOST = 4, 9
"""Responses that a labeler ranks at a time (Ouyang et al. 2022, section 3.5)."""


def demonstrations(
    world: World, labelers: Sequence[SimulatedLabeler], prompts: Sequence[Prompt], seed: int
) -> list[Demonstration]:
    """One demonstration per prompt, by a labeler drawn for it."""
    found = []
    for prompt in prompts:
        rng = Random(f"demonstration {seed} {prompt.id}")
        found.append(demonstrate(rng.choice(list(labelers)), world, prompt, rng))
    return found


def how_many(prompt_id: str, seed: int) -> int:
    """K of this prompt's ranking."""
    return Random(f"how many {seed} {prompt_id}").randint(FEWEST, MOST)


def rankings(
    world: World,
    labelers: Sequence[SimulatedLabeler],
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Response]],
    overlap: int,
    seed: int,
) -> tuple[list[Ranking], list[Rating]]:
    """`overlap` labelers, drawn for each prompt, rank and rate all of its responses."""
    ranked, rated = [], []
    for prompt in prompts:
        rng = Random(f"ranking {seed} {prompt.id}")
        shown = responses[prompt.id]
        for labeler in rng.sample(list(labelers), overlap):
            ranked.append(rank(labeler, world, prompt, shown))
            rated += [rate(labeler, world, prompt, response) for response in shown]
    return ranked, rated


def agreement_of(rankings: Sequence[Ranking]) -> Estimate:
    """How often two labelers of one prompt order a pair of responses alike, ties left out."""
    return agreement([(ranking.prompt_id, ranking.ranks()) for ranking in rankings])


def between(ours: Sequence[Ranking], theirs: Sequence[Ranking]) -> Estimate:
    """The same for pairs of labelers of two groups."""
    others: dict[str, list[dict[str, int]]] = {}
    for ranking in theirs:
        others.setdefault(ranking.prompt_id, []).append(ranking.ranks())
    outcomes, clusters = [], []
    for ranking in ours:
        for ranks in others.get(ranking.prompt_id, ()):
            for better, worse in ranking.pairs():
                if ranks[better] != ranks[worse]:
                    outcomes.append(float(ranks[better] < ranks[worse]))
                    clusters.append(ranking.prompt_id)
    return mean_estimate(outcomes, clusters)


def ceiling(
    world: World,
    group: Sequence[SimulatedLabeler],
    prompts: Mapping[str, Prompt],
    responses: Mapping[str, Response],
    rankings: Sequence[Ranking],
) -> Estimate:
    """Pair accuracy of a judge that knows the truth and the group's mean taste."""
    judge = truth_judge(group)
    outcomes, clusters = [], []
    for ranking in rankings:
        prompt = prompts[ranking.prompt_id]
        worth = {i: judge(world, prompt, responses[i].text) for i in ranking.response_ids()}
        for better, worse in ranking.pairs():
            margin = worth[better] - worth[worse]
            outcomes.append(0.5 if margin == 0 else float(margin > 0))
            clusters.append(prompt.id)
    return mean_estimate(outcomes, clusters)
