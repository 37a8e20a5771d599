// What leaves the page: drafts, the submission, questions. Until the server says that it has something, a copy of it is
// kept in this browser; a submission that was cut off is sent again under the same key, so that it counts once.

const WAIT_MS = 1000; // after the last change
const LIMIT_MS = 1800; // after the first change that is not saved
const KEEP_MS = 60_000; // an open page keeps its task
const IDLE_MS = 60_000; // without input no time is counted
const BACK_OFF_MS = [1000, 2000, 4000, 8000, 15_000, 30_000];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const lost = (status) => status === 0 || status === 408 || status === 429 || status >= 500;
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** {status, reply}: status 0 where no answer came; reply is null unless it was JSON. */
export async function send(method, url, body) {
  const headers = { "content-type": "application/json", "x-csrf-token": document.querySelector("meta[name=csrf]").content };
  try {
    const text = JSON.stringify(body);
    const response = await fetch(url, { method, headers, body: text, keepalive: text.length < 50_000 });
    return { status: response.status, reply: await response.json().catch(() => null) };
  } catch {
    return { status: 0, reply: null };
  }
}

/** What to tell the labeler of a refusal. */
export function refusal({ status, reply }) {
  if (reply?.error) return reply.error;
  if (status === 0) return "The server cannot be reached. Your work is kept in this browser.";
  if (status === 401) return "You were signed out. Sign in in another tab, then try again; your work is kept in this browser.";
  if (status === 403) return "This page is too old: reload it. Your work is kept in this browser.";
  if (status === 404) return "This task is not yours any more. Your work is kept in this browser.";
  if (status === 413) return "This is too long to be kept.";
  return `The server could not take it (${status}). Your work is kept in this browser.`;
}

/** Milliseconds of work: the page is in sight and something was typed, clicked or scrolled within a minute. */
export function stopwatch(begun) {
  let total = begun;
  let input = performance.now();
  let last = input;
  for (const name of ["keydown", "pointerdown", "pointermove", "scroll", "wheel"]) {
    addEventListener(name, () => { input = performance.now(); }, { capture: true, passive: true });
  }
  const tick = () => {
    const now = performance.now();
    if (document.visibilityState === "visible" && now - input < IDLE_MS) total += Math.min(now - last, 2000);
    last = now;
  };
  setInterval(tick, 1000);
  return () => {
    tick();
    return Math.round(total);
  };
}

/** The copy in this browser: {version, content, key, answer} or null. Without storage nothing is kept. */
export function localCopy(id) {
  const name = `instil:${id}`;
  const attempt = (use) => {
    try {
      return use(localStorage);
    } catch {
      return null;
    }
  };
  return {
    get: () => attempt((storage) => JSON.parse(storage.getItem(name))),
    put: (copy) => attempt((storage) => storage.setItem(name, JSON.stringify(copy))),
    remove: () => attempt((storage) => storage.removeItem(name)),
  };
}

/**
 * Drafts and the submission of one assignment.
 *   task      {id, draft: {version, content}, revision}
 *   content() what a draft holds now
 *   show(text, problem: bool) says how it stands with saving
 *   choose(theirs: {content} | {answer}, ask: bool) -> Promise<bool>: true to keep what is here; not asked, theirs is taken
 */
export function sync(task, { content, show, choose }) {
  const url = `/work/${encodeURIComponent(task.id)}`;
  const copy = localCopy(task.id);
  let version = task.draft?.version ?? 0;
  let base = task.revision;
  let dirty = false;
  let first = 0; // when the first unsaved change was made
  let timer = 0;
  let saving = Promise.resolve();
  let failures = 0;
  let finished = false;
  let turns = 0; // a submission that is tried again stops when there is something newer
  let attempt = copy.get(); // a submission that nobody acknowledged: {key, answer}
  attempt = attempt?.key ? { key: attempt.key, text: JSON.stringify(attempt.answer) } : null;

  const keep = (more = {}) => copy.put({ version, content: content(), ...more });

  function schedule(wait) {
    clearTimeout(timer);
    timer = setTimeout(() => { saving = saving.then(save); }, wait);
  }

  function changed() {
    if (finished) return;
    turns += 1;
    if (!dirty) {
      first = performance.now();
      show("Saving…", false);
    }
    dirty = true;
    keep();
    if (!failures) schedule(Math.max(0, Math.min(WAIT_MS, first + LIMIT_MS - performance.now())));
  }

  async function save() {
    if (finished) return;
    const mine = dirty;
    dirty = false;
    const result = await send("PUT", `${url}/draft`, { version, content: content() });
    if (result.status === 200) {
      version = result.reply.version;
      failures = 0;
      if (dirty) schedule(WAIT_MS);
      else {
        copy.remove();
        show("Saved", false);
      }
    } else if (result.status === 409 && !result.reply?.content) {
      finished = true;
      copy.remove();
      show("Handed in or skipped somewhere else: reload this page", true);
    } else if (result.status === 409) {
      version = result.reply.version;
      if (await choose({ content: result.reply.content }, mine)) changed();
      else copy.remove();
    } else {
      dirty = true;
      show(result.status === 0 ? "Offline: kept in this browser" : refusal(result), true);
      if (lost(result.status)) schedule(BACK_OFF_MS[Math.min(failures++, BACK_OFF_MS.length - 1)]);
    }
  }

  /** Hand in `answer`; resolves to {kept, revision, next}, or {error, field}, or null where the other version was taken. */
  async function submit(answer, activeMs, then) {
    const turn = ++turns;
    const text = JSON.stringify(answer);
    if (attempt?.text !== text) attempt = { key: randomKey(), text };
    const { key } = attempt;
    keep({ key, answer });
    clearTimeout(timer);
    await saving;
    for (let tries = 0; ; tries += 1) {
      show("Sending…", false);
      const result = await send("POST", `${url}/label`, { key, base, active_ms: activeMs(), then, answer });
      if (result.status === 200) {
        finished = true;
        copy.remove();
        return result.reply;
      }
      if (result.status === 409 && result.reply?.answer) {
        attempt = null;
        base = result.reply.revision;
        return (await choose({ answer: result.reply.answer }, true)) ? submit(answer, activeMs, then) : null;
      }
      if (!lost(result.status)) {
        show("Not sent", true);
        if (result.status === 422) attempt = null;
        return { error: refusal(result), field: result.reply?.field };
      }
      show("Offline: will be sent again", true);
      await pause(BACK_OFF_MS[Math.min(tries, BACK_OFF_MS.length - 1)]);
      if (turn !== turns) return null; // changed, or submitted anew
    }
  }

  async function skip(reason, note) {
    clearTimeout(timer);
    await saving;
    const result = await send("POST", `${url}/skip`, { key: randomKey(), reason, note });
    if (result.status !== 200) return { error: refusal(result) };
    finished = true;
    copy.remove();
    return result.reply;
  }

  if (!base) setInterval(() => document.visibilityState === "visible" && !dirty && !finished && !failures && schedule(0), KEEP_MS);
  addEventListener("online", () => dirty && schedule(0));
  document.addEventListener("visibilitychange", () => document.hidden && dirty && schedule(0));

  return {
    changed, submit, skip,
    message: (text, flag) => send("POST", `${url}/messages`, { text, flag }),
    /** The copy that this browser kept, if it never reached the server; `newer` if the server has got another since. */
    unsaved() {
      const kept = copy.get();
      return kept?.content ? { content: kept.content, newer: kept.version < version } : null;
    },
  };
}
