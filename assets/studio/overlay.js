// @ts-check
/** Frames made of both streams, and what can be drawn on a frame: its cached segments, the attention of a head. */

import { caption, penOf, plate, sheet } from "./canvas.js";
import { cividis } from "./colours.js";
import { kindColour, shared } from "./shared.js";
import { cachedSegments } from "./xray.js";

/** @import { Attention, GroupPages, PatchMap } from "./protocol.js" */

const DOUBLINGS = 2;

/** By which differences are amplified. */
export const FACTOR = 2 ** DOUBLINGS;

/**
 * @param {HTMLCanvasElement} canvas made as large as `like`
 * @param {HTMLCanvasElement} like
 */
function sized(canvas, like) {
  if (canvas.width !== like.width || canvas.height !== like.height) {
    canvas.width = like.width;
    canvas.height = like.height;
  }
  const pen = penOf(canvas);
  pen.globalCompositeOperation = "copy";
  return pen;
}

/** @param {HTMLCanvasElement} canvas @param {HTMLCanvasElement} screen */
export function drawCopy(canvas, screen) {
  sized(canvas, screen).drawImage(screen, 0, 0);
}

/**
 * Draw |A - B| of every colour channel, times FACTOR.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLCanvasElement} a
 * @param {HTMLCanvasElement} b
 */
export function drawDifference(canvas, a, b) {
  const pen = sized(canvas, a);
  pen.drawImage(a, 0, 0);
  pen.globalCompositeOperation = "difference";
  pen.drawImage(b, 0, 0);
  pen.globalCompositeOperation = "lighter";
  for (let i = 0; i < DOUBLINGS; i++) pen.drawImage(canvas, 0, 0);
}

/** @typedef {{ token: number, row: number, col: number, rows: number, cols: number }} Box rectangle of patches */

/**
 * @param {number} first token of a segment
 * @param {number} tokens of a segment
 * @param {number} cols tokens in a row
 * @returns {Box[]} the rectangles that the segment covers
 */
export function segmentBoxes(first, tokens, cols) {
  if (first % cols === 0 && tokens % cols === 0) {
    return [{ token: first, row: first / cols, col: 0, rows: tokens / cols, cols }];
  }
  const boxes = [];
  for (let token = first; token < first + tokens;) {
    const row = Math.floor(token / cols);
    const end = Math.min(first + tokens, (row + 1) * cols);
    boxes.push({ token, row, col: token % cols, rows: 1, cols: end - token });
    token = end;
  }
  return boxes;
}

/**
 * Tint each segment by its page kind and write the kind's name at its left or right end.
 * @param {HTMLCanvasElement} canvas
 * @param {GroupPages[]} groups
 * @param {number} frame
 * @param {[rows: number, cols: number]} grid
 * @param {boolean} right
 */
export function tintCache(canvas, groups, frame, [rows, cols], right) {
  const { pen, width, height, size, colour } = sheet(canvas);
  const kinds = cachedSegments(groups, frame);
  const tokens = (rows * cols) / kinds.length;
  const high = height / rows;
  const wide = width / cols;
  const { font } = pen;
  kinds.forEach((kind, i) => {
    const fill = colour(kind ? kindColour(kind) : "--fkv-gone");
    for (const box of segmentBoxes(i * tokens, tokens, cols)) {
      const [x, y, long, deep] = [box.col * wide, box.row * high, box.cols * wide, box.rows * high];
      pen.fillStyle = pen.strokeStyle = fill;
      pen.globalAlpha = kind ? 0.36 : 0.72;
      pen.fillRect(x, y, long, deep);
      pen.globalAlpha = 1;
      pen.lineWidth = 1.5;
      pen.strokeRect(x + 1, y + 1, long - 2, deep - 2);
      if (box.token !== i * tokens) continue;
      const tall = Math.min(size, deep * 0.8);
      pen.font = font.replace(/[\d.]+px/, `${tall}px`);
      plate(pen, shared.kinds[kind ?? "dropped"].name, right ? x + long - 4 : x + 4, y + deep / 2, tall, right);
    }
  });
  pen.font = font;
}

/** @param {PatchMap[]} maps @returns {number} the largest mass of any patch */
export const peakOf = (maps) => Math.max(1, ...maps.flatMap(([, rows]) => rows.flat()));

/**
 * Draw where a head looked from its query patch on a frame: brighter is more, grey is dropped.
 * @param {HTMLCanvasElement} canvas
 * @param {Attention} heads of the newest record that has them
 * @param {number} frame
 */
export function drawAttention(canvas, heads, frame) {
  const { pen, width, height, colour } = sheet(canvas);
  const patches = heads.maps.find(([number]) => number === frame)?.[1] ?? [[shared.gone]];
  const peak = peakOf(heads.maps);
  const high = height / patches.length;
  const wide = width / patches[0].length;
  patches.forEach((row, y) => {
    row.forEach((mass, x) => {
      const level = Math.max(0, mass) / peak;
      pen.globalAlpha = mass < 0 ? 0.72 : 0.3 + 0.5 * level;
      pen.fillStyle = mass < 0 ? colour("--fkv-gone") : `rgb(${cividis(level)})`;
      pen.fillRect(x * wide, y * high, wide + 0.5, high + 0.5);
    });
  });
  pen.globalAlpha = 1;
  const { row, col, frame: query } = heads.focus;
  if (heads.frames.at(query) !== frame) return;
  for (const [ink, line] of /** @type {[string, number][]} */ ([
    ["#0a0e14", 4],
    ["#fff", 2],
  ])) {
    pen.strokeStyle = ink;
    pen.lineWidth = line;
    pen.strokeRect(col * wide + 2, row * high + 2, wide - 4, high - 4);
  }
}

/** @param {HTMLCanvasElement} canvas @param {string} stream @param {Attention} heads @param {boolean} right */
export function captionAttention(canvas, stream, heads, right) {
  const { layer, head } = heads.focus;
  caption(canvas, `${stream}: attention of layer ${layer}, head ${head}`, right);
}
