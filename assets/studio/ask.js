// @ts-check
/** The line that is typed in a talk: a prompt, or a stream's policy as a storyboard says it, `A = sliding-window`. */

import { press, writePrompt } from "./controls.js";
import { find, findInput } from "./dom.js";

/** @import { Session } from "./session.js" */

/**
 * @param {string} line
 * @returns {{ stream: string, policy: string } | null} null where the line is a prompt
 */
export function policyIn(line) {
  const [, stream, policy] = /^\s*([ab])\s*=\s*(.*\S)\s*$/i.exec(line) ?? [];
  return policy ? { stream: stream.toUpperCase(), policy } : null;
}

/**
 * @param {HTMLElement} element of the page that holds the dialog
 * @param {Session} session
 * @param {(event: string, data: object) => void} trigger
 * @param {(text: string) => void} announce told what a running stream does next
 * @returns {() => void} asks for a line
 */
export function asker(element, session, trigger, announce) {
  const dialog = /** @type {HTMLDialogElement} */ (find(element, ".fkv-ask"));
  const field = findInput(dialog, "input");
  find(dialog, "form").addEventListener("submit", async () => {
    const line = field.value.trim();
    if (!line) return;
    const policy = policyIn(line);
    if (session.running) announce(line);
    if (policy) {
      trigger("policy", policy);
      return;
    }
    writePrompt(line);
    await new Promise(requestAnimationFrame);
    press(session.running ? "fkv-change" : "fkv-go");
  });
  return () => {
    field.value = "";
    dialog.showModal();
  };
}
