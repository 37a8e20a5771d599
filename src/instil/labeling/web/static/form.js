// Writing and annotating: a form whose draft is kept as it is filled in.
//
// A draft is {style, use_case, text, instruction, examples: [[query, response]], flags: [..]}: what the form has of it.

import { reader } from "./keys.js";
import { stopwatch } from "./sync.js";
import { workplace } from "./work.js";

const LEAST_EXAMPLES = 2;

const root = document.querySelector("main");
const task = JSON.parse(root.dataset.task);
const form = root.querySelector("#work");
const examples = root.querySelector("#examples");
const status = root.querySelector("#status");
const activeMs = stopwatch(task.draft?.content?.active_ms ?? 0);
const say = (text) => { status.textContent = text; };

const values = (name) => [...form.querySelectorAll(`[name=${name}]`)].map((field) => field.value);
const checked = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((field) => field.value);

function read() {
  const responses = values("response");
  return {
    style: checked("style")[0] ?? "", use_case: checked("use_case")[0] ?? "", text: values("text")[0] ?? "",
    instruction: values("instruction")[0] ?? "", examples: values("query").map((query, index) => [query, responses[index]]), flags: checked("flags"),
  };
}

function addExample(query = "", response = "") {
  const example = root.querySelector("#example").content.firstElementChild.cloneNode(true);
  example.querySelector("[name=query]").value = query;
  example.querySelector("[name=response]").value = response;
  examples.append(example);
  number();
  return example;
}

function number() {
  const all = [...examples.children];
  all.forEach((example, index) => {
    example.setAttribute("aria-label", `Example ${index + 1}`);
    example.querySelector("h3").textContent = `Example ${index + 1}`;
    example.querySelector("[data-do=remove]").disabled = all.length <= LEAST_EXAMPLES;
  });
}

function fill(state) {
  for (const name of ["style", "use_case", "flags"]) {
    const on = [state[name] ?? []].flat();
    for (const field of form.querySelectorAll(`[name=${name}]`)) field.checked = on.includes(field.value);
  }
  for (const name of ["text", "instruction"]) {
    const field = form.querySelector(`[name=${name}]`);
    if (field && field.value !== (state[name] ?? "")) field.value = state[name] ?? "";
  }
  if (examples) {
    examples.replaceChildren();
    const pairs = state.examples?.length ? state.examples : Array(LEAST_EXAMPLES).fill(["", ""]);
    for (const [query, response] of pairs) addExample(query, response);
  }
  draw();
}

function draw() {
  const style = checked("style")[0] ?? "";
  for (const part of form.querySelectorAll("[data-style]")) part.hidden = !part.dataset.style.split(" ").includes(style);
  for (const count of form.querySelectorAll("[data-count]")) {
    const words = form[count.dataset.count].value.match(/\S+/g)?.length ?? 0;
    count.textContent = `${words} word${words === 1 ? "" : "s"}`;
  }
}

/** What is handed in, of all that stands in the form. */
function answer({ style, use_case, text, instruction, examples: pairs, flags }) {
  if (task.kind === "annotation") return { use_case, flags };
  if (task.kind === "demonstration") return { text };
  if (style === "few-shot") return { style, instruction, examples: pairs };
  return style === "user-based" ? { style, text, use_case } : { style, text };
}

/** The first thing that is missing: {say, field} or null. */
function missing(state) {
  const given = answer(state);
  const blank = (name) => form.querySelector(`[name=${name}]`);
  if ("style" in given && !given.style) return { say: "choose how you want to write it", field: blank("style") };
  if ("use_case" in given && !given.use_case) return { say: "choose a use case", field: blank("use_case") };
  if ("text" in given && !given.text.trim()) return { say: "write the text", field: blank("text") };
  if ("instruction" in given && !given.instruction.trim()) return { say: "write the instruction", field: blank("instruction") };
  const empty = [...form.querySelectorAll("[name=query], [name=response]")].find((field) => !field.value.trim());
  return "examples" in given && empty ? { say: "fill in every example", field: empty } : null;
}

async function submit() {
  if (task.status === "skipped") return say("You skipped this task; take it back from your history first");
  const state = read();
  const wanted = missing(state);
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  if (!wanted) {
    const reply = await desk.submit(answer(state), activeMs);
    const field = reply?.field && form.querySelector(`[name=${CSS.escape(reply.field)}]`);
    if (field) field.focus();
    return;
  }
  say(`Not sent. Still to do: ${wanted.say}`);
  wanted.field.setAttribute("aria-invalid", "true");
  wanted.field.focus();
}

const COMMANDS = {
  submit,
  skip: () => desk.skip(),
  report: () => desk.report(),
  help: () => desk.help(),
  guidelines: () => desk.toggle("guidelines"),
  add() {
    addExample().querySelector("textarea").focus();
    desk.changed();
  },
  remove(button) {
    button.closest(".example").remove();
    number();
    desk.changed();
  },
};

const keys = reader([], task.shortcuts);
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  const command = sends ? "submit" : keys.read(event)?.command;
  if (!(command in COMMANDS) || (command === "submit" && !sends)) return; // a bare Enter belongs to the text
  event.preventDefault();
  COMMANDS[command]();
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-do]");
  if (button) COMMANDS[button.dataset.do](button);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  draw();
  desk.changed();
});

const desk = workplace(root, task, {
  content: () => ({ state: read(), active_ms: activeMs() }),
  describe(version) {
    const state = version.answer ?? version.content.state;
    const pairs = (state.examples ?? []).map(([query, response]) => `${query}\n→ ${response}`);
    return [state.style, state.use_case, state.text, state.instruction, ...pairs, (state.flags ?? []).join(", ").replaceAll("_", " ")].filter(Boolean).join("\n\n");
  },
  take: (version) => fill(version.answer ?? version.content.state),
  say,
});

fill(read());
desk.begin();
root.setAttribute("data-ready", "");
