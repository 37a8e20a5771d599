"""The tasks: what a window does, and what it cannot do without.

The work is that of `workloads.py`; the code is the product's own: the supervised step of
`train/fit`, the batches and losses of `train/sft`, `train/rm` and `train/dpo`,
`lm/sampling.Decoder`, `train/ppo.ppo_step`.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.clock import Clock, Phases
from benchmarks.stand_ins import Ids, decoder, ppo_models, random_policy, random_scalar
from instil.errors import InstilError
from instil.lm.machine import tokens_per_pass
from instil.lm.sampling import Decoder, SamplingParams
from instil.train import dpo, ppo, rankings, rm, sft
from instil.train import ppo_models as held
from instil.train.fit import Method, _improve, optimizers
from instil.train.ppo_config import Config as PPOConfig
from instil.train.pretrain import text_loss
from instil.train.rankings import Item

LR = 1e-5
PAIRS_PER_STEP = 16
"""Comparisons of one reward-model step, as on the peer's side; a ranking is never split."""
MINIBATCHES = 8
"""Optimizer steps per epoch of a PPO rollout."""
NOWHERE = Path("not-written")
"""For settings that name files: nothing here reads or writes them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is measured, and what is said about it."""

    warm_up: Callable[[], Any]
    window: Callable[[], Phases]
    floors: dict[str, tuple[float, float]]
    """Phase -> the operations and bytes that it cannot do without, in GFLOP and GB."""
    fields: dict[str, Any]
    params: int
    check: Callable[[], None] = field(default=lambda: None)
    """Raises when the work was not what was asked for."""


def supervised(
    args: Namespace,
    clock: Clock,
    model: nn.Module,
    steps: int,
    batches: Callable[[int], Sequence[Any]],
    loss: Callable[[Any, int], tuple[Tensor, dict[str, float]]],
    tokens: Callable[[Any], int],
    cfg: Any,
) -> tuple[Callable[[], Any], Callable[[], Phases]]:
    """Warm-up and window of a supervised method: a window is `steps` optimizer steps."""
    chosen = optimizers(model, cfg)
    method: Method[Any] = Method(
        name=args.task,
        steps=steps,
        batches=batches,
        loss=loss,
        tokens=tokens,
    )

    def train(several: int) -> Phases:
        for step in range(several):
            _improve(model, chosen, method, step, cfg.lr, cfg.grad_clip)
            clock.tick()
        return {}

    return lambda: train(min(2, steps)), lambda: train(steps)


def sft_task(args: Namespace, clock: Clock, w: ModuleType) -> Task:
    """Supervised fine-tuning: 32 demonstrations a step, in order, each once in a window."""
    shape = w.MODELS[args.model]
    samples = w.demonstrations(args.samples, shape.vocab)
    codec, policy = Ids(w, shape.vocab), random_policy(shape, 0, args.device)
    cfg = sft.Config(
        **paths("model", "prompts", "demonstrations"),
        **settings(args, batch_size=args.batch, dropout=0.0),
    )
    pairs = [(s["prompt"], s["response"]) for s in samples]
    parts = [pairs[at : at + args.batch] for at in range(0, len(pairs), args.batch)]
    nothing = torch.empty(0, 0, dtype=torch.long)
    tokens = tokens_per_pass(policy, cfg.micro_batch_tokens)

    def batches(step: int) -> Sequence[Any]:
        part = parts[step]
        return sft._batches(codec, part, nothing, replace(cfg, batch_size=len(part)), tokens, step)

    warm_up, window = supervised(
        args,
        clock,
        policy,
        len(parts),
        batches,
        text_loss(policy, measure=True),
        lambda batch: int(batch.mask.sum()),
        cfg,
    )
    data = {"samples": len(samples), "batch": args.batch, "steps": len(parts)}
    return Task(
        warm_up=warm_up,
        window=window,
        floors={"training": (w.sft_flops(shape, samples) / 1e9, 0.0)},
        fields={"variant": "instil", "data": data}
        | amounts(len(samples), [s["prompt"] for s in samples], [s["response"] for s in samples]),
        params=parameters(policy),
    )


def rm_task(args: Namespace, clock: Clock, w: ModuleType) -> Task:
    """Reward model: whole rankings, about 16 comparisons a step, each ranking once in a window."""
    shape = w.MODELS[args.model]
    rankings = w.rankings(args.prompts, args.k, shape.vocab)
    model = random_scalar(shape, 0, args.device)
    per_step = max(1, round(PAIRS_PER_STEP / (args.k * (args.k - 1) // 2)))
    cfg = rm.Config(
        **paths("model", "prompts", "responses", "rankings"), **settings(args, batch_size=per_step)
    )
    items = ranked([(ranking["prompt"], ranking["responses"]) for ranking in rankings])
    parts = [items[at : at + per_step] for at in range(0, len(items), per_step)]
    tokens = tokens_per_pass(model.backbone, cfg.micro_batch_tokens)

    def batches(step: int) -> Sequence[Any]:
        return rm._batches(parts[step], replace(cfg, batch_size=len(parts[step])), tokens, step)

    warm_up, window = supervised(
        args,
        clock,
        model,
        len(parts),
        batches,
        lambda batch, weight: rm._loss(model, batch, weight),
        lambda batch: len(batch.packed.tokens),
        cfg,
    )
    pairs = args.k * (args.k - 1) // 2
    data = {"prompts": len(rankings), "k": args.k, "pairs": pairs * len(rankings)}
    data |= {"rankings_per_step": per_step, "steps": len(parts)}
    responses = [response for ranking in rankings for response in ranking["responses"]]
    return Task(
        warm_up=warm_up,
        window=window,
        floors={"training": (w.rm_flops(shape, rankings, "shared") / 1e9, 0.0)},
        fields={"variant": f"rankings_k{args.k}", "data": data}
        | amounts(len(rankings), [ranking["prompt"] for ranking in rankings], responses),
        params=parameters(model),
    )


def dpo_task(args: Namespace, clock: Clock, w: ModuleType) -> Task:
    """DPO: the reference's logprobs of all pairs, then 16 pairs a step, each once in a window."""
    shape = w.MODELS[args.model]
    pairs = w.preference_pairs(args.samples, shape.vocab)
    codec, policy = Ids(w, shape.vocab), random_policy(shape, 0, args.device)
    cfg = dpo.Config(
        **paths("model", "prompts", "responses", "rankings"),
        **settings(args, batch_size=args.batch),
    )
    items = ranked([(pair["prompt"], [pair["chosen"], pair["rejected"]]) for pair in pairs])
    parts = [items[at : at + args.batch] for at in range(0, len(items), args.batch)]
    tokens = tokens_per_pass(policy, cfg.micro_batch_tokens)

    def refer(several: int) -> None:
        for number in range(several):
            parts[number] = rankings.with_reference(
                parts[number], lambda some: rankings.reference_logprobs(policy, codec, tokens, some)
            )
            clock.tick()

    def batches(step: int) -> Sequence[Any]:
        part = parts[step]
        return dpo._batches(part, codec, replace(cfg, batch_size=len(part)), tokens, step)

    warm_up, train = supervised(
        args,
        clock,
        policy,
        len(parts),
        batches,
        lambda batch, weight: dpo._loss(policy, cfg, batch, weight),
        lambda batch: int(batch.lengths.sum()),
        cfg,
    )

    def window() -> Phases:
        refer(len(parts))
        return train()

    def warmed() -> None:
        refer(min(2, len(parts)))
        warm_up()

    responses = [response for item in items for response in item.responses]
    return Task(
        warm_up=warmed,
        window=window,
        floors={"training": (w.dpo_flops(shape, pairs, shared_prompt=True) / 1e9, 0.0)},
        fields={
            "variant": "instil",
            "data": {"pairs": len(pairs), "batch": args.batch, "steps": len(parts)},
        }
        | amounts(len(pairs), [item.prompt for item in items], responses),
        params=parameters(policy),
    )


def generate_task(args: Namespace, clock: Clock, w: ModuleType) -> Task:
    """Sampling: all prompts in one call, temperature 1, from token ids to token ids."""
    shape = w.MODELS[args.model]
    prompts = w.prompts(args.prompts, shape.vocab)
    lengths = wanted_lengths(args, w, len(prompts), args.max_new)
    policy = random_policy(shape, 0, args.device)
    codec = Ids(w, shape.vocab, prompts, args.eos == "geometric")
    sampler = decoder(policy, codec, lengths, args.max_new, **dict(args.set))
    params, found = SamplingParams(max_tokens=args.max_new), []

    def window() -> Phases:
        found[:] = map(len, sampler.sample(prompts, params, seed=0).tokens)
        return {}

    def check() -> None:
        if found != lengths:
            raise InstilError(f"responses of {sum(found)} tokens instead of {sum(lengths)}")

    data = {"prompts": len(prompts), "prompt_tokens": sum(map(len, prompts))}
    data |= {"max_new": args.max_new, "new_tokens": sum(lengths)}
    return Task(
        warm_up=window,
        window=window,
        floors=sampling_floors(w, shape, prompts, lengths, policy),
        fields={"variant": f"decoder/{args.eos}", "data": data}
        | amounts(len(prompts), prompts, [range(n) for n in lengths]),
        params=parameters(policy),
        check=check,
    )


def ppo_task(args: Namespace, clock: Clock, w: ModuleType) -> Task:
    """One PPO step: rollout, scores and values and reference, then epochs of 8 minibatches."""
    shape = w.MODELS[args.model]
    prompts = w.prompts(args.episodes, shape.vocab)
    lengths = wanted_lengths(args, w, len(prompts), args.response)
    cfg = PPOConfig(
        **paths("model", "prompts"),
        rm=str(NOWHERE),
        **settings(
            args,
            value_lr=LR,
            batch_size=len(prompts),
            minibatch_size=max(1, len(prompts) // MINIBATCHES),
            epochs=args.epochs,
            max_tokens=args.response,
            kl_coef=0.05,
        ),
    )
    codec = Ids(w, shape.vocab, prompts, args.eos == "geometric")
    models = ppo_models(shape, codec, cfg, args.device)
    texts, nothing = [str(i) for i in range(len(prompts))], torch.empty(0, 0, dtype=torch.long)

    # The step tells its phases by three of its functions: sampling, measuring, optimizer steps.
    marks: dict[str, float] = {}

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            result = function(*given, **named)
            marks[name] = clock.tick().norm
            return result

        return call

    def timed_decoder(model: PreTrainedModel, codec: Any, **options: Any) -> Decoder:
        found = decoder(model, codec, lengths, args.response, **options)
        found.sample = marked("rollout", found.sample)
        return found

    held.Decoder = timed_decoder
    ppo.collect = marked("scoring", ppo.collect)
    models.policy_optimizer.register_step_post_hook(lambda *_: clock.tick())
    steps = iter(range(sys.maxsize))

    def window() -> Phases:
        start = clock.tick().norm
        metrics, _ = ppo.ppo_step(models, texts, nothing, cfg, next(steps))
        marks["training"] = clock.tick().norm
        marks["mean_length"] = metrics["completions/mean_length"]
        names = ("rollout", "scoring", "training")
        ends = [start, *(marks[name] for name in names)]
        return {name: ends[i + 1] - ends[i] for i, name in enumerate(names)}

    def check() -> None:
        if abs(marks["mean_length"] * len(lengths) - sum(lengths)) > 0.5:
            raise InstilError(
                f"responses of {marks['mean_length']} tokens on average instead of "
                f"{sum(lengths) / len(lengths)}"
            )

    rest = w.ppo_flops(shape, list(map(len, prompts)), lengths, args.epochs)
    floors = sampling_floors(w, shape, prompts, lengths, models.policy)
    floors |= {name: (rest[name] / 1e9, 0.0) for name in ("scoring", "training")}
    data = {"episodes": len(prompts), "prompt_tokens": sum(map(len, prompts))}
    data |= {"response_length": args.response, "new_tokens": sum(lengths)}
    data |= {"num_ppo_epochs": args.epochs, "num_mini_batches": MINIBATCHES}
    data |= {"optimizer_steps_per_update": cfg.updates}
    return Task(
        warm_up=window,
        window=window,
        floors=floors,
        fields={"variant": f"epochs{args.epochs}/{args.eos}", "data": data}
        | {"phases_floor_gflop": {name: round(value / 1e9, 1) for name, value in rest.items()}}
        | amounts(len(prompts), prompts, [range(n) for n in lengths]),
        params=parameters(models.policy),
        check=check,
    )


def ranked(rankings: Sequence[tuple[list[int], list[list[int]]]]) -> list[Item]:
    """(prompt, responses, best first) as the trainers have them."""
    return [
        Item(
            prompt_id=str(number),
            split="train",
            group="training",
            labeler_id="",
            prompt=prompt,
            responses=responses,
            response_ids=[f"{number}-{k}" for k in range(len(responses))],
            ranks=list(range(1, len(responses) + 1)),
            lengths=[len(response) for response in responses],
        )
        for number, (prompt, responses) in enumerate(rankings)
    ]


def wanted_lengths(args: Namespace, w: ModuleType, n: int, longest: int) -> list[int]:
    """Tokens of each response."""
    if args.eos == "none":
        return [longest] * n
    lengths: list[int] = w.completion_lengths(n, longest)
    return lengths


def sampling_floors(
    w: ModuleType,
    shape: Any,
    prompts: Sequence[Sequence[int]],
    lengths: list[int],
    policy: PreTrainedModel,
) -> dict[str, tuple[float, float]]:
    """Operations of prefill and decoding, and bytes: decoding reads all weights at every step."""
    before = list(map(len, prompts))
    flops = w.generate_flops(shape, before, lengths)
    width = next(policy.parameters()).element_size()
    moved = w.generate_bytes(shape, before, lengths, width)
    return {
        "prefill": (flops["prefill"] / 1e9, 0.0),
        "decode": (flops["decode"] / 1e9, moved / 1e9),
    }


def amounts(
    samples: int, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Real tokens, each counted once."""
    completion = sum(map(len, responses))
    return {
        "samples": samples,
        "completion_tokens": completion,
        "tokens": completion + sum(map(len, prompts)),
    }


def settings(args: Namespace, **given: Any) -> dict[str, Any]:
    """Settings of a trainer, those of the command line (`--set`) last."""
    return {"out": NOWHERE, "lr": LR} | given | dict(args.set)


def paths(*names: str) -> dict[str, Any]:
    """Settings that name files which are not read."""
    return {name: NOWHERE if name == "model" else (NOWHERE,) for name in names}


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.numel() for p in model.parameters())


TASKS: dict[str, Callable[[Namespace, Clock, ModuleType], Task]] = {
    "sft": sft_task,
    "rm": rm_task,
    "dpo": dpo_task,
    "generate": generate_task,
    "ppo": ppo_task,
}
