"""Whether models know what a text leaves open, and what they make up, task by task.

    python -m benchmarks.open_questions runs/demo base ppo-init sft ppo ppo-ptx

For each model: how often "not in the text" is likelier after a question that the prompt's text
leaves open than after one that it answers (0.5 is chance), in training and in test wordings; then
the share of answers that make something up and the share that do as asked, for each kind of closed
task at T = 1 and T = 0, on the held-out prompts of the evaluation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import PreTrainedModel

from instil.evals.hallucination import hallucination
from instil.lm.batches import text_batch
from instil.lm.models import load_policy, logprobs
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.text import Codec
from instil.runs import model_dir
from instil.world import grammar
from instil.world.lexicon import make_world
from instil.world.tasks import make_task

AT_ONCE = 50


def main(argv: Sequence[str] | None = None) -> None:
    """Print a few lines for each model."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.open_questions", description=__doc__
    )
    parser.add_argument("demo", type=Path)
    parser.add_argument("models", nargs="+", help="runs of the demo, or paths")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    world = make_world(args.seed)
    closed = hallucination(world, args.prompts, args.seed)
    for name in args.models:
        path = args.demo / name
        path = model_dir(path if path.is_dir() else Path(name))
        codec, policy = Codec.load(path), load_policy(path)
        for split in ("train", "test"):
            rng, found = Random(args.seed), []
            for task in ("closed_qa", "closed_unanswerable"):
                asked = [make_task(world, task, split, rng)[0] for _ in range(args.prompts)]
                found.append(np.logaddexp.reduce(_declines(policy, codec, asked), axis=1))
            told, left_open = found
            above = (left_open[:, None] > told).mean()
            print(
                f"{name:12} {split:5} wordings: {above:.3f}; probability of it after an open "
                f"question {np.exp(left_open).mean():.2f}, after an answered one "
                f"{np.exp(told).mean():.2f}"
            )
        decoder = Decoder(policy, codec)
        ids = [codec.encode_prompt(question.text) for question in closed.questions]
        for temperature in (1.0, 0.0):
            params = SamplingParams(max_tokens=48, temperature=temperature)
            grades = defaultdict(list)
            for question, tokens in zip(
                closed.questions, decoder.sample(ids, params, seed=0).tokens, strict=True
            ):
                grade = list(closed.grade(question, codec.decode(tokens)).values())
                for kind in (question.meta["task"], "all"):
                    grades[kind].append(grade)
            shares = {kind: np.mean(rows, axis=0) for kind, rows in sorted(grades.items())}
            each = "  ".join(f"{kind} {a:.2f} ({b:.2f})" for kind, (a, b) in shares.items())
            print(f"{name:12} T={temperature:.0f} made up (as asked): {each}", flush=True)


@torch.no_grad()
def _declines(policy: PreTrainedModel, codec: Codec, prompts: list[str]) -> np.ndarray:
    """Log-probabilities (prompts, phrases) of the phrases that say that the text does not tell."""
    columns = []
    for phrase in grammar.PHRASES["not_in_text"]:
        said = [token for token in codec.encode_response(phrase) if token != codec.eos_id]
        examples = [(codec.encode_prompt(prompt), said) for prompt in prompts]
        found = []
        for at in range(0, len(examples), AT_ONCE):
            batch = text_batch(examples[at : at + AT_ONCE], codec.pad_id)
            sums = logprobs(policy, batch.tokens, batch.mask, batch.loss_mask).sum(dim=1)
            found += sums.tolist()
        columns.append(found)
    return np.array(columns).T


if __name__ == "__main__":
    main()
