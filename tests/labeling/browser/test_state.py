"""The board's state as a value: any actions, in the browser's own JavaScript."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instil.labeling.web.route import static_url

pytestmark = pytest.mark.browser

LETTERS = "ABCDE"
FORM = {
    "kind": "ranking",
    "per_card": [{"name": "overall"}],
    "per_prompt": [],
    "flags": [{"name": "opinion"}, {"name": "violent"}],
    "seeds": True,
}
card = st.sampled_from(LETTERS)
rate = st.builds(
    lambda c, v: {"type": "rate", "card": c, "question": "overall", "value": v},
    card,
    st.integers(1, 7),
)
action = st.one_of(
    rate,
    st.builds(lambda c: {"type": "focus", "card": c}, st.none() | card),
    st.builds(lambda t, c, n: {"type": t, "card": c, "tier": n},
              st.sampled_from(["place", "gap"]), card, st.integers(0, 8)),
    st.builds(lambda t, c: {"type": t, "card": c},
              st.sampled_from(["up", "down", "tie", "clear"]), card),
    st.builds(lambda c, n: {"type": "flag", "card": c, "name": n},
              card, st.sampled_from(["opinion", "violent"])),
    st.builds(lambda c, t: {"type": "note", "card": c, "text": t}, card, st.text(max_size=3)),
    st.builds(lambda t, x: {"type": t, "text": x},
              st.sampled_from(["remark", "why"]), st.text(max_size=3)),
    st.builds(lambda on: {"type": "unrankable", "on": on}, st.booleans()),
    st.sampled_from([{"type": "undo"}, {"type": "redo"}]),
)  # fmt: skip
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def board(chromium: Any, served: Any) -> Any:
    """A page with state.js in it: `board(expression, argument)`."""
    page = chromium.new_page()
    page.goto(f"{served.url}/login")
    page.evaluate(
        """async ([letters, form, url]) => {
          window.S = await import(url);
          window.board = S.rules([...letters], form);
          window.run = (actions, history = S.begin(S.empty(board))) =>
            actions.reduce((h, a, i) => S.step(h, {...a, at: 5000 * i}, board), history);
        }""",
        [LETTERS, FORM, f"{served.url}{static_url('state.js')}"],
    )
    yield page.evaluate
    page.close()


@given(actions=st.lists(action, max_size=40))
@QUICK
def test_undo_all_is_the_start_and_redo_all_the_end(board: Any, actions: list[Any]) -> None:
    start, end, again = board(
        """actions => {
          const same = (one, other) => S.same({...one, focus: null, question: 0},
                                              {...other, focus: null, question: 0});
          const done = run(actions);
          const steps = done.past.length;
          const back = run(Array(steps).fill({type: 'undo'}), done);
          const forth = run(Array(steps).fill({type: 'redo'}), back);
          return [same(back.now, S.empty(board)), same(forth.now, done.now),
                  back.past.length === 0 && forth.past.length === steps];
        }""",
        actions,
    )
    assert start and end and again


@given(actions=st.lists(action, max_size=40))
@QUICK
def test_tiers_hold_each_card_at_most_once_and_none_is_empty(
    board: Any, actions: list[Any]
) -> None:
    states = board("actions => actions.map((_, i) => run(actions.slice(0, i + 1)).now)", actions)
    for state in states:
        placed = [letter for tier in state["tiers"] for letter in tier]
        assert len(placed) == len(set(placed))
        assert all(state["tiers"])
        assert all(tier == sorted(tier) for tier in state["tiers"])
        assert set(state["pinned"]) <= set(placed)


@given(scores=st.lists(st.integers(1, 7), min_size=5, max_size=5), order=st.permutations(LETTERS))
@QUICK
def test_ratings_alone_give_descending_tiers_in_any_order(
    board: Any, scores: list[int], order: list[str]
) -> None:
    rated = dict(zip(LETTERS, scores, strict=True))
    actions = [
        {"type": "rate", "card": letter, "question": "overall", "value": rated[letter]}
        for letter in order
    ]
    tiers = board("actions => run(actions).now.tiers", actions)
    expected = [
        [letter for letter in LETTERS if rated[letter] == score]
        for score in sorted(set(scores), reverse=True)
    ]
    assert tiers == expected


@given(actions=st.lists(action, max_size=30), later=st.lists(rate, max_size=10), moved=card)
@QUICK
def test_what_was_placed_by_hand_is_not_moved_by_ratings(
    board: Any, actions: list[Any], later: list[Any], moved: str
) -> None:
    """Its place among the others that were placed by hand stays."""
    before, after = board(
        """([actions, later]) => {
          const order = (state) => state.tiers.map(t => t.filter(l => state.pinned.includes(l)))
            .filter(t => t.length);
          const done = run(actions);
          return [order(done.now), order(run(later, done).now)];
        }""",
        [[*actions, {"type": "place", "card": moved, "tier": 1}], later],
    )
    assert before == after


@given(actions=st.lists(action, max_size=30))
@QUICK
def test_what_is_handed_in_comes_back_as_it_was(board: Any, actions: list[Any]) -> None:
    first, second = board(
        """actions => {
          const given = S.answer(run(actions).now, board);
          return [given, S.answer(S.restored(given, board), board)].map(x => JSON.stringify(x));
        }""",
        actions,
    )
    assert first == second


def test_typing_within_a_second_is_one_step(board: Any) -> None:
    steps = board(
        """() => {
          let history = S.begin(S.empty(board));
          for (const [at, text] of [[0, 'a'], [400, 'ab'], [1300, 'abc'], [2400, 'abcd']])
            history = S.step(history, {type: 'note', card: 'A', text, at}, board);
          return history.past.map(state => state.notes.A ?? '');
        }"""
    )
    # 0 begins, 400 and 1300 come less than a second after the one before, 2400 does not
    assert steps == ["", "abc"]
