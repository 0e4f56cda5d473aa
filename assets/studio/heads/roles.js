// @ts-check
/** The threshold, what it would change and what that would cost. */

import { sheet, strokeLine, texture } from "../canvas.js";
import { find, findButton, findCanvas, findInput, write } from "../dom.js";
import { save } from "../take.js";
import { isStatic, same } from "./state.js";

/** @import { HeadsState, StaticHeads } from "./state.js" */
/** @import { Sheet } from "../canvas.js" */
/** @typedef {{ static: number[], dynamic: number[] }} Cost bytes of a head of either role in each layer */

const BINS = 25;
const EDGE = 8; // pixels left and right of the histogram

/** @param {number} bytes */
const megabytes = (bytes) => (bytes / 1e6).toFixed(3);

export class RolesPanel {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.tools = find(tab, ".fkv-roles-tools");
    this.slider = findInput(tab, ".fkv-threshold input");
    this.value = find(tab, ".fkv-threshold output");
    this.note = find(tab, ".fkv-scores-note");
    this.consequence = find(tab, ".fkv-consequence");
    this.histogram = findCanvas(tab, ".fkv-histogram");
    /** @type {HTMLInputElement} */
    this.file = find(tab, '.fkv-roles-tools [type="file"]');
    const actions = {
      apply: () => state.apply(),
      reset: () => state.reset(),
      download: () => this.download(),
      load: () => this.file.click(),
    };
    for (const [name, action] of Object.entries(actions))
      find(tab, `[data-do="${name}"]`).addEventListener("click", action);
    this.apply = findButton(tab, '[data-do="apply"]');
    this.reset = findButton(tab, '[data-do="reset"]');
    this.slider.addEventListener("input", () => state.drag(Number(this.slider.value)));
    this.file.addEventListener("change", () => this.load());
  }

  paint() {
    const { state } = this;
    const { applied, asked, draft, released, threshold, tuneable } = state;
    const known = (state.scores ?? []).flat().some((score) => score !== null);
    const live = state.source === "live";
    this.tools.hidden = !applied;
    this.slider.disabled = !known;
    write(this.value, threshold?.toFixed(2) ?? "(custom roles)");
    if (threshold !== null) this.slider.value = String(threshold);
    write(
      this.note,
      live ? "of the newest chunk; roles come from the profile’s" : "heads from the threshold on are static",
    );
    write(
      this.consequence,
      known ? this.whatChanges() : "No head has a score yet: none keeps more than the sink and the newest four frames.",
    );
    this.apply.disabled = !tuneable || !draft || same(draft, applied);
    this.reset.disabled = !released || (!draft && (!tuneable || same(asked ?? applied, released)));
    if (applied) this.paintHistogram();
  }

  /** What the shown roles would change, in heads and bytes. */
  whatChanges() {
    const { state } = this;
    const { applied, asked, draft, facts, newest, roles } = state;
    if (asked && !draft) return state.running ? "Requested; applied from the stream’s next chunk." : "";
    const flips = state.everyHead(
      (layer, head) => Number(isStatic(roles, layer, head)) - Number(isStatic(applied, layer, head)),
    );
    const up = flips.flat().filter((flip) => flip > 0).length;
    const down = flips.flat().filter((flip) => flip < 0).length;
    const parts = [up && `${up} to static`, down && `${down} to dynamic`].filter(Boolean).join(", ");
    const heads = `${up + down} of ${facts.layers * facts.heads} heads change: ${parts}.`;
    const change = up + down ? heads : "No head changes its role.";
    if (!newest) return `${change} Go live to see how many bytes that is.`;
    const { cost } = newest.heads;
    if (!cost) return `${change} Stream ${state.stream} caches the same for all heads, so its memory does not change.`;
    return `${change} ${this.bytesText(this.bytesOf(applied, cost), this.bytesOf(roles, cost))}`;
  }

  /** @param {number} from @param {number} to */
  bytesText(from, to) {
    const sign = to > from ? "+" : to < from ? "−" : "±";
    const difference = `${sign}${Math.abs(to - from).toLocaleString("en")} bytes`;
    const total = `KV ${megabytes(from)} MB → ${megabytes(to)} MB (${difference})`;
    return `${total}, from the pages per head of either role in the newest chunk.`;
  }

  /** @param {StaticHeads | null} roles @param {Cost} cost */
  bytesOf(roles, cost) {
    const each = this.state.everyHead(
      (layer, head) => cost[isStatic(roles, layer, head) ? "static" : "dynamic"][layer],
    );
    return each.flat().reduce((sum, bytes) => sum + bytes, 0);
  }

  paintHistogram() {
    const { state } = this;
    const { roles, scores, source, wanted, threshold, facts } = state;
    const page = sheet(this.histogram);
    const { pen, width, height, size, soft, rule } = page;
    const bottom = height - size - 4;
    const x = (/** @type {number} */ score) => EDGE + (width - 2 * EDGE) * score;
    const bins = Array.from({ length: BINS }, () => ({ static: 0, dynamic: 0 }));
    state.everyHead((layer, head) => {
      const score = scores?.[layer][head] ?? null;
      if (score === null) return;
      bins[Math.min(BINS - 1, Math.floor(BINS * score))][isStatic(roles, layer, head) ? "static" : "dynamic"] += 1;
    });
    drawBins(page, bins, x, bottom);
    pen.strokeStyle = rule;
    strokeLine(pen, EDGE, bottom, width - EDGE, bottom);
    pen.fillStyle = soft;
    for (const [score, side] of /** @type {[number, CanvasTextAlign][]} */ ([
      [0, "left"],
      [0.5, "center"],
      [1, "right"],
    ])) {
      pen.textAlign = side;
      pen.fillText(String(score), x(score), height - size / 2);
    }
    const uniform = source === "profile" && facts.profile?.uniform_score;
    if (uniform) drawMarker(page, x(uniform), bottom, "uniform attention", uniform < 0.5, true);
    const at = source === "live" ? wanted : threshold;
    if (at !== null) drawMarker(page, x(at), bottom, `static from ${at.toFixed(2)}`, at < 0.5, false);
    const reach = (scores ?? []).flat().filter((score) => score !== null && at !== null && score >= at).length;
    this.histogram.setAttribute(
      "aria-label",
      `Histogram of scores${at === null ? "" : `: ${reach} heads reach the threshold`}`,
    );
  }

  /** Show the roles of the file that was picked, or say why it will not do. */
  async load() {
    const { facts } = this.state;
    const file = this.file.files?.[0];
    this.file.value = "";
    if (!file) return;
    const read = rolesIn(await file.text(), facts.layers, facts.heads);
    if (read) this.state.load(read.roles, read.threshold);
    else {
      write(this.consequence, `${file.name} holds no roles of ${facts.layers} layers of ${facts.heads} heads.`);
    }
  }

  /** Hand out the shown roles as a file. */
  download() {
    const { facts, roles, released } = this.state;
    const file = {
      model: facts.model,
      num_layers: facts.layers,
      num_heads: facts.heads,
      ...facts.profile,
      static_heads: roles,
      threshold: this.state.thresholdOf(roles),
    };
    if (!same(roles, released)) Object.assign(file, { source: "changed by hand in the studio; scores as profiled" });
    const text = `${JSON.stringify(file, null, 1)}\n`;
    save(`roles-${facts.model}.json`, new Blob([text], { type: "application/json" }));
  }
}

/**
 * @param {string} text of a file, as `download` writes it
 * @param {number} layers
 * @param {number} heads of a layer
 * @returns {{ roles: StaticHeads, threshold: number | null } | null} null where they are not of such a model
 */
export function rolesIn(text, layers, heads) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    return null;
  }
  const { static_heads: rows, threshold } = read ?? {};
  const isHead = (/** @type {unknown} */ head) => Number.isInteger(head) && Number(head) >= 0 && Number(head) < heads;
  const fits = Array.isArray(rows) && rows.length === layers && rows.every((row) => row?.every?.(isHead));
  if (!fits) return null;
  const roles = rows.map((row) => [...new Set(row)].sort((a, b) => a - b));
  return { roles, threshold: typeof threshold === "number" ? threshold : null };
}

/**
 * @param {Sheet} page
 * @param {{ static: number, dynamic: number }[]} bins
 * @param {(score: number) => number} x
 * @param {number} bottom
 */
function drawBins({ pen, size, colour }, bins, x, bottom) {
  const most = Math.max(1, ...bins.map((bin) => bin.static + bin.dynamic));
  const wide = x(1 / BINS) - x(0) - 2;
  bins.forEach((bin, i) => {
    const left = x(i / BINS) + 1;
    let top = bottom;
    for (const role of /** @type {const} */ (["static", "dynamic"])) {
      const tall = ((bottom - 2.4 * size) * bin[role]) / most;
      if (!tall) continue;
      top -= tall;
      pen.fillStyle = colour(`--fkv-${role}`);
      pen.fillRect(left, top, wide, tall);
      if (role === "static") texture(pen, "|", left, top, wide, tall);
    }
  });
}

/**
 * Draw an upright line and its text.
 * @param {Sheet} page
 * @param {number} x
 * @param {number} bottom
 * @param {string} text
 * @param {boolean} right whether the text stands right of the line
 * @param {boolean} dash whether it is the lesser of the two
 */
function drawMarker({ pen, size, ink, soft }, x, bottom, text, right, dash) {
  pen.strokeStyle = pen.fillStyle = dash ? soft : ink;
  pen.lineWidth = dash ? 1 : 2;
  pen.setLineDash(dash ? [2, 3] : []);
  strokeLine(pen, x, dash ? size + 4 : 0, x, bottom);
  pen.setLineDash([]);
  pen.textAlign = right ? "left" : "right";
  pen.fillText(text, x + (right ? 5 : -5), (dash ? 1.6 : 0.5) * size + 1);
}
