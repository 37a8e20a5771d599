"""`instil sample`: write responses of a model to prompts.

    instil sample --model runs/sft --prompts prompts.jsonl --split train --n 4 \\
        --out responses.jsonl

The same command writes the same responses. A response's id is opaque: it tells a labeler nothing
about the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from instil.errors import InstilError
from instil.jsonl import read_records, write_records
from instil.lm.machine import Precision, settle
from instil.lm.models import load_policy
from instil.lm.sampling import Decoder, SamplingParams, repeat
from instil.lm.text import Codec
from instil.records import Prompt, Response
from instil.runs import model_dir, say


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of `instil sample`."""

    model: Path
    """Run directory of the policy, or any directory of a saved model."""
    prompts: Path
    """JSON lines of prompts."""
    out: Path
    """JSON lines of responses; the whole file or nothing is written."""
    n: int = 4
    """Responses per prompt (the paper's labelers rank 4 to 9)."""
    max_tokens: int = 256
    """Longest response, in tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Share of the probability that may be sampled; 1 is all."""
    split: str = ""
    """Only prompts of this split: train, valid or test; empty is all."""
    limit: int = 0
    """Only the first so many of these prompts; 0 is all."""
    seed: int = 0
    """Another seed gives other responses."""
    policy: str = ""
    """The name that the responses carry; empty: the run directory's name."""
    batch_size: int = 128
    """Responses decoded at a time; it does not change them."""
    precision: Precision = "auto"
    """Of the model's matrix products; auto: bf16 on a GPU, fp32 elsewhere."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch_size < 1 or self.limit < 0:
            raise InstilError(
                f"n {self.n} and batch_size {self.batch_size} must be at least 1, "
                f"limit {self.limit} at least 0"
            )
        if self.temperature == 0 and self.n > 1:
            raise InstilError(
                f"temperature 0 gives the same response {self.n} times; set n to 1 or a temperature"
            )


def run(config: Config) -> None:
    """Sample and write `config.out`."""
    params = SamplingParams(config.max_tokens, config.temperature, config.top_p)
    prompts = [
        prompt
        for prompt in read_records(config.prompts, Prompt)
        if not config.split or prompt.split == config.split
    ][: config.limit or None]
    if not prompts:
        raise InstilError(
            f"{config.prompts}: no prompts" + f" of split {config.split!r}" * bool(config.split)
        )
    settle()
    source = model_dir(config.model)
    codec = Codec.load(source)
    model = load_policy(source, precision=config.precision)
    decoder = Decoder(model, codec, config.batch_size)
    ids, indices = repeat([codec.encode_prompt(prompt.text) for prompt in prompts], config.n)
    samples = decoder.sample(ids, params, config.seed, indices)

    policy = config.policy or policy_name(config.model)
    settings = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
        "seed": config.seed,
    }
    responses = []
    for place, (tokens, ended) in enumerate(zip(samples.tokens, samples.ended, strict=True)):
        prompt = prompts[place // config.n]
        sampling = {**settings, "index": indices[place], "ended": ended}
        responses.append(
            Response(
                id=response_id(prompt.id, policy, sampling, place % config.n),
                prompt_id=prompt.id,
                text=codec.decode(tokens),
                policy=policy,
                sampling=sampling,
            )
        )
    write_records(config.out, responses)
    share = sum(samples.ended) / len(responses)
    say(f"{config.out}: {len(responses)} responses to {len(prompts)} prompts, {share:.0%} ended")


def policy_name(model: Path) -> str:
    """The run a model directory belongs to: "sft" for runs/sft/final."""
    model = model.resolve()
    return model.parent.name if model.name == "final" else model.name


def response_id(prompt_id: str, policy: str, sampling: Mapping[str, object], number: int) -> str:
    """An id that is the same for the same sample and says nothing about the policy."""
    what = repr((prompt_id, policy, sorted(sampling.items()), number))
    return f"{prompt_id}-{blake2b(what.encode(), digest_size=5).hexdigest()}"
