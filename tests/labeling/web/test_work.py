"""The pages of work: claim, draft, submit, reopen, skip, ask; what they say when it goes wrong."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from instil.labeling import assign, guidelines, past

RANKED = {
    "tiers": [["A"], ["B", "C"], ["D"]],
    "overall": {"A": 7, "B": 5, "C": 5, "D": 1},
    "flags": {"D": ["hallucination"]},
    "notes": {"D": "invented"},
    "remark": "",
    "not_rankable": False,
    "why": "",
}
KEY = "0123456789abcdef"


def sent(answer: Any = RANKED, **changed: Any) -> dict[str, Any]:
    return {"key": KEY, "base": 0, "active_ms": 1000, "answer": answer, **changed}


def task_of(page: Any) -> dict[str, Any]:
    """What the page's scripts read."""
    found = re.search(r'data-task="([^"]*)"', page.text)
    assert found, page.text
    return dict(json.loads(html.unescape(found[1])))


@pytest.fixture
def ann(client: Callable[..., Any], small: Any) -> Any:
    small.batch("ranking", tasks=2)
    return client("ann")


@pytest.fixture
def url(ann: Any) -> str:
    """A task that ann has begun."""
    response = ann.form("/work", kind="ranking")
    assert response.status_code == 303
    return str(response.headers["location"])


def test_home_says_what_waits_and_what_is_begun(ann: Any) -> None:
    page = ann.get("/").text
    assert "2 tasks for you" in page
    assert "Begun" not in page
    url = ann.form("/work", kind="ranking").headers["location"]
    page = ann.get("/").text
    assert "2 tasks for you" in page  # with those in hand
    assert f'href="{url}"' in page
    assert ann.form("/work", kind="ranking").headers["location"] == url  # one at a time


def test_home_counts_so_far(ann: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(assign, "COUNTED", 2)
    assert "2+ tasks for you" in ann.get("/").text


def test_no_work_is_said(ann: Any) -> None:
    assert ann.form("/work", kind="toxicity").headers["location"] == "/?nothing"
    assert "nothing of this kind left" in ann.get("/?nothing").text
    assert ann.form("/work", kind="cooking").status_code == 422


def test_the_page_has_the_task_and_its_guidelines(ann: Any, url: str) -> None:
    page = ann.get(url)
    assert page.status_code == 200
    for place in range(4):
        assert page.text.count(f"Answer {place} of 0.") == 1
    task = task_of(page)
    assert task["status"] == "open"
    assert task["revision"] == 0
    assert task["answer"] is None
    assert task["draft"] == {"version": 0, "content": None}
    assert "Version 1" in page.text


def test_a_conversation_is_shown_as_turns(client: Callable[..., Any], small: Any) -> None:
    small.batch("ranking")
    with small.db.write() as connection:
        connection.exec_driver_sql(
            "UPDATE prompt SET text = ?",
            ("Human: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nAssistant:",),
        )
    ann = client("ann")
    page = ann.get(ann.form("/work", kind="ranking").headers["location"]).text
    assert "Human:" not in page
    assert page.index("One?") < page.index("Two.") < page.index("Three?")


def test_identical_texts_are_shown_once(client: Callable[..., Any], small: Any) -> None:
    small.batch("ranking", texts=["same", "other", "same", "third"])
    ann = client("ann")
    url = ann.form("/work", kind="ranking").headers["location"]
    page = ann.get(url).text
    assert page.count('data-letter="C"') and 'data-letter="D"' not in page
    assert "2 identical" in page
    answer = {"tiers": [["A"], ["B"], ["C"]], "overall": {"A": 6, "B": 5, "C": 4}}
    assert ann.send("POST", f"{url}/label", sent(answer)).status_code == 200


@pytest.mark.parametrize("kind", ["demonstration", "prompt", "annotation", "toxicity"])
def test_every_kind_has_a_page(client: Callable[..., Any], small: Any, kind: str) -> None:
    small.batch(kind)
    ann = client("ann")
    page = ann.get(ann.form("/work", kind=kind).headers["location"])
    assert page.status_code == 200
    assert task_of(page)["kind"] == kind


def test_a_draft_comes_back(ann: Any, url: str) -> None:
    content = {"focus": "A", "texts": ["<b>", "ü"]}
    response = ann.send("PUT", f"{url}/draft", {"version": 0, "content": content})
    assert response.json() == {"version": 1}
    assert task_of(ann.get(url))["draft"] == {"version": 1, "content": content}


@pytest.mark.parametrize(
    "content", [b'"\\ud800"', b'"\\x"', b"tru", b'{"a": 1, "a":}', b'"\\u00"', b"[1,]", b"NaN"]
)
def test_a_draft_that_is_no_json_is_refused(ann: Any, url: str, content: bytes) -> None:
    body = b'{"version": 0, "content": ' + content + b"}"
    assert ann.send("PUT", f"{url}/draft", body).status_code == 422
    assert ann.get(url).status_code == 200


def test_two_windows_do_not_write_over_each_other(ann: Any, url: str) -> None:
    ann.send("PUT", f"{url}/draft", {"version": 0, "content": "first"})
    response = ann.send("PUT", f"{url}/draft", {"version": 0, "content": "second"})
    assert response.status_code == 409
    assert response.json() == {"version": 1, "content": "first"}
    assert ann.send("PUT", f"{url}/draft", {"version": 1, "content": "third"}).status_code == 200


def test_a_draft_keeps_the_task(ann: Any, url: str, client: Callable[..., Any], small: Any) -> None:
    small.clock.pass_(hours=3)
    ann.send("PUT", f"{url}/draft", {"version": 0, "content": 1})
    small.clock.pass_(hours=3)
    assert ann.send("POST", f"{url}/label", sent()).json()["kept"] == "kept"


def test_a_label_is_kept_and_the_next_task_is_there(ann: Any, url: str, small: Any) -> None:
    reply = ann.send("POST", f"{url}/label", sent()).json()
    assert (reply["kept"], reply["revision"]) == ("kept", 1)
    assert re.fullmatch(r"/work/[\w-]{22}", reply["next"])
    assert reply["next"] != url
    (kept,) = past.revisions(small.db, url.removeprefix("/work/"))
    assert kept.payload["ratings"][0]["labeler_id"] == "l-ann"
    assert kept.active_ms == 1000
    last = ann.send("POST", f"{reply['next']}/label", sent(key=KEY + "2")).json()
    assert last["next"] == "/?nothing"


def test_sent_twice_it_counts_once(ann: Any, url: str, small: Any) -> None:
    first = ann.send("POST", f"{url}/label", sent(then="stay")).json()
    assert first == {"kept": "kept", "revision": 1, "next": None}
    assert ann.send("POST", f"{url}/label", sent(then="stay")).json() == first
    assert len(past.revisions(small.db, url.removeprefix("/work/"))) == 1


def test_an_incomplete_answer_is_refused_with_its_field(ann: Any, url: str, small: Any) -> None:
    for answer, field, said in (
        ({}, "overall.A", "A, B, C, D"),
        ({**RANKED, "tiers": [["A"]]}, "tiers", "B, C, D"),
        ({**RANKED, "overall": {**RANKED["overall"], "B": 8}}, "overall.B", "8"),  # type: ignore[dict-item]
        ({**RANKED, "nonsense": 1}, "nonsense", "nonsense"),
        ([], "", "object"),
    ):
        response = ann.send("POST", f"{url}/label", sent(answer))
        assert response.status_code == 422, answer
        assert response.json()["field"] == field
        assert said in response.json()["error"]
    assert past.revisions(small.db, url.removeprefix("/work/")) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{",
        b"\xff",
        b'{"key": "short", "base": 0, "active_ms": 0, "answer": {}}',
        b'{"key": "0123456789", "base": -1, "active_ms": 0, "answer": {}}',
        b'{"key": "0123456789", "base": 0, "active_ms": 1e400, "answer": {}}',
        b'{"key": "0123456789", "base": 99999999999999999999, "active_ms": 0, "answer": {}}',
        b'{"key": "0123456789", "base": 0, "active_ms": 0, "answer": "\\ud800"}',
        b'{"key": "0123456789", "base": 0, "active_ms": 0, "then": "leave", "answer": {}}',
    ],
)
def test_what_no_page_sends_is_refused(ann: Any, url: str, small: Any, body: bytes) -> None:
    response = ann.send("POST", f"{url}/label", body)
    assert response.status_code == (400 if body == b"\xff" else 422)
    assert response.json()["error"]
    assert past.revisions(small.db, url.removeprefix("/work/")) == []


def test_reopening_makes_a_revision(ann: Any, url: str) -> None:
    ann.send("POST", f"{url}/label", sent())
    task = task_of(ann.get(url))
    assert (task["status"], task["revision"], task["answer"]) == ("done", 1, RANKED)
    changed = {**RANKED, "remark": "better"}
    reply = ann.send("POST", f"{url}/label", sent(changed, base=1, key=KEY + "2", then="stay"))
    assert reply.json() == {"kept": "kept", "revision": 2, "next": None}
    assert task_of(ann.get(url))["answer"] == changed


def test_a_second_window_is_told_what_stands(ann: Any, url: str) -> None:
    ann.send("POST", f"{url}/label", sent())
    response = ann.send("POST", f"{url}/label", sent({**RANKED, "remark": "x"}, key=KEY + "2"))
    assert response.status_code == 409
    assert response.json()["revision"] == 1
    assert response.json()["answer"] == RANKED


def test_too_late_is_kept_and_said(
    client: Callable[..., Any], ann: Any, url: str, small: Any
) -> None:
    small.clock.pass_(hours=5)
    bob = client("bob")
    taken = bob.form("/work", kind="ranking").headers["location"]
    for number in range(2):
        taken = bob.send("POST", f"{taken}/label", sent(key=f"{KEY}{number}")).json()["next"]
    assert taken == "/?nothing"
    assert ann.send("POST", f"{url}/label", sent()).json()["kept"] == "late"
    assert "kept, late" in ann.get("/history").text


def test_skipping_and_taking_back(ann: Any, url: str) -> None:
    body = {"key": KEY, "reason": "other", "note": ""}
    response = ann.send("POST", f"{url}/skip", body)
    assert response.status_code == 422
    assert response.json()["field"] == "note"
    reply = ann.send("POST", f"{url}/skip", {**body, "note": "I wrote it"}).json()
    assert reply["next"].startswith("/work/")
    assert task_of(ann.get(url))["status"] == "skipped"
    page = ann.get("/history").text
    assert "skipped" in page
    again = re.search(r'name="again" value="([^"]+)"', page)
    assert again
    assert f"/work/{again[1]}" == url
    taken = ann.form("/work", again=again[1]).headers["location"]
    assert taken != url
    reply = ann.send("POST", f"{taken}/label", sent(key=KEY + "2")).json()
    assert reply["kept"] == "kept"


def test_a_draft_of_a_skipped_task_is_refused(ann: Any, url: str) -> None:
    ann.send("POST", f"{url}/skip", {"key": KEY, "reason": "unclear"})
    response = ann.send("PUT", f"{url}/draft", {"version": 0, "content": 1})
    assert response.status_code == 422
    assert "skipped" in response.json()["error"]


def test_questions_and_their_answers(ann: Any, url: str, small: Any) -> None:
    reply = ann.send("POST", f"{url}/messages", {"text": "<i>Why?</i>", "flag": True}).json()
    (asked,) = reply["messages"]
    assert (asked["who"], asked["text"], asked["flag"]) == ("you", "<i>Why?</i>", True)
    (thread,) = guidelines.open_threads(small.db)
    guidelines.reply(small.db, small["lead"], thread.task_id, "l-ann", "Because.")
    page = ann.get(url).text
    assert "Because." in page
    assert "&lt;i&gt;Why?&lt;/i&gt;" in page
    assert "lead" not in re.findall(r"<bdi>(.*?)</bdi>", page)  # which of the leads is not said
    assert ann.send("POST", f"{url}/messages", {"text": " "}).status_code == 422


def test_history_has_pages(client: Callable[..., Any], small: Any) -> None:
    small.batch("annotation", tasks=33)
    ann = client("ann")
    url = ann.form("/work", kind="annotation").headers["location"]
    answer = {"use_case": "open_qa", "flags": []}
    for number in range(33):
        small.clock.pass_(seconds=1)
        body = sent(answer, key=f"{KEY}{number}")
        url = ann.send("POST", f"{url}/label", body).json()["next"]
    page = ann.get("/history").text
    assert page.count(">Reopen<") == 30
    older = re.search(r'href="(/history\?before=\d+)"', page)
    assert older
    rest = ann.get(older[1]).text
    assert rest.count(">Reopen<") == 3
    assert "Older" not in rest
    for odd in ("x", "٣", "9" * 30):
        assert ann.get(f"/history?before={odd}").status_code == 404


def test_an_empty_history_says_so(ann: Any) -> None:
    assert "not handed in anything yet" in ann.get("/history").text


def test_a_viewer_is_led_to_the_progress(client: Callable[..., Any]) -> None:
    assert client("viewer").get("/").headers["location"] == "/lead"


def test_the_next_task_takes_few_statements(ann: Any, url: str) -> None:
    """Claiming is a dozen statements, whatever is stored: so it stays quick."""
    import sqlalchemy as sa

    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    ann.send("POST", f"{url}/label", sent(then="stay"))
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        ann.form("/work", kind="ranking")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    asked = [s for s in statements if not s.startswith(("BEGIN", "PRAGMA"))]
    assert len(asked) <= 14, asked
