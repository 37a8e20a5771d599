"""Closed-domain hallucination: does the answer hold what the prompt's text does not?

Ouyang et al. 2022, section 4.1: 41 % for GPT-3, 21 % for InstructGPT, on summarization, closed QA
and extraction. The paper's labelers saw an answer as a hallucination when it was made up, so an
answer that says nothing (another question, an insult) is none; `closed_follows` is the share that
did what was asked, to be read beside it.
"""

from __future__ import annotations

from random import Random

from instil.evals.policy import Eval, Question
from instil.world.check import check
from instil.world.lexicon import World
from instil.world.tasks import make_task

TASKS = ("summary", "summary_1", "closed_qa", "closed_qa", "closed_unanswerable", "extract")


def hallucination(world: World, n: int, seed: int) -> Eval:
    """Held-out closed-domain prompts, answered at temperature 1 as users would see them."""

    def grade(question: Question, answer: str) -> dict[str, float]:
        verdict = check(world, question.meta, answer)
        return {
            "hallucination": float(verdict.made_up > 0),
            "closed_follows": float(verdict.follows),
        }

    rng = Random(f"hallucination {world.seed} {seed}")
    questions: dict[str, Question] = {}
    while len(questions) < n:
        text, meta = make_task(world, rng.choice(TASKS), "test", rng)
        questions[text] = Question(id=f"closed-{len(questions)}", text=text, meta=meta)
    return Eval(
        name="hallucination", questions=list(questions.values()), grade=grade, temperature=1.0
    )
