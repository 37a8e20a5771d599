"""What a browser may send, and what is stored of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.labeling import kinds
from instil.labeling.blind import Card
from instil.labeling.kinds import Refused
from instil.records import FLAGS, PROMPT_FLAGS, USE_CASES, Demonstration, Kind, Prompt, Record

CARDS = (
    Card("A", "one", ("r2",)),
    Card("B", "twice", ("r1", "r4")),
    Card("C", "three", ("r3",)),
)
RANKING: dict[str, Any] = {
    "tiers": [["B"], ["C", "A"]],
    "overall": {"A": 5, "B": 7, "C": 2},
    "flags": {"C": ["hallucination", "fails_task"]},
    "notes": {"C": "invented date", "A": " "},
    "remark": "",
    "not_rankable": False,
    "why": "",
}
TOXICITY: dict[str, Any] = {
    "input": 1,
    "output": {"A": 0, "B": 2, "C": 1},
    "relative": {"A": -1, "B": 1, "C": 0},
    "continuity": {"A": 7, "B": 1, "C": 4},
    "tiers": [["A"], ["C"], ["B"]],
}
ANNOTATION: dict[str, Any] = {"use_case": "chat", "flags": ["opinion", "ambiguous"]}
FEW_SHOT: dict[str, Any] = {
    "style": "few-shot",
    "instruction": "Name the capital.",
    "examples": [["Peru", "Lima"], ["Chad", "N'Djamena"], ["Iran", "Tehran"]],
}
ANSWERS: dict[Kind, dict[str, Any]] = {
    "ranking": RANKING,
    "toxicity": TOXICITY,
    "annotation": ANNOTATION,
    "demonstration": {"text": "Lima."},
    "prompt": FEW_SHOT,
}


def parse(kind: Kind, answer: object) -> kinds.Payload:
    return kinds.parse(kind, json.dumps(answer).encode(), CARDS, "p-1", "l-ann")


def stored(kind: Kind, answer: object) -> Any:
    """What stands in the database, as plain JSON."""
    return json.loads(msgspec.json.encode(parse(kind, answer)))


def refused(kind: Kind, answer: object) -> Refused:
    with pytest.raises(Refused) as raised:
        parse(kind, answer)
    return raised.value


def test_a_ranking_is_stored_as_it_will_be_exported():
    rating = {"schema": "instil.rating/1", "labeler_id": "l-ann", "flags": []}
    assert stored("ranking", RANKING) == {
        "ranking": {
            "schema": "instil.ranking/1",
            "prompt_id": "p-1",
            "labeler_id": "l-ann",
            "tiers": [["r1", "r4"], ["r2", "r3"]],  # both responses of card B
        },
        "ratings": [
            {**rating, "response_id": "r2", "overall": 5},
            {**rating, "response_id": "r1", "overall": 7},
            {**rating, "response_id": "r4", "overall": 7},
            {
                **rating,
                "response_id": "r3",
                "overall": 2,
                "flags": ["fails_task", "hallucination"],
            },
        ],
        "notes": {"r3": "invented date"},
        "remark": "",
        "not_rankable": False,
        "why": "",
    }


def test_none_acceptable_wants_a_reason_and_keeps_the_ratings():
    answer = {"not_rankable": True, "why": " all wrong ", "overall": {"B": 1}}
    found = stored("ranking", answer)
    assert found["ranking"] is None and found["why"] == "all wrong"
    assert [rating["response_id"] for rating in found["ratings"]] == ["r1", "r4"]
    assert refused("ranking", {"not_rankable": True}).field == "why"
    assert refused("ranking", {**answer, "tiers": [["A", "B", "C"]]}).field == "tiers"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tiers": []}, "tiers"),
        ({"tiers": [["A"], ["B"]]}, "tiers"),
        ({"tiers": [["A"], ["B", "C"], ["A"]]}, "tiers"),
        ({"tiers": [["A"], [], ["B", "C"]]}, "tiers"),
        ({"tiers": [["A"], ["B", "C", "D"]]}, "tiers"),
        ({"tiers": [["A"], ["r1", "C"]]}, "tiers"),
        ({"tiers": {"A": 1}}, "tiers"),
        ({"overall": {"A": 5, "B": 7}}, "overall.C"),
        ({"overall": {"A": 5, "B": 7, "C": 8}}, "overall.C"),
        ({"overall": {"A": 0, "B": 7, "C": 1}}, "overall.A"),
        ({"overall": {"A": 5.5, "B": 7, "C": 1}}, "overall"),
        ({"overall": {"A": True, "B": 7, "C": 1}}, "overall"),
        ({"overall": {"A": 5, "B": 7, "C": 1, "D": 1}}, "overall"),
        ({"flags": {"C": ["dull"]}}, "flags.C"),
        ({"flags": {"C": [FLAGS[11]]}}, "flags.C"),  # a flag of the embedded world alone
        ({"flags": {"Z": []}}, "flags"),
        ({"notes": {"Z": "?"}}, "notes"),
        ({"policy": "m0"}, "policy"),
    ],
)
def test_what_is_wrong_in_a_ranking_is_named(change, field):
    assert refused("ranking", {**RANKING, **change}).field == field


def test_flags_want_a_rating_when_nothing_is_rankable():
    answer = {"not_rankable": True, "why": "bad", "flags": {"C": ["rude"]}}
    assert refused("ranking", answer).field == "flags.C"
    answer["flags"] = {"C": ["violent"]}
    assert refused("ranking", answer).field == "overall.C"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"output": {"A": 0, "B": 2}}, "output.C"),
        ({"output": {"A": 0, "B": 2, "C": 3}}, "output.C"),
        ({"relative": {"A": -2, "B": 1, "C": 0}}, "relative.A"),
        ({"continuity": {"A": 0, "B": 1, "C": 4}}, "continuity.A"),
        ({"tiers": [["A"]]}, "tiers"),
        ({"overall": {}}, "overall"),
    ],
)
def test_what_is_wrong_in_toxicity_is_named(change, field):
    assert refused("toxicity", {**TOXICITY, **change}).field == field


def test_toxicity_gives_a_record_of_each_response():
    ranking, *ratings = kinds.records_of(parse("toxicity", TOXICITY))
    assert ranking.tiers == (("r2",), ("r3",), ("r1", "r4"))
    assert [
        (t.response_id, t.input_toxicity, t.output_toxicity, t.relative_toxicity, t.continuity)
        for t in ratings
    ] == [("r2", 1, 0, -1, 7), ("r1", 1, 2, 1, 1), ("r4", 1, 2, 1, 1), ("r3", 1, 1, 0, 4)]


def test_an_annotation():
    (record,) = kinds.records_of(parse("annotation", ANNOTATION))
    assert (record.prompt_id, record.use_case) == ("p-1", "chat")
    assert record.flags == ("ambiguous", "opinion")
    assert refused("annotation", {"flags": []}).field == "use_case"
    assert refused("annotation", {"use_case": "cooking"}).field == "use_case"
    assert refused("annotation", {"use_case": "chat", "flags": ["rude"]}).field == "flags"
    assert kinds.records_of(parse("annotation", {"use_case": "chat"}))[0].flags == ()


def test_a_demonstration():
    assert kinds.records_of(parse("demonstration", {"text": "Lima."})) == [
        Demonstration(prompt_id="p-1", labeler_id="l-ann", text="Lima.")
    ]
    assert refused("demonstration", {"text": " \n"}).field == "text"
    assert refused("demonstration", {}).field == "text"


def test_a_few_shot_prompt_of_k_pairs_gives_k_examples():
    records = kinds.records_of(parse("prompt", FEW_SHOT))
    prompts = [record for record in records if isinstance(record, Prompt)]
    answers = [record for record in records if isinstance(record, Demonstration)]
    assert [answer.text for answer in answers] == ["Lima", "N'Djamena", "Tehran"]
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in prompts]
    assert prompts[1].text == (
        "Name the capital.\n\n"
        "Input: Peru\nOutput: Lima\n\n"
        "Input: Iran\nOutput: Tehran\n\n"
        "Input: Chad\nOutput:"
    )
    assert len({prompt.id for prompt in prompts}) == 3
    assert {prompt.user_id for prompt in prompts} == {"l-ann"}  # so no split divides them


def test_plain_and_user_based_prompts():
    (plain,) = kinds.records_of(parse("prompt", {"style": "plain", "text": "Sing."}))
    assert (plain.text, plain.source, plain.meta) == ("Sing.", "labeler", {"style": "plain"})
    based = {"style": "user-based", "text": "Sing.", "use_case": "generation"}
    assert kinds.records_of(parse("prompt", based))[0].use_case == "generation"


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({}, "style"),
        ({"style": "fancy", "text": "x"}, "style"),
        ({"style": "plain"}, "text"),
        ({"style": "plain", "text": "x", "examples": [["a", "b"]]}, "examples"),
        ({"style": "plain", "text": "x", "use_case": "cooking"}, "use_case"),
        ({"style": "user-based", "text": "x"}, "use_case"),
        ({**FEW_SHOT, "text": "x"}, "text"),
        ({**FEW_SHOT, "instruction": ""}, "instruction"),
        ({**FEW_SHOT, "examples": [["a", "b"]]}, "examples"),
        ({**FEW_SHOT, "examples": [["a", "b"], ["c", " "]]}, "examples.1.1"),
        ({**FEW_SHOT, "examples": [["a", "b"], ["", "d"]]}, "examples.1.0"),
        ({**FEW_SHOT, "examples": [["a", "b"], ["a", "b"]]}, "examples"),
        ({**FEW_SHOT, "examples": [["a", "b"], ["c"]]}, "examples"),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named(answer, field):
    assert refused("prompt", answer).field == field


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(
    "junk", [b"", b"[]", b"null", b"{", b'{"a": 1}', b"\xff", b'{"text": "\\ud800"}', b"[" * 9999]
)
def test_junk_is_refused_in_words(kind, junk):
    with pytest.raises(Refused):
        kinds.parse(kind, junk, CARDS, "p-1", "l-ann")


@pytest.mark.parametrize("kind", ANSWERS)
def test_nothing_incomplete_passes(kind):
    # each field that has no say of its own may be missing, and no other
    optional = {"flags", "notes", "remark", "not_rankable", "why"}
    for field in set(ANSWERS[kind]) - optional:
        refused(kind, {name: value for name, value in ANSWERS[kind].items() if name != field})
    refused(kind, {})


letters = st.sampled_from("ABC")
answers = st.one_of(
    st.tuples(
        st.just("ranking"),
        st.fixed_dictionaries(
            {
                "tiers": st.permutations("ABC").flatmap(
                    lambda p: st.sampled_from(
                        [[list(p)], [[p[0]], list(p[1:])], [list(p[:2]), [p[2]]], [[x] for x in p]]
                    )
                ),
                "overall": st.fixed_dictionaries({x: st.integers(1, 7) for x in "ABC"}),
            },
            optional={
                "flags": st.dictionaries(letters, st.lists(st.sampled_from(FLAGS[:11]))),
                "notes": st.dictionaries(letters, st.text()),
                "remark": st.text(),
            },
        ),
    ),
    st.tuples(
        st.just("annotation"),
        st.fixed_dictionaries(
            {"use_case": st.sampled_from(USE_CASES)},
            optional={"flags": st.lists(st.sampled_from(PROMPT_FLAGS))},
        ),
    ),
)


@given(answers)
def test_a_stored_label_reopens_as_it_was(drawn):
    kind, answer = drawn
    payload = parse(kind, answer)
    again = parse(kind, kinds.letters_of(payload, CARDS))
    assert msgspec.json.encode(again) == msgspec.json.encode(payload)
    assert kinds.load(kind, msgspec.json.encode(payload)) == payload


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_reopens_as_it_was(kind):
    payload = parse(kind, ANSWERS[kind])
    assert parse(kind, kinds.letters_of(payload, CARDS)) == payload
    assert all(isinstance(record, Record) for record in kinds.records_of(payload))


def test_the_order_of_clicks_does_not_show():
    same = []
    for tied in itertools.permutations("AC"):
        for rated in itertools.permutations("ABC"):
            answer = {
                **RANKING,
                "tiers": [["B"], list(tied)],
                "overall": {letter: RANKING["overall"][letter] for letter in rated},
                "flags": {"C": ["fails_task", "hallucination", "fails_task"]},
            }
            same.append(msgspec.json.encode(parse("ranking", answer)))
    assert set(same) == {msgspec.json.encode(parse("ranking", RANKING))}


def test_reasons_to_skip():
    assert kinds.parse_skip("unclear", "") == kinds.Skip(skipped="unclear")
    assert kinds.parse_skip("other", " no time ").note == "no time"
    for reason, note, field in (("bored", "", "reason"), ("other", " ", "note")):
        with pytest.raises(Refused) as raised:
            kinds.parse_skip(reason, note)
        assert raised.value.field == field


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_form_of_a_page_is_plain_json(kind):
    form = json.loads(json.dumps(kinds.form_json(kind)))
    assert form["kind"] == kind
    assert all(isinstance(reason, list) and len(reason) == 2 for reason in form["skip_reasons"])
