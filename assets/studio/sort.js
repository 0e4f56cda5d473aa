// @ts-check
/** Tables of Compare are sorted by the column whose heading is pressed: first the largest value, then the smallest;
 * names from A to Z first. */

import { findAll } from "./dom.js";

export function sortTables() {
  document.addEventListener("click", ({ target }) => {
    const heading = /** @type {Element} */ (target).closest?.(".fkv-table thead th");
    if (heading) sortBy(/** @type {HTMLTableCellElement} */ (heading));
  });
}

/** @param {HTMLTableCellElement} heading */
function sortBy(heading) {
  const table = /** @type {HTMLTableElement} */ (heading.closest("table"));
  const cells = findAll(table, `tbody tr > :nth-child(${heading.cellIndex + 1})`);
  const [first, then] = cells.some(isNumber) ? ["descending", "ascending"] : ["ascending", "descending"];
  const order = heading.getAttribute("aria-sort") === first ? then : first;
  for (const other of findAll(table, "thead th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  arrange(table);
}

/**
 * Put rows into the order that a heading says, if one does.
 * @param {HTMLTableElement} table
 */
export function arrange(table) {
  const heading = /** @type {HTMLTableCellElement | null} */ (table.querySelector("thead [aria-sort]"));
  if (!heading) return;
  const down = heading.getAttribute("aria-sort") === "descending";
  const cell = (/** @type {Element} */ row) => /** @type {HTMLElement} */ (row.children[heading.cellIndex]);
  const rows = /** @type {HTMLTableRowElement[]} */ (findAll(table, "tbody tr"));
  rows.sort((a, b) => (down ? -1 : 1) * compare(cell(a), cell(b)));
  table.tBodies[0].append(...rows);
}

/** Whether a cell holds a number, known or not. */
const isNumber = (/** @type {HTMLElement} */ cell) => cell.dataset.value !== undefined;

/**
 * Numbers by their value, unknown ones below all others; names by the alphabet.
 * @param {HTMLElement} a
 * @param {HTMLElement} b
 */
function compare(a, b) {
  if (!isNumber(a) || !isNumber(b)) return (a.textContent ?? "").localeCompare(b.textContent ?? "");
  const [x, y] = [a, b].map(({ dataset }) => (dataset.value === "" ? -Infinity : Number(dataset.value)));
  return x === y ? 0 : x < y ? -1 : 1;
}
