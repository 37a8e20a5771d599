// Two outputs side by side: they scroll together, and the words in which they differ can be marked.

const CELLS = 16_000_000; // of the table of common words: about 4,000 words against 4,000

const words = (text) => text.match(/\S+|\s+/g) ?? [];

/** Which tokens of each text are not in their longest common subsequence: [Set, Set] of indices, or null if too long. */
export function differences(one, other) {
  let head = 0;
  while (head < one.length && head < other.length && one[head] === other[head]) head += 1;
  let tail = 0;
  while (tail < one.length - head && tail < other.length - head && one.at(-1 - tail) === other.at(-1 - tail)) tail += 1;
  const [n, m] = [one.length - head - tail, other.length - head - tail];
  const width = m + 1;
  if ((n + 1) * width > CELLS) return null;
  const common = new Uint16Array((n + 1) * width); // common[i, j]: in what follows i and j
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      common[i * width + j] = one[head + i] === other[head + j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const only = [new Set(), new Set()];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && one[head + i] === other[head + j]) [i, j] = [i + 1, j + 1];
    else if (j === m || (i < n && common[(i + 1) * width + j] >= common[i * width + j + 1])) only[0].add(head + i++);
    else only[1].add(head + j++);
  }
  return only;
}

function marked(tokens, only) {
  const fragment = document.createDocumentFragment();
  for (let at = 0; at < tokens.length; ) {
    const differs = only.has(at);
    let run = "";
    while (at < tokens.length && only.has(at) === differs) run += tokens[at++];
    const node = document.createTextNode(run);
    if (differs && run.trim()) fragment.append(Object.assign(document.createElement("mark"), { textContent: run }));
    else fragment.append(node);
  }
  return fragment;
}

/** Scroll two elements together, by share of their length; `stop()` ends it. */
function together(one, other) {
  const stop = new AbortController();
  let leader = null;
  for (const [from, to] of [[one, other], [other, one]]) {
    from.addEventListener("scroll", () => {
      if (leader === to) {
        leader = null; // this scroll is the echo of the other's
        return;
      }
      const at = from.scrollTop / Math.max(1, from.scrollHeight - from.clientHeight);
      const goal = Math.round(at * (to.scrollHeight - to.clientHeight));
      if (Math.abs(goal - to.scrollTop) < 1) return;
      leader = from;
      to.scrollTop = goal;
    }, { signal: stop.signal, passive: true });
  }
  return () => stop.abort();
}

/** `cards`: letter -> {text, box}, the element of its text and the one that scrolls; `bar` says what is compared. */
export function comparison(cards, bar, say) {
  const plain = Object.fromEntries(Object.entries(cards).map(([letter, { text }]) => [letter, text.textContent]));
  const title = bar.querySelector("b");
  const toggle = bar.querySelector("[data-do=differences]");
  let pair = null;
  let stop = null;

  function mark(on) {
    if (on) {
      const tokens = pair.map((letter) => words(plain[letter]));
      const only = differences(...tokens);
      if (!only) return say("These texts are too long to mark their differences");
      pair.forEach((letter, index) => cards[letter].text.replaceChildren(marked(tokens[index], only[index])));
    } else if (toggle.getAttribute("aria-pressed") === "true") {
      for (const letter of pair) cards[letter].text.textContent = plain[letter];
    }
    toggle.setAttribute("aria-pressed", String(on));
  }

  return {
    show(next) {
      if (pair) {
        mark(false);
        stop();
      }
      pair = next;
      bar.hidden = !pair;
      if (!pair) return;
      title.textContent = `${pair[0]} and ${pair[1]}`;
      stop = together(...pair.map((letter) => cards[letter].box));
    },
    toggle: () => mark(toggle.getAttribute("aria-pressed") !== "true"),
  };
}
