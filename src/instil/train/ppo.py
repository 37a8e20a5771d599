"""PPO against a reward model, with an optional pretraining mix (PPO-ptx).

One step samples a response to each prompt, scores it, turns the score and the per-token KL to the
reference into rewards, and takes clipped policy and value steps on them (Ouyang et al. 2022,
section 3.5 and appendix C.4; docs/method.md says what the paper leaves open and what we chose).
The mathematics is in losses.py and advantages.py; this file moves tensors between models.

Left out on purpose:
  entropy bonus    the KL to the reference already keeps the policy broad
  reward scaling   the reward model is centred once, when it is trained
  dual clip        one pass over the data rarely needs it

    instil ppo --model runs/ppo-init --rm runs/rm --prompts prompts.jsonl --out runs/ppo
    instil ppo ... --ptx-coef 27.8 --pretraining text.jsonl        # PPO-ptx
    torchrun --nproc-per-node 8 -m instil ppo ...                  # the same run on 8 devices
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from instil.advantages import gae, kl_shaped_rewards, whiten
from instil.errors import InstilError
from instil.lm.batches import batch_indices, epoch_order, rollout_batch, stream_batch
from instil.lm.machine import give_back, settle, tokens_per_pass
from instil.lm.models import logprobs
from instil.lm.reward import RewardModel
from instil.lm.sampling import SamplingParams
from instil.losses import (
    lm_loss,
    masked_mean,
    ppo_policy_loss,
    ppo_value_loss,
    value_clip_fraction,
)
from instil.progress import Progress
from instil.runs import Run
from instil.train import dist
from instil.train.checkpoint import reseed, save_checkpoint, weights
from instil.train.data import pretraining_rows
from instil.train.dry_run import DryRun, open_run
from instil.train.fit import due
from instil.train.guards import Limits, check_finite, check_gap, check_start, largest_gap
from instil.train.ppo_config import Config
from instil.train.ppo_models import (
    Models,
    groups,
    load,
    publish_all,
    publish_last_good,
    resume,
    training_prompts,
)
from instil.train.rollout import (
    Rollout,
    Sequences,
    judge,
    logprob_gaps,
    measured,
    measurements,
    response_logprobs,
    response_logprobs_and_entropies,
    response_values,
    sample,
)

Metrics = dict[str, float]

CHECKED = 16
"""One sequence in so many has its sampled logprobs compared with the trainer's, at every step."""


def ppo_step(
    models: Models, prompts: list[str], text: Tensor, cfg: Config, step: int
) -> tuple[Metrics, list[dict[str, Any]]]:
    """One step of PPO: sample, measure, improve. Returns metrics and samples to read."""
    metrics: Metrics = {}
    started = time.monotonic()
    rollout, responses = collect(models, prompts, cfg, step, metrics)
    models.state["tokens"] += int(rollout.sequences.attention_mask.sum())
    metrics["num_tokens"] = models.state["tokens"]
    mask = rollout.sequences.response_mask
    if cfg.truncated == "mask":
        mask = mask & rollout.ended[:, None]
    rewards = rollout.token_scores + kl_shaped_rewards(
        rollout.scores,
        rollout.logprobs,
        rollout.ref_logprobs,
        rollout.sequences.response_mask,
        models.state["kl_coef"],
    )
    advantages, returns = gae(
        rewards, rollout.values, rollout.sequences.response_mask, cfg.discount, cfg.gae_lambda
    )
    if cfg.whiten_advantages and int(mask.sum()) > 1:  # none, when all are cut off and masked
        advantages = whiten(advantages, mask)

    metrics |= measurements(
        rollout, rewards, returns, responses, models.state["kl_coef"], models.state["reward_std"]
    )
    trained = time.monotonic()
    sums: dict[str, list[float]] = {}
    for update, rows in enumerate(minibatches(cfg, step)):
        found = improve(models, rollout, mask, advantages, returns, text, rows, cfg, step, update)
        for name, value in found.items():
            sums.setdefault(name, []).append(value)
    metrics |= {name: sum(values) / len(values) for name, values in sums.items()}
    metrics["val/ratio_var"] = float(torch.tensor(sums["val/ratio"]).var(unbiased=False))
    if cfg.kl_target:
        adapt_kl(models, metrics["objective/kl"], cfg)
    metrics["time/train"] = time.monotonic() - trained
    metrics["time/step"] = time.monotonic() - started
    samples = [
        {"prompt": p, "response": r, "score": s}
        for p, r, s in zip(prompts[:8], responses, rollout.raw_scores.tolist(), strict=False)
    ]
    return dist.from_first(lambda: metrics), samples


@torch.no_grad()
def collect(
    models: Models, prompts: list[str], cfg: Config, step: int, metrics: Metrics
) -> tuple[Rollout, list[str]]:
    """Sample one response per prompt and measure everything that must not change later."""
    models.policy.eval()
    models.value.eval()
    started = time.monotonic()
    ids = [models.codec.encode_prompt(prompt) for prompt in prompts]
    params = SamplingParams(
        max_tokens=cfg.max_tokens, temperature=cfg.temperature, top_p=cfg.top_p, top_k=cfg.top_k
    )
    give_back()  # what the last updates kept: sampling needs its memory in other pieces
    with dist.whole(models.policy) as policy:
        sampler = models.sampler(policy, cfg)
        samples = sample(sampler, ids, params, seed=cfg.seed * 1_000_003 + step)
    metrics["time/generate"] = time.monotonic() - started

    started = time.monotonic()
    sequences = Sequences(*rollout_batch(ids, samples.tokens, models.codec.pad_id))
    sequences = sequences.to(models.policy.device)
    mask = sequences.response_mask
    responses = [models.codec.decode(tokens) for tokens in samples.tokens]
    raw_scores = torch.tensor(score(models, prompts, ids, responses, samples.tokens, samples.ended))
    tokens = tokens_per_pass(models.policy, cfg.micro_batch_tokens)
    token_scores = models.token_scores(sequences, tokens)
    scores = raw_scores - token_scores.sum(dim=1).cpu()
    if not models.state["reward_std"] > 0:  # not known yet, or all scores were equal so far
        models.state["reward_std"] = raw_scores.std(unbiased=False).item()
    ended = torch.tensor(samples.ended)
    if cfg.truncated == "penalise":
        scores = scores - cfg.truncated_penalty * models.state["reward_std"] * (~ended)
    sampled = torch.zeros(mask.shape)
    sampled[mask.cpu()] = torch.tensor([x for row in samples.logprobs for x in row])
    everything = torch.arange(len(ids))
    with models.whole_reference() as reference:
        ref_logprobs = measured(
            *(sequences, everything, tokens),
            lambda some: response_logprobs(reference, some, cfg.temperature),
        )
    with dist.whole(models.value) as value:
        values = measured(sequences, everything, tokens, lambda some: response_values(value, some))
    rollout = Rollout(
        sequences=sequences,
        logprobs=sampled.to(mask.device),
        ref_logprobs=ref_logprobs,
        values=values,
        token_scores=token_scores,
        scores=scores.to(mask.device),
        raw_scores=raw_scores.to(mask.device),
        ended=ended.to(mask.device),
    )
    checked = epoch_order(len(ids), cfg.seed, step)[: -(-len(ids) // CHECKED)]
    with dist.whole(models.policy) as policy:
        gaps = logprob_gaps(policy, rollout, torch.tensor(checked), cfg.temperature, tokens)
        if gaps["rollout/max_abs_dlogp"] > cfg.logprob_tolerance:
            gaps = logprob_gaps(policy, rollout, everything, cfg.temperature, tokens, keep=True)
        allowed = largest_gap(policy) if cfg.logprob_gap is None else cfg.logprob_gap
        check_gap(gaps["rollout/max_abs_dlogp"], allowed, step)
        metrics |= gaps
        if step == 0:
            with dist.whole(models.value) as value:
                check_start(policy, value, rollout, cfg.temperature, tokens, models.value_is_reward)
    metrics["time/score"] = time.monotonic() - started
    return rollout, responses


def score(
    models: Models,
    prompts: list[str],
    prompt_ids: list[list[int]],
    responses: list[str],
    response_ids: list[list[int]],
    ended: list[bool],
) -> list[float]:
    """Scores of the sampled responses.

    A reward model that shares the policy's tokenizer reads the very tokens that were sampled,
    with the end token after those that were cut off; any other reward reads the text.
    """
    if isinstance(models.reward, RewardModel) and models.shares_tokens:
        end = models.codec.eos_id
        closed = [
            tokens if done else [*tokens, end]
            for tokens, done in zip(response_ids, ended, strict=True)
        ]
        with models.whole_reward() as reward:
            return dist.spread(reward.score_tokens, list(zip(prompt_ids, closed, strict=True)))
    return judge(models.reward, prompts, responses)


def improve(
    models: Models,
    rollout: Rollout,
    mask: Tensor,
    advantages: Tensor,
    returns: Tensor,
    text: Tensor,
    rows: Tensor,
    cfg: Config,
    step: int,
    update: int,
) -> Metrics:
    """One optimizer step of policy and value on some of the sequences."""
    models.policy.train()
    models.value.train()
    total = mask[rows].sum().clamp(min=1)
    found: Metrics = {}
    tokens = tokens_per_pass(models.policy, cfg.micro_batch_tokens)
    tokens = dist.per_pass(int(rollout.sequences.attention_mask[rows].sum()), tokens)
    for (piece, sequences), counts in dist.evenly(list(rollout.sequences.pieces(rows, tokens))):
        columns = slice(0, sequences.response_mask.shape[1])
        kept, old = mask[piece, columns], rollout.logprobs[piece, columns]
        new, entropy = dist.forward(
            *(models.policy, response_logprobs_and_entropies, models.policy),
            *(sequences, cfg.temperature),
        )
        policy_loss, clipped = ppo_policy_loss(
            new, old, advantages[piece, columns], kept, cfg.clip, total
        )
        (counts * policy_loss).backward()  # before the value's pass, so one graph exists at a time
        values = dist.forward(models.value, response_values, models.value, sequences)
        value_loss = ppo_value_loss(
            values,
            rollout.values[piece, columns],
            returns[piece, columns],
            kept,
            cfg.value_clip,
            total,
        )
        (counts * value_loss).backward()
        with torch.no_grad():
            log_ratio = new - old
            part = {
                "loss/policy_avg": policy_loss,
                "loss/value_avg": value_loss,
                "policy/clipfrac_avg": clipped,
                "policy/approxkl_avg": masked_mean(0.5 * log_ratio**2, kept, total),
                "policy/entropy_avg": masked_mean(entropy, kept, total),
                "val/clipfrac_avg": value_clip_fraction(
                    values, rollout.values[piece, columns], kept, cfg.value_clip, total
                ),
                "val/ratio": masked_mean(log_ratio.exp(), kept, total),
                "policy/extreme_ratios": ((log_ratio.abs() > 20) & kept).sum(),
            }
        for name, value in part.items():
            found[name] = found.get(name, 0.0) + counts * value.item()
    found = dict(zip(found, dist.totals(*found.values()), strict=True))
    if cfg.ptx_coef:
        found |= add_pretraining_gradient(models, text, cfg, step, update)
    step_optimizers(models, cfg, step, found)
    return found


def add_pretraining_gradient(
    models: Models, text: Tensor, cfg: Config, step: int, update: int
) -> Metrics:
    """Accumulate ptx_coef times the pretraining gradient into the policy's buffer (eq. 2)."""
    measure = update == 0
    before = [p.grad.clone() for p in models.policy.parameters() if p.grad is not None and measure]
    examples = cfg.minibatch_size * cfg.ptx_ratio
    number = step * cfg.updates + update
    rows = text[batch_indices(len(text), examples, cfg.seed + 1, number)]
    total, loss_sum = rows.numel() - len(rows), 0.0
    tokens = tokens_per_pass(models.policy, cfg.micro_batch_tokens)
    size = dist.per_pass(len(rows), max(1, tokens // rows.shape[1]))
    for chunk, counts in dist.evenly(rows.split(size)):
        batch = stream_batch(chunk).to(models.policy.device)
        found = dist.forward(
            *(models.policy, logprobs, models.policy), batch.tokens, batch.mask, batch.loss_mask
        )
        loss = lm_loss(found, batch.loss_mask, total)
        (counts * cfg.ptx_coef * loss).backward()
        loss_sum += counts * loss.item()
    metrics = {"loss/ptx_avg": dist.totals(loss_sum)[0]}
    if measure:
        after = [p.grad for p in models.policy.parameters() if p.grad is not None]
        added = dist.norm(a - b for a, b in zip(after, before, strict=True))
        metrics["ptx/grad_norm_ratio"] = added / max(dist.norm(before), 1e-12)
    return metrics


def step_optimizers(models: Models, cfg: Config, step: int, found: Metrics) -> None:
    """Clip, refuse what is not finite, step, average."""
    limit = cfg.grad_clip or math.inf
    policy_norm = dist.clip_gradients(models.policy.parameters(), limit)
    value_norm = dist.clip_gradients(models.value.parameters(), limit)
    losses = {name: value for name, value in found.items() if name.startswith("loss/")}
    check_finite(step, cfg.out, **losses, policy_gradient=policy_norm, value_gradient=value_norm)
    found |= {"policy/grad_norm": policy_norm, "val/grad_norm": value_norm}
    warm = 0.1 + 0.9 * min(1.0, step / cfg.warmup) if cfg.warmup else 1.0
    found["lr"] = warm * cfg.lr
    for optimizer, lr in (
        (models.policy_optimizer, cfg.lr),
        (models.value_optimizer, cfg.value_lr),
    ):
        for group in optimizer.param_groups:
            group["lr"] = warm * lr
    models.value_optimizer.step()
    if step >= models.state["value_warmup"]:
        models.policy_optimizer.step()
        with torch.no_grad():
            for name, weight in weights(models.policy).items():
                models.ema[name].lerp_(weight, 1 - cfg.ema)
    models.value_optimizer.zero_grad()
    models.policy_optimizer.zero_grad()


def minibatches(cfg: Config, step: int) -> list[Tensor]:
    """Rows of each minibatch: every sequence once per inner epoch, in an order of its own that
    keeps the responses to one prompt together."""
    generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
    n = cfg.samples_per_prompt
    orders = [torch.randperm(cfg.batch_size // n, generator=generator) for _ in range(cfg.epochs)]
    rows = [(order[:, None] * n + torch.arange(n)).flatten() for order in orders]
    return [part for order in rows for part in order.split(cfg.minibatch_size)]


def adapt_kl(models: Models, kl: float, cfg: Config) -> None:
    """Move kl_coef so that the KL nears kl_target (Ziegler et al. 2019, section 2.2)."""
    error = max(-0.2, min(0.2, kl / cfg.kl_target - 1))
    models.state["kl_coef"] *= 1 + error * cfg.batch_size / cfg.kl_horizon


def run(config: Config) -> None:
    """Train, and write the averaged policy to final/, the last one to raw/, the value to value/."""
    settle(config.threads)
    with open_run("ppo", config) as run:
        models = load(config)
        prompts = training_prompts(models, config)
        text = torch.empty(0, 0, dtype=torch.long)
        if config.ptx_coef:
            needed = config.minibatch_size * config.ptx_ratio
            text = pretraining_rows(models.codec, config.pretraining, config.row_length, needed)
        if isinstance(run, DryRun):
            run.ppo(models, prompts, text, config, improve)
            return
        step = resume(run, models)
        limits = Limits(
            config.max_kl, config.max_truncation, config.max_repetition, config.max_same
        )
        name = "ppo-ptx" if config.ptx_coef else "ppo"
        shown = ("objective/scores", "objective/kl", "completions/mean_length", "val/explained_var")
        with Progress(name, config.steps, shown) as progress:
            while step < config.steps:
                dist.at(step)
                reseed(config.seed, step)
                n = config.samples_per_prompt
                chosen = batch_indices(len(prompts), config.batch_size // n, config.seed, step)
                asked = [prompts[i] for i in chosen for _ in range(n)]
                metrics, samples = ppo_step(models, asked, text, config, step)
                step += 1
                metrics["eps"] = config.batch_size / metrics["time/step"]
                run.log(step, {"episode": step * config.batch_size} | metrics)
                if step % config.sample_every == 0 or step in (1, config.steps):
                    run.samples(step, samples)
                progress.update(step, metrics)
                _guard(run, models, limits, config, metrics)
                healthy = models.state["over_limit"] == 0
                good = due(step, config.checkpoint_every, config.steps) and healthy
                stop = dist.anywhere(run.stop_requested)
                if good or stop:
                    save_checkpoint(run.path, step, groups(models), models.state)
                if stop:
                    raise KeyboardInterrupt
        publish_all(run, models, config)


def _guard(run: Run, models: Models, limits: Limits, config: Config, metrics: Metrics) -> None:
    """Stop when the last `patience` steps were over a limit; their checkpoints were not kept."""
    reason = limits.exceeded(metrics)
    models.state["over_limit"] = models.state["over_limit"] + 1 if reason else 0
    if models.state["over_limit"] >= config.patience:
        run.stopped(reason)
        kept = publish_last_good(run, models, config)
        raise InstilError(f"stopped: {reason} (for {config.patience} steps); {kept}")
