"""Residual dropout, the same in every architecture.

It acts on what attention and MLP of each layer add to the residual stream: the "residual dropout"
of Ouyang et al. 2022, appendix C.1 (0.2 in SFT). All other dropout of a loaded model is zero.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional

from instil.errors import InstilError

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn")


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set the residual dropout. It acts in train mode only; state_dict keys stay as they were."""
    if not 0 <= rate < 1:
        raise InstilError(f"dropout {rate} is not in [0, 1)")
    branches = _branches(model)
    if rate and not branches:
        raise InstilError(
            f"no attention and MLP layers were found in {type(model).__name__}, so dropout {rate} "
            "has no place; set dropout to 0"
        )
    for branch in branches:
        if not hasattr(branch, "residual_dropout"):
            branch.register_forward_hook(_drop)
        branch.__dict__["residual_dropout"] = rate  # on the module, so that copies keep it


def without_dropout(config: Any) -> None:
    """Set every dropout rate of a transformers config to zero."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)


def _branches(model: nn.Module) -> list[nn.Module]:
    """The attention and the MLP of every layer."""
    return [
        getattr(layer, name)
        for layers in model.modules()
        if isinstance(layers, nn.ModuleList)
        for layer in layers
        for name in (*_ATTENTION, *_MLP)
        if hasattr(layer, name)
    ]


def _drop(branch: nn.Module, _: Any, output: Any) -> Any:
    """Forward hook; attention returns a tuple whose first item is its output."""
    rate: float = branch.__dict__["residual_dropout"]
    if not rate or not branch.training:
        return output
    if isinstance(output, tuple):
        return (functional.dropout(output[0], rate, True), *output[1:])
    return functional.dropout(output, rate, True)
