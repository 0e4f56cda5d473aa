// @ts-check
/** A tour of the Live tab: it greets who comes for the first time, and is reopened from the help. */

import { find, findButton, write } from "./dom.js";

const SEEN = "fkv-tour"; // key in the browser's storage

/** @type {[selector: string, text: string][]} what each step points at, and says */
export const STEPS = [
  [
    ".fkv-screens",
    "One model streams the same video twice, from the same noise. KV are the keys and values of earlier frames that " +
      "it attends to; A and B keep different parts of them.",
  ],
  [
    "#fkv-prompt",
    "Go live generates a video of this prompt, chunk by chunk. While it streams, write another prompt and press " +
      "Change prompt: the video goes on from where it is. Undo takes a change back.",
  ],
  [
    ".fkv-xray",
    "The X-ray shows the cache: a column for each latent frame so far, a row for each group of attention heads, and " +
      "in grey what was dropped.",
  ],
  [
    ".fkv-charts",
    "Speed, memory and drift of every chunk. Denoise FPS leaves out text and decoding. The tabs above look into " +
      "single heads and compare policies; ? lists the keys and this tour.",
  ],
];

export class Tour {
  /** @type {number | null} the step that is shown */
  step = null;
  /** @type {Element | null} where the focus was before the tour took it */
  before = null;

  /** @param {HTMLElement} card */
  constructor(card) {
    this.card = card;
    this.next = findButton(card, "[data-tour=next]");
    this.next.addEventListener("click", () => this.show((this.step ?? -1) + 1));
    find(card, "[data-tour=end]").addEventListener("click", () => this.end());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.step !== null) this.end();
    });
  }

  /** Show the tour to who has not seen it; a browser that stores nothing shows it every time. */
  greet() {
    if (!stored()) this.show(0);
  }

  /** Show the tour to who asked for it. */
  start() {
    find(document, "[role=tab]").click(); // the Live tab
    this.show(0);
    this.before = document.activeElement;
    this.next.focus();
  }

  /** @param {number} step */
  show(step) {
    if (step >= STEPS.length) {
      this.end();
      return;
    }
    const [selector, text] = STEPS[step];
    this.point(selector);
    if (step) find(document, selector).scrollIntoView({ block: "nearest" });
    this.step = step;
    this.card.hidden = false;
    write(find(this.card, "p"), text);
    write(find(this.card, "span"), `${step + 1} of ${STEPS.length}`);
    write(this.next, step + 1 < STEPS.length ? "Next" : "Done");
  }

  end() {
    this.step = null;
    const isFocused = this.card.contains(document.activeElement);
    this.card.hidden = true;
    if (isFocused && this.before instanceof HTMLElement) this.before.focus();
    this.point(null);
    store();
  }

  /** @param {string | null} selector */
  point(selector) {
    document.querySelector(".fkv-toured")?.classList.remove("fkv-toured");
    if (selector) find(document, selector).classList.add("fkv-toured");
  }
}

/** @returns {boolean} whether this browser has seen the tour */
function stored() {
  try {
    return window.localStorage.getItem(SEEN) !== null;
  } catch {
    return false; // storage is forbidden, as in some frames
  }
}

function store() {
  try {
    window.localStorage.setItem(SEEN, "seen");
  } catch {
    // it will greet again
  }
}
