// @ts-check
/** Ways to look at the frames: A and B beside each other, one of them, or both in one; and what is drawn on them. */

import { sheet } from "./canvas.js";
import { find, findAll, findCanvas, findInput, write } from "./dom.js";
import { captionAttention, drawAttention, drawCopy, drawDifference, FACTOR, tintCache } from "./overlay.js";

/** @import { HeadsState } from "./heads/state.js" */
/** @import { Attention } from "./protocol.js" */
/** @import { Session } from "./session.js" */

const NO_LAYERS = "Not available for the difference: cache and attention belong to one stream";

export class Views {
  view = "AB";
  split = 50;
  /** What the overlays show, so that they are drawn again only when it changes. */
  drawn = "";

  /** @param {HTMLElement} stage @param {Session} session @param {HeadsState} heads */
  constructor(stage, session, heads) {
    this.stage = stage;
    this.session = session;
    this.heads = heads;
    this.left = findCanvas(stage, ".fkv-left");
    this.right = findCanvas(stage, ".fkv-right");
    this.divider = find(stage, ".fkv-divider");
    this.cache = findInput(stage, '.fkv-layers [value="cache"]');
    this.attention = findInput(stage, '.fkv-layers [value="attention"]');
    this.layers = [this.cache, this.attention].map((input) => {
      const label = /** @type {HTMLElement} */ (input.parentElement);
      return { input, label, title: label.title };
    });
    /** @type {HTMLInputElement[]} */
    this.radios = findAll(stage, ".fkv-views input");
    for (const input of this.radios) input.addEventListener("change", () => this.look(input.value));
    for (const { input } of this.layers) input.addEventListener("change", () => this.paint(true));
    this.attention.addEventListener("change", () => heads.watch({ overlaid: this.attention.checked }));
    const frame = find(stage, ".fkv-both .fkv-frame");
    for (const type of /** @type {const} */ (["pointerdown", "pointermove"])) {
      frame.addEventListener(type, (event) => {
        const box = frame.getBoundingClientRect();
        this.divide((100 * (event.clientX - box.left)) / box.width);
      });
    }
    this.divider.addEventListener("keydown", (event) => this.dividerKey(event));
    this.divide(50);
  }

  /** The view that is shown: where one stream runs, that one. */
  get shown() {
    const streams = this.stage.dataset.streams ?? "AB";
    return streams === "AB" ? this.view : streams;
  }

  /** @param {string} wanted */
  look(wanted = this.view) {
    this.view = wanted;
    const { shown } = this;
    this.session.player.aligned = shown === "wipe" || shown === "difference";
    const both = (this.stage.dataset.streams ?? "AB") === "AB";
    this.stage.dataset.view = shown;
    for (const input of this.radios) {
      input.checked = input.value === shown;
      input.disabled = !both && input.value !== shown;
    }
    const wipe = "Stream A left of the divider, stream B right of it";
    this.left.setAttribute("aria-label", shown === "wipe" ? wipe : `Difference of A and B, amplified ${FACTOR} times`);
    write(find(this.stage, ".fkv-factor"), shown === "difference" ? `|A − B| × ${FACTOR}` : "");
    for (const { label, title } of this.layers) label.title = shown === "difference" ? NO_LAYERS : title;
    this.paint(true);
  }

  /** @param {number} percent of the width that shows A */
  divide(percent) {
    this.split = Math.max(0, Math.min(100, percent));
    find(this.stage, ".fkv-both").style.setProperty("--fkv-split", `${this.split}%`);
    this.divider.setAttribute("aria-valuenow", String(Math.round(this.split)));
    this.divider.setAttribute("aria-valuetext", `${Math.round(this.split)} % A, ${Math.round(100 - this.split)} % B`);
  }

  /** @param {KeyboardEvent} event */
  dividerKey(event) {
    /** @type {Record<string, number>} */
    const places = { ArrowLeft: this.split - 5, ArrowRight: this.split + 5, Home: 0, End: 100 };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.divide(places[event.key]);
  }

  /** Newest record that says where the chosen head looks. @returns {Attention | null} */
  get watched() {
    return this.session.player.rounds.findLast((round) => round.record?.heads)?.record?.heads ?? null;
  }

  /**
   * Draw the wipe or the difference, and the overlays where they changed.
   * @param {boolean} anew draw the overlays in any case
   */
  paint(anew = false) {
    const { player } = this.session;
    const { shown, watched } = this;
    if (shown === "wipe") {
      drawCopy(this.left, player.screens.A);
      drawCopy(this.right, player.screens.B);
    }
    if (shown === "difference") drawDifference(this.left, player.screens.A, player.screens.B);
    this.cache.disabled = shown === "difference";
    this.attention.disabled = this.cache.disabled || !(watched || this.session.streaming);
    const places = Object.values(player.tracks).map((track) => [track.latentFrame, track.newest?.index]);
    const key = [player.key, places, this.cache.checked, this.attention.checked].join();
    if (!places.length || (!anew && key === this.drawn)) return;
    this.drawn = key;
    for (const canvas of findAll(this.stage, ".fkv-over")) {
      if (canvas.offsetParent) this.paintOver(/** @type {any} */ (canvas), watched);
    }
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Attention | null} watched
   */
  paintOver(canvas, watched) {
    const name = canvas.closest("[data-stream]")?.getAttribute("data-stream") ?? "";
    const { latentFrame: frame, newest } = this.session.player.of(name);
    if (frame === null || !newest) return;
    const own = newest.streams[name];
    const right = canvas.classList.contains("fkv-right");
    sheet(canvas);
    if (this.cache.checked && own) tintCache(canvas, own.xray, frame, newest.grid, right);
    if (!this.attention.checked || watched?.stream !== name) return;
    if (frame <= (watched.frames.at(-1) ?? -1)) drawAttention(canvas, watched, frame);
    captionAttention(canvas, name, watched, right);
  }
}
