"""Who answers, what is asked, how answers become numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.lm.models import load_policy
from instil.lm.reward import PythonReward, RewardModel
from instil.lm.sampling import Decoder, Sampler, SamplingParams, repeat
from instil.lm.text import Codec
from instil.runs import model_dir
from instil.stats import Estimate, mean_estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A sampler with its tokenizer, and what stands between it and the user.

    prefix   solved examples before every prompt (GPT-3 "prompted")
    best_of  responses drawn per prompt, of which the one that `reward` likes best is given
    """

    name: str
    sampler: Sampler
    codec: Codec
    max_tokens: int
    prefix: str = ""
    best_of: int = 1
    reward: RewardModel | PythonReward | None = None

    def respond(self, prompts: Sequence[str], temperature: float, seed: int) -> list[str]:
        """One response per prompt. With best_of, always drawn at temperature 1."""
        ids = [self.codec.encode_prompt(self.prefix + prompt) for prompt in prompts]
        if self.best_of == 1:
            params = SamplingParams(max_tokens=self.max_tokens, temperature=temperature)
            samples = self.sampler.sample(ids, params, seed)
            return [self.codec.decode(tokens) for tokens in samples.tokens]
        assert self.reward is not None, "best_of needs a reward to choose by"
        many, indices = repeat(ids, self.best_of)
        params = SamplingParams(max_tokens=self.max_tokens, temperature=1.0)
        samples = self.sampler.sample(many, params, seed, indices)
        texts = [self.codec.decode(tokens) for tokens in samples.tokens]
        asked = [prompt for prompt in prompts for _ in range(self.best_of)]
        scores = self.reward(asked, texts)
        groups = range(0, len(texts), self.best_of)
        return [texts[max(range(g, g + self.best_of), key=scores.__getitem__)] for g in groups]

    def continue_text(self, texts: Sequence[str], seed: int = 0) -> list[str]:
        """The greedy continuation of plain text, cut at the first newline (the paper's way)."""
        ids = [self.codec.encode_document(text)[:-1] for text in texts]
        params = SamplingParams(max_tokens=self.max_tokens, temperature=0.0)
        samples = self.sampler.sample(ids, params, seed)
        return [
            self.codec.decode(tokens, strip=False).split("\n")[0].strip()
            for tokens in samples.tokens
        ]


def load(name: str, path: Path, max_tokens: int, template: str = "", **more: Any) -> Policy:
    """A trained model, ready to answer; `path` is its run or its directory."""
    source = model_dir(path)
    codec, model = Codec.load(source, template), load_policy(source)
    sampler = Decoder(model, codec)
    return Policy(name=name, sampler=sampler, codec=codec, max_tokens=max_tokens, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One item: what is asked, what the grader must know, by what it is grouped."""

    id: str
    text: str
    group: str = ""
    answers: tuple[str, ...] = ()
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval:
    """Questions and a grade. `plain` continues the text itself, without the prompt template."""

    name: str
    questions: Sequence[Question]
    grade: Callable[[Question, str], Mapping[str, float]]
    """Answer -> the measures it bears on; a measure left out does not count this question."""
    plain: bool = False
    setting: str = ""
    temperature: float = 0.0
    unit: str = "share"


Row = dict[str, Any]


def evaluate(test: Eval, policy: Policy, seed: int) -> list[Row]:
    """One row per measure, and per group of questions where there is more than one group."""
    texts = [question.text for question in test.questions]
    if test.plain:
        answers = policy.continue_text(texts, seed)
    else:
        answers = policy.respond(texts, test.temperature, seed)
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for question, answer in zip(test.questions, answers, strict=True):
        for measure, value in test.grade(question, answer).items():
            found.setdefault((measure, test.setting), []).append((question.id, value))
            if question.group:
                found.setdefault((measure, question.group), []).append((question.id, value))
    return [
        row(measure, policy.name, setting, values, test.unit)
        for (measure, setting), values in found.items()
    ]


def row(
    name: str, policy: str, setting: str, values: Sequence[tuple[str, float]], unit: str = "share"
) -> Row:
    """A line of results.jsonl from (cluster, value) pairs."""
    clusters = [cluster for cluster, _ in values]
    return estimate_row(
        name, policy, setting, mean_estimate([v for _, v in values], clusters), unit
    )


def estimate_row(name: str, policy: str, setting: str, found: Estimate, unit: str) -> Row:
    """A line of results.jsonl."""
    numbers = {
        key: getattr(found, key) for key in ("mean", "stderr", "low", "high", "n", "clusters")
    }
    return {"eval": name, "policy": policy, "setting": setting, "unit": unit, **numbers}
