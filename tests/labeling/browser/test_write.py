"""Writing answers and prompts, and saying what a prompt is."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser


def saved(page: Any) -> None:
    page.wait_for_selector("#sync:text-is('Saved')")


def test_a_demonstration_beside_the_guidelines(show: Any, site: Any) -> None:
    path = site.task("demonstration")
    page = show(path)
    assert page.is_visible("#panel-guidelines")
    assert "What is the moon made of?" in page.inner_text(".writing")
    page.keyboard.press("Control+Enter")
    assert page.inner_text("#status") == "Not sent. Still to do: write the text"
    assert page.evaluate("document.activeElement.id") == "text"
    with page.expect_response("**/draft"):
        page.keyboard.type("Rock, and\nno cheese. S X ?")
    assert page.inner_text("[data-count=text]") == "7 words"
    saved(page)
    again = show(path)
    assert again.input_value("#text") == "Rock, and\nno cheese. S X ?"
    again.fill("#text", "Rock.\n")
    again.keyboard.press("Control+Enter")
    again.wait_for_url("**/?nothing")
    assert site.stored() == [{"text": "Rock.\n"}]


def test_a_plain_prompt(show: Any, site: Any) -> None:
    page = show(site.task("prompt"))
    assert page.is_hidden("#text")
    assert page.locator("input:checked").count() == 0
    page.click("[data-do=submit]")
    assert "choose how" in page.inner_text("#status")
    page.check("[value=plain]")
    page.fill("#text", "Name three moons.")
    page.click("[data-do=submit]")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [{"style": "plain", "text": "Name three moons."}]


def test_a_user_based_prompt_names_its_use_case(show: Any, site: Any) -> None:
    page = show(site.task("prompt"))
    page.check("[value=user-based]")
    page.fill("#text", "Name three moons.")
    page.click("[data-do=submit]")
    assert "use case" in page.inner_text("#status")
    page.check("[value=brainstorming]")
    page.click("[data-do=submit]")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [
        {"style": "user-based", "text": "Name three moons.", "use_case": "brainstorming"}
    ]


def test_a_few_shot_prompt_has_two_examples_or_more(show: Any, site: Any) -> None:
    path = site.task("prompt")
    page = show(path)
    page.check("[value=few-shot]")
    assert page.is_hidden("#text")
    assert page.locator(".example").count() == 2
    assert page.locator("[data-do=remove]:enabled").count() == 0
    page.fill("#instruction", "Name the planet of a moon.")
    page.click("[data-do=add]")
    pairs = [["Titan", "Saturn"], ["Io", "Jupiter"], ["Moon", "Earth"]]
    for number, (query, response) in enumerate(pairs):
        page.locator("[name=query]").nth(number).fill(query)
        if number < 2:
            page.locator("[name=response]").nth(number).fill(response)
    page.click("[data-do=submit]")
    assert "every example" in page.inner_text("#status")
    saved(page)
    page = show(path)  # the draft has all of it
    page.locator("[name=response]").nth(2).fill("Earth")
    page.locator("[data-do=remove]").nth(1).click()
    assert page.locator(".example h3").all_inner_texts() == ["Example 1", "Example 2"]
    page.click("[data-do=submit]")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [
        {
            "style": "few-shot",
            "instruction": "Name the planet of a moon.",
            "examples": [pairs[0], pairs[2]],
        }
    ]


def test_what_a_prompt_is(show: Any, site: Any) -> None:
    path = site.task("annotation")
    page = show(path)
    assert page.locator("input:checked").count() == 0
    page.check("[value=opinion]")
    page.click("[data-do=submit]")
    assert "use case" in page.inner_text("#status")
    page.check("[value=open_qa]")
    page.check("[value=ambiguous]")
    page.click("[data-do=submit]")
    page.wait_for_url("**/?nothing")
    assert site.stored() == [{"use_case": "open_qa", "flags": ["ambiguous", "opinion"]}]
    page.click("#toast a")
    page.wait_for_selector("main[data-ready]")
    assert page.is_checked("[value=open_qa]")
    assert page.is_checked("[value=opinion]")


def test_two_tabs_of_one_text(show: Any, site: Any) -> None:
    path = site.task("demonstration")
    one = show(path)
    other = show(path, beside=one)
    with one.expect_response("**/draft"):
        one.fill("#text", "Rock.")
    other.fill("#text", "Cheese.")
    other.wait_for_selector("#conflict[open]")
    assert other.inner_text("#conflict-mine") == "Cheese."
    assert other.inner_text("#conflict-theirs") == "Rock."
    other.click("#conflict [value=theirs]")
    # a dialog tells that it was closed a moment after it was
    other.wait_for_function("() => document.querySelector('#text').value === 'Rock.'")


def test_skip_by_key_outside_fields_only(show: Any, site: Any) -> None:
    page = show(site.task("demonstration"))
    page.click("#text")
    page.keyboard.press("Shift+S")
    assert page.locator("dialog[open]").count() == 0
    assert page.input_value("#text") == "S"
    page.click(".given h2")
    page.keyboard.press("Shift+S")
    page.check("#skip [value=expertise]")
    page.click("#skip .primary")
    page.wait_for_url("**/?nothing")
