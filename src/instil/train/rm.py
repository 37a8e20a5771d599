"""The reward model: a scalar head on a language model, trained on rankings with ties.

All responses of a ranking are in one batch element, each read once; the loss is the mean over all
C(K,2) pairs that are not tied (Ouyang et al. 2022, section 3.5, eq. 1). Shuffling pairs as separate
examples overfits in one pass. After training, one bias makes the mean score of the labelers'
demonstrations 0; the scale is left as it is and its spread is stored.

What comes of it is reported beside three yardsticks: how often labelers agree with each other (the
ceiling), and how often the longer response wins (the floor).

    instil rm --model runs/sft --prompts prompts.jsonl --responses responses.jsonl \\
        --rankings rankings.jsonl --demonstrations demonstrations.jsonl --out runs/rm
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.errors import InstilError
from instil.lm.batches import RankingBatch, batch_indices, passes, ranking_batch
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.reward import RewardModel, save_reward
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.losses import ranking_accuracy, ranking_loss
from instil.records import Demonstration, Labeler, Prompt, Ranking, Response
from instil.runs import Run, model_dir, say, write_json
from instil.stats import Estimate, agreement, calibration_error, mean_estimate
from instil.train import dist
from instil.train.data import by_prompt, context_of, read_all
from instil.train.fit import FitConfig, Method, above_zero, fit, publish, steps_in

READ = 4
"""Rankings that each evaluation writes for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(FitConfig):
    """Train a reward model on rankings. Defaults follow Ouyang et al. 2022, appendix C.2."""

    model: Path
    """Model or run to start from: an SFT policy (section 3.5) or any language model (C.2)."""
    prompts: tuple[Path, ...]
    """Split "train" trains, every other split is only evaluated."""
    responses: tuple[Path, ...]
    rankings: tuple[Path, ...]
    demonstrations: tuple[Path, ...] = ()
    """Labelers' demonstrations, whose mean score becomes 0; without them the bias stays 0."""
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
    lr: float = 9e-6
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


def run(config: Config) -> None:
    """Train, centre, evaluate, and write a directory for AutoModelForSequenceClassification."""
    settle(config.threads)
    with dist.open_run("rm", config) as run:
        source = model_dir(config.model)
        codec = Codec.load(source, config.template)
        model = ScalarModel.from_policy(source, config.seed, config.precision)
        model.head.bias.requires_grad_(False)  # no ranking depends on it; Adam would step on noise
        prompts = by_prompt(read_all(config.prompts, Prompt))
        longest = min(config.max_tokens, context_of(model.backbone))
        items = _items(codec, prompts, config, longest)
        demonstrations = _demonstrations(codec, prompts, config, longest)
        train = [item for item in items if item.split == "train" and item.group != "held-out"]
        say(f"rm: {len(train)} rankings to train on, {len(items) - len(train)} to evaluate")
        tokens = tokens_per_pass(model.backbone, config.micro_batch_tokens)
        method = Method(
            name="rm",
            steps=steps_in(len(train), config.batch_size, config.epochs, "rankings"),
            batches=lambda step: _batches(train, config, tokens, step),
            loss=lambda batch, weight: _loss(model, batch, weight),
            tokens=lambda batch: len(batch.packed.tokens),
            evaluate=_evaluation(run, model, codec, prompts, items, config),
            eval_every=config.eval_every,
            shown=("loss", "accuracy", "eval/accuracy"),
        )
        results = fit(run, model, config, method)
        with dist.whole(model) as plain:
            mean, std = _centre(plain, codec, demonstrations, train)
            report = evaluate(plain, codec, [item for item in items if item.split != "train"])
            if dist.first():
                write_json(run.path / "accuracy.json", report)
            for row in report["accuracy"]:
                say(f"rm: {row['split']} prompts, {row['group']} labelers: {row['text']}")
            results["std"] = std
            publish(run, plain, lambda path: save_reward(path, plain, codec, mean, std), **results)


def evaluate(model: ScalarModel, codec: Codec, items: list[Item]) -> dict[str, Any]:
    """Accuracy per split and labeler group beside length only and the labelers' own agreement."""
    reward = RewardModel(model, codec)
    unique = {
        (item.prompt_id, rid): (item.prompt, response)
        for item in items
        for rid, response in zip(item.response_ids, item.responses, strict=True)
    }
    found = dist.spread(reward.score_tokens, list(unique.values()))
    scores = dict(zip(unique, found, strict=True))
    rows = []
    for split, group in sorted({(item.split, item.group) for item in items}):
        chosen = [item for item in items if (item.split, item.group) == (split, group)]
        model_scores = [
            [scores[item.prompt_id, rid] for rid in item.response_ids] for item in chosen
        ]
        accuracy = pair_accuracy(chosen, model_scores)
        row: dict[str, Any] = {"split": split, "group": group, "rankings": len(chosen)}
        row["text"] = str(accuracy)
        row["model"] = to_row(accuracy)
        row["ece"] = pair_calibration(chosen, model_scores)
        row["longer"] = to_row(pair_accuracy(chosen, [item.lengths for item in chosen]))
        row["agreement"] = _agreement(chosen)
        rows.append(row)
    return {"accuracy": rows}


def _evaluation(
    run: Run,
    model: ScalarModel,
    codec: Codec,
    prompts: dict[str, Prompt],
    items: list[Item],
    config: Config,
) -> Callable[[int], dict[str, float]]:
    """A function of the step: accuracy on validation prompts, and rankings with scores to read."""
    valid = [item for item in items if item.split == "valid"][: config.eval_rankings]
    followed = valid or items[:READ]

    def evaluate(step: int) -> dict[str, float]:
        pairs = [(item.prompt, tokens) for item in followed for tokens in item.responses]
        with dist.whole(model) as plain:
            found = iter(dist.spread(RewardModel(plain, codec).score_tokens, pairs))
        scores = [[next(found) for _ in item.responses] for item in followed]
        rows = [
            {
                "prompt": prompts[item.prompt_id].text,
                "response": codec.decode(tokens),
                "rank": rank,
                "score": score,  # not centred yet
            }
            for item, values in zip(followed[:READ], scores, strict=False)
            for tokens, rank, score in zip(item.responses, item.ranks, values, strict=True)
        ]
        run.samples(step, rows)
        if not valid:
            return {}
        accuracy = pair_accuracy(valid, scores)
        return {
            "eval/accuracy": accuracy.mean,
            "eval/accuracy/ci_low": accuracy.low,
            "eval/accuracy/ci_high": accuracy.high,
            "eval/ece": pair_calibration(valid, scores),
        }

    return evaluate


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


def _items(codec: Codec, prompts: dict[str, Prompt], config: Config, longest: int) -> list[Item]:
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
        say(f"rm: {short} rankings say nothing (all tied, or over {longest} tokens): left out")
    return items


def _batches(items: list[Item], config: Config, tokens: int, step: int) -> list[RankingBatch]:
    chosen = [items[i] for i in batch_indices(len(items), config.batch_size, config.seed, step)]
    lengths = [len(item.prompt) + sum(map(len, item.responses)) for item in chosen]
    budget = dist.per_pass(sum(lengths), tokens)
    return [
        ranking_batch([(item.prompt, item.responses, item.ranks) for item in group])
        for group in ([chosen[i] for i in rows] for rows in passes(lengths, budget))
    ]


def _loss(model: ScalarModel, batch: RankingBatch, weight: int) -> tuple[Tensor, dict[str, float]]:
    """The ranking loss of a micro-batch, and what to log, each as its share of the whole batch."""
    batch = batch.to(model.head.weight.device)
    scores = model.ranking_scores(batch)  # (B, K)
    loss = ranking_loss(scores, batch.ranks, total=weight)
    with torch.no_grad():
        correct, pairs = ranking_accuracy(scores, batch.ranks)
        present = batch.ranks > 0
        margin = scores[:, :, None] - scores[:, None, :]
        better = (batch.ranks[:, :, None] < batch.ranks[:, None, :]) & present[:, :, None]
        margin = (margin * (better & present[:, None, :])).sum(dim=(1, 2))
        mean = (scores * present).sum(1) / present.sum(1)
        share = {
            "accuracy": (correct / pairs).sum().item() / weight,
            "margin": (margin / pairs).sum().item() / weight,
            "min_reward": scores[present].min().item(),
            "mean_reward": mean.sum().item() / weight,
            "max_reward": scores[present].max().item(),
        }
    return loss, share


def _demonstrations(
    codec: Codec, prompts: dict[str, Prompt], config: Config, longest: int
) -> list[tuple[list[int], list[int]]]:
    if not config.demonstrations:
        say("rm: no --demonstrations, so the scores are not centred")
        return []
    pairs = []
    for d in read_all(config.demonstrations, Demonstration):
        if d.prompt_id not in prompts:
            raise InstilError(
                f"demonstration of {d.prompt_id} by {d.labeler_id}: no such prompt in --prompts; "
                "give the file that holds it"
            )
        if (prompts[d.prompt_id].split or "train") == "train":
            prompt, response = prompts[d.prompt_id].text, d.text
            pairs.append((codec.encode_prompt(prompt), codec.encode_response(response)))
    kept = [(p, r) for p, r in pairs if len(p) + len(r) <= longest]
    say(f"rm: {len(kept)} demonstrations to centre the scores on")
    return kept


def _centre(
    model: ScalarModel,
    codec: Codec,
    demonstrations: list[tuple[list[int], list[int]]],
    train: list[Item],
) -> tuple[float, float]:
    """Shift the scores so that demonstrations average 0; returns mean and spread on responses."""
    reward = RewardModel(model, codec)
    if demonstrations:
        scores = dist.spread(reward.score_tokens, demonstrations)
        model.shift(-sum(scores) / len(scores))
    pairs = [(item.prompt, response) for item in train[:200] for response in item.responses]
    found = np.asarray(dist.spread(reward.score_tokens, pairs))
    return float(found.mean()), float(found.std())
