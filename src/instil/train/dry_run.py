"""`--dry-run`: how much memory a run will take, found out before it.

The command goes its way up to the first step: it reads settings, tokenizer and data, and makes its
models as shapes (trace.py). Then steps with the largest passes are traced. `forecast.table` says
what came of it; nothing is written, no weight is read.

A trainer takes part by opening its run with `open_run`, and by handing a `DryRun` its model and
method where it would train.

Left out on purpose:
  evaluation without sampling           its passes are smaller than those of training
  the host's memory of a run on GPUs    weights pass through it on their way to and from files
  all processes of a run (WORLD_SIZE)   one is traced, and its parts are divided
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from instil.lm.batches import Ids, rollout_batch
from instil.lm.machine import computes_in_bf16, device, sequences_at_once, tokens_per_pass
from instil.lm.reward import PythonReward, RewardModel
from instil.lm.sampling import SamplingParams
from instil.lm.scalar import ScalarModel
from instil.runs import Run
from instil.train import dist
from instil.train.checkpoint import weights
from instil.train.fit import FitConfig, Method, SomeBatch, _improve, optimizers
from instil.train.forecast import Forecast, Setting, advice, room, table
from instil.train.memory import MemoryConfig, prepare
from instil.train.ppo_config import Config as PPOConfig
from instil.train.ppo_models import Models
from instil.train.rollout import Rollout, Sequences, measured, response_logprobs
from instil.train.trace import LARGE, Peak, Tracer, begin_to_sample, tracing

CUDA = 600 * 2**20
"""What CUDA and its libraries take of a GPU, about."""
KERNELS = 140 * 2**20
"""What computing itself takes on a CPU, about: code, threads, buffers of kernels."""
STEPS = 8
"""Steps among which the one with the largest pass is looked for."""


class DryRun(Run):
    """In the place of a run: nothing is written, memory is counted."""

    def __init__(self, config: MemoryConfig, tracer: Tracer, base: int) -> None:
        super().__init__(config.out, {}, None)  # type: ignore[attr-defined]
        self.config = config
        self.tracer = tracer
        self.base = base
        self.phases: dict[str, dict[str, int]] = {}

    def supervised(
        self,
        model: nn.Module,
        config: FitConfig,
        method: Method[SomeBatch],
        reward: RewardModel | PythonReward | None = None,
    ) -> Forecast:
        """Trace two steps of a supervised method, and say what was found.

        reward  held beside the model
        """
        prepare(model, config, config.seed)
        chosen = optimizers(model, config)
        steps = [method.batches(step) for step in range(min(STEPS, method.steps))]
        widest = max(steps, key=lambda batches: max(map(method.tokens, batches)))
        two = sorted(widest, key=method.tokens)[-2:]
        brief = replace(method, batches=lambda step: two)
        for _ in range(2):  # the first makes the optimizers' states
            self._train(
                *(_improve, [model], _vocabulary(model)),
                *(model, chosen, brief, 0, config.lr, config.grad_clip),
            )
        seen: set[int] = set()
        held = {
            "weights": _bytes(model.parameters(), seen),
            "weights of the reward model": _bytes(_parameters(reward), seen),
            "weights of the likelihood": _bytes(_beside(reward), seen),
            "optimizer states": sum(map(_states, chosen.values())),
        }
        return self._say(model, held, method.tokens(two[-1]))

    def ppo(
        self,
        models: Models,
        prompts: Sequence[str],
        text: Tensor,
        config: PPOConfig,
        improve: Callable[..., Any],
    ) -> Forecast:
        """Trace the phases of PPO on the longest prompts, all responses as long as they may be, and
        say what was found; `improve` is the step of the optimizers."""
        policy, codec, reward = models.policy, models.codec, models.reward
        ids = sorted(map(codec.encode_prompt, prompts), key=len)[-config.batch_size :]
        tokens = tokens_per_pass(policy, config.micro_batch_tokens)
        some = ids[-max(1, 2 * tokens // (len(ids[-1]) + config.max_tokens)) :]
        responses = [[codec.eos_id] * config.max_tokens] * len(some)
        sequences = Sequences(*rollout_batch(some, responses, codec.pad_id)).to(policy.device)
        mask, rows, n = sequences.response_mask, torch.arange(len(some)), len(some)
        zeros = torch.zeros(mask.shape, device=policy.device)
        rollout = Rollout(
            sequences, zeros, zeros, zeros, zeros, zeros[:, 0], zeros[:, 0], mask[:, 0]
        )
        brief = replace(config, batch_size=n, minibatch_size=n, samples_per_prompt=1, ptx_ratio=1)

        def train() -> None:
            self._train(
                *(improve, (policy, models.value), codec.vocab_size),
                *(models, rollout, mask, zeros, zeros, text, rows, brief),
                *(models.state["value_warmup"], 0),
            )

        train()  # makes the optimizers' states
        if config.sampler == "instil":
            params = SamplingParams(
                config.max_tokens, config.temperature, config.top_p, config.top_k
            )
            self.sample(policy, codec, ids, params, config.decode_batch_size)
        if isinstance(reward, RewardModel):
            with models.whole_reward() as judge:
                pairs = list(zip(some, responses, strict=True))
                self._score("scores", lambda: judge.score_tokens(pairs), 0)
            if reward.likelihood:
                by_token = partial(models.token_scores, sequences, tokens)
                self._score("likelihood", by_token, codec.vocab_size)
        with models.whole_reference() as reference:
            self._score(
                "reference",
                lambda: measured(
                    *(sequences, rows, tokens),
                    lambda piece: response_logprobs(reference, piece, config.temperature),
                ),
                codec.vocab_size,
            )
        train()
        seen: set[int] = set()
        held = {
            "weights": _bytes([*policy.parameters(), *models.value.parameters()], seen),
            "weights of the reference": _bytes(models.reference.parameters(), seen),
            "weights of the reward model": _bytes(_parameters(reward), seen),
            "weights of the likelihood": _bytes(_beside(reward), seen),
            "optimizer states": _states(models.policy_optimizer) + _states(models.value_optimizer),
            "average of the weights": _bytes(models.ema.values()),
        }
        spared = ["weights of the reference"]
        spared += ["weights of the reward model"] * models.value_is_reward
        return self._say(policy, held, tokens, spared)

    def sample(
        self,
        model: PreTrainedModel,
        codec: Any,
        prompts: Sequence[Ids],
        params: SamplingParams,
        batch: int = 0,
    ) -> None:
        """Trace how the built-in sampler begins with the longest prompts."""
        batch = sequences_at_once(model, batch)
        longest = sorted(map(len, prompts))[-batch:]
        slots = len(longest) * (longest[-1] + params.max_tokens)
        per_token = cache_bytes(model)
        block = slots * per_token // (2 * model.config.get_text_config().num_hidden_layers)
        cache, unseen = slots * per_token, 0
        if model.device.type == "cpu":  # taken by numpy, which the tracer does not see
            if block >= LARGE:  # and page by page
                cache = (sum(longest) + len(longest) * params.max_tokens) * per_token
            unseen = cache
        with self.tracer.phase(codec.vocab_size) as peak, self.tracer.holding(unseen, block):
            begin_to_sample(model, codec, prompts, params, batch)
        self._note("sampling", peak, {"key-value cache": min(cache, peak.every)})

    def _train(
        self, step: Callable[..., Any], models: Sequence[nn.Module], vocabulary: int, *args: Any
    ) -> None:
        """Trace `step(*args)`, one step of the optimizers of `models`."""
        with self.tracer.phase(vocabulary) as peak:
            step(*args)
        learn = sum(_bytes(weights(model).values()) for model in models)
        self._note("training", peak, {"gradients": min(learn, peak.every)}, "activations")

    def _score(self, name: str, measure: Callable[[], Any], vocabulary: int) -> None:
        """Trace passes without gradient."""
        with self.tracer.phase(vocabulary) as peak, torch.no_grad():
            measure()
        self._note(name, peak, {})

    def _note(self, phase: str, peak: Peak, parts: dict[str, int], rest: str = "temporary") -> None:
        parts = {**parts, "logits": peak.logits}
        parts[rest] = max(0, peak.every - sum(parts.values()))
        self.phases[phase] = {name: size for name, size in parts.items() if size}

    def _say(
        self, model: nn.Module, held: dict[str, int], tokens: int, spared: Sequence[str] = ()
    ) -> Forecast:
        """Print the forecast, and advice where the room is too small."""
        held = {name: size for name, size in held.items() if size}
        most = max(sum(parts.values()) for parts in self.phases.values())
        kept = 0
        if device().type == "cpu":
            kept = max(0, self.tracer.small + self.tracer.large - sum(held.values()) - most)
        one = Forecast(
            device=str(device()),
            room=room(device()),
            base=self.base,
            held=held,
            phases=self.phases,
            kept=kept,
        )
        found = one.over(int(os.environ.get("WORLD_SIZE", "1")))
        if os.environ.get("RANK", "0") == "0":
            print(table(found))
            if found.total > found.room:
                body: Any = model.backbone if isinstance(model, ScalarModel) else model
                text = body.config.get_text_config()
                own = Setting(self.config, tokens, text.num_hidden_layers, text.hidden_size, spared)
                print(advice(one, found.processes, own))
        return found


@contextmanager
def open_run(command: str, config: Any) -> Iterator[Run]:
    """`dist.open_run`, or with `dry_run` a `DryRun`."""
    if not config.dry_run:
        with dist.open_run(command, config) as run:
            yield run
        return
    base = own_memory() + KERNELS if device().type == "cpu" else CUDA
    with tracing() as tracer:
        yield DryRun(config, tracer, base)


def cache_bytes(model: Any) -> int:
    """Keys and values of one token in all layers."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    heads = getattr(config, "num_key_value_heads", None) or heads
    width = 2 if computes_in_bf16(model) else 4
    return int(2 * config.num_hidden_layers * heads * size * width)


def own_memory() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes(tensors: Iterable[Tensor], seen: set[int] | None = None) -> int:
    """Of tensors that are not in `seen`, which are added to it."""
    new = {id(t): t for t in tensors if not seen or id(t) not in seen}
    if seen is not None:
        seen.update(new)
    return sum(tensor.numel() * tensor.element_size() for tensor in new.values())


def _parameters(reward: RewardModel | PythonReward | None) -> list[nn.Parameter]:
    return list(reward.model.parameters()) if isinstance(reward, RewardModel) else []


def _beside(reward: RewardModel | PythonReward | None) -> list[nn.Parameter]:
    likelihood = reward.likelihood if isinstance(reward, RewardModel) else None
    return list(likelihood.model.parameters()) if likelihood else []


def _states(optimizer: torch.optim.Optimizer) -> int:
    return sum(_bytes(_tensors(state)) for state in optimizer.state.values())


def _tensors(state: Any) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _vocabulary(model: nn.Module) -> int:
    """The width of logits; 0 of a model without."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return 0 if head is None else int(head.weight.shape[0])
