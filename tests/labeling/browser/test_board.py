"""The tier board in a browser: what keys, buttons and a cut line do to what is handed in."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser

LETTERS = "ABCDEFGHI"
TEXTS = ["The moon is rock.", "Cheese.", "Basalt and dust, mostly.", "I would rather not say."]


def status(page: Any) -> str:
    return page.inner_text("#status")


def tiers(page: Any) -> list[list[str]]:
    """The strip as a person sees it, best first."""
    return page.eval_on_selector_all(
        ".tiers > li:not(.end)",
        "items => items.map(i => [...i.querySelectorAll('[data-chip]')].map(c => c.dataset.chip))",
    )


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def submit(page: Any) -> None:
    page.keyboard.press("Enter")
    page.wait_for_url("**/?nothing")


@pytest.mark.parametrize("k", range(4, 10))
def test_two_keys_an_output_and_enter(show: Any, site: Any, k: int) -> None:
    page = show(site.task("ranking", [f"Output number {i}" for i in range(k)]))
    scores = [1 + (3 * i) % 7 for i in range(k)]
    keys = [key for i in range(k) for key in (LETTERS[i].lower(), str(scores[i]))] + ["Enter"]
    assert len(keys) == 2 * k + 1
    press(page, " ".join(keys))
    page.wait_for_url("**/?nothing")
    (answer,) = site.stored()
    assert answer["overall"] == dict(zip(LETTERS, scores, strict=False))
    best_first = sorted(set(scores), reverse=True)
    assert answer["tiers"] == [
        [LETTERS[i] for i in range(k) if scores[i] == score] for score in best_first
    ]


def test_nothing_is_filled_in_and_enter_says_what_is_missing(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    assert page.locator("[aria-pressed=true]").count() == 0
    assert page.locator(".tray [data-chip]").count() == 4
    assert tiers(page) == []
    page.keyboard.press("Enter")
    assert status(page) == "Not sent. Still to do: rate A, B, C, D; place A, B, C, D"
    press(page, "a 5 b 3 c 3 Enter")
    assert status(page) == "Not sent. Still to do: rate D; place D"
    assert not [what for what, _, _ in site.sent if what == "label"]


def test_placing_by_hand_outlives_later_ratings(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    press(page, "a 5 b 5 c 2 d 4")
    assert tiers(page) == [["A", "B"], ["D"], ["C"]]
    press(page, "c Shift+1")
    assert tiers(page) == [["A", "B", "C"], ["D"]]
    press(page, "Shift+ArrowUp")  # out of the tie, into a tier of its own above
    assert tiers(page) == [["C"], ["A", "B"], ["D"]]
    press(page, "1")  # its rating falls; it was placed by hand and stays
    assert tiers(page) == [["C"], ["A", "B"], ["D"]]
    press(page, "d =")
    assert tiers(page) == [["C"], ["A", "B", "D"]]
    press(page, "Shift+ArrowDown")
    assert tiers(page) == [["C"], ["A", "B"], ["D"]]
    press(page, "b Shift+0")
    assert tiers(page) == [["C"], ["A"], ["D"]]
    press(page, "Shift+9")
    assert tiers(page) == [["C"], ["A"], ["D"], ["B"]]
    assert status(page) == "B: 5, fourth of 4"
    submit(page)
    (answer,) = site.stored()
    assert answer["tiers"] == [["C"], ["A"], ["D"], ["B"]]
    assert answer["overall"] == {"A": 5, "B": 5, "C": 1, "D": 4}


def test_undo_and_redo(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    assert page.is_disabled("[data-do=undo]")
    press(page, "a 5 b 3 b 6 a m 3")
    assert tiers(page) == [["B"], ["A"]]
    press(page, "Control+z Control+z")
    assert page.get_attribute("[data-flag=hallucination][data-letter=A]", "aria-pressed") == "false"
    assert tiers(page) == [["A"], ["B"]]
    press(page, "Control+z Control+z")
    assert tiers(page) == []
    assert page.locator("[aria-pressed=true]").count() == 0
    press(page, "Control+z")
    assert status(page) == "Nothing to undo"
    press(page, "Control+y Control+Shift+Z Control+y Control+y")
    assert tiers(page) == [["B"], ["A"]]
    assert page.get_attribute("[data-flag=hallucination][data-letter=A]", "aria-pressed") == "true"
    assert page.is_disabled("[data-do=redo]")


def test_flags_notes_and_remark_are_handed_in(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    press(page, "a 4 m 3 m - m 3 m 0 b 4 c 4 d 4")
    page.click(".output[data-letter=B] .note summary")
    page.fill(".output[data-letter=B] textarea", "Short, <b>but</b> funny: 5 b 7")
    page.click(".remark summary")
    page.fill("#remark", "A fine prompt")
    page.click("#status")
    submit(page)
    (answer,) = site.stored()
    assert answer["flags"] == {"A": ["opinion", "moral_judgment"]}
    assert answer["notes"] == {"B": "Short, <b>but</b> funny: 5 b 7"}  # keys rest in a field
    assert answer["remark"] == "A fine prompt"
    assert answer["overall"] == dict.fromkeys("ABCD", 4)


def test_none_acceptable_wants_a_reason(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    press(page, "a 1 Shift+N")
    page.keyboard.press("Escape")
    page.click("#status")
    page.keyboard.press("Enter")
    assert status(page) == "Not sent. Still to do: say why none is acceptable"
    page.fill("#why", "All of them are made up")
    page.click("#status")
    submit(page)
    (answer,) = site.stored()
    assert answer["not_rankable"] is True
    assert answer["why"] == "All of them are made up"
    assert answer["tiers"] == []
    assert answer["overall"] == {"A": 1}


def test_identical_texts_are_shown_once(show: Any, site: Any) -> None:
    page = show(site.task("ranking", ["Same words.", "Others.", "Same words."]))
    assert page.locator(".output").count() == 2
    assert "2 identical" in page.inner_text(".output[data-letter=A]")
    press(page, "a 5 b 5")
    submit(page)
    assert site.stored()[0]["tiers"] == [["A", "B"]]


def test_two_outputs_beside_each_other(show: Any, site: Any) -> None:
    long = "\n".join(f"Line {i} of a long text." for i in range(300))
    page = show(site.task("ranking", [long, "x", long.replace("Line 7 ", "Verse 7 "), "y"]))
    press(page, "v c a")
    assert page.locator(".output:visible").evaluate_all("a => a.map(x => x.dataset.letter)") == [
        "A",
        "C",
    ]
    press(page, "3")  # rating goes on: the first of the two is chosen
    assert tiers(page) == [["C"]]
    page.click("[data-do=differences]")
    marks = page.locator(".output mark").all_inner_texts()
    assert marks == ["Line", "Verse"]
    page.eval_on_selector(".output[data-letter=A] .box", "box => box.scrollTop = 1000")
    # the other one follows when it hears of the scrolling
    page.evaluate(
        """() => new Promise((done) => {
          const box = document.querySelector('.output[data-letter=C] .box');
          const look = () => (box.scrollTop > 990 ? done() : requestAnimationFrame(look));
          look();
        })"""
    )
    press(page, "Escape")
    assert page.locator(".output:visible").count() == 4
    assert page.locator("mark").count() == 0
    assert page.inner_text(".output[data-letter=A] .text") == long


def test_one_output_in_full_and_whether_it_was_read(show: Any, site: Any) -> None:
    long = "word " * 4000
    page = show(site.task("ranking", [long, "short"]))
    read = page.locator("[data-read]")
    page.wait_for_selector(".output[data-letter=B][data-read]")
    assert read.count() == 1
    press(page, "a o")
    assert page.locator(".output:visible").count() == 1
    page.eval_on_selector(".text-end", "end => end.scrollIntoView()")
    page.wait_for_selector(".output[data-letter=A][data-read]")
    press(page, "b")  # the next one, opened too
    assert page.get_attribute(".output[data-letter=B]", "data-opened") == ""
    press(page, "o")
    assert page.locator(".output:visible").count() == 2


def test_skip_wants_a_reason_and_is_no_single_key(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    press(page, "s x n Delete Backspace q Escape")
    assert page.locator("dialog[open]").count() == 0
    press(page, "Shift+S")
    page.click("#skip .primary")
    assert page.locator("#skip[open]").count() == 1
    page.check("#skip [value=other]")
    page.click("#skip .primary")
    assert page.locator("#skip[open]").count() == 1  # the note is wanted with it
    page.fill("#skip-note", "Not for me")
    page.click("#skip .primary")
    page.wait_for_url("**/?nothing")
    body = next(body for what, _, body in site.sent if what == "skip")
    assert (body["reason"], body["note"]) == ("other", "Not for me")
    assert len(body["key"]) >= 8


def test_questions_and_flags_go_to_the_lead(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    page.click(".tabs [data-panel=questions]")
    page.fill("#question", "Is <i>cheese</i> a joke?")
    page.click("#ask button")
    page.wait_for_selector("#messages li")
    assert page.inner_text("#messages .text") == "Is <i>cheese</i> a joke?"
    page.click("[data-do=report]")
    page.fill("#report-text", "The prompt is cut off")
    page.click("#report .primary")
    page.wait_for_selector("#messages .chip")
    sent = [body for what, _, body in site.sent if what == "messages"]
    assert [(body["text"], body["flag"]) for body in sent] == [
        ("Is <i>cheese</i> a joke?", False),
        ("The prompt is cut off", True),
    ]


def test_panels_fold_by_keys_that_a_labeler_can_change(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS, shortcuts={"guidelines": "g", "open": "off"}))
    press(page, "g")
    assert page.is_visible("#panel-guidelines")
    assert page.is_hidden("#panel-prompt")
    press(page, "p")
    assert page.is_visible("#panel-prompt")
    press(page, "p")
    assert page.is_hidden("#panel-prompt")
    press(page, "r a o")
    assert page.is_hidden("#panel-guidelines")
    assert page.locator("[data-opened]").count() == 0
    press(page, "?")
    assert page.inner_text("#help [data-command=guidelines]") == "g"


def test_single_keys_can_be_switched_off(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS, shortcuts={"letters": "off"}))
    press(page, "a 5 b 3 v m o p r ? Shift+S")
    assert tiers(page) == []
    assert page.locator("dialog[open]").count() == 0


def test_a_draft_is_saved_within_two_seconds_and_comes_back(show: Any, site: Any) -> None:
    path = site.task("ranking", TEXTS)
    page = show(path)
    with page.expect_response("**/draft") as saved:
        press(page, "a 5")
        for score in "67654321":  # without a pause of a second, for two seconds
            page.wait_for_timeout(230)
            press(page, score)
    assert saved.value.request.post_data_json["content"]["state"]["tiers"] == [["A"]]
    press(page, "a 6 m 1")
    page.wait_for_selector("#sync:text-is('Saved')")
    assert page.evaluate("localStorage.length") == 0  # the server has it
    again = show(path)
    assert tiers(again) == [["A"]]
    assert again.get_attribute("[data-flag=fails_task]", "aria-pressed") == "true"
    assert status(again) == "Your draft is back"


def test_what_no_server_got_is_kept_in_the_browser(show: Any, site: Any) -> None:
    path = site.task("ranking", TEXTS)
    page = show(path)
    site.down = True
    press(page, "a 5 b 2")
    page.wait_for_selector("#sync[data-problem]")
    page.reload()
    page.wait_for_selector("main[data-ready]")
    assert tiers(page) == [["A"], ["B"]]
    assert status(page) == "Restored what this browser had kept"
    site.down = False
    page.wait_for_selector("#sync:text-is('Saved')")
    assert page.evaluate("localStorage.length") == 0
    assert site.draft(path)["state"]["tiers"] == [["A"], ["B"]]


def test_a_submission_that_was_cut_off_is_sent_again_under_its_key(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    keys: list[str] = []

    def lose_the_answer(route: Any) -> None:
        keys.append(route.request.post_data_json["key"])
        if len(keys) == 1:
            route.fetch()  # the server keeps it, the browser never learns
            route.abort()
        else:
            route.continue_()

    page.route("**/label", lose_the_answer)
    press(page, "a 5 b 2 c 2 d 1")
    submit(page)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len(site.stored()) == 1


def test_a_change_after_a_cut_off_submission_is_not_lost(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    site.down = True
    press(page, "a 5 b 2 c 2 d 1 Enter")
    page.wait_for_selector("#sync[data-problem]")
    press(page, "a 7")
    site.down = False
    page.wait_for_selector("#sync:text-is('Saved')")
    assert site.stored() == []  # what was changed waits for another Enter
    submit(page)
    assert [answer["overall"]["A"] for answer in site.stored()] == [7]


@pytest.mark.parametrize("keep", ["mine", "theirs"])
def test_two_tabs_are_asked_which_version_stands(show: Any, site: Any, keep: str) -> None:
    path = site.task("ranking", TEXTS)
    one = show(path)
    other = show(path, beside=one)
    with one.expect_response("**/draft"):
        press(one, "a 5 b 2 c 1 d 1")
    press(other, "a 1 b 7")
    other.wait_for_selector("#conflict[open]")
    assert "A (5)" in other.inner_text("#conflict-theirs")
    assert "A (1)" in other.inner_text("#conflict-mine")
    other.click(f"#conflict [value={keep}]")
    # a dialog tells that it was closed a moment after it was
    other.wait_for_selector("#conflict", state="hidden")
    other.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert tiers(other) == ([["B"], ["A"]] if keep == "mine" else [["A"], ["B"], ["C", "D"]])
    if keep == "mine":
        with other.expect_response(lambda r: r.url.endswith("/draft") and r.status == 200):
            pass
        press(other, "c 1 d 1")
    submit(other)
    assert site.stored()[0]["overall"]["A"] == (1 if keep == "mine" else 5)


def test_a_second_tab_cannot_overwrite_a_label_unseen(show: Any, site: Any) -> None:
    path = site.task("ranking", TEXTS)
    one = show(path)
    other = show(path)  # another device: nothing shared but the server
    press(one, "a 5 b 2 c 1 d 1")
    submit(one)
    press(other, "a 1 b 1 c 1 d 7 Enter")
    other.wait_for_selector("#conflict[open]")
    assert "A (5)" in other.inner_text("#conflict-theirs")
    other.click("#conflict [value=mine]")
    other.wait_for_url("**/?nothing")
    assert [answer["overall"]["A"] for answer in site.stored()] == [5, 1]


def test_a_label_can_be_reopened_and_gives_a_new_revision(show: Any, site: Any) -> None:
    path = site.task("ranking", TEXTS)
    page = show(path)
    press(page, "a 5 b 2 c 2 d 1 c Shift+1")
    submit(page)
    page.click("#toast a")
    page.wait_for_selector("main[data-ready]")
    assert tiers(page) == [["A", "C"], ["B"], ["D"]]
    press(page, "b = Enter")
    page.wait_for_url("**/history")
    assert [answer["tiers"] for answer in site.stored()] == [
        [["A", "C"], ["B"], ["D"]],
        [["A", "B", "C"], ["D"]],
    ]
    labels = [body for what, _, body in site.sent if what == "label"]
    assert [body["base"] for body in labels] == [0, 1]
    assert labels[0]["key"] != labels[1]["key"]


def test_time_counts_while_somebody_is_there(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))
    page.wait_for_timeout(1200)
    press(page, "a 5 b 2 c 2 d 1")
    submit(page)
    (body,) = [body for what, _, body in site.sent if what == "label"]
    assert 1000 < body["active_ms"] < 60_000
