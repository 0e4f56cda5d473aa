// @ts-check
/** Light and dark, talk mode, the help dialog, accordions. */

import { find, findAll } from "./dom.js";

export function toggleDark() {
  document.body.classList.toggle("dark");
}

export function toggleTalk() {
  setTalk(!document.body.classList.contains("fkv-talk"));
}

/** @param {boolean} on */
export function setTalk(on) {
  const exploring = find(document, "[role=tab][aria-selected=true]").textContent?.trim() === "Explore";
  if (on && !exploring) find(document, "[role=tab]").click(); // the Live tab
  document.body.classList.toggle("fkv-talk", on);
  const address = new URL(window.location.href);
  address.searchParams.delete("talk");
  if (on) address.searchParams.set("talk", "1");
  window.history.replaceState(null, "", address);
}

/** Hide or show the figures of talk mode. */
export function toggleFigures() {
  document.body.classList.toggle("fkv-bare");
}

export function toggleHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (find(document, ".fkv-help"));
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

/** Say to screen readers whether Gradio's accordions are open; again when a tab with others was built. */
export function sayExpanded() {
  for (const button of findAll(document, "button.label-wrap:not([aria-expanded])")) {
    const say = () => button.setAttribute("aria-expanded", String(button.classList.contains("open")));
    new MutationObserver(say).observe(button, { attributes: true, attributeFilter: ["class"] });
    say();
  }
}
