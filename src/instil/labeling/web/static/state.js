// The tier board as a value: what is rated, flagged, placed and noted, and what an action makes of it.
//
// State    {focus, question, scores: {name: {A: 5}}, prompt: {name: 1}, flags: {A: [..]}, tiers: [["B"], ["A", "D"]],
//           pinned: ["A"], notes: {A: ".."}, remark, notRankable, why}
// History  {past: [State], now: State, future: [State], last: Action}
//
// Everything here is pure. A state is never changed, only replaced, and an action that changes nothing returns the
// state that it got. Nothing is placed or rated at the start.

/** What the board is about: letters in the order shown, the questions, the flags' names, whether ratings place. */
export function rules(letters, form) {
  return {
    letters,
    perCard: form.per_card.map((question) => question.name),
    perPrompt: form.per_prompt.map((question) => question.name),
    flags: form.flags.map((flag) => flag.name),
    seeds: form.seeds,
    ranking: form.kind === "ranking",
  };
}

export function empty(board) {
  return {
    focus: null, question: 0, scores: Object.fromEntries(board.perCard.map((name) => [name, {}])), prompt: {},
    flags: {}, tiers: [], pinned: [], notes: {}, remark: "", notRankable: false, why: "",
  };
}

export const tierOf = (state, letter) => state.tiers.findIndex((tier) => tier.includes(letter));

/** The tiers with `letter` in tier `index`, or (alone) in a new tier before it. Indices are of the tiers as shown. */
function moved(tiers, letter, index, alone) {
  const rest = tiers.map((tier) => tier.filter((other) => other !== letter));
  if (alone || index >= rest.length) rest.splice(index, 0, [letter]);
  else rest[index] = [...rest[index], letter].sort();
  return rest.filter((tier) => tier.length);
}

/** Where a rating puts a card that nobody has placed by hand: scores descend over the cards placed by ratings. */
function seeded(state, letter, scores) {
  const rest = state.tiers.map((tier) => tier.filter((other) => other !== letter)).filter((tier) => tier.length);
  const ratings = rest.map((tier) => tier.filter((other) => !state.pinned.includes(other)).map((other) => scores[other]));
  const equal = ratings.findIndex((tier) => tier.includes(scores[letter]));
  if (equal >= 0) return moved(rest, letter, equal, false);
  const lower = ratings.findIndex((tier) => tier.length && tier.every((score) => score < scores[letter]));
  return moved(rest, letter, lower < 0 ? rest.length : lower, true);
}

function placed(state, letter, index, alone) {
  return {
    ...state,
    tiers: moved(state.tiers, letter, index, alone),
    pinned: state.pinned.includes(letter) ? state.pinned : [...state.pinned, letter].sort(),
  };
}

/** The question that a digit answers next: the first open one of the card, or the one after the last answered. */
function openQuestion(board, scores, letter, otherwise) {
  const names = letter === null ? board.perPrompt : board.perCard;
  const open = names.findIndex((name) => (letter === null ? scores[name] : scores[name][letter]) === undefined);
  return open >= 0 ? open : otherwise;
}

const ACTIONS = {
  focus(state, { card }, board) {
    const again = card !== null && card === state.focus ? (state.question + 1) % Math.max(1, board.perCard.length) : 0;
    return { ...state, focus: card, question: openQuestion(board, card === null ? state.prompt : state.scores, card, again) };
  },
  rate(state, { card, question, value }, board) {
    if (card === null) {
      const prompt = { ...state.prompt, [question]: value };
      return { ...state, prompt, question: openQuestion(board, prompt, null, board.perPrompt.indexOf(question)) };
    }
    const scores = { ...state.scores, [question]: { ...state.scores[question], [card]: value } };
    const next = { ...state, scores, question: openQuestion(board, scores, card, board.perCard.indexOf(question)) };
    if (board.seeds && !state.pinned.includes(card)) next.tiers = seeded(state, card, scores[question]);
    return next;
  },
  flag(state, { card, name }, board) {
    const on = state.flags[card] ?? [];
    const names = board.flags.filter((flag) => on.includes(flag) !== (flag === name));
    const { [card]: _, ...others } = state.flags;
    return { ...state, flags: names.length ? { ...others, [card]: names } : others };
  },
  place: (state, { card, tier }) => placed(state, card, tier, false),
  gap: (state, { card, tier }) => placed(state, card, tier, true),
  up(state, { card }) {
    const at = tierOf(state, card);
    if (at < 0) return placed(state, card, state.tiers.length, true);
    if (state.tiers[at].length > 1) return placed(state, card, at, true);
    return at ? placed(state, card, at - 1, false) : state;
  },
  down(state, { card }) {
    const at = tierOf(state, card);
    if (at < 0) return placed(state, card, state.tiers.length, true);
    if (state.tiers[at].length > 1) return placed(state, card, at + 1, true);
    return at < state.tiers.length - 1 ? placed(state, card, at + 1, false) : state;
  },
  tie(state, { card }) {
    const at = tierOf(state, card);
    const above = (at < 0 ? state.tiers.length : at) - 1;
    return above < 0 ? (at < 0 ? placed(state, card, 0, true) : state) : placed(state, card, above, false);
  },
  clear(state, { card }) {
    const tiers = state.tiers.map((tier) => tier.filter((other) => other !== card)).filter((tier) => tier.length);
    return { ...state, tiers, pinned: state.pinned.filter((other) => other !== card) };
  },
  note(state, { card, text }) {
    const { [card]: _, ...others } = state.notes;
    return { ...state, notes: text ? { ...others, [card]: text } : others };
  },
  remark: (state, { text }) => ({ ...state, remark: text }),
  unrankable: (state, { on }) => ({ ...state, notRankable: on }),
  why: (state, { text }) => ({ ...state, why: text }),
};
const TYPED = new Set(["note", "remark", "why"]);
const JOIN_MS = 1000; // typing within a second is one step

const sorted = (object) => JSON.stringify(Object.entries(object).sort());
const text = (state) =>
  JSON.stringify({ ...state, flags: sorted(state.flags), notes: sorted(state.notes), prompt: sorted(state.prompt),
    scores: Object.entries(state.scores).map(([name, scores]) => [name, sorted(scores)]) });

/** Whether two states mean the same, whatever the order in which their parts were made. */
export const same = (one, other) => text(one) === text(other);

export function reduce(state, action, board) {
  const next = ACTIONS[action.type](state, action, board);
  return same(state, next) ? state : next;
}

export const begin = (state) => ({ past: [], now: state, future: [], last: null });

/** One action on a history. `action.at` is in milliseconds; moving the focus is no step. */
export function step(history, action, board) {
  const { past, now, future, last } = history;
  if (action.type === "undo") {
    return past.length ? { past: past.slice(0, -1), now: past.at(-1), future: [now, ...future], last: null } : history;
  }
  if (action.type === "redo") {
    return future.length ? { past: [...past, now], now: future[0], future: future.slice(1), last: null } : history;
  }
  const next = reduce(now, action, board);
  if (next === now) return history;
  if (action.type === "focus") return { ...history, now: next, last: null };
  const joins = TYPED.has(action.type) && last?.type === action.type && last.card === action.card && action.at - last.at < JOIN_MS;
  return { past: joins ? past : [...past, now], now: next, future: [], last: action };
}

/** What is still wanted before it can be handed in: {prompt: [name], rated: [A..], placed: [A..], why: bool}. */
export function missing(state, board) {
  const unrated = board.letters.filter((letter) => board.perCard.some((name) => state.scores[name][letter] === undefined));
  const flagged = unrated.filter((letter) => state.flags[letter]); // a flag belongs to a rating
  const unplaced = board.letters.filter((letter) => tierOf(state, letter) < 0);
  return {
    prompt: board.perPrompt.filter((name) => state.prompt[name] === undefined),
    rated: state.notRankable ? flagged : unrated,
    placed: state.notRankable ? [] : unplaced,
    why: state.notRankable && !state.why.trim(),
  };
}

const byLetter = (board, object) =>
  Object.fromEntries(board.letters.filter((letter) => object[letter] !== undefined).map((letter) => [letter, object[letter]]));

/** The state as it is handed in. Equal judgements give equal bytes, in whatever order they were made. */
export function answer(state, board) {
  const scores = Object.fromEntries(board.perCard.map((name) => [name, byLetter(board, state.scores[name])]));
  const tiers = state.notRankable ? [] : state.tiers;
  const prompt = Object.fromEntries(board.perPrompt.map((name) => [name, state.prompt[name]]));
  const common = { tiers, ...prompt, ...scores, notes: byLetter(board, state.notes), remark: state.remark };
  if (!board.ranking) return common;
  return { ...common, flags: byLetter(board, state.flags), not_rankable: state.notRankable, why: state.notRankable ? state.why : "" };
}

/** The state behind an answer that was handed in: its tiers stand as they are, so every placed card is pinned. */
export function restored(given, board) {
  const state = empty(board);
  for (const name of board.perCard) state.scores[name] = { ...given[name] };
  for (const name of board.perPrompt) if (given[name] !== undefined) state.prompt[name] = given[name];
  return {
    ...state, tiers: given.tiers.map((tier) => [...tier].sort()), pinned: given.tiers.flat().sort(), flags: { ...given.flags },
    notes: { ...given.notes }, remark: given.remark ?? "", notRankable: given.not_rankable ?? false, why: given.why ?? "",
  };
}
