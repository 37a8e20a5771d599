"""`instil batch`: start a batch of work for labelers from files.

    instil batch --db labels.db --name "round 1" --kind ranking \\
        --prompts prompts.jsonl --responses sft.jsonl ppo.jsonl --training 1
    instil batch --db labels.db --name final --kind ranking --purpose evaluation \\
        --prompts test.jsonl --responses sft.jsonl ppo.jsonl --held-out 1 --baseline sft

`instil sample` writes the responses; a lead can start a batch in the browser too. What a batch
takes of the files, and what it leaves out and why, is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instil.labeling import batches
from instil.labeling.database import Database
from instil.labeling.planning import EXPECTED, MOST, Plan
from instil.records import Kind, Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Start a batch of work for labelers from files of prompts and responses."""

    db: str
    """The database: a path means SQLite; or a URL. It is made if there is none."""
    name: str
    """What leads see it as."""
    kind: Kind
    """The work: prompt, annotation, demonstration, ranking or toxicity."""
    purpose: Purpose = "training"
    """Training takes prompts of split train, evaluation those of test and valid."""
    prompts: Path | None = None
    """Prompt records; for every kind but prompt."""
    responses: tuple[Path, ...] = ()
    """Response records of one policy or more, or demonstrations; for ranking and toxicity."""
    training: int = 1
    """Labels wanted of each task from training labelers."""
    held_out: int = 0
    """Labels wanted of each task from held-out labelers; for evaluations."""
    baseline: str = ""
    """Policy that win rates are against; prompts without a response of it are left out."""
    most: int = MOST
    """Responses of a task at most (2 to 9), taken from the policies in turn."""
    word_budget: int = 0
    """Words of responses that a task may hold: 4 to 9 are shown by it; 0 shows `most`."""
    with_valid: bool = False
    """Let prompts of split valid into a batch for training."""
    tasks: int = 0
    """Prompts that labelers are to write; for kind prompt."""
    priority: int = 0
    """Tasks of a lower number are handed out first."""


def run(config: Config) -> None:
    """Make the batch and say what is in it."""
    plan = Plan(
        name=config.name,
        kind=config.kind,
        purpose=config.purpose,
        quota_training=config.training,
        quota_held_out=config.held_out,
        baseline=config.baseline,
        responses_per_task=config.most,
        word_budget=config.word_budget,
        with_valid=config.with_valid,
        tasks=config.tasks,
        priority=config.priority,
    )
    db = Database(config.db)
    try:
        db.migrate()
        counts = batches.create(db, None, plan, config.prompts, config.responses)
    finally:
        db.close()
    print(f"{counts.batch_id}: {counts.tasks} tasks, {counts.seats} labels wanted")
    for reason, number in counts.left_out.items():
        print(f"left out: {number} {reason}")
    if counts.few:
        print(f"{counts.few} tasks have fewer than {EXPECTED} responses: they give few pairs")
    if counts.named_authors:
        print(f"{counts.named_authors} responses say which model wrote them; labelers see that")
