// @ts-check
/** One head: its attention by page kind, and frame by frame. */

import { sheet, strokeLine, texture } from "../canvas.js";
import { cividis } from "../colours.js";
import { find, findAll, findButton, findCanvas, write } from "../dom.js";
import { kindColour, shared } from "../shared.js";
import { toPng, toSvg } from "../svg.js";
import { save } from "../take.js";
import { isStatic, percent, shareOf } from "./state.js";

/** @import { Sheet } from "../canvas.js" */
/** @import { PageKind } from "../shared.js" */
/** @import { HeadsState, Masses } from "./state.js" */

/** @typedef {{ frame: number, own: number[], keys: number[], mass: number[] }} QueryRow attention of one query frame */

/**
 * @typedef {object} FramesMap
 * @property {QueryRow[]} rows
 * @property {number[]} keys ascending
 * @property {number[]} at left edge of every key; wider apart where frames between two keys are left out
 * @property {number} left
 * @property {number} top
 * @property {number} wide
 * @property {number} high
 */

const SCORES_DIFFER =
  "The profile was measured with the full cache; the live score counts only frames that this stream still caches.";
const ROWS = 24; // query frames that are shown
const BREAK = 14; // pixels between two keys that are no neighbours

/** Say on an empty canvas why it is, also to screen readers. @param {HTMLCanvasElement} canvas @param {string} text */
export function blank(canvas, text) {
  const { pen, width, height, soft, colour } = sheet(canvas);
  pen.fillStyle = colour("--fkv-kind-dropped");
  pen.beginPath();
  pen.roundRect(0, 0, width, height, 6);
  pen.fill();
  pen.fillStyle = soft;
  pen.textAlign = "center";
  pen.fillText(text, width / 2, height / 2);
  canvas.setAttribute("aria-label", text);
}

export class Detail {
  /** @type {FramesMap | null} what the frames chart shows */
  map = null;

  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.panel = find(tab, ".fkv-detail");
    this.title = find(tab, ".fkv-detail h3");
    this.why = find(tab, ".fkv-why");
    this.kinds = findCanvas(tab, ".fkv-kinds");
    this.frames = findCanvas(tab, ".fkv-frames");
    this.readout = find(tab, ".fkv-readout");
    this.silence = findButton(tab, '[data-do="silence"]');
    this.flip = findButton(tab, '[data-do="flip"]');
    this.silence.addEventListener("click", () => state.silence());
    this.flip.addEventListener("click", () => state.flip());
    this.frames.addEventListener("pointermove", (event) => this.hover(event));
    this.besideBox = find(tab, ".fkv-beside");
    this.besideFrames = findCanvas(tab, ".fkv-frames-beside");
    /** @type {HTMLButtonElement[]} */
    this.saves = findAll(tab, "[data-save]");
    for (const button of this.saves) button.addEventListener("click", () => this.save(button.dataset.save ?? ""));
  }

  paint() {
    const { state } = this;
    const { layer, head } = state.chosen;
    const { applied, returns, roles, running, silenced } = state;
    const role = roles && (isStatic(roles, layer, head) ? "static" : "dynamic");
    write(this.title, [`Layer ${layer}, head ${head}`, ...this.factsOf(role)].join(" · "));
    write(this.why, state.newest && state.facts.profile?.scores ? SCORES_DIFFER : "");
    this.panel.dataset.head = `${layer}.${head}`;
    write(this.silence, !silenced ? "Silence" : returns ? "Unsilenced from the next run" : "Unsilence");
    write(this.flip, role ? `Flip to ${role === "static" ? "dynamic" : "static"}` : "Flip role");
    this.silence.disabled = !running || returns;
    this.flip.disabled = !state.tuneable || !applied || state.ignoresRoles(layer);
    this.paintKinds();
    this.paintFrames();
    this.paintBeside();
    for (const button of this.saves) button.disabled = !this.map;
  }

  /** @param {string | null} role @returns {string[]} what is known of the chosen head */
  factsOf(role) {
    const { state } = this;
    const { layer, head } = state.chosen;
    const scored = state.facts.profile?.scores?.[layer][head];
    const live = (state.shown ?? state.newest)?.heads.scores[layer][head];
    const facts = [
      role,
      state.ignoresRoles(layer) && "role not used in this layer",
      state.silenced && "silenced",
      scored != null && `profile score ${scored.toFixed(2)}`,
      live !== undefined &&
        (live === null ? "no live score: nothing older is cached" : `live score ${live.toFixed(2)}`),
    ];
    return facts.filter((fact) => typeof fact === "string");
  }

  /** Share of the attention in one chunk on pages of each kind. */
  paintKinds() {
    const { attention: seen, chosen } = this.state;
    const mass = seen?.mass[chosen.layer][chosen.head];
    if (!seen || !mass) {
      blank(this.kinds, this.state.waiting);
      return;
    }
    const page = sheet(this.kinds);
    const present = new Set(Object.values(seen.kinds).flat());
    const kinds = Object.values(shared.kinds).filter(({ key }) => key !== "dropped" && present.has(key));
    const own = seen.kinds[seen.groups[chosen.layer][chosen.head]];
    const left = 10 + Math.max(...kinds.map(({ name }) => page.pen.measureText(name).width));
    const right = page.width - page.pen.measureText("not cached").width - 8;
    const row = page.height / kinds.length;
    const said = kinds.map((kind, i) => {
      const cached = mass.flatMap((line) => line.filter((value, j) => own[j] === kind.key && value !== shared.gone));
      const share = shareOf(cached) / mass.length;
      const text = cached.length ? percent(share) : "not cached";
      drawShare(page, { left, right, top: (i + 0.18) * row, high: 0.64 * row }, kind, share, text);
      return `${kind.name} ${text}`;
    });
    this.kinds.setAttribute("aria-label", `Attention by kind of page: ${said.join(", ")}`);
  }

  /** Query frames of the newest watched chunks, or of the profile. @returns {QueryRow[]} */
  queryRows() {
    const { attention, watched } = this.state;
    const chunks = watched.slice(-Math.ceil(ROWS / 3)).map((record) => record.heads);
    return this.rowsOf(chunks.length ? chunks : attention ? [attention] : []);
  }

  /** @param {Masses[]} seen @returns {QueryRow[]} the last of them, of the chosen head */
  rowsOf(seen) {
    const { layer, head } = this.state.chosen;
    const rows = seen.flatMap(({ frames, key_frames: keys, mass }) => {
      return frames.map((frame, i) => ({ frame, own: frames, keys, mass: mass[layer][head][i] }));
    });
    return rows.slice(-ROWS);
  }

  paintFrames() {
    const rows = this.queryRows();
    this.map = null;
    if (!rows.length) {
      blank(this.frames, this.state.waiting);
      write(this.readout, "");
      return;
    }
    const page = sheet(this.frames);
    const peak = peakOf(rows);
    this.map = layOut(page, rows);
    drawFrames(page, this.map, peak);
    labelFrames(page, this.map);
    const last = rows[rows.length - 1];
    const order = last.mass.map((value, i) => /** @type {const} */ ([value, last.keys[i]])).sort((a, b) => b[0] - a[0]);
    const most = order.slice(0, 3).map(([value, key]) => `${key} (${percent(value / shared.unit)})`);
    const brightest = `the brightest cell is ${percent(peak / shared.unit)}`;
    const text = `Query frame ${last.frame} looks most at key frames ${most.join(", ")}; ${brightest}.`;
    this.frames.setAttribute("aria-label", text);
    write(this.readout, text);
  }

  /** The same head in the other stream. */
  paintBeside() {
    const { beside, other, stream, watched, streams } = this.state;
    this.besideBox.hidden = !beside;
    if (!beside) return;
    write(find(this.besideBox, "b"), streams.find((name) => name !== stream) ?? "");
    if (!other) {
      blank(this.besideFrames, this.state.waiting);
      return;
    }
    const seen = watched.flatMap((record) => (record.beside ? [record.beside] : []));
    const rows = this.rowsOf(seen.slice(-Math.ceil(ROWS / 3)));
    const page = sheet(this.besideFrames);
    const map = layOut(page, rows);
    const peak = peakOf(rows);
    drawFrames(page, map, peak);
    labelFrames(page, map);
    const { policy } = other.streams[other.beside.stream];
    const text = `${policy}; the brightest cell is ${percent(peak / shared.unit)}`;
    write(find(this.besideBox, ".fkv-beside-note"), text);
    this.besideFrames.setAttribute("aria-label", `The same head in stream ${other.beside.stream}: ${text}`);
  }

  /** Hand out the frame-by-frame map. @param {string} kind png, svg or csv */
  async save(kind) {
    const { map } = this;
    if (!map) return;
    const { chosen, facts, newest, stream } = this.state;
    const name = `head-${chosen.layer}.${chosen.head}-${facts.model}`;
    if (kind === "csv") {
      save(`${name}.csv`, new Blob([framesCsv(map)], { type: "text/csv" }));
      return;
    }
    const page = sheet(this.frames);
    const paper = page.colour("--fkv-panel");
    const whose = newest ? `stream ${stream}, ${newest.streams[stream].policy}` : `profile of ${facts.model}`;
    const head = [
      this.title.textContent ?? "",
      `${whose}; rows: query frames, columns: key frames; brightest ${percent(peakOf(map.rows) / shared.unit)}`,
    ];
    const svg = toSvg(page, paper, head, (sheetOfSvg) => {
      drawFrames(sheetOfSvg, map, peakOf(map.rows));
      labelFrames(sheetOfSvg, map);
    });
    this.paintFrames(); // taking the sheet has cleared the canvas
    save(`${name}.${kind}`, kind === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await toPng(svg));
  }

  /** @param {PointerEvent} event */
  hover(event) {
    if (!this.map) return;
    const { rows, keys, at, top, wide, high } = this.map;
    const row = rows[Math.floor((event.offsetY - top) / high)];
    const key = keys[at.findIndex((x) => event.offsetX >= x && event.offsetX < x + wide)];
    if (!row || key === undefined) return;
    const value = row.mass[row.keys.indexOf(key)] ?? shared.gone;
    const text = value === shared.gone ? "not cached" : percent(value / shared.unit);
    write(this.readout, `Query frame ${row.frame} → key frame ${key}: ${text}`);
  }
}

/** @param {QueryRow[]} rows @returns {number} the largest mass of any cell */
const peakOf = (rows) => Math.max(1, ...rows.flatMap((row) => row.mass));

/** @param {Pick<Sheet, "width" | "height" | "size">} page @param {QueryRow[]} rows @returns {FramesMap} */
export function layOut({ width, height, size }, rows) {
  const keys = [...new Set(rows.flatMap((row) => row.keys))].sort((a, b) => a - b);
  const [left, top, bottom] = [34, 2, height - size - 6];
  const breaks = keys.map((key, i) => keys.slice(1, i + 1).filter((other, j) => other - keys[j] > 1).length);
  const wide = (width - left - BREAK * breaks[keys.length - 1]) / keys.length;
  const high = (bottom - top) / rows.length;
  return { rows, keys, at: keys.map((_, i) => left + i * wide + BREAK * breaks[i]), left, top, wide, high };
}

/** @param {FramesMap} map @returns {string} CSV with a row per query frame and key frame; no share where not cached */
export function framesCsv({ rows }) {
  const lines = rows.flatMap(({ frame, keys, mass }) => {
    return keys.map((key, i) => [frame, key, mass[i] === shared.gone ? "" : mass[i] / shared.unit].join(","));
  });
  return ["query_frame,key_frame,share_of_attention", ...lines, ""].join("\n");
}

/**
 * @param {Sheet} page
 * @param {{ left: number, right: number, top: number, high: number }} place
 * @param {PageKind} kind
 * @param {number} share
 * @param {string} text behind the bar
 */
function drawShare({ pen, ink, colour }, { left, right, top, high }, kind, share, text) {
  const long = (right - left) * share;
  const middle = top + high / 2;
  pen.textAlign = "left";
  pen.fillStyle = colour("--fkv-kind-dropped");
  pen.fillRect(left, top, right - left, high);
  pen.fillStyle = colour(kindColour(kind.key));
  pen.fillRect(left, top, long, high);
  for (let at = 0; at < long; at += 14) texture(pen, kind.pattern, left + at, top, Math.min(14, long - at), high);
  pen.fillStyle = ink;
  pen.fillText(kind.name, 0, middle);
  pen.fillText(text, right + 6, middle);
}

/** @param {Sheet} page @param {FramesMap} map @param {number} peak largest mass of any cell */
function drawFrames({ pen, soft, colour }, { rows, keys, at, top, wide, high }, peak) {
  const space = wide > 5 ? 1 : 0;
  const x = (/** @type {number} */ key) => at[keys.indexOf(key)];
  rows.forEach((row, i) => {
    const generated = keys.filter((key) => key <= Math.max(...row.own));
    for (const key of generated) {
      const value = row.mass[row.keys.indexOf(key)] ?? shared.gone;
      pen.fillStyle = value === shared.gone ? colour("--fkv-kind-dropped") : `rgb(${cividis(value / peak)})`;
      pen.fillRect(x(key), top + i * high, wide - space, high - space);
    }
  });
  pen.strokeStyle = soft;
  pen.lineWidth = 1;
  pen.setLineDash([2, 4]);
  keys.forEach((key, i) => {
    const middle = at[i] - BREAK / 2;
    if (i && key - keys[i - 1] > 1) strokeLine(pen, middle, top, middle, top + rows.length * high);
  });
  pen.setLineDash([]);
  pen.strokeStyle = colour("--fkv-kind-current");
  pen.lineWidth = 2;
  rows.forEach(({ frame, own }, i) => {
    if (frame !== own[0]) return;
    pen.strokeRect(x(frame), top + i * high, own.length * wide - space, own.length * high - space);
  });
}

/** Number query frames at the left, key frames below. @param {Sheet} page @param {FramesMap} map */
function labelFrames({ pen, height, size, soft }, { rows, keys, at, left, top, wide, high }) {
  pen.fillStyle = soft;
  pen.textAlign = "right";
  const everyRow = Math.ceil(size / high);
  rows.forEach(({ frame }, i) => {
    if (i % everyRow === 0) pen.fillText(String(frame), left - 6, top + (i + 0.5) * high);
  });
  pen.textAlign = "center";
  const everyKey = Math.ceil((pen.measureText(String(keys.at(-1))).width + 8) / wide);
  keys.forEach((key, i) => {
    if (i % everyKey === 0) pen.fillText(String(key), at[i] + wide / 2, height - size / 2);
  });
}
