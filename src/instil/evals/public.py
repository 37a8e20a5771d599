"""Public tasks whose fall after training is the alignment tax, and the second language.

Few-shot text in formats of the pretraining text, continued greedily and cut at the first newline
(Ouyang et al. 2022, appendix D and Table 14).
"""

from __future__ import annotations

from instil.evals.policy import Eval, Question
from instil.evals.text import best_f1, exact
from instil.world.check import check
from instil.world.lexicon import World
from instil.world.public import PUBLIC_TASKS, items, second_language_questions


def public(world: World, n: int, seed: int) -> list[Eval]:
    """One eval per public task: F1 for reading, exact match for the others."""
    return [_public(world, task, n, seed) for task in PUBLIC_TASKS]


def _public(world: World, task: str, n: int, seed: int) -> Eval:
    score = best_f1 if task == "reading" else exact

    def grade(question: Question, answer: str) -> dict[str, float]:
        return {f"public/{task}": score(answer, question.answers)}

    questions = [
        Question(id=i.id, text=i.prompt_text, answers=i.answers, meta=i.meta)
        for i in items(world, task, n, seed)
    ]
    return Eval(name=f"public/{task}", questions=questions, grade=grade, plain=True)


def second_language(world: World, n: int, seed: int) -> Eval:
    """Questions asked in the second language, of which alignment training saw next to nothing."""

    def grade(question: Question, answer: str) -> dict[str, float]:
        verdict = check(world, question.meta, answer)
        return {"language2": float(verdict.follows and verdict.truthful)}

    questions = [
        Question(id=i.id, text=i.prompt_text, meta=i.meta)
        for i in second_language_questions(world, n, seed)
    ]
    return Eval(name="language2", questions=questions, grade=grade)
