// @ts-check
/** Canvas charts in the colours of the page. A is solid, B dashed; the upright line marks the chunk that is shown. */

import { sheet, spread, strokeLine } from "./canvas.js";

/** @import { Sheet } from "./canvas.js" */

/**
 * @typedef {object} Line
 * @property {string} label written at its end; empty for none
 * @property {(number | null)[]} values one per chunk, null where there is none
 * @property {boolean} dash
 * @property {number} width
 * @property {boolean} [soft] whether in the softer ink
 */

/** @typedef {{ label: string, parts: [name: string, value: number][] }} Bar parts are told apart by shade and name */

/**
 * @typedef {object} Axes
 * @property {number} left
 * @property {number} right
 * @property {number} bottom
 * @property {(i: number) => number} x of a chunk
 * @property {(value: number) => number} y of a value
 */

const FEWEST = 8; // chunks that the axis spans at least

/**
 * @param {number} value above 0
 * @returns {number} a round number at or above it
 */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [1, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value * 0.999) ?? 10;
  return digit * power;
}

/** @param {number} value of two digits @returns {number} how many of them are behind its point */
export const decimals = (value) => (String(Number(value.toPrecision(2))).split(".")[1] ?? "").length;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Line[]} lines
 * @param {number | null} cursor number of the chunk that is shown
 */
export function lineChart(canvas, lines, cursor) {
  const page = sheet(canvas);
  const { pen, width, height, size, soft } = page;
  const count = Math.max(FEWEST, ...lines.map((line) => line.values.length));
  const top = roundUp(lines.flatMap((line) => line.values).reduce(larger, 0) || 1);
  const digits = decimals(top / 2);
  const ticks = [0, top / 2, top].map((value) => [value, value.toFixed(digits)]);
  const left = 10 + Math.max(pen.measureText(String(ticks[2][1])).width, 14);
  const right = width - 8 - Math.max(0, ...lines.map((line) => pen.measureText(line.label).width));
  const bottom = height - size - 8;
  /** @type {Axes} */
  const axes = {
    left,
    right,
    bottom,
    x: (i) => left + ((right - left) * i) / (count - 1),
    y: (value) => bottom - ((bottom - size) * value) / top,
  };
  const known = lines.some((line) => line.values.length);
  drawAxes(page, axes, /** @type {[number, string][]} */ (ticks), known ? count : null);
  if (cursor !== null) {
    pen.strokeStyle = soft;
    strokeLine(pen, axes.x(cursor), size / 2, axes.x(cursor), bottom);
  }
  drawEnds(
    page,
    bottom,
    lines.map((line) => drawLine(page, axes, line)).filter((end) => end !== null),
  );
}

/** @param {number} most @param {number | null} value */
const larger = (most, value) => Math.max(most, value ?? 0);

/**
 * @param {Sheet} page
 * @param {Axes} axes
 * @param {[value: number, label: string][]} ticks
 * @param {number | null} count of chunks; null where nothing is known yet and the axes stay without numbers
 */
function drawAxes({ pen, height, size, soft, rule }, { left, right, y }, ticks, count) {
  pen.lineWidth = 1;
  pen.strokeStyle = rule;
  pen.fillStyle = soft;
  pen.textAlign = "right";
  for (const [value, label] of ticks) {
    strokeLine(pen, left, y(value), right, y(value));
    if (count !== null) pen.fillText(label, left - 6, y(value));
  }
  const foot = height - size / 2 - 1;
  const end = count === null ? "" : String(count);
  pen.fillText(end, right, foot);
  const room = right - left - pen.measureText(end).width - size;
  pen.textAlign = "left";
  pen.fillText(pen.measureText("chunk 1").width > room ? "1" : "chunk 1", left, foot);
}

/**
 * Draw a line and the dot at its end.
 * @param {Sheet} page
 * @param {Axes} axes
 * @param {Line} line
 * @returns {End | null} where its label goes
 */
function drawLine({ pen, ink, soft }, { x, y }, line) {
  pen.strokeStyle = pen.fillStyle = line.soft ? soft : ink;
  pen.lineWidth = line.width;
  pen.lineJoin = "round";
  pen.setLineDash(line.dash ? [6, 4] : []);
  pen.beginPath();
  let drawing = false;
  line.values.forEach((value, i) => {
    if (value !== null) pen[drawing ? "lineTo" : "moveTo"](x(i), y(value));
    drawing = value !== null;
  });
  pen.stroke();
  pen.setLineDash([]);
  const last = line.values.findLastIndex((value) => value !== null);
  if (last < 0) return null;
  const height = y(line.values[last] ?? 0);
  pen.beginPath();
  pen.arc(x(last), height, line.width + 0.6, 0, 7);
  pen.fill();
  return line.label ? { x: x(last) + 7, y: height, label: line.label, ink: pen.fillStyle } : null;
}

/** @typedef {{ x: number, y: number, label: string, ink: string }} End label at the end of a line */

/** @param {Sheet} page @param {number} bottom @param {End[]} ends */
function drawEnds({ pen, size }, bottom, ends) {
  ends.sort((a, b) => a.y - b.y);
  const middles = spread(
    ends.map((end) => end.y),
    size,
    bottom + size / 2,
  );
  pen.textAlign = "left";
  ends.forEach((end, i) => {
    pen.fillStyle = end.ink;
    pen.fillText(end.label, end.x, middles[i]);
  });
}

/** @param {HTMLCanvasElement} canvas @param {Bar[]} bars @param {string} unit */
export function stackedBars(canvas, bars, unit) {
  const page = sheet(canvas);
  const { pen, width, size } = page;
  const height = page.height - drawKey(page, namesOf(bars));
  const totals = bars.map((bar) => bar.parts.reduce((sum, [, value]) => sum + value, 0));
  const ends = totals.map((total) => `${total.toFixed(0)} ${unit}`);
  const left = 1.8 * size;
  const right = width - 10 - Math.max(0, ...ends.map((text) => pen.measureText(text).width));
  const scale = (right - left) / Math.max(1e-9, ...totals);
  const row = (height - 6) / Math.max(2, bars.length);
  bars.forEach((bar, i) => {
    const place = { left, top: 4 + i * row, high: Math.max(12, row - 1.8 * size) };
    drawBar(page, bar, place, scale, ends[i]);
  });
}

/**
 * @param {Sheet} page
 * @param {Bar} bar
 * @param {{ left: number, top: number, high: number }} place
 * @param {number} scale pixels per unit
 * @param {string} end text behind the bar
 */
function drawBar({ pen, size, ink, soft, rule, colour }, bar, { left, top, high }, scale, end) {
  const middle = top + high / 2;
  pen.textAlign = "left";
  pen.fillStyle = ink;
  pen.fillText(bar.label, 2, middle);
  let at = left;
  let free = left; // where the next value may stand
  for (const [name, value] of bar.parts) {
    const long = scale * value;
    if (long <= 0) continue;
    pen.fillStyle = colour(`--fkv-stage-${name}`);
    pen.fillRect(at, top, Math.max(1, long - 1), high);
    pen.strokeStyle = rule;
    pen.strokeRect(at + 0.5, top + 0.5, Math.max(1, long - 2), high - 1);
    const text = value.toFixed(value < 10 ? 1 : 0);
    const place = Math.max(free, at);
    pen.fillStyle = soft;
    pen.fillText(text, place, top + high + 0.75 * size);
    free = place + pen.measureText(text).width + 8;
    at += long;
  }
  pen.fillStyle = ink;
  pen.fillText(end, at + 6, middle);
}

/** @param {Bar[]} bars of the same parts @returns {string[]} names of the parts that have a length in any bar */
export function namesOf(bars) {
  const names = (bars[0]?.parts ?? []).map(([name]) => name);
  return names.filter((_, i) => bars.some((bar) => bar.parts[i][1] > 0));
}

/**
 * Break a row of items into as many rows as it needs.
 * @param {number[]} widths
 * @param {number} room
 * @returns {[x: number, row: number][]} the place of each item
 */
export function placed(widths, room) {
  let x = 0;
  let row = 0;
  return widths.map((wide) => {
    if (x && x + wide > room) [x, row] = [0, row + 1];
    x += wide;
    return [x - wide, row];
  });
}

/**
 * Say at the foot of a chart which shade is which part.
 * @param {Sheet} page
 * @param {string[]} names
 * @returns {number} its height
 */
function drawKey({ pen, width, height, size, soft, rule, colour }, names) {
  const places = placed(
    names.map((name) => 1.9 * size + pen.measureText(name).width),
    width,
  );
  const line = 1.4 * size;
  const high = line * (1 + (places.at(-1)?.[1] ?? -1));
  pen.textAlign = "left";
  names.forEach((name, i) => {
    const [x, row] = places[i];
    const middle = height - high + (row + 0.5) * line;
    pen.fillStyle = colour(`--fkv-stage-${name}`);
    pen.fillRect(x, middle - size / 2, size, size);
    pen.strokeStyle = rule;
    pen.strokeRect(x + 0.5, middle - size / 2 + 0.5, size - 1, size - 1);
    pen.fillStyle = soft;
    pen.fillText(name, x + 1.3 * size, middle);
  });
  return high;
}
