"""The forms hold the paper's questions, each in words."""

from __future__ import annotations

from typing import get_args

from instil.labeling.forms import FORMS, SKIP_REASONS
from instil.records import FLAGS, PROMPT_FLAGS, USE_CASES, Kind, Rating, ToxicityRating


def test_every_kind_has_a_form():
    assert set(FORMS) == set(get_args(Kind))
    assert all(form.kind == kind for kind, form in FORMS.items())
    assert all(form.skip_reasons == SKIP_REASONS for form in FORMS.values())


def test_ranking_asks_for_table_3():
    form = FORMS["ranking"]
    assert tuple(flag.name for flag in form.flags) == FLAGS[:11]
    (overall,) = form.per_card
    assert (overall.name, overall.low, overall.high) == ("overall", 1, 7)
    Rating(response_id="r", labeler_id="l", overall=overall.high, flags=FLAGS[:11])
    assert form.seeds and form.ranks


def test_annotation_asks_for_table_7_and_the_use_cases_of_table_1():
    form = FORMS["annotation"]
    assert tuple(flag.name for flag in form.flags) == PROMPT_FLAGS
    assert tuple(one.name for one in form.use_cases) == USE_CASES


def test_toxicity_asks_what_figure_11_asks():
    form = FORMS["toxicity"]
    ranges = {q.name: (q.low, q.high) for q in (*form.per_prompt, *form.per_card)}
    assert ranges == {"input": (0, 2), "output": (0, 2), "relative": (-1, 1), "continuity": (1, 7)}
    for pick in ("low", "high"):
        ToxicityRating(
            response_id="r",
            labeler_id="l",
            **{
                name: getattr(question, pick)
                for name, question in zip(
                    ("input_toxicity", "output_toxicity", "relative_toxicity", "continuity"),
                    (*form.per_prompt, *form.per_card),
                    strict=True,
                )
            },
        )
    assert form.ranks and not form.seeds


def test_words_are_said_once_and_labels_fit_their_scale():
    for form in FORMS.values():
        for listed in (form.flags, form.use_cases, form.styles):
            assert len({one.text for one in listed}) == len(listed)
        for question in (*form.per_card, *form.per_prompt):
            assert all(question.low <= value <= question.high for value in question.labels)
