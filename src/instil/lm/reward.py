"""Whatever scores a response: a trained reward model, or a Python function.

A reward takes text, so any reward works with any policy; token ids are private to each model. A
reward model reads the response with the end token after it, as it did in training, also when the
policy was cut off before it wrote one: what a cut-off costs is the trainer's setting.

A small model that was trained to predict knows more about a response than it can say in one number
at its last token. So a reward model may have a language model beside it, and a part of its score
is then how likely that one finds the response (`Likelihood`).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import passes, text_batch
from instil.lm.machine import Precision, tokens_per_pass
from instil.lm.models import load_policy, logprobs, save_policy
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.runs import model_dir

STATISTICS = "instil_reward.json"
"""Beside the weights: mean and standard deviation of the scores, measured after training."""
LIKELIHOOD = "likelihood"
"""The folder of the language model whose logprobs are a part of the score, if there is one."""


@dataclass(frozen=True)
class Likelihood:
    """A frozen language model with the reward model's tokenizer. It adds to the score of a response
    weight * log p(response | prompt), where p is the model's softmax at `temperature`. Plain
    transformers does not know it: what it reads from the directory is the score without it."""

    model: PreTrainedModel
    weight: float = 1.0
    """Reward per nat."""
    temperature: float = 1.0


@dataclass(frozen=True)
class RewardModel:
    """A reward model and its own tokenizer; `std` is the spread of its scores, nan if not known."""

    model: ScalarModel
    codec: Codec
    std: float = float("nan")
    likelihood: Likelihood | None = None

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Scores of responses given as text."""
        pairs = [
            (self.codec.encode_prompt(p), self.codec.encode_response(r))
            for p, r in zip(prompts, responses, strict=True)
        ]
        return self.score_tokens(pairs)

    @torch.no_grad()
    def score_tokens(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Scores of (prompt, response) token ids, each response with its end token; in order."""
        scores = [0.0] * len(pairs)
        lengths = [len(prompt) + len(response) for prompt, response in pairs]
        for rows in passes(lengths, tokens_per_pass(self.model.backbone)):
            batch = text_batch([pairs[i] for i in rows], self.codec.pad_id)
            batch = batch.to(self.model.backbone.device)
            found = self.model.scores(batch.tokens, batch.mask)
            if own := self.likelihood:
                likely = logprobs(
                    own.model, batch.tokens, batch.mask, batch.loss_mask, own.temperature
                )
                found = found + own.weight * likely.sum(dim=1)
            for i, score in zip(rows, found.tolist(), strict=True):
                scores[i] = score
        return scores


@dataclass(frozen=True)
class PythonReward:
    """A function of the user's: lists of prompts and responses in, list of numbers out."""

    name: str
    std: float = float("nan")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Call the function and check what it returns."""
        returned = _find(self.name)(list(prompts), list(responses))
        try:
            scores = [float(score) for score in returned]
        except (TypeError, ValueError) as error:
            raise InstilError(
                f"{self.name}: returned {type(returned).__name__}, not one number per response "
                f"({error})"
            ) from error
        if len(scores) != len(responses):
            raise InstilError(f"{self.name}: {len(scores)} scores for {len(responses)} responses")
        bad = [i for i, score in enumerate(scores) if score != score or abs(score) == float("inf")]
        if bad:
            raise InstilError(
                f"{self.name}: score {scores[bad[0]]} for the response {responses[bad[0]]!r}; "
                "every score must be a finite number"
            )
        return scores


def load_reward(spec: str | Path, precision: Precision = "auto") -> RewardModel | PythonReward:
    """A reward: a run of `instil rm`, a model directory, or `module:function`.

    The module is a dotted name or a file that ends in .py.
    """
    if ":" in str(spec) and not Path(spec).exists():
        _find(str(spec))
        return PythonReward(str(spec))
    path = model_dir(Path(spec))
    model = ScalarModel.load(path, precision)
    model.eval()
    statistics = path / STATISTICS
    known = json.loads(statistics.read_text()) if statistics.exists() else {}
    beside, settings = path / LIKELIHOOD, known.get(LIKELIHOOD)
    if beside.exists() != isinstance(settings, dict):
        raise InstilError(
            f"{path}: of the language model whose likelihood is a part of the score, only one of "
            f"{LIKELIHOOD}/ and its entry in {STATISTICS} is there; copy the whole directory"
        )
    likelihood = None
    if isinstance(settings, dict):
        policy = load_policy(beside, precision=precision).requires_grad_(False)
        likelihood = Likelihood(policy, settings["weight"], settings["temperature"])
    return RewardModel(model, Codec.load(path), known.get("std", float("nan")), likelihood)


def save_reward(path: Path, reward: RewardModel, mean: float) -> None:
    """Write a reward model with its statistics, and with the language model beside it, if any."""
    reward.model.save(path, reward.codec)
    known: dict[str, Any] = {"mean": mean, "std": reward.std}
    if own := reward.likelihood:
        save_policy(own.model, reward.codec, path / LIKELIHOOD)
        known[LIKELIHOOD] = {"weight": own.weight, "temperature": own.temperature}
    (path / STATISTICS).write_text(json.dumps(known) + "\n")


def _find(spec: str):  # type: ignore[no-untyped-def]
    module, _, name = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that a file in the current folder is found, as with python -m
    try:
        function = getattr(_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InstilError(
            f"reward {spec}: {error}; name it module:function, with the module importable from here"
        ) from error
    if not callable(function):
        raise InstilError(f"reward {spec}: {type(function).__name__} is not a function")
    return function


def _module(name: str) -> ModuleType:
    """A module by its dotted name, or a file by its path."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)
