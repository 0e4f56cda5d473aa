// @ts-check
/** Shortcuts of the page. They leave alone fields in which one types, keys that a focused control uses itself, and
 * the page behind a dialog. */

const TYPING =
  "textarea, select, [contenteditable], [role=listbox], input:not([type=radio], [type=checkbox], [type=range])";
const USES_SPACE = "button, summary, input, [role=tab]";
/** Regions that scroll: they are focused for their keys. */
const SCROLLS = ":is([role=region], [role=log])[tabindex]";
const SCROLL_KEYS = [" ", "End", "ArrowLeft", "ArrowRight"];
const USES_ARROWS = "[role=tab], [role=radiogroup], input";
const USES_END = "input[type=range]";

const REPEATS = /^Arrow|^\.$/; // keys that one may hold down; any other acts once

const HELP = "?"; // closes the dialog that it opened

/** @param {KeyboardEvent} event @returns {boolean} whether a field, the browser or a dialog has the key */
export function isTaken(event) {
  const target = /** @type {Element} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest?.(TYPING)) return true;
  return event.key !== HELP && document.querySelector("dialog[open]") !== null;
}

/** @param {Record<string, () => void>} actions by key */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (event.defaultPrevented || isTaken(event)) return;
    if (event.key === " " && target.closest?.(USES_SPACE)) return;
    if (event.key.startsWith("Arrow") && target.closest?.(USES_ARROWS)) return;
    if (event.key === "End" && target.closest?.(USES_END)) return;
    if (SCROLL_KEYS.includes(event.key) && target.matches?.(SCROLLS)) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || REPEATS.test(event.key)) action();
  });
}
