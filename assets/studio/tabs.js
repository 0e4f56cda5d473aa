// @ts-check
/** The address names the tab that is open (`tab=heads`), and in Heads the head that is looked at (`head=4.3`). */

import { findAll } from "./dom.js";

/** @import { HeadsState } from "./heads/state.js" */

const FIRST = "live";
const HEADS = "heads";
const TABS = "[role=tab], .overflow-dropdown button"; // where tabs do not fit beside each other, the last are in a menu

/** @param {HTMLElement} tab */
const nameOf = (tab) => (tab.textContent ?? "").trim().toLowerCase().split(" ")[0];

/** @param {URLSearchParams} query @param {HeadsState} heads */
export function openTab(query, heads) {
  const wanted = query.get("tab");
  const [layer, head] = (query.get("head") ?? "").split(".").map(Number);
  const isHead = [layer, head].every((number) => Number.isInteger(number) && number >= 0);
  if (wanted === HEADS && isHead) heads.choose(layer, head);
  if (wanted && wanted !== FIRST) {
    findAll(document, TABS)
      .find((tab) => nameOf(tab) === wanted)
      ?.click();
  }
}

/** Keep the address up to date, and name the menu of tabs. @param {HeadsState} heads */
export function followTabs(heads) {
  document.querySelector(".overflow-menu > button")?.setAttribute("aria-label", "More tabs");
  document.addEventListener("click", ({ target }) => {
    const tab = /** @type {HTMLElement | null} */ (/** @type {Element} */ (target).closest?.(TABS));
    if (tab) remember({ tab: nameOf(tab) === FIRST ? null : nameOf(tab), head: null });
  });
  heads.addEventListener("change", () => {
    const isOpen = new URLSearchParams(window.location.search).get("tab") === HEADS; // visible a moment longer
    if (heads.visible && isOpen) remember({ head: `${heads.chosen.layer}.${heads.chosen.head}` });
  });
}

/** @param {Record<string, string | null>} fields null to remove one */
function remember(fields) {
  const address = new URL(window.location.href);
  for (const [field, value] of Object.entries(fields)) {
    if (value === null) address.searchParams.delete(field);
    else address.searchParams.set(field, value);
  }
  if (address.href !== window.location.href) window.history.replaceState(null, "", address);
}
