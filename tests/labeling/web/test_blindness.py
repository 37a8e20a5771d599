"""Labelers are blind: what reaches their browser does not change with who wrote what, or why.

Two databases that differ only in what a labeler must not know are asked the same questions. All
that comes back - status, headers, bodies - is compared byte by byte.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.labeling import assign, kinds
from instil.labeling import labels as labels_module
from instil.labeling.database import Database
from instil.labeling.kinds import FORMS
from instil.labeling.web.app import build_app
from instil.labeling.web.route import Settings

TEXTS = ["First answer <&> of four.", "Second answer of four.", "Third one.", "Fourth one, longer."]
KEY = "0123456789abcde"


class Numbered:
    """Random tokens that are the same in every database."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def token_urlsafe(self, _: int = 0) -> str:
        return f"token-number-{next(self.numbers):04}"


@pytest.fixture
def work(small: Any) -> Any:
    """Every kind of work for ann, by policies with names that would be noticed."""
    small.batch("ranking", tasks=3, texts=TEXTS)
    small.batch("ranking", purpose="evaluation", tasks=2, texts=TEXTS)
    small.batch("toxicity", purpose="evaluation", texts=TEXTS)
    small.batch("demonstration")
    small.batch("annotation")
    small.batch("prompt")
    with small.db.write() as connection:
        connection.exec_driver_sql("UPDATE response SET policy = 'POLICY-' || policy || '-NAME'")
        connection.exec_driver_sql('UPDATE response SET sampling = \'{"model": "HIDDEN"}\'')
        connection.exec_driver_sql("UPDATE batch SET baseline = 'POLICY-m1-NAME'")
    return small


def answer_of(kind: str) -> Any:
    letters = "ABCD"
    ranked = {"tiers": [["A"], ["B", "C"], ["D"]]}
    return {
        "ranking": {**ranked, "overall": dict(zip(letters, (7, 5, 5, 1), strict=True))},
        "toxicity": {
            **ranked,
            "input": 0,
            **{name: dict.fromkeys(letters, 1) for name in ("output", "relative", "continuity")},
        },
        "demonstration": {"text": "An answer."},
        "annotation": {"use_case": "open_qa", "flags": []},
        "prompt": {"style": "plain", "text": "Say something."},
    }[kind]


def a_day_of_work(visitor: Any, held: str | None = None) -> list[tuple[int, Any, bytes]]:
    """All that comes back while ann does what there is; `held`: only what is in hand already."""
    heard: list[tuple[int, Any, bytes]] = []
    keys = itertools.count()

    def hear(response: Any) -> Any:
        headers = sorted((k, v) for k, v in response.headers.items() if k != "date")
        heard.append((response.status_code, headers, response.content))
        return response

    def do(kind: str, url: str) -> str:
        """One task in all that can happen to it; the URL of the next."""
        hear(visitor.get(url))
        hear(visitor.send("PUT", f"{url}/draft", {"version": 0, "content": {"a": [1]}}))
        hear(visitor.send("PUT", f"{url}/draft", {"version": 0, "content": {"b": 2}}))
        hear(visitor.get(url))
        hear(visitor.send("POST", f"{url}/messages", {"text": "Why?", "flag": True}))
        body = {"key": f"{KEY}{next(keys)}", "base": 0, "active_ms": 5, "then": "stay"}
        hear(visitor.send("POST", f"{url}/label", {**body, "answer": {}}))
        body["answer"] = answer_of(kind)
        hear(visitor.send("POST", f"{url}/label", body))
        hear(visitor.send("POST", f"{url}/label", body))
        hear(visitor.get(url))
        again = {**body, "key": f"{KEY}{next(keys)}"}
        hear(visitor.send("POST", f"{url}/label", again))
        again |= {"base": 1, "then": "next"}
        return str(hear(visitor.send("POST", f"{url}/label", again)).json()["next"])

    hear(visitor.get("/"))
    if held:
        do("ranking", held)
    for kind in () if held else FORMS:
        url = hear(visitor.form("/work", kind=kind)).headers["location"]
        while url.startswith("/work/"):
            url = do(kind, url)
    hear(visitor.form("/work", kind="ranking"))
    hear(visitor.get("/history"))
    hear(visitor.get("/"))
    return heard


@pytest.fixture
def told(
    work: Any, tmp_path: Path, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """`told(*statements)`: what ann hears from a copy of the database changed by them."""
    ann = visit(build_app(work.db, Settings()), "ann")
    copies = itertools.count()

    def told(*statements: str, held: str | None = None) -> list[Any]:
        path = tmp_path / f"copy{next(copies)}.db"
        source = sqlite3.connect(work.db.url.database)
        copy = sqlite3.connect(path)
        source.backup(copy)
        for statement in statements:
            assert copy.execute(statement).rowcount, statement
        copy.commit()
        copy.close()
        source.close()
        numbered = Numbered()
        monkeypatch.setattr(assign, "secrets", numbered)
        monkeypatch.setattr(labels_module, "secrets", numbered)
        db = Database(path, work.clock)
        ann.http.app = build_app(db, Settings())
        visitor = visit(build_app(db, Settings()))
        visitor.http.cookies = ann.http.cookies
        visitor.session = ann.session
        heard = a_day_of_work(visitor, held)
        db.close()
        return heard

    return told


SWAPPED = """UPDATE response SET policy = CASE policy
    WHEN 'POLICY-m0-NAME' THEN 'POLICY-m1-NAME' WHEN 'POLICY-m1-NAME' THEN 'POLICY-m0-NAME'
    ELSE policy END"""


def test_the_day_is_a_real_one(told: Callable[..., Any]) -> None:
    heard = told()
    statuses = [status for status, _, _ in heard]
    assert statuses.count(409) == 2 * 9  # nine tasks, each with two windows
    assert statuses.count(422) == 9
    assert statuses.count(200) > 60
    assert set(statuses) == {200, 303, 409, 422}
    assert sum(b"Second answer" in body for _, _, body in heard) >= 18


def test_swapped_policies_change_no_byte(told: Callable[..., Any]) -> None:
    assert told(SWAPPED) == told()


@pytest.mark.slow
def test_swapped_texts_change_only_the_texts(told: Callable[..., Any]) -> None:
    swapped = told(
        """UPDATE response SET text = CASE text
        WHEN 'Third one.' THEN 'Fourth one, longer.' WHEN 'Fourth one, longer.' THEN 'Third one.'
        ELSE text END""",
    )

    def without(heard: list[Any]) -> list[Any]:
        """With both texts, and their numbers of words, called the same."""
        found = []
        for status, headers, body in heard:
            body = body.replace(b"Fourth one, longer.", b"Third one.")
            body = body.replace(b"3 words", b"2 words")
            found.append((status, [h for h in headers if h[0] != "content-length"], body))
        return found

    plain = told()
    assert without(swapped) == without(plain)
    assert swapped != plain


@pytest.mark.slow
def test_other_names_of_things_change_no_byte(told: Callable[..., Any]) -> None:
    """A batch, a policy, how it sampled, who asked, ids: a labeler hears of none of them."""
    changed = told(
        "UPDATE batch SET name = 'Other', baseline = 'other', plan = '{\"x\": 1}'",
        "UPDATE response SET policy = 'other', sampling = '{}'",
        "UPDATE prompt SET source = 'other', user_id = 'other', meta = '{\"x\": 1}'",
        "UPDATE task_response SET response_id = 'other-' || response_id",
        "UPDATE response SET id = 'other-' || id",
    )
    assert changed == told()


@pytest.mark.slow
def test_nothing_that_is_stored_of_a_text_is_said(told: Callable[..., Any], work: Any) -> None:
    said = b"\n".join(body + json.dumps(headers).encode() for _, headers, body in told())
    with work.db.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, policy FROM response UNION ALL SELECT prompt_id, sampling FROM response "
            "UNION ALL SELECT id, batch_id FROM task UNION ALL SELECT name, baseline FROM batch"
        )
        secret = {value for row in rows for value in row if value}
    for word in secret | {"POLICY", "HIDDEN", "quota", "accepted", "surplus", "gold"}:
        assert not re.search(rf"\b{re.escape(word)}\b".encode(), said), word


@pytest.mark.parametrize("reason", ["gold", "repeat"])
def test_hidden_gold_and_repeats_are_like_any_other_work(
    work: Any, told: Callable[..., Any], reason: str
) -> None:
    """The task in hand is of the quota in one database, and comes on top of it in the other."""
    held = assign.claim(work.db, work["ann"], "ranking")
    assert held
    purpose = "training" if reason == "repeat" else "gold"
    prompt, task = f"'p{held.task_id[1:]}'", f"'{held.task_id}'"
    changed = told(
        f"UPDATE seat SET reason = '{reason}', purpose = '{purpose}' WHERE id = {held.seat_id}",
        f"UPDATE task SET purpose = '{purpose}' WHERE id = {task}",
        "INSERT INTO prompt SELECT 'more', text, source, user_id, use_case, split, meta "
        f"FROM prompt WHERE id = {prompt}",
        "INSERT INTO task SELECT 'more', batch_id, kind, 'training', 'more', state "
        f"FROM task WHERE id = {task}",
        "INSERT INTO seat (task_id, kind, purpose, pool, reason) "
        "VALUES ('more', 'ranking', 'training', 'training', 'quota')",
        held=f"/work/{held.id}",
    )
    assert changed == told(held=f"/work/{held.id}")


def test_the_forms_ask_of_no_policy() -> None:
    for kind in FORMS:
        assert "policy" not in json.dumps(kinds.form_json(kind))


def test_no_query_of_a_labelers_page_reads_a_policy(work: Any, told: Callable[..., Any]) -> None:
    import sqlalchemy as sa

    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        told()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert len(statements) > 200
    assert not [statement for statement in statements if "policy" in statement]
