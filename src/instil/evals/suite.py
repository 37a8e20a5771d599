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


def run_suite(
    world: World,
    policies: Sequence[Policy],
    prompts: Sequence[Prompt],
    panels: Mapping[str, Panel],
    sizes: Sizes,
    seed: int,
    baseline: str = "sft",
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of results.jsonl and of samples.jsonl.

    `prompts` are of held-out users; responses are drawn at temperature 1, as users would see
    them, and once more at temperature 0 for `win_rate_greedy`.
    """
    asked = [prompt.text for prompt in prompts]
    rows: list[Row] = []
    drawn, greedy, flags = {}, {}, {}
    for policy in policies:
        say(f"evaluate {policy.name}")
        drawn[policy.name] = policy.respond(asked, 1.0, seed)
        if policy.best_of == 1:
            greedy[policy.name] = policy.respond(asked, 0.0, seed)
            for test in tests(world, sizes, seed):
                rows += evaluate(test, policy, seed)
        rows += ratings(panels["held-out"], prompts, drawn[policy.name], policy.name)
        found, flags[policy.name] = verdicts(world, prompts, drawn[policy.name], policy.name)
        rows += found
    rows += preferences(panels, prompts, drawn, baseline, "win_rate")
    held_out = {"held-out": panels["held-out"]}
    rows += preferences(held_out, prompts, greedy, baseline, "win_rate_greedy")
    samples = [
        {
            "prompt": prompts[i].text,
            "use_case": prompts[i].use_case,
            "split": prompts[i].split,
            "responses": {name: texts[i] for name, texts in drawn.items()},
            "flags": {name: list(found[i]) for name, found in flags.items()},
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
