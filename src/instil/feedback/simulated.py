"""Labelers of the embedded world: people of different skill, taste and care, simulated.

A labeler sees a response through the checkers of world/check.py, misses some of what is wrong
with it, weighs the rest by taste and adds noise. The same question always gets the same answer,
whatever was asked before. Left out: fatigue, learning, and labelers who influence one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations
from random import Random
from statistics import NormalDist

from instil.errors import InstilError
from instil.records import Demonstration, Labeler, Prompt, Ranking, Rating, Response
from instil.world.check import Verdict, check
from instil.world.flaws import flawed
from instil.world.lexicon import World

NOISE = 0.95
"""Standard deviation of a labeler's noise, set on the responses of a demo so that labelers agree
on about 73 % of the pairs (72.6 +- 1.5 % in Ouyang et al. 2022), training labelers on 75 %."""
TIE = 0.25
"""Responses whose perceived utilities differ by less than this are tied."""
FLAWS_OF_DEMONSTRATIONS: Mapping[str, float] = {
    "wrong": 4, "made_up": 2, "extra": 2, "constraint": 1, "rambles": 1,
}  # fmt: skip
"""Weights of what goes wrong in a demonstration that is not clean; names as in flaws.FLAWS."""
MAX_TRIES = 4
"""Draws of a flaw for a demonstration; not every flaw shows in every task."""
LIKERT_CENTRE = 0.3
LIKERT_STEP = 0.4
"""A utility of LIKERT_CENTRE rates 4 of 7, each LIKERT_STEP above or below it one more or less."""


@dataclass(frozen=True, slots=True)
class Taste:
    """Weights of the terms of a utility; see `terms`."""

    helpful: float
    true: float
    harmless: float
    constraint: float
    form: float
    length: float


@dataclass(frozen=True, slots=True)
class SimulatedLabeler:
    """One labeler. `skill` is the chance to notice that something is false or made up."""

    id: str
    group: str
    skill: float
    taste: Taste
    noise: float
    position_bias: float

    def record(self) -> Labeler:
        """The labeler as a record."""
        return Labeler(id=self.id, name=self.id, group=self.group)  # type: ignore[arg-type]


TASTES: Mapping[str, Taste] = {
    "training": Taste(helpful=1.5, true=0.9, harmless=1.0, constraint=0.6, form=0.5, length=0.25),
    "held-out": Taste(helpful=1.1, true=1.4, harmless=1.5, constraint=0.5, form=0.5, length=0.5),
}
"""Mean taste of each group: helpfulness first for training, truth and harmlessness for held-out."""
TASTE_SPREAD = 0.25
"""Each weight of a labeler is the group's, times 1 plus or minus up to this."""
SKILLS: Mapping[str, tuple[float, float]] = {"training": (0.75, 0.97), "held-out": (0.7, 0.95)}


def labelers(seed: int, n_training: int = 20, n_held_out: int = 10) -> list[SimulatedLabeler]:
    """The labelers of one seed; held-out ones have other tastes and never label for training."""
    made = []
    for group, count in (("training", n_training), ("held-out", n_held_out)):
        for number in range(1, count + 1):
            rng = Random(f"labeler {seed} {group} {number}")
            mean = TASTES[group]
            weights = {
                name: getattr(mean, name) * (1 + rng.uniform(-TASTE_SPREAD, TASTE_SPREAD))
                for name in Taste.__slots__
            }
            made.append(
                SimulatedLabeler(
                    id=f"{group}-{number:02d}",
                    group=group,
                    skill=rng.uniform(*SKILLS[group]),
                    taste=Taste(**weights),
                    noise=NOISE,
                    position_bias=rng.uniform(-0.1, 0.1),
                )
            )
    return made


def terms(taste: Taste, verdict: Verdict) -> dict[str, float]:
    """The named parts that a utility is the sum of; 0 words of bother, no fault: only "helpful"."""
    faults = min(2, verdict.false_claims + verdict.made_up)
    bad_form = 1 - verdict.well_formed + 0.5 * verdict.repetition + 0.3 * min(3, verdict.extra)
    return {
        "helpful": taste.helpful * verdict.follows,
        "true": -taste.true * faults,
        "harmless": -taste.harmless * verdict.rude,
        "refusal": -0.3 * taste.helpful * verdict.needless_refusal,
        "constraint": -taste.constraint * (verdict.constraint is False),
        "form": -taste.form * (bad_form + (verdict.words == 0)),
        "length": -taste.length * max(0, verdict.words - 8) / 12,
    }


def utility(taste: Taste, verdict: Verdict) -> float:
    """What a response is worth to this taste, without noise."""
    return sum(terms(taste, verdict).values())


def _uniform(*key: str) -> float:
    """A number in (0, 1) that depends on the key alone."""
    digest = blake2b("\x1f".join(key).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


def perceive(labeler: SimulatedLabeler, verdict: Verdict, key: str) -> Verdict:
    """The verdict as the labeler sees it: false and made-up claims may go unnoticed.

    `key` names the prompt and the response; a fault that is missed once is always missed.
    """
    misses_false = _uniform(labeler.id, key, "false") > labeler.skill
    misses_made_up = _uniform(labeler.id, key, "made up") > labeler.skill
    return replace(
        verdict,
        false_claims=0 if misses_false else verdict.false_claims,
        made_up=0 if misses_made_up else verdict.made_up,
    )


def perceived_utility(
    labeler: SimulatedLabeler, world: World, prompt: Prompt, response: str
) -> float:
    """What the response seems worth to the labeler, noise included; equal texts seem equal."""
    key = f"{prompt.id}\x1f{response}"
    seen = perceive(labeler, _check(world, prompt, response), key)
    noise = labeler.noise * NormalDist().inv_cdf(_uniform(labeler.id, key, "noise"))
    return utility(labeler.taste, seen) + noise


def _check(world: World, prompt: Prompt, response: str) -> Verdict:
    if "task" not in prompt.meta:
        raise InstilError(
            f'prompt {prompt.id}: meta has no "task"; simulated labelers know only the prompts of '
            "the embedded world (instil.world.users)"
        )
    return check(world, prompt.meta, response)


def rank(
    labeler: SimulatedLabeler, world: World, prompt: Prompt, responses: Sequence[Response]
) -> Ranking:
    """The labeler's order of the responses; a tier holds all that seem within TIE of its best."""
    seen = {r.id: perceived_utility(labeler, world, prompt, r.text) for r in responses}
    tiers: list[list[str]] = []
    best = float("inf")
    for response_id in sorted(seen, key=lambda r: (-seen[r], r)):
        if not tiers or best - seen[response_id] >= TIE:
            tiers.append([])
            best = seen[response_id]
        tiers[-1].append(response_id)
    return Ranking(
        prompt_id=prompt.id, labeler_id=labeler.id, tiers=tuple(tuple(tier) for tier in tiers)
    )


def rate(labeler: SimulatedLabeler, world: World, prompt: Prompt, response: Response) -> Rating:
    """The labeler's Likert score, and the flags of what was noticed."""
    key = f"{prompt.id}\x1f{response.text}"
    seen = perceive(labeler, _check(world, prompt, response.text), key)
    value = perceived_utility(labeler, world, prompt, response.text)
    overall = 4 + round((value - LIKERT_CENTRE) / LIKERT_STEP)
    return Rating(
        response_id=response.id,
        labeler_id=labeler.id,
        overall=min(7, max(1, overall)),
        flags=seen.flags(),
    )


def demonstrate(
    labeler: SimulatedLabeler, world: World, prompt: Prompt, rng: Random
) -> Demonstration:
    """The labeler's own answer: right with a probability of `skill`, else spoiled in one way."""
    clean = rng.random() < labeler.skill
    text = flawed(world, prompt.meta, rng, "good")
    for _ in range(0 if clean else MAX_TRIES):
        flaws = FLAWS_OF_DEMONSTRATIONS
        flaw = rng.choices(list(flaws), list(flaws.values()))[0]
        text = flawed(world, prompt.meta, rng, flaw)
        verdict = check(world, prompt.meta, text)
        if verdict.flags() or verdict.extra:
            break
    return Demonstration(prompt_id=prompt.id, labeler_id=labeler.id, text=text)


def prefer(
    labeler: SimulatedLabeler, world: World, prompt: Prompt, first: str, second: str
) -> float:
    """1 if the response shown first seems better, 0 if the second does, 0.5 for a tie.

    The first place has a small advantage or disadvantage of the labeler's own, so ask in both
    orders and average. Equal texts are tied.
    """
    if first == second:
        return 0.5
    margin = perceived_utility(labeler, world, prompt, first) + labeler.position_bias
    margin -= perceived_utility(labeler, world, prompt, second)
    return 0.5 if abs(margin) < TIE else float(margin > 0)


def truth_judge(
    group: Iterable[SimulatedLabeler],
) -> Callable[[World, Prompt, str], float]:
    """The noise-free mean utility of some labelers who miss nothing: the ceiling for any judge."""
    tastes = [labeler.taste for labeler in group]
    if not tastes:
        raise InstilError("no labelers in the group; a judge needs at least one")

    def judge(world: World, prompt: Prompt, response: str) -> float:
        verdict = _check(world, prompt, response)
        return sum(utility(taste, verdict) for taste in tastes) / len(tastes)

    return judge


def measure_agreement(
    group: Sequence[SimulatedLabeler],
    others: Sequence[SimulatedLabeler],
    world: World,
    asked: Iterable[tuple[Prompt, Sequence[Response]]],
) -> tuple[float, int]:
    """Share of the response pairs on which two labelers agree, and the number of such pairs.

    Counted are pairs that both labelers order strictly. One labeler is of `group`, the other of
    `others`; give the same group twice for the agreement within it.
    """
    same = pairs = 0
    for prompt, responses in asked:
        everybody = {one.id: one for one in (*group, *others)}
        ranks = {i: rank(one, world, prompt, responses).ranks() for i, one in everybody.items()}
        for one, two in {
            tuple(sorted((a.id, b.id))) for a in group for b in others if a.id != b.id
        }:
            for a, b in combinations([r.id for r in responses], 2):
                left, right = ranks[one][a] - ranks[one][b], ranks[two][a] - ranks[two][b]
                if left and right:
                    pairs += 1
                    same += (left > 0) == (right > 0)
    return (same / pairs if pairs else float("nan")), pairs
