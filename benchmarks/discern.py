"""How well a reward model tells good responses of one policy to one prompt from bad ones.

    python -m benchmarks.discern runs/demo ppo-init sft

Pairs are of responses to the same test prompt at temperature 1, and truth is the noise-free mean
utility of the training labelers (`truth_judge`). Beside the reward model stands the policy's own
summed logprob. The accuracy that `instil rm` reports has easier pairs, of two policies, and noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instil.evals.policy import load
from instil.feedback.simulated import labelers, truth_judge
from instil.jsonl import read_records
from instil.lm.reward import load_reward
from instil.lm.sampling import SamplingParams, repeat
from instil.records import Prompt
from instil.world.lexicon import make_world


def accuracy(truth: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Share of the pairs within a row, of unequal truth, that the scores order as it does.

    truth, scores: (prompts, responses)
    """
    better = truth[:, :, None] > truth[:, None, :]
    higher = scores[:, :, None] > scores[:, None, :]
    return float((better & higher).sum() / better.sum())


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each policy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discern", description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("policies", nargs="+", help="runs of the demo")
    parser.add_argument("--rm", type=Path, help="another reward model than the demo's")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--n", type=int, default=16, help="responses to each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    world, reward = make_world(args.seed), load_reward(args.rm or args.demo / "rm")
    judge = truth_judge([one for one in labelers(args.seed) if one.group == "training"])
    known = read_records(args.demo / "data" / "prompts.jsonl", Prompt)
    prompts = [prompt for prompt in known if prompt.split == "test"][-args.prompts :]
    for name in args.policies:
        policy = load(name, args.demo / name, max_tokens=48)
        ids, indices = repeat([policy.codec.encode_prompt(p.text) for p in prompts], args.n)
        found = policy.sampler.sample(ids, SamplingParams(max_tokens=48), args.seed, indices)
        texts = [policy.codec.decode(tokens) for tokens in found.tokens]
        asked = [prompt for prompt in prompts for _ in range(args.n)]
        shape = (len(prompts), args.n)
        truth = np.reshape([judge(world, p, t) for p, t in zip(asked, texts, strict=True)], shape)
        scores = np.reshape(reward([prompt.text for prompt in asked], texts), shape)
        likely = np.reshape([float(sum(logprobs)) for logprobs in found.logprobs], shape)
        best = truth[np.arange(len(prompts)), scores.argmax(1)].mean()
        print(
            f"{name:12} pairs in order: reward model {accuracy(truth, scores):.3f}, logprobs "
            f"{accuracy(truth, likely):.3f}; truth: mean {truth.mean():.2f}, of the reward model's "
            f"best of {args.n} {best:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
