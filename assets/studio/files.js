// @ts-check
/** Fetches chunk files. */

import { parse } from "./protocol.js";

/** @import { ChunkFile } from "./protocol.js" */

const WAITS = [0, 200, 600, 1500]; // milliseconds before each attempt; the last before all later ones
const GONE = [404, 410];

/**
 * Fetch a chunk file, again and again while the network or the server fails.
 * @param {string} address
 * @param {() => boolean} wanted whether it still is
 * @returns {Promise<ChunkFile | null>} null where the server does not keep it, or nobody wants it any more
 */
export async function fetchFile(address, wanted) {
  for (let attempt = 0; wanted(); attempt += 1) {
    await new Promise((done) => setTimeout(done, WAITS[Math.min(attempt, WAITS.length - 1)]));
    try {
      const answer = await fetch(address);
      if (GONE.includes(answer.status)) return null;
      if (answer.ok) return parse(await answer.arrayBuffer());
    } catch {
      // the network failed
    }
  }
  return null;
}
