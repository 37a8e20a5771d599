"""What happens in the demo and, at several sizes, in the study: the paper's steps on one world.

Every stage is one of the commands, on files that can be opened. The order differs from the paper's
in one thing: the SFT baseline is trained after the reward model, because the reward model chooses
its checkpoint (appendix C.1). PPO starts from a model of its own (appendix C.3), which is also the
one whose responses are ranked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from instil import config as recipes
from instil import intake
from instil.evals.policy import Policy, estimate_row, load
from instil.evals.preference import Panel
from instil.evals.suite import Asked, Sizes, ask, compare, kl
from instil.feedback import ask as labels
from instil.feedback.simulated import SimulatedLabeler, labelers
from instil.jsonl import read_records, write_lines, write_records
from instil.lm.machine import give_back
from instil.lm.models import load_policy
from instil.lm.reward import load_reward
from instil.lm.sampling import SamplingParams
from instil.processes import Processes
from instil.records import Demonstration, Labeler, Prompt, Ranking, Response, Text
from instil.runs import write_json
from instil.stages import Stage
from instil.stats import best_of_n_kl
from instil.train import ppo, pretrain, rm, sft
from instil.world.internet import documents
from instil.world.lexicon import World, make_world
from instil.world.users import raw_prompts

POLICIES = ("base", "base-prompted", "sft", "best-of-16", "ppo", "ppo-ptx")
"""Whatever is evaluated."""
KL_PROMPTS = 128
"""On which it is measured how far policies are from PPO's start."""
TOGETHER = 8000
"""Responses that one process writes at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The table [demo] of a recipe: how much of everything."""

    documents: int
    raw_prompts: int
    users: int
    demonstrations: int
    """Prompts of the training split that get one."""
    rankings: int
    """Prompts of the training split that are ranked."""
    eval_rankings: int
    """Prompts of the validation split, and of the test split, that several labelers rank."""
    overlap: int
    """Labelers of each group that rank them."""
    eval_prompts: int
    """Prompts of the test split on which policies are compared."""
    max_tokens: int
    """Longest response."""
    likelihood: bool = False
    """Whether the reward model has the likelihood of PPO's start in its score."""
    best_of: int = 16
    per_prompt: int = 3
    """Labelers who judge each comparison."""
    truthful: int = 300
    hallucination: int = 300
    rudeness: int = 200
    public: int = 200
    language: int = 100


class Story:
    """The stages, and what they share: one world, its people, the recipe. Pickled, as it is for
    another process, it is what it was made from."""

    def __init__(
        self,
        out: Path,
        recipe: Path,
        seed: int,
        rm: Path | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes(1)
        self.out, self.recipe, self.seed = out, recipe, seed
        self.data, self.rm = out / "data", rm or out / "rm"
        self.size = recipes.from_recipe(Size, recipe, "demo")
        self.world: World = make_world(seed)
        everybody = labelers(seed)
        self.training = [one for one in everybody if one.group == "training"]
        self.held_out = [one for one in everybody if one.group == "held-out"]

    def __reduce__(self) -> tuple[type[Story], tuple[Path, Path, int, Path]]:
        return Story, (self.out, self.recipe, self.seed, self.rm)

    def stages(self) -> Iterator[Mapping[str, Stage]]:
        """Stages by name, in order; those that stand together do not need each other."""
        text = {"text": (self.data / "text.jsonl",)}
        yield {"world": self.write_world}
        yield {"intake": self.clean_prompts}
        yield {"pretrain": lambda: self.train(pretrain, "pretrain", "base", **text)}
        yield {"demonstrations": self.ask_demonstrations}
        start = {"model": self.out / "base"}
        yield {
            "ppo-init": lambda: self.train(
                sft, "ppo-init", "ppo-init", **start, **self.sft_data(mixed=True)
            )
        }
        yield {"responses": self.sample_responses}
        yield {"rankings": self.ask_rankings}
        yield {"rm": lambda: self.train(rm, "rm", "rm", **self.rm_data())}
        give_back()  # policies are trained in other processes: they may want the memory
        yield {name: partial(self.train_policy, name) for name in ("ppo-ptx", "sft", "ppo")}
        yield {"evaluate": self.evaluate}

    def train_policy(self, name: str) -> dict[str, Any]:
        """The stages that need the reward model, and not each other."""
        if name == "sft":
            start = {"model": self.out / "base", "rm": self.rm}
            return self.train(sft, name, name, **start, **self.sft_data())
        return self.train(ppo, name, name, **self.ppo_data())

    @property
    def prompts_file(self) -> tuple[Path]:
        """The clean prompts."""
        return (self.data / "prompts.jsonl",)

    def sft_data(self, mixed: bool = False) -> dict[str, Any]:
        """What both supervised stages read."""
        return {
            "prompts": self.prompts_file,
            "demonstrations": (self.data / "demonstrations.jsonl",),
            "pretraining": (self.data / "text.jsonl",) if mixed else (),
            "max_response_tokens": self.size.max_tokens,
        }

    def rm_data(self) -> dict[str, Any]:
        """What the reward model starts from and reads."""
        return {
            "model": self.out / "ppo-init",
            "likelihood": self.out / "ppo-init" if self.size.likelihood else None,
            "prompts": self.prompts_file,
            **{
                name: (self.data / f"{name}.jsonl",)
                for name in ("responses", "rankings", "demonstrations", "labelers")
            },
        }

    def ppo_data(self) -> dict[str, Any]:
        """What both kinds of PPO start from and read."""
        return {
            "model": self.out / "ppo-init",
            "rm": str(self.rm),
            "prompts": self.prompts_file,
            "pretraining": (self.data / "text.jsonl",),
            "max_tokens": self.size.max_tokens,
        }

    def write_world(self) -> dict[str, Any]:
        """Pretraining text and the users' raw log."""
        texts = itertools.islice(documents(self.world, Random(self.seed)), self.size.documents)
        write_records(self.data / "text.jsonl", (Text(text=text) for text in texts))
        settings = self.intake_config()

        def split_of(user: str) -> str:
            return intake.split_of_user(user, settings.seed, settings.valid, settings.test)

        raw = raw_prompts(self.world, self.size.raw_prompts, self.size.users, self.seed, split_of)
        write_lines(self.data / "raw.jsonl", raw)
        return {}

    def intake_config(self) -> intake.Config:
        """How the demo cleans: the world's prompts are short, so prefixes are too."""
        return recipes.from_recipe(
            intake.Config, self.recipe, "intake", raw=self.data / "raw.jsonl", out=self.data
        )

    def clean_prompts(self) -> dict[str, Any]:
        """Raw log -> prompts.jsonl."""
        intake.run(self.intake_config())
        return {}

    def train(self, command: Any, table: str, name: str, **given: Any) -> dict[str, Any]:
        """One training command; a run that is finished is only read."""
        out = self.out / name
        info = json.loads((out / "run.json").read_text()) if (out / "run.json").exists() else {}
        if info.get("status") != "finished":
            fields = {"seed": self.seed, **given}
            command.run(recipes.from_recipe(command.Config, self.recipe, table, out=out, **fields))
            info = json.loads((out / "run.json").read_text())
        return {key: info[key] for key in ("params", "tokens", "flops") if key in info}

    def prompts(self, split: str) -> list[Prompt]:
        """Clean prompts of one split."""
        return [p for p in read_records(self.prompts_file[0], Prompt) if p.split == split]

    def ask_demonstrations(self) -> dict[str, Any]:
        """Labelers answer prompts of the training and of the validation split."""
        chosen = self.prompts("train")[: self.size.demonstrations] + self.prompts("valid")
        found = labels.demonstrations(self.world, self.training, chosen, self.seed)
        write_records(self.data / "demonstrations.jsonl", found)
        everybody = self.training + self.held_out
        write_records(self.data / "labelers.jsonl", (one.record() for one in everybody))
        return {}

    def policy(self, name: str, run: str = "", **more: Any) -> Policy:
        """A trained policy, ready to answer."""
        return load(name, self.out / (run or name), self.size.max_tokens, **more)

    def ranked_prompts(self) -> dict[str, list[Prompt]]:
        """Which prompts are ranked, by split."""
        few = self.size.eval_rankings
        return {
            "train": self.prompts("train")[-self.size.rankings :],
            "valid": self.prompts("valid")[:few],
            "test": self.prompts("test")[:few],
        }

    def sample_responses(self) -> dict[str, Any]:
        """K responses to each prompt that will be ranked: three of four by PPO's start, the rest
        by the base model."""
        parts: dict[str, list[tuple[Prompt, int]]] = {"ppo-init": [], "base": []}
        for prompt in itertools.chain(*self.ranked_prompts().values()):
            rng = Random(f"writers {self.seed} {prompt.id}")
            for number in range(labels.how_many(prompt.id, self.seed)):
                parts["base" if rng.random() < 0.25 else "ppo-init"].append((prompt, number))
        asked = [
            (name, places[at : at + TOGETHER])
            for name, places in parts.items()
            for at in range(0, len(places), TOGETHER)
        ]
        found = self.processes.map(self._respond, asked)
        responses = sorted(itertools.chain(*found), key=lambda response: response.id)
        write_records(self.data / "responses.jsonl", responses)
        tokens = sum(len(r.text.split()) for r in responses)
        return {"tokens": tokens, "peak_mb": self.processes.peak_mb()}

    def _respond(self, asked: tuple[str, list[tuple[Prompt, int]]]) -> list[Response]:
        name, places = asked
        policy = self.policy(name)
        ids = [policy.codec.encode_prompt(prompt.text) for prompt, _ in places]
        params = SamplingParams(max_tokens=policy.max_tokens, temperature=1.0)
        samples = policy.sampler.sample(ids, params, self.seed, [number for _, number in places])
        return [
            Response(
                id=f"{prompt.id}-{number}",
                prompt_id=prompt.id,
                text=policy.codec.decode(tokens),
                policy=name,
                sampling={"temperature": 1.0, "seed": self.seed},
            )
            for (prompt, number), tokens in zip(places, samples.tokens, strict=True)
        ]

    def ask_rankings(self) -> dict[str, Any]:
        """Training labelers rank every prompt, held-out labelers only those that evaluate."""
        responses: dict[str, list[Response]] = {}
        for response in read_records(self.data / "responses.jsonl", Response):
            responses.setdefault(response.prompt_id, []).append(response)
        prompts, overlap = self.ranked_prompts(), self.size.overlap
        known = prompts["valid"] + prompts["test"]
        ours, rated = self._rank(self.training, prompts["train"], responses, 1)
        shared, more = self._rank(self.training, known, responses, overlap)
        theirs, extra = self._rank(self.held_out, known, responses, overlap)
        write_records(self.data / "rankings.jsonl", ours + shared + theirs)
        write_records(self.data / "ratings.jsonl", rated + more + extra)
        measured = {
            "training": asdict(labels.agreement_of(shared)),
            "held-out": asdict(labels.agreement_of(theirs)),
            "between": asdict(labels.between(shared, theirs)),
        }
        write_json(self.data / "agreement.json", measured)
        return {}

    def _rank(
        self,
        group: Sequence[SimulatedLabeler],
        prompts: Sequence[Prompt],
        responses: dict[str, list[Response]],
        overlap: int,
    ) -> tuple[list[Ranking], list[Any]]:
        return labels.rankings(self.world, group, prompts, responses, overlap, self.seed)

    def prefix(self) -> str:
        """Solved examples before a prompt: what turns GPT-3 into "GPT-3 prompted"."""
        texts = {p.id: p.text for p in self.prompts("train")}
        shown = []
        for one in read_records(self.data / "demonstrations.jsonl", Demonstration):
            if one.prompt_id in texts and len(one.text) < 60:
                shown.append(f"{texts[one.prompt_id]}\n\n{one.text}\n\n")
            if len(shown) == 3:
                break
        return "".join(shown)

    @property
    def sizes(self) -> Sizes:
        """How many questions each evaluation asks."""
        names = ("truthful", "hallucination", "rudeness", "public", "language")
        return Sizes(**{name: getattr(self.size, name) for name in names})

    def eval_prompts(self) -> list[Prompt]:
        """Prompts of users that training never saw, on which policies are compared."""
        return self.prompts("test")[-self.size.eval_prompts :]

    def panel(self, people: Sequence[SimulatedLabeler]) -> Panel:
        """Labelers who judge."""
        return Panel(self.world, people, self.size.per_prompt, self.seed)

    def evaluate(self) -> dict[str, Any]:
        """Ask every policy everything, and compare them."""
        long_first = sorted(POLICIES, key=lambda name: name != "best-of-16")
        asked = {one.name: one for one in self.processes.map(self.ask, long_first)}
        panels = {"held-out": self.panel(self.held_out), "training": self.panel(self.training)}
        rows, samples = compare(
            [asked[name] for name in POLICIES], self.eval_prompts(), panels, self.sizes
        )
        write_lines(self.out / "evals" / "results.jsonl", rows + self.ceilings())
        write_lines(self.out / "evals" / "samples.jsonl", samples)
        return {"peak_mb": self.processes.peak_mb()}

    def ask(self, name: str) -> Asked:
        """Ask one policy everything; how far it is from PPO's start is among it."""
        best_of = self.size.best_of
        if name == "base-prompted":
            policy = self.policy(name, "base", prefix=self.prefix())
        elif name == "best-of-16":
            policy = self.policy(name, "sft", best_of=best_of, reward=load_reward(self.rm))
        else:
            policy = self.policy(name)
        prompts, seed = self.eval_prompts(), self.seed
        asked = ask(self.world, policy, prompts, self.panel(self.held_out), self.sizes, seed)
        if policy.best_of > 1:
            far = {"eval": "kl", "policy": name, "setting": "sft", "unit": "nats"}
            asked.rows.append({**far, "mean": best_of_n_kl(best_of), "n": best_of})
        elif not policy.prefix:
            reference = load_policy(self.out / "ppo-init" / "final")
            asked.rows.append(kl(policy, reference, prompts[:KL_PROMPTS], seed))
        return asked

    def ceilings(self) -> list[dict[str, Any]]:
        """The reward model's accuracy beside that of a judge that knows the truth."""
        prompts = {p.id: p for p in itertools.chain(*self.ranked_prompts().values())}
        responses = {r.id: r for r in read_records(self.data / "responses.jsonl", Response)}
        groups = {one.id: one.group for one in read_records(self.data / "labelers.jsonl", Labeler)}
        by_kind: dict[tuple[str, str], list[Ranking]] = {}
        for ranking in read_records(self.data / "rankings.jsonl", Ranking):
            kind = (prompts[ranking.prompt_id].split, groups[ranking.labeler_id])
            by_kind.setdefault(kind, []).append(ranking)
        people = {"training": self.training, "held-out": self.held_out}
        return [
            estimate_row(
                "rm_ceiling",
                "truth",
                f"{split} {group}",
                labels.ceiling(self.world, people[group], prompts, responses, found),
                "share",
            )
            for (split, group), found in sorted(by_kind.items())
        ]
