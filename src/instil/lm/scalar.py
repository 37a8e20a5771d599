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
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from instil.errors import InstilError
from instil.lm.batches import RankingBatch, ranking_batch
from instil.lm.dropout import set_dropout
from instil.lm.models import forward, hidden_states, load_directory, load_policy, push_left
from instil.lm.text import Codec
from instil.runs import say


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
        self.head = head

    @classmethod
    def from_policy(cls, policy: Path | PreTrainedModel, seed: int) -> ScalarModel:
        """The policy's backbone (a copy, without dropout) under a new head.

        The head's weights are normal with deviation 1/sqrt(D+1), its bias is 0, as in Stiennon et
        al. 2020.
        """
        if isinstance(policy, PreTrainedModel):
            backbone: Any = copy.deepcopy(policy.base_model)
            set_dropout(backbone, 0.0)
        else:
            backbone = load_policy(policy).base_model
        width = backbone.config.get_text_config().hidden_size
        noise = torch.Generator().manual_seed(seed)
        weight = torch.randn(1, width, generator=noise) / math.sqrt(width + 1)
        return cls(backbone, _linear(weight, torch.zeros(1)))

    @classmethod
    def load(cls, path: Path) -> ScalarModel:
        """A saved scalar model, or any sequence classifier with one label: fp32, eval mode."""
        path = Path(path)
        kind = AutoModelForSequenceClassification
        model: Any = load_directory(path, kind, "reward model", 0.0, "sdpa")
        if model.config.num_labels != 1:
            raise InstilError(
                f"{path}: has {model.config.num_labels} labels; a reward model has one"
            )
        bias = _stored_tensor(path, "score.bias")
        head = _linear(model.score.weight.detach(), torch.zeros(1) if bias is None else bias)
        return cls(model.base_model, head).eval()

    def save(self, path: Path, codec: Codec) -> None:
        """Write the model and the codec's files as a sequence-classification directory."""
        config = copy.deepcopy(self.backbone.config)
        config.num_labels, config.pad_token_id = 1, codec.pad_id
        try:
            with torch.device("meta"):
                model: Any = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise InstilError(f"{path}: {config.model_type} has no sequence classifier") from error
        setattr(model, model.base_model_prefix, self.backbone)
        model.score = self.head
        model.save_pretrained(str(path))
        codec.save(Path(path))

    def values(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The number at every token (B, S) fp32; what stands at padding is arbitrary."""
        return self._numbers(hidden_states(self.backbone, tokens, mask))

    def scores(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The number at the last real token of every row (B,) fp32."""
        packed, places = push_left(tokens, mask)
        hidden = forward(self.backbone, packed)
        return self._numbers(hidden[torch.arange(len(tokens), device=tokens.device), places[:, -1]])

    def ranking_scores(self, batch: RankingBatch) -> Tensor:
        """The number at the last token of every response (B, K) fp32; what is padding is arbitrary.

        The prompt of a ranking is read once and its responses attend to it, so the cost grows as
        prompt + sum of responses. A backbone that cannot do that reads each response apart.
        """
        if not _reads_masks(self.backbone):
            tokens, mask = batch.apart()
            mask[:, 0] = True  # a response that is not there: something must be
            return self.scores(tokens, mask).view(batch.ranks.shape)
        hidden = forward(self.backbone, batch.tokens, batch.positions, batch.attention)
        last = batch.last[:, :, None].expand(-1, -1, hidden.shape[2])
        return self._numbers(hidden.gather(1, last))

    @torch.no_grad()
    def shift(self, bias: float) -> None:
        """Add a constant to every number, so that zero means something."""
        self.head.bias.add_(bias)

    def _numbers(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            numbers: Tensor = self.head(hidden.float())
        return numbers.squeeze(-1)


@torch.no_grad()
def _reads_masks(backbone: PreTrainedModel) -> bool:
    """Whether responses in one row, under a mask, are read as they are apart; found out once per
    model, on a probe."""
    if "reads_masks" not in backbone.__dict__:
        was_training = backbone.training
        backbone.eval()
        ids = [number % backbone.config.get_text_config().vocab_size for number in range(1, 8)]
        probe = ranking_batch([(ids[:3], [ids[3:5], ids[5:]], [1, 2])], 0).to(backbone.device)
        try:
            hidden = forward(backbone, probe.tokens, probe.positions, probe.attention)
            together = hidden[0, probe.last[0]]
            apart = forward(backbone, probe.apart()[0])[:, -1]
            same = torch.allclose(together, apart, rtol=1e-3, atol=1e-4)
        except (ValueError, TypeError, RuntimeError):  # a mask of this form is not for it
            same = False
        if not same:
            say("this model cannot read a ranking's responses in one row: each is read apart")
        backbone.__dict__["reads_masks"] = same
        backbone.train(was_training)
    return bool(backbone.__dict__["reads_masks"])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    head = nn.Linear(weight.shape[1], 1)
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
