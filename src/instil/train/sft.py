"""Supervised fine-tuning on demonstrations, loss on the response only.

The paper's two uses (Ouyang et al. 2022):
  SFT baseline  appendix C.1: 16 epochs, cosine to 10 %, residual dropout 0.2, the checkpoint
                chosen by the reward model's score on validation prompts. Validation loss is
                overfitted after one epoch, more epochs still raise the score, so both are kept.
  PPO's start   appendix C.3: 2 epochs with 10 % of the examples from pretraining text
                (the table [ppo-init] of the recipes).

    instil sft --model runs/base --prompts prompts.jsonl --demonstrations demonstrations.jsonl \\
        --out runs/sft
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import TextBatch, batch_indices, passes, text_batch
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.models import load_policy, logprobs, save_policy
from instil.lm.reward import PythonReward, RewardModel, load_reward
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.text import Codec
from instil.records import Demonstration, Prompt
from instil.runs import Run, model_dir, say
from instil.train import dist
from instil.train.data import by_prompt, context_of, fitting, pretraining_rows, read_all
from instil.train.dry_run import DryRun, open_run
from instil.train.fit import FitConfig, Method, above_zero, fit, publish, steps_in
from instil.train.pretrain import text_loss
from instil.train.rollout import judge, sample

Pair = tuple[list[int], list[int]]

READ = 8
"""Responses that each evaluation writes for people to read."""
READ_TOKENS = 128
"""Longest of them when no reward model asks for whole responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(FitConfig):
    """Train a policy on demonstrations. Defaults follow Ouyang et al. 2022, appendix C.1."""

    model: Path
    """Model or run to start from."""
    prompts: tuple[Path, ...]
    """Prompts that the demonstrations answer; split "valid" validates, "train" trains."""
    demonstrations: tuple[Path, ...]
    rm: Path | None = None
    """Reward model by whose score on validation prompts the checkpoint is chosen; without one
    the validation loss chooses."""
    pretraining: tuple[Path, ...] = ()
    """Text for the pretraining mix."""
    pretraining_mix: float = 0.0
    """Share of a batch's examples that come from pretraining text (0.1 for PPO's start, C.3)."""
    template: str = ""
    """How a prompt is put, with {prompt} in it, for a model that stores no template of its own."""
    row_length: int = 128
    """Tokens of an example of pretraining text."""
    dropout: float = 0.2
    """Residual dropout (C.1)."""
    max_prompt_tokens: int = 1024
    """Longer prompts are left out, and counted (C: 1k)."""
    max_response_tokens: int = 1024
    """Longer responses are left out, and counted (C: 1k)."""
    eval_prompts: int = 128
    """Validation prompts sampled per evaluation when `rm` is given."""
    epochs: float = 16
    batch_size: int = 32
    lr: float = 9.65e-6
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        FitConfig.__post_init__(self)
        if not 0 <= self.pretraining_mix < 1:
            raise InstilError(f"pretraining_mix {self.pretraining_mix} must be in [0, 1)")
        if self.pretraining_mix and not self.pretraining:
            raise InstilError("pretraining_mix needs --pretraining, the text to mix in")
        if self.pretraining_mix and not 0 < self.mixed < self.batch_size:
            raise InstilError(
                f"pretraining_mix {self.pretraining_mix} of batch_size {self.batch_size} is "
                f"{self.mixed} examples; at least one must be text and one a demonstration"
            )
        above_zero(self, "max_prompt_tokens", "max_response_tokens", "eval_prompts")

    @property
    def mixed(self) -> int:
        """Examples of a batch that are pretraining text."""
        return round(self.batch_size * self.pretraining_mix)


def run(config: Config) -> None:
    """Train and write a plain Hugging Face directory."""
    settle(config.threads)
    with open_run("sft", config) as run:
        source = model_dir(config.model)
        codec, policy = (
            Codec.load(source, config.template),
            load_policy(source, config.dropout, config.precision),
        )
        prompts = by_prompt(read_all(config.prompts, Prompt))
        demonstrations = read_all(config.demonstrations, Demonstration)
        context = context_of(policy)
        train, valid = (
            _pairs(codec, prompts, demonstrations, config, context, name)
            for name in ("train", "valid")
        )
        text = (
            pretraining_rows(codec, config.pretraining, config.row_length, config.mixed)
            if config.mixed
            else torch.empty(0, 0, dtype=torch.long)
        )
        steps = steps_in(
            len(train), config.batch_size - config.mixed, config.epochs, "demonstrations"
        )
        say(f"sft: {len(train)} demonstrations, {len(valid)} for validation")
        tokens = tokens_per_pass(policy, config.micro_batch_tokens)
        reward = None if config.rm is None else load_reward(config.rm, config.precision)
        asked, length = _asked(codec, policy, prompts, config)
        method = Method(
            name="sft",
            steps=steps,
            batches=lambda step: _batches(codec, train, text, config, tokens, step),
            loss=text_loss(policy, measure=True),
            tokens=lambda batch: int(batch.mask.sum()),
            evaluate=_evaluation(run, codec, policy, reward, asked, length, valid, config),
            eval_every=max(1, round(steps / max(1, config.epochs))),
            select="eval/rm_score" if config.rm else "-eval/loss" if valid else "",
            shown=("loss", "eval/loss", "eval/rm_score"),
        )
        if isinstance(run, DryRun):
            ids = [codec.encode_prompt(text) for text in asked]
            run.sample(policy, codec, ids, SamplingParams(max_tokens=length))
            run.supervised(policy, config, method, reward)
            return
        results = fit(run, policy, config, method)
        with dist.whole(policy) as plain:
            publish(run, plain, lambda path: save_policy(plain, codec, path), **results)


def _pairs(
    codec: Codec,
    prompts: dict[str, Prompt],
    demonstrations: list[Demonstration],
    config: Config,
    context: int,
    split: str,
) -> list[Pair]:
    """Tokenized (prompt, response) of one split; prompts without a split train."""
    chosen = []
    for demonstration in demonstrations:
        if demonstration.prompt_id not in prompts:
            raise InstilError(
                f"demonstration of {demonstration.prompt_id} by {demonstration.labeler_id}: no "
                "such prompt in --prompts; give the file that holds it"
            )
        prompt = prompts[demonstration.prompt_id]
        if (prompt.split or "train") == split:
            chosen.append(
                (codec.encode_prompt(prompt.text), codec.encode_response(demonstration.text))
            )
    longest = config.max_prompt_tokens, config.max_response_tokens
    return fitting(chosen, *longest, f"{split} pairs", context)


def _batches(
    codec: Codec, pairs: list[Pair], text: torch.Tensor, config: Config, tokens: int, step: int
) -> list[TextBatch]:
    """The micro-batches of one step, of about `tokens` tokens each."""
    chosen = batch_indices(len(pairs), config.batch_size - config.mixed, config.seed, step)
    examples = [pairs[i] for i in chosen]
    if config.mixed:
        rows = text[batch_indices(len(text), config.mixed, config.seed + 1, step)]
        examples += [(row[:1], row[1:]) for row in rows.tolist()]
    lengths = [len(prompt) + len(response) for prompt, response in examples]
    return [
        text_batch([examples[i] for i in chosen], codec.pad_id)
        for chosen in passes(lengths, dist.per_pass(sum(lengths), tokens))
    ]


@torch.no_grad()
def _mean_loss(codec: Codec, policy: PreTrainedModel, pairs: list[Pair], config: Config) -> float:
    """Mean loss per response token on validation pairs, in nats."""
    total, count = 0.0, 0.0
    tokens = tokens_per_pass(policy, config.micro_batch_tokens)
    lengths = [len(prompt) + len(response) for prompt, response in pairs]
    for chosen in dist.mine(passes(lengths, tokens)):
        batch = text_batch([pairs[i] for i in chosen], codec.pad_id).to(policy.device)
        total -= logprobs(policy, batch.tokens, batch.mask, batch.loss_mask).sum().item()
        count += batch.weight
    total, count = dist.totals(total, count)
    return total / count


def _asked(
    codec: Codec, policy: PreTrainedModel, prompts: dict[str, Prompt], config: Config
) -> tuple[list[str], int]:
    """The prompts of an evaluation, and the longest response to them."""
    context = context_of(policy)
    length = min(config.max_response_tokens, context // 2)
    room = min(config.max_prompt_tokens, context - length)
    short = [p for p in prompts.values() if len(codec.encode_prompt(p.text)) <= room]
    asked = [p.text for p in short if p.split == "valid"][: config.eval_prompts]
    if config.rm is None:
        return (asked or [p.text for p in short])[:READ], min(length, READ_TOKENS)
    if not asked:
        raise InstilError(
            'rm chooses the checkpoint on prompts of split "valid": --prompts has none that fit'
        )
    return asked, length


def _evaluation(
    run: Run,
    codec: Codec,
    policy: PreTrainedModel,
    reward: RewardModel | PythonReward | None,
    asked: list[str],
    length: int,
    valid: list[Pair],
    config: Config,
) -> Callable[[int], dict[str, float]]:
    """A function of the step: the validation loss, what the reward model says, samples to read."""
    if isinstance(reward, RewardModel):
        dist.shard(reward.model)
        if reward.likelihood:
            dist.shard(reward.likelihood.model)
    params = SamplingParams(max_tokens=length, temperature=1.0)

    def evaluate(step: int) -> dict[str, float]:
        ids = [codec.encode_prompt(text) for text in asked]
        with dist.whole(policy) as plain:
            metrics = {"eval/loss": _mean_loss(codec, plain, valid, config)} if valid else {}
            samples = sample(Decoder(plain, codec), ids, params, config.seed)
        responses = [codec.decode(tokens) for tokens in samples.tokens]
        rows: list[dict[str, Any]] = [
            {"prompt": p, "response": r} for p, r in zip(asked, responses, strict=True)
        ]
        if reward is not None:
            scores = judge(reward, asked, responses)
            metrics["eval/rm_score"] = sum(scores) / len(scores)
            rows = [row | {"score": score} for row, score in zip(rows, scores, strict=True)]
        run.samples(step, rows[:READ])
        return metrics

    return evaluate
