"""The page of one task: policies for the lead, every revision, the questions."""

from __future__ import annotations

import re

import pytest

from instil.labeling import assign, guidelines
from instil.labeling.web.lead_task import lines


def words(response):
    """The text of a page, with blanks drawn together."""
    return " ".join(re.sub(r"(?s)<head>.*?</head>|<[^>]+>", " ", response.text).split())


def test_everything_that_was_said(small, client, known):
    (task,) = small.batch("ranking", responses=3, texts=["One.", "Two.", "Three."], training=0)
    first = known.ranked(small, task, "ann", "0 1 2")
    second = known.ranked(small, task, "ann", "2 0=1", flags={0: ["hallucination"]})
    known.say(small, task, "ann", first, revisions=[second], order=[2, 0, 1])
    known.say(small, task, "bob", {"skipped": "expertise", "note": "Welsh"}, status="skipped")
    guidelines.ask(small.db, small["bob"], task, "Is <b>this</b> Welsh?", flag=True)
    page = client("lead").get(f"/lead/tasks/{task}")
    text = words(page)
    assert "What is 0 and 0?" in text
    assert "1 · m0 One. 2 · m1 Two. 3 · m2 Three." in text
    assert "ann training accepted shown as 3, 1, 2" in text
    assert text.index("Revision 1") < text.index("1 › 2 › 3") < text.index("Revision 2")
    assert text.index("Revision 2") < text.index("3 › 1 = 2") < text.index("hallucination")
    assert "bob training skipped" in text
    assert "Skipped expertise Note Welsh" in text
    assert "Is &lt;b&gt;this&lt;/b&gt; Welsh?" in page.text


def test_a_retired_task_is_not_handed_out(small, client):
    (task,) = small.batch("ranking")
    lead = client("lead")
    assert lead.form(f"/lead/tasks/{task}/state", state="retired").status_code == 303
    assert assign.claim(small.db, small["ann"], "ranking") is None
    assert "Open again" in words(lead.get(f"/lead/tasks/{task}"))
    lead.form(f"/lead/tasks/{task}/state", state="open")
    assert assign.claim(small.db, small["ann"], "ranking") is not None


def test_states_and_tasks_that_are_none(small, client):
    (task,) = small.batch("ranking")
    lead = client("lead")
    assert lead.form(f"/lead/tasks/{task}/state", state="eaten").status_code == 422
    assert lead.form("/lead/tasks/none/state", state="open").status_code == 404
    assert lead.get("/lead/tasks/none").status_code == 404


def test_a_task_without_a_prompt(small, client):
    (task,) = small.batch("prompt")
    assert client("lead").get(f"/lead/tasks/{task}").status_code == 200


@pytest.mark.parametrize("name", ["ann", "viewer"])
def test_only_leads_see_who_wrote_what(small, client, name):
    (task,) = small.batch("ranking")
    assert client(name).get(f"/lead/tasks/{task}").status_code == 404


def test_what_a_label_says(small, known):
    (task,) = small.batch("ranking", responses=3, training=0)
    said = known.ranked(small, task, "ann", "2 0=1", overall={0: 3, 2: 7}, flags={0: ["rude"]})
    said |= {"notes": {"r0-0-2": "dry"}, "remark": "hard"}
    numbers = {f"r0-0-{place}": place + 1 for place in range(3)}
    assert lines(said, numbers) == [
        ("Best to worst", "3 › 1 = 2"),
        ("Ratings", "1: 3, 3: 7"),
        ("Flags of 1", "rude"),
        ("Note on 3", "dry"),
        ("Remark", "hard"),
    ]


def test_what_other_kinds_of_labels_say(small, known):
    assert lines({"skipped": "other", "note": "no Welsh"}, {}) == [
        ("Skipped", "other"),
        ("Note", "no Welsh"),
    ]
    assert lines({"demonstration": {"text": "Tea."}}, {}) == [("Demonstration", "Tea.")]
    annotation = {"annotation": {"use_case": "chat", "flags": ["advice"]}}
    assert lines(annotation, {}) == [("Use case", "chat"), ("Flags", "advice")]
    prompt = {"style": "plain", "prompts": [{"text": "Why?"}]}
    assert lines(prompt, {}) == [("Style", "plain"), ("Prompt", "Why?")]
    refused = {"ranking": None, "ratings": [], "not_rankable": True, "why": "all wrong"}
    assert lines(refused, {}) == [("None acceptable", "all wrong")]
    toxicity = {"response_id": "r", "input_toxicity": 0, "output_toxicity": 2}
    toxicity |= {"relative_toxicity": 1, "continuity": 6}
    assert lines(
        {"ranking": {"tiers": [["r"], ["s"]]}, "toxicity": [toxicity]}, {"r": 1, "s": 2}
    ) == [
        ("Best to worst", "1 › 2"),
        ("Toxicity of 1", "input 0, output 2, relative 1, continuity 6"),
    ]
