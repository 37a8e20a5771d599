"""The tables of a labeling database. What they mean, from what a lead starts to what comes of it:

  batch > task > seat > assignment > label

A batch is made of tasks (one prompt, its responses, one kind of work); a task has a seat for every
label that is wanted; an assignment is one labeler holding one seat for a while; a label is one
revision of what came of it. `assignment`, `label` and `audit` are only ever added to (triggers).

Held-out labelers never train: a seat or label of purpose `training` outside the pool `training` is
refused by the database itself, and so is a second accepted label of one seat.

Times are milliseconds since 1970, UTC. `migrations` makes these tables; a test compares both.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

HEAD = "0002"
"""The newest migration: the schema that this code reads and writes."""

metadata = MetaData()

_Serial = BigInteger().with_variant(Integer, "sqlite")


def _required(name: str, *args: object, **options: object) -> Column:
    return Column(name, Text, *args, nullable=False, **options)  # type: ignore[arg-type]


def _time(name: str, *, nullable: bool = False) -> Column:
    return Column(name, BigInteger, nullable=nullable)


def _serial() -> Column:
    return Column("id", _Serial, Identity(), primary_key=True)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ",".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})")


_TRAINING = "purpose <> 'training' OR pool = 'training'"

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    _required("value"),
)

labeler = Table(
    "labeler",
    metadata,
    Column("id", Text, primary_key=True),
    _required("name"),
    _required("name_key", unique=True),  # the name, NFKC and casefolded
    _required("password"),
    _required("role"),
    _required("pool"),
    _required("kinds", server_default="[]"),
    _required("shortcuts", server_default="{}"),
    _required("comfort", server_default="[]"),
    Column("surveyed", Boolean, nullable=False, server_default=false()),
    Column("active", Boolean, nullable=False, server_default=true()),
    _time("created_at"),
    _one_of("role", "admin", "lead", "labeler", "viewer"),
    _one_of("pool", "training", "held-out", "candidate"),
)

invitation = Table(
    "invitation",
    metadata,
    Column("token_hash", Text, primary_key=True),
    _required("role"),
    _required("pool"),
    _required("kinds"),
    Column("labeler_id", Text, ForeignKey("labeler.id")),  # set: a new password for this account
    Column("created_by", Text, ForeignKey("labeler.id")),
    _time("created_at"),
    _time("expires_at"),
    _time("used_at", nullable=True),
)

session = Table(
    "session",
    metadata,
    Column("token_hash", Text, primary_key=True),
    _required("labeler_id", ForeignKey("labeler.id")),
    _required("csrf"),
    _time("created_at"),
    _time("expires_at"),
    Index("session_labeler", "labeler_id"),
)

attempt = Table(
    "attempt",
    metadata,
    _serial(),
    _required("name_hash"),
    _required("address"),
    _time("at"),
    Index("attempt_name", "name_hash", "at"),
    Index("attempt_address", "address", "at"),
)

guideline = Table(
    "guideline",
    metadata,
    Column("id", Text, primary_key=True),
    _required("kind"),
    _required("purpose"),
    Column("version", Integer, nullable=False),
    _required("text"),
    _required("sha256"),
    Column("author_id", Text, ForeignKey("labeler.id")),
    _time("created_at"),
    UniqueConstraint("kind", "purpose", "version"),
)

batch = Table(
    "batch",
    metadata,
    Column("id", Text, primary_key=True),
    _required("name"),
    _required("kind"),
    _required("purpose"),
    _required("baseline", server_default=""),
    _required("state", server_default="open"),
    _required("plan"),
    _required("content_hash", unique=True),
    Column("created_by", Text, ForeignKey("labeler.id")),
    _time("created_at"),
    UniqueConstraint("id", "kind", "purpose"),
    _one_of("kind", "prompt", "annotation", "demonstration", "ranking", "toxicity"),
    _one_of("purpose", "training", "evaluation", "screening", "gold"),
    _one_of("state", "open", "paused", "closed"),
)

prompt = Table(
    "prompt",
    metadata,
    Column("id", Text, primary_key=True),
    _required("text"),
    _required("source"),
    _required("user_id"),
    _required("use_case"),
    _required("split"),
    _required("meta"),
    Index("prompt_user", "user_id"),
)

response = Table(
    "response",
    metadata,
    Column("id", Text, primary_key=True),
    _required("prompt_id", ForeignKey("prompt.id")),
    _required("text"),
    _required("policy"),  # no handler of a labeler's pages selects it
    _required("sampling"),
    Column("author_id", Text, ForeignKey("labeler.id")),  # set when a labeler wrote it
    Index("response_prompt", "prompt_id"),
)

task = Table(
    "task",
    metadata,
    Column("id", Text, primary_key=True),
    _required("batch_id"),
    _required("kind"),
    _required("purpose"),
    Column("prompt_id", Text, ForeignKey("prompt.id")),
    _required("state", server_default="open"),
    ForeignKeyConstraint(
        ["batch_id", "kind", "purpose"], ["batch.id", "batch.kind", "batch.purpose"]
    ),
    UniqueConstraint("id", "kind", "purpose"),
    Index("task_batch", "batch_id"),
    Index("task_prompt", "prompt_id"),
    _one_of("state", "open", "retired"),
)

task_response = Table(
    "task_response",
    metadata,
    Column("task_id", Text, ForeignKey("task.id"), primary_key=True),
    Column("place", Integer, primary_key=True),
    _required("response_id", ForeignKey("response.id")),
    UniqueConstraint("task_id", "response_id"),
    Index("task_response_response", "response_id"),
)

seat = Table(
    "seat",
    metadata,
    _serial(),
    _required("task_id"),
    _required("kind"),
    _required("purpose"),
    Column("priority", Integer, nullable=False, server_default="0"),
    _required("pool"),
    _required("reason"),
    _required("state", server_default="free"),
    Column("labeler_id", Text, ForeignKey("labeler.id")),
    Column("token", Text, unique=True),
    Column("epoch", Integer, nullable=False, server_default="0"),
    _time("expires_at", nullable=True),
    ForeignKeyConstraint(["task_id", "kind", "purpose"], ["task.id", "task.kind", "task.purpose"]),
    _one_of("pool", "training", "held-out", "candidate"),
    _one_of("reason", "quota", "gold", "repeat", "screening", "key"),
    _one_of("state", "free", "held", "done"),
    CheckConstraint(_TRAINING),
    CheckConstraint("(state = 'free') = (labeler_id IS NULL)"),
    CheckConstraint("(state = 'free') = (token IS NULL)"),
    CheckConstraint("state <> 'held' OR expires_at IS NOT NULL"),
)
Index(
    "seat_once",
    seat.c.task_id,
    seat.c.labeler_id,
    seat.c.reason,
    unique=True,
    sqlite_where=text("labeler_id IS NOT NULL"),
    postgresql_where=text("labeler_id IS NOT NULL"),
)
Index(
    "seat_open",
    seat.c.kind,
    seat.c.pool,
    seat.c.priority,
    seat.c.id,
    sqlite_where=text("state <> 'done'"),
    postgresql_where=text("state <> 'done'"),
)
Index(
    "seat_held",
    seat.c.labeler_id,
    seat.c.kind,
    sqlite_where=text("state = 'held'"),
    postgresql_where=text("state = 'held'"),
)
Index("seat_task", seat.c.task_id)

assignment = Table(
    "assignment",
    metadata,
    Column("id", Text, primary_key=True),  # also the fencing token, while seat.token is the same
    Column("seat_id", _Serial, ForeignKey("seat.id"), nullable=False),
    _required("task_id", ForeignKey("task.id")),
    _required("labeler_id", ForeignKey("labeler.id")),
    Column("epoch", Integer, nullable=False),
    _required("display_order"),  # places of task_response, the one shown first in front; JSON
    _required("guideline_id", ForeignKey("guideline.id")),
    _time("claimed_at"),
    UniqueConstraint("seat_id", "epoch"),
    Index("assignment_labeler", "labeler_id", "claimed_at"),
    Index("assignment_task", "task_id"),
)

draft = Table(
    "draft",
    metadata,
    Column("assignment_id", Text, ForeignKey("assignment.id"), primary_key=True),
    Column("version", Integer, nullable=False),
    _required("content"),
    _time("saved_at"),
)

label = Table(
    "label",
    metadata,
    Column("id", Text, primary_key=True),
    _required("assignment_id", ForeignKey("assignment.id")),
    Column("seat_id", _Serial, ForeignKey("seat.id"), nullable=False),
    _required("task_id"),
    _required("kind"),
    _required("purpose"),
    _required("labeler_id", ForeignKey("labeler.id")),
    _required("pool"),
    Column("revision", Integer, nullable=False),
    _required("status"),
    _required("payload"),
    _required("idempotency_key"),
    _required("payload_sha256"),
    Column("active_ms", BigInteger, nullable=False),
    Column("elapsed_ms", BigInteger, nullable=False),
    _time("created_at"),
    ForeignKeyConstraint(["task_id", "kind", "purpose"], ["task.id", "task.kind", "task.purpose"]),
    UniqueConstraint("assignment_id", "revision"),
    UniqueConstraint("labeler_id", "idempotency_key"),
    _one_of("status", "accepted", "surplus", "gold", "repeat", "screening", "key", "skipped"),
    CheckConstraint("active_ms >= 0"),
    CheckConstraint("elapsed_ms >= 0"),
    CheckConstraint(_TRAINING),
    Index("label_task", "task_id", "labeler_id"),
    Index("label_kind", "kind", "purpose", "created_at"),
)
Index(
    "label_one_a_seat",
    label.c.seat_id,
    unique=True,
    sqlite_where=text("status = 'accepted' AND revision = 1"),
    postgresql_where=text("status = 'accepted' AND revision = 1"),
)

message = Table(
    "message",
    metadata,
    _serial(),
    _required("task_id", ForeignKey("task.id")),
    _required("labeler_id", ForeignKey("labeler.id")),  # whose thread
    _required("author_id", ForeignKey("labeler.id")),
    Column("flag", Boolean, nullable=False, server_default=false()),
    _required("text"),
    _time("created_at"),
    Index("message_thread", "task_id", "labeler_id"),
)

score = Table(
    "score",
    metadata,
    Column("label_id", Text, ForeignKey("label.id"), primary_key=True),
    Column("lead_id", Text, ForeignKey("labeler.id"), primary_key=True),
    Column("value", Integer, nullable=False),
    _time("created_at"),
    CheckConstraint("value BETWEEN 1 AND 7"),
)

export = Table(
    "export",
    metadata,
    Column("id", Text, primary_key=True),
    _required("path"),
    _required("manifest"),
    _time("created_at"),
)

export_file = Table(
    "export_file",
    metadata,
    Column("export_id", Text, ForeignKey("export.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    _required("sha256"),
)

export_prompt = Table(  # prompt_id is no foreign key: it must outlive the prompt
    "export_prompt",
    metadata,
    Column("export_id", Text, ForeignKey("export.id"), primary_key=True),
    Column("prompt_id", Text, primary_key=True),
    Index("export_prompt_prompt", "prompt_id"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _time("at"),
    _required("actor_id"),
    _required("action"),
    _required("object_id"),
    _required("detail_sha256"),
    _required("previous", unique=True),
    _required("hash", unique=True),
)

survey = Table(  # no labeler, no time but the month: answers are not to be joined with labels
    "survey",
    metadata,
    Column("id", Text, primary_key=True),
    _required("month"),
    _required("answers"),
    sqlite_with_rowid=False,  # a rowid would keep the order of arrival
)
