"""What labelers go by: guidelines in versions, and questions to the lead.

Guidelines begin as the texts in guidelines/, in the words of this project after what is told of the
paper's own  [Ouyang et al. 2022, appendix B.2, figures 10 and 11]: helpful first in training,
truthful and harmless first in final evaluations. Every version that labels were given under stays.
Gold and screening tasks show the guidelines of training, for gold must look like any other work.

The survey is in survey.py, and can be had from here too.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import get_args

import sqlalchemy as sa
from markdown_it import MarkdownIt

from instil.errors import InstilError
from instil.labeling import audit
from instil.labeling.accounts import Account, NotAllowed
from instil.labeling.database import Database, now_ms
from instil.labeling.schema import guideline as table
from instil.labeling.schema import labeler, message, task
from instil.records import Kind, Purpose

SHIPPED = Path(__file__).parent / "guidelines"

MOST_TEXT, MOST_QUESTION = 100_000, 4_000
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guideline:
    """One version of what is to be done in one kind of work."""

    id: str
    kind: Kind
    purpose: Purpose
    """Training or evaluation."""
    version: int
    text: str
    """Markdown; `html` makes a page of it."""
    sha256: str
    author_id: str | None
    """None for a text that comes with instil."""
    created_at: int


def newest(connection: sa.Connection, kind: Kind, purpose: Purpose) -> Guideline:
    """What a task of this kind and purpose is done by now, within a writing transaction.

    If there is none, the text that comes with instil becomes version 1.
    """
    purpose = _given(purpose)
    if found := _newest(connection, kind, purpose):
        return found
    try:
        with connection.begin_nested():
            return _add(connection, kind, purpose, 1, shipped(kind, purpose), None, now_ms())
    except sa.exc.IntegrityError:  # somebody else was as quick
        found = _newest(connection, kind, purpose)
        assert found is not None
        return found


def publish(db: Database, by: Account, kind: Kind, purpose: Purpose, text: str) -> Guideline:
    """Add a version, which new assignments get. Work that was begun keeps the one it began with.

    Raises NotAllowed if `by` is no lead; InstilError for a text that is empty, long or not new.
    """
    _must_lead(by)
    if kind not in get_args(Kind) or purpose not in get_args(Purpose):
        raise InstilError(f"guidelines for {kind!r}, {purpose!r}: there is no such work")
    text = text.replace("\r\n", "\n").strip()
    if not text or len(text) > MOST_TEXT or "\0" in text:
        raise InstilError(f"guidelines are a text of 1 to {MOST_TEXT} characters")
    purpose, now = _given(purpose), db.now()
    with db.write() as connection:
        # first, for it makes others who publish wait
        audit.append(
            connection, by.id, "guideline.publish", f"{kind}-{purpose}", text.encode(), now
        )
        last = newest(connection, kind, purpose)
        if text == last.text.strip():
            raise InstilError(f"this is version {last.version} already, word for word")
        return _add(connection, kind, purpose, last.version + 1, text + "\n", by.id, now)


def versions(db: Database) -> list[Guideline]:
    """All versions by kind, purpose and number; the last of each is the one in force."""
    with db.read() as connection:
        found = _versions(connection)
    purposes: tuple[Purpose, ...] = ("training", "evaluation")
    pairs = {(kind, purpose) for kind in get_args(Kind) for purpose in purposes}
    if missing := pairs - {(one.kind, one.purpose) for one in found}:
        with db.write() as connection:
            for kind, purpose in sorted(missing):
                newest(connection, kind, purpose)
            found = _versions(connection)
    return found


def find(connection: sa.Connection, guideline_id: str) -> Guideline | None:
    """One version by its id."""
    row = connection.execute(sa.select(table).where(table.c.id == guideline_id))
    found = row.mappings().first()
    return Guideline(**found) if found else None


def shipped(kind: Kind, purpose: Purpose) -> str:
    """The text that comes with instil."""
    special = SHIPPED / f"{kind}-{purpose}.md"
    path = special if special.exists() else SHIPPED / f"{kind}.md"
    return path.read_text(encoding="utf-8")


@lru_cache(maxsize=64)
def html(text: str) -> str:
    """Guidelines as HTML: headings, lists, emphasis, code. HTML within is shown, not obeyed; links
    and images are not made, since a labeler should not be led elsewhere."""
    markdown = MarkdownIt("commonmark", {"html": False})
    return str(markdown.disable(["link", "image", "autolink", "reference"]).render(text))


def _given(purpose: Purpose) -> Purpose:
    return "evaluation" if purpose == "evaluation" else "training"


def _newest(connection: sa.Connection, kind: Kind, purpose: Purpose) -> Guideline | None:
    rows = (
        sa.select(table)
        .where(table.c.kind == kind, table.c.purpose == purpose)
        .order_by(table.c.version.desc())
        .limit(1)
    )
    found = connection.execute(rows).mappings().first()
    return Guideline(**found) if found else None


def _versions(connection: sa.Connection) -> list[Guideline]:
    rows = sa.select(table).order_by(table.c.kind, table.c.purpose, table.c.version)
    return [Guideline(**row) for row in connection.execute(rows).mappings()]


def _add(
    connection: sa.Connection,
    kind: Kind,
    purpose: Purpose,
    version: int,
    text: str,
    author_id: str | None,
    now: int,
) -> Guideline:
    made = Guideline(
        id=f"{kind}-{purpose}-{version}",
        kind=kind,
        purpose=purpose,
        version=version,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        author_id=author_id,
        created_at=now,
    )
    values = dataclasses.asdict(made)
    connection.execute(table.insert().values(values))
    return made


def _must_lead(by: Account) -> None:
    if by.role not in ("admin", "lead"):
        raise NotAllowed(f"only a lead may do this; your role is {by.role}")


# -- questions to the lead -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a thread: a labeler's question or flag, or a lead's answer."""

    id: int
    task_id: str
    labeler_id: str
    """Whose thread."""
    author_id: str
    flag: bool
    """The labeler wants a lead to look at the task."""
    text: str
    created_at: int

    @property
    def by_labeler(self) -> bool:
        """Is it the labeler's own word?"""
        return self.author_id == self.labeler_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """All that one labeler and the leads said about one task, oldest first."""

    task_id: str
    labeler_id: str
    name: str
    messages: tuple[Message, ...]

    @property
    def flagged(self) -> bool:
        """Is there a flag that no lead has answered?"""
        answered = max((one.id for one in self.messages if not one.by_labeler), default=0)
        return any(one.flag and one.id > answered for one in self.messages)


def ask(db: Database, account: Account, task_id: str, text: str, flag: bool = False) -> None:
    """Ask the leads about a task, or flag it; a flag may be without words.

    Whether the account may see the task is for the caller to know.
    """
    _say(db, account, task_id, account.id, text, flag)


def reply(db: Database, by: Account, task_id: str, labeler_id: str, text: str) -> None:
    """Answer a labeler.

    Raises NotAllowed if `by` is no lead; InstilError if nothing was asked, or by oneself.
    """
    _must_lead(by)
    if by.id == labeler_id:
        raise InstilError("you asked this yourself; another lead answers it")
    if not thread(db, task_id, labeler_id):
        raise InstilError(f"nobody asked about task {task_id}")
    _say(db, by, task_id, labeler_id, text, False)


def thread(db: Database, task_id: str, labeler_id: str) -> list[Message]:
    """What one labeler and the leads said about a task, oldest first."""
    rows = (
        sa.select(message)
        .where(message.c.task_id == task_id, message.c.labeler_id == labeler_id)
        .order_by(message.c.id)
    )
    with db.read() as connection:
        return [_message(row) for row in connection.execute(rows).mappings()]


def open_threads(db: Database) -> list[Thread]:
    """Threads in which the labeler had the last word: those with a flag first, then the oldest."""
    last = sa.select(sa.func.max(message.c.id)).group_by(message.c.task_id, message.c.labeler_id)
    waiting = (
        sa.select(message.c.task_id, message.c.labeler_id)
        .where(message.c.id.in_(last), message.c.author_id == message.c.labeler_id)
        .subquery()
    )
    rows = (
        sa.select(message, labeler.c.name)
        .join(
            waiting,
            (waiting.c.task_id == message.c.task_id)
            & (waiting.c.labeler_id == message.c.labeler_id),
        )
        .join(labeler, labeler.c.id == message.c.labeler_id)
        .order_by(message.c.task_id, message.c.labeler_id, message.c.id)
    )
    with db.read() as connection:
        said = [(row["name"], _message(row)) for row in connection.execute(rows).mappings()]
    threads = [
        Thread(task_id=task_id, labeler_id=labeler_id, name=name, messages=tuple(m for _, m in one))
        for (task_id, labeler_id, name), one in groupby(
            said, key=lambda pair: (pair[1].task_id, pair[1].labeler_id, pair[0])
        )
    ]
    return sorted(threads, key=lambda one: (not one.flagged, one.messages[-1].id))


def _message(row: sa.RowMapping) -> Message:
    return Message(**{field.name: row[field.name] for field in dataclasses.fields(Message)})


def _say(db: Database, by: Account, task_id: str, labeler_id: str, text: str, flag: bool) -> None:
    text = text.strip()
    if not (text or flag) or len(text) > MOST_QUESTION or "\0" in text:
        raise InstilError(f"write 1 to {MOST_QUESTION} characters")
    with db.write() as connection:
        now = db.now()
        # a removal waits for all labelers: what it takes goes before this, or after
        own = sa.select(labeler.c.id).where(labeler.c.id == by.id)
        connection.execute(own.with_for_update(key_share=True))
        if not connection.execute(sa.select(task.c.id).where(task.c.id == task_id)).first():
            raise InstilError("this task was taken out of the database; go on with another one")
        values = {"task_id": task_id, "labeler_id": labeler_id, "flag": flag, "text": text}
        connection.execute(message.insert().values(**values, author_id=by.id, created_at=now))
        action = "task.flag" if flag else "task.message"
        audit.append(connection, by.id, action, task_id, text.encode(), now)
