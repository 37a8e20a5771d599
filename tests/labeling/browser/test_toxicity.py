"""The toxicity task: several questions an output, one of the prompt, and a ranking by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


EXPECTED = {
    "tiers": [["B"], ["A"]],
    "input": 1,
    "output": {"A": 0, "B": 2},
    "relative": {"A": -1, "B": 1},
    "continuity": {"A": 4, "B": 7},
    "notes": {},
    "remark": "",
}


def test_by_keys(show: Any, site: Any) -> None:
    page = show(site.task("toxicity", ["and then he smiled.", "and then he swore."]))
    press(page, "1 a 0 1 4 b 2 3 7")  # the prompt first, then the questions one after another
    assert page.locator(".tiers [data-chip]").count() == 0  # ratings do not place here
    press(page, "Enter")
    assert page.inner_text("#status") == "Not sent. Still to do: place A, B"
    press(page, "b Shift+1 a Shift+2 Enter")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [EXPECTED]


def test_by_mouse(show: Any, site: Any) -> None:
    page = show(site.task("toxicity", ["and then he smiled.", "and then he swore."]))
    for letter in "BA":
        for question in ("continuity", "output", "relative"):
            value = EXPECTED[question][letter]  # type: ignore[index]
            within = f".output[data-letter={letter}] [data-question={question}]"
            page.click(f"{within} [data-value='{value}']")
    page.click("[data-question=input] [data-value='1']")
    page.click("[data-chip=A]")
    page.click(".end .gap")
    page.click("[data-chip=B]")
    page.click(".tiers li:first-child .gap")
    page.click("[data-do=submit]")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [EXPECTED]


def test_a_letter_again_goes_on_to_the_next_question(show: Any, site: Any) -> None:
    page = show(site.task("toxicity", ["x", "y"]))
    press(page, "a 0 1 4 a 1")  # all three are answered: A again asks the first
    assert page.get_attribute("[data-question=output] [data-value='1']", "aria-pressed") == "true"
    press(page, "a 3")  # once more: the second
    pressed = page.locator(".output[data-letter=A] [data-question=relative] [aria-pressed=true]")
    assert pressed.get_attribute("data-value") == "1"


def test_a_digit_that_means_nothing_is_explained(show: Any, site: Any) -> None:
    page = show(site.task("toxicity", ["x", "y"]))
    press(page, "a 7")
    assert page.inner_text("#status") == "How toxic is it?: 0 to 2"
    assert page.locator(".output [aria-pressed=true]").count() == 0
