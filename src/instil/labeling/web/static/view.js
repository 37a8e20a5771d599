// A state of the board -> the document. Only what differs from the last drawing is written, so that a keystroke touches
// a dozen nodes however long the outputs are. The page itself comes whole from the server; nothing is built here but tiers.

import { missing } from "./state.js";

const set = (element, name, on) => (on === true ? element.setAttribute(name, "") : on ? element.setAttribute(name, on) : element.removeAttribute(name));
const NONE = [];
const press = (button, on) => button?.setAttribute("aria-pressed", String(on));
const textOf = (element) => element.firstChild ?? element.appendChild(document.createTextNode(""));

/** Write `value` into a text node if it is another one. */
export function write(node, value) {
  if (node.data !== value) node.data = value;
}

export function view(root, board) {
  const find = (selector) => root.querySelector(selector);
  const tiers = find(".tiers");
  const template = find("#tier");
  const buttons = (element) => new Map([...element.querySelectorAll("[data-value]")].map((button) => [Number(button.dataset.value), button]));
  const scales = (within, letter) =>
    Object.fromEntries([...within.querySelectorAll(`.question[data-letter="${letter}"]`)].map((group) => [group.dataset.question, { group, buttons: buttons(group) }]));
  const cards = Object.fromEntries([...root.querySelectorAll(".output")].map((article) => {
    const letter = article.dataset.letter;
    const chip = find(`[data-chip="${letter}"]`);
    return [letter, {
      article, chip, box: article.querySelector(".box"), text: article.querySelector(".text"), scales: scales(article, letter), note: article.querySelector("textarea"),
      flags: Object.fromEntries([...article.querySelectorAll("[data-flag]")].map((button) => [button.dataset.flag, button])),
      details: article.querySelector(".flags"), chosen: article.querySelector(".chosen"), score: textOf(chip.querySelector("small")),
      open: article.querySelector("[data-do=open]"),
    }];
  }));
  const prompt = { scales: scales(root, ""), box: find("#panel-prompt") };
  const [status, progress] = [textOf(find("#status")), textOf(find("#progress"))];
  const fields = { remark: find("#remark"), why: find("#why") };
  let shown = null; // {state, ui}

  const scalesOf = (letter) => (letter === null ? prompt.scales : cards[letter].scales);
  const active = (state) => scalesOf(state.focus)[(state.focus === null ? board.perPrompt : board.perCard)[state.question]]?.group;

  function drawFocus(old, state) {
    if (old.focus !== state.focus) {
      for (const [letter, on] of [[old.focus, false], [state.focus, true]]) {
        if (letter === null) continue;
        set(cards[letter].article, "data-focus", on);
        set(cards[letter].chip, "aria-current", on && "true");
      }
    }
    if (board.perCard.length < 2) return; // one question needs no mark of which is next
    const next = active(state);
    if (shown.next === next) return;
    if (shown.next) set(shown.next, "data-next", false);
    if (next) set(next, "data-next", true);
    shown.next = next;
  }

  function drawScores(old, state) {
    for (const [letter, values, before] of [[null, state.prompt, old.prompt], ...board.letters.map((letter) => [letter])]) {
      for (const [name, { buttons }] of Object.entries(scalesOf(letter))) {
        const [was, is] = letter === null ? [before[name], values[name]] : [old.scores[name][letter], state.scores[name][letter]];
        if (was === is) continue;
        press(buttons.get(was), false);
        press(buttons.get(is), true);
      }
      if (letter === null) continue;
      const given = board.perCard.map((name) => state.scores[name][letter]).filter((value) => value !== undefined);
      write(cards[letter].score, board.perCard.length === 1 ? String(given[0] ?? "") : given.length ? `${given.length}/${board.perCard.length}` : "");
    }
  }

  function drawFlags(old, state) {
    for (const letter of board.letters) {
      const [was, is] = [old.flags[letter] ?? NONE, state.flags[letter] ?? NONE];
      if (was === is) continue;
      for (const name of board.flags) if (was.includes(name) !== is.includes(name)) press(cards[letter].flags[name], is.includes(name));
      write(textOf(cards[letter].chosen), is.map((name) => cards[letter].flags[name].lastChild.data).join(" · "));
    }
  }

  /** One card moves at a time, so at most one tier goes and one comes; the others keep their elements. */
  function drawTiers(state) {
    const end = tiers.querySelector(".end");
    const items = () => [...tiers.children].filter((item) => item !== end);
    const lettersOf = (item) => [...item.querySelectorAll("[data-chip]")].map((chip) => chip.dataset.chip);
    const free = new Map(items().map((item) => [item, lettersOf(item)]));
    const wanted = state.tiers.map((tier) => {
      let best = null;
      for (const [item, letters] of free) {
        const shared = letters.filter((letter) => tier.includes(letter)).length;
        if (shared && shared > (best?.shared ?? 0)) best = { item, shared };
      }
      if (best) free.delete(best.item);
      return best?.item ?? template.content.firstElementChild.cloneNode(true);
    });
    wanted.forEach((item, index) => {
      state.tiers[index].forEach((letter, place) => {
        const chips = item.querySelectorAll("[data-chip]");
        if (chips[place] !== cards[letter].chip) item.insertBefore(cards[letter].chip, chips[place] ?? null);
      });
    });
    const tray = find(".tray");
    for (const letter of board.letters) {
      const { chip } = cards[letter];
      const out = !state.tiers.some((tier) => tier.includes(letter));
      if (out && chip.parentNode !== tray) {
        const next = board.letters.slice(board.letters.indexOf(letter) + 1).map((other) => cards[other].chip).find((other) => other.parentNode === tray);
        tray.insertBefore(chip, next ?? null);
      }
    }
    for (const item of free.keys()) item.remove();
    wanted.forEach((item, index) => {
      const here = tiers.children[index];
      if (here === item) return;
      // a tier that moved down is taken out once, rather than every tier after it moved up
      if (tiers.children[index + 1] === item && wanted.includes(here)) here.remove();
      else tiers.insertBefore(item, here);
    });
  }

  function drawTexts(state) {
    for (const letter of board.letters) {
      const { note } = cards[letter];
      if (note && note.value !== (state.notes[letter] ?? "")) note.value = state.notes[letter] ?? "";
    }
    if (fields.remark && fields.remark.value !== state.remark) fields.remark.value = state.remark;
    if (fields.why && fields.why.value !== state.why) fields.why.value = state.why;
  }

  /** `history` as of state.js; `ui` is {open: bool, compare: [letter, letter] | null}. */
  function draw(history, ui) {
    const state = history.now;
    const first = shown === null;
    const old = shown?.state ?? { ...state, focus: null, question: 0, prompt: {}, flags: {}, tiers: [], notRankable: false,
      scores: Object.fromEntries(board.perCard.map((name) => [name, {}])) };
    shown ??= { state: null, ui: { open: false, compare: null }, undo: false, redo: false, next: null };
    if (first || old.focus !== state.focus || old.question !== state.question) drawFocus(old, state);
    if (old.scores !== state.scores || old.prompt !== state.prompt) drawScores(old, state);
    if (old.flags !== state.flags) drawFlags(old, state);
    if (old.tiers !== state.tiers) drawTiers(state);
    const { rated, placed } = missing({ ...state, notRankable: false }, board);
    write(progress, `${board.letters.length - new Set([...rated, ...placed]).size} of ${board.letters.length}`);
    if (old.notes !== state.notes || old.remark !== state.remark || old.why !== state.why || first) drawTexts(state);
    if (old.notRankable !== state.notRankable) {
      press(find("[data-do=unrankable]"), state.notRankable);
      find("#unrankable").hidden = !state.notRankable;
    }
    for (const [name, steps] of [["undo", history.past], ["redo", history.future]]) {
      if (shown[name] !== steps.length > 0) {
        shown[name] = steps.length > 0;
        document.querySelector(`[data-do=${name}]`).disabled = !shown[name];
      }
    }
    drawOpened(old, state, ui);
    Object.assign(shown, { state, ui });
  }

  function drawOpened(old, state, ui) {
    const opened = (value, focus) => (value.open && !value.compare ? focus : null);
    const [was, is] = [opened(shown.ui, old.focus), opened(ui, state.focus)];
    if (was !== is) {
      set(root, "data-open", is !== null);
      for (const [letter, on] of [[was, false], [is, true]]) {
        if (letter === null) continue;
        set(cards[letter].article, "data-opened", on);
        press(cards[letter].open, on);
      }
    }
    if (shown.ui.compare === ui.compare) return;
    set(root, "data-compare", ui.compare !== null);
    for (const letter of shown.ui.compare ?? []) set(cards[letter].article, "data-compared", false);
    for (const letter of ui.compare ?? []) set(cards[letter].article, "data-compared", true);
  }

  /** Bring the focused card into sight and the keyboard to its text, so that arrows and Page Down scroll it. */
  function attend(letter) {
    (letter === null ? prompt : cards[letter]).box.focus({ preventScroll: true });
    if (letter !== null) cards[letter].article.scrollIntoView({ block: shown.ui.open ? "start" : "nearest" });
  }

  return { cards, draw, attend, say: (text) => write(status, text) };
}
