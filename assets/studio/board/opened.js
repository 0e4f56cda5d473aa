// @ts-check
/** A rule that was opened: its video and the reference's in one frame, its page table, and what it costs. */

import { find, findButton, findCanvas, findInput, onLayout, ROOT, write } from "../dom.js";
import { drawPages } from "../xray.js";
import { filmed } from "./rules.js";

/** @import { Row } from "./rules.js" */

const APART = 0.12; // seconds that two videos may be apart

export class Opened {
  /** @type {Row | null} */
  row = null;
  /** @type {HTMLVideoElement[]} the rule's, then the reference's */
  films = [];

  /** @param {HTMLElement} panel @param {string} reference */
  constructor(panel, reference) {
    this.panel = panel;
    this.reference = reference;
    this.wipe = findInput(panel, "#fkv-board-wipe");
    this.wipe.addEventListener("input", () => this.split());
    const play = findButton(panel, "[data-board=play]");
    play.addEventListener("click", () => {
      const paused = this.films[0]?.paused;
      for (const film of this.films) paused ? film.play() : film.pause();
      write(play, paused ? "Pause" : "Play");
    });
    onLayout(panel, () => this.draw());
  }

  close() {
    this.panel.hidden = true;
    this.row = null;
    this.films = [];
    find(this.panel, ".fkv-films").replaceChildren();
  }

  /**
   * @param {Row} row
   * @param {Row | undefined} base the reference
   * @param {string} shown what the videos show
   */
  open(row, base, shown) {
    this.row = row;
    this.panel.hidden = false;
    write(find(this.panel, "h3"), row.policy);
    const rows = filmed(row, base);
    this.films = rows.map(film);
    find(this.panel, ".fkv-films").replaceChildren(...this.films);
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (const each of this.films) if (!still) each.play().catch(() => {});
    this.films[0]?.addEventListener("timeupdate", () => this.keepUp());
    find(this.panel, ".fkv-board-wipe").hidden = !rows.length;
    write(findButton(this.panel, "[data-board=play]"), still ? "Play" : "Pause");
    this.wipe.hidden = rows.length < 2;
    const sides = rows.length < 2 ? row.policy : `left ${row.policy}, right ${this.reference}`;
    write(find(this.panel, ".fkv-board-wipe figcaption"), `${sides} · ${shown}`);
    this.split();
    this.facts(row);
    const live = /** @type {HTMLAnchorElement} */ (find(this.panel, ".fkv-live"));
    live.hidden = row.live === null;
    if (row.live !== null) live.href = `?${row.live}`;
    this.draw();
    this.panel.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
  }

  /** Show the rule left of the divider and the reference right of it. */
  split() {
    this.panel.style.setProperty("--fkv-split", `${this.wipe.value}%`);
  }

  /** Keep the reference at the time of the rule. */
  keepUp() {
    const [own, other] = this.films;
    if (other && Math.abs(other.currentTime - own.currentTime) > APART) other.currentTime = own.currentTime;
  }

  draw() {
    const canvas = findCanvas(this.panel, ".fkv-board-xray");
    const xray = this.row?.xray;
    canvas.hidden = !xray;
    if (xray && !this.panel.hidden) drawPages(canvas, xray.groups, xray.frames);
  }

  /** @param {Row} row */
  facts(row) {
    const facts = [
      ["Reads as released", row.reading],
      ["Positions", row.positions && `${row.positions}, ${row.span} from the oldest frame read to the newest`],
      ["Pages", row.granularity],
      ["Calibration", row.calibration],
      ["Parity", row.parity],
      ["Paper", row.paper],
      ["Measured", row.device && `on ${row.device}, ${row.date}; ${row.origin === "ours" ? "here" : "by the authors"}`],
    ].filter(([, text]) => text);
    const parts = facts.flatMap(([name, text]) => {
      const [term, said] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = String(name);
      said.textContent = String(text);
      return [term, said];
    });
    find(this.panel, "dl").replaceChildren(...parts);
  }
}

/** @param {Row} row @returns {HTMLVideoElement} */
function film(row) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "auto" });
  video.setAttribute("aria-label", `Video of ${row.policy}`);
  video.src = `${ROOT}board/clips/${encodeURIComponent(row.board)}/${encodeURIComponent(row.name)}.mp4`;
  return video;
}
