"""Every record checks itself when it is made, and says what to mend."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InstilError
from instil.records import (
    FLAGS,
    PROMPT_FLAGS,
    USE_CASES,
    Annotation,
    Demonstration,
    Label,
    Labeler,
    Prompt,
    Ranking,
    Rating,
    Response,
    Text,
    ToxicityRating,
)

TOXICITY = {
    **{"response_id": "r", "labeler_id": "ann", "input_toxicity": 0, "output_toxicity": 2},
    **{"relative_toxicity": -1, "continuity": 7},
}
LABEL = Label(
    id="label",
    assignment_id="a",
    kind="ranking",
    purpose="training",
    status="accepted",
    labeler_id="ann",
    pool="training",
    prompt_id="p",
    revision=1,
    order=("b", "a"),
    guideline="ranking-training-1",
    active_ms=60_000,
    elapsed_ms=90_000,
    submitted_at=1_700_000_000_000,
    payload={"ranking": None, "why": "all false"},
)
RANKING = Ranking(prompt_id="p", labeler_id="ann", tiers=(("b",), ("a", "d"), ("c",)))


def test_a_ranking_in_three_tiers():
    # b before a, d, c; a and d tied; both before c: 3 + 1 + 1 pairs
    assert RANKING.pairs() == [
        ("b", "a"),
        ("b", "d"),
        ("b", "c"),
        ("a", "c"),
        ("d", "c"),
    ]
    assert RANKING.ranks() == {"b": 1, "a": 2, "d": 2, "c": 3}
    assert RANKING.response_ids() == ["b", "a", "d", "c"]


def test_a_ranking_of_ties_only_has_no_pairs():
    tied = Ranking(prompt_id="p", labeler_id="ann", tiers=(("a", "b", "c"),))
    assert tied.pairs() == []
    assert set(tied.ranks().values()) == {1}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1))
def test_pairs_and_ties_are_all_pairs(sizes):
    ids = iter(range(sum(sizes)))
    tiers = tuple(tuple(f"r{next(ids)}" for _ in range(size)) for size in sizes)
    ranking = Ranking(prompt_id="p", labeler_id="l", tiers=tiers)
    n, ties = sum(sizes), sum(size * (size - 1) // 2 for size in sizes)
    assert len(ranking.pairs()) == n * (n - 1) // 2 - ties
    ranks = ranking.ranks()
    assert all(ranks[better] < ranks[worse] for better, worse in ranking.pairs())


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ((("a",),), "ranking of prompt p by ann: 1 responses; a ranking needs at least 2"),
        ((), "0 responses"),
        ((("a",), (), ("b",)), "tier 2 is empty; leave it out"),
        ((("a", "b"), ("a",)), "responses ranked twice: a"),
        ((("a", "a"),), "responses ranked twice: a"),
    ],
)
def test_a_ranking_that_is_none(tiers, message):
    with pytest.raises(InstilError, match=message):
        Ranking(prompt_id="p", labeler_id="ann", tiers=tiers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "", "text": "x"}, "must not be empty"),
        ({"id": "p", "text": " \n"}, "must not be empty"),
        ({"id": "p", "text": "x", "split": "dev"}, "prompt p: split 'dev' is not train, valid"),
        ({"id": "p", "text": "x", "use_case": "poem"}, "use_case 'poem' is not one of generation"),
    ],
)
def test_a_prompt_that_is_none(fields, message):
    with pytest.raises(InstilError, match=message):
        Prompt(**fields)


def test_an_empty_demonstration():
    with pytest.raises(InstilError, match="prompt p by ann: the text is empty; a labeler who"):
        Demonstration(prompt_id="p", labeler_id="ann", text="\t")


@pytest.mark.parametrize("overall", [0, 8, -1])
def test_a_rating_is_1_to_7(overall):
    with pytest.raises(InstilError, match=f"rating of r by ann: overall {overall} is not 1 to 7"):
        Rating(response_id="r", labeler_id="ann", overall=overall)


def test_a_rating_knows_its_flags():
    for overall in (1, 7):
        Rating(response_id="r", labeler_id="ann", overall=overall, flags=FLAGS)
    with pytest.raises(InstilError, match=r"unknown flags \['boring'\]; known: fails_task"):
        Rating(response_id="r", labeler_id="ann", overall=4, flags=("rude", "boring"))


def test_an_annotation_knows_its_flags_and_use_cases():
    about = {"prompt_id": "p", "labeler_id": "ann"}
    for use_case in USE_CASES:
        Annotation(**about, use_case=use_case, flags=PROMPT_FLAGS)
    with pytest.raises(InstilError, match="annotation of prompt p by ann: use_case 'poem' is not"):
        Annotation(**about, use_case="poem")
    with pytest.raises(InstilError, match=r"unknown flags \['rude'\]; known: ambiguous"):
        Annotation(**about, use_case="chat", flags=("advice", "rude"))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("input_toxicity", 0, 2),
        ("output_toxicity", 0, 2),
        ("relative_toxicity", -1, 1),
        ("continuity", 1, 7),
    ],
)
def test_every_answer_on_toxicity_has_its_scale(name, low, high):
    for value in range(low, high + 1):
        assert getattr(ToxicityRating(**{**TOXICITY, name: value}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(InstilError, match=f"toxicity of r by ann: {name} {value} is not {low}"):
            ToxicityRating(**{**TOXICITY, name: value})


def test_an_empty_response_is_a_response():
    # a policy may well answer with nothing; labelers and the reward model judge it
    assert Response(id="r", prompt_id="p", text="").text == ""


def test_the_lists_of_the_paper():
    # Ouyang et al. 2022: ten use cases (Table 1); eleven binary questions (Table 3) and three more
    assert len(USE_CASES) == len(set(USE_CASES)) == 10
    assert len(FLAGS) == len(set(FLAGS)) == 14
    assert len(PROMPT_FLAGS) == len(set(PROMPT_FLAGS)) == 11  # Table 7


def test_records_do_not_change():
    with pytest.raises(AttributeError):
        RANKING.prompt_id = "q"
    one, two = (Prompt(id=i, text="x") for i in "ab")
    assert one.meta == {} and one.meta is not two.meta


@pytest.mark.parametrize(
    "record",
    [
        Prompt(id="p", text="Grüße 🦜", split="valid", use_case="chat", meta={"n": 1}),
        Response(id="r", prompt_id="p", text="", sampling={"temperature": 0.7}),
        Demonstration(prompt_id="p", labeler_id="l", text="x"),
        Rating(response_id="r", labeler_id="l", overall=7, flags=("rude",)),
        RANKING,
        Annotation(prompt_id="p", labeler_id="l", use_case="chat", flags=("advice",)),
        LABEL,
        Labeler(id="l", group="held-out"),
        Text(text="x"),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_comes_back_from_json_and_names_its_schema(record):
    line = msgspec.json.encode(record)
    assert msgspec.json.decode(line, type=type(record)) == record
    assert msgspec.json.decode(line)["schema"] == f"instil.{type(record).__name__.lower()}/1"


def test_a_toxicity_rating_comes_back_from_json_and_names_its_schema():
    record = ToxicityRating(**TOXICITY)
    line = msgspec.json.encode(record)
    assert msgspec.json.decode(line, type=ToxicityRating) == record
    assert msgspec.json.decode(line)["schema"] == "instil.toxicity/1"
