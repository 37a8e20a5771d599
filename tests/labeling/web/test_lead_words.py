"""Guidelines, questions, the survey, the audit log."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from instil.labeling import assign, audit, guidelines, schema, survey
from instil.labeling.web import lead_words


def words(response):
    """The text of a page, with blanks drawn together."""
    text = re.sub(r"(?s)<(head|svg)\b.*?</\1>|<[^>]+>", " ", response.text)
    return " ".join(text.split())


# -- guidelines ------------------------------------------------------------------------------------


def test_a_new_version(small, client):
    lead = client("lead")
    form = lead.get("/lead/guidelines?kind=ranking&purpose=evaluation")
    assert "New version: Ranking, evaluation" in words(form)
    with small.db.write() as connection:
        old = guidelines.newest(connection, "ranking", "evaluation")
    assert old.text.splitlines()[0] in form.text
    sent = lead.form("/lead/guidelines", kind="ranking", purpose="evaluation", text="# Be <fair>")
    assert sent.status_code == 303
    page = words(lead.get("/lead/guidelines"))
    assert "Ranking, evaluation version 2" in page
    small.batch("ranking", "evaluation")
    held = assign.claim(small.db, small["ann"], "ranking")
    assert held.guideline_id == "ranking-evaluation-2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "  "}, "1 to"),
        ({"kind": "poem"}, "poem"),
        ({"purpose": "fun"}, "fun"),
    ],
)
def test_what_cannot_be_published(small, client, change, said):
    fields = {"kind": "ranking", "purpose": "training", "text": "New words."} | change
    sent = client("lead").form("/lead/guidelines", **fields)
    assert sent.status_code == 422
    assert said in words(sent)
    assert all(version.version == 1 for version in guidelines.versions(small.db))


def test_a_text_that_was_refused_is_still_there(small, client):
    sent = client("lead").form(
        "/lead/guidelines", kind="ranking", purpose="training", text="x" * 100_001
    )
    assert "x" * 100_001 in sent.text


# -- questions -------------------------------------------------------------------------------------


def test_questions_with_flags_first_and_answers(small, client):
    one, two = small.batch("ranking", tasks=2)
    guidelines.ask(small.db, small["ann"], one, "Is <i>irony</i> rude?")
    guidelines.ask(small.db, small["bob"], two, "Broken text", flag=True)
    lead = client("lead")
    page = lead.get("/lead/questions")
    assert words(page).index("bob flagged") < words(page).index("ann")
    assert "&lt;i&gt;irony" in page.text
    sent = lead.form(f"/lead/questions/{one}/l-ann", text="Not by itself.")
    assert sent.status_code == 303
    page = words(lead.get("/lead/questions"))
    assert "irony" not in page and "Broken text" in page
    said = [m.text for m in guidelines.thread(small.db, one, "l-ann")]
    assert said == ["Is <i>irony</i> rude?", "Not by itself."]


def test_answers_that_cannot_be_sent(small, client):
    (task,) = small.batch("ranking")
    lead = client("lead")
    assert lead.form(f"/lead/questions/{task}/l-ann", text="To what?").status_code == 422
    guidelines.ask(small.db, small["ann"], task, "Well?")
    assert lead.form(f"/lead/questions/{task}/l-ann", text=" ").status_code == 422
    assert lead.form("/lead/questions/none/l-ann", text="Yes.").status_code == 422


def test_no_questions(client):
    assert "No question waits" in words(client("lead").get("/lead/questions"))


# -- the survey ------------------------------------------------------------------------------------


def test_counts_appear_with_the_fifth_answer(small, client):
    for number in range(survey.LEAST_ANSWERS):
        page = words(client("lead").get("/lead/survey"))
        assert "South Asian" not in page
        assert f"{number} of at least 5" in page or (number == 0 and "Nobody" in page)
        person = small.person(f"person{number}")
        survey.answer_survey(small.db, person, {"ethnicity": ["south_asian", "other"]})
    page = words(client("lead").get("/lead/survey"))
    assert "5 people have answered" in page
    assert "South Asian 5" in page and "Southeast Asian 0" in page


# -- the audit log ---------------------------------------------------------------------------------


def test_events_newest_first(small, client):
    small.batch("ranking")
    client("lead").form("/lead/batches/b0/state", state="paused")
    client("lead").form("/lead/batches/b0/state", state="closed")
    admin = client("admin")
    page = words(admin.get("/lead/audit"))
    assert "as it was written" not in page  # nobody asked
    assert "Check the whole log" in page
    assert re.search(r"2 2023-11-14 22:13 UTC lead batch.state b0 \w{12} 1 2023", page)
    with small.db.read() as connection:
        end = audit.head(connection)
    checked = words(admin.get("/lead/audit?check=1"))
    assert "The log is as it was written" in checked
    assert end in checked


def test_a_changed_event_is_named(small, client):
    small.batch("ranking")
    for state in ("paused", "open", "closed"):
        client("lead").form("/lead/batches/b0/state", state=state)
    with small.db.write() as connection:
        for (trigger,) in connection.execute(
            sa.text("SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='audit'")
        ).all():
            connection.execute(sa.text(f'DROP TRIGGER "{trigger}"'))
        connection.execute(
            schema.audit.update().where(schema.audit.c.seq == 2).values(actor_id="l-nobody")
        )
    assert "Event 2 is missing or is not as it was written" in words(
        client("admin").get("/lead/audit?check=1")
    )


def test_the_log_page_by_page(small, client, monkeypatch):
    small.batch("ranking")
    for state in ("paused", "open", "closed"):
        client("lead").form("/lead/batches/b0/state", state=state)
    monkeypatch.setattr(lead_words, "EVENTS", 2)
    admin = client("admin")
    with small.db.read() as connection:
        last = audit.newest(connection, limit=1)[0].seq  # signing in is an event too
    seen, url = [], "/lead/audit"
    while url:
        page = admin.get(url)
        seen += re.findall(r'<td class="num">(\d+)</td>', page.text)
        older = re.search(r'href="(/lead/audit\?before=\d+)"', page.text)
        url = older and older[1]
    assert seen == [str(number) for number in range(last, 0, -1)]
    for query in ("soon", "-1", "²"):
        assert admin.get(f"/lead/audit?before={query}").status_code == 404


@pytest.mark.parametrize("name", ["lead", "viewer", "ann"])
def test_the_log_is_for_administrators(client, name):
    assert client(name).get("/lead/audit").status_code == 404
