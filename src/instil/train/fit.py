"""The supervised loop: pretraining, SFT, reward model and DPO differ in batch and loss only.

What a step does is a function of (config, weights, step): batches come from the step number and
dropout is reseeded with it, so a run that is killed and resumed ends with the same bits. With
several processes each makes its share of the passes of a step (dist.py); the sums are the same.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from instil.errors import InstilError
from instil.lm.adapters import has_adapter, save_adapter
from instil.lm.scalar import ScalarModel
from instil.progress import Progress
from instil.runs import Run
from instil.train import checkpoint, dist
from instil.train.memory import MemoryConfig, prepare
from instil.train.muon import Muon


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig(MemoryConfig):
    """What every supervised method needs; each names its own defaults."""

    out: Path
    """Run directory to write; an unfinished one is resumed."""
    epochs: float = 1
    """Passes over the training data."""
    batch_size: int = 32
    """Examples per optimizer step."""
    lr: float = 1e-5
    """Peak learning rate."""
    warmup: int = 0
    """Steps over which the rate rises linearly from 0."""
    final_lr: float = 0.1
    """The cosine ends at this share of the peak (Ouyang et al. 2022, appendix C)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's betas (appendix C)."""
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: the layers' matrices move by orthogonalised momentum (Jordan et al. 2024) in steps
    of AdamW's size, the rest by AdamW; learns faster from scratch."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    seed: int = 0
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events into the run."""

    def __post_init__(self) -> None:
        MemoryConfig.__post_init__(self)
        above_zero(self, "epochs", "batch_size", "lr", "checkpoint_every")
        for name in ("warmup", "weight_decay", "grad_clip"):
            if getattr(self, name) < 0:
                raise InstilError(f"{name} {getattr(self, name)} must not be negative")
        if not 0 <= self.final_lr <= 1:
            raise InstilError(f"final_lr {self.final_lr} is a share of lr: 0 to 1")


def above_zero(config: Any, *names: str) -> None:
    """Raise an InstilError for a setting that must be greater than 0 and is not."""
    for name in names:
        if not getattr(config, name) > 0:
            raise InstilError(f"{name} {getattr(config, name)} must be greater than 0")


class Batch(Protocol):
    """One forward pass; `weight` is its share of the loss's denominator (tokens or prompts)."""

    @property
    def weight(self) -> int: ...


SomeBatch = TypeVar("SomeBatch", bound=Batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[SomeBatch]):
    """What makes one supervised method differ from another."""

    name: str
    steps: int
    batches: Callable[[int], Sequence[SomeBatch]]
    """Step number -> the micro-batches of one optimizer step, those of all ranks."""
    loss: Callable[[SomeBatch, int], tuple[Tensor, dict[str, float]]]
    """(micro-batch, weight of the whole batch) -> its part of the loss, and parts of sums to log
    (of a minimum or maximum where the name says so: "min_reward")."""
    tokens: Callable[[SomeBatch], int]
    """Real tokens of a micro-batch, for the count of compute."""
    evaluate: Callable[[int], dict[str, float]] | None = None
    """Step number -> metrics, the same on every rank."""
    eval_every: int = 0
    select: str = ""
    """Metric of `evaluate` by which the best weights are kept; "-x" keeps the smallest x."""
    shown: tuple[str, ...] = ("loss", "eval/loss")


def cosine(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Learning rate of a step (0-based): linear warm-up, then cosine from peak to final * peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    decay: float = 0.0,
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def optimizers(model: nn.Module, cfg: FitConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of a run, by the name of their tensors in its checkpoints."""
    hidden = hidden_matrices(model) if cfg.optimizer == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for p in checkpoint.weights(model).values() if id(p) not in taken]
    found: dict[str, torch.optim.Optimizer] = {
        "optimizer": adam(rest, cfg.lr, cfg.betas, decay=cfg.weight_decay)
    }
    if hidden:
        found["muon"] = Muon(hidden, cfg.lr, cfg.weight_decay)
    return found


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weight matrices between embedding and head."""
    ends = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]
    ends += [head] if (head := getattr(model, "get_output_embeddings", lambda: None)()) else []
    outer = {id(layer.weight) for layer in ends}
    learning = checkpoint.weights(model).values()
    matrices = [p for p in learning if p.ndim == 2 and min(p.shape) > 1]
    return [p for p in matrices if id(p) not in outer]


def fit(run: Run, model: nn.Module, cfg: FitConfig, method: Method[SomeBatch]) -> dict[str, Any]:
    """Train `model` in place; on return it holds the selected weights. Returns what to report."""
    prepare(model, cfg, cfg.seed)
    dist.shard(model)
    chosen = optimizers(model, cfg)
    step, tokens, best = _resume(run, model, chosen)
    with Progress(method.name, method.steps, method.shown) as progress:
        while step < method.steps:
            started = time.monotonic()
            dist.at(step)
            checkpoint.reseed(cfg.seed, step)
            lr = cosine(step, method.steps, cfg.lr, cfg.warmup, cfg.final_lr)
            metrics, seen = _improve(model, chosen, method, step, lr, cfg.grad_clip)
            step, tokens = step + 1, tokens + seen
            metrics |= {"learning_rate": lr, "num_tokens": tokens}
            if method.evaluate and (step % method.eval_every == 0 or step == method.steps):
                model.eval()
                metrics |= method.evaluate(step)
                if method.select:
                    best = _keep_best(run, model, method.select, step, metrics, best)
            run.log(step, metrics | {"time/step": time.monotonic() - started})
            progress.update(step, metrics)
            stop = dist.anywhere(run.stop_requested)
            if stop or due(step, cfg.checkpoint_every, method.steps):
                _save(run, model, chosen, step, tokens, best)
            if stop:
                raise KeyboardInterrupt
    if best:
        _load_best(run, model)
    model.eval()
    parameters = sum(p.numel() for p in model.parameters())
    return {"tokens": tokens, "params": parameters, "flops": train_flops(model) * tokens, **best}


def train_flops(model: nn.Module) -> int:
    """Operations to train on one token: for every weight 2 forward and 2 for the gradient of what
    went in, for one that learns 2 more for its own."""
    every = sum(p.numel() for p in model.parameters())
    return 4 * every + 2 * sum(p.numel() for p in checkpoint.weights(model).values())


def due(step: int, every: int, steps: int) -> bool:
    """Whether a checkpoint is written after `step`; always after the last, to publish from it."""
    return step % every == 0 or step == steps


def publish(run: Run, model: nn.Module, save: Callable[[Path], None], **results: Any) -> None:
    """Write final/ whole or not at all, adapter/ of a model that has one, and mark the run
    finished."""
    if has_adapter(model):
        own = (model.backbone, model.head) if isinstance(model, ScalarModel) else (model, None)
        write_folder(run.path / "adapter", lambda path: save_adapter(path, *own))
    write_folder(run.final, save)
    run.finish(**results)


def write_folder(target: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill a folder that appears under its name only when all of it is on the disk."""
    with dist.busy():
        dist.from_first(lambda: _write_folder(target, save))


def _write_folder(target: Path, save: Callable[[Path], None]) -> None:
    disable_progress_bar()  # of transformers
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save(temporary)
        checkpoint.sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    except checkpoint.WRITE_ERRORS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InstilError(
            f"{target}: cannot write ({error}); make room and start the same command again"
        ) from error


def steps_in(n: int, batch_size: int, epochs: float, what: str) -> int:
    """Optimizer steps in `epochs` passes over n examples, short last batches left out."""
    if n < batch_size:
        raise InstilError(f"{n} {what} are fewer than one batch of {batch_size}")
    return max(1, round(n // batch_size * epochs))


def _improve(
    model: nn.Module,
    chosen: Mapping[str, torch.optim.Optimizer],
    method: Method[SomeBatch],
    step: int,
    lr: float,
    grad_clip: float,
) -> tuple[dict[str, Any], int]:
    """One optimizer step."""
    model.train()
    batches = method.batches(step)
    weight = sum(batch.weight for batch in batches)
    own: dict[str, float] = {}
    for batch, counts in dist.evenly(batches):
        loss, extra = dist.forward(model, method.loss, batch, weight)
        (counts * loss).backward()
        if counts:
            _join(own, {"loss": loss.item()} | extra)
    sums: dict[str, float] = {}
    for part in dist.gathered(own):
        _join(sums, part)
    norm = dist.clip_gradients(model.parameters(), grad_clip or math.inf)
    if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
        raise InstilError(
            f"step {step}: loss {sums['loss']}, gradient norm {norm}; it never reached the "
            "weights: lower lr in a new --out, or look at the batch's records"
        )
    for optimizer in chosen.values():
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
    return {**sums, "grad_norm": norm}, sum(method.tokens(batch) for batch in batches)


def _join(sums: dict[str, float], part: Mapping[str, float]) -> None:
    """Add the metrics of one more micro-batch: the smallest, the largest, or shares of a sum."""
    for name, value in part.items():
        if name not in sums:
            sums[name] = value
        elif name.startswith("min_"):
            sums[name] = min(sums[name], value)
        else:
            sums[name] = max(sums[name], value) if name.startswith("max_") else sums[name] + value


def _resume(
    run: Run, model: nn.Module, chosen: Mapping[str, torch.optim.Optimizer]
) -> tuple[int, int, dict[str, Any]]:
    saved = checkpoint.load_checkpoint(run.path)
    if saved is None:
        run.rewind(0)
        return 0, 0, {}
    groups, state = saved
    checkpoint.set_weights(model, groups["model"])
    for name, optimizer in chosen.items():
        checkpoint.set_optimizer(optimizer, model, groups[name])
    run.rewind(state["step"])
    return state["step"], state["tokens"], state["best"]


def _save(
    run: Run,
    model: nn.Module,
    chosen: Mapping[str, torch.optim.Optimizer],
    step: int,
    tokens: int,
    best: Mapping[str, Any],
) -> None:
    groups: dict[str, Mapping[str, Tensor]] = {"model": checkpoint.weights(model)}
    for name, optimizer in chosen.items():
        groups[name] = checkpoint.optimizer_tensors(optimizer, model)
    checkpoint.save_checkpoint(run.path, step, groups, {"tokens": tokens, "best": best})


def _keep_best(
    run: Run,
    model: nn.Module,
    select: str,
    step: int,
    metrics: Mapping[str, Any],
    best: Mapping[str, Any],
) -> dict[str, Any]:
    """Keep the weights if the selecting metric improved."""
    name = select.removeprefix("-")
    if not math.isfinite(metrics.get(name, math.nan)):
        return dict(best)
    sign = -1 if select.startswith("-") else 1
    if best and sign * metrics[name] <= sign * best["selected_value"]:
        return dict(best)
    now = {"selected_by": select, "selected_value": metrics[name], "selected_step": step}
    checkpoint.save_checkpoint(run.path / "best", step, {"model": checkpoint.weights(model)}, {}, 1)
    return now


def _load_best(run: Run, model: nn.Module) -> None:
    saved = checkpoint.load_checkpoint(run.path / "best")
    if saved is None:
        raise InstilError(f"{run.path / 'best'}: gone; delete the run and start again")
    checkpoint.set_weights(model, saved[0]["model"])
