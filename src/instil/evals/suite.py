"""Everything the paper asks of a policy, asked of several policies in the embedded world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from instil.evals.hallucination import hallucination
from instil.evals.policy import Eval, Policy, Row, evaluate, row
from instil.evals.preference import Panel, preferences, ratings, verdicts
from instil.evals.public import public, second_language
from instil.evals.rudeness import rudeness
from instil.evals.truthful import truthful
from instil.lm.batches import rollout_batch
from instil.lm.models import logprobs
from instil.lm.sampling import SamplingParams
from instil.records import Prompt
from instil.runs import say
from instil.world.lexicon import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many questions each part asks."""

    truthful: int = 300
    hallucination: int = 300
    rudeness: int = 200
    public: int = 200
    language: int = 100
    samples: int = 24


def tests(world: World, sizes: Sizes, seed: int) -> list[Eval]:
    """The evals that need no judge."""
    return [
        *truthful(world, sizes.truthful, seed),
        hallucination(world, sizes.hallucination, seed),
        *rudeness(world, sizes.rudeness, seed),
        *public(world, sizes.public, seed),
        second_language(world, sizes.language, seed),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one policy answered, and what needs no other policy to be said of it."""

    name: str
    rows: list[Row]
    drawn: list[str]
    """Responses to the prompts at temperature 1, as users would see them."""
    greedy: list[str]
    """And at temperature 0; none of the best of several."""
    flags: list[tuple[str, ...]]
    """Of each drawn response."""


def ask(
    world: World, policy: Policy, prompts: Sequence[Prompt], panel: Panel, sizes: Sizes, seed: int
) -> Asked:
    """Ask one policy everything. `prompts` are of held-out users."""
    say(f"evaluate {policy.name}")
    asked = [prompt.text for prompt in prompts]
    rows: list[Row] = []
    drawn, greedy = policy.respond(asked, 1.0, seed), list[str]()
    if policy.best_of == 1:
        greedy = policy.respond(asked, 0.0, seed)
        for test in tests(world, sizes, seed):
            rows += evaluate(test, policy, seed)
    rows += ratings(panel, prompts, drawn, policy.name)
    found, flags = verdicts(world, prompts, drawn, policy.name)
    return Asked(name=policy.name, rows=rows + found, drawn=drawn, greedy=greedy, flags=flags)


def compare(
    asked: Sequence[Asked],
    prompts: Sequence[Prompt],
    panels: Mapping[str, Panel],
    sizes: Sizes,
    baseline: str = "sft",
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of results.jsonl and of samples.jsonl, who is preferred among them."""
    rows = [row for one in asked for row in one.rows]
    drawn = {one.name: one.drawn for one in asked}
    greedy = {one.name: one.greedy for one in asked if one.greedy}
    rows += preferences(panels, prompts, drawn, baseline, "win_rate")
    held_out = {"held-out": panels["held-out"]}
    rows += preferences(held_out, prompts, greedy, baseline, "win_rate_greedy")
    samples = [
        {
            "prompt": prompts[i].text,
            "use_case": prompts[i].use_case,
            "split": prompts[i].split,
            "responses": {one.name: one.drawn[i] for one in asked},
            "flags": {one.name: list(one.flags[i]) for one in asked},
        }
        for i in spread(prompts, sizes.samples)
    ]
    return rows, samples


def spread(prompts: Sequence[Prompt], n: int) -> list[int]:
    """Indices of about n prompts, taken in turn from every use case."""
    by_case: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_case.setdefault(prompt.use_case, []).append(i)
    turns = [group[turn] for turn in range(n) for group in by_case.values() if turn < len(group)]
    return turns[:n]


@torch.no_grad()
def kl(policy: Policy, reference: PreTrainedModel, prompts: Sequence[Prompt], seed: int) -> Row:
    """KL of the policy to the reference in nats per response, on the policy's own responses."""
    model = policy.sampler.model  # type: ignore[attr-defined]
    ids = [policy.codec.encode_prompt(policy.prefix + p.text) for p in prompts]
    params = SamplingParams(max_tokens=policy.max_tokens, temperature=1.0)
    samples = policy.sampler.sample(ids, params, seed)
    values: list[tuple[str, float]] = []
    for at in range(0, len(ids), 64):
        chunk = slice(at, at + 64)
        tokens, mask, response = rollout_batch(
            ids[chunk], samples.tokens[chunk], policy.codec.pad_id
        )
        where = torch.nn.functional.pad(response, (tokens.shape[1] - response.shape[1], 0))
        gap: Tensor = logprobs(model, tokens, mask, where)
        gap = gap - logprobs(reference, tokens, mask, where)
        values += zip((p.id for p in prompts[chunk]), gap.sum(1).tolist(), strict=True)
    return row("kl", policy.name, "ppo-init", values, "nats")
