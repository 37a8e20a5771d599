"""The reward model: a scalar head on a language model, trained on rankings with ties.

All responses of a ranking are in one batch element, each read once; the loss is the mean over all
C(K,2) pairs that are not tied (Ouyang et al. 2022, section 3.5, eq. 1). Shuffling pairs as separate
examples overfits in one pass. After training, one bias makes the mean score of the labelers'
demonstrations 0; the scale is left as it is and its spread is stored.

With --likelihood, a language model's logprob of the response is a part of the score, with a weight
that the rankings decide: first the one at which the logprobs alone predict them best, then the
scalar head learns what they lack. The paper has none; docs/method.md says why the demo does it.

What comes of it is reported beside three yardsticks: how often labelers agree with each other (the
ceiling), and how often the longer response wins (the floor).

    instil rm --model runs/sft --prompts prompts.jsonl --responses responses.jsonl \\
        --rankings rankings.jsonl --demonstrations demonstrations.jsonl --out runs/rm
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from instil.errors import InstilError
from instil.lm.batches import RankingBatch, ranking_batch
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.models import load_policy
from instil.lm.reward import Likelihood, RewardModel, save_reward
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.losses import fitted_weight, pair_shares, ranking_accuracy, ranking_loss
from instil.records import Demonstration, Prompt
from instil.runs import model_dir, say
from instil.train import dist
from instil.train.data import by_prompt, context_of, read_all
from instil.train.dry_run import DryRun, open_run
from instil.train.fit import Method, above_zero, fit, publish, steps_in
from instil.train.rankings import (
    Item,
    RankingsConfig,
    evaluation,
    items_of_step,
    read_items,
    reference_logprobs,
    report,
)
from instil.train.rollout import whole_reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RankingsConfig):
    """Train a reward model on rankings. Defaults follow Ouyang et al. 2022, appendix C.2."""

    model: Path
    """Model or run to start from: an SFT policy (section 3.5) or any language model (C.2)."""
    demonstrations: tuple[Path, ...] = ()
    """Labelers' demonstrations, whose mean score becomes 0; without them the bias stays 0."""
    likelihood: Path | None = None
    """A language model with the tokenizer of `model`: its logprob of a response, times a weight
    that is fitted, is added to the score. It is stored with the reward model."""
    likelihood_temperature: float = 0.5
    """Of its softmax; the lower, the more a word costs that is unlikely beside another one."""
    lr: float = 9e-6

    def __post_init__(self) -> None:
        RankingsConfig.__post_init__(self)
        above_zero(self, "likelihood_temperature")


def run(config: Config) -> None:
    """Train, centre, evaluate, and write a directory for AutoModelForSequenceClassification."""
    settle(config.threads)
    with open_run("rm", config) as run:
        source = model_dir(config.model)
        codec = Codec.load(source, config.template)
        model = ScalarModel.from_policy(source, config.seed, config.precision)
        model.head.bias.requires_grad_(False)  # no ranking depends on it; Adam would step on noise
        longest = min(config.max_tokens, context_of(model.backbone))
        likelihood = None
        if config.likelihood is not None:
            likelihood = _load_likelihood(config.likelihood, codec, config)
            longest = min(longest, context_of(likelihood.model))
            nn.init.zeros_(model.head.weight)  # it learns what the likelihood lacks
        prompts = by_prompt(read_all(config.prompts, Prompt))
        items = read_items(codec, prompts, config, longest)
        demonstrations = _demonstrations(codec, prompts, config, longest)
        train = [item for item in items if item.trains]
        say(f"rm: {len(train)} rankings to train on, {len(items) - len(train)} to evaluate")
        steps = steps_in(len(train), config.batch_size, config.epochs, "rankings")
        tokens = tokens_per_pass(model.backbone, config.micro_batch_tokens)
        if likelihood and not isinstance(run, DryRun):
            train, likelihood = _with_likelihood(train, likelihood, codec, tokens)
        reward = RewardModel(model, codec, likelihood=likelihood)

        def scores_now(some: list[Item]) -> list[list[float]]:
            with whole_reward(reward) as whole:
                return _scores(whole, some)

        method = Method(
            name="rm",
            steps=steps,
            batches=lambda step: _batches(train, config, tokens, step),
            loss=lambda batch, weight: _loss(model, batch, weight),
            tokens=lambda batch: len(batch.packed.tokens),
            evaluate=evaluation(run, codec, prompts, items, config, scores_now, "accuracy"),
            eval_every=config.eval_every,
            shown=("loss", "accuracy", "eval/accuracy"),
        )
        if isinstance(run, DryRun):
            run.supervised(model, config, method, reward)
            return
        results = fit(run, model, config, method)
        with whole_reward(reward) as whole:
            final, mean = _centre(whole, demonstrations, train)
            held = [item for item in items if item.split != "train"]
            report(run, "rm", held, _scores(final, held))
            results["std"] = final.std
            if likelihood:
                read = 2 * sum(p.numel() for p in likelihood.model.parameters())
                results["flops"] += read * sum(item.tokens for item in train + held)
            publish(run, whole.model, lambda path: save_reward(path, final, mean), **results)


def _load_likelihood(source: Path, codec: Codec, config: Config) -> Likelihood:
    folder = model_dir(source)
    if not Codec.load(folder, config.template).same_tokens(codec):
        raise InstilError(
            f"--likelihood {source}: its tokenizer or template is not that of --model "
            f"{config.model}; take a model with the same"
        )
    model = load_policy(folder, precision=config.precision).requires_grad_(False)
    dist.shard(model)
    return Likelihood(model, temperature=config.likelihood_temperature)


def _with_likelihood(
    train: list[Item], likelihood: Likelihood, codec: Codec, tokens: int
) -> tuple[list[Item], Likelihood]:
    """The rankings with what the likelihood adds to the score of each response, at the weight at
    which it alone predicts them best, and the likelihood with that weight."""
    with dist.whole(likelihood.model) as model:
        found = dist.spread(
            lambda share: reference_logprobs(model, codec, tokens, share, likelihood.temperature),
            train,
        )
    logprobs = pad_sequence([torch.tensor(each) for each in found], batch_first=True)
    ranks = pad_sequence([torch.tensor(item.ranks) for item in train], batch_first=True)
    try:
        weight = fitted_weight(logprobs, ranks)
    except ValueError as error:
        raise InstilError(
            f"the likelihood of the {len(train)} rankings has no best weight ({error}); give more "
            "rankings, or train without --likelihood"
        ) from error
    say(f"rm: the weight of the likelihood is {weight:.3g}")
    if weight <= 0:
        raise InstilError(
            f"the weight of the likelihood is {weight:.3g}: labelers prefer what the model finds "
            "unlikely, longer responses perhaps, and PPO would be paid for nonsense; train without "
            "--likelihood"
        )
    weighted = [
        replace(item, reference=[weight * logprob for logprob in own])
        for item, own in zip(train, found, strict=True)
    ]
    return weighted, replace(likelihood, weight=weight)


def _scores(reward: RewardModel, items: list[Item]) -> list[list[float]]:
    """Scores of the responses of each ranking, each response read once."""
    unique = {
        (item.prompt_id, rid): (item.prompt, response)
        for item in items
        for rid, response in zip(item.response_ids, item.responses, strict=True)
    }
    found = dist.spread(reward.score_tokens, list(unique.values()))
    scores = dict(zip(unique, found, strict=True))
    return [[scores[item.prompt_id, rid] for rid in item.response_ids] for item in items]


def _batches(items: list[Item], config: Config, tokens: int, step: int) -> list[RankingBatch]:
    return [
        ranking_batch(
            [(item.prompt, item.responses, item.ranks) for item in group],
            [item.reference for item in group if item.reference],
        )
        for group in items_of_step(items, config, tokens, step)
    ]


def _loss(model: ScalarModel, batch: RankingBatch, weight: int) -> tuple[Tensor, dict[str, float]]:
    """The ranking loss of a micro-batch, and what to log, each as its share of the whole batch."""
    batch = batch.to(model.head.weight.device)
    scores = model.ranking_scores(batch) + batch.offsets  # (B, K)
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
    reward: RewardModel,
    demonstrations: list[tuple[list[int], list[int]]],
    train: list[Item],
) -> tuple[RewardModel, float]:
    """Shift the scores so that demonstrations average 0. Returns the reward with the spread of its
    scores on responses, and their mean."""
    if demonstrations:
        scores = dist.spread(reward.score_tokens, demonstrations)
        reward.model.shift(-sum(scores) / len(scores))
    pairs = [(item.prompt, response) for item in train[:200] for response in item.responses]
    found = np.asarray(dist.spread(reward.score_tokens, pairs))
    return replace(reward, std=float(found.std())), float(found.mean())
