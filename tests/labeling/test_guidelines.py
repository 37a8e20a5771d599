"""Guidelines keep their versions; questions find the lead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import audit, guidelines, schema
from instil.labeling.accounts import NotAllowed
from instil.records import Kind

KINDS = get_args(Kind)


def newest(db, kind="ranking", purpose="training"):
    with db.write() as connection:
        return guidelines.newest(connection, kind, purpose)


@pytest.mark.parametrize("kind", KINDS)
def test_instil_comes_with_a_text_for_every_kind(kind):
    text = guidelines.shipped(kind, "training")
    assert 300 < len(text.split()) < 700  # about a page
    assert "skip" in text.lower() and "ask" in text.lower()
    html = guidelines.html(text)
    assert html.count("<h2>") >= 3 and "<h1>" not in html


def test_what_comes_first_is_another_in_final_evaluations():
    training = guidelines.shipped("ranking", "training")
    evaluation = guidelines.shipped("ranking", "evaluation")
    assert "In this work helpful comes first" in training
    assert "**Truthful and harmless come first**" in evaluation
    assert "high stakes" in evaluation and "high stakes" not in training
    assert "Ties are welcome" in training and "Ties are welcome" in evaluation


def test_the_first_version_is_the_text_of_instil(db):
    first = newest(db)
    assert (first.version, first.author_id, first.text) == (
        1,
        None,
        guidelines.shipped("ranking", "training"),
    )
    assert newest(db) == first
    with db.read() as connection:
        assert guidelines.newest(connection, "ranking", "training") == first
        assert guidelines.find(connection, first.id) == first
        assert guidelines.find(connection, "no-such") is None


@pytest.mark.parametrize("purpose", ["gold", "screening"])
def test_gold_shows_what_training_shows(lite, purpose):
    assert newest(lite, "ranking", purpose) == newest(lite, "ranking", "training")
    assert newest(lite, "ranking", purpose) != newest(lite, "ranking", "evaluation")


def test_a_new_version_leaves_the_old_one_as_it_was(store):
    first = newest(store.db)
    second = guidelines.publish(store.db, store["lead"], "ranking", "training", "Be kind.\r\n\r\n")
    assert (second.version, second.text, second.author_id) == (2, "Be kind.\n", "l-lead")
    assert newest(store.db) == second and newest(store.db, "ranking", "evaluation").version == 1
    with store.db.read() as connection:
        assert guidelines.find(connection, first.id) == first
        assert audit.newest(connection)[0].action == "guideline.publish"
    assert [
        (one.kind, one.purpose, one.version)
        for one in guidelines.versions(store.db)
        if one.kind == "ranking"
    ] == [("ranking", "evaluation", 1), ("ranking", "training", 1), ("ranking", "training", 2)]


def test_all_kinds_are_listed_before_any_was_used(db):
    found = guidelines.versions(db)
    assert {(one.kind, one.purpose) for one in found} == {
        (kind, purpose) for kind in KINDS for purpose in ("training", "evaluation")
    }


def test_all_who_are_first_at_once_get_the_same(db):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: newest(db), range(8)))
    assert len({one.id for one in found}) == 1
    with db.read() as connection:
        count = sa.select(sa.func.count()).select_from(schema.guideline)
        assert connection.execute(count).scalar() == 1


def test_all_who_publish_at_once_are_kept(store):
    def publish(number):
        return guidelines.publish(store.db, store["lead"], "prompt", "training", f"Text {number}")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(publish, range(8)))
    assert sorted(one.version for one in found) == list(range(2, 10))


@pytest.mark.parametrize(
    ("who", "kind", "text", "error", "message"),
    [
        ("ann", "ranking", "x", NotAllowed, "only a lead may do this; your role is labeler"),
        ("viewer", "ranking", "x", NotAllowed, "your role is viewer"),
        ("lead", "ranking", " \n", InstilError, "a text of 1 to 100000 characters"),
        ("lead", "ranking", "x" * 100_001, InstilError, "a text of 1 to 100000 characters"),
        ("lead", "chess", "x", InstilError, "'chess', 'training': there is no such work"),
    ],
)
def test_what_cannot_be_published(small, who, kind, text, error, message):
    with pytest.raises(error, match=message):
        guidelines.publish(small.db, small[who], kind, "training", text)


def test_the_same_text_is_no_new_version(small):
    shipped = guidelines.shipped("ranking", "training")
    with pytest.raises(InstilError, match="this is version 1 already"):
        guidelines.publish(small.db, small["lead"], "ranking", "training", shipped)


def test_html_is_made_of_words_only():
    made = guidelines.html(
        "# A\n\n- *b* `c`\n\n<script>alert(1)</script> <b onclick=x>d</b>\n\n"
        "[e](https://f.g) ![h](i.png) <https://j.k> [l]\n\n[l]: https://m.n\n\n"
        "[x](javascript:alert(1)) &lt;img&gt;\n\n<!-- o -->"
    )
    assert "<h1>A</h1>" in made and "<em>b</em>" in made and "<code>c</code>" in made
    for tag in ("<a", "<img", "<script", "<b", "<!--", "href=", "src="):
        assert tag not in made, tag
    assert "&lt;script&gt;" in made and "[e](https://f.g)" in made


# -- questions -------------------------------------------------------------------------------------


def test_a_question_and_its_answer(store):
    (task,) = store.batch("ranking")
    guidelines.ask(store.db, store["ann"], task, " What is a tie? ")
    store.clock.pass_(minutes=1)
    (waiting,) = guidelines.open_threads(store.db)
    assert (waiting.task_id, waiting.labeler_id, waiting.name) == (task, "l-ann", "ann")
    assert not waiting.flagged
    guidelines.reply(store.db, store["lead"], task, "l-ann", "Two that are as good.")
    assert guidelines.open_threads(store.db) == []
    asked, answered = guidelines.thread(store.db, task, "l-ann")
    assert (asked.text, asked.by_labeler, asked.author_id) == ("What is a tie?", True, "l-ann")
    assert (answered.text, answered.by_labeler) == ("Two that are as good.", False)
    assert answered.created_at == asked.created_at + 60_000
    guidelines.ask(store.db, store["ann"], task, "And three?")
    assert len(guidelines.open_threads(store.db)[0].messages) == 3
    assert guidelines.thread(store.db, task, "l-bob") == []


def test_flags_come_first_then_who_waits_longest(store):
    tasks = store.batch("ranking", tasks=4)
    for task, who in zip(tasks, ("ann", "bob", "ann", "bob"), strict=True):
        guidelines.ask(store.db, store[who], task, "?", flag=task in tasks[2:])
    waiting = guidelines.open_threads(store.db)
    assert [one.task_id for one in waiting] == [tasks[2], tasks[3], tasks[0], tasks[1]]
    assert [one.flagged for one in waiting] == [True, True, False, False]
    guidelines.reply(store.db, store["lead"], tasks[2], "l-ann", "Retired.")
    guidelines.ask(store.db, store["ann"], tasks[2], "Thank you.")
    # the flag was answered
    assert [one.task_id for one in guidelines.open_threads(store.db)] == [
        *(tasks[3], tasks[0], tasks[1], tasks[2]),
    ]


def test_a_flag_may_be_without_words_and_nothing_else(small):
    (task,) = small.batch("ranking")
    guidelines.ask(small.db, small["ann"], task, "", flag=True)
    for text in ("", "  ", "x" * 4_001, "a\0b"):
        with pytest.raises(InstilError, match="write 1 to 4000 characters"):
            guidelines.ask(small.db, small["ann"], task, text)
    assert len(guidelines.thread(small.db, task, "l-ann")) == 1


def test_only_leads_answer_and_only_what_was_asked(small):
    (task,) = small.batch("ranking")
    with pytest.raises(InstilError, match=f"nobody asked about task {task}"):
        guidelines.reply(small.db, small["lead"], task, "l-ann", "Hello?")
    guidelines.ask(small.db, small["ann"], task, "Is it me?")
    for who in ("ann", "bob", "viewer"):
        with pytest.raises(NotAllowed):
            guidelines.reply(small.db, small[who], task, "l-ann", "Yes.")
    guidelines.ask(small.db, small["lead"], task, "Is it me?")
    with pytest.raises(InstilError, match="you asked this yourself"):
        guidelines.reply(small.db, small["lead"], task, "l-lead", "Yes.")
