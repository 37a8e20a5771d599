"""What `instil ppo` holds: four models, two optimizers, the averaged weights; load, keep, publish.

All that changes while training is in `groups` and `Models.state`, so a checkpoint of both is the
whole of a run: policy, value, average, both Adam states, kl_coef and the spread of the reward.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from instil.errors import InstilError
from instil.lm.adapters import without_adapter
from instil.lm.models import load_policy, save_policy
from instil.lm.reward import PythonReward, RewardModel, load_reward
from instil.lm.sampling import Decoder, Sampler
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec
from instil.lm.vllm import LogprobsMode, VllmSampler
from instil.records import Prompt
from instil.runs import Run, model_dir, say
from instil.train import dist
from instil.train.checkpoint import (
    Groups,
    load_checkpoint,
    optimizer_tensors,
    set_optimizer,
    set_tensors,
    set_weights,
    weights,
)
from instil.train.data import context_of, read_all
from instil.train.fit import adam, publish, train_flops, write_folder
from instil.train.guards import last_good
from instil.train.memory import prepare
from instil.train.ppo_config import Config
from instil.train.rollout import Sequences, measured, response_logprobs, whole_likelihood


@dataclass
class Models:
    """Policy and value learn; reference and reward are frozen, and so is the language model that a
    reward with a likelihood has beside it.

    With LoRA the reference is the policy without its adapter, and a reward model from which the
    value started is the value without its own, so neither is in memory twice.
    """

    policy: PreTrainedModel
    value: ScalarModel
    reference: PreTrainedModel
    reward: RewardModel | PythonReward
    codec: Codec
    policy_optimizer: torch.optim.Optimizer
    value_optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    """The policy's weights, averaged over optimizer steps."""
    shares_tokens: bool
    """Policy and reward model have one tokenizer, so scores are of the very tokens sampled."""
    value_is_reward: bool
    """The value network started as the reward model."""
    state: dict[str, Any] = field(default_factory=dict)
    """Plain values that change: kl_coef, reward_std, steps over a limit, tokens of rollouts."""

    written: VllmSampler | None = None
    """vLLM, once it has been started."""

    def sampler(self, policy: PreTrainedModel, config: Config) -> Sampler:
        """Who writes the responses of a step: the built-in decoder, or vLLM with `policy`'s
        weights of now."""
        if config.sampler == "instil":
            return Decoder(policy, self.codec, batch_size=config.decode_batch_size)
        if self.written is None:
            truncated = config.top_p < 1 or config.top_k > 0
            mode: LogprobsMode = "raw_logprobs" if truncated else "processed_logprobs"
            self.written = VllmSampler(policy, self.codec, mode)
        else:
            self.written.update(policy)
        return self.written

    @contextmanager
    def whole_reference(self) -> Iterator[PreTrainedModel]:
        """The reference with all its weights."""
        with dist.whole(self.reference) as reference, without_adapter(reference):
            yield reference

    @contextmanager
    def whole_reward(self) -> Iterator[RewardModel]:
        """The reward model with all its weights."""
        assert isinstance(self.reward, RewardModel)
        own = self.reward.model
        shared = own.backbone is self.value.backbone
        with (
            dist.whole(self.value if shared else own) as model,
            without_adapter(model),
            whole_likelihood(self.reward) as whole,
        ):
            yield replace(whole, model=ScalarModel(model.backbone, own.head) if shared else model)

    def token_scores(self, sequences: Sequences, tokens: int) -> Tensor:
        """The part of the reward that each token earns (B, T): the summands of its likelihood, if
        it has one and reads the very tokens that were sampled. Given where it is earned, it need
        not be traced back from the last token."""
        own = self.reward.likelihood if isinstance(self.reward, RewardModel) else None
        if own is None or not self.shares_tokens:
            return torch.zeros(sequences.response_mask.shape, device=self.policy.device)
        with dist.whole(own.model) as model:
            return own.weight * measured(
                *(sequences, torch.arange(len(sequences.tokens)), tokens),
                lambda some: response_logprobs(model, some, own.temperature),
            )


def load(config: Config) -> Models:
    """All four models and both optimizers, at their start."""
    if config.sampler == "vllm" and dist.ranks() > 1:
        raise InstilError(
            "vLLM samples in one process: start without torchrun, or with --sampler instil"
        )
    source = model_dir(config.model)
    codec = Codec.load(source, config.template)
    policy = load_policy(source, precision=config.precision)
    reference = policy
    if not config.lora_rank:
        reference = load_policy(source, precision=config.precision).requires_grad_(False)
    reward = load_reward(config.rm, config.precision)
    shared = isinstance(reward, RewardModel) and reward.codec.same_tokens(codec)
    value_is_reward = False
    if config.value is not None:
        value = ScalarModel.load(model_dir(config.value), config.precision)
    elif isinstance(reward, RewardModel) and shared:
        value_is_reward = True
        body, head = reward.model.backbone, copy.deepcopy(reward.model.head)
        value = ScalarModel(body if config.lora_rank else copy.deepcopy(body), head)
    else:
        value = ScalarModel.from_policy(policy, seed=config.seed)
    prepare(policy, config, config.seed)
    prepare(value, config, config.seed)
    for model in dict.fromkeys((policy, value, reference)):
        dist.shard(model)
    if isinstance(reward, RewardModel) and reward.model.backbone is not value.backbone:
        dist.shard(reward.model)
    if isinstance(reward, RewardModel) and reward.likelihood:
        dist.shard(reward.likelihood.model)
    policy_learns, value_learns = weights(policy), weights(value)
    warmup = config.value_warmup
    return Models(
        policy=policy,
        value=value,
        reference=reference,
        reward=reward,
        codec=codec,
        policy_optimizer=adam(policy_learns.values(), config.lr, config.betas, config.adam_eps),
        value_optimizer=adam(value_learns.values(), config.value_lr, config.betas, config.adam_eps),
        ema={name: p.detach().clone() for name, p in policy_learns.items()},
        shares_tokens=shared,
        value_is_reward=value_is_reward,
        state={
            "kl_coef": config.kl_coef,
            "reward_std": reward.std,
            "over_limit": 0,
            "tokens": 0,
            "value_warmup": (0 if value_is_reward else 10) if warmup is None else warmup,
        },
    )


def training_prompts(models: Models, config: Config) -> list[str]:
    """The prompts to train on, those that are too long left out."""
    contexts = [context_of(models.policy), context_of(models.value.backbone)]
    if isinstance(models.reward, RewardModel) and models.reward.likelihood:
        contexts.append(context_of(models.reward.likelihood.model))
    context = min(contexts)
    room = min(config.max_prompt_tokens, context - config.max_tokens)
    if room < 1:
        raise InstilError(
            f"max_tokens {config.max_tokens} leaves no room for a prompt in the model's context of "
            f"{context} tokens; lower max_tokens"
        )
    prompts = read_all(config.prompts, Prompt)
    if any(prompt.split for prompt in prompts):
        prompts = [prompt for prompt in prompts if prompt.split == "train"]
    texts = [p.text for p in prompts]
    kept = [t for t in texts if len(models.codec.encode_prompt(t)) <= room]
    say(f"ppo: {len(kept)} prompts; {len(texts) - len(kept)} of over {room} tokens left out")
    if len(kept) < config.batch_size:
        raise InstilError(
            f"{len(kept)} prompts are fewer than one batch of {config.batch_size}; give more "
            "prompts or lower batch_size"
        )
    return kept


def groups(models: Models) -> Groups:
    """The tensors of a checkpoint, one file each."""
    return {
        "policy": weights(models.policy),
        "value": weights(models.value),
        "ema": models.ema,
        "policy_optimizer": optimizer_tensors(models.policy_optimizer, models.policy),
        "value_optimizer": optimizer_tensors(models.value_optimizer, models.value),
    }


def resume(run: Run, models: Models) -> int:
    """Go on from the newest good checkpoint, if there is one; returns the steps done."""
    saved = load_checkpoint(run.path)
    if saved is None:
        run.rewind(0)
        return 0
    tensors, state = saved
    set_weights(models.policy, tensors["policy"])
    set_weights(models.value, tensors["value"])
    set_tensors(models.ema, tensors["ema"])
    set_optimizer(models.policy_optimizer, models.policy, tensors["policy_optimizer"])
    set_optimizer(models.value_optimizer, models.value, tensors["value_optimizer"])
    step = int(state.pop("step"))
    models.state = state
    run.rewind(step)
    return step


def publish_all(run: Run, models: Models, config: Config) -> None:
    """Write the last policy to raw/, the value to value/, the averaged policy to final/."""
    models.policy.eval()
    with dist.whole(models.policy) as policy:
        write_folder(run.path / "raw", lambda path: save_policy(policy, models.codec, path))
    with dist.whole(models.value) as value:
        write_folder(run.path / "value", lambda path: value.save(path, models.codec))
    if config.ema:
        set_weights(models.policy, models.ema)
    with dist.whole(models.policy) as policy:
        results = work(models, config)
        publish(run, policy, lambda path: save_policy(policy, models.codec, path), **results)


def publish_last_good(run: Run, models: Models, config: Config) -> str:
    """Write the policy of the last good checkpoint to last-good/; says where it is."""
    saved = load_checkpoint(run.path)
    if saved is None:
        return last_good(run.path)
    tensors, state = saved
    set_weights(models.policy, tensors["ema" if config.ema else "policy"])
    target = run.path / "last-good"
    with dist.whole(models.policy) as policy:
        write_folder(target, lambda path: save_policy(policy, models.codec, path))
    return f"the policy of step {state['step']}, the last good checkpoint, is in {target}"


def work(models: Models, config: Config) -> dict[str, int]:
    """Parameters of the policy, tokens of all rollouts, and the operations that they took.

    2 per parameter and token to read or sample, 6 to train (`train_flops`): the policy samples,
    measures and trains, the reference and the reward model read, the value reads and trains.
    """
    policy = sum(p.numel() for p in models.policy.parameters())
    value = sum(p.numel() for p in models.value.parameters())
    judge = 0
    if isinstance(models.reward, RewardModel):
        judge = sum(p.numel() for p in models.reward.model.parameters())
        if beside := models.reward.likelihood:  # in the score, and for each token
            judge += 2 * sum(p.numel() for p in beside.model.parameters())
    train = config.epochs * (train_flops(models.policy) + train_flops(models.value))
    per_token = policy * (2 + 2 + 2) + value * 2 + train + judge * 2
    examples = config.batch_size * config.epochs * config.ptx_ratio if config.ptx_coef else 0
    text = config.steps * examples * config.row_length
    tokens = int(models.state["tokens"])
    return {
        "params": policy,
        "tokens": tokens + text,
        "flops": per_token * tokens + train_flops(models.policy) * text,
    }
