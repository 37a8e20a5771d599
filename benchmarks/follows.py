"""Which share of prompts of the embedded world models do as asked, by split and temperature.

    python -m benchmarks.follows runs/demo base ppo-init sft ppo-ptx
    python -m benchmarks.follows runs/demo path/to/another/run

Validation prompts are of other users but in the wordings of training; test prompts have wordings,
names and facts that alignment training never saw.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from instil.jsonl import read_records
from instil.lm.models import load_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.text import Codec
from instil.records import Prompt
from instil.runs import model_dir
from instil.world.check import check
from instil.world.lexicon import make_world


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.follows", description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("models", nargs="+", help="runs of the demo, or paths")
    parser.add_argument("--prompts", type=int, default=300, help="of each split")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    world = make_world(args.seed)
    prompts = list(read_records(args.demo / "data" / "prompts.jsonl", Prompt))
    for name in args.models:
        path = args.demo / name
        path = model_dir(path if path.is_dir() else Path(name))
        codec = Codec.load(path)
        decoder = Decoder(load_policy(path), codec)
        shares = []
        for split in ("test", "valid", "train"):
            asked = [prompt for prompt in prompts if prompt.split == split][: args.prompts]
            ids = [codec.encode_prompt(prompt.text) for prompt in asked]
            for temperature in (1.0, 0.0):
                params = SamplingParams(max_tokens=48, temperature=temperature)
                found = decoder.sample(ids, params, seed=0).tokens
                follows = [
                    check(world, prompt.meta, codec.decode(tokens)).follows
                    for prompt, tokens in zip(asked, found, strict=True)
                ]
                shares.append(f"{split} T={temperature:.0f} {sum(follows) / len(follows):.2f}")
        print(f"{name:20} {'  '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
