"""A scalar head on a language model: reward model and value function.

On disk it is what plain transformers knows: a sequence classifier with one label.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from instil.errors import InstilError
from instil.lm.adapters import merged
from instil.lm.attention import packs
from instil.lm.batches import RankingBatch
from instil.lm.dropout import set_dropout
from instil.lm.machine import Precision
from instil.lm.models import load_directory, load_policy, read, read_packed
from instil.lm.text import Codec


class ScalarModel(nn.Module):
    """A backbone with one number per token: the reward model and the value function.

    The number at a token is head(hidden state), in fp32. A response's score is the number at its
    last token. On disk it is an `AutoModelForSequenceClassification` directory with one label, plus
    `score.bias`, which plain transformers leaves out with a warning: its logits are lower by that
    constant, so comparisons between responses are the same. Plain transformers finds the last token
    by looking for the padding id: give the tokenizer a padding token other than the end token.
    """

    def __init__(self, backbone: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head.to(backbone.device)

    @classmethod
    def from_policy(
        cls, policy: Path | PreTrainedModel, seed: int, precision: Precision = "auto"
    ) -> ScalarModel:
        """The policy's backbone (a copy, without dropout) under a new head. `precision` is for one
        that is loaded; a copy keeps its own.

        The head's weights are normal with deviation 1/sqrt(D+1), its bias is 0, as in Stiennon et
        al. 2020. Raises InstilError if the result could not be saved.
        """
        if isinstance(policy, PreTrainedModel):
            backbone: Any = copy.deepcopy(policy.base_model)
            set_dropout(backbone, 0.0)
        else:
            backbone = load_policy(policy, precision=precision).base_model
        if type(backbone.config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise InstilError(
                f"transformers has no sequence classifier of a {backbone.config.model_type}, so a "
                "reward model or value function of it could not be saved; take another model"
            )
        width = backbone.config.get_text_config().hidden_size
        noise = torch.Generator().manual_seed(seed)
        weight = torch.randn(1, width, generator=noise) / math.sqrt(width + 1)
        return cls(backbone, _linear(weight, torch.zeros(1)))

    @classmethod
    def load(cls, path: Path, precision: Precision = "auto") -> ScalarModel:
        """A saved scalar model, or any sequence classifier with one label: weights in fp32, eval
        mode, on the GPU where there is one."""
        path = Path(path)
        kind = AutoModelForSequenceClassification
        model: Any = load_directory(path, kind, "reward model", 0.0, precision)
        if model.config.num_labels != 1:
            raise InstilError(
                f"{path}: has {model.config.num_labels} labels; a reward model has one"
            )
        bias = _stored_tensor(path, "score.bias")
        head = _linear(model.score.weight.detach(), torch.zeros(1) if bias is None else bias)
        return cls(model.base_model, head).eval()

    def save(self, path: Path, codec: Codec) -> None:
        """Write the model (an adapter added into its weights) and the codec's files as a
        sequence-classification directory."""
        config = copy.deepcopy(self.backbone.config)
        config.num_labels, config.pad_token_id = 1, codec.pad_id
        with torch.device("meta"):
            model: Any = AutoModelForSequenceClassification.from_config(config)
        setattr(model, model.base_model_prefix, self.backbone)
        model.score = self.head
        with merged(self):
            model.save_pretrained(str(path))
        codec.save(Path(path))

    def values(self, tokens: Tensor, mask: Tensor, shared: int = 0) -> Tensor:
        """The number at every token (B, S) fp32; what stands at padding is arbitrary. Rows whose
        first `shared` columns are equal have them read once."""
        states, index = read(self.backbone, tokens, mask, shared)
        return self._numbers(states)[index]

    def scores(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The number at the last real token of every row (B,) fp32."""
        states, index = read(self.backbone, tokens, mask)
        return self._numbers(states[index.amax(dim=1)])

    def ranking_scores(self, batch: RankingBatch) -> Tensor:
        """The number at the last token of every response (B, K) fp32; what is padding is arbitrary.

        The prompt of a ranking is read once and its responses attend to it, so the cost grows as
        prompt + sum of responses. A backbone that cannot do that reads each response apart.
        """
        if not packs(self.backbone):
            return self.scores(*batch.apart()).view(batch.ranks.shape)
        return self._numbers(read_packed(self.backbone, batch.packed)[batch.last])

    @torch.no_grad()
    def shift(self, bias: float) -> None:
        """Add a constant to every number, so that zero means something."""
        self.head.bias.add_(bias)

    def _numbers(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            numbers: Tensor = self.head(hidden.float())
        return numbers.squeeze(-1)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    head = nn.Linear(weight.shape[1], 1, device=weight.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def _stored_tensor(path: Path, name: str) -> Tensor | None:
    """One tensor out of a directory's safetensors files, or None if no file has it."""
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - not a dict
                found: Tensor = tensors.get_tensor(name)
                return found
    return None
