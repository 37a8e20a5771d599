"""labeling/panel.py: the labels of one prompt as arrays, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from instil.labeling.panel import meet, panels
from instil.labeling.quality import Judgement
from instil.records import Ranking, Rating

NAN = np.nan


def label(labeler, tiers, prompt="p", **more):
    """A judgement; tiers "a bc" puts a before b and c, which are tied; "" is not rankable."""
    parts = tuple(map(tuple, tiers.split()))
    ranking = Ranking(prompt_id=prompt, labeler_id=labeler, tiers=parts) if parts else None
    more = {"label_id": f"{labeler} {tiers}"} | more
    return Judgement(labeler_id=labeler, prompt_id=prompt, ranking=ranking, **more)


def rating(labeler, response, overall, *flags):
    return Rating(response_id=response, labeler_id=labeler, overall=overall, flags=flags)


def alike(found, wanted):
    return np.array_equal(found, np.array(wanted, dtype=float), equal_nan=True)


def test_a_panel_of_a_prompt():
    two, one = panels([label("ann", "a bc"), label("bob", "c d"), label("ann", "x y", "q")])
    assert two.response_ids == ["a", "b", "c", "d"]
    assert alike(two.ranks, [[1, 2, 2, NAN], [NAN, NAN, 1, 2]])
    # of ab, ac, ad, bc, bd, cd
    assert alike(two.orders, [[-1, -1, NAN, 0, NAN, NAN], [NAN, NAN, NAN, NAN, NAN, -1]])
    assert alike(two.places, [[0, 0.75, 0.75, NAN], [NAN, NAN, 0, 1]])
    assert one.response_ids == ["x", "y"]


def test_ratings_without_a_ranking():
    ratings = (rating("ann", "a", 2, "rude"), rating("ann", "c", 6))
    (panel,) = panels([label("ann", "", ratings=ratings), label("bob", "a b")])
    assert alike(panel.overall, [[2, NAN, 6], [NAN, NAN, NAN]])
    assert alike(panel.flagged("rude"), [[1, NAN, 0], [NAN, NAN, NAN]])
    assert alike(panel.ranks, [[NAN, NAN, NAN], [1, 2, NAN]])
    assert list(panel.meetings()) == []


def test_neither_ranked_nor_rated():
    (panel,) = panels([label("ann", ""), label("bob", "")])
    assert panel.ranks.shape == panel.places.shape == panel.orders.shape == (2, 0)
    assert list(panel.meetings()) == []


def test_meetings_are_of_two_labelers_over_what_both_ranked():
    first, second = label("ann", "a b c"), label("ann", "c b a")
    (panel,) = panels([first, second, label("bob", "c ab"), label("cid", "d e")])
    found = [(m.one.label_id, m.other.label_id, m.said.tolist()) for m in panel.meetings()]
    assert found == [  # of ab, ac, bc
        ("ann a b c", "bob c ab", [[-1, -1, -1], [0, 1, 1]]),
        ("ann c b a", "bob c ab", [[1, 1, 1], [0, 1, 1]]),
    ]


def test_the_last_label_of_each():
    (panel,) = panels([label("ann", "a b"), label("bob", "a b"), label("ann", "b a")])
    assert sorted(j.label_id for j in panel.last_of_each().judgements) == ["ann b a", "bob a b"]
    (again,) = panels([label("ann", "b a", at=2), label("ann", "a b", at=1)])  # the newest in front
    assert [j.label_id for j in again.last_of_each().judgements] == ["ann b a"]
    (alone,) = panels([label("ann", "a b"), label("bob", "a b")])
    assert alone.last_of_each() is alone


def test_within_a_pool():
    (panel,) = panels([label("ann", "a b", pool="training"), label("hal", "b a", pool="held-out")])
    assert alike(panel.within("held-out").orders, [[1]])
    assert panel.within("candidate").ranks.shape == (0, 2)


@pytest.mark.parametrize("n", [2, 20])
def test_meeting_a_key(n):
    # 190 pairs of 20 responses: more than a byte counts
    names = [f"{place:02}" for place in range(n)]
    one, key = (
        Judgement(
            label_id=who,
            labeler_id=who,
            prompt_id="p",
            ranking=Ranking(prompt_id="p", labeler_id=who, tiers=tuple((i,) for i in order)),
        )
        for who, order in (("ann", names), ("lead", names[::-1]))
    )
    (meeting,) = meet(one, [key, label("bob", ""), label("cid", "x y")])
    assert meeting.said.shape == (2, n * (n - 1) // 2)
    assert meeting.said.astype(int).sum(axis=1).tolist() == [-n * (n - 1) // 2, n * (n - 1) // 2]
