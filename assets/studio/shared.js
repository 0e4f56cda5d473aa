// @ts-check
/** Constants that Python and the page both know: `learn` takes them from the server when a part of the page is mounted. */

/**
 * Why a page of the cache is there.
 * @typedef {{ letter: string, name: string, colour: string }} PageKind colour: a CSS variable
 */

export const shared = {
  /** @type {Record<string, PageKind>} */
  kinds: {
    sink: { letter: "S", name: "sink", colour: "--fkv-sink" },
    anchor: { letter: "A", name: "anchor frame", colour: "--fkv-anchor" },
    moved: { letter: "M", name: "moved most, kept by dynamic heads", colour: "--fkv-dynamic" },
    kept: { letter: "K", name: "kept by all its heads", colour: "--fkv-kept" },
    current: { letter: "C", name: "current chunk", colour: "--fkv-current" },
    dropped: { letter: "×", name: "dropped", colour: "--fkv-dropped" },
  },
  /** Stages of a chunk in the order in which they run. @type {string[]} */
  stages: [],
  /** Attention masses travel as integers, in units of 1 / `unit`. */
  unit: 1,
  /** Stands for the mass of a frame that is not cached. */
  gone: -1,
  /** The large FPS figures are means over this many chunks. */
  rateChunks: 1,
};

/** @param {Partial<typeof shared> | undefined} facts */
export function learn(facts) {
  Object.assign(shared, facts);
}
