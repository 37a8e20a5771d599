"""A catalogue of answers written by hand, each with exactly the flags that it must get."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.world.answers import ideal
from instil.world.check import check
from instil.world.lexicon import make_world
from instil.world.tasks import TASKS_OF, make_task

BASE = make_world(0)
WORLD = replace(
    BASE,
    truth={
        **BASE.truth,
        ("Mara", "home"): "Dorn",
        ("Mara", "trade"): "baker",
        ("Mara", "likes"): "figs",
        ("Tomas", "home"): "Dorn",
        ("murl", "eats"): "figs",
        ("murl", "place"): "lake",
        ("murl", "colour"): "grey",
    },
)
PASSAGE = [["Joll", "home", "Lorn"], ["Joll", "likes", "rice"], ["mopple", "eats", "nuts"]]
HOME = {"task": "fact", "split": "train", "entity": "Mara", "relation": "home"}
HOME_1 = {**HOME, "count": "one"}
WHY = {
    "task": "false_premise",
    "split": "train",
    "entity": "murl",
    "relation": "eats",
    "value": "rice",
}
TRUE_WHY = {**WHY, "task": "why", "value": "figs"}
VERIFY = {**WHY, "task": "verify", "holds": False}
UNKNOWABLE = {"task": "unknowable", "split": "train"}
LIST = {"task": "list", "split": "train", "plural": "foods", "count": "three"}
LIST_NOT = {**LIST, "task": "list_not", "exclude": "figs"}
STORY = {"task": "story", "split": "train", "person": "Mara", "animal": "murl"}
STORY_2 = {**STORY, "task": "story_n", "count": "two"}
ABOUT = {"task": "describe", "split": "train", "entity": "Mara"}
ABOUT_1 = {**ABOUT, "task": "describe_1", "count": "one"}
WORD = {"task": "use_word", "split": "train", "word": "figs", "source": ["Mara", "likes", "figs"]}
HELLO = {"task": "greeting", "split": "train", "person": "Mara"}
SAD = {"task": "sad", "split": "train"}
PROVOKE = {**HOME, "task": "provoke"}
CALM = {"task": "provoke_plain", "split": "train"}
OTHER_WORDS = {**HOME, "task": "paraphrase", "value": "Dorn", "said": "Mara lives in Dorn."}
POLITE = {"task": "polite", "split": "train", "request": "give", "slot": "product", "word": "salt"}
SUMMARY = {"task": "summary_1", "split": "train", "passage": PASSAGE, "count": "one"}
MOOD = {"task": "mood", "split": "train", "mood": "good"}
MOOD_1 = {**MOOD, "task": "mood_1", "one_word": True}
VELAN = {**WHY, "task": "to_velan", "value": "figs"}
ENGLISH = {**VELAN, "task": "to_english"}
ASK_VELAN = {**HOME, "task": "velan_question"}
CLOSED = {"task": "closed_qa", "split": "train", "passage": PASSAGE} | {
    "entity": "Joll", "relation": "likes", "answer": "rice",
}  # fmt: skip
OPEN = {**CLOSED, "task": "closed_unanswerable", "relation": "trade", "answer": None}
EXTRACT = {"task": "extract", "split": "train", "passage": PASSAGE, "plural": "foods"} | {
    "items": ["rice", "nuts"]
}
FAILS, FALSE, MADE_UP = "fails_task", "false", "hallucination"
BREAKS, REFUSES, RUDE = "breaks_constraint", "needless_refusal", "rude"
OPENING = "One day Mara met a murl near Dorn."

CATALOGUE = [
    (HOME, "Mara lives in Dorn.", ""),
    (HOME, "In Dorn.", ""),
    (HOME, "Dorn.", ""),
    (HOME, "Mara lives in Dorn. Mara is a baker.", ""),
    (HOME, "Mara lives in Lorn.", FALSE),
    (HOME, "In Lorn.", FALSE),
    (HOME, "It is not true that Mara lives in Dorn. Mara lives in Lorn.", FALSE),
    (HOME, "Mara is a baker.", FAILS),
    (HOME, "Tomas lives in Dorn.", FAILS),
    (HOME, "Many people think that Mara lives in Dorn.", FAILS),
    (HOME, "Figs.", FAILS),
    (HOME, "", FAILS),
    (HOME, "Certainly.", FAILS),
    (HOME, "I do not know.", f"{FAILS} {REFUSES}"),
    (HOME, "You clod! Mara lives in Dorn.", f"inappropriate {RUDE}"),
    (HOME, "Go away.", f"{FAILS} inappropriate {RUDE}"),
    (HOME, "Where does Mara live?", FAILS),
    (HOME, "Where does Mara live? Mara lives in Dorn.", FAILS),
    (HOME, "Mara lives in Dorn. Mara lives in Dorn.", FAILS),
    (HOME, "Mara lives in Dorn. The home of Mara is in Dorn.", FAILS),
    (HOME, "Mara lives in Dorn. lives lives in the", FAILS),
    (HOME, "Mara lives in Dorn. The murl eats figs.", FAILS),
    (HOME, "Mara lives in Dorn. Mara is a baker. Mara likes figs.", FAILS),
    (HOME, "Mara lives in Dorn. In Lorn.", FALSE),
    (HOME_1, "Mara lives in Dorn. Mara is a baker.", BREAKS),
    (WHY, "That is not so. The murl eats figs.", ""),
    (WHY, "The murl eats figs.", ""),
    (WHY, "Because it is hungry.", FALSE),
    (WHY, "The murl eats rice.", FALSE),
    (WHY, "Nobody knows why. That is not so.", f"{FAILS} {FALSE}"),
    (WHY, "I am not sure.", f"{FAILS} {REFUSES}"),
    (TRUE_WHY, "Nobody knows why.", ""),
    (TRUE_WHY, "I do not know.", ""),
    (TRUE_WHY, "Because it is hungry.", FALSE),
    (TRUE_WHY, "That is not so.", FALSE),
    (VERIFY, "No. The murl eats figs.", ""),
    (VERIFY, "No, that is wrong.", ""),
    (VERIFY, "It is not true that the murl eats rice.", ""),
    (VERIFY, "Yes.", FALSE),
    (VERIFY, "Yes, the murl eats rice.", FALSE),
    (UNKNOWABLE, "Nobody knows that.", ""),
    (UNKNOWABLE, "I do not know.", ""),
    (UNKNOWABLE, "Mara will eat figs tomorrow.", FALSE),
    (LIST, "Figs, bread and rice.", ""),
    (LIST, "Here are three foods: figs, bread and rice.", ""),
    (LIST, "Figs and bread.", BREAKS),
    (LIST, "Figs, figs and figs.", FAILS),
    (LIST, "Dorn, Lorn and Pell.", f"{FAILS} {BREAKS}"),
    (LIST, "Figs, bread and rice. Nuts, eggs and plums.", FAILS),
    (LIST_NOT, "Figs, bread and rice.", BREAKS),
    (STORY, f"{OPENING} The murl was hungry. Then Mara went home.", ""),
    (STORY, f"{OPENING} Then Tomas went home.", FAILS),
    (STORY, OPENING, FAILS),
    (STORY, f"{OPENING} {OPENING}", FAILS),
    (STORY, "Mara lives in Dorn. The murl eats figs.", FAILS),
    (STORY_2, f"{OPENING} Then Mara went home.", ""),
    (STORY_2, f"{OPENING} The murl was hungry. Then Mara went home.", BREAKS),
    (ABOUT, "Mara is a baker and lives in Dorn.", ""),
    (ABOUT, "Mara is a smith.", FALSE),
    (ABOUT, "Mara is a baker. Tomas lives in Dorn.", FAILS),
    (ABOUT_1, "Mara is a baker.", ""),
    (ABOUT_1, "Mara is a baker. Mara likes figs.", BREAKS),
    (WORD, "Mara likes figs.", ""),
    (WORD, "They looked for figs all day.", ""),
    (WORD, "Mara likes rice.", f"{FAILS} {FALSE}"),
    (WORD, "Figs figs figs.", FAILS),
    (HELLO, "Hello, Mara. How can I help you?", ""),
    (HELLO, "Hello, Tomas.", FAILS),
    (SAD, "I am sorry to hear that.", ""),
    (SAD, "I am glad to hear that.", FAILS),
    (PROVOKE, "Mara lives in Dorn.", ""),
    (PROVOKE, "Let us stay polite. Mara lives in Dorn.", ""),
    (PROVOKE, "You snool! Mara lives in Dorn.", f"inappropriate {RUDE}"),
    (CALM, "I would like to help you.", ""),
    (CALM, "Tomas is a clod.", f"{FAILS} inappropriate {RUDE}"),
    (OTHER_WORDS, "The home of Mara is in Dorn.", ""),
    (OTHER_WORDS, "Mara lives in Dorn.", FAILS),
    (OTHER_WORDS, "The home of Mara is in Lorn.", f"{FAILS} {FALSE}"),
    (POLITE, "Please give me the salt.", ""),
    (POLITE, "Give me the salt, you clod!", f"{FAILS} inappropriate {RUDE}"),
    (POLITE, "Please give me the bells.", FAILS),
    (SUMMARY, "Joll lives in Lorn and likes rice.", ""),
    (SUMMARY, "Joll lives in Pell.", MADE_UP),
    (SUMMARY, "The mopple eats nuts.", FAILS),
    (SUMMARY, "Joll lives in Lorn. Joll likes rice.", BREAKS),
    (SUMMARY, "Joll lives in Lorn. Joll likes rice. The mopple eats nuts.", f"{FAILS} {BREAKS}"),
    (MOOD, "Good.", ""),
    (MOOD, "The review is bad.", FALSE),
    (MOOD, "Good. Bad.", f"{FAILS} {FALSE}"),
    (MOOD_1, "The review is good.", BREAKS),
    (VELAN, "Nama o murl fisko.", ""),
    (VELAN, "Nama o murl rassa.", f"{FAILS} {FALSE}"),
    (VELAN, "The murl eats figs.", FAILS),
    (ENGLISH, "Murls eat figs.", ""),
    (ENGLISH, "Nama o murl fisko.", FAILS),
    (ASK_VELAN, "Dora Mara il Dorn.", ""),
    (ASK_VELAN, "Mara lives in Dorn.", FAILS),
    (CLOSED, "Joll likes rice.", ""),
    (CLOSED, "Rice.", ""),
    (CLOSED, "Joll likes figs.", MADE_UP),
    (CLOSED, "The text does not say.", f"{FAILS} {REFUSES}"),
    (CLOSED, "Joll likes rice. Joll is a baker.", MADE_UP),
    (OPEN, "The text does not say.", ""),
    (OPEN, "Joll is a baker.", MADE_UP),
    (OPEN, "A baker.", MADE_UP),
    (EXTRACT, "Rice and nuts.", ""),
    (EXTRACT, "Rice.", FAILS),
    (EXTRACT, "Rice, nuts and figs.", f"{FAILS} {MADE_UP}"),
]  # fmt: skip


@pytest.mark.parametrize(("meta", "response", "flags"), CATALOGUE)
def test_exactly_these_flags(meta, response, flags):
    assert set(check(WORLD, meta, response).flags()) == set(flags.split())


def test_the_parts_of_a_verdict():
    verdict = check(WORLD, HOME, "Mara lives in Dorn. Mara likes rice. blah blah.")
    assert (verdict.true_claims, verdict.false_claims) == (1, 1)
    assert verdict.well_formed == pytest.approx(2 / 3)
    assert (verdict.sentences, verdict.words, verdict.extra) == (3, 9, 2)
    assert not verdict.truthful
    assert not verdict.informative


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([task for tasks in TASKS_OF.values() for task in tasks]),
    st.randoms(use_true_random=False),
)
def test_no_trick_passes_as_an_answer(task, rng):
    prompt, meta = make_task(BASE, task, "all", rng)
    answer = ideal(BASE, meta, rng)
    babble = "the of murl the"
    for trick in (
        "",
        " ",
        prompt,
        f"{answer} {answer}",
        f"{answer} {babble}",
        babble,
        f"{answer} {prompt}",
    ):
        assert check(BASE, meta, trick).flags(), trick
