"""Orders are uniform and kept; identical texts are one card; texts may name their author."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from instil.labeling import blind
from instil.labeling.blind import Card, cards, names_author, order, share

KEY = bytes(range(32))


@given(st.integers(0, 9), st.text(), st.text())
def test_an_order_is_a_permutation(n, task, labeler):
    assert sorted(order(KEY, task, labeler, n)) == list(range(n))


@pytest.mark.parametrize("labelers", [1, 40])
def test_each_policy_is_shown_at_each_place_equally_often(labelers):
    # the policy at place 0 of every task is the better one: nothing of it may show in the order
    k, tasks = 4, 5000
    counts = Counter(
        (place, shown)
        for task in range(tasks)
        for shown, place in enumerate(order(KEY, f"t{task}", f"l{task % labelers}", k))
    )
    table = [[counts[place, shown] for shown in range(k)] for place in range(k)]
    for row in table:
        assert chisquare(row).pvalue > 0.01
    # and all 24 orders, not only all places
    orders = Counter(tuple(order(KEY, f"t{task}", "l", k)) for task in range(tasks))
    assert len(orders) == 24 and chisquare(list(orders.values())).pvalue > 0.01


def test_an_order_hangs_on_key_task_and_labeler():
    several = range(30)
    keys = {tuple(order(bytes([k]) * 32, "t", "l", 9)) for k in several}
    tasks = {tuple(order(KEY, f"t{t}", "l", 9)) for t in several}
    labelers = {tuple(order(KEY, "t", f"l{each}", 9)) for each in several}
    assert len(keys) == len(tasks) == len(labelers) == 30
    assert order(KEY, "ab", "c", 9) != order(KEY, "a", "bc", 9)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_gives_the_same_order(seed):
    code = (
        "import json; from instil.labeling.blind import order\n"
        "print(json.dumps([order(bytes(range(32)), f't{t}', 'l-ann', 9) for t in range(50)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert json.loads(done.stdout) == [order(KEY, f"t{t}", "l-ann", 9) for t in range(50)]


def test_shares_are_uniform():
    drawn = [share(KEY, "hidden", "l", str(turn)) for turn in range(5000)]
    assert all(0 <= x < 1 for x in drawn)
    assert chisquare(list(Counter(int(10 * x) for x in drawn).values())).pvalue > 0.01


def test_cards_are_lettered_as_they_stand_on_the_screen():
    responses = [("r0", "zero"), ("r1", "one"), ("r2", "two")]
    assert cards(responses, [2, 0, 1]) == [
        Card("A", "two", ("r2",)),
        Card("B", "zero", ("r0",)),
        Card("C", "one", ("r1",)),
    ]


def test_identical_texts_are_one_card_where_the_first_would_stand():
    responses = [("r0", "same"), ("r1", "other"), ("r2", "same"), ("r3", "same ")]
    assert cards(responses, [1, 2, 3, 0]) == [
        Card("A", "other", ("r1",)),
        Card("B", "same", ("r2", "r0")),
        Card("C", "same ", ("r3",)),
    ]


def test_more_than_nine_cards_are_an_error():
    with pytest.raises(IndexError):
        cards([(f"r{i}", str(i)) for i in range(10)], range(10))


MODELS = (
    *("Claude", "GPT-4", "ChatGPT", "Gemini", "Llama 3", "Mistral"),
    *("Qwen2.5", "DeepSeek-V3", "Grok", "Bard", "Gemma 2", "Falcon-40B"),
)
MAKERS = (
    *("OpenAI", "Anthropic", "Google", "Meta", "Microsoft", "Mistral"),
    *("DeepMind", "Cohere", "xAI", "Nvidia", "Alibaba", "Baidu"),
)
PLANTED = [
    *(f"Hello! I am {m}. How can I help?" for m in MODELS),
    *(f"As {m}, I cannot say." for m in MODELS),
    *(f"I'm {m}, and I think it is 4." for m in MODELS),
    *(f"Sure. I’m {m}!" for m in MODELS),
    *(f"my name is {m} and the answer is no" for m in MODELS),
    *(f"{m} here, happy to help." for m in MODELS),
    *(f"This is {m}. Paris is the capital." for m in MODELS),
    *(f"You can call me {m}." for m in MODELS),
    *(f"{m}, an AI assistant, answers: yes." for m in MODELS),
    *(f"I am an assistant called {m}." for m in MODELS),
    *(f"As an AI language model trained by {m}, I have no opinion." for m in MAKERS),
    *(f"I was created by {m} to be helpful." for m in MAKERS),
    *(f"I'm a large language model made by {m}." for m in MAKERS),
    *(f"I am a language model from {m}." for m in MAKERS),
    *(f"{m} trained me to be honest." for m in MAKERS),
    *(f"That would break {m}'s usage policies." for m in MAKERS),
    *(f"I am a model trained by {m}." for m in ("Hugging Face", "HuggingFace", "Stability AI")),
    *(f"as a chatbot developed by {m} i cannot" for m in MAKERS),
    *(f"I am a model that was built by the team at {m}." for m in MAKERS),
]
INNOCENT = [
    "The llama is a woolly animal, and this is a llama too.",
    "As phi goes to zero, the sum is finite.",
    "I am a fan of meta-analysis.",
    "Google's search is fast; Microsoft's share price fell.",
    "A book by Anthropic's founder was reviewed.",
    "As an AI language model, I cannot know that.",
    "Claude Monet painted water lilies; GPT is a partition table.",
    "I am from Mexico. I was made in Taiwan.",
    "Ask for the falcon at the bard's table.",
    "My name is Alpaca Jones' brother.",
    "Gemini is a sign of the zodiac, between Taurus and Cancer.",
    "Open the file with Meta+O, as described above.",
]


def test_texts_that_name_their_author_are_found():
    assert len(PLANTED) > 200
    missed = [text for text in PLANTED if not names_author(text)]
    assert len(missed) <= 0.05 * len(PLANTED), missed


def test_texts_that_name_nobody_are_left_alone():
    found = {text: found for text in INNOCENT if (found := names_author(text))}
    assert len(found) <= 1, found


def test_the_words_found_are_those_of_the_text():
    assert names_author("Well, as claude i would not.") == "as claude"
    assert names_author("") == ""


PIECES = st.one_of(
    st.sampled_from([*MODELS, *MAKERS, "LLaMA", "BLOOMZ", "command r", "Meta", "Phi-3", "Yi"]),
    st.sampled_from(["I am", "as", "this is", "made by", "from the team at", "here", "a model"]),
    st.sampled_from(["'s", "’s", ", ", ".", "-", "_", "v2", "4", "x", "\u0307", "\u200b", "\n"]),
    st.text(max_size=3),
)
OTHER_CASES = [str, str.lower, str.upper, str.swapcase]
# all that `re` takes for an ASCII letter where case does not count
ODD = {"i": "\u0130\u0131", "s": "\u017f", "k": "\u212a"}


@given(
    st.lists(st.tuples(PIECES, st.sampled_from(OTHER_CASES), st.sampled_from(["", " "]))),
    st.sampled_from([*ODD["i"], *ODD["s"], *ODD["k"], ""]),
)
def test_the_quick_look_misses_nothing(pieces, odd):
    text = "".join(change(piece) + gap for piece, change, gap in pieces)
    for plain, others in ODD.items():
        if odd and odd in others:
            text = text.replace(plain, odd)
    found = blind._NAMES_AUTHOR.search(text)
    assert names_author(text) == (found[0] if found else "")


def test_other_characters_that_count_as_letters():
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = {
        letter: "".join(filter(re.compile(f"(?i:{letter})").fullmatch, map(chr, range(128, 2**16))))
        for letter in letters
    }
    assert {letter: others for letter, others in found.items() if others} == ODD
    for name in ("CLAUDE", "COP\u0130LOT", "M\u0131xtral", "Deep\u017feek", "Gro\u212a"):
        assert names_author(f"I am {name}.") == f"I am {name}"


@given(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=9), st.randoms())
def test_every_response_is_on_one_card(texts, random):
    responses = [(f"r{i}", text) for i, text in enumerate(texts)]
    places = list(range(len(texts)))
    random.shuffle(places)
    made = cards(responses, places)
    assert sorted(itertools.chain(*(card.response_ids for card in made))) == sorted(
        response_id for response_id, _ in responses
    )
    assert [card.letter for card in made] == list("ABCDEFGHI"[: len(set(texts))])
