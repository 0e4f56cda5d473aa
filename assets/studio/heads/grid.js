// @ts-check
/** The grid of heads: one button per head with its score and role. */

import { cividis } from "../colours.js";
import { arrowStep, find, write } from "../dom.js";
import { isStatic } from "./state.js";

/** @import { HeadsState } from "./state.js" */

const LIGHT = 0.44; // score from which on black is more legible on its shade than white
const DENSE = 16; // heads in a row from which on cells show no numbers

export class Grid {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.grid = find(tab, ".fkv-grid");
    this.counts = { static: find(tab, '[data-count="static"]'), dynamic: find(tab, '[data-count="dynamic"]') };
    this.changing = find(tab, ".fkv-changing");
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
    button.append(document.createElement("b"), document.createElement("span"));
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
    const { roles, applied, facts } = this.state;
    const changes = this.state.everyHead((layer, head) => this.paintCell(layer, head)).flat();
    const count = roles?.reduce((sum, row) => sum + row.length, 0) ?? null;
    write(this.counts.static, count === null ? "–" : String(count));
    write(this.counts.dynamic, count === null ? "–" : String(facts.layers * facts.heads - count));
    this.changing.style.visibility = roles && applied && changes.some(Boolean) ? "" : "hidden";
  }

  /** @param {number} layer @param {number} head @returns {boolean} whether the head's role would change */
  paintCell(layer, head) {
    const { state } = this;
    const { roles, applied, chosen } = state;
    const button = this.buttons[layer][head];
    const score = state.scores?.[layer][head] ?? null;
    const unused = state.ignoresRoles(layer);
    const role = roles ? (isStatic(roles, layer, head) ? "static" : "dynamic") : "";
    const changed = Boolean(roles) && isStatic(roles, layer, head) !== isStatic(applied, layer, head);
    const selected = layer === chosen.layer && head === chosen.head;
    button.style.background = score === null ? "" : `rgb(${cividis(score)})`;
    button.style.color = score === null ? "" : score > LIGHT ? "#000" : "#fff";
    button.dataset.role = role;
    button.dataset.changed = String(changed);
    button.dataset.unused = String(unused);
    button.title = unused ? "Roles are not used in this layer: all its heads keep the same frames" : "";
    write(find(button, "b"), role.charAt(0).toUpperCase());
    write(find(button, "span"), score === null ? "–" : score >= 0.995 ? "1.0" : score.toFixed(2).slice(1));
    button.setAttribute("aria-pressed", String(selected));
    if (selected && !this.grid.contains(document.activeElement)) this.makeTabStop(button);
    const scored = score === null ? "no score" : `score ${score.toFixed(2)}`;
    const facts = [`layer ${layer}, head ${head}`, role, scored, changed ? "would change" : ""];
    button.setAttribute("aria-label", facts.filter(Boolean).join(", "));
    return changed;
  }
}

/** @param {string} text of a row or column */
function label(text) {
  const node = document.createElement("span");
  node.textContent = text;
  node.setAttribute("aria-hidden", "true");
  return node;
}
