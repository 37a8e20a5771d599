"""The four measures by which labelers are chosen  [Ouyang et al. 2022, appendix B.1].

A candidate does the screening tasks that researchers did before: flags what is sensitive, ranks
responses, writes demonstrations, and says which topics they are at home in. The cut-offs are soft:
`measures` says which are met, and the decision is the lead's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from instil.errors import InstilError
from instil.labeling.quality import compare, mean_within
from instil.records import Ranking, Rating
from instil.stats import Estimate, cohen_kappa, win_rate

Measure = Literal["flags", "rankings", "demonstrations"]

SENSITIVE = ("sexual", "violent", "encourages_harm", "denigrates", "moral_judgment")
"""Flags of Table 3 that make a response sensitive: toxic, sexual, violent or judgemental."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOffs:
    """What a candidate should reach; the defaults are the paper's."""

    flags: float = 0.75
    """Share of texts on which candidate and researchers agree that they are sensitive, or not."""
    rankings: float = 0.75
    """Share of pairs of responses that candidate and researchers order alike."""
    demonstrations: float = 6.0
    """Mean score of the demonstrations, 1 to 7."""

    def __post_init__(self) -> None:
        for name, value in (("flags", self.flags), ("rankings", self.rankings)):
            if not 0 <= value <= 1:
                raise InstilError(
                    f"cut-off {name} {value:g}: give a share from 0 to 1, 0.75 for 75 %"
                )
        if not 1 <= self.demonstrations <= 7:
            raise InstilError(
                f"cut-off demonstrations {self.demonstrations:g}: scores run from 1 to 7"
            )


@dataclass(frozen=True, slots=True)
class Answers:
    """What one person, candidate or researcher, said in the screening tasks."""

    sensitive: Mapping[str, bool] = field(default_factory=dict)
    """Id of each prompt and response that was judged -> was it called sensitive?"""
    rankings: Sequence[Ranking] = ()


@dataclass(frozen=True, slots=True)
class Screening:
    """One candidate's figures; None for what nobody can measure yet."""

    flags: Estimate | None
    """Share of texts flagged alike, clustered by text."""
    flag_kappa: float | None
    """The same beyond chance [Cohen 1960]: whoever flags nothing agrees often, and has 0 here."""
    rankings: Estimate | None
    """The paper's measure: of pairs that neither tied, ordered alike; clustered by prompt."""
    demonstrations: Estimate | None
    """Mean score, 1 to 7, clustered by demonstration."""
    topics: tuple[str, ...]
    """Where the candidate feels able to tell what is sensitive; it has no cut-off."""
    meets: Mapping[Measure, bool | None]
    """Does the mean reach the cut-off? None if it was not measured."""


def answers(
    rankings: Iterable[Ranking],
    ratings: Iterable[Rating],
    prompts: Mapping[str, bool] | None = None,
    flags: Sequence[str] = SENSITIVE,
) -> Answers:
    """The screening answers of one person.

    prompts  prompt id -> called sensitive, for the prompts that were annotated
    flags    a response that has one of these counts as called sensitive
    """
    responses = {r.response_id: not set(flags).isdisjoint(r.flags) for r in ratings}
    return Answers({**(prompts or {}), **responses}, tuple(rankings))


def measures(
    candidate: Answers,
    researchers: Sequence[Answers],
    scores: Sequence[tuple[str, int]],
    topics: Sequence[str],
    cut_offs: CutOffs = CutOffs(),
) -> Screening:
    """The four measures of one candidate.

    researchers  the candidate is compared with each; more than one weigh alike
    scores       (demonstration id, 1 to 7) for every score that a lead gave
    topics       those that the candidate ticked

    Raises InstilError for a score that is not 1 to 7.
    """
    if odd := [score for _, score in scores if not 1 <= score <= 7]:
        raise InstilError(f"demonstration scores {odd[:5]}: a score is 1 (worst) to 7 (best)")
    flagged = [
        (text, said, key.sensitive[text])
        for key in researchers
        for text, said in candidate.sensitive.items()
        if text in key.sensitive
    ]
    ordered = [
        (own.prompt_id, said == key_said)
        for key in researchers
        for own in candidate.rankings
        for theirs in key.rankings
        if theirs.prompt_id == own.prompt_id
        for said, key_said in compare(own, theirs)
        if said and key_said
    ]
    flags = _share([(text, said == key_said) for text, said, key_said in flagged])
    rankings = _share(ordered)
    demonstrations = (
        mean_within(1, 7)([score for _, score in scores], [name for name, _ in scores])
        if scores
        else None
    )
    found: dict[Measure, tuple[Estimate | None, float]] = {
        "flags": (flags, cut_offs.flags),
        "rankings": (rankings, cut_offs.rankings),
        "demonstrations": (demonstrations, cut_offs.demonstrations),
    }
    return Screening(
        flags=flags,
        flag_kappa=cohen_kappa([f[1] for f in flagged], [f[2] for f in flagged])
        if flagged
        else None,
        rankings=rankings,
        demonstrations=demonstrations,
        topics=tuple(topics),
        meets={
            name: None if estimate is None else estimate.mean >= cut_off
            for name, (estimate, cut_off) in found.items()
        },
    )


def _share(alike: Sequence[tuple[str, bool]]) -> Estimate | None:
    if not alike:
        return None
    return win_rate([float(same) for _, same in alike], [source for source, _ in alike])
