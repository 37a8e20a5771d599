// Key events -> commands. Cards own the letters A..I, digits own scores and tiers; every other command has a key of its
// own, which a labeler can change or switch off. Nothing that discards or submits half a task is a single plain key.

/** command -> its key, as typed. `letters: "off"` among the shortcuts switches all single keys off (WCAG 2.1.4). */
export const SHORTCUTS = {
  compare: "v", flag: "m", open: "o", prompt: "p", guidelines: "r", previous: "[", next: "]", tie: "=", help: "?",
};
const FLAG_KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "-"];
const DIGIT = /^(?:Digit|Numpad)(\d)$/;

const inField = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const isControl = (target) => target.closest?.("button, a, summary");

/** A reader of keys: `read(event)` gives {command, ...} or null; it remembers a prefix (flag, compare) until used. */
export function reader(letters, shortcuts) {
  const keys = { ...SHORTCUTS, ...shortcuts };
  const byKey = new Map(Object.entries(keys).map(([command, key]) => [key.toLowerCase(), command]));
  const plain = keys.letters !== "off";
  let prefix = null; // {command, letters}

  function prefixed(event, letter, digit) {
    const { command, first } = prefix;
    prefix = null;
    if (command === "flag") {
      const number = FLAG_KEYS.indexOf(digit ?? (event.code === "Minus" ? "-" : event.key));
      return number >= 0 ? { command: "flag", number } : null;
    }
    if (!letter) return null;
    if (first && first !== letter) return { command: "compare", pair: [first, letter] };
    prefix = { command, first: letter };
    return { command: "waiting", for: "compare", first: letter };
  }

  function read(event) {
    const { key } = event;
    if (event.isComposing || ["Shift", "Control", "Alt", "Meta", "CapsLock", "AltGraph"].includes(key)) return null;
    if (key === "Escape") {
      prefix = null;
      return { command: "escape" };
    }
    if (inField(event.target) || document.querySelector("dialog[open]")) return null;
    const accelerator = event.ctrlKey !== event.metaKey && !event.altKey;
    if (accelerator && /^[zy]$/i.test(key)) {
      return { command: key.toLowerCase() === "y" || event.shiftKey ? "redo" : "undo" };
    }
    if ((event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState?.("AltGraph")) return null;
    if (event.repeat && key === "Enter") return null;
    if (key === "Enter") return isControl(event.target) ? null : { command: "submit" };

    const digit = DIGIT.exec(event.code)?.[1]; // by place: on some keyboards digits are typed with Shift
    const named = plain ? byKey.get(key.toLowerCase()) : undefined;
    if (event.shiftKey && !named) {
      if (digit) return digit === "0" ? { command: "clear" } : { command: "place", tier: Number(digit) - 1 };
      if (key === "ArrowUp" || key === "ArrowDown") return { command: key === "ArrowUp" ? "up" : "down" };
      const shifted = { S: "skip", X: "report", N: "unrankable" }[key.toUpperCase()];
      if (shifted && plain) return { command: shifted };
    }
    if (!plain) return null;
    const letter = /^[a-i]$/i.test(key) && letters.includes(key.toUpperCase()) ? key.toUpperCase() : null;
    if (prefix) return prefixed(event, letter, digit);
    if (letter) return { command: "focus", card: letter };
    if (digit && !event.shiftKey) return { command: "rate", digit: Number(digit) };
    if (named === "flag" || named === "compare") {
      prefix = { command: named };
      return { command: "waiting", for: named };
    }
    return named ? { command: named } : null;
  }

  return { read, keys };
}
