"""What a reward model of a demo lacks: judges that see only some of a response, and its weights.

    python -m benchmarks.blind runs/demo

First how many of the labelers' pairs (held-out prompts) are ordered rightly by the mean utility
of the group without noise, by the same judge when it does not see what is false or made up, by the
reward model, and by its head and its likelihood alone, if it has one.
Then the reward model's scores, less their mean over the responses to a prompt, regressed on what
the checkers find in them, beside the labelers' own weights; and how many pairs it orders as the
training labelers' mean taste does without noise.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from instil.feedback.simulated import TASTES, TIE, labelers, utility
from instil.jsonl import read_records
from instil.lm.reward import RewardModel, load_reward
from instil.records import Prompt, Ranking, Response
from instil.world.check import Verdict, check
from instil.world.lexicon import make_world

FOUND = ("asked", "false", "made up", "rude", "constraint", "form", "extra", "long")


def found(v: Verdict) -> list[float]:
    """What a regression sees of a verdict, in the order of FOUND."""
    faults = (v.follows, min(2, v.false_claims), min(2, v.made_up), v.rude, v.constraint is False)
    return [*map(float, faults), 1 - v.well_formed, min(3, v.extra), max(0, v.words - 8) / 12]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each split and group, then the weights."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blind", description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--rm", type=Path, help="another reward model than the demo's")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    args = parser.parse_args(argv)
    data, world = args.demo / "data", make_world(args.seed)
    prompts = {p.id: p for p in read_records(data / "prompts.jsonl", Prompt)}
    of_prompt, verdicts, texts = defaultdict(list), {}, {}
    for r in read_records(data / "responses.jsonl", Response):
        if prompts[r.prompt_id].split != "train":
            of_prompt[r.prompt_id].append(r.id)
            verdicts[r.id] = check(world, prompts[r.prompt_id].meta, r.text)
            texts[r.id] = (prompts[r.prompt_id].text, r.text)
    people = {one.id: one for one in labelers(args.seed)}
    scores = _scores(args.rm or args.demo / "rm", texts)
    counts: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for ranking in read_records(data / "rankings.jsonl", Ranking):
        split = prompts[ranking.prompt_id].split
        if split == "train":
            continue
        group = people[ranking.labeler_id].group
        tastes = [one.taste for one in people.values() if one.group == group]
        ranks = ranking.ranks()
        worth = {
            i: [sum(utility(t, v) for t in tastes) for v in (verdicts[i], _blind(verdicts[i]))]
            + [own[i] for own in scores.values()]
            for i in ranks
        }
        for a, b in combinations(ranks, 2):
            if ranks[a] != ranks[b]:
                better, worse = (a, b) if ranks[a] < ranks[b] else (b, a)
                margins = np.subtract(worth[better], worth[worse])
                margins[np.abs(margins) < 1e-9] = 0
                counts[str(split), group].append(tuple(np.heaviside(margins, 0.5)))
    for (split, group), pairs in sorted(counts.items()):
        named = zip(("truth", "without false and made up", *scores), np.mean(pairs, 0), strict=True)
        print(f"{split} {group}:", ", ".join(f"{name} {share:.3f}" for name, share in named))
    _weights(scores["reward model"], of_prompt, verdicts)


def _blind(verdict: Verdict) -> Verdict:
    return replace(verdict, false_claims=0, made_up=0)


def _scores(rm: Path, texts: dict[str, tuple[str, str]]) -> dict[str, dict[str, float]]:
    """What the reward model says of each response, and what its parts say alone."""
    reward, (asked, said) = load_reward(rm), zip(*texts.values(), strict=True)
    assert isinstance(reward, RewardModel)
    found = {"reward model": np.array(reward(asked, said))}
    if reward.likelihood:
        found["head"] = np.array(replace(reward, likelihood=None)(asked, said))
        found["likelihood"] = found["reward model"] - found["head"]
    return {name: dict(zip(texts, each.tolist(), strict=True)) for name, each in found.items()}


def _weights(
    scores: dict[str, float], of_prompt: dict[str, list[str]], verdicts: dict[str, Verdict]
) -> None:
    ids = [i for group in of_prompt.values() for i in group]
    worth = {i: utility(TASTES["training"], verdicts[i]) for i in ids}
    rows = []
    right = []
    for group in of_prompt.values():
        one = np.array([[scores[i], worth[i], *found(verdicts[i])] for i in group])
        rows.append(one - one.mean(axis=0))
        for a, b in combinations(group, 2):
            if abs(margin := worth[a] - worth[b]) >= TIE:
                right.append(margin * (scores[a] - scores[b]) > 0)
    table = np.concatenate(rows)
    for name, column in (("reward model", 0), ("labelers", 1)):
        weights = np.linalg.lstsq(table[:, 2:], table[:, column], rcond=None)[0]
        print(f"{name}:", ", ".join(f"{n} {w:.2f}" for n, w in zip(FOUND, weights, strict=True)))
    print(f"pairs without noise in order: {np.mean(right):.3f} of {len(right)}")


if __name__ == "__main__":
    main()
