// @ts-check
/** Constants shared with Python; the server sends them when a part of the page is mounted (`page_facts`). */

/**
 * Purpose of a cache page.
 * @typedef {{ key: string, name: string, pattern: string }} PageKind
 */

/**
 * @typedef {object} PageFacts
 * @property {PageKind[]} kinds in the order of legends
 * @property {string[]} stages of a chunk, in the order in which they run
 * @property {number} unit attention masses travel as integers, in units of 1 / `unit`
 * @property {number} gone stands for the mass of a frame that is not cached
 * @property {number} rateChunks the large FPS figures are means over this many chunks
 * @property {number} mostAhead chunks by which a stream may be ahead of the other one
 */

export const shared = {
  /** @type {PageFacts["stages"]} */
  stages: [],
  unit: 1,
  gone: -1,
  rateChunks: 1,
  mostAhead: Infinity,
  /** @type {Record<string, PageKind>} by key */
  kinds: {},
};

/** @param {PageFacts} facts */
export function learn({ kinds, ...others }) {
  Object.assign(shared, others, { kinds: Object.fromEntries(kinds.map((kind) => [kind.key, kind])) });
}

/** @param {string} kind @returns {string} CSS variable of its colour */
export const kindColour = (kind) => `--fkv-kind-${kind}`;
