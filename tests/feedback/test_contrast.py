"""Rankings of text: what is a prompt and what its reply, which other replies stand below it."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from instil.errors import InstilError
from instil.feedback import contrast
from instil.feedback.contrast import Config, rankings, run, turns
from instil.jsonl import read_records, write_records
from instil.records import Demonstration, Prompt, Ranking, Response, Text
from instil.world.internet import documents
from instil.world.lexicon import make_world

PAIRS = [
    ("Where does Ann live?", "In Rome."),
    ("Where does Bob live?", "In Oslo."),
    ("Where does Bob live?", "He lives in Oslo."),
    ("What does Ann eat?", "Figs."),
    ("What does Bob eat?", "Rice."),
]


def texts_of(made):
    """Prompt, its reply and the set of others, of each ranking."""
    found = []
    for prompt, responses, ranking in made:
        texts = {response.id: response.text for response in responses}
        (first,), below = ranking.tiers
        assert ranking.prompt_id == prompt.id and ranking.labeler_id == "text"
        assert {r.prompt_id for r in responses} == {prompt.id} and len(texts) == len(responses)
        found.append((prompt.text, texts[first], {texts[i] for i in below}))
    return found


def test_a_document_is_prompts_and_replies_in_turn():
    assert turns("Who?\n\nMe.") == [("Who?", "Me.")]
    assert turns("Who?\n\nMe.\n\nWhy?\n\nNo idea.\nReally.") == [
        ("Who?", "Me."),
        ("Why?", "No idea.\nReally."),
    ]
    assert turns("Who?") == turns("Who?\n\nMe.\n\nWhy?") == turns("Who?\n\n ") == turns("") == []


def test_others_are_replies_to_other_prompts():
    made = texts_of(rankings(PAIRS, limit=5, others=3, seed=0))
    assert {(prompt, reply) for prompt, reply, _ in made} == set(PAIRS)
    for prompt, reply, others in made:
        assert len(others) == 3 and reply not in others
        assert not any((prompt, other) in PAIRS for other in others)


def test_half_of_them_are_asked_in_like_words_and_half_about_the_like():
    """By alphabet Bob's home stands before Zed's, which is last; read backwards Zed's food does,
    and nothing stands after it either."""
    pairs = [
        ("Name the home of Ann.", "Rome."),
        ("Name the home of Bob.", "Oslo."),
        ("Name the home of Zed.", "Bonn."),
        ("A food of Zed.", "Figs."),
    ]
    for seed in range(10):
        found = {p: o for p, _, o in texts_of(rankings(pairs, limit=4, others=2, seed=seed))}
        assert found["Name the home of Zed."] == {"Oslo.", "Figs."}
    one = {p: o for p, _, o in texts_of(rankings(pairs, limit=4, others=1, seed=0))}
    assert one["Name the home of Zed."] == {"Oslo."}


def test_no_ranking_has_a_reply_of_its_own_prompt_below_or_a_text_twice():
    pairs = [pair for text in islice(threads(), 400) for pair in turns(text)]
    own: dict[str, set[str]] = {}
    for prompt, reply in pairs:
        own.setdefault(prompt, set()).add(reply)
    made = list(rankings(pairs, limit=300, others=4, seed=1))
    assert len(made) == 300
    for prompt, responses, _ in made:
        first, *others = (response.text for response in responses)
        assert first in own[prompt.text] and first not in others
        assert len(set(others)) == len(others) == 4
    assert len({prompt.id for prompt, _, _ in made}) == 300


def threads():
    found = documents(make_world(0), Random(3))
    return (text.text for text in found if text.source == "thread")


def test_the_same_seed_makes_the_same_rankings_and_another_draws_others():
    first, again, other = (list(rankings(PAIRS, 3, 2, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_the_command_reads_the_source_that_it_is_told_and_writes_three_files(tmp_path):
    rows = [Text(text="\n\n".join(pair), source="forum") for pair in PAIRS]
    write_records(tmp_path / "text.jsonl", [*rows, Text(text="A\n\nB", source="book")])
    run(Config(out=tmp_path / "out", text=(tmp_path / "text.jsonl",), source="forum", others=2))
    prompts = read_records(tmp_path / "out" / "prompts.jsonl", Prompt)
    responses = read_records(tmp_path / "out" / "responses.jsonl", Response)
    ranked = read_records(tmp_path / "out" / "rankings.jsonl", Ranking)
    assert len(prompts) == len(ranked) == 5 and {p.split for p in prompts} == {"train"}
    assert {r.text for r in responses} == {reply for _, reply in PAIRS}


def test_demonstrations_of_the_training_split_are_pairs_too(tmp_path):
    splits = ("train", "", "valid", "train", "test")
    prompts = [
        Prompt(id=f"p{i}", text=text, split=split)
        for i, ((text, _), split) in enumerate(zip(PAIRS, splits, strict=True))
    ]
    shown = [
        Demonstration(prompt_id=f"p{i}", labeler_id="l", text=reply)
        for i, (_, reply) in enumerate(PAIRS)
    ]
    write_records(tmp_path / "p.jsonl", prompts)
    write_records(tmp_path / "d.jsonl", shown)
    files = {"prompts": (tmp_path / "p.jsonl",), "demonstrations": (tmp_path / "d.jsonl",)}
    run(Config(out=tmp_path / "out", **files))
    made = read_records(tmp_path / "out" / "prompts.jsonl", Prompt)
    assert {p.text for p in made} == {PAIRS[i][0] for i in (0, 1, 3)}
    write_records(tmp_path / "p.jsonl", prompts[1:])
    with pytest.raises(InstilError, match=r"d\.jsonl: demonstration of p0 by l: no such prompt"):
        run(Config(out=tmp_path / "again", **files))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("pairs", "source", "message"),
    [
        (PAIRS[:1], "", "1 prompts with replies, and no two that differ in both"),
        ([("A", "same"), ("B", "same")], "", "nothing to rank"),
        (PAIRS, "forum", "0 prompts with replies of source 'forum'"),
    ],
)
def test_text_without_two_that_differ_is_an_error(tmp_path, pairs, source, message):
    write_records(tmp_path / "t.jsonl", [Text(text="\n\n".join(pair)) for pair in pairs])
    with pytest.raises(InstilError, match=message):
        run(Config(out=tmp_path / "out", text=(tmp_path / "t.jsonl",), source=source))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to read"),
        ({"others": 0}, "others 0 must be at least 1"),
        ({"limit": 0}, "limit 0 and"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, given, message):
    if given:
        given["text"] = (tmp_path / "t.jsonl",)
    with pytest.raises(InstilError, match=message):
        contrast.Config(out=tmp_path, **given)
