// What every page can do: show a message that the last page left, copy a link, ask before a form is sent.

const LATER = "instil:toast";

/** A message for a few seconds; `link` is {href, text}. */
export function toast(text, link) {
  const place = document.querySelector("#toast");
  place.textContent = text;
  if (link) place.append(Object.assign(document.createElement("a"), { href: link.href, textContent: link.text }));
  setTimeout(() => place.replaceChildren(), 10_000);
}

/** The same on the page that comes next. */
export function toastLater(text, link) {
  try {
    sessionStorage.setItem(LATER, JSON.stringify({ text, link }));
  } catch {
    // without storage the next page says nothing
  }
}

try {
  const left = JSON.parse(sessionStorage.getItem(LATER));
  sessionStorage.removeItem(LATER);
  if (left) toast(left.text, left.link);
} catch {
  // no storage
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent.trim());
  toast("Copied");
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
