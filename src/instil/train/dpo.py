"""Direct preference optimization: a policy from rankings, without reward model and sampling.

The policy itself implies a reward, beta times how much likelier it makes a response than the
reference (the policy that training starts from) does; the loss is that of a reward model (Rafailov
et al. 2023, eq. 7). Rankings may have any K and ties: all pairs that are not tied count, and all
pairs of a ranking together weigh as one.

What the reference says never changes and is one number per response, so it is computed once, before
the first step, and no second model is held; a resumed run computes it again. How often the implied
rewards order held-out pairs right is reported as `rm` reports it.

Left out on purpose:
  dropout                the reference would have it too, and the rewards be noise
  other losses on pairs  IPO, KTO, SimPO and the like are further methods

    instil dpo --model runs/sft --prompts prompts.jsonl --responses responses.jsonl \\
        --rankings rankings.jsonl --out runs/dpo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import OnDevice
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.models import load_policy, save_policy
from instil.lm.text import Codec
from instil.losses import dpo_loss, pair_shares, ranking_accuracy
from instil.records import Prompt
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
    sequences_of,
    with_reference,
)
from instil.train.rollout import Sequences, response_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RankingsConfig):
    """Train a policy on rankings. Defaults follow Rafailov et al. 2023, appendix B (with AdamW for
    RMSprop)."""

    model: Path
    """Model or run to start from, an SFT policy; it is the reference, too."""
    beta: float = 0.1
    """Weight of the KL to the reference: the smaller, the further the policy goes."""
    label_smoothing: float = 0.0
    """Share of pairs taken to be labelled the wrong way round (Mitchell 2023); 0 is plain DPO."""
    lr: float = 1e-6
    warmup: int = 150
    """Steps over which the rate rises linearly from 0; lower it for runs of a few hundred steps."""
    final_lr: float = 1.0
    """The cosine ends at this share of the peak; at 1 the rate stays."""

    def __post_init__(self) -> None:
        RankingsConfig.__post_init__(self)
        above_zero(self, "beta")
        if not 0 <= self.label_smoothing < 0.5:
            raise InstilError(
                f"label_smoothing {self.label_smoothing} must be at least 0 and below 0.5, where "
                "labels say nothing"
            )


@dataclass(frozen=True, slots=True)
class PreferenceBatch(OnDevice):
    """B rankings; their R responses in order, each with its prompt."""

    sequences: Sequences  # R of them
    ranks: Tensor  # (B, K)  1 is best, equal ranks are ties, 0 is padding
    reference: Tensor  # (B, K)  logprob of each response under the reference
    lengths: Tensor  # (B,)  tokens to read, the prompt once

    @property
    def weight(self) -> int:
        """Prompts: this batch's share of a loss's denominator."""
        return len(self.ranks)


def run(config: Config) -> None:
    """Train, evaluate, and write a plain Hugging Face directory."""
    settle(config.threads)
    with open_run("dpo", config) as run:
        source = model_dir(config.model)
        codec = Codec.load(source, config.template)
        policy = load_policy(source, precision=config.precision)
        prompts = by_prompt(read_all(config.prompts, Prompt))
        longest = min(config.max_tokens, context_of(policy))
        items = read_items(codec, prompts, config, longest)
        train = [item for item in items if item.trains]
        held = [item for item in items if item.split != "train"]
        steps = steps_in(len(train), config.batch_size, config.epochs, "rankings")
        say(f"dpo: {len(train)} rankings to train on, {len(held)} to evaluate")
        tokens = tokens_per_pass(policy, config.micro_batch_tokens)

        def logprobs_now(some: list[Item]) -> list[list[float]]:
            if isinstance(run, DryRun):
                return [[0.0] * len(item.ranks) for item in some]
            with dist.whole(policy) as plain:
                return dist.spread(
                    lambda share: reference_logprobs(plain, codec, tokens, share), some
                )

        def rewards_now(some: list[Item]) -> list[list[float]]:
            return [
                [config.beta * (new - old) for new, old in zip(now, item.reference, strict=True)]
                for item, now in zip(some, logprobs_now(some), strict=True)
            ]

        train, held = with_reference(train, logprobs_now), with_reference(held, logprobs_now)
        method = Method(
            name="dpo",
            steps=steps,
            batches=lambda step: _batches(train, codec, config, tokens, step),
            loss=lambda batch, weight: _loss(policy, config, batch, weight),
            tokens=lambda batch: int(batch.lengths.sum()),
            evaluate=evaluation(
                run, codec, prompts, train + held, config, rewards_now, "rewards/accuracies"
            ),
            eval_every=config.eval_every,
            shown=("loss", "rewards/accuracies", "eval/rewards/accuracies"),
        )
        if isinstance(run, DryRun):
            run.supervised(policy, config, method)
            return
        results = fit(run, policy, config, method)
        results["flops"] += 2 * results["params"] * sum(item.tokens for item in train + held)
        report(run, "dpo", held, rewards_now(held))
        with dist.whole(policy) as plain:
            publish(run, plain, lambda path: save_policy(plain, codec, path), **results)


def _batches(
    items: list[Item], codec: Codec, config: Config, tokens: int, step: int
) -> list[PreferenceBatch]:
    """The micro-batches of one step."""
    return [_batch(group, codec) for group in items_of_step(items, config, tokens, step)]


def _batch(items: Sequence[Item], codec: Codec) -> PreferenceBatch:
    ranks = [torch.tensor(item.ranks) for item in items]
    reference = [torch.tensor(item.reference) for item in items]
    return PreferenceBatch(
        sequences_of(items, codec),
        pad_sequence(ranks, batch_first=True),
        pad_sequence(reference, batch_first=True),
        torch.tensor([item.tokens for item in items]),
    )


def _loss(
    policy: PreTrainedModel, config: Config, batch: PreferenceBatch, weight: int
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a micro-batch, and what to log, each as its share of the whole batch."""
    batch = batch.to(policy.device)
    sums = response_logprobs(policy, batch.sequences, 1.0).sum(dim=1)  # (R,)
    logprobs = sums.new_zeros(batch.ranks.shape).masked_scatter(batch.ranks > 0, sums)
    loss, rewards = dpo_loss(
        *(logprobs, batch.reference, batch.ranks, config.beta, config.label_smoothing),
        total=weight,
    )
    with torch.no_grad():
        correct, pairs = ranking_accuracy(rewards, batch.ranks)
        better, worse = pair_shares(batch.ranks)
        shares = {
            "rewards/chosen": better * rewards,
            "rewards/rejected": worse * rewards,
            "rewards/margins": (better - worse) * rewards,
            "rewards/accuracies": correct / pairs,
            "logps/chosen": better * logprobs,
            "logps/rejected": worse * logprobs,
        }
    return loss, {name: share.sum().item() / weight for name, share in shares.items()}
