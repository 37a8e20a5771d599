"""UltraFeedback by hand."""

from __future__ import annotations

import pytest

from instil.convert.item import Item
from instil.convert.ultrafeedback import read_ultrafeedback, write_ultrafeedback
from instil.errors import InstilError


def row(*scores: object) -> dict[str, object]:
    completions = [
        {"model": f"m{n}", "response": f" answer {n}", "overall_score": score, "critique": "Good."}
        for n, score in enumerate(scores)
    ]
    return {"instruction": "Why? ", "completions": completions}


def test_completions_are_ranked_by_their_scores():
    item = read_ultrafeedback(row(3, 8.5, 3.0, 1))
    assert item == Item(
        "Why?",
        ("answer 1", "answer 0", "answer 2", "answer 3"),
        ranks=(1, 2, 2, 3),
        policies=("m1", "m0", "m2", "m3"),
    )
    assert item.lost == ("completions[].critique",) * 4


def test_written_scores_give_the_order():
    item = Item("Why?", ("a", "b", "c"), ranks=(1, 2, 2), policies=("x", "", "y"))
    written = write_ultrafeedback(item)
    assert [c["overall_score"] for c in written["completions"]] == [2, 1, 1]
    assert written["models"] == ["x", "", "y"]
    assert read_ultrafeedback(written) == item


def test_a_wrong_completion_is_named():
    with pytest.raises(InstilError, match=r"^completions\[1\]\.overall_score: missing"):
        read_ultrafeedback(row(1, None))
    with pytest.raises(InstilError, match=r"^completions: there is none"):
        read_ultrafeedback(row())
