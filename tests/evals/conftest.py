"""A policy that answers from a function, so that no test of an eval needs a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from instil.evals.policy import Eval, Policy
from instil.lm.sampling import Samples, SamplingParams
from instil.lm.text import Codec, train_tokenizer
from instil.world.answers import ideal
from instil.world.lexicon import World, make_world

Answer = Callable[[str, int], str]
"""What the model read, without the template's end, and which repeat it is -> a response."""


@dataclass
class FakeSampler:
    """A sampler that answers from a function and remembers what it was asked."""

    codec: Codec
    answer: Answer
    read: list[str] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seed: int,
        indices: Sequence[int] | None = None,
    ) -> Samples:
        texts = [self.codec.tokenizer.decode(list(ids)) for ids in prompts]
        self.read += texts
        self.params.append(params)
        repeats = indices or [0] * len(texts)
        tokens = [
            self.codec.encode_response(self.answer(text.removesuffix("\n\n"), repeat))
            for text, repeat in zip(texts, repeats, strict=True)
        ]
        return Samples(tokens, [[0.0] * len(ids) for ids in tokens], [True] * len(tokens))


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec(train_tokenizer(["Where does Mara live? Mara lives in Dorn."], 270))


@pytest.fixture
def policy_of(codec: Codec) -> Callable[..., Policy]:
    """A policy with a function, or one text for every prompt, in place of a model."""

    def make(answer: Answer | str, name: str = "fake", **more: Any) -> Policy:
        given = answer if callable(answer) else lambda text, repeat: answer
        sampler = FakeSampler(codec, given)
        return Policy(name=name, sampler=sampler, codec=codec, max_tokens=64, **more)

    return make


@pytest.fixture
def right_answers(world: World) -> Callable[..., Answer]:
    """The right answer to every question of some evals of the embedded world."""

    def of(*tests: Eval) -> Answer:
        metas = {question.text: question.meta for test in tests for question in test.questions}
        return lambda text, repeat: ideal(world, metas[text], Random(text))

    return of


@pytest.fixture
def means() -> Callable[[list[dict[str, Any]]], dict[tuple[str, str], float]]:
    """(eval, setting) -> mean of the rows of one policy."""
    return lambda rows: {(row["eval"], row["setting"]): row["mean"] for row in rows}
