// @ts-check
/** Light and dark, talk mode, the help dialog. */

import { find } from "./dom.js";

export function toggleDark() {
  document.body.classList.toggle("dark");
}

export function toggleTalk() {
  setTalk(!document.body.classList.contains("fkv-talk"));
}

/** @param {boolean} on */
export function setTalk(on) {
  if (on) find(document, "[role=tab]").click(); // the Live tab
  document.body.classList.toggle("fkv-talk", on);
  const address = new URL(window.location.href);
  address.searchParams.delete("talk");
  if (on) address.searchParams.set("talk", "1");
  window.history.replaceState(null, "", address);
}

export function toggleHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (find(document, ".fkv-help"));
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
