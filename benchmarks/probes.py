"""Two figures that the demo itself does not print: `python benchmarks/probes.py runs/demo`.

- How many fresh prompts are done as asked, by names and wordings of training or held out.
- How many pairs of the validation rankings the summed logprobs of PPO's start order rightly.

Prompts are drawn anew from the world, so none of the demo's own test prompts is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import torch

from instil.evals.policy import load
from instil.jsonl import read_records
from instil.lm.batches import text_batch
from instil.lm.models import load_policy, logprobs
from instil.lm.sampling import SamplingParams
from instil.lm.text import Codec
from instil.records import Labeler, Prompt, Ranking, Response
from instil.stats import mean_estimate
from instil.world.check import check
from instil.world.lexicon import make_world
from instil.world.tasks import draw_use_case, make_prompt

POLICIES = ("base", "ppo-init", "sft", "ppo", "ppo-ptx")
PROMPTS = 200


def names(demo: Path) -> None:
    """Did what was asked, at temperature 1: known names, then held-out names."""
    world = make_world(0)
    asked = {}
    for split in ("valid", "test"):
        rng = Random(f"dev-{split}")
        asked[split] = [make_prompt(world, draw_use_case(rng), split, rng) for _ in range(PROMPTS)]
    for name in POLICIES:
        policy = load(name, demo / name, 48)
        for split, items in asked.items():
            ids = [policy.codec.encode_prompt(text) for text, _ in items]
            found = policy.sampler.sample(ids, SamplingParams(max_tokens=48), 7)
            done = [
                check(world, meta, policy.codec.decode(tokens)).follows
                for (_, meta), tokens in zip(items, found.tokens, strict=True)
            ]
            print(f"{name:9} {split:6} did what was asked {mean_estimate(done)}")


@torch.no_grad()
def logprobs_as_reward(demo: Path) -> None:
    """Pairs of the training labelers' validation rankings that the policy's logprobs order."""
    path = demo / "ppo-init" / "final"
    policy, codec = load_policy(path), Codec.load(path)
    prompts = {p.id: p for p in read_records(demo / "data/prompts.jsonl", Prompt)}
    chosen = [
        response
        for response in read_records(demo / "data/responses.jsonl", Response)
        if prompts[response.prompt_id].split == "valid"
    ]
    scores: dict[str, float] = {}
    for at in range(0, len(chosen), 64):
        part = chosen[at : at + 64]
        pairs = [
            (codec.encode_prompt(prompts[r.prompt_id].text), codec.encode_response(r.text))
            for r in part
        ]
        batch = text_batch(pairs, codec.pad_id)
        sums = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask).sum(1).tolist()
        scores |= {r.id: total for r, total in zip(part, sums, strict=True)}
    people = read_records(demo / "data/labelers.jsonl", Labeler)
    training = {one.id for one in people if one.group == "training"}
    outcomes, clusters = [], []
    for ranking in read_records(demo / "data/rankings.jsonl", Ranking):
        if ranking.labeler_id in training and ranking.prompt_id in prompts:
            if prompts[ranking.prompt_id].split != "valid":
                continue
            for better, worse in ranking.pairs():
                outcomes.append(float(scores[better] > scores[worse]))
                clusters.append(ranking.prompt_id)
    print(f"summed logprobs order {mean_estimate(outcomes, clusters)} of the validation pairs")


if __name__ == "__main__":
    names(Path(sys.argv[1]))
    logprobs_as_reward(Path(sys.argv[1]))
