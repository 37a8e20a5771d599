// What the pages of work share: panels beside the work, dialogs, questions, and saying how it stands with saving.

import { toastLater } from "./page.js";
import { refusal, sync } from "./sync.js";

/** Ask with a dialog of the page; resolves to the value of the button that closed it, "" for Escape. */
function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue), { once: true }));
}

/**
 * Prompt, guidelines, questions: one is open, or none. `toggle(name)` opens it, or folds it when it is open. On a narrow
 * screen, where they scroll away with the page, an open one is brought back to peek at.
 */
function panels(root) {
  const aside = root.querySelector(".aside");
  const tabs = aside.querySelector(".tabs");
  const panel = (name) => aside.querySelector(`#panel-${name}`);
  const away = (name) => name && panel(name).getBoundingClientRect().bottom <= tabs.getBoundingClientRect().bottom;

  function toggle(name) {
    if (!panel(name)) return;
    const peeks = aside.hasAttribute("data-peek");
    const open = aside.dataset.panel === name && !away(name) && !peeks ? "" : name;
    aside.removeAttribute("data-peek");
    if (peeks && aside.dataset.panel === name) return;
    aside.dataset.panel = open;
    for (const tab of tabs.children) {
      tab.setAttribute("aria-expanded", String(tab.dataset.panel === open));
      panel(tab.dataset.panel).hidden = tab.dataset.panel !== open;
    }
    aside.toggleAttribute("data-peek", Boolean(away(open)));
  }
  // on a narrow screen the work comes first, the guidelines when they are asked for
  if (aside.dataset.panel === "guidelines" && matchMedia("(max-width: 59.99rem)").matches) toggle("guidelines");
  tabs.addEventListener("click", (event) => event.target.dataset.panel && toggle(event.target.dataset.panel));
  return toggle;
}

function drawMessages(messages) {
  const list = document.querySelector("#messages");
  list.replaceChildren(...messages.map(({ who, text, flag }) => {
    const item = document.createElement("li");
    item.dataset.who = who;
    item.append(Object.assign(document.createElement("b"), { textContent: who === "you" ? "You" : "Lead" }));
    if (flag) item.append(" ", Object.assign(document.createElement("span"), { className: "chip warn", textContent: "flagged" }));
    item.append(Object.assign(document.createElement("p"), { className: "text", dir: "auto", textContent: text }));
    return item;
  }));
  document.querySelector("[data-panel=questions]:is(button)").textContent = `Questions (${messages.length})`;
}

/**
 * The page around one assignment.
 *   content()          what a draft holds now
 *   describe(version)  {content} or {answer} as text, for the choice between two versions
 *   take(version)      put that version in place of what is here
 *   say(text)          tell the labeler
 */
export function workplace(root, task, { content, describe, take, say }) {
  const status = document.querySelector("#sync");
  const saved = status.appendChild(document.createTextNode(""));
  const find = (selector) => root.querySelector(selector);
  const toggle = panels(root);

  function show(text, problem) {
    if (saved.data !== text) saved.data = text;
    status.toggleAttribute("data-problem", problem);
    if (problem) say(text);
  }

  async function choose(theirs, mayAsk) {
    const [here, there] = [describe({ content: content() }), describe(theirs)];
    find("#conflict-mine").textContent = here;
    find("#conflict-theirs").textContent = there;
    const stays = mayAsk && here !== there && (await ask(find("#conflict"))) !== "theirs"; // Escape changes nothing here
    if (!stays) take(theirs);
    return stays;
  }

  const work = sync(task, { content, show, choose });

  /** The next page, with a word about this one. */
  function leave(text, next, reopen) {
    toastLater(text, reopen ? { href: `/work/${encodeURIComponent(task.id)}`, text: "Reopen" } : null);
    location.assign(next ?? "/");
  }

  async function submit(answer, activeMs) {
    const again = task.revision > 0;
    const reply = await work.submit(answer, activeMs, again ? "stay" : "next");
    if (!reply) return null;
    if (reply.error) {
      say(reply.error);
      return reply;
    }
    const kept = reply.kept === "late" ? "Kept, though the time for this task had run out." : again ? `Kept as revision ${reply.revision}.` : "Kept.";
    leave(kept, reply.next ?? (again ? "/history" : "/"), true);
    return reply;
  }

  async function skip() {
    const dialog = find("#skip");
    const form = dialog.querySelector("form");
    const error = dialog.querySelector(".error");
    form.note.required = false;
    if ((await ask(dialog)) !== "go") return;
    const reply = await work.skip(form.reason.value, form.note.value);
    if (reply.error) say(reply.error);
    else leave("Skipped.", reply.next, false);
    error.hidden = true;
  }
  find("#skip").addEventListener("change", (event) => {
    const { note, reason } = event.currentTarget.querySelector("form");
    note.required = reason.value === "other";
  });

  async function post(text, flag) {
    const result = await work.message(text, flag);
    if (result.status !== 200) return say(refusal(result));
    drawMessages(result.reply.messages);
    say(flag ? "Flagged for the lead" : "Asked; the answer will stand here");
    return true;
  }

  async function report() {
    const dialog = find("#report");
    if ((await ask(dialog)) !== "go") return;
    const field = dialog.querySelector("textarea");
    if (await post(field.value, true)) field.value = "";
  }

  find("#ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = event.target.querySelector("textarea");
    if (await post(field.value, false)) field.value = "";
  });

  for (const hint of find("#help").querySelectorAll("[data-command]")) {
    const key = task.shortcuts?.[hint.dataset.command];
    if (key) hint.textContent = key;
  }

  /** What was not saved when the page was last left, or the server's draft, or the label handed in; and a word on it. */
  function begin() {
    const kept = work.unsaved();
    if (kept) {
      take(kept);
      if (kept.newer && task.draft?.content) choose(task.draft, true).then((stays) => stays && work.changed());
      else {
        work.changed();
        say("Restored what this browser had kept");
      }
    } else if (task.draft?.content) {
      const blank = describe({ content: content() });
      take(task.draft);
      if (describe(task.draft) !== blank) say("Your draft is back");
    } else if (task.answer) {
      take({ answer: task.answer });
      say(`You handed this in already (revision ${task.revision}). Submitting again makes a new revision.`);
    }
  }

  return { changed: work.changed, submit, skip, report, begin, toggle, help: () => ask(find("#help")) };
}
