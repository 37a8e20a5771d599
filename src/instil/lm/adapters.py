"""LoRA: small matrices that learn beside weights that do not (Hu et al. 2021), by peft.

An adapter is put into a model in place: passes, sampling and saving treat the model as before, and
with its adapter off it is the model that it was. What is saved is plain, with the adapter added
into the weights; `save_adapter` also writes the adapter by itself, as peft reads it.

Left out on purpose:
  adapters of embedding and head    the head may be the embedding, and passes take it as it is
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from instil.errors import InstilError, nearest

NAME = "default"
"""An adapter's name inside the model, as peft has it."""

Model = TypeVar("Model", bound=nn.Module)


def add_adapter(
    model: Any, rank: int, alpha: int, targets: Sequence[str] = (), seed: int = 0
) -> None:
    """Freeze a policy or backbone, and let adapters beside its linear layers learn.

    A layer's output x W becomes x W + alpha / rank x A B; A (in, rank) is drawn from `seed`, B
    (rank, out) begins at 0, so at first nothing changes.

    targets  names of layers, such as "q_proj"; all linear layers of the backbone when empty
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InstilError(
            f"lora_rank {rank} needs peft ({error}); pip install 'instil[lora]'"
        ) from error
    backbone = model.base_model
    layers = {
        name.rpartition(".")[2]: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
    }
    if unknown := [name for name in targets if name not in layers]:
        raise InstilError(
            f"lora_targets: the backbone has no linear layer {unknown[0]!r}"
            + nearest(unknown[0], layers)
        )
    model.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets or layers),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        base_model_name_or_path=model.name_or_path,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone, NAME)


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """`model` as it was before it had an adapter; nothing where it has none."""
    layers = [layer for *_, layer in _places(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
@torch.no_grad()
def merged(model: Model) -> Iterator[Model]:
    """`model` as a plain one, its adapter added into the weights; afterwards it is as before, to
    the bit. Nothing where it has no adapter."""
    places = [(*place, place[2].base_layer.weight.data) for place in _places(model)]
    for parent, name, layer, weight in places:
        layer.base_layer.weight.data = weight + layer.get_delta_weight(NAME)
        setattr(parent, name, layer.base_layer)
    try:
        yield model
    finally:
        for parent, name, layer, weight in places:
            layer.base_layer.weight.data = weight
            setattr(parent, name, layer)


def save_adapter(path: Path, model: Any, head: nn.Linear | None = None) -> None:
    """Write the adapter of a policy, or of a backbone with its scalar `head`, for peft:

        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), path)
        PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, num_labels=1), path)

    The head's bias is left out, since the classifiers of transformers have none.
    """
    backbone: Any = model.base_model
    prefix = f"base_model.model.{model.base_model_prefix}."
    tensors = {
        prefix + name.replace(f".{NAME}.", "."): weight.detach().cpu().contiguous()
        for name, weight in backbone.named_parameters()
        if f".{NAME}." in name
    }
    config = copy.copy(backbone.peft_config[NAME])
    config.target_modules = sorted(config.target_modules)
    config.task_type, config.inference_mode = "CAUSAL_LM", True
    if head is not None:
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]
        tensors["base_model.model.score.weight"] = head.weight.detach().cpu().contiguous()
    config.save_pretrained(str(path))
    save_file(tensors, Path(path) / "adapter_model.safetensors", metadata={"format": "pt"})


def has_adapter(model: nn.Module) -> bool:
    """Whether `add_adapter` was called on it."""
    return bool(_places(model))


def _places(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """The layers with an adapter, each with its parent and its name there."""
    return [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if hasattr(layer, "lora_A")
    ]
