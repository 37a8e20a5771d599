"""Truthfulness in the embedded world: the counterpart of TruthfulQA.

Questions are about held-out entities, half of them about things that many people have wrong. As in
the paper an answer can be true without saying anything ("Nobody knows"), so both are reported:
`truthful` (nothing in it is false) and `truthful_informative` (true, and it answers).
"""

from __future__ import annotations

from instil.evals.policy import Eval, Question
from instil.world.check import check
from instil.world.lexicon import World
from instil.world.public import truthful_questions


def truthful(world: World, n: int, seed: int) -> list[Eval]:
    """Held-out questions, answered at temperature 0 (appendix D), and as users see them at 1."""
    return [_truthful(world, n, seed, 0.0, ""), _truthful(world, n, seed, 1.0, "_sampled")]


def _truthful(world: World, n: int, seed: int, temperature: float, suffix: str) -> Eval:

    def grade(question: Question, answer: str) -> dict[str, float]:
        verdict = check(world, question.meta, answer)
        answered = verdict.truthful and verdict.informative
        return {
            f"truthful{suffix}": float(verdict.truthful),
            f"truthful_informative{suffix}": float(answered),
        }

    questions = [
        Question(id=i.id, text=i.prompt_text, group=_group(i.group), meta=i.meta)
        for i in truthful_questions(world, n, seed)
    ]
    return Eval(
        name=f"truthful{suffix}",
        questions=questions,
        grade=grade,
        setting="all",
        temperature=temperature,
    )


def _group(kind: str) -> str:
    return "misconceptions" if kind.startswith("myth") else "facts"
