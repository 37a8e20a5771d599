"""Keys, mouse and touch are three ways to the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.browser

TEXTS = ["The moon is rock.", "Cheese.", "Basalt and dust, mostly.", "I would rather not say."]
EXPECTED = {
    "tiers": [["B"], ["C"], ["A", "D"]],
    "overall": {"A": 2, "B": 7, "C": 5, "D": 5},
    "notes": {},
    "remark": "",
    "flags": {"B": ["hallucination", "opinion"]},
    "not_rankable": False,
    "why": "",
}


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def by_keys(page: Any) -> None:
    press(page, "a 2 b 7 c 5 d 5 b m 3 m 0 d Shift+3 Enter")


def _rate(page: Any, do: Any) -> None:
    for letter, score in (("A", 2), ("B", 7), ("C", 5), ("D", 5)):
        do(page.locator(f".output[data-letter={letter}] [data-value='{score}']"))
    do(page.locator(".output[data-letter=B] .flags summary"))
    for flag in ("opinion", "hallucination"):  # in another order than by keys
        do(page.locator(f".output[data-letter=B] [data-flag={flag}]"))


def by_mouse(page: Any) -> None:
    _rate(page, lambda target: target.click())
    source = page.locator("[data-chip=D]").bounding_box()
    goal = page.locator(".tiers > li:nth-child(3) .join").bounding_box()
    page.mouse.move(source["x"] + 10, source["y"] + 10)
    page.mouse.down()
    page.mouse.move(source["x"] + 30, source["y"] + 5, steps=3)
    page.mouse.move(goal["x"] + 8, goal["y"] + 12, steps=5)
    page.mouse.up()
    page.click("[data-do=submit]")


def by_touch(page: Any) -> None:
    _rate(page, lambda target: target.tap())
    page.locator("[data-chip=D]").tap()
    page.locator(".tiers > li:nth-child(3) .join").tap()
    page.locator("[data-do=submit]").tap()


def by_dragging_a_finger(page: Any) -> None:
    _rate(page, lambda target: target.tap())
    source = page.locator("[data-chip=D]").bounding_box()
    goal = page.locator(".tiers > li:nth-child(3) .join").bounding_box()
    touch = page.context.new_cdp_session(page)

    def send(what: str, *points: tuple[float, float]) -> None:
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": what, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )

    x, y = source["x"] + 10, source["y"] + 10
    send("touchStart", (x, y))
    for step in range(1, 9):
        goal_x, goal_y = goal["x"] + 8, goal["y"] + 12
        send("touchMove", (x + (goal_x - x) * step / 8, y + (goal_y - y) * step / 8))
    send("touchEnd")
    page.wait_for_timeout(500)  # a tap so soon after it would be no click to the browser
    page.locator("[data-do=submit]").tap()


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
TABLET = {"viewport": {"width": 1024, "height": 768}, "has_touch": True}


@pytest.mark.parametrize(
    ("way", "options"),
    [
        (by_keys, {}),
        (by_mouse, {}),
        (by_mouse, {"viewport": {"width": 720, "height": 900}}),
        (by_touch, PHONE),
        (by_dragging_a_finger, TABLET),
    ],
    ids=["keys", "mouse", "narrow", "phone", "finger"],
)
def test_every_way_gives_the_same_bytes(show: Any, site: Any, way: Any, options: Any) -> None:
    page = show(site.task("ranking", TEXTS), **options)
    bodies: list[str] = []
    page.on("request", lambda r: bodies.append(r.post_data) if r.url.endswith("/label") else None)
    way(page)
    page.wait_for_url("**/?nothing")
    assert len(bodies) == 1
    answer = bodies[0][bodies[0].index('"answer":') :]
    assert answer == f'"answer":{json.dumps(EXPECTED, separators=(",", ":"))}}}'


def test_a_drag_to_a_gap_makes_a_tier_and_one_to_nowhere_nothing(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS))

    def drag(source: str, x: float, y: float) -> None:
        box = page.locator(source).bounding_box()
        page.mouse.move(box["x"] + 10, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + 20, box["y"], steps=2)
        page.mouse.move(x, y, steps=4)
        page.mouse.up()

    def middle(selector: str) -> tuple[float, float]:
        box = page.locator(selector).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def tiers() -> Any:
        return page.eval_on_selector_all(
            ".tiers > li:not(.end)",
            "i => i.map(x => [...x.querySelectorAll('[data-chip]')].map(c => c.dataset.chip))",
        )

    press(page, "a 5 b 3")
    drag("[data-chip=C]", *middle(".tiers > li:nth-child(2) .gap"))
    assert tiers() == [["A"], ["C"], ["B"]]
    drag("h2[data-drag=D]", *middle(".tiers .end .gap"))  # by the head of its card
    assert tiers() == [["A"], ["C"], ["B"], ["D"]]
    drag("[data-chip=A]", *middle("#panel-prompt"))
    assert tiers() == [["A"], ["C"], ["B"], ["D"]]
    drag("[data-chip=A]", *middle(".tray"))
    assert tiers() == [["C"], ["B"], ["D"]]
    assert page.locator(".ghost").count() == 0


def test_targets_are_large_enough_for_a_finger(show: Any, site: Any) -> None:
    page = show(site.task("ranking", TEXTS), **PHONE)
    page.locator("[data-chip=A]").tap()
    page.locator(".end .gap").tap()
    page.locator(".output[data-letter=A] .flags summary").tap()
    small = page.locator("button:visible, summary:visible, a:visible").evaluate_all(
        """all => all.map(x => [x.outerHTML.slice(0, 60), x.getBoundingClientRect()])
             .filter(([_, b]) => b.width && (b.height < 44 || b.width < 40))
             .map(([html, b]) => `${html} ${b.width}x${b.height}`)"""
    )
    assert not [line for line in small if "to-content" not in line], small


def test_on_a_phone_the_prompt_is_one_tap_away(show: Any, site: Any) -> None:
    page = show(site.task("ranking", [f"{i} " + "word " * 600 for i in range(4)]), **PHONE)
    tab = page.locator(".tabs [data-panel=prompt]")

    def seen() -> bool:
        box = page.locator("#panel-prompt").bounding_box()
        under = tab.bounding_box()
        return bool(box["y"] + box["height"] > under["y"] + under["height"] + 20)

    assert seen()
    page.locator("[data-chip=D]").tap()  # far below
    assert not seen()
    at = page.evaluate("scrollY")
    tab.tap()
    assert seen()
    tab.tap()
    assert not seen()
    assert page.evaluate("scrollY") == at


NINE = ["word " * 2000 + str(i) for i in range(9)]


def test_a_key_touches_a_dozen_nodes_however_long_the_texts(show: Any, site: Any) -> None:
    page = show(site.task("ranking", NINE))
    page.wait_for_timeout(300)  # what comes into sight at first is marked as read
    page.evaluate(
        """() => {
          window.touched = [];
          new MutationObserver((records) => {
            const nodes = new Set();
            for (const record of records) {
              if (record.type !== 'childList') nodes.add(record.target);
              for (const node of [...record.addedNodes, ...record.removedNodes]) nodes.add(node);
            }
            window.touched.push(nodes.size);
          }).observe(document.body,
            {subtree: true, childList: true, attributes: true, characterData: true});
        }"""
    )
    keys = [key for i in range(9) for key in ("abcdefghi"[i], str(1 + i % 7))]
    keys += ["a", "7", "Shift+9", "Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowUp", "=", "m", "3"]
    keys += ["Control+z"] * 12 + ["Control+y"] * 6
    for key in keys:
        page.evaluate("touched.length = 0")
        page.keyboard.press(key)
        touched = page.evaluate("touched")
        assert sum(touched) <= 12, (key, touched)
