"""The survey: who the labelers are, and how they find the work  [Ouyang et al. 2022, appendix B].

It is kept apart from labels: who answered is known, and never what. An answer is stored under a
random id, without labeler or time but the month, and every new one rewrites them all in random
order, so that not even the place on the disk says which was last. For the same reason the audit
log does not tell of it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from time import gmtime, strftime

import sqlalchemy as sa

from instil.errors import InstilError
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.labeling.schema import labeler, survey

LEAST_ANSWERS = 5
"""With fewer, nothing is shown: who said what could be guessed."""

_UNSAID = ("unsaid", "I prefer not to say")
_AGREEMENT = (
    ("strongly_agree", "Strongly agree"),
    ("agree", "Agree"),
    ("neither", "Neither agree nor disagree"),
    ("disagree", "Disagree"),
    ("strongly_disagree", "Strongly disagree"),
    _UNSAID,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyQuestion:
    """One question of the survey."""

    name: str
    text: str
    choices: tuple[tuple[str, str], ...]
    """(name, text) of each; the last is not to say."""
    many: bool = False
    """May several choices be ticked?"""


QUESTIONS = (
    SurveyQuestion(
        name="age",
        text="How old are you?",
        choices=(
            ("18-24", "18 to 24"),
            ("25-34", "25 to 34"),
            ("35-44", "35 to 44"),
            ("45-54", "45 to 54"),
            ("55-64", "55 to 64"),
            ("65", "65 or older"),
            _UNSAID,
        ),
    ),
    SurveyQuestion(
        name="gender",
        text="What is your gender?",
        choices=(
            ("woman", "Woman"),
            ("man", "Man"),
            ("other", "Nonbinary or another"),
            _UNSAID,
        ),
    ),
    SurveyQuestion(
        name="ethnicity",
        text="Which of these describe you?",
        choices=(
            ("black", "Black"),
            ("east_asian", "East Asian"),
            ("indigenous", "Indigenous"),
            ("latinx", "Latinx"),
            ("middle_eastern", "Middle Eastern or North African"),
            ("south_asian", "South Asian"),
            ("southeast_asian", "Southeast Asian"),
            ("white", "White"),
            ("other", "Another"),
            _UNSAID,
        ),
        many=True,
    ),
    SurveyQuestion(
        name="region",
        text="Where do you come from?",
        choices=(
            ("africa", "Africa"),
            ("east_asia", "Central or East Asia"),
            ("europe", "Europe"),
            ("middle_east", "Middle East"),
            ("north_america", "North America"),
            ("oceania", "Oceania"),
            ("south_america", "South America, Central America or the Caribbean"),
            ("south_asia", "South Asia"),
            ("southeast_asia", "Southeast Asia"),
            _UNSAID,
        ),
    ),
    SurveyQuestion(
        name="education",
        text="What is the highest degree that you have?",
        choices=(
            ("none", "None"),
            ("school", "High school"),
            ("undergraduate", "Undergraduate degree"),
            ("master", "Master's degree"),
            ("doctorate", "Doctorate"),
            _UNSAID,
        ),
    ),
    SurveyQuestion(name="clear", text="It was clear what I should do.", choices=_AGREEMENT),
    SurveyQuestion(name="enjoyable", text="I enjoyed the work.", choices=_AGREEMENT),
    SurveyQuestion(name="repetitive", text="The work was repetitive.", choices=_AGREEMENT),
    SurveyQuestion(name="paid_fairly", text="I was paid fairly.", choices=_AGREEMENT),
    SurveyQuestion(name="glad", text="All in all, I am glad that I did it.", choices=_AGREEMENT),
)
"""Demographics, then satisfaction on five points: what the paper reports of its labelers."""


def answer_survey(
    db: Database, account: Account, answers: Mapping[str, str | Sequence[str]]
) -> None:
    """Store one person's answers, once, apart from the person.

    answers  name of a question -> the name of its choice, or several where they may be ticked

    What is left out counts as unsaid. Raises InstilError for an unknown answer, or a second time.
    """
    if unknown := set(answers) - {question.name for question in QUESTIONS}:
        raise InstilError(f"the survey has no question {', '.join(sorted(unknown))}")
    kept = {question.name: _checked(question, answers.get(question.name)) for question in QUESTIONS}
    month = strftime("%Y-%m", gmtime(db.now() / 1000))
    with db.write() as connection:
        first = labeler.update().where(labeler.c.id == account.id, ~labeler.c.surveyed)
        if not connection.execute(first.values(surveyed=True)).rowcount:
            raise InstilError("you have answered the survey already; thank you")
        before = connection.execute(survey.delete().returning(survey)).mappings()
        rows = [dict(row) for row in before]
        rows.append({"id": secrets.token_hex(16), "month": month, "answers": json.dumps(kept)})
        SystemRandom().shuffle(rows)
        connection.execute(survey.insert(), rows)


def survey_counts(db: Database) -> tuple[int, dict[str, dict[str, int]]]:
    """How many answered, and for each question how often each choice was given.

    While fewer than LEAST_ANSWERS have, the counts are empty.
    """
    with db.read() as connection:
        rows = connection.execute(sa.select(survey.c.answers)).scalars()
        answers = [json.loads(row) for row in rows]
    if len(answers) < LEAST_ANSWERS:
        return len(answers), {}
    counts = {}
    for question in QUESTIONS:
        given = Counter(choice for one in answers for choice in one.get(question.name, ()))
        counts[question.name] = {name: given[name] for name, _ in question.choices}
    return len(answers), counts


def _checked(question: SurveyQuestion, given: str | Sequence[str] | None) -> list[str]:
    names = [given] if isinstance(given, str) else list(given or ())
    chosen = sorted({name for name in names if name}) or [_UNSAID[0]]
    if odd := set(chosen) - {name for name, _ in question.choices}:
        raise InstilError(f"{question.text} {', '.join(sorted(odd))}: not one of the answers")
    if len(chosen) > 1 and (not question.many or _UNSAID[0] in chosen):
        raise InstilError(f"{question.text} Choose one answer, not {len(chosen)}")
    return chosen
