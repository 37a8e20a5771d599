"""Labelers, invitations, screening, settings."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from instil.labeling import accounts, people, quality, schema
from instil.labeling.past import judgements
from instil.labeling.settings import setting
from instil.labeling.web.figures import shown


def words(response):
    """The text of a page, with blanks drawn together."""
    text = re.sub(r"(?s)<(head|svg)\b.*?</\1>|<[^>]+>", " ", response.text)
    return " ".join(text.split())


# -- labelers --------------------------------------------------------------------------------------


def test_everybody_with_what_they_did(small, client, known):
    one, two = small.batch("ranking", tasks=2, training=0)
    said = known.ranked(small, one, "ann", "0 1 2 3")
    known.say(small, one, "ann", said, revisions=[said])
    known.say(small, two, "ann", {"skipped": "unclear"}, status="skipped")
    page = words(client("lead").get("/lead/labelers"))
    row = page[page.index("ann labeler training") :]
    assert "all 1 1 2023-11-14 22:13 UTC" in row  # one label, revised, and one skipped
    assert "bob labeler training" in page


def test_an_invitation_is_shown_once(small, client):
    lead = client("lead")
    made = lead.form("/lead/invitations", role="labeler", pool="held-out", kinds=["ranking"])
    (link,) = re.findall(r"http://127.0.0.1:8000/invitations/([\w-]+)", made.text)
    assert link not in lead.get("/lead/labelers").text
    invited = people.invited(small.db, link)
    assert (invited.role, invited.pool, invited.kinds) == ("labeler", "held-out", ("ranking",))
    account = people.accept(small.db, link, "Ida", "a long password")
    assert accounts.account(small.db, account.id).pool == "held-out"


def test_a_link_for_a_new_password(small, client):
    made = client("lead").form("/lead/invitations", labeler_id="l-ann")
    (link,) = re.findall(r"/invitations/([\w-]+)", made.text)
    assert people.invited(small.db, link).account.id == "l-ann"
    assert client("lead").form("/lead/invitations", labeler_id="l-nobody").status_code == 404


def test_leads_invite_labelers_only(small, client):
    refused = client("lead").form("/lead/invitations", role="admin", pool="training")
    assert refused.status_code == 422
    assert "/invitations/" not in refused.text.replace('action="/lead/invitations"', "")
    assert 'value="admin"' not in client("lead").get("/lead/labelers").text
    made = client("admin").form("/lead/invitations", role="lead", pool="training")
    assert "/invitations/" in words(made)


def test_one_person(small, client, known):
    (task,) = small.batch("ranking", responses=3, training=0)
    for name, tiers in (("ann", "0 1 2"), ("bob", "0 2 1")):
        known.say(small, task, name, known.ranked(small, task, name, tiers))
    with small.db.read() as connection:
        (ann, _) = quality.per_labeler(judgements(connection))
    page = words(client("lead").get("/lead/labelers/l-ann"))
    said = shown(ann.others)
    assert said.value == "66.7 %"
    assert f"With others {said.value} {said.interval} {said.counts}" in page
    assert client("lead").get("/lead/labelers/l-nobody").status_code == 404


def test_without_labels_the_page_says_so(client):
    assert "No rankings yet" in words(client("lead").get("/lead/labelers/l-ann"))


def test_changing_a_labeler(small, client):
    sent = client("lead").form("/lead/labelers/l-ann", kinds=["ranking", "toxicity"])
    assert sent.status_code == 303
    ann = accounts.account(small.db, "l-ann")
    assert ann.kinds == ("ranking", "toxicity")
    assert not ann.active  # the box was not ticked


def test_a_pool_that_was_decided_stays(small, client):
    sent = client("lead").form("/lead/labelers/l-hal", pool="training", active="yes")
    assert sent.status_code == 422
    assert accounts.account(small.db, "l-hal").pool == "held-out"


def test_leads_change_labelers_only(small, client):
    assert client("lead").form("/lead/labelers/l-admin", active="yes").status_code == 422
    assert client("lead").form("/lead/labelers/l-ann", role="lead").status_code == 422
    assert accounts.account(small.db, "l-ann").role == "labeler"
    assert (
        client("admin").form("/lead/labelers/l-ann", role="lead", active="yes").status_code == 303
    )
    assert accounts.account(small.db, "l-ann").role == "lead"


# -- screening -------------------------------------------------------------------------------------


@pytest.fixture
def screened(small, known):
    """kim orders one pair of three like the lead, and wrote one demonstration; its label."""
    (ranking,) = small.batch("ranking", "screening", responses=3, training=0)
    (writing,) = small.batch("demonstration", "screening", training=0)
    key = known.ranked(small, ranking, "lead", "0 1 2")
    known.say(small, ranking, "lead", key, status="key")
    said = known.ranked(small, ranking, "kim", "2 0 1")
    known.say(small, ranking, "kim", said, status="screening")
    text = "<script>Tea.</script>"
    demonstration = {"demonstration": {"prompt_id": "p", "labeler_id": "l-kim", "text": text}}
    return known.say(small, writing, "kim", demonstration, status="screening")


def test_measures_beside_the_cut_offs(screened, client):
    page = client("lead").get("/lead/screening")
    row = words(page)[words(page).index("kim 2 tasks done") :]
    assert "100.0 %" in row  # of flags: none of both
    assert "33.3 %" in row and "below" in row and "not measured" in row
    assert "cut-off 75 %" in words(page) and "cut-off 6.0 of 7" in words(page)
    assert "&lt;script&gt;Tea." in page.text
    assert "Settings" not in words(page)  # those are the administrator's


def test_scores_of_a_demonstration(small, screened, client):
    lead = client("lead")
    for value in ("5", "7"):
        assert lead.form(f"/lead/scores/{screened}", value=value).status_code == 303
    client("admin").form(f"/lead/scores/{screened}", value="6")
    page = words(lead.get("/lead/screening"))
    assert "you gave 7 · 2 scores" in page
    assert "6.50" in page
    with small.db.read() as connection:
        scores = sa.select(schema.score.c.value).order_by(schema.score.c.value)
        assert connection.execute(scores).scalars().all() == [6, 7]


@pytest.mark.parametrize("value", ["0", "8", "", "5.5", "five"])
def test_scores_run_from_1_to_7(screened, client, value):
    assert client("lead").form(f"/lead/scores/{screened}", value=value).status_code == 422


def test_only_demonstrations_of_candidates_are_scored(small, screened, client, known):
    (task,) = small.batch("ranking", responses=2, training=0)
    label = known.say(small, task, "ann", known.ranked(small, task, "ann", "0 1"))
    (writing,) = small.batch("demonstration", training=0)
    text = {"demonstration": {"prompt_id": "p", "labeler_id": "l-ann", "text": "Tea."}}
    work = known.say(small, writing, "ann", text)
    for one in (label, work, "none"):
        assert client("lead").form(f"/lead/scores/{one}", value="5").status_code == 404


@pytest.mark.parametrize(
    ("decision", "pool", "active"),
    [
        ("training", "training", True),
        ("held-out", "held-out", True),
        ("decline", "candidate", False),
    ],
)
def test_the_lead_decides(small, screened, client, decision, pool, active):
    assert client("lead").form("/lead/screening/l-kim", decision=decision).status_code == 303
    kim = accounts.account(small.db, "l-kim")
    assert (kim.pool, kim.active) == (pool, active)
    assert "kim" in words(client("lead").get("/lead/screening"))


def test_decisions_that_are_none(small, client):
    lead = client("lead")
    assert lead.form("/lead/screening/l-kim", decision="maybe").status_code == 422
    assert lead.form("/lead/screening/l-ann", decision="decline").status_code == 404
    assert lead.form("/lead/screening/l-nobody", decision="decline").status_code == 404
    assert accounts.account(small.db, "l-ann").active


def test_nobody_to_screen(small, client):
    with small.db.write() as connection:
        connection.execute(schema.labeler.delete().where(schema.labeler.c.id == "l-kim"))
    page = words(client("lead").get("/lead/screening"))
    assert "Nobody is being screened" in page
    assert "No demonstration waits for a score" in page


# -- settings --------------------------------------------------------------------------------------


def test_cut_offs_are_settings(small, screened, client):
    admin = client("admin")
    assert admin.form("/lead/settings", cut_off_rankings="0.3", gold_share="0.1").status_code == 303
    with small.db.read() as connection:
        assert setting(connection, "cut_off_rankings") == 0.3
        assert setting(connection, "gold_share") == 0.1
        assert setting(connection, "repeat_share") == 0.04
    page = words(admin.get("/lead/screening"))
    assert "cut-off 30 %" in page
    row = page[page.index("kim 2 tasks done") :]
    assert "below" not in row


@pytest.mark.parametrize("typed", ["2", "-1", "many", "nan", ""])
def test_settings_out_of_bounds_are_refused(small, client, typed):
    sent = client("admin").form("/lead/settings", cut_off_flags=typed)
    assert sent.status_code == 422
    assert "cut_off_flags" in words(sent)
    with small.db.read() as connection:
        assert setting(connection, "cut_off_flags") == 0.75


def test_only_administrators_set(client):
    assert client("lead").form("/lead/settings", gold_share="0.2").status_code == 404
