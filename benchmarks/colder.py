"""How much of what PPO gains is only being surer: policies at several temperatures, over SFT at 1.

    python -m benchmarks.colder runs/demo ppo-init=1 ppo-init=0.3 sft=0.3 ppo=1 ppo-ptx=1

The prompts and the held-out labelers are those of the demo's own comparison; so is SFT's side of
it. Beside the win rate stands the share that did what was asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from instil.config import find
from instil.evals.preference import verdicts, win_rate
from instil.story import Story


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each policy and temperature."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.colder", description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("policies", nargs="+", help="run=temperature")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    story = Story(args.demo, find("demo"), args.seed)
    prompts = story.eval_prompts()
    texts = [prompt.text for prompt in prompts]
    panel = story.panel(story.held_out)
    theirs = story.policy("sft").respond(texts, 1.0, args.seed)
    for one in args.policies:
        name, _, temperature = one.partition("=")
        ours = story.policy(name).respond(texts, float(temperature), args.seed)
        won = win_rate(panel, prompts, ours, theirs, name, "win_rate", "held-out")
        asked = verdicts(story.world, prompts, ours, name)[0][0]
        print(
            f"{name:9} T={float(temperature):.1f} over SFT {won['mean']:.3f} "
            f"[{won['low']:.3f}, {won['high']:.3f}], done as asked {asked['mean']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
