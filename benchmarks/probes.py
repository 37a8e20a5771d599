"""How many pairs of a demo's validation rankings the summed logprobs of PPO's start order rightly:
`python benchmarks/probes.py runs/demo`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from instil.jsonl import read_records
from instil.lm.batches import text_batch
from instil.lm.models import load_policy, logprobs
from instil.lm.text import Codec
from instil.records import Labeler, Prompt, Ranking, Response
from instil.stats import mean_estimate


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
    logprobs_as_reward(Path(sys.argv[1]))
