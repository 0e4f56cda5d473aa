// @ts-check
/** The page table: columns are latent frames, rows are head groups with a height for their heads, cells are pages. */

import { sheet, spread, texture } from "./canvas.js";
import { ROLES } from "./colours.js";
import { isCached, positionOf } from "./protocol.js";
import { kindColour, shared } from "./shared.js";

/** @import { Sheet } from "./canvas.js" */
/** @import { GroupPages, SegmentMask } from "./protocol.js" */

/** @type {Record<string, string>} */
const GROUP_NAMES = { all: "all heads" };
const GAP = 4; // pixels between groups
const STRIP = 6; // pixels of the strip that shows at which positions frames are read
const EDITED = 7; // pixels of the corner of an edited frame
const YIELDING = ["held", "moved"]; // kinds that give way to any other of the same segment
const FEWEST = 12; // latent frames that the axis spans at least

/** @param {GroupPages[]} groups @returns {boolean} whether heads are split by their role */
export const splitByRole = (groups) => groups.some((group) => group.name in ROLES);

/**
 * Where heads are split by role, a group of all heads is the first layer's.
 * @param {GroupPages[]} groups
 * @param {string} stream
 */
export function titles(groups, stream) {
  return groups.map(({ name, heads }) => {
    const title = splitByRole(groups) && name === "all" ? "first layer" : (GROUP_NAMES[name] ?? name);
    return `${stream}  ${title} (${heads})`;
  });
}

/**
 * Choose the rows that have a title, where a rule has a group for each layer and not all titles fit.
 * @param {number} count of rows
 * @param {number} most titles that fit
 * @returns {number[]} rows at equal distances, the first among them
 */
export function labelled(count, most) {
  const every = Math.ceil(count / Math.max(1, most));
  return Array.from({ length: Math.ceil(count / every) }, (_, i) => i * every);
}

/**
 * @param {GroupPages[]} groups
 * @param {number} frame
 * @returns {(string | null)[]} kind of each segment of a latent frame in any head group; null where it was dropped
 */
export function cachedSegments(groups, frame) {
  /** @type {(string | null)[]} */
  const kinds = Array(groups[0].segments).fill(null);
  for (const [first, last, kind, cached] of groups.flatMap(({ runs }) => runs)) {
    if (frame < first || last < frame) continue;
    kinds.forEach((known, i) => {
      if (isCached(cached, i) && (!known || YIELDING.includes(known))) kinds[i] = kind;
    });
  }
  return kinds;
}

/** @param {GroupPages[]} groups @returns {string[]} kinds and signs of the legend that a page table shows */
export function signsIn(groups) {
  const kinds = groups.flatMap(({ runs }) => runs.map(([, , kind]) => kind));
  if (groups.some(({ edited }) => edited?.length)) kinds.push("edited");
  if (groups.some(({ positions }) => positions)) kinds.push("strip");
  return kinds;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} name of the stream
 * @param {Record<string, GroupPages[]>} streams groups of all streams, so that their columns begin at the same place
 * @param {Record<string, number>} frames latent frames of all streams; the axis spans the most of them
 */
export function drawXray(canvas, name, streams, frames) {
  const page = sheet(canvas);
  const { pen, width, height, size, ink, soft } = page;
  const groups = streams[name];
  if (!groups) {
    pen.fillStyle = soft;
    pen.fillText(name, 2, height / 2);
    return;
  }
  const longest = Math.max(
    ...Object.entries(streams)
      .flatMap(([each, own]) => titles(own, each))
      .map((text) => pen.measureText(text).width),
  );
  const left = Math.min(width * 0.5, 16 + longest);
  const small = Math.min(1, (left - 14) / longest); // titles that do not fit are written smaller, not squeezed
  pen.font = pen.font.replace(`${size}px`, `${size * small}px`);
  const cell = (width - left) / Math.max(FEWEST, ...Object.values(frames));
  const rows = rowsOf(groups, height);
  const shown = labelled(groups.length, Math.floor(height / (size * small)));
  const middles = spread(
    shown.map((i) => rows[i].top + rows[i].high / 2),
    size * small,
    height,
  );
  const texts = titles(groups, name);
  pen.fillStyle = ink;
  pen.textAlign = "left";
  shown.forEach((i, at) => pen.fillText(texts[i], 0, middles[at], left - 14));
  groups.forEach((group, i) => drawGroup(page, group, { left, cell, ...rows[i] }, frames[name]));
}

/**
 * Draw a page table alone, without names.
 * @param {HTMLCanvasElement} canvas
 * @param {GroupPages[]} groups
 * @param {number} frames
 */
export function drawPages(canvas, groups, frames) {
  const page = sheet(canvas);
  const rows = rowsOf(groups, page.height);
  groups.forEach((group, i) =>
    drawGroup(page, group, { left: 8, cell: (page.width - 8) / frames, ...rows[i] }, frames),
  );
}

/**
 * @param {GroupPages[]} groups
 * @param {number} height
 * @returns {{ top: number, high: number }[]} one row per group; its height is proportional to the number of heads
 */
function rowsOf(groups, height) {
  const heads = groups.reduce((sum, group) => sum + group.heads, 0);
  const room = height - GAP * (groups.length - 1);
  let next = 0;
  return groups.map((group) => {
    const top = next;
    const high = (room * group.heads) / heads;
    next += high + GAP;
    return { top, high };
  });
}

/**
 * @param {Sheet} page
 * @param {GroupPages} group
 * @param {{ left: number, cell: number, top: number, high: number }} row
 * @param {number} frames
 */
function drawGroup({ pen, ink, colour }, group, { left, cell, top, high }, frames) {
  const wide = Math.max(0.5, cell - (cell > 4 ? 1.5 : cell > 2 ? 0.5 : 0));
  const strip = group.positions ? Math.min(STRIP, high / 3) : 0;
  const part = (high - strip) / group.segments;
  pen.fillStyle = colour(ROLES[group.name] ?? kindColour("kept"));
  pen.fillRect(left - 8, top, 3, high);
  pen.fillStyle = colour(kindColour("dropped"));
  for (let frame = 0; frame < frames; frame++) pen.fillRect(left + frame * cell, top, wide, high - strip);
  for (const [first, last, kind, cached] of group.runs) {
    const deep = Math.max(0.5, part - (part > 4 && !isWhole(cached, group.segments) ? 1 : 0));
    const fill = colour(kindColour(kind));
    for (let frame = first; frame <= last; frame++) {
      for (let segment = 0; segment < group.segments; segment++) {
        if (!isCached(cached, segment)) continue;
        pen.fillStyle = fill;
        pen.fillRect(left + frame * cell, top + segment * part, wide, deep);
        if (wide > 5) texture(pen, shared.kinds[kind].pattern, left + frame * cell, top + segment * part, wide, deep);
      }
      if (!strip || kind === "held") continue;
      pen.fillStyle = fill;
      pen.fillRect(left + positionOf(group, frame) * cell, top + high - 0.8 * strip, wide, 0.8 * strip);
    }
  }
  pen.fillStyle = ink;
  for (const frame of group.edited ?? []) {
    const corner = Math.min(wide, high, EDITED);
    const x = left + frame * cell + wide;
    pen.beginPath();
    pen.moveTo(x - corner, top);
    pen.lineTo(x, top);
    pen.lineTo(x, top + corner);
    pen.fill();
  }
}

/** @param {SegmentMask} cached @param {number} segments @returns {boolean} whether every segment is cached */
const isWhole = (cached, segments) => Array.from({ length: segments }, (_, i) => i).every((i) => isCached(cached, i));

/**
 * @param {GroupPages[]} groups
 * @returns {string} the page table in a sentence per head group
 */
export function describe(groups) {
  return groups
    .map((group) => {
      const runs = group.runs.map(([first, last, kind]) => `${span(first, last)} ${shared.kinds[kind].name}`);
      const read = (group.positions ?? []).map(
        ([first, last, position]) => `${span(first, last)} at ${span(position, position + last - first)}`,
      );
      const positions = read.length ? `; read at other positions: ${read.join(", ")}` : "";
      const edited = group.edited ? `; edited: ${group.edited.join(", ")}` : "";
      return `${GROUP_NAMES[group.name] ?? group.name}: frames ${runs.join(", ")}${positions}${edited}.`;
    })
    .join(" ");
}

/** @param {number} first @param {number} last */
const span = (first, last) => (first === last ? `${first}` : `${first}–${last}`);
