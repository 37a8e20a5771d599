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

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instil.errors import InstilError
from instil.lm.batches import RankingBatch, ranking_batch
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.reward import RewardModel, save_reward
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.losses import pair_shares, ranking_accuracy, ranking_loss
from instil.records import Demonstration, Prompt
from instil.runs import model_dir, say
from instil.train import dist
from instil.train.data import by_prompt, context_of, read_all
from instil.train.dry_run import DryRun, open_run
from instil.train.fit import Method, fit, publish, steps_in
from instil.train.rankings import (
    Item,
    RankingsConfig,
    evaluation,
    items_of_step,
    read_items,
    report,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RankingsConfig):
    """Train a reward model on rankings. Defaults follow Ouyang et al. 2022, appendix C.2."""

    model: Path
    """Model or run to start from: an SFT policy (section 3.5) or any language model (C.2)."""
    demonstrations: tuple[Path, ...] = ()
    """Labelers' demonstrations, whose mean score becomes 0; without them the bias stays 0."""
    lr: float = 9e-6


def run(config: Config) -> None:
    """Train, centre, evaluate, and write a directory for AutoModelForSequenceClassification."""
    settle(config.threads)
    with open_run("rm", config) as run:
        source = model_dir(config.model)
        codec = Codec.load(source, config.template)
        model = ScalarModel.from_policy(source, config.seed, config.precision)
        model.head.bias.requires_grad_(False)  # no ranking depends on it; Adam would step on noise
        prompts = by_prompt(read_all(config.prompts, Prompt))
        longest = min(config.max_tokens, context_of(model.backbone))
        items = read_items(codec, prompts, config, longest)
        demonstrations = _demonstrations(codec, prompts, config, longest)
        train = [item for item in items if item.trains]
        say(f"rm: {len(train)} rankings to train on, {len(items) - len(train)} to evaluate")
        tokens = tokens_per_pass(model.backbone, config.micro_batch_tokens)

        def scores_now(some: list[Item]) -> list[list[float]]:
            with dist.whole(model) as plain:
                return _scores(plain, codec, some)

        method = Method(
            name="rm",
            steps=steps_in(len(train), config.batch_size, config.epochs, "rankings"),
            batches=lambda step: _batches(train, config, tokens, step),
            loss=lambda batch, weight: _loss(model, batch, weight),
            tokens=lambda batch: len(batch.packed.tokens),
            evaluate=evaluation(run, codec, prompts, items, config, scores_now, "accuracy"),
            eval_every=config.eval_every,
            shown=("loss", "accuracy", "eval/accuracy"),
        )
        if isinstance(run, DryRun):
            run.supervised(model, config, method)
            return
        results = fit(run, model, config, method)
        with dist.whole(model) as plain:
            mean, std = _centre(plain, codec, demonstrations, train)
            held = [item for item in items if item.split != "train"]
            report(run, "rm", held, _scores(plain, codec, held))
            results["std"] = std
            publish(run, plain, lambda path: save_reward(path, plain, codec, mean, std), **results)


def _scores(model: ScalarModel, codec: Codec, items: list[Item]) -> list[list[float]]:
    """Scores of the responses of each ranking, each response read once."""
    unique = {
        (item.prompt_id, rid): (item.prompt, response)
        for item in items
        for rid, response in zip(item.response_ids, item.responses, strict=True)
    }
    found = dist.spread(RewardModel(model, codec).score_tokens, list(unique.values()))
    scores = dict(zip(unique, found, strict=True))
    return [[scores[item.prompt_id, rid] for rid in item.response_ids] for item in items]


def _batches(items: list[Item], config: Config, tokens: int, step: int) -> list[RankingBatch]:
    return [
        ranking_batch([(item.prompt, item.responses, item.ranks) for item in group])
        for group in items_of_step(items, config, tokens, step)
    ]


def _loss(model: ScalarModel, batch: RankingBatch, weight: int) -> tuple[Tensor, dict[str, float]]:
    """The ranking loss of a micro-batch, and what to log, each as its share of the whole batch."""
    batch = batch.to(model.head.weight.device)
    scores = model.ranking_scores(batch)  # (B, K)
    loss = ranking_loss(scores, batch.ranks, total=weight)
    with torch.no_grad():
        correct, pairs = ranking_accuracy(scores, batch.ranks)
        present = batch.ranks > 0
        better, worse = pair_shares(batch.ranks)
        mean = (scores * present).sum(1) / present.sum(1)
        share = {
            "accuracy": (correct / pairs).sum().item() / weight,
            "margin": ((better - worse) * scores).sum().item() / weight,
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
