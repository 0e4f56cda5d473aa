// @ts-check
/** How far layers and passes agree about the pages that they read, under policies that choose them by queries. */

import { sheet } from "../canvas.js";
import { cividis } from "../colours.js";
import { find } from "../dom.js";

/** @import { Sheet } from "../canvas.js" */
/** @import { Shares } from "../protocol.js" */
/** @import { HeadsState } from "./state.js" */

const GAP = 24; // pixels between the matrices
const NUMBERED = 22; // pixels of a cell from which on it shows its number

export class ChoicesPanel {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.figure = find(tab, ".fkv-choices");
    this.canvas = /** @type {HTMLCanvasElement} */ (find(tab, ".fkv-choices canvas"));
  }

  paint() {
    const overlap = this.state.newest?.heads.overlap;
    this.figure.hidden = !overlap;
    if (!overlap) return;
    const page = sheet(this.canvas);
    const names = overlap.passes.map((name) => name.replace("step ", "").replace("context", "c"));
    const side = Math.min((page.width - GAP) / 2, page.height - page.size - 4);
    const layers = overlap.layers.map((_, layer) => String(layer));
    drawShares(page, overlap.layers, layers, 0, side);
    drawShares(page, overlap.steps, names, side + GAP, side);
    const said = [neighbours("layers", overlap.layers), neighbours("passes", overlap.steps)].join("; ");
    this.canvas.setAttribute("aria-label", `Overlap of neighbouring ${said}`);
  }
}

/** @param {string} what @param {Shares} shares */
function neighbours(what, shares) {
  const beside = shares.slice(1).map((row, i) => percent(row[i]));
  return `${what}: ${beside.join(", ")}`;
}

/** @param {number | null} share */
const percent = (share) => (share === null ? "no choice" : `${Math.round(100 * share)} %`);

/** @param {Sheet} page @param {Shares} shares @param {string[]} names @param {number} left @param {number} side */
function drawShares({ pen, size, soft, colour }, shares, names, left, side) {
  const cell = (side - size) / shares.length;
  pen.textAlign = "center";
  for (const [row, line] of shares.entries()) {
    const top = size + 4 + row * cell;
    pen.fillStyle = soft;
    pen.fillText(names[row], left + size / 2, top + cell / 2);
    pen.fillText(names[row], left + size + (row + 0.5) * cell, size / 2);
    for (const [col, share] of line.entries()) {
      const x = left + size + col * cell;
      pen.fillStyle = share === null ? colour("--fkv-kind-dropped") : `rgb(${cividis(share)})`;
      pen.fillRect(x, top, cell - 1, cell - 1);
      if (share === null || cell < NUMBERED) continue;
      pen.fillStyle = share > 0.5 ? "#000" : "#fff";
      pen.fillText(String(Math.round(100 * share)), x + cell / 2, top + cell / 2);
    }
  }
}
