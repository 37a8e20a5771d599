"""Policies, and what a batch looks like to them.

A policy is a plain causal language model of transformers; its verb is `logprobs`. Reward and value
models are its backbone with one number per token on top (scalar.py).

Batches may be padded on either side, but padding is never read: a pass takes the sequences side by
side, without it (attention.py). For a model whose attention does not allow that, every row is
pushed to the left, so that the causal mask alone keeps real tokens from seeing padding. Positions
count from each row's own first token, so a sequence has the same logprobs alone and in any batch.

Left out on purpose:
  token type ids, encoders    decoder-only models are enough for the method
  attention dropout           the paper names residual dropout only
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
)

from instil.errors import InstilError
from instil.lm.adapters import merged
from instil.lm.attention import Packed, exchange, hidden_states, packs
from instil.lm.batches import position_ids
from instil.lm.dropout import set_dropout, without_dropout
from instil.lm.head import head_logprobs
from instil.lm.linear import exchange_linear
from instil.lm.machine import Precision, device, mixed_precision
from instil.lm.text import Codec
from instil.lm.trust import check_model, opening
from instil.losses import token_logprobs

Architecture = Literal["llama", "gpt2"]

Shapes = Callable[[], AbstractContextManager[Any]]

_shapes: Shapes | None = None


@contextmanager
def without_weights(shapes: Shapes) -> Iterator[None]:
    """Inside, models are made from their configs in a context that `shapes` opens, where they are
    to be (`machine.device`), and no weight is read."""
    global _shapes
    _shapes = shapes
    try:
        yield
    finally:
        _shapes = None


def load_policy(path: Path, dropout: float = 0.0, precision: Precision = "auto") -> PreTrainedModel:
    """A causal language model from a local directory: weights in fp32, eval mode, on the GPU where
    there is one.

    dropout    residual dropout while training (Ouyang et al. 2022, appendix C.1 use 0.2 in SFT)
    precision  of its matrix products, see `machine.mixed_precision`

    An `InstilError` says why a directory is refused: see `trust.py`.
    """
    path = Path(path)
    model = load_directory(path, AutoModelForCausalLM, "language model", dropout, precision)
    if not packs(model) and not _shapes and not reads_on(model):
        raise InstilError(
            f"{path}: {type(model).__name__} cannot go on from a cache of keys and values, which "
            "sampling needs; take a decoder that only looks back, such as Llama or GPT-2"
        )
    return model


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
    precision: Precision = "auto",
) -> PreTrainedModel:
    """A randomly initialised causal language model with tied embeddings, in eval mode, on the GPU
    where there is one.

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
    with torch.random.fork_rng(devices=[]), _shapes() if _shapes else nullcontext():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.generation_config.pad_token_id = pad_id
    return _prepared(model, dropout, precision)


def save_policy(model: PreTrainedModel, codec: Codec, path: Path) -> None:
    """Write a plain Hugging Face directory: weights (an adapter added into them), tokenizer, and
    where sampling stops."""
    ends = list(codec.eos_ids) if len(codec.eos_ids) > 1 else codec.eos_id
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=ends, pad_token_id=codec.pad_id
    )
    model.config.pad_token_id = codec.pad_id
    with merged(model):
        model.save_pretrained(str(path))
    model.config.pad_token_id = None
    codec.save(Path(path))


def read(module: Any, tokens: Tensor, mask: Tensor, shared: int = 0) -> tuple[Tensor, Tensor]:
    """One pass over a batch in which no padding is read.

    module        a backbone or a whole model
    tokens, mask  (B, S)  padding may be on either side
    shared        rows whose first `shared` columns are equal have them read once

    Returns the last hidden states, after the final norm (or the logits of a whole model), of M
    tokens (M, D), and for each token of the batch its row in them (B, S); of padding it is 0.
    """
    if packs(module):
        packed, index = Packed.rows(tokens, mask, shared)
        return read_packed(module, packed), index
    pushed, places = push_left(tokens, mask)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return forward(module, pushed).flatten(0, 1), (rows * pushed.shape[1] + places) * mask


def read_packed(module: Any, packed: Packed) -> Tensor:
    """What `read` returns of M packed tokens (M, D)."""
    check_context(module, int(packed.positions.max()) + 1)
    with mixed_precision(module):
        return hidden_states(module, packed.filled())[: len(packed.tokens)]


@overload
def logprobs(
    policy: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    where: Tensor,
    temperature: float = 1.0,
    measure: Literal[False] = False,
    shared: int = 0,
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
    shared: int = 0,
) -> tuple[Tensor, Tensor, Tensor]: ...
def logprobs(
    policy: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    where: Tensor,
    temperature: float = 1.0,
    measure: bool = False,
    shared: int = 0,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """log p(tokens[:, t] | tokens[:, <t]) where `where` is True, 0 elsewhere (B, S) fp32.

    tokens, mask  (B, S)  padding may be on either side
    where         (B, S)  True at tokens to evaluate; the first token of a row has no probability
    measure       also return the entropy of each of these predictions, and whether its most likely
                  token is the one that stands there (1 or 0), both (B, S), without gradient
    shared        rows whose first `shared` columns are equal have them read once

    Only these positions go through the head, a chunk at a time (`head.py`). Gradients flow to the
    policy. (An architecture that changes its logits after the head, by a scale or a cap, makes all
    its logits at once.)
    """
    plain = head_is_plain(policy)
    states, index = read(policy.base_model if plain else policy, tokens, mask, shared)
    before = mask & F.pad(mask, (1, 0))[:, :-1]
    if (where & ~before).any():
        raise ValueError("where: the first token of a sequence has no probability")
    flat = where.flatten().nonzero().squeeze(1)
    inputs = states.index_select(0, index.flatten()[flat - 1])
    targets = tokens.flatten()[flat]
    if plain:
        head: Any = policy.get_output_embeddings()
        with mixed_precision(policy):
            found = head_logprobs(inputs, head.weight, head.bias, targets, temperature, measure)
    else:
        found = _of_logits(inputs, targets, temperature)

    def grid(values: Tensor) -> Tensor:
        return values.new_zeros(tokens.numel()).index_copy(0, flat, values).view(tokens.shape)

    return (grid(found[0]), grid(found[1]), grid(found[2])) if measure else grid(found[0])


def push_left(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
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


def forward(module: Any, tokens: Tensor) -> Tensor:
    """The plain way: the first output of a backbone (hidden states) or of a whole model (logits)
    (B, W, ...) for rows that begin at the left (B, W)."""
    check_context(module, tokens.shape[1])
    places = torch.arange(tokens.shape[1], device=tokens.device)[None]
    with mixed_precision(module):
        output: Tensor = module(input_ids=tokens, position_ids=places, use_cache=False)[0]
    return output


def check_context(module: Any, width: int) -> None:
    """An `InstilError` if a sequence of `width` tokens is longer than the model can read."""
    context = getattr(module.config, "max_position_embeddings", None)
    if context and width > context:
        raise InstilError(
            f"a sequence of {width} tokens does not fit the model's context of {context}; "
            "shorten the texts or the responses"
        )


def _of_logits(
    logits: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `head_logprobs` returns, of whole logits (N, V)."""
    with torch.no_grad():
        every = F.log_softmax(logits.float() / temperature, dim=-1)
        entropy = -(every.exp() * every).sum(dim=-1)
        hits = (logits.argmax(dim=-1) == targets).to(every.dtype)
    return token_logprobs(logits, targets, temperature), entropy, hits


def head_is_plain(policy: PreTrainedModel) -> bool:
    """Whether logits = hidden states x weight + bias; found out once per model, on a probe."""
    if "head_is_plain" not in policy.__dict__:
        was_training = policy.training
        policy.eval()
        with torch.no_grad(), torch.autocast(policy.device.type, enabled=False):
            probe = torch.arange(4, device=policy.device)[None] % policy.config.vocab_size
            logits = policy(input_ids=probe, use_cache=False).logits
            hidden = policy.base_model(input_ids=probe, use_cache=False).last_hidden_state
            head: Any = policy.get_output_embeddings()
            again = head(hidden)
            plain = isinstance(head, nn.Linear) and torch.allclose(
                again, logits, rtol=1e-4, atol=1e-5
            )
            policy.__dict__["head_is_plain"] = plain
        policy.train(was_training)
    return bool(policy.__dict__["head_is_plain"])


def load_directory(
    path: Path, kind: Any, noun: str, dropout: float, precision: Precision
) -> PreTrainedModel:
    """`kind.from_pretrained` on a directory that was found safe; no weight may be missing."""
    check_model(path)
    safe = {"local_files_only": True, "trust_remote_code": False}
    with opening(path, noun):
        config = AutoConfig.from_pretrained(str(path), **safe)
        without_dropout(config)
        model: PreTrainedModel
        report: dict[str, Any] = {"missing_keys": ()}
        plan = {"config": config, "dtype": torch.float32, "attn_implementation": None}
        if _shapes:
            with _shapes():
                model = kind.from_config(**plan)
        else:
            files = {"use_safetensors": True, "output_loading_info": True, **safe}
            model, report = kind.from_pretrained(str(path), **plan, **files)
    stored = (config.architectures or [noun])[0]
    wrong = kind is AutoModelForCausalLM and stored.endswith("ForSequenceClassification")
    if wrong or report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InstilError(
            f"{path}: holds a {stored}, not a {noun}" + (f": no {missing}" if missing else "")
        )
    if not _shapes:
        check_weights(model, path)
    return _prepared(model, dropout, precision)


def check_weights(model: PreTrainedModel, path: Path) -> None:
    """Refuse a model with weights that are no finite numbers; the `InstilError` names the first."""
    for name, weight in model.named_parameters():
        if weight.numel() and not all(map(torch.isfinite, weight.detach().aminmax())):
            raise InstilError(
                f"{path}: {name} has values that are no finite numbers; the file is damaged, or "
                "what wrote it had diverged: take another checkpoint"
            )


@torch.no_grad()
def reads_on(model: PreTrainedModel) -> bool:
    """Whether logits are the same when a cache has the first tokens: no token looks ahead, and all
    that a model keeps of the past is in the cache. (Of one that packs, `exchange` knows it.)"""
    tokens = torch.arange(1, 7, device=model.device)[None] % model.config.vocab_size
    cache = DynamicCache(config=model.config)
    try:
        whole, *parts = (
            model(input_ids=ids, past_key_values=past, use_cache=past is not None).logits
            for ids, past in ((tokens, None), (tokens[:, :5], cache), (tokens[:, 5:], cache))
        )
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError):
        return False
    return torch.allclose(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-4)


def recompute_activations(model: Any) -> None:
    """In training, keep only what enters each layer, and compute the rest again in the backward
    pass (activation checkpointing, Chen et al. 2016)."""
    if not model.supports_gradient_checkpointing:
        raise InstilError(
            f"{type(model).__name__} has no activation checkpointing; leave it out, and lower "
            "micro_batch_tokens to save memory"
        )
    # of another name before transformers 5.23
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.disable_input_require_grads()  # only the reentrant way needs them


def _prepared(model: PreTrainedModel, dropout: float, precision: Precision) -> PreTrainedModel:
    """Device and precision, eval mode, residual dropout, and no padding id: masks say what is
    padding.

    With a padding id, transformers would never train its embedding (even when it is the end token,
    too) and would warn of inputs that hold it.
    """
    model.config.pad_token_id = None
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None
    set_dropout(model, dropout)
    model.base_model.__dict__["precision"] = precision  # on the module, so that copies keep it
    if not _shapes:
        model.to(device())  # type: ignore[arg-type]
    model.eval()
    exchange_linear(model)
    exchange(model)
    return model
