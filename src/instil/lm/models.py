"""Policies, reward models and value functions, and what a batch looks like to them.

A policy is a plain causal language model of transformers; reward and value models are its backbone
with one number per token on top (`ScalarModel`). The verbs are `logprobs` and `values`/`scores`.

Padding never reaches attention: before the forward pass every row is pushed to the left, so the
causal mask alone keeps real tokens from seeing it, and positions count from each row's own first
token. A sequence therefore has the same logprobs alone, padded right or padded left.

Left out on purpose:
  token type ids, encoders    decoder-only models are enough for the method
  attention dropout           the paper names residual dropout only
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
)

from instil.errors import InstilError
from instil.lm.batches import position_ids
from instil.lm.dropout import set_dropout, without_dropout
from instil.lm.text import Codec
from instil.lm.trust import check_model, opening
from instil.losses import token_logprobs

MAX_LOGITS = 2**26
"""Logits that exist at one time in `logprobs` (256 MiB in fp32)."""

Architecture = Literal["llama", "gpt2"]


def load_policy(path: Path, dropout: float = 0.0, attn: str = "sdpa") -> PreTrainedModel:
    """A causal language model from a local directory, in fp32 and eval mode.

    dropout  residual dropout while training (Ouyang et al. 2022, appendix C.1 use 0.2 in SFT)
    attn     the attention implementation of transformers

    An `InstilError` says why a directory is refused: see `trust.py`.
    """
    return _load(Path(path), AutoModelForCausalLM, "language model", dropout, attn)


def new_policy(
    architecture: Architecture,
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    context: int,
    seed: int,
    pad_id: int,
    eos_id: int,
    dropout: float = 0.0,
) -> PreTrainedModel:
    """A randomly initialised causal language model with tied embeddings, in eval mode.

    The weights are a function of the shape and `seed`; the global random state is left alone.
    """
    shared: dict[str, Any] = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": eos_id,
    }
    config: LlamaConfig | GPT2Config
    if architecture == "llama":
        config = LlamaConfig(
            **shared,
            hidden_size=width,
            intermediate_size=16 * round(width / 6),  # 8/3 of the width, as in Llama
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=context,
        )
    elif architecture == "gpt2":
        config = GPT2Config(
            **shared, n_embd=width, n_layer=layers, n_head=heads, n_positions=context
        )
    else:
        raise InstilError(f'architecture {architecture!r} is neither "llama" nor "gpt2"')
    without_dropout(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.generation_config.pad_token_id = pad_id
    return _prepared(model, dropout)


def save_policy(model: PreTrainedModel, codec: Codec, path: Path) -> None:
    """Write a plain Hugging Face directory: weights, tokenizer, and where sampling stops."""
    ends = list(codec.eos_ids) if len(codec.eos_ids) > 1 else codec.eos_id
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=ends, pad_token_id=codec.pad_id
    )
    model.config.pad_token_id = codec.pad_id
    model.save_pretrained(str(path))
    model.config.pad_token_id = None
    codec.save(Path(path))


def hidden_states(model: PreTrainedModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """The last hidden states, after the final norm (B, S, D); what stands at padding is arbitrary.

    tokens, mask  (B, S)  padding may be on either side
    """
    packed, places = _push_left(tokens, mask)
    hidden = _forward(model.base_model, packed)
    if packed is tokens:
        return hidden
    return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))


@overload
def logprobs(
    policy: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    where: Tensor,
    temperature: float = 1.0,
    measure: Literal[False] = False,
) -> Tensor: ...
@overload
def logprobs(
    policy: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    where: Tensor,
    temperature: float = 1.0,
    *,
    measure: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...
def logprobs(
    policy: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    where: Tensor,
    temperature: float = 1.0,
    measure: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """log p(tokens[:, t] | tokens[:, <t]) where `where` is True, 0 elsewhere (B, S) fp32.

    tokens, mask  (B, S)  padding may be on either side
    where         (B, S)  True at tokens to evaluate; the first token of a row has no probability
    measure       also return the entropy of each of these predictions, and whether its most likely
                  token is the one that stands there (1 or 0), both (B, S), without gradient

    Only these positions go through the head, at most `MAX_LOGITS` logits at a time; when there are
    more, the backward pass computes them again. Gradients flow to the policy. (An architecture that
    changes its logits after the head, by a scale or a cap, makes all its logits at once.)
    """
    plain = _head_is_plain(policy)
    packed, places = _push_left(tokens, mask)
    hidden = _forward(policy.base_model if plain else policy, packed)  # or the logits themselves
    flat = where.flatten().nonzero().squeeze(1)
    rows, place = flat // tokens.shape[1], places.flatten()[flat]
    if (place == 0).any():
        raise ValueError("where: the first token of a sequence has no probability")
    inputs = hidden.flatten(0, 1).index_select(0, rows * hidden.shape[1] + place - 1)
    targets = tokens.flatten()[flat]

    head = policy.get_output_embeddings() if plain else nn.Identity()
    chunk = max(1, MAX_LOGITS // policy.config.vocab_size)
    if len(targets) <= chunk:
        found = _predict(head, inputs, targets, temperature, measure)
    else:
        parts = [
            checkpoint(_predict, head, *part, temperature, measure, use_reentrant=False)
            for part in zip(inputs.split(chunk), targets.split(chunk), strict=True)
        ]
        found = torch.cat(parts, dim=1)
    grid = found.new_zeros(len(found), tokens.numel()).index_copy(1, flat, found)
    result = grid.view(-1, *tokens.shape)
    return (result[0], result[1], result[2]) if measure else result[0]


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
        model: Any = _load(path, AutoModelForSequenceClassification, "reward model", 0.0, "sdpa")
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
        packed, places = _push_left(tokens, mask)
        hidden = _forward(self.backbone, packed)
        return self._numbers(hidden[torch.arange(len(tokens), device=tokens.device), places[:, -1]])

    @torch.no_grad()
    def shift(self, bias: float) -> None:
        """Add a constant to every number, so that zero means something."""
        self.head.bias.add_(bias)

    def _numbers(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            numbers: Tensor = self.head(hidden.float())
        return numbers.squeeze(-1)


def _push_left(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows without what stands before their first token (B, W), and each token's place (B, S).

    The token of row b at column s moves to column places[b, s]. Rows that start at the left already
    are returned as they are.
    """
    places = position_ids(mask)
    if not (mask[:, 1:] & ~mask[:, :-1]).any():
        return tokens, places
    packed = tokens.new_zeros(len(tokens), int(places[:, -1].max()) + 1)
    rows, columns = mask.nonzero(as_tuple=True)
    packed[rows, places[rows, columns]] = tokens[rows, columns]
    return packed, places


def _forward(module: Any, tokens: Tensor) -> Tensor:
    """The first output of a backbone (hidden states) or of a whole model (logits) (B, W, ...)."""
    width = tokens.shape[1]
    context = getattr(module.config, "max_position_embeddings", None)
    if context and width > context:
        raise InstilError(
            f"a sequence of {width} tokens does not fit the model's context of {context}; "
            "shorten the texts or the responses"
        )
    positions = torch.arange(width, device=tokens.device)[None]
    output: Tensor = module(input_ids=tokens, position_ids=positions, use_cache=False)[0]
    return output


def _predict(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, measure: bool
) -> Tensor:
    """Logprobs of `targets` (N,) as (1, N); with entropies and hits below them as (3, N)."""
    logits = head(hidden)
    chosen = token_logprobs(logits, targets, temperature)
    if not measure:
        return chosen[None]
    with torch.no_grad():
        every = functional.log_softmax(logits.float() / temperature, dim=-1)
        spread = -(every.exp() * every).sum(dim=-1)
        hit = (logits.argmax(dim=-1) == targets).to(chosen.dtype)
    return torch.stack([chosen, spread, hit])


def _head_is_plain(policy: PreTrainedModel) -> bool:
    """Whether logits = head(hidden states); found out once per model, on a probe."""
    if "head_is_plain" not in policy.__dict__:
        was_training = policy.training
        policy.eval()
        with torch.no_grad():
            probe = torch.arange(4, device=policy.device)[None] % policy.config.vocab_size
            logits = policy(input_ids=probe, use_cache=False).logits
            hidden = policy.base_model(input_ids=probe, use_cache=False).last_hidden_state
            again = policy.get_output_embeddings()(hidden)
            plain = torch.allclose(again, logits, rtol=1e-4, atol=1e-5)
            policy.__dict__["head_is_plain"] = plain
        policy.train(was_training)
    return bool(policy.__dict__["head_is_plain"])


def _load(path: Path, kind: Any, noun: str, dropout: float, attn: str) -> PreTrainedModel:
    """`kind.from_pretrained` on a directory that was found safe; no weight may be missing."""
    check_model(path)
    safe = {"local_files_only": True, "trust_remote_code": False}
    with opening(path, noun):
        config = AutoConfig.from_pretrained(str(path), **safe)
        without_dropout(config)
        model: PreTrainedModel
        model, report = kind.from_pretrained(
            str(path),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=attn,
            output_loading_info=True,
            **safe,
        )
    stored = (config.architectures or [noun])[0]
    wrong = kind is AutoModelForCausalLM and stored.endswith("ForSequenceClassification")
    if wrong or report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InstilError(
            f"{path}: holds a {stored}, not a {noun}" + (f": no {missing}" if missing else "")
        )
    return _prepared(model, dropout)


def _prepared(model: PreTrainedModel, dropout: float) -> PreTrainedModel:
    """Eval mode, residual dropout, and no padding id: masks say what is padding.

    With a padding id, transformers would never train its embedding (even when it is the end token,
    too) and would warn of inputs that hold it.
    """
    model.config.pad_token_id = None
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None
    set_dropout(model, dropout)
    model.eval()
    return model


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
