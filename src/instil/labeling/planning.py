"""What a batch is to be, and what the files of a lead make of it. Nothing here knows a database.

Files are read twice: here, to choose, when only prompts are held in memory; and when the chosen
responses are stored. What is left out is counted by reason.

  training     takes prompts of split train (or none), of valid if asked, never of test
  evaluation   takes prompts of splits test and valid, never of train
  gold, screening   take any
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple, get_args

from instil.errors import InstilError, nearest, one_line
from instil.jsonl import content_id, iter_lines, iter_records
from instil.labeling.blind import names_author
from instil.records import Demonstration, Kind, Prompt, Purpose, Response, Split

FEWEST, EXPECTED, MOST = 2, 4, 9
"""Responses of a task: at least 2, and 4 to 9 for training (Ouyang et al. 2022, section 3.5)."""
LONGEST = 4 * 1024 * 1024
"""Bytes of a record: nobody reads a longer text, and no file of one line may fill the memory."""
MOST_LABELS, MOST_WRITTEN = 100, 100_000
"""Labels of a task from one pool, prompts to write in a batch: more is a slip of the keyboard."""
COMPARES: tuple[Kind, ...] = ("ranking", "toxicity")
"""The kinds of work that show responses."""
SPLITS = {"training": ("", "train"), "evaluation": ("valid", "test")}
OF_A_LABELER = "demonstration"
"""The policy of responses that labelers wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch is to be."""

    name: str
    kind: Kind
    purpose: Purpose = "training"
    quota_training: int = 1
    """Labels wanted of each task from training labelers."""
    quota_held_out: int = 0
    """Labels wanted of each task from held-out labelers; evaluations only."""
    baseline: str = ""
    """Policy that win rates are against; a task without a response of it is left out."""
    responses_per_task: int = MOST
    """Responses of a task at most, taken from its policies in turn."""
    word_budget: int = 0
    """Words of responses that a task may hold: K becomes 4 to 9 by it; 0 is no budget."""
    with_valid: bool = False
    """Let prompts of split valid into a training batch too."""
    tasks: int = 0
    """Prompts that labelers are to write; kind prompt only."""
    priority: int = 0
    """Tasks of a lower number are handed out first."""

    def __post_init__(self) -> None:
        if not self.name.strip() or "\0" in self.name:
            raise InstilError("name: is empty or has a NUL character; name the batch")
        if self.kind not in get_args(Kind) or self.purpose not in get_args(Purpose):
            raise InstilError(
                f"kind {self.kind!r} is one of {', '.join(get_args(Kind))}; "
                f"purpose {self.purpose!r} one of {', '.join(get_args(Purpose))}"
            )
        if min(self.quota_training, self.quota_held_out) < 0:
            raise InstilError("quotas are 0 or more")
        if self.purpose in SPLITS and not self.quota_training + self.quota_held_out:
            raise InstilError("both quotas are 0: no label is wanted; set one to 1 or more")
        if self.purpose == "training" and self.quota_held_out:
            raise InstilError(
                f"quota_held_out {self.quota_held_out}: held-out labelers never label for "
                "training; set it to 0, or the purpose to evaluation"
            )
        if not FEWEST <= self.responses_per_task <= MOST or self.word_budget < 0:
            raise InstilError(
                f"responses_per_task {self.responses_per_task} is {FEWEST} to {MOST}, "
                f"word_budget {self.word_budget} 0 or more"
            )
        if (self.kind == "prompt") != (self.tasks > 0):
            raise InstilError(
                f"tasks {self.tasks}: how many prompts labelers are to write, for kind prompt; "
                "0 for the other kinds"
            )
        without = {"gold": ("prompt", "demonstration"), "screening": ("prompt",)}
        if self.kind in without.get(self.purpose, ()):
            raise InstilError(f"kind {self.kind} has no key; purpose {self.purpose} needs one")
        if max(self.quota_training, self.quota_held_out) > MOST_LABELS:
            raise InstilError(f"quotas are at most {MOST_LABELS} labels of each task")
        if self.tasks > MOST_WRITTEN or abs(self.priority) > MOST_WRITTEN:
            raise InstilError(
                f"tasks {self.tasks} and priority {self.priority}: neither goes beyond "
                f"{MOST_WRITTEN:,}; start several batches"
            )


class Answer(NamedTuple):
    """A response, known by everything but its text."""

    id: str
    policy: str
    words: int
    digest: bytes
    named: bool
    """Whether the text says which model wrote it."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the files hold for a batch."""

    prompts: Mapping[str, Prompt]
    """By id; those of the tasks and at times more."""
    tasks: Mapping[str, Sequence[Answer]]
    """Prompt id -> the responses to be shown; none for kinds of work that show none."""
    left_out: Mapping[str, int]
    """Reason -> prompts or responses."""


def read(plan: Plan, prompts: Path | None, responses: Sequence[Path]) -> Content:
    """What the files hold for this batch. The first bad line is an InstilError that names it."""
    _check_files(plan, prompts, responses)
    left_out: Counter[str] = Counter()
    found = _asked(plan, prompts, left_out)
    asked = {prompt_id: prompt for prompt_id, prompt in found.items() if prompt}
    tasks: Mapping[str, Sequence[Answer]] = dict.fromkeys(asked, ())
    if plan.kind in COMPARES:
        tasks = _chosen(plan, _answers(plan, found, prompts, responses), left_out)
    if not tasks and not plan.tasks:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in left_out.items())
        raise InstilError(f"{prompts}: nothing is left for a batch ({reasons or 'no prompts'})")
    return Content(asked, tasks, dict(left_out))


def responses_in(path: Path) -> Iterator[tuple[Response, str | None]]:
    """The responses in a file, and the labeler who wrote each, for demonstrations."""
    _, first = next(iter_lines(path, LONGEST), (0, b""))
    if str(Demonstration.__struct_config__.tag).encode() not in first:
        for response in iter_records(path, Response, LONGEST):
            yield response, None
        return
    for d in iter_records(path, Demonstration, LONGEST):
        made = content_id("r", d.prompt_id, d.labeler_id, d.text)
        response = Response(id=made, prompt_id=d.prompt_id, text=d.text, policy=OF_A_LABELER)
        yield response, d.labeler_id


def content_hash(plan: Plan, content: Content) -> str:
    """SHA-256 of what labelers are asked. The name counts only where there is nothing else."""
    name = plan.name if plan.kind == "prompt" else ""
    wanted = (plan.kind, plan.purpose, plan.quota_training, plan.quota_held_out, plan.baseline)
    found = hashlib.sha256(repr((wanted, plan.tasks, name)).encode())
    for prompt_id in sorted(content.tasks):
        shown = sorted((answer.id, answer.digest) for answer in content.tasks[prompt_id])
        text = digest(content.prompts[prompt_id].text)
        found.update(repr((prompt_id, text, shown)).encode())
    return found.hexdigest()


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check_files(plan: Plan, prompts: Path | None, responses: Sequence[Path]) -> None:
    if (prompts is None) != (plan.kind == "prompt"):
        wants = "no file of prompts" if prompts else "a file of prompts"
        raise InstilError(f"a batch of kind {plan.kind} takes {wants}")
    if bool(responses) != (plan.kind in COMPARES):
        wants = "no responses" if responses else "a file of responses or more"
        raise InstilError(f"a batch of kind {plan.kind} takes {wants}")


def _asked(plan: Plan, path: Path | None, left_out: Counter[str]) -> dict[str, Prompt | None]:
    """The prompts in the file; None for those of a split that the purpose does not allow."""
    if path is None:
        return {}
    splits = SPLITS.get(plan.purpose, get_args(Split))
    if plan.with_valid:
        splits = (*splits, "valid")
    asked: dict[str, Prompt | None] = {}
    for place, prompt in enumerate(iter_records(path, Prompt, LONGEST)):
        _refuse_nul(prompt, path, place)
        if prompt.id in asked:
            raise InstilError(
                f"{_where(path, place)}: id: prompt {one_line(prompt.id, 80)!r} occurs twice"
            )
        asked[prompt.id] = prompt if prompt.split in splits else None
        if prompt.split not in splits:
            left_out[f"prompts of split {prompt.split or 'train'}"] += 1
    return asked


def _answers(
    plan: Plan, asked: Mapping[str, Prompt | None], prompts: Path | None, paths: Sequence[Path]
) -> dict[str, list[Answer]]:
    """Prompt id -> the responses to it, in the order of the files."""
    answers: dict[str, list[Answer]] = {i: [] for i, prompt in asked.items() if prompt}
    seen: set[str] = set()
    policies: set[str] = set()
    for path in paths:
        for place, (response, _) in enumerate(responses_in(path)):
            _refuse_nul(response, path, place)
            if response.id in seen:
                raise InstilError(
                    f"{_where(path, place)}: id: response {one_line(response.id, 80)!r} occurs "
                    "twice"
                )
            if response.prompt_id not in asked:
                raise InstilError(
                    f"{_where(path, place)}: prompt_id: {one_line(response.prompt_id, 80)!r} is "
                    f"not in {prompts}"
                )
            if plan.purpose == "evaluation" and not response.policy:
                raise InstilError(
                    f"{_where(path, place)}: policy: is empty; an evaluation compares policies"
                )
            seen.add(response.id)
            policies.add(response.policy)
            if response.prompt_id in answers:
                answers[response.prompt_id].append(
                    Answer(
                        id=response.id,
                        policy=response.policy,
                        words=len(response.text.split()),
                        digest=digest(response.text),
                        named=bool(names_author(response.text)),
                    )
                )
    if plan.baseline and plan.baseline not in policies:
        raise InstilError(
            f"baseline {plan.baseline!r} wrote none of the responses"
            + nearest(plan.baseline, policies)
        )
    return answers


def _chosen(
    plan: Plan, answers: Mapping[str, list[Answer]], left_out: Counter[str]
) -> dict[str, list[Answer]]:
    """The responses of each task: one of each policy in turn, that of the baseline first."""
    chosen = {}
    # one card makes no pair to train on; in an evaluation it is a tie
    alike = plan.kind == "ranking" and plan.purpose == "training"
    for prompt_id, found in answers.items():
        if len(found) < FEWEST:
            left_out[f"prompts with fewer than {FEWEST} responses"] += 1
            continue
        turns: dict[str, list[Answer]] = {plan.baseline: []} if plan.baseline else {}
        for answer in found:
            turns.setdefault(answer.policy, []).append(answer)
        if plan.baseline and not turns[plan.baseline]:
            left_out["prompts without a response of the baseline"] += 1
            continue
        in_turn = [one for turn in zip_longest(*turns.values()) for one in turn if one]
        chosen[prompt_id] = in_turn[: _how_many(plan, found)]
        if alike and len({answer.digest for answer in chosen[prompt_id]}) == 1:
            left_out["prompts whose responses are all the same"] += 1
            del chosen[prompt_id]
            continue
        if more := len(found) - len(chosen[prompt_id]):
            left_out["responses over the number of a task"] += more
    return chosen


def _how_many(plan: Plan, answers: Sequence[Answer]) -> int:
    """K of a task: what its responses' mean length leaves room for."""
    if not plan.word_budget:
        return plan.responses_per_task
    mean = max(1.0, sum(answer.words for answer in answers) / len(answers))
    return min(plan.responses_per_task, max(EXPECTED, int(plan.word_budget / mean)))


def _refuse_nul(record: Prompt | Response, path: Path, place: int) -> None:
    """PostgreSQL stores no NUL, and a batch is to be the same on both engines."""
    for name in record.__struct_fields__:
        if isinstance(value := getattr(record, name), str) and "\0" in value:
            raise InstilError(f"{_where(path, place)}: {name}: has a NUL character; take it out")


def _where(path: Path, place: int) -> str:
    """path:line of a record by its place in the file, blank lines not counted."""
    return f"{path}:{next(islice(iter_lines(path), place, None))[0]}"
