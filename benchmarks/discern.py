"""How well a reward model tells good responses of one policy to one prompt from bad ones.

    python -m benchmarks.discern runs/demo ppo-init sft

Pairs are of responses to the same prompt at temperature 1, and truth is the noise-free mean utility
of the training labelers (`truth_judge`); pairs that it holds for tied are left out. Beside the
reward model stands the policy's own summed logprob. Prompts are drawn anew from the world, in names
and wordings of the test split, so none of the demo's own test prompts is used. The accuracy that
`instil rm` prints is of rankings, with the noise of labelers, and some of its pairs are of two
policies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from random import Random

from instil.evals.policy import load
from instil.feedback.simulated import TIE, labelers, truth_judge
from instil.lm.reward import load_reward
from instil.lm.sampling import SamplingParams, repeat
from instil.records import Prompt
from instil.stats import Estimate, mean_estimate
from instil.world.lexicon import make_world
from instil.world.tasks import draw_use_case, make_prompt

MAX_TOKENS = 48


def accuracy(truth: Sequence[float], scores: Sequence[float], n: int) -> Estimate:
    """Share of the pairs among every `n` in a row that the scores order as truth does; ties of the
    scores count half. The interval is clustered by prompt."""
    outcomes, clusters = [], []
    for first in range(0, len(truth), n):
        for a, b in combinations(range(first, first + n), 2):
            better, worse = (a, b) if truth[a] > truth[b] else (b, a)
            if truth[better] - truth[worse] >= TIE:
                margin = scores[better] - scores[worse]
                outcomes.append((margin > 0) + 0.5 * (margin == 0))
                clusters.append(first)
    return mean_estimate(outcomes, clusters)


def main(argv: Sequence[str] | None = None) -> None:
    """Print two lines for each policy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discern", description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("policies", nargs="+", help="runs of the demo")
    parser.add_argument("--rm", type=Path, help="another reward model than the demo's")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--n", type=int, default=8, help="responses to each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    world, reward = make_world(args.seed), load_reward(args.rm or args.demo / "rm")
    judge = truth_judge([one for one in labelers(args.seed) if one.group == "training"])
    rng, prompts = Random("discern"), []
    for number in range(args.prompts):
        text, meta = make_prompt(world, draw_use_case(rng), "test", rng)
        prompts.append(Prompt(id=str(number), text=text, meta=meta))
    for name in args.policies:
        policy = load(name, args.demo / name, MAX_TOKENS)
        ids, indices = repeat([policy.codec.encode_prompt(p.text) for p in prompts], args.n)
        params = SamplingParams(max_tokens=MAX_TOKENS)
        found = policy.sampler.sample(ids, params, args.seed, indices)
        texts = [policy.codec.decode(tokens) for tokens in found.tokens]
        asked = [prompt for prompt in prompts for _ in range(args.n)]
        truth = [judge(world, prompt, text) for prompt, text in zip(asked, texts, strict=True)]
        scores = reward([prompt.text for prompt in asked], texts)
        likely = [float(sum(logprobs)) for logprobs in found.logprobs]
        best = [
            truth[max(range(first, first + args.n), key=scores.__getitem__)]
            for first in range(0, len(truth), args.n)
        ]
        print(f"{name:9} pairs in order: reward model {accuracy(truth, scores, args.n)},", end=" ")
        print(f"logprobs {accuracy(truth, likely, args.n)}")
        print(f"{name:9} utility {mean_estimate(truth, [p.id for p in asked])},", end=" ")
        print(f"of the best of {args.n} by the reward model {mean_estimate(best)}", flush=True)


if __name__ == "__main__":
    main()
