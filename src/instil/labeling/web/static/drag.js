// Dragging by pointer events: mouse, pen and finger alike. What can be dragged has data-drag, where it can be dropped
// has data-drop: "tray", "tier" or "gap". A drag that ends elsewhere does nothing.

const START_PX = 6; // less is a click
const EDGE_PX = 40;

/** `drop(letter, place)` is called with the element dropped on. */
export function dragging(root, strip, drop) {
  let held = null; // {letter, x, y, ghost}
  let over = null;

  function mark(element) {
    if (over === element) return;
    over?.removeAttribute("data-over");
    element?.setAttribute("data-over", "");
    over = element;
  }

  function end() {
    held?.ghost?.remove();
    mark(null);
    root.removeAttribute("data-dragging");
    held = null;
  }

  function start(event) {
    held.ghost = document.createElement("div");
    held.ghost.className = "ghost";
    held.ghost.textContent = held.letter;
    held.ghost.setAttribute("aria-hidden", "true");
    document.body.append(held.ghost);
    root.setAttribute("data-dragging", held.letter);
    document.getSelection()?.removeAllRanges();
    event.preventDefault();
  }

  root.addEventListener("pointerdown", (event) => {
    const from = event.target.closest("[data-drag]");
    if (from && event.button === 0 && event.isPrimary) held = { letter: from.dataset.drag, x: event.clientX, y: event.clientY, ghost: null };
  });
  document.addEventListener("pointermove", (event) => {
    if (!held || !event.isPrimary) return;
    if (!held.ghost) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < START_PX) return;
      start(event);
    }
    held.ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
    const box = strip.getBoundingClientRect();
    if (event.clientY > box.top && event.clientX > box.right - EDGE_PX) strip.scrollLeft += EDGE_PX / 2;
    if (event.clientY > box.top && event.clientX < box.left + EDGE_PX) strip.scrollLeft -= EDGE_PX / 2;
    const under = document.elementFromPoint(event.clientX, event.clientY);
    mark(under?.closest("[data-drop]") ?? under?.closest(".tiers > li")?.querySelector("[data-drop=tier]") ?? null);
  });
  document.addEventListener("pointerup", (event) => {
    if (!held?.ghost) {
      held = null;
      return;
    }
    const [letter, place] = [held.letter, over];
    end();
    // the click that follows a drag is not meant
    const swallow = (click) => {
      click.stopPropagation();
      click.preventDefault();
    };
    document.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => document.removeEventListener("click", swallow, { capture: true }), 0);
    if (place) drop(letter, place);
    event.preventDefault();
  });
  document.addEventListener("pointercancel", end);
  document.addEventListener("keydown", (event) => event.key === "Escape" && end());
  root.addEventListener("selectstart", (event) => held?.ghost && event.preventDefault());
}
