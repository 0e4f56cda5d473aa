// @ts-check
/** Records as the server sends them, for the tests. */

import { learn } from "../../assets/studio/shared.js";

/** @import { ChunkRecord, StreamRecord } from "../../assets/studio/protocol.js" */

export function learnFacts() {
  const kinds = ["sink", "anchor", "moved", "kept", "current", "dropped"];
  learn({
    kinds: kinds.map((key) => ({ key, name: key, pattern: "" })),
    stages: ["text", "rebuild", "denoise", "context", "decode"],
    unit: 10_000,
    gone: -1,
    rateChunks: 4,
    mostAhead: 40,
  });
}

/** @param {Partial<StreamRecord>} [own] @returns {StreamRecord} */
export function stream(own) {
  return /** @type {StreamRecord} */ ({
    policy: "full",
    hash: "abc",
    video_frames: 12,
    kv_bytes: 1e6,
    fps_denoise: 150,
    fps_end_to_end: 120,
    text_s: 0,
    rebuild_s: 0,
    denoise_s: 0.06,
    context_s: 0.02,
    decode_s: 0.02,
    xray: [],
    ...own,
  });
}

/** @param {number} index @param {Partial<ChunkRecord>} [own] @returns {ChunkRecord} */
export function chunk(index, own) {
  return {
    index,
    frame: 3 * index + 2,
    per_latent: 4,
    prompt: "a red ball",
    grid: [6, 10],
    events: [],
    streams: { A: stream() },
    ...own,
  };
}

/** @param {(ChunkRecord | null)[]} records @returns {import("../../assets/studio/playhead.js").Round[]} */
export function rounds(...records) {
  return records.map((record, number) => {
    return { number, file: number, start: 12 * number, frames: record ? 12 : 0, record };
  });
}
