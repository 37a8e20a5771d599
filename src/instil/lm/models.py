"""Policies, and what a batch looks like to them.

A policy is a plain causal language model of transformers; its verb is `logprobs`. Reward and value
models are its backbone with one number per token on top (scalar.py).

Padding never reaches attention: before the forward pass every row is pushed to the left, so the
causal mask alone keeps real tokens from seeing it, and positions count from each row's own first
token. A sequence therefore has the same logprobs alone, padded right or padded left.

Left out on purpose:
  token type ids, encoders    decoder-only models are enough for the method
  attention dropout           the paper names residual dropout only
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
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
    return load_directory(Path(path), AutoModelForCausalLM, "language model", dropout, attn)


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
    packed, places = push_left(tokens, mask)
    hidden = forward(model.base_model, packed)
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
    packed, places = push_left(tokens, mask)
    hidden = forward(policy.base_model if plain else policy, packed)  # or the logits themselves
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


def forward(
    module: Any, tokens: Tensor, positions: Tensor | None = None, attention: Tensor | None = None
) -> Tensor:
    """The first output of a backbone (hidden states) or of a whole model (logits) (B, W, ...).

    positions  (B, W)     0, 1, 2, ... if left out
    attention  (B, W, W)  True where token i sees token j; all before it if left out
    """
    if positions is None:
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    width = int(positions.max()) + 1
    context = getattr(module.config, "max_position_embeddings", None)
    if context and width > context:
        raise InstilError(
            f"a sequence of {width} tokens does not fit the model's context of {context}; "
            "shorten the texts or the responses"
        )
    more = {}
    if attention is not None:
        hidden = torch.zeros(attention.shape, dtype=module.dtype, device=tokens.device)
        hidden.masked_fill_(~attention, torch.finfo(module.dtype).min)
        more["attention_mask"] = hidden[:, None]
    output: Tensor = module(input_ids=tokens, position_ids=positions, use_cache=False, **more)[0]
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


def load_directory(path: Path, kind: Any, noun: str, dropout: float, attn: str) -> PreTrainedModel:
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
