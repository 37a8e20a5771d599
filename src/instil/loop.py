"""The same loop on files of your own: text, demonstrations, comparisons -> an aligned model.

    instil loop --recipe real --text books/*.txt.gz --demonstrations instructions.jsonl \\
        --comparisons train.jsonl --held-out valid.jsonl --out runs/mine

Every step is one of the commands, with its table of the recipe; a step that has nothing to work on
is left out: `--model` instead of `--text` starts from a model that exists, `--reward
module:function` instead of `--comparisons` scores with a function of yours. Files may be in any
format that `instil convert` reads. A second call goes on where the first was stopped; what was
converted, trained and written lies in the folders of `out`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from instil import config as recipes
from instil import convert, report
from instil.errors import InstilError
from instil.evals.policy import Policy, Row, load, row
from instil.evals.suite import kl
from instil.jsonl import read_records, write_lines
from instil.lm.machine import settle
from instil.lm.models import load_policy
from instil.lm.reward import PythonReward, RewardModel, load_reward
from instil.lm.text import Codec
from instil.records import Prompt
from instil.runs import Run, model_dir, read_info, say
from instil.stages import once
from instil.train import ppo, pretrain, rm, sft


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Run the loop on your own files."""

    out: Path
    """Directory of everything; an unfinished loop is resumed."""
    recipe: str
    """Recipe with a table for each step, and [loop]: a file, or the name of a packaged one."""
    model: Path | None = None
    """Model to start from; without one, a model is pretrained on `text`."""
    text: tuple[Path, ...] = ()
    """Plain text: for pretraining, and for PPO-ptx."""
    demonstrations: tuple[Path, ...] = ()
    """Instructions with responses, for SFT; without them PPO starts from the model as it is."""
    comparisons: tuple[Path, ...] = ()
    """Prompts with a chosen and a rejected response, for the reward model."""
    held_out: tuple[Path, ...] = ()
    """Comparisons that only measure the reward model, and give the prompts of the samples."""
    prompts: tuple[Path, ...] = ()
    """Prompts for PPO; those of the comparisons when left out."""
    reward: str = ""
    """A function module:function instead of a reward model."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be converted."""
    seed: int = 0
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        if not (self.model or self.text):
            raise InstilError("give --model, a model to start from, or --text to pretrain one on")
        if not (self.comparisons or self.reward):
            raise InstilError("give --comparisons for a reward model, or --reward module:function")
        if not (self.comparisons or self.prompts):
            raise InstilError("give --prompts: without comparisons there is nothing to ask in PPO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The table [loop] of a recipe."""

    max_tokens: int
    """Longest response."""
    max_prompt_tokens: int
    valid: float = 0.05
    """Share of each file's prompts that is kept for validation; of comparisons only when nothing is
    held out."""
    eval_prompts: int = 64
    """Prompts on which the policies before and after PPO are compared."""
    template: str = ""
    """How a prompt is put, for a model that stores no template of its own."""


def run(config: Config) -> None:
    """Every step that is not done yet, then the report."""
    settle(config.threads)
    threads = torch.get_num_threads()
    with Run.open(config.out, "loop", config, threads=threads, reopen=True) as loop:
        for name, step in Steps(config).all():
            if loop.stop_requested:
                raise KeyboardInterrupt
            once(config.out, name, step)
        loop.finish()
    report.run(report.Config(run=config.out, out=config.out / "report.html"))
    say(f"\nThe report is {config.out / 'report.html'}")


class Steps:
    """The steps, and the files between them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.out, self.data = config.out, config.out / "data"
        self.recipe = recipes.find(config.recipe)
        self.size = recipes.from_recipe(Size, self.recipe, "loop")
        check_inputs(config)

    def all(self) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
        """Name and function of every step that has something to work on."""
        config = self.config
        for name in ("demonstrations", "comparisons", "held-out", "prompts"):
            if files := getattr(config, name.replace("-", "_")):
                yield f"convert {name}", lambda name=name, files=files: self.convert(name, files)  # type: ignore[misc]
        self.kept()  # is there nothing to compare on, better say so before training than after
        if config.model is None:
            yield "pretrain", lambda: self.train(pretrain, "pretrain", "base", text=config.text)
        if config.demonstrations:
            yield (
                "sft",
                lambda: self.train(
                    sft,
                    "sft",
                    "sft",
                    model=self.start,
                    prompts=(self.data / "demonstrations" / "prompts.jsonl",),
                    demonstrations=(self.data / "demonstrations" / "demonstrations.jsonl",),
                    template=self.size.template,
                    max_response_tokens=self.size.max_tokens,
                    max_prompt_tokens=self.size.max_prompt_tokens,
                ),
            )
        if not config.reward:
            yield "rm", self.train_reward
        yield "ppo", self.train_policy
        yield "compare", self.compare

    @property
    def start(self) -> Path:
        """The pretrained model."""
        return self.config.model or self.out / "base"

    @property
    def policy(self) -> Path:
        """Where PPO starts."""
        return self.out / "sft" if self.config.demonstrations else self.start

    def convert(self, name: str, files: tuple[Path, ...]) -> dict[str, Any]:
        """Files of the user's -> records in data/NAME."""
        held_out = name == "held-out"
        all_train = name == "comparisons" and bool(self.config.held_out)
        convert.run(
            convert.Config(
                files=files,
                out=self.data / name,
                bad_rows=self.config.bad_rows,
                split="test" if held_out else "train",
                valid=0.0 if held_out or all_train else self.size.valid,
            )
        )
        return {}

    def train(self, command: Any, table: str, name: str, **given: Any) -> dict[str, Any]:
        """One training command; a run that is finished is only read."""
        out = self.out / name
        if not (out / "run.json").exists() or read_info(out)["status"] != "finished":
            fields = {"seed": self.config.seed, **given}
            command.run(recipes.from_recipe(command.Config, self.recipe, table, out=out, **fields))
        info = read_info(out)
        return {key: info[key] for key in ("params", "tokens", "flops") if key in info}

    def train_reward(self) -> dict[str, Any]:
        """Comparisons -> reward model; the chosen responses of SFT centre it, if there are any."""
        # a prompt's first split counts, so what is held out stays so if it is also in comparisons
        names = ("held-out", "comparisons") if self.config.held_out else ("comparisons",)
        asked = (*names, "demonstrations") if self.config.demonstrations else names
        shown = ("demonstrations",) if self.config.demonstrations else ()
        return self.train(
            rm,
            "rm",
            "rm",
            model=self.policy,
            prompts=tuple(self.data / name / "prompts.jsonl" for name in asked),
            responses=tuple(self.data / name / "responses.jsonl" for name in names),
            rankings=tuple(self.data / name / "rankings.jsonl" for name in names),
            demonstrations=tuple(self.data / name / "demonstrations.jsonl" for name in shown),
            template=self.size.template,
            max_tokens=self.size.max_prompt_tokens + self.size.max_tokens,
        )

    def train_policy(self) -> dict[str, Any]:
        """PPO, or PPO-ptx when the recipe's ptx_coef is not 0."""
        asked = "prompts" if self.config.prompts else "comparisons"
        return self.train(
            ppo,
            "ppo",
            "ppo",
            model=self.policy,
            rm=self.config.reward or str(self.out / "rm"),
            prompts=(self.data / asked / "prompts.jsonl",),
            pretraining=self.config.text,
            max_tokens=self.size.max_tokens,
            max_prompt_tokens=self.size.max_prompt_tokens,
            template=self.size.template,
        )

    def compare(self) -> dict[str, Any]:
        """The same prompts, that no step was trained on, answered before and after PPO."""
        reward = load_reward(self.config.reward or self.out / "rm")
        before, after = "sft" if self.config.demonstrations else "base", "ppo"
        policies = [self.answerer(before, self.policy), self.answerer(after, self.out / "ppo")]
        prompts = self.unseen(policies[0].codec)
        rows: list[Row] = []
        answers = {}
        reference = load_policy(model_dir(self.policy))
        for policy in policies:
            texts = policy.respond([p.text for p in prompts], 1.0, self.config.seed)
            answers[policy.name] = texts
            rows += measure(policy.name, prompts, texts, reward)
            rows.append(kl(policy, reference, prompts, self.config.seed))
        samples = [
            {
                "prompt": prompt.text,
                "use_case": prompt.use_case,
                "split": prompt.split,
                "responses": {name: texts[i] for name, texts in answers.items()},
                "flags": {},
            }
            for i, prompt in enumerate(prompts[:24])
        ]
        write_lines(self.out / "evals" / "results.jsonl", rows)
        write_lines(self.out / "evals" / "samples.jsonl", samples)
        return {}

    def answerer(self, name: str, path: Path) -> Policy:
        """A model, ready to answer."""
        return load(name, path, self.size.max_tokens, self.size.template)

    def asked(self, name: str) -> list[Prompt]:
        """The prompts of data/NAME."""
        return read_records(self.data / name / "prompts.jsonl", Prompt)

    def kept(self) -> list[Prompt]:
        """Prompts that no step is trained on: held-out ones, else those kept for validation."""
        config = self.config
        name = "held-out" if config.held_out else "prompts" if config.prompts else ""
        if not name:
            name = "demonstrations" if config.demonstrations else "comparisons"
        given = [n for n in ("demonstrations", "comparisons", "prompts") if getattr(config, n)]
        trained = {p.id for other in given for p in self.asked(other) if p.split == "train"}
        kept = [prompt for prompt in self.asked(name) if prompt.id not in trained]
        if not kept:
            raise InstilError(
                f"{self.data / name}: no prompt is left to compare on; give --held-out"
            )
        return kept

    def unseen(self, codec: Codec) -> list[Prompt]:
        """The kept prompts that are short enough, as many as the recipe wants."""
        longest = self.size.max_prompt_tokens
        prompts = [p for p in self.kept() if len(codec.encode_prompt(p.text)) <= longest]
        if not prompts:
            raise InstilError(
                f"{self.out}: every prompt to compare on has over max_prompt_tokens {longest}; "
                "raise it in [loop] of the recipe"
            )
        return prompts[: self.size.eval_prompts]


def check_inputs(config: Config) -> None:
    """Say now, not after hours of training, that a file or function is not there."""
    for field in ("text", "demonstrations", "comparisons", "held_out", "prompts"):
        for path in getattr(config, field):
            if not path.is_file():
                raise InstilError(f"--{field.replace('_', '-')} {path}: no such file")
    if config.model is not None and not config.model.is_dir():
        raise InstilError(f"--model {config.model}: no such directory")
    if config.reward:
        load_reward(config.reward)


def measure(
    policy: str, prompts: list[Prompt], texts: list[str], reward: RewardModel | PythonReward
) -> list[Row]:
    """Score and length of the responses."""
    scores = reward([prompt.text for prompt in prompts], texts)
    ids = [prompt.id for prompt in prompts]
    words = [float(len(text.split())) for text in texts]
    return [
        row("rm_score", policy, "", list(zip(ids, scores, strict=True)), "score"),
        row("length", policy, "", list(zip(ids, words, strict=True)), "words"),
    ]
