// The tier board. Keys, mouse and touch become the same actions; state.js says what they mean, view.js shows it.

import { comparison } from "./compare.js";
import { dragging } from "./drag.js";
import { reader } from "./keys.js";
import { answer, begin, empty, missing, restored, rules, same, step, tierOf } from "./state.js";
import { stopwatch } from "./sync.js";
import { view } from "./view.js";
import { workplace } from "./work.js";

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"];

const root = document.querySelector("main");
const task = JSON.parse(root.dataset.task);
const letters = [...root.querySelectorAll(".output")].map((article) => article.dataset.letter);
const board = rules(letters, task.form);
const questions = Object.fromEntries([...task.form.per_card, ...task.form.per_prompt].map((question) => [question.name, question]));

let history = begin(empty(board));
let ui = { open: false, compare: null };
let comparing = null; // the first of two, chosen by its button
const page = view(root, board);
const compared = comparison(page.cards, root.querySelector(".comparing"), page.say);
const activeMs = stopwatch(task.draft?.content?.active_ms ?? 0);
const keys = reader(letters, { ...task.shortcuts, ...(board.flags.length ? {} : { flag: "off" }) });

const list = (items) => items.join(", ");

/** Where a card stands, in words: "B: 5, second of 4, tied with D". */
function standing(state, card) {
  const scores = board.perCard.map((name) => state.scores[name][card]).filter((value) => value !== undefined);
  const at = tierOf(state, card);
  const count = state.tiers.flat().length;
  const others = at < 0 ? [] : state.tiers[at].filter((other) => other !== card);
  const place = at < 0 ? "not placed" : `${ORDINALS[state.tiers.slice(0, at).flat().length]} of ${count}`;
  return `${card}: ${list([...scores, place])}${others.length ? `, tied with ${list(others)}` : ""}`;
}

const flagged = (state, card) => task.form.flags.filter((flag) => state.flags[card]?.includes(flag.name)).map((flag) => flag.text);

function announce(action, state) {
  if (action.type === "flag") page.say(`${action.card}: ${flagged(state, action.card).join("; ") || "no flags"}`);
  else if (action.type === "unrankable") page.say(state.notRankable ? "None acceptable: say why" : "Ranking again");
  else if (action.card) page.say(standing(state, action.card));
  else if (action.type === "undo" || action.type === "redo") page.say(state.focus ? `${action.type}: ${standing(state, state.focus)}` : action.type);
}

const draw = () => page.draw(history, ui);

function dispatch(action) {
  const before = history;
  history = step(history, { ...action, at: performance.now() }, board);
  if (history === before) {
    if (action.type === "undo" || action.type === "redo") page.say(`Nothing to ${action.type}`);
    return;
  }
  draw();
  announce(action, history.now);
  if (action.type !== "focus" && task.status !== "skipped") desk.changed();
}

/** Choose a card: show it, and bring the keyboard to its text. */
function focus(card, { follow = true } = {}) {
  if (ui.compare && card && !ui.compare.includes(card)) compare(null);
  dispatch({ type: "focus", card });
  if (follow) page.attend(card);
}

function rate(card, question, value) {
  if (history.now.focus !== card) dispatch({ type: "focus", card });
  dispatch({ type: "rate", card, question, value });
}

/** The question that a digit answers now, and what the digit means there. */
function rateByDigit(digit) {
  const { focus: card, question: index } = history.now;
  const name = (card === null ? board.perPrompt : board.perCard)[index];
  if (!name) return page.say("Choose an output first: press its letter");
  const { low, high } = questions[name];
  const value = low < 0 ? low + digit - 1 : digit;
  if (value < low || value > high) return page.say(`${questions[name].text}: ${low} to ${high}`);
  rate(card, name, value);
}

function compare(pair) {
  ui = { ...ui, compare: pair };
  draw();
  compared.show(pair);
  if (pair) focus(pair[0]);
}

function withCard(action) {
  const card = history.now.focus;
  if (card === null) page.say("Choose an output first: press its letter");
  else dispatch({ ...action, card });
}

function submit() {
  if (task.status === "skipped") return page.say("You skipped this task; take it back from your history first");
  const wanted = missing(history.now, board);
  const parts = [
    ...wanted.prompt.map((name) => `answer “${questions[name].text}”`),
    wanted.rated.length && `rate ${list(wanted.rated)}`,
    wanted.placed.length && `place ${list(wanted.placed)}`,
    wanted.why && "say why none is acceptable",
  ].filter(Boolean);
  if (!parts.length) return desk.submit(answer(history.now, board), activeMs);
  page.say(`Not sent. Still to do: ${parts.join("; ")}`);
  if (wanted.why) root.querySelector("#why").focus();
}

function unrankable() {
  const on = !history.now.notRankable;
  dispatch({ type: "unrankable", on });
  if (on) root.querySelector("#why").focus();
}

const COMMANDS = {
  focus: ({ card }) => focus(card),
  rate: ({ digit }) => rateByDigit(digit),
  place: ({ tier }) => withCard({ type: "place", tier }),
  up: () => withCard({ type: "up" }),
  down: () => withCard({ type: "down" }),
  tie: () => withCard({ type: "tie" }),
  clear: () => withCard({ type: "clear" }),
  flag: ({ number }) => board.flags[number] && withCard({ type: "flag", name: board.flags[number] }),
  waiting({ for: command, first }) {
    if (command === "compare") page.say(first ? `Compare ${first} with which?` : "Compare which two?");
    else if (history.now.focus === null) page.say("Choose an output first: press its letter");
    else {
      const { details } = page.cards[history.now.focus];
      details.open = true;
      details.scrollIntoView({ block: "nearest" });
      page.say("Which flag?");
    }
  },
  compare: ({ pair }) => (pair.every((letter) => letters.includes(letter)) ? compare(pair) : null),
  previous: () => focus(letters.at(letters.indexOf(history.now.focus ?? letters[0]) - 1)),
  next: () => focus(letters[(letters.indexOf(history.now.focus) + 1) % letters.length]),
  undo: () => dispatch({ type: "undo" }),
  redo: () => dispatch({ type: "redo" }),
  open() {
    ui = { ...ui, open: !ui.open, compare: null };
    compared.show(null);
    if (ui.open && history.now.focus === null) history = step(history, { type: "focus", card: letters[0] }, board);
    draw();
    page.attend(history.now.focus);
  },
  escape() {
    const busy = ui.compare || ui.open || comparing;
    comparing = null;
    ui = { open: false, compare: null };
    compared.show(null);
    draw();
    if (history.now.focus !== null) page.attend(history.now.focus);
    if (!busy) focus(null);
  },
  submit,
  unrankable: () => board.ranking && unrankable(),
  differences: () => compared.toggle(),
  skip: () => desk.skip(),
  report: () => desk.report(),
  help: () => desk.help(),
  prompt: () => desk.toggle("prompt"),
  guidelines: () => desk.toggle("guidelines"),
};

document.addEventListener("keydown", (event) => {
  const command = keys.read(event);
  if (!command) return;
  if (command.command === "escape" && document.querySelector("dialog[open]")) return;
  event.preventDefault();
  if (command.command === "escape" && event.target.matches("input, textarea")) return page.attend(history.now.focus);
  COMMANDS[command.command](command);
});

/** Which tier a place in the strip is: that of its list item; the end counts as one more. */
const tierIndex = (element) => [...element.closest("ol").children].indexOf(element.closest("li"));

function place(card, target) {
  if (history.now.focus !== card) dispatch({ type: "focus", card });
  if (target.dataset.drop === "tray") dispatch({ type: "clear", card });
  else dispatch({ type: target.dataset.drop === "gap" ? "gap" : "place", card, tier: tierIndex(target) });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const card = event.target.closest(".output")?.dataset.letter ?? null;
  if (!button) {
    // a click into a text is reading, not yet a choice to be told of
    if (card && !event.target.closest("textarea, summary") && history.now.focus !== card) focus(card, { follow: false });
    return;
  }
  const { letter, value, flag, chip, drop } = button.dataset;
  if (value !== undefined) {
    const group = button.closest(".question").dataset;
    rate(group.letter || null, group.question, Number(value));
  } else if (flag) {
    if (history.now.focus !== letter) dispatch({ type: "focus", card: letter });
    dispatch({ type: "flag", card: letter, name: flag });
  } else if (chip) focus(chip);
  else if (drop) {
    if (history.now.focus === null) return page.say("Choose an output first: its letter");
    place(history.now.focus, button);
    if (event.detail) page.cards[history.now.focus].box.focus({ preventScroll: true });
  } else if (button.dataset.do === "compare") {
    if (comparing && comparing !== letter) {
      compare([comparing, letter]);
      comparing = null;
    } else {
      comparing = letter;
      page.say(`Compare ${letter} with which? Press Compare there`);
    }
  } else if (button.dataset.do === "open" && history.now.focus !== letter) {
    dispatch({ type: "focus", card: letter });
    ui = { ...ui, open: false };
    COMMANDS.open();
  } else if (button.dataset.do) COMMANDS[button.dataset.do]({});
  // after a click of the mouse the keyboard goes back to the text, so that Enter submits and does not click again
  if (event.detail && card && (value !== undefined || flag)) page.cards[card].box.focus({ preventScroll: true });
});

root.addEventListener("input", ({ target }) => {
  if (target.closest(".note")) dispatch({ type: "note", card: target.dataset.letter, text: target.value });
  else if (target.id === "remark" || target.id === "why") dispatch({ type: target.id, text: target.value });
});

dragging(root, root.querySelector(".ranking"), place);

const ends = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    target.closest(".output").setAttribute("data-read", "");
    ends.unobserve(target);
  }
});
for (const mark of root.querySelectorAll(".text-end")) ends.observe(mark);

const stateOf = ({ content, answer: given }) => (given ? restored(given, board) : content.state);

const desk = workplace(root, task, {
  content: () => ({ state: history.now, active_ms: activeMs() }),
  describe(version) {
    const state = stateOf(version);
    const scores = (card) => board.perCard.map((name) => state.scores[name][card] ?? "–").join("/");
    const tiers = state.tiers.map((tier, index) => `${index + 1}.  ${tier.map((card) => `${card} (${scores(card)})`).join("  ")}`);
    const out = letters.filter((card) => tierOf(state, card) < 0).map((card) => `${card} (${scores(card)})`);
    const notes = Object.entries(state.notes).map(([card, text]) => `${card}: ${text}`);
    const flags = Object.keys(state.flags).map((card) => `${card}: ${flagged(state, card).join("; ")}`);
    return [...tiers, out.length && `Not placed: ${list(out)}`, ...flags, ...notes, state.remark, state.notRankable && `None acceptable: ${state.why}`]
      .filter(Boolean).join("\n");
  },
  take(version) {
    const state = stateOf(version);
    if (!same({ ...state, focus: null, question: 0 }, { ...history.now, focus: null, question: 0 })) history = begin(state);
    draw();
  },
  say: page.say,
});

draw();
desk.begin();
root.setAttribute("data-ready", "");
