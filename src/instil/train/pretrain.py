"""Next-token training on plain text, so that the whole story needs no download.

Documents are tokenized, joined end to end with the end token between them, and cut into rows of
one length: no padding. A model is made from scratch (with a tokenizer trained on the same text) or
training goes on from `model`.

    instil pretrain --text books/*.txt.gz --out runs/base
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from instil.convert import read_texts
from instil.errors import InstilError
from instil.lm.batches import TextBatch, batch_indices, document_rows, stream_batch
from instil.lm.machine import settle, tokens_per_pass
from instil.lm.models import Architecture, load_policy, logprobs, new_policy, save_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.text import Codec, train_tokenizer
from instil.losses import lm_loss
from instil.runs import model_dir, say
from instil.train import dist
from instil.train.dry_run import DryRun, open_run
from instil.train.fit import FitConfig, Method, above_zero, fit, publish, steps_in
from instil.train.rollout import sample

READ = 4
"""Continuations of validation text that each evaluation writes for people to read."""
READ_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(FitConfig):
    """Train a language model on text. Adam's betas follow Ouyang et al. 2022, appendix C."""

    text: tuple[Path, ...]
    """Plain text (.txt, .txt.gz) or records of text (.jsonl, .jsonl.gz)."""
    model: Path | None = None
    """Model to start from; from scratch when left out."""
    architecture: Architecture = "llama"
    """When from scratch."""
    vocab_size: int = 4096
    """Size of the byte-level BPE trained on the text, when from scratch."""
    width: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 512
    """Longest sequence that the model can read, in tokens."""
    row_length: int = 128
    """Tokens per training example."""
    valid: float = 0.02
    """Share of the rows kept for validation."""
    eval_every: int = 200
    """Steps between validations."""
    batch_size: int = 32
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.1
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        FitConfig.__post_init__(self)
        above_zero(self, "width", "layers", "heads", "eval_every")
        if self.lora_rank and self.model is None:
            raise InstilError("lora_rank: only a trained model can be adapted; give --model")
        if self.width % self.heads:
            raise InstilError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not 0 <= self.valid < 1:
            raise InstilError(f"valid {self.valid} must be in [0, 1)")
        if not 2 <= self.row_length <= self.context:
            raise InstilError(
                f"row_length {self.row_length} must be between 2 and context {self.context}"
            )


def run(config: Config) -> None:
    """Train, or go on training, and write a plain Hugging Face directory."""
    settle(config.threads)
    with open_run("pretrain", config) as run:
        if isinstance(run, DryRun):
            _forecast(run, config)
            return
        documents = [document for path in config.text for document in read_texts(path)]
        if config.model is not None:
            codec = Codec.load(model_dir(config.model))
            model = load_policy(model_dir(config.model), precision=config.precision)
        else:
            codec = Codec(dist.from_first(lambda: train_tokenizer(documents, config.vocab_size)))
            model = _from_scratch(config, codec.vocab_size, codec.pad_id, codec.eos_id)
        rows = document_rows(list(codec.encode_documents(documents)), config.row_length)
        held_out = max(1, round(len(rows) * config.valid))
        train, valid = rows[:-held_out], rows[-held_out:]
        say(f"pretrain: {len(documents)} documents, {rows.numel()} tokens of {codec.vocab_size}")

        def evaluate(step: int) -> dict[str, float]:
            with dist.whole(model) as plain:
                run.samples(step, continuations(codec, plain, valid[:READ], config.seed))
                return {"eval/loss": mean_loss(plain, valid, tokens)}

        tokens = tokens_per_pass(model, config.micro_batch_tokens)
        method = Method(
            name="pretrain",
            steps=steps_in(len(train), config.batch_size, config.epochs, "rows of text"),
            batches=lambda step: micro_rows(train, config, tokens, step),
            loss=text_loss(model),
            tokens=lambda batch: int(batch.tokens.numel()),
            evaluate=evaluate,
            eval_every=config.eval_every,
        )
        results = fit(run, model, config, method)
        with dist.whole(model) as plain:
            publish(run, plain, lambda path: save_policy(plain, codec, path), **results)


def _from_scratch(config: Config, vocab_size: int, pad_id: int, eos_id: int) -> PreTrainedModel:
    return new_policy(
        config.architecture,
        vocab_size=vocab_size,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=config.context,
        seed=config.seed,
        pad_id=pad_id,
        eos_id=eos_id,
        precision=config.precision,
    )


def _forecast(run: DryRun, config: Config) -> None:
    """Say what memory training takes; it is the same for every text, so none is read."""
    if config.model is None:
        model = _from_scratch(config, config.vocab_size, 0, 0)
    else:
        model = load_policy(model_dir(config.model), precision=config.precision)
    rows = torch.zeros(config.batch_size, config.row_length, dtype=torch.long)
    tokens = tokens_per_pass(model, config.micro_batch_tokens)
    method = Method(
        name="pretrain",
        steps=1,
        batches=lambda step: micro_rows(rows, config, tokens, step),
        loss=text_loss(model),
        tokens=lambda batch: int(batch.tokens.numel()),
    )
    run.supervised(model, config, method)


def micro_rows(rows: Tensor, config: FitConfig, tokens: int, step: int) -> list[TextBatch]:
    """The micro-batches of one step over rows of text (n, length), of about `tokens` tokens."""
    chosen = batch_indices(len(rows), config.batch_size, config.seed, step)
    size = dist.per_pass(len(chosen), max(1, tokens // rows.shape[1]))
    return [stream_batch(rows[chosen[at : at + size]]) for at in range(0, len(chosen), size)]


def text_loss(
    policy: PreTrainedModel, measure: bool = False
) -> Callable[[TextBatch, int], tuple[Tensor, dict[str, float]]]:
    """The loss of one micro-batch of text: minus its logprobs over the whole batch's count.

    measure  also give the predictions' mean entropy and how often the likeliest token is right
    """

    def loss(batch: TextBatch, weight: int) -> tuple[Tensor, dict[str, float]]:
        batch = batch.to(policy.device)
        if not measure:
            found = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)
            return lm_loss(found, batch.loss_mask, weight), {}
        found, entropy, hits = logprobs(
            policy, batch.tokens, batch.mask, batch.loss_mask, measure=True
        )
        share = {
            "mean_token_accuracy": hits.sum().item() / weight,
            "entropy": entropy.sum().item() / weight,
        }
        return lm_loss(found, batch.loss_mask, weight), share

    return loss


@torch.no_grad()
def mean_loss(policy: PreTrainedModel, rows: Tensor, tokens: int) -> float:
    """Mean loss per token over rows of text, in nats; `tokens` tokens at a time."""
    total, count = 0.0, 0.0
    for part in dist.mine(rows.split(max(1, tokens // rows.shape[1]))):
        batch = stream_batch(part).to(policy.device)
        found = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)
        total -= found.sum().item()
        count += batch.weight
    total, count = dist.totals(total, count)
    return total / count


def continuations(
    codec: Codec, policy: PreTrainedModel, rows: Tensor, seed: int
) -> list[dict[str, str]]:
    """The first half of each row of text, and how the model goes on."""
    half = rows.shape[1] // 2
    params = SamplingParams(max_tokens=min(READ_TOKENS, rows.shape[1] - half))
    starts = rows[:, :half].tolist()
    samples = sample(Decoder(policy, codec), starts, params, seed)
    return [
        {"prompt": str(codec.tokenizer.decode(start)), "response": codec.decode(tokens)}
        for start, tokens in zip(starts, samples.tokens, strict=True)
    ]
