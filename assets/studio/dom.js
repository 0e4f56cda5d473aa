// @ts-check
/** Find and write parts of the page. */

/** Address of the studio, ending in a slash; this module is served below it as `fkv/dom.js`. */
export const ROOT = new URL("..", import.meta.url).href;

/**
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} within
 * @param {string} selector
 * @returns {T} the first match; an Error where the page has none
 */
export function find(within, selector) {
  const node = within.querySelector(selector);
  if (!node) throw new Error(`the page has no ${selector}`);
  return /** @type {any} */ (node);
}

/**
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} within
 * @param {string} selector
 * @returns {T[]}
 */
export function findAll(within, selector) {
  return /** @type {any} */ ([...within.querySelectorAll(selector)]);
}

/** @type {(within: ParentNode, selector: string) => HTMLCanvasElement} */
export const findCanvas = (within, selector) => find(within, selector);

/** @type {(within: ParentNode, selector: string) => HTMLInputElement} */
export const findInput = (within, selector) => find(within, selector);

/** @type {(within: ParentNode, selector: string) => HTMLButtonElement} */
export const findButton = (within, selector) => find(within, selector);

/**
 * Write a text only where it changed, so that screen readers announce it once.
 * @param {Element} node
 * @param {string} text
 */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const FIGURES = /, [AB] at chunk \d+|\d+/g; // what changes with every chunk

/**
 * Write a status; screen readers hear it unless only its figures have changed.
 * @param {Element} node
 * @param {string} text
 */
export function writeStatus(node, text) {
  const words = (/** @type {string | null} */ said) => (said ?? "").replace(FIGURES, "");
  node.setAttribute("aria-live", words(text) === words(node.textContent) ? "off" : "polite");
  write(node, text);
}

/**
 * @param {string} name of an SVG element
 * @param {Record<string, string>} [attributes]
 * @returns {SVGElement}
 */
export function svg(name, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}

/**
 * Call `redraw` when the size of an element or the theme of the page changes.
 * @param {Element} element
 * @param {() => void} redraw
 */
export function onLayout(element, redraw) {
  new ResizeObserver(redraw).observe(element);
  onTheme(redraw);
}

/** @param {() => void} redraw called when the page turns light or dark, or enters or leaves talk mode */
export function onTheme(redraw) {
  new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
}

/** @type {Record<string, [rows: number, columns: number]>} */
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * Handle an arrow key and keep it from scrolling the page and from the page's shortcuts.
 * @param {KeyboardEvent} event
 * @returns {[rows: number, columns: number] | null} the step; null for any other key
 */
export function arrowStep(event) {
  const step = ARROWS[event.key];
  if (!step) return null;
  event.preventDefault();
  event.stopPropagation();
  return step;
}
