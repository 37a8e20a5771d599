"""What a policy of the study is asked, and the best of n for over-optimisation.

`rm_score` is what PPO climbs (the proxy), `gold` the noise-free mean utility of the training
labelers if they missed nothing: what the reward model stands for. Both are means over the responses
at temperature 1 to prompts of held-out users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.evals.policy import Policy, Row, evaluate, row
from instil.evals.preference import Panel, ratings, verdicts
from instil.evals.public import public
from instil.evals.suite import Sizes, kl, tests
from instil.feedback.simulated import truth_judge
from instil.jsonl import write_lines, write_records
from instil.lm.models import load_policy
from instil.lm.reward import load_reward
from instil.lm.sampling import SamplingParams, repeat
from instil.records import Prompt, Response
from instil.stats import best_of_n_kl
from instil.story import Story
from instil.study.plan import Plan

KL_PROMPTS = 128


class Examiner:
    """Asks the policies of one story."""

    def __init__(self, story: Story) -> None:
        self.story = story

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Prompts of users that training never saw."""
        return self.story.eval_prompts()

    @cached_property
    def panels(self) -> dict[str, Panel]:
        """Who judges, by group."""
        story = self.story
        return {"held-out": story.panel(story.held_out), "training": story.panel(story.training)}

    @cached_property
    def reward(self) -> Any:
        """The reward model of the seed."""
        return load_reward(self.story.rm)

    @cached_property
    def reference(self) -> Any:
        """PPO's start, to which the KL is measured."""
        return load_policy(self.story.out / "ppo-init" / "final")

    def ask(self, policy: Policy, few: bool = False) -> dict[str, Any]:
        """Write what a policy answers to the users' prompts, and what it is worth; `few` leaves out
        all evals but the public tasks."""
        story, name = self.story, policy.name
        texts = policy.respond([prompt.text for prompt in self.prompts], 1.0, story.seed)
        rows = ratings(self.panels["held-out"], self.prompts, texts, name)
        rows += verdicts(story.world, self.prompts, texts, name)[0]
        rows += self.scored(self.prompts, texts, name)
        rows += self.evals(policy, few)
        if not policy.prefix:
            rows.append(kl(policy, self.reference, self.prompts[:KL_PROMPTS], story.seed))
        responses = [
            Response(id=f"{prompt.id}-{name}", prompt_id=prompt.id, text=text, policy=name)
            for prompt, text in zip(self.prompts, texts, strict=True)
        ]
        evals = story.out / "evals"
        write_records(evals / f"{name}-responses.jsonl", responses)
        write_lines(evals / f"{name}.jsonl", rows)
        return {}

    def evals(self, policy: Policy, few: bool) -> list[Row]:
        """The evals that need no judge, and the mean over the public tasks."""
        story, size = self.story, self.story.size
        sizes = Sizes(
            truthful=size.truthful,
            hallucination=size.hallucination,
            rudeness=size.rudeness,
            public=size.public,
            language=size.language,
        )
        wanted = public(story.world, size.public, story.seed)
        chosen = wanted if few else tests(story.world, sizes, story.seed)
        rows = [line for test in chosen for line in evaluate(test, policy, story.seed)]
        tasks = [line["mean"] for line in rows if line["eval"].startswith("public/")]
        return [*rows, plain_row("public_mean", policy.name, fmean(tasks))]

    def scored(self, prompts: Sequence[Prompt], texts: Sequence[str], name: str) -> list[Row]:
        """The reward model's score, and what it stands for."""
        scores = self.reward([prompt.text for prompt in prompts], texts)
        golds = self.gold(prompts, texts)
        ids = [prompt.id for prompt in prompts]
        return [
            row("rm_score", name, "", list(zip(ids, scores, strict=True)), "score"),
            row("gold", name, "", list(zip(ids, golds, strict=True)), "score"),
        ]

    def gold(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        """The mean utility of the training labelers without noise, who miss nothing."""
        judge = truth_judge(self.story.training)
        pairs = zip(prompts, texts, strict=True)
        return [judge(self.story.world, prompt, text) for prompt, text in pairs]

    def best_of(self, policy: Policy, plan: Plan) -> dict[str, Any]:
        """Score and gold of the best of n of PPO's start, for every n of the plan."""
        prompts, most = self.prompts[: plan.best_of_prompts], max(plan.best_of)
        ids = [policy.codec.encode_prompt(prompt.text) for prompt in prompts]
        many, indices = repeat(ids, most)
        params = SamplingParams(max_tokens=policy.max_tokens, temperature=1.0)
        samples = policy.sampler.sample(many, params, self.story.seed, indices)
        texts = [policy.codec.decode(tokens) for tokens in samples.tokens]
        asked = [prompt for prompt in prompts for _ in range(most)]
        shape = len(prompts), most
        scores = np.reshape(self.reward([prompt.text for prompt in asked], texts), shape)
        golds = np.reshape(self.gold(asked, texts), shape)
        rows = []
        for n in plan.best_of:
            name = f"best-of-{n}"
            for measure, values in (("rm_score", scores), ("gold", golds)):
                means = best_of_means(scores, values, n)
                pairs = [(p.id, float(mean)) for p, mean in zip(prompts, means, strict=True)]
                rows.append(row(f"best_of_{measure}", name, "", pairs, "score"))
            rows.append(plain_row("best_of_kl", name, best_of_n_kl(n)))
        write_lines(self.story.out / "evals" / "best-of.jsonl", rows)
        return {}


def best_of_means(
    scores: NDArray[np.float64], values: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """The expected value of the sample that scores best among n, over all choices of n of N.

    scores, values  (prompts, N)  of the same samples;  returns (prompts,)

    The i-th lowest score (from 1) is the best of C(i-1, n-1) of the C(N, n) choices  [Nakano et al.
    2021]. Equal scores keep the order of the samples.
    """
    total = scores.shape[1]
    weights = np.array([math.comb(i, n - 1) for i in range(total)], float) / math.comb(total, n)
    order = np.argsort(scores, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1) @ weights


def plain_row(name: str, policy: str, mean: float) -> Row:
    """A line of results.jsonl without an interval of its own."""
    return {"eval": name, "policy": policy, "setting": "", "mean": mean}
