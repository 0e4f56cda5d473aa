// @ts-check
/** Canvas drawings as SVG and PNG files: a pen that writes down what is drawn. */

import { penOf } from "./canvas.js";

/** @import { Sheet } from "./canvas.js" */

const SCALE = 2; // pixels of the PNG per unit of the SVG

/** The part of CanvasRenderingContext2D that figures to save are drawn with. */
class SvgPen {
  /** @type {string[]} */
  parts = [];
  fillStyle = "#000";
  strokeStyle = "#000";
  lineWidth = 1;
  font = "";
  textBaseline = "middle";
  /** @type {CanvasTextAlign} */
  textAlign = "left";
  /** @type {number[]} */
  dash = [];
  path = "";

  /** @param {CanvasRenderingContext2D} real measures texts */
  constructor(real) {
    this.real = real;
    this.font = real.font;
  }

  /** @param {string} text */
  measureText(text) {
    return this.real.measureText(text);
  }

  /** @param {number[]} dash */
  setLineDash(dash) {
    this.dash = dash;
  }

  beginPath() {
    this.path = "";
  }

  /** @param {number} x @param {number} y */
  moveTo(x, y) {
    this.path += `M${short(x)} ${short(y)}`;
  }

  /** @param {number} x @param {number} y */
  lineTo(x, y) {
    this.path += `L${short(x)} ${short(y)}`;
  }

  stroke() {
    this.parts.push(`<path d="${this.path}" ${this.outline}/>`);
  }

  get outline() {
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.join(" ")}"` : "";
    return `fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}"${dash}`;
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  fillRect(x, y, width, height) {
    this.parts.push(`<rect ${box(x, y, width, height)} fill="${this.fillStyle}"/>`);
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  strokeRect(x, y, width, height) {
    this.parts.push(`<rect ${box(x, y, width, height)} ${this.outline}/>`);
  }

  /** @param {string} text @param {number} x @param {number} y */
  fillText(text, x, y) {
    const anchor = { left: "start", center: "middle", right: "end" }[/** @type {string} */ (this.textAlign)];
    const place = `x="${short(x)}" y="${short(y)}" text-anchor="${anchor}" dominant-baseline="central"`;
    this.parts.push(`<text ${place} fill="${this.fillStyle}">${escaped(text)}</text>`);
  }
}

const short = (/** @type {number} */ value) => String(Math.round(100 * value) / 100);

/** @param {number} x @param {number} y @param {number} width @param {number} height */
const box = (x, y, width, height) =>
  `x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}"`;

const escaped = (/** @type {string} */ text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/**
 * @param {Sheet} page of the canvas that shows the figure
 * @param {string} paper colour below it
 * @param {string[]} head lines above it
 * @param {(page: Sheet) => void} draw
 * @returns {string} an SVG file
 */
export function toSvg(page, paper, head, draw) {
  const { width, height, size, ink } = page;
  const pen = new SvgPen(page.pen);
  draw({ ...page, pen: /** @type {any} */ (pen) });
  const [edge, line] = [16, 1.6 * size];
  const top = edge + line * head.length + 6;
  const lines = head.map((text, i) => {
    return `<text x="${edge}" y="${short(edge + (i + 0.7) * line)}" fill="${ink}">${escaped(text)}</text>`;
  });
  const [wide, high] = [width + 2 * edge, top + height + edge].map(Math.ceil);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${high}" viewBox="0 0 ${wide} ${high}"`,
    ` font-family="sans-serif" font-size="${size}"><rect width="100%" height="100%" fill="${paper}"/>`,
    ...lines,
    `<g transform="translate(${edge} ${short(top)})">${pen.parts.join("")}</g></svg>\n`,
  ].join("");
}

/** @param {string} svg @returns {Promise<Blob>} */
export async function toPng(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = SCALE * image.width;
  canvas.height = SCALE * image.height;
  penOf(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob((data) => done(/** @type {Blob} */ (data)), "image/png"));
}
