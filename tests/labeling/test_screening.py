"""labeling/screening.py: the paper's four measures, worked out by hand."""

from __future__ import annotations

import pytest

from instil.errors import InstilError
from instil.labeling.screening import SENSITIVE, Answers, CutOffs, answers, measures
from instil.records import FLAGS, Ranking, Rating


def ranking(prompt, tiers, labeler="candidate"):
    """ "a bc" puts a before b and c, which are tied."""
    return Ranking(
        prompt_id=prompt, labeler_id=labeler, tiers=tuple(tuple(tier) for tier in tiers.split())
    )


def rating(response, *flags):
    return Rating(response_id=response, labeler_id="candidate", overall=4, flags=flags)


def test_the_defaults_are_the_papers():
    assert CutOffs() == CutOffs(flags=0.75, rankings=0.75, demonstrations=6.0)
    assert set(SENSITIVE) <= set(FLAGS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flags", 75, "cut-off flags 75: give a share from 0 to 1"),
        ("rankings", -0.1, "cut-off rankings -0.1"),
        ("demonstrations", 0.9, "cut-off demonstrations 0.9: scores run from 1 to 7"),
    ],
)
def test_a_cut_off_in_the_wrong_unit_is_refused(name, value, message):
    with pytest.raises(InstilError, match=message):
        CutOffs(**{name: value})


def test_a_response_with_a_sensitive_flag_is_called_sensitive():
    ratings = [rating("r1", "rude", "violent"), rating("r2", "rude"), rating("r3")]
    found = answers([], ratings, prompts={"p1": True, "p2": False})
    assert found.sensitive == {"p1": True, "p2": False, "r1": True, "r2": False, "r3": False}
    assert answers([], ratings, flags=("rude",)).sensitive == {"r1": True, "r2": True, "r3": False}


def test_the_four_measures():
    candidate = Answers(
        {"r1": True, "r2": True, "r3": False, "r4": False, "only-here": True},
        (ranking("p1", "a b c"), ranking("p2", "a b"), ranking("p9", "a b")),
    )
    researcher = Answers(
        {"r1": True, "r2": False, "r3": False, "r4": False, "only-there": True},
        (ranking("p1", "a cb", "lea"), ranking("p2", "b a", "lea")),
    )
    scores = [("d1", 7), ("d1", 6), ("d2", 5), ("d2", 6)]
    found = measures(candidate, [researcher], scores, ["politics"])
    # texts r1, r3, r4 alike; kappa: chance 2/4 * 1/4 + 2/4 * 3/4 = 1/2, (3/4 - 1/2) / (1/2)
    assert (found.flags.mean, found.flags.n, found.flag_kappa) == (0.75, 4, 0.5)
    # p1: ab and ac alike, bc tied by the researcher; p2: not alike
    assert (found.rankings.mean, found.rankings.n) == (pytest.approx(2 / 3), 3)
    assert found.rankings.clusters == 2
    assert (found.demonstrations.mean, found.demonstrations.clusters) == (6.0, 2)
    assert found.topics == ("politics",)
    assert found.meets == {"flags": True, "rankings": False, "demonstrations": True}


def test_the_cut_offs_are_settings():
    candidate = Answers({"r1": True, "r2": True}, (ranking("p", "a b c"),))
    researcher = Answers({"r1": True, "r2": False}, (ranking("p", "b a c", "lea"),))
    strict = measures(candidate, [researcher], [("d", 5)], [])
    assert not any(strict.meets.values())
    low = CutOffs(flags=0.5, rankings=2 / 3, demonstrations=5)
    assert all(measures(candidate, [researcher], [("d", 5)], [], low).meets.values())


def test_each_researcher_counts():
    candidate = Answers({"r1": True}, (ranking("p", "a b"),))
    alike = Answers({"r1": True}, (ranking("p", "a b", "lea"),))
    unlike = Answers({"r1": False}, (ranking("p", "b a", "max"),))
    found = measures(candidate, [alike, alike, unlike, Answers()], [], [])
    assert found.flags.mean == found.rankings.mean == pytest.approx(2 / 3)
    assert found.flags.clusters == found.rankings.clusters == 1  # one text, one prompt


def test_who_flags_nothing_agrees_by_chance_only():
    texts = [f"r{n}" for n in range(10)]
    researcher = Answers({text: text in ("r0", "r1") for text in texts})
    found = measures(Answers(dict.fromkeys(texts, False)), [researcher], [], [])
    assert found.flags.mean == 0.8 and found.meets["flags"]
    assert found.flag_kappa == pytest.approx(0.0)


def test_nothing_measured_meets_nothing_and_fails_nothing():
    found = measures(Answers(), [], [], [])
    assert found.flags is found.flag_kappa is found.rankings is found.demonstrations is None
    assert found.meets == {"flags": None, "rankings": None, "demonstrations": None}


def test_a_score_off_the_scale_is_an_error():
    with pytest.raises(InstilError, match=r"demonstration scores \[0, 8\]"):
        measures(Answers(), [], [("d", 0), ("d", 7), ("d", 8)], [])
