"""Which of two policies do held-out labelers prefer, on prompts of users that training never saw?

Each labeler judges a pair in both orders and the two are averaged; a tie is half a win. The
interval is for new prompts and new labelers: judgements of one prompt are not independent, nor are
those of one labeler. Beside it, for each
policy alone: Likert 1-7, the Table-3 flags, constraint following, length (Ouyang et al. 2022,
sections 3.6 and 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from instil.compare import two_way_win_rate
from instil.evals.policy import Row, estimate_row, row
from instil.feedback.simulated import SimulatedLabeler, prefer, rate
from instil.records import FLAGS, Prompt, Response
from instil.world.check import check
from instil.world.lexicon import World


@dataclass(frozen=True, slots=True)
class Panel:
    """Labelers of one group; `per_prompt` of them judge each prompt, drawn by a keyed choice."""

    world: World
    labelers: Sequence[SimulatedLabeler]
    per_prompt: int
    seed: int

    def judges(self, prompt: Prompt) -> list[SimulatedLabeler]:
        """Who judges this prompt: the same labelers for every policy."""
        return Random(f"{self.seed} {prompt.id}").sample(list(self.labelers), self.per_prompt)


def win_rate(
    panel: Panel,
    prompts: Sequence[Prompt],
    ours: Sequence[str],
    theirs: Sequence[str],
    policy: str,
    name: str,
    setting: str,
) -> Row:
    """How often `ours` is preferred to `theirs`, both orders averaged, ties as half."""
    outcomes = []
    for prompt, first, second in zip(prompts, ours, theirs, strict=True):
        for judge in panel.judges(prompt):
            won = prefer(judge, panel.world, prompt, first, second)
            lost = prefer(judge, panel.world, prompt, second, first)
            outcomes.append(((won + 1 - lost) / 2, prompt.id, judge.id))
    found = two_way_win_rate(*zip(*outcomes, strict=True))
    return estimate_row(name, policy, setting, found, "share")


def ratings(
    panel: Panel, prompts: Sequence[Prompt], texts: Sequence[str], policy: str
) -> list[Row]:
    """Mean Likert score and the share of responses that the labelers flag."""
    likert: list[tuple[str, float]] = []
    flags: dict[str, list[tuple[str, float]]] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        response = Response(id=f"{policy} {prompt.id}", prompt_id=prompt.id, text=text)
        for judge in panel.judges(prompt):
            rating = rate(judge, panel.world, prompt, response)
            likert.append((prompt.id, float(rating.overall)))
            for flag in FLAGS:
                flags.setdefault(flag, []).append((prompt.id, float(flag in rating.flags)))
    seen = {flag: values for flag, values in flags.items() if any(v for _, v in values)}
    return [
        row("likert", policy, "held-out", likert, "points"),
        *(row(f"flag/{flag}", policy, "held-out", values) for flag, values in seen.items()),
    ]


def verdicts(
    world: World, prompts: Sequence[Prompt], texts: Sequence[str], policy: str
) -> tuple[list[Row], list[tuple[str, ...]]]:
    """What the world's own checkers find, and the flags of each response."""
    found = [check(world, p.meta, t) for p, t in zip(prompts, texts, strict=True)]
    pairs = list(zip(prompts, found, strict=True))
    constrained = [(p.id, float(v.constraint)) for p, v in pairs if v.constraint is not None]
    rows = [
        row("follows", policy, "all", [(p.id, float(v.follows)) for p, v in pairs]),
        row("length", policy, "all", [(p.id, float(v.words)) for p, v in pairs], "words"),
    ]
    if constrained:
        rows.append(row("constraint", policy, "all", constrained))
    for use_case in sorted({p.use_case for p in prompts}):
        chosen = [(p.id, float(v.follows)) for p, v in pairs if p.use_case == use_case]
        rows.append(row("follows_use_case", policy, use_case, chosen))
    return rows, [verdict.flags() for verdict in found]


def preferences(
    panels: Mapping[str, Panel],
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    baseline: str,
    name: str,
) -> list[Row]:
    """The win rate of every policy against the baseline, for each panel."""
    return [
        win_rate(panel, prompts, texts, answers[baseline], policy, name, setting)
        for setting, panel in panels.items()
        for policy, texts in answers.items()
        if policy != baseline
    ]
