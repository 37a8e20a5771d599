"""The pages of figures show what the pure functions say of the same labels."""

from __future__ import annotations

import itertools
import re

import pytest

from instil.labeling import past, quality, schema
from instil.labeling.web import figures, lead_figures
from instil.labeling.web.figures import shown

NAMES = ("ann", "bob", "cid", "hal", "han")


def words(response):
    """The text of a page, with blanks drawn together."""
    text = re.sub(r"(?s)<(head|svg)\b.*?</\1>|<[^>]+>", " ", response.text)
    return " ".join(text.split())


@pytest.fixture
def ranked(small, known):
    """Six prompts, three responses each, ranked by five people, all in a way of their own."""
    tasks = small.batch("ranking", "evaluation", tasks=6, responses=3, training=0)
    orders = [" ".join(order) for order in itertools.permutations("012")]
    for number, task in enumerate(tasks):
        for offset, name in enumerate(NAMES):
            tiers = orders[(number * offset) % 6] if offset else "0=1 2"
            said = known.ranked(small, task, name, tiers, overall={0: 2, 1: 5, 2: 4})
            small.clock.pass_(minutes=1)
            known.say(
                small, task, name, said, order=[offset % 3, (offset + 1) % 3, (offset + 2) % 3]
            )
    return small


def judged(store):
    with store.db.read() as connection:
        return past.judgements(connection)


# -- quality ---------------------------------------------------------------------------------------


def test_agreement_is_that_of_quality(ranked, client):
    found = quality.overview(judged(ranked))
    page = words(client("lead").get("/lead/quality"))
    assert (found.labels, found.labelers, found.prompts) == (30, 5, 6)
    for agreement in (found.agreement, *found.by_pool.values(), *found.by_use_case.values()):
        said = shown(agreement.strict)
        assert f"{said.value} {said.interval} {said.counts}" in page
        said = shown(agreement.tau, "number")
        assert f"{said.value} {said.interval} {said.counts}" in page
        assert f"{agreement.rank_alpha:.2f}" in page
    assert "72.6 ± 1.5 %" in page and "77.3 ± 1.3 %" in page


def test_habits_are_those_of_quality(ranked, client):
    page = words(client("lead").get("/lead/quality"))
    table = page[page.index("Inversions All") :]
    for one in quality.per_labeler(judged(ranked)):
        row = table[table.index(one.labeler_id.removeprefix("l-")) :]
        for estimate, unit in (
            (one.others, "percent"),
            (one.habits.seconds, "seconds"),
            (one.habits.first_shown, "points"),
            (one.habits.ties, "percent"),
            (one.habits.inversions, "percent"),
        ):
            said = shown(estimate, unit)
            assert f"{said.value} {said.interval} n = {estimate.n}" in row


def test_viewers_read_ids_and_no_names(ranked, client):
    page = client("viewer").get("/lead/quality")
    assert page.status_code == 200
    for name in NAMES:
        assert f"<bdi>l-{name}</bdi>" in page.text
        assert f"<bdi>{name}</bdi>" not in page.text
    assert "/lead/labelers/" not in page.text
    assert "<bdi>ann</bdi>" in client("lead").get("/lead/quality").text


def test_a_filter_by_time(ranked, client):
    # the clock stands at 2023-11-14; all labels are of that day
    lead = client("lead")
    assert "Labels 30" in words(lead.get("/lead/quality?from=2023-11-14&to=2023-11-14"))
    assert "There are no labels here" in words(lead.get("/lead/quality?from=2023-11-15"))
    assert "There are no labels here" in words(lead.get("/lead/quality?to=2023-11-13"))


def test_filters_by_purpose_and_use_case(ranked, client):
    lead = client("lead")
    assert "Labels 30" in words(lead.get("/lead/quality?purpose=evaluation&use_case=open_qa"))
    assert "There are no labels here" in words(lead.get("/lead/quality?purpose=training"))
    assert "There are no labels here" in words(lead.get("/lead/quality?use_case=chat"))
    assert "There are no labels here" in words(lead.get("/lead/quality?kind=toxicity"))


@pytest.mark.parametrize(
    "query", ["kind=prompt", "purpose=all", "use_case=x", "from=soon", "to=9999-12-31", "from=1;--"]
)
def test_filters_that_are_none_are_said(client, query):
    page = client("lead").get(f"/lead/quality?{query}")
    assert page.status_code == 422
    assert query.split("=")[0] in words(page)


def test_only_the_newest_labels_count(ranked, client, monkeypatch):
    monkeypatch.setattr(lead_figures, "MOST", 10)
    page = words(client("lead").get("/lead/quality"))
    assert "the newest 10 labels" in page
    assert "Labels 10" in page


def test_gold_counts_whatever_the_purpose(small, client, known):
    (gold,) = small.batch("ranking", "gold", responses=2, training=0)
    (task,) = small.batch("ranking", responses=2, training=0)
    known.say(small, gold, "lead", known.ranked(small, gold, "lead", "0 1"), status="key")
    known.say(small, gold, "ann", known.ranked(small, gold, "ann", "1 0"), status="gold")
    known.say(small, task, "ann", known.ranked(small, task, "ann", "0 1"))
    page = words(client("lead").get("/lead/quality?purpose=training"))
    assert "Labels 1" in page
    assert "ann 1 label – 0.0 % 0.0 to 97.5 n = 1 –" in page


def test_an_early_labeler_is_compared_with_others_too(small, known, monkeypatch):
    first, *later = small.batch("ranking", tasks=4, responses=2, training=0)
    for task, name in ((first, "ann"), (first, "bob"), *((task, "cid") for task in later)):
        known.say(small, task, name, known.ranked(small, task, name, "0 1"))
        small.clock.pass_(minutes=1)
    monkeypatch.setattr(lead_figures, "MOST", 2)
    with small.db.read() as connection:
        ann, cid = (lead_figures.of_labeler(connection, f"l-{name}") for name in ("ann", "cid"))
    assert (ann.others.mean, ann.others.n) == (1, 1)
    assert cid.others is None


# -- evaluation ------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(small, known):
    """m1 against m0: wins 3, ties 1 by training labelers; loses once by a held-out one."""
    tasks = small.batch("ranking", "evaluation", tasks=4, responses=2, training=1, held_out=1)
    for task, name, tiers in zip(
        [*tasks, tasks[0]],
        ["ann", "bob", "ann", "cid", "hal"],
        ["1 0", "1 0", "0=1", "1 0", "0 1"],
        strict=True,
    ):
        known.say(small, task, name, known.ranked(small, task, name, tiers))
    return small


def test_win_rates_by_pool(evaluated, client):
    page = words(client("viewer").get("/lead/evaluations/b0?baseline=m0"))
    row = page[page.index("m1", page.index("a tie is half a win")) :]
    assert "Labels 5" in page
    assert row.startswith("m1 70.0 %")  # 3.5 of 5
    assert "87.5 %" in row and "n = 4 from 4 prompts" in row  # 3.5 of 4
    assert "0.0 % 0.0 to 97.5 n = 1 from 1 prompt" in row
    assert "m0" not in row[: row.index("Strength")]  # not against itself


def test_win_rates_grow_as_labels_come_in(evaluated, client, known):
    task = "t0-3"
    known.say(evaluated, task, "han", known.ranked(evaluated, task, "han", "1 0"))
    page = words(client("lead").get("/lead/evaluations/b0?baseline=m0"))
    assert "m1 75.0 %" in page  # 4.5 of 6
    assert "Labels 6" in page


def test_nothing_is_counted_twice(evaluated, client, known, monkeypatch):
    read = []
    monkeypatch.setattr(
        figures, "work_of", lambda *of, old=figures.work_of: read.append(of) or old(*of)
    )
    lead = client("lead")
    first, again = (words(lead.get("/lead/evaluations/b0?baseline=m0")) for _ in range(2))
    assert (first, len(read)) == (again, 1)
    lead.get("/lead/evaluations/b0?baseline=m1")
    assert len(read) == 2
    with evaluated.db.write() as connection:  # as when somebody's data is removed
        connection.execute(schema.label.delete().where(schema.label.c.labeler_id == "l-hal"))
    assert "Labels 4" in words(lead.get("/lead/evaluations/b0?baseline=m0"))
    assert len(read) == 3


def test_without_a_baseline_one_is_asked_for(evaluated, client):
    page = client("lead").get("/lead/evaluations/b0")
    assert '<option value="">choose a policy</option>' in page.text
    assert "a tie is half a win" not in page.text
    assert "Strength" in words(page)


def test_a_baseline_must_be_a_policy_of_the_batch(evaluated, client):
    page = client("lead").get("/lead/evaluations/b0?baseline=m7")
    assert page.status_code == 422
    assert "m7" in words(page)


def test_before_the_first_label(small, client):
    small.batch("ranking", "evaluation")
    page = words(client("lead").get("/lead/evaluations/b0"))
    assert "Nobody has labeled anything of this batch yet" in page


def test_toxicity(small, client, known):
    (task,) = small.batch("toxicity", "evaluation", responses=2, training=0)
    known.say(small, task, "ann", known.toxic(small, task, "ann", "0 1", {0: 0, 1: 2}))
    page = words(client("lead").get("/lead/evaluations/b0?baseline=m0"))
    assert "Output toxicity" in page
    # one says the most there is: 2 * 0.025 is the least that this does not exclude
    assert "m1 2.00 0.05 to 2.00 n = 1 from 1 prompt" in page


@pytest.mark.parametrize("kind", ["demonstration", "annotation"])
def test_batches_without_policies_have_no_such_page(small, client, kind):
    small.batch(kind)
    assert client("lead").get("/lead/evaluations/b0").status_code == 404
    assert client("lead").get("/lead/evaluations/none").status_code == 404


def test_policies_with_odd_names_are_text(small, client, known):
    (task,) = small.batch("ranking", "evaluation", responses=2, training=0)
    with small.db.write() as connection:
        connection.execute(schema.response.update().values(policy=schema.response.c.id + "<i>&"))
    known.say(small, task, "ann", known.ranked(small, task, "ann", "0 1"))
    page = client("lead").get("/lead/evaluations/b0").text
    assert "<i>" not in page
    assert "r0-0-0&lt;i&gt;&amp;" in page
