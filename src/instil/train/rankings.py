"""Rankings as training takes them, and how well scores agree with them: for rm and dpo.

A ranking is never split: all its responses are in one pass, and its prompt is read once. Rankings
by held-out labelers and of prompts that are not of split "train" never train; how often their pairs
are ordered right is reported, with intervals clustered by prompt, beside three yardsticks: how
often labelers agree with each other (the ceiling), how often the longer response wins (the floor),
and the calibration of sigmoid(margin).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import batch_indices, passes, rollout_batch
from instil.lm.text import Codec
from instil.records import Labeler, Prompt, Ranking, Response
from instil.runs import Run, say, write_json
from instil.stats import Estimate, agreement, calibration_error, mean_estimate
from instil.train import dist
from instil.train.data import read_all
from instil.train.fit import FitConfig, above_zero
from instil.train.rollout import Sequences, response_logprobs

READ = 4
"""Rankings that each evaluation writes for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingsConfig(FitConfig):
    """What every method needs that learns from rankings."""

    model: Path
    """Model or run to start from."""
    prompts: tuple[Path, ...]
    """Split "train" trains, every other split is only evaluated."""
    responses: tuple[Path, ...]
    rankings: tuple[Path, ...]
    labelers: tuple[Path, ...] = ()
    """Who is held out: rankings of group "held-out" never train, accuracy is given by group."""
    template: str = ""
    """How a prompt is put, with {prompt} in it, for a model that stores no template of its own."""
    max_tokens: int = 2048
    """Longer prompt + response are left out of their ranking."""
    batch_size: int = 64
    """Prompts per optimizer step; each brings all its pairs."""
    eval_every: int = 50
    """Steps between evaluations on rankings of prompts of split "valid"."""
    eval_rankings: int = 128
    """Rankings per evaluation; after training all of them count."""
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        FitConfig.__post_init__(self)
        above_zero(self, "max_tokens", "eval_every", "eval_rankings")


@dataclass(frozen=True)
class Item:
    """One ranking as the trainer needs it: token ids of the prompt and of its K responses."""

    prompt_id: str
    split: str
    group: str
    labeler_id: str
    prompt: list[int]
    responses: list[list[int]]
    response_ids: list[str]
    ranks: list[int]
    lengths: list[int]
    """Characters of each response, for the length-only baseline."""
    reference: list[float] = field(default_factory=list)
    """What a frozen language model says of each response, for a method that needs it: its logprob,
    for a reward model with a likelihood times the weight of it."""

    @property
    def trains(self) -> bool:
        """Whether it is for training, not for evaluation."""
        return self.split == "train" and self.group != "held-out"

    @property
    def tokens(self) -> int:
        """What a pass reads, the prompt once."""
        return len(self.prompt) + sum(map(len, self.responses))


def read_items(
    codec: Codec, prompts: dict[str, Prompt], config: RankingsConfig, longest: int
) -> list[Item]:
    """Every ranking that has a pair, joined with its prompt and responses of at most `longest`
    tokens together. An `InstilError` names what a file lacks."""
    responses = {r.id: r for r in read_all(config.responses, Response)}
    groups = {
        labeler.id: labeler.group
        for path in config.labelers
        for labeler in read_all((path,), Labeler)
    }
    items, short = [], 0
    for ranking in read_all(config.rankings, Ranking):
        where = f"ranking of prompt {ranking.prompt_id} by {ranking.labeler_id}"
        if ranking.prompt_id not in prompts:
            raise InstilError(f"{where}: no such prompt in --prompts; give the file that holds it")
        if missing := [i for i in ranking.response_ids() if i not in responses]:
            raise InstilError(f"{where}: response {missing[0]} is not in --responses")
        if config.labelers and ranking.labeler_id not in groups:
            raise InstilError(f"{where}: labeler {ranking.labeler_id} is not in --labelers")
        prompt = prompts[ranking.prompt_id]
        ids = codec.encode_prompt(prompt.text)
        kept = [
            (rid, tokens, rank)
            for rid, rank in ranking.ranks().items()
            if len(ids) + len(tokens := codec.encode_response(responses[rid].text)) <= longest
        ]
        if len({rank for *_, rank in kept}) < 2:
            short += 1
            continue
        items.append(
            Item(
                prompt_id=prompt.id,
                split=prompt.split or "train",
                group=groups.get(ranking.labeler_id, "training"),
                labeler_id=ranking.labeler_id,
                prompt=ids,
                responses=[tokens for _, tokens, _ in kept],
                response_ids=[rid for rid, *_ in kept],
                ranks=[rank for *_, rank in kept],
                lengths=[len(responses[rid].text) for rid, *_ in kept],
            )
        )
    if short:
        say(f"{short} rankings say nothing (all tied, or over {longest} tokens): left out")
    return items


def items_of_step(
    items: list[Item], config: RankingsConfig, tokens: int, step: int
) -> list[list[Item]]:
    """The rankings of each pass of one optimizer step, of about `tokens` tokens each."""
    chosen = [items[i] for i in batch_indices(len(items), config.batch_size, config.seed, step)]
    lengths = [item.tokens for item in chosen]
    rows = passes(lengths, dist.per_pass(sum(lengths), tokens))
    return [[chosen[i] for i in group] for group in rows]


def with_reference(
    items: list[Item], logprobs_of: Callable[[list[Item]], list[list[float]]]
) -> list[Item]:
    """The rankings with what `logprobs_of` gives their responses now, before training."""
    return [
        replace(item, reference=logprobs)
        for item, logprobs in zip(items, logprobs_of(items), strict=True)
    ]


@torch.no_grad()
def reference_logprobs(
    policy: PreTrainedModel,
    codec: Codec,
    tokens: int,
    items: Sequence[Item],
    temperature: float = 1.0,
) -> list[list[float]]:
    """Logprob of every response of each ranking, about `tokens` tokens at a time."""
    found: list[list[float]] = [[] for _ in items]
    for rows in passes([item.tokens for item in items], tokens):
        sequences = sequences_of([items[i] for i in rows], codec).to(policy.device)
        sums = iter(response_logprobs(policy, sequences, temperature).sum(dim=1).tolist())
        for i in rows:
            found[i] = [next(sums) for _ in items[i].responses]
    return found


def sequences_of(items: Sequence[Item], codec: Codec) -> Sequences:
    """The responses of all rankings in order; those of one prompt share it in a pass."""
    prompts = [item.prompt for item in items for _ in item.responses]
    responses = [response for item in items for response in item.responses]
    return Sequences(*rollout_batch(prompts, responses, codec.pad_id))


def evaluation(
    run: Run,
    codec: Codec,
    prompts: dict[str, Prompt],
    items: list[Item],
    config: RankingsConfig,
    scores_of: Callable[[list[Item]], list[list[float]]],
    name: str,
) -> Callable[[int], dict[str, float]]:
    """A function of the step: accuracy on validation prompts, and rankings with scores to read.

    scores_of  gives the scores of every ranking's responses as the model is now
    name       of the accuracy in the metrics, after "eval/"
    """
    valid = [item for item in items if item.split == "valid"][: config.eval_rankings]
    followed = valid or items[:READ]

    def evaluate(step: int) -> dict[str, float]:
        scores = scores_of(followed)
        rows = [
            {
                "prompt": prompts[item.prompt_id].text,
                "response": codec.decode(tokens),
                "rank": rank,
                "score": score,
            }
            for item, values in zip(followed[:READ], scores, strict=False)
            for tokens, rank, score in zip(item.responses, item.ranks, values, strict=True)
        ]
        run.samples(step, rows)
        if not valid:
            return {}
        accuracy = pair_accuracy(valid, scores)
        return {
            f"eval/{name}": accuracy.mean,
            f"eval/{name}/ci_low": accuracy.low,
            f"eval/{name}/ci_high": accuracy.high,
            "eval/ece": pair_calibration(valid, scores),
        }

    return evaluate


def report(run: Run, name: str, items: list[Item], scores: list[list[float]]) -> None:
    """Write accuracy.json, and say it: per split and labeler group, beside the yardsticks."""
    rows = []
    for split, group in sorted({(item.split, item.group) for item in items}):
        here = [i for i, item in enumerate(items) if (item.split, item.group) == (split, group)]
        chosen, own = [items[i] for i in here], [scores[i] for i in here]
        accuracy = pair_accuracy(chosen, own)
        row: dict[str, Any] = {"split": split, "group": group, "rankings": len(chosen)}
        row["text"] = str(accuracy)
        row["model"] = to_row(accuracy)
        row["ece"] = pair_calibration(chosen, own)
        row["longer"] = to_row(pair_accuracy(chosen, [item.lengths for item in chosen]))
        row["agreement"] = _agreement(chosen)
        rows.append(row)
        say(f"{name}: {split} prompts, {group} labelers: {accuracy}")
    if dist.first():
        write_json(run.path / "accuracy.json", {"accuracy": rows})


def pair_accuracy(items: list[Item], scores: list[Any]) -> Estimate:
    """Share of pairs that the scores order as the labeler did, clustered by prompt.

    Ties of the labeler are left out; equal scores count half.
    """
    margins, clusters = _margins(items, scores)
    return mean_estimate(np.heaviside(margins, 0.5), clusters)


def pair_calibration(items: list[Item], scores: list[Any]) -> float:
    """Expected calibration error of sigmoid(margin), the probability that a pair is won."""
    margins, _ = _margins(items, scores)
    return calibration_error(1 / (1 + np.exp(-np.abs(margins))), np.heaviside(margins, 0.5))


def _margins(items: list[Item], scores: list[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """Score of the better less that of the worse for every pair not tied, and its prompt."""
    margins, clusters = [], []
    for item, values in zip(items, scores, strict=True):
        value, rank = np.asarray(values, float), np.asarray(item.ranks)
        better = rank[:, None] < rank[None, :]
        margins.append((value[:, None] - value[None, :])[better])
        clusters += [item.prompt_id] * int(better.sum())
    return np.concatenate(margins), clusters


def _agreement(items: list[Item]) -> dict[str, float] | None:
    """How often two labelers of one prompt order a pair alike; None when none overlap."""
    rankings = [
        (item.prompt_id, dict(zip(item.response_ids, item.ranks, strict=True))) for item in items
    ]
    if len({prompt_id for prompt_id, _ in rankings}) == len(rankings):
        return None
    return to_row(agreement(rankings))


def to_row(estimate: Estimate) -> dict[str, float]:
    """An estimate as JSON."""
    return {
        name: getattr(estimate, name) for name in ("mean", "stderr", "low", "high", "n", "clusters")
    }
