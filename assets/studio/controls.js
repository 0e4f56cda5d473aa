// @ts-check
/** What keys and the stage's buttons do. Gradio's buttons do what needs the server, so they are pressed here. */

import { findAll, findInput } from "./dom.js";

/** @import { Session } from "./session.js" */

const PATIENCE = 5000; // milliseconds that an example prompt may take

/** @param {string} id of one of Gradio's buttons */
export function press(id) {
  const button = /** @type {HTMLButtonElement | null} */ (document.getElementById(id));
  if (button && !button.disabled) button.click();
}

/** The field of the prompt. */
export const promptField = () => findInput(document, "#fkv-prompt :is(textarea, input)");

/** Write the prompt as if it were typed. @param {string} text */
export function writePrompt(text) {
  const field = promptField();
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

export class Controls {
  example = 0;
  /** @type {Promise<void> | null} the example that is becoming the prompt */
  taking = null;

  /** @param {Session} session */
  constructor(session) {
    this.session = session;
  }

  async go() {
    await this.taking;
    press("fkv-go");
  }

  /** Pause or resume the stream; play or pause a replay. */
  playPause() {
    const { player, runningShown: running } = this.session;
    if (running) press("fkv-pause");
    else if (player.following && player.ended && player.rounds.length) {
      player.seek(0);
      player.hold(false);
    } else if (player.rounds.length) player.hold(!player.held);
  }

  /** Generate one more chunk of a paused stream; pause a live one. */
  step() {
    if (this.session.state === "paused") press("fkv-step");
    else if (this.session.state === "live") press("fkv-pause");
  }

  /**
   * Make the next example the prompt, also of a running stream.
   * @param {(text: string) => void} announce told the example
   */
  async takeExample(announce) {
    const buttons = findAll(document, "#fkv-examples button");
    if (!buttons.length) return;
    this.example = (this.example + 1) % buttons.length;
    const field = promptField();
    const before = field.value;
    const text = (buttons[this.example].textContent ?? "").trim();
    announce(text);
    buttons[this.example].click();
    this.taking = changed(field, before, text);
    await this.taking;
    if (this.session.running) press("fkv-change");
  }
}

/**
 * Wait until Gradio has set a field, which it does without an event.
 * @param {HTMLInputElement} field
 * @param {string} before
 * @param {string} text
 */
async function changed(field, before, text) {
  const until = performance.now() + PATIENCE;
  while (field.value === before && field.value !== text && performance.now() < until) {
    await new Promise(requestAnimationFrame);
  }
}
