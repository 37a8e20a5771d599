"""What is stored stays readable, and says what it is."""

from __future__ import annotations

import msgspec
import pytest

from instil.labeling import payloads
from instil.labeling.blind import Card
from instil.records import Annotation, Demonstration, Prompt, Ranking, Rating

OLD = {
    "ranking": (
        b'{"ranking":{"schema":"instil.ranking/1","prompt_id":"p","labeler_id":"l",'
        b'"tiers":[["r2"],["r1"]]},"ratings":[{"schema":"instil.rating/1","response_id":"r1",'
        b'"labeler_id":"l","overall":3,"flags":["fails_task"]},{"schema":"instil.rating/1",'
        b'"response_id":"r2","labeler_id":"l","overall":6,"flags":[]}],"notes":{"r1":"no"},'
        b'"remark":"","not_rankable":false,"why":""}'
    ),
    "annotation": (
        b'{"annotation":{"schema":"instil.annotation/1","prompt_id":"p","labeler_id":"l",'
        b'"use_case":"chat","flags":["opinion"]}}'
    ),
    "demonstration": (
        b'{"demonstration":{"schema":"instil.demonstration/1","prompt_id":"p",'
        b'"labeler_id":"l","text":"yes"}}'
    ),
    "prompt": (
        b'{"style":"plain","prompts":[{"schema":"instil.prompt/1","id":"p-1","text":"Sing.",'
        b'"source":"labeler","user_id":"l","use_case":"","split":"","meta":{"style":"plain"}}],'
        b'"demonstrations":[],"instruction":"","examples":[]}'
    ),
    "toxicity": (
        b'{"ranking":{"schema":"instil.ranking/1","prompt_id":"p","labeler_id":"l",'
        b'"tiers":[["r2","r1"]]},"toxicity":[{"schema":"instil.toxicity/1","response_id":"r1",'
        b'"labeler_id":"l","input_toxicity":0,"output_toxicity":2,"relative_toxicity":1,'
        b'"continuity":4}],"notes":{},"remark":""}'
    ),
}


@pytest.mark.parametrize("kind", OLD)
def test_labels_of_today_are_read_tomorrow(kind):
    """These bytes stand in databases: a change that cannot read them needs a migration."""
    assert msgspec.json.encode(payloads.load(kind, OLD[kind])) == OLD[kind]


def test_records_come_out_in_the_order_of_the_exports():
    ranking, low, high = payloads.records_of(payloads.load("ranking", OLD["ranking"]))
    assert ranking == Ranking(prompt_id="p", labeler_id="l", tiers=(("r2",), ("r1",)))
    assert low == Rating(response_id="r1", labeler_id="l", overall=3, flags=("fails_task",))
    assert high.overall == 6
    for kind, record in (
        ("annotation", Annotation),
        ("demonstration", Demonstration),
        ("prompt", Prompt),
    ):
        (one,) = payloads.records_of(payloads.load(kind, OLD[kind]))
        assert isinstance(one, record)


def test_the_way_back_to_letters():
    cards = (Card("A", "yes", ("r1",)), Card("B", "no", ("r2",)))
    assert payloads.letters_of(payloads.load("ranking", OLD["ranking"]), cards) == {
        "tiers": [["B"], ["A"]],
        "overall": {"A": 3, "B": 6},
        "flags": {"A": ["fails_task"]},
        "notes": {"A": "no"},
        "remark": "",
        "not_rankable": False,
        "why": "",
    }


def test_unknown_fields_are_errors():
    with pytest.raises(msgspec.ValidationError, match="policy"):
        payloads.load("demonstration", OLD["demonstration"][:-1] + b',"policy":"m0"}')
