"""Progress and batches: what a lead reads, and that a bad new batch leaves nothing."""

from __future__ import annotations

import html
import json
import re

import pytest
import sqlalchemy as sa

from instil.labeling import assign, guidelines, schema
from instil.labeling.web import lead

TABLES = ("batch", "task", "seat", "prompt", "response", "task_response", "audit")


def counts(db):
    with db.read() as connection:
        return {
            name: connection.execute(
                sa.select(sa.func.count()).select_from(schema.metadata.tables[name])
            ).scalar_one()
            for name in TABLES
        }


def words(response):
    """The text of a page, with blanks drawn together."""
    text = re.sub(r"(?s)<(head|svg)\b.*?</\1>|<[^>]+>", " ", response.text)
    return " ".join(text.split())


def problem(response):
    """What the page says went wrong."""
    (said,) = re.findall(r'(?s)role="alert"><p>(.*?)</p>', response.text)
    return html.unescape(said)


def jsonl(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


PROMPTS = [
    {"schema": "instil.prompt/1", "id": f"p{n}", "text": f"Prompt {n}?", "split": "test"}
    for n in range(2)
]
RESPONSES = [
    {
        "schema": "instil.response/1",
        "id": f"r{n}-{policy}",
        "prompt_id": f"p{n}",
        "text": f"Answer {n} of {policy}.",
        "policy": policy,
    }
    for policy in ("sft", "ppo")
    for n in range(2)
]
FIELDS = {
    "name": "final",
    "kind": "ranking",
    "purpose": "evaluation",
    "quota_training": "2",
    "quota_held_out": "1",
    "responses_per_task": "9",
    "word_budget": "0",
    "tasks": "0",
    "priority": "0",
    "baseline": "sft",
}


def send(visitor, prompts=None, responses=None, **fields):
    files = [("prompts", ("prompts.jsonl", jsonl(*PROMPTS) if prompts is None else prompts))]
    if responses is None:
        responses = {
            "sft.jsonl": jsonl(*RESPONSES[:2]),
            "ppo.jsonl": jsonl(*RESPONSES[2:]),
        }
    files += [("responses", item) for item in responses.items()]
    return visitor.upload("/lead/batches/new", FIELDS | fields, files)


# -- progress --------------------------------------------------------------------------------------


def test_without_work_the_page_says_what_to_do(client):
    page = client("lead").get("/lead")
    assert "There is no work yet" in words(page)
    assert 'href="/lead/batches/new"' in page.text
    assert 'href="/lead/batches/new"' not in client("viewer").get("/lead").text


def test_progress_by_pool(small, client, known):
    one, two, three = small.batch("ranking", "evaluation", tasks=3, training=2, held_out=1)
    del two, three
    assert assign.claim(small.db, small["ann"], "ranking") is not None
    known.say(small, one, "bob", known.ranked(small, one, "bob", "0 1 2 3"))
    known.say(small, one, "cid", known.ranked(small, one, "cid", "0 1"), status="surplus")
    known.say(small, one, "hal", {"skipped": "unclear"}, status="skipped")
    guidelines.ask(small.db, small["ann"], one, "", flag=True)
    page = words(client("lead").get("/lead"))
    row = page[page.index("batch 0") :]
    # bob's label has a seat of its own here, so of 3 x 2 + 1 training seats 1 is done and 1 held;
    # then surplus, skipped, flagged, for the batch as a whole
    assert "training 1 of 8 6 1 1 1 1" in row
    assert "held-out 0 of 4 4 0" in row


def test_closed_batches_come_last(small, client):
    small.batch("ranking")
    small.batch("annotation")
    lead = client("lead")
    assert lead.form("/lead/batches/b1/state", state="closed").status_code == 303
    page = words(lead.get("/lead"))
    assert page.index("batch 0") < page.index("batch 1 closed")


def test_questions_without_an_answer_are_counted(small, client):
    (task,) = small.batch("ranking")
    for name in ("ann", "bob"):
        guidelines.ask(small.db, small[name], task, "Which of them?")
    guidelines.ask(small.db, small["ann"], task, "Please?")
    guidelines.reply(small.db, small["lead"], task, small["bob"].id, "The first.")
    assert "Questions 1 without an answer" in words(client("lead").get("/lead"))


# -- a new batch -----------------------------------------------------------------------------------


def test_a_batch_from_files(small, client):
    lead = client("lead")
    sent = send(lead)
    assert sent.status_code == 303
    page = lead.get(sent.headers["location"])
    assert "Saved." in words(page)
    assert "Training labels 0 of 4 wanted; 4 free, 0 held" in words(page)
    assert "Held-out labels 0 of 2 wanted" in words(page)
    assert counts(small.db)["response"] == 4
    held = assign.claim(small.db, small["hal"], "ranking")
    assert held is not None


MANY = {f"{n}.jsonl": jsonl(*RESPONSES[:2]) for n in range(10)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": jsonl(*PROMPTS) + b'{"schema": \n'}, "prompts.jsonl:3:"),
        ({"prompts": jsonl(*RESPONSES)}, "prompts.jsonl:1: schema:"),
        ({"prompts": b"id,text\n1,Why?\n"}, "prompts.jsonl:1:1: not valid JSON"),
        ({"prompts": b""}, "sft.jsonl:1: prompt_id: 'p0' is not in prompts.jsonl"),
        (
            {"prompts": b"", "responses": {}, "kind": "annotation"},
            "prompts.jsonl: nothing is left for a batch (no prompts)",
        ),
        ({"prompts": jsonl(*PROMPTS[:1])}, "is not in prompts.jsonl"),
        ({"prompts": jsonl(PROMPTS[0] | {"txt": "?"})}, "prompts.jsonl:1: txt: unknown field"),
        ({"prompts": jsonl(*PROMPTS, PROMPTS[0])}, "prompts.jsonl:3: id: prompt 'p0' occurs twice"),
        ({"prompts": jsonl(*[p | {"split": "train"} for p in PROMPTS])}, "split train"),
        (
            {"responses": {"a.jsonl": jsonl(RESPONSES[0]), "b.jsonl": b'{"id": 1}'}},
            "b.jsonl:1: schema:",
        ),
        ({"responses": {"a.jsonl": b"\xff\xfe{}"}}, "a.jsonl:1:1: byte 0xff is not UTF-8"),
        ({"responses": {}}, "a file of responses or more"),
        ({"responses": MANY}, "at most 9"),
        ({"quota_training": "two"}, "labels by training labelers: 'two' is not a whole number"),
        ({"quota_training": "0", "quota_held_out": "0"}, "no label is wanted"),
        ({"purpose": "training"}, "held-out labelers never label for training"),
        ({"kind": "haiku"}, "kind 'haiku' is one of"),
        ({"name": " "}, "name the batch"),
        ({"responses_per_task": "10"}, "responses_per_task 10 is 2 to 9"),
    ],
)
def test_a_bad_batch_leaves_nothing_and_says_why(small, client, change, said):
    lead, before = client("lead"), counts(small.db)
    sent = send(lead, **change)
    assert sent.status_code == 422
    assert said in problem(sent)
    assert "/tmp" not in sent.text
    assert counts(small.db) == before


def test_what_was_typed_is_still_there(client):
    sent = send(client("lead"), name="the <last> one", quota_training="7", prompts=b"?")
    assert 'value="the &lt;last&gt; one"' in sent.text
    assert 'value="7"' in sent.text
    assert '<option value="evaluation" selected>' in sent.text


def test_the_same_batch_again_is_refused(small, client):
    lead = client("lead")
    send(lead)
    before = counts(small.db)
    again = send(lead, name="another name")
    assert again.status_code == 422
    assert "final" in words(again)
    assert counts(small.db) == before


# -- one batch -------------------------------------------------------------------------------------


def test_texts_that_name_their_author_are_listed(small, client):
    texts = [r | {"text": "I am GPT-4, at your service."} for r in RESPONSES[2:3]]
    responses = {"a.jsonl": jsonl(*RESPONSES[:2]), "b.jsonl": jsonl(*texts, RESPONSES[3])}
    lead = client("lead")
    page = lead.get(send(lead, responses=responses).headers["location"])
    assert "Texts that name their author" in page.text
    assert "“ I am GPT-4 ”" in words(page)


def test_what_was_left_out_is_counted(small, client):
    prompts = jsonl(*PROMPTS, PROMPTS[0] | {"id": "p9", "split": "train"})
    lead = client("lead")
    page = lead.get(send(lead, prompts=prompts).headers["location"])
    assert "prompts of split train 1" in words(page)


def test_pause_and_open(small, client):
    small.batch("ranking")
    lead = client("lead")
    lead.form("/lead/batches/b0/state", state="paused")
    assert assign.claim(small.db, small["ann"], "ranking") is None
    assert "paused" in words(lead.get("/lead/batches/b0"))
    lead.form("/lead/batches/b0/state", state="open")
    assert assign.claim(small.db, small["ann"], "ranking") is not None
    assert lead.form("/lead/batches/b0/state", state="burnt").status_code == 422
    assert lead.form("/lead/batches/none/state", state="open").status_code == 404


def test_tasks_page_by_page(small, client, monkeypatch):
    tasks = small.batch("ranking", tasks=5)
    monkeypatch.setattr(lead, "TASKS", 2)
    url, seen = "/lead/batches/b0", []
    while url:
        page = client("viewer").get(url)
        seen += [task for task in tasks if f">{task}<" in page.text]
        more = re.search(r'href="(/lead/batches/b0\?after=[^"]+)"', page.text)
        url = more and more[1]
    assert seen == sorted(tasks)


def test_viewers_change_nothing(small, client):
    small.batch("ranking")
    viewer = client("viewer")
    page = viewer.get("/lead/batches/b0")
    assert page.status_code == 200
    assert 'action="/lead' not in page.text
    assert "/lead/tasks/" not in page.text
    assert send(viewer).status_code == 404
    assert viewer.form("/lead/batches/b0/state", state="closed").status_code == 404


def test_an_unknown_batch(client):
    assert client("lead").get("/lead/batches/none").status_code == 404
