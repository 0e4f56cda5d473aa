// @ts-check
/** Drawing on canvases in the page's font and colours. */

import { PLATE } from "./colours.js";

/**
 * @typedef {object} Sheet
 * @property {CanvasRenderingContext2D} pen
 * @property {number} width in CSS pixels
 * @property {number} height in CSS pixels
 * @property {number} size of the font, in CSS pixels
 * @property {string} ink
 * @property {string} soft
 * @property {string} rule
 * @property {(name: string) => string} colour value of a CSS variable
 */

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
export function penOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/**
 * Fit a canvas to its size on the screen and clear it.
 * @param {HTMLCanvasElement} canvas
 * @returns {Sheet}
 */
export function sheet(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  const [wide, high] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const pen = penOf(canvas);
  const style = getComputedStyle(canvas);
  const size = parseFloat(style.fontSize);
  /** @param {string} name */
  const colour = (name) => style.getPropertyValue(name).trim();
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `${size}px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  const [ink, soft, rule] = ["ink", "soft", "rule"].map((name) => colour(`--fkv-${name}`));
  return { pen, width, height, size, ink, soft, rule, colour };
}

/** @param {CanvasRenderingContext2D} pen @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 */
export function strokeLine(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

/**
 * Mark an area by a pattern, so that it is not told by colour alone.
 * @param {CanvasRenderingContext2D} pen
 * @param {string} pattern "/", "|", ".", "-", "x" or "" for none
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
export function texture(pen, pattern, x, y, width, height) {
  if (!pattern) return;
  pen.save();
  pen.beginPath();
  pen.rect(x, y, width, height);
  pen.clip();
  pen.strokeStyle = pen.fillStyle = "rgba(255,255,255,.75)";
  pen.lineWidth = 1;
  if (pattern === "/" || pattern === "x") {
    for (let d = -height; d < width; d += 5) strokeLine(pen, x + d, y + height, x + d + height, y);
  }
  if (pattern === "x") {
    for (let d = -height; d < width; d += 5) strokeLine(pen, x + d, y, x + d + height, y + height);
  } else if (pattern === "-") {
    for (let d = 3; d < height; d += 5) strokeLine(pen, x, y + d, x + width, y + d);
  } else if (pattern === "|") {
    for (let d = 3; d < width; d += 5) strokeLine(pen, x + d, y, x + d, y + height);
  } else if (pattern === ".") {
    pen.beginPath();
    pen.arc(x + width / 2, y + height / 2, Math.min(2, height / 3), 0, 7);
    pen.fill();
  }
  pen.restore();
}

/**
 * @param {Pick<CanvasRenderingContext2D, "measureText">} pen
 * @param {string} text
 * @param {number} room
 * @returns {string} the text, shortened to fit; empty where no more than three characters would
 */
export function clip(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let short = text;
  while (short.length > 1 && pen.measureText(`${short}…`).width > room) short = short.slice(0, -1);
  return short.length > 3 ? `${short}…` : "";
}

/**
 * @param {number[]} wanted middles of texts, downwards
 * @param {number} size of the font
 * @param {number} height of the canvas
 * @returns {number[]} middles at which no text overlaps another
 */
export function spread(wanted, size, height) {
  /** @type {number[]} */
  const placed = [];
  wanted.forEach((y, i) => placed.push(Math.max(y, size / 2, i ? placed[i - 1] + size : 0)));
  let most = height - size / 2;
  for (let i = placed.length - 1; i >= 0; i--) {
    placed[i] = Math.min(placed[i], most);
    most = placed[i] - size;
  }
  return placed;
}

/**
 * Write a text on a dark plate.
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {number} x left edge of the plate, or its right edge
 * @param {number} y its middle
 * @param {number} size of the font
 * @param {boolean} right whether `x` is its right edge
 */
export function plate(pen, text, x, y, size, right) {
  const wide = pen.measureText(text).width + 8;
  const left = right ? x - wide : x;
  pen.textAlign = "left";
  pen.fillStyle = PLATE;
  pen.fillRect(left, y - size / 2 - 1, wide, size + 2);
  pen.fillStyle = "#fff";
  pen.fillText(text, left + 4, y + 0.5);
}

/**
 * Say in an upper corner what is drawn on a canvas that `sheet` has set up.
 * @param {HTMLCanvasElement} canvas
 * @param {string} text
 * @param {boolean} right whether in the right corner
 */
export function caption(canvas, text, right) {
  const pen = penOf(canvas);
  const high = 1.8 * parseFloat(pen.font);
  const wide = pen.measureText(text).width + high;
  const x = right ? canvas.clientWidth - wide - 8 : 8;
  pen.fillStyle = PLATE;
  pen.fillRect(x, 8, wide, high);
  pen.textAlign = "left";
  pen.fillStyle = "#fff";
  pen.fillText(text, x + high / 2, 8 + high / 2);
}
