// @ts-check
/** The grid of heads: one button per head with its score and role. */

import { penOf } from "../canvas.js";
import { cividis } from "../colours.js";
import { arrowStep, find, findAll, findCanvas, write } from "../dom.js";
import { shared } from "../shared.js";
import { isStatic, same } from "./state.js";

/** @import { HeadsState } from "./state.js" */

const LIGHT = 0.465; // score from which on black is more legible on its shade than white
const DENSE = 16; // heads in a row from which on cells show no numbers

export class Grid {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.grid = find(tab, ".fkv-grid");
    this.counts = { static: find(tab, '[data-count="static"]'), dynamic: find(tab, '[data-count="dynamic"]') };
    this.changing = find(tab, ".fkv-changing");
    this.panel = find(tab, ".fkv-heads-main > .fkv-panel");
    /** @type {HTMLInputElement[]} */
    this.cells = findAll(tab, ".fkv-cells input");
    for (const input of this.cells) input.addEventListener("change", () => this.paint());
    this.buttons = state.everyHead((layer, head) => this.button(layer, head));
    const { heads } = state.facts;
    this.grid.style.setProperty("--heads", String(heads));
    this.grid.dataset.dense = String(heads > DENSE);
    this.grid.append(label(""), ...Array.from({ length: heads }, (_, head) => label(String(head))));
    this.buttons.forEach((row, layer) => this.grid.append(label(String(layer)), ...row));
    this.grid.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {number} layer @param {number} head */
  button(layer, head) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.className = "fkv-cell";
    button.append(document.createElement("b"), document.createElement("span"), document.createElement("canvas"));
    button.addEventListener("click", () => this.state.choose(layer, head));
    return button;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const place = this.buttons.flat().indexOf(/** @type {HTMLButtonElement} */ (event.target));
    const step = place < 0 ? null : arrowStep(event);
    if (!step) return;
    const { heads } = this.state.facts;
    const next = this.buttons[Math.floor(place / heads) + step[0]]?.[(place % heads) + step[1]];
    if (!next) return;
    this.makeTabStop(next);
    next.focus();
  }

  /** @param {HTMLButtonElement} button the one that Tab reaches */
  makeTabStop(button) {
    for (const other of this.buttons.flat()) other.tabIndex = other === button ? 0 : -1;
  }

  paint() {
    const { roles, applied, attention, facts, released, silencedHeads } = this.state;
    const maps = Boolean(attention) && this.cells.some((input) => input.checked && input.value === "maps");
    this.panel.dataset.cells = maps ? "maps" : "scores";
    for (const input of this.cells) input.disabled = input.value === "maps" && !attention;
    this.panel.dataset.flipped = String(Boolean(applied) && !same(applied, released));
    this.panel.dataset.silenced = String(silencedHeads.size > 0 && !silencedHeads.has(""));
    const changes = this.state.everyHead((layer, head) => this.paintCell(layer, head)).flat();
    const count = roles?.reduce((sum, row) => sum + row.length, 0) ?? null;
    write(this.counts.static, count === null ? "–" : String(count));
    write(this.counts.dynamic, count === null ? "–" : String(facts.layers * facts.heads - count));
    this.changing.style.visibility = roles && applied && changes.some(Boolean) ? "" : "hidden";
  }

  /** @param {number} layer @param {number} head @returns {boolean} whether the head's role would change */
  paintCell(layer, head) {
    const { state } = this;
    const { roles, applied, chosen, released } = state;
    const button = this.buttons[layer][head];
    const score = state.scores?.[layer][head] ?? null;
    const unused = state.ignoresRoles(layer);
    const role = roles ? (isStatic(roles, layer, head) ? "static" : "dynamic") : "";
    const changed = Boolean(roles) && isStatic(roles, layer, head) !== isStatic(applied, layer, head);
    const selected = layer === chosen.layer && head === chosen.head;
    const maps = this.panel.dataset.cells === "maps";
    button.style.background = maps || score === null ? "" : `rgb(${cividis(score)})`;
    button.style.color = maps || score === null ? "" : inkOn(score);
    if (maps && state.attention) drawMap(findCanvas(button, "canvas"), state.attention.mass[layer][head]);
    const flipped = Boolean(released && applied) && isStatic(applied, layer, head) !== isStatic(released, layer, head);
    const silenced = state.silencedHeads.has(`${layer}.${head}`);
    button.dataset.mark = silenced ? "silenced" : flipped ? "flipped" : "";
    button.dataset.role = role;
    button.dataset.changed = String(changed);
    button.dataset.unused = String(unused);
    button.title = unused ? "Roles are not used in this layer: all its heads keep the same frames" : "";
    write(find(button, "span"), score === null ? "–" : score >= 0.995 ? "1.0" : score.toFixed(2).slice(1));
    button.setAttribute("aria-pressed", String(selected));
    if (selected && !this.grid.contains(document.activeElement)) this.makeTabStop(button);
    const scored = score === null ? "no score" : `score ${score.toFixed(2)}`;
    const facts = [
      `layer ${layer}, head ${head}`,
      role,
      scored,
      changed && "would change",
      flipped && "not as released",
      silenced && "silenced",
    ];
    button.setAttribute("aria-label", facts.filter(Boolean).join(", "));
    return changed;
  }
}

/**
 * Draw where a head looks, a pixel per query frame and key frame; each head is as bright as its own largest mass.
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} mass
 */
function drawMap(canvas, mass) {
  canvas.width = mass[0].length;
  canvas.height = mass.length;
  const pen = penOf(canvas);
  const peak = Math.max(1, ...mass.flat());
  mass.forEach((row, y) => {
    row.forEach((value, x) => {
      if (value === shared.gone) return;
      pen.fillStyle = `rgb(${cividis(value / peak)})`;
      pen.fillRect(x, y, 1, 1);
    });
  });
}

/** @param {number} score @returns {string} the more legible ink on its shade */
export const inkOn = (score) => (score > LIGHT ? "#000000" : "#ffffff");

/** @param {string} text of a row or column */
function label(text) {
  const node = document.createElement("span");
  node.textContent = text;
  node.setAttribute("aria-hidden", "true");
  return node;
}
