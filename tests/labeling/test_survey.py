"""The survey is answered once, and nothing leads from an answer to its labeler."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling import schema
from instil.labeling.accounts import account
from instil.labeling.survey import LEAST_ANSWERS, QUESTIONS, answer_survey, survey_counts

PEOPLE = ["ann", "bob", "cid", "hal", "han"]


def test_questions_are_demographics_and_satisfaction_on_five_points():
    assert [question.name for question in QUESTIONS] == [
        *("age", "gender", "ethnicity", "region", "education"),
        *("clear", "enjoyable", "repetitive", "paid_fairly", "glad"),
    ]
    for question in QUESTIONS:
        assert question.choices[-1][0] == "unsaid", question.name
    assert all(len(question.choices) == 5 + 1 for question in QUESTIONS[5:])


def test_counts_are_shown_from_five_answers_on(store):
    for number, name in enumerate(PEOPLE, start=1):
        assert survey_counts(store.db) == (number - 1, {})
        answers = {"age": "25-34", "ethnicity": ["white", "latinx"], "clear": "agree"}
        answer_survey(store.db, store[name], answers if name != "hal" else {"age": ""})
    n, counts = survey_counts(store.db)
    assert n == LEAST_ANSWERS == 5
    assert counts["age"]["25-34"] == 4 and counts["age"]["unsaid"] == 1
    assert counts["ethnicity"]["white"] == counts["ethnicity"]["latinx"] == 4
    assert counts["clear"] == {
        **dict.fromkeys([name for name, _ in QUESTIONS[5].choices], 0),
        **{"agree": 4, "unsaid": 1},
    }
    assert counts["glad"]["unsaid"] == 5


def test_once(store):
    assert not account(store.db, "l-ann").surveyed
    answer_survey(store.db, store["ann"], {})
    assert account(store.db, "l-ann").surveyed
    with pytest.raises(InstilError, match="answered the survey already"):
        answer_survey(store.db, store["ann"], {})
    assert survey_counts(store.db)[0] == 1


def test_nothing_leads_from_an_answer_to_its_labeler(store):
    for name in PEOPLE:
        answer_survey(store.db, store[name], {"gender": "woman"})
        store.clock.pass_(hours=1)
    with store.db.read() as connection:
        rows = connection.execute(sa.select(schema.survey)).mappings().all()
        columns = {column["name"] for column in sa.inspect(connection).get_columns("survey")}
        events = connection.execute(sa.select(sa.func.count()).select_from(schema.audit)).scalar()
        hidden = []
        for name in ("rowid",) if store.db.sqlite else ("xmin",):
            try:
                found = connection.exec_driver_sql(f"SELECT DISTINCT {name} FROM survey").fetchall()
                hidden.append(len(found))
            except sa.exc.OperationalError:
                hidden.append(0)  # no such column
    assert columns == {"id", "month", "answers"} and len({row["id"] for row in rows}) == 5
    assert {row["month"] for row in rows} == {"2023-11"}
    assert all(set(json.loads(row["answers"])) == {q.name for q in QUESTIONS} for row in rows)
    assert not any(name in str(rows) for name in (*PEOPLE, "l-"))
    assert events == 0  # an event would have the time
    # SQLite keeps no number of arrival, and in PostgreSQL all rows are of one transaction
    assert hidden == [0] if store.db.sqlite else [1]


def test_the_order_on_the_disk_is_not_that_of_arrival(store):
    people = [store.person(f"n{number}") for number in range(20)]
    for number, person in enumerate(people):
        answer_survey(store.db, person, {"age": QUESTIONS[0].choices[number // 4][0]})
    with store.db.read() as connection:
        answers = connection.execute(sa.select(schema.survey.c.answers)).scalars().all()
    ages = [json.loads(answer)["age"][0] for answer in answers]
    assert sorted(ages) == [QUESTIONS[0].choices[number // 4][0] for number in range(20)]
    assert ages != sorted(ages)  # 1 in 305,540,235,000 by chance


def test_all_who_answer_at_once_are_counted(store):
    people = [store.person(f"n{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda person: answer_survey(store.db, person, {}), people))
    assert survey_counts(store.db)[0] == 8


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"age": "old"}, "How old are you.*old: not one of the answers"),
        ({"age": ["18-24", "25-34"]}, "How old are you.*Choose one answer, not 2"),
        ({"ethnicity": ["white", "unsaid"]}, "Choose one answer, not 2"),
        ({"name": "Ann"}, "the survey has no question name"),
    ],
)
def test_what_is_no_answer(small, answers, message):
    with pytest.raises(InstilError, match=message):
        answer_survey(small.db, small["ann"], answers)
    assert not account(small.db, "l-ann").surveyed
