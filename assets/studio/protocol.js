// @ts-check
/** Chunk files: their binary form and what their records hold. */

import { shared } from "./shared.js";

/**
 * Bit mask over the segments of a frame; in numbers of `MASK_BITS` bits, lowest first, where one is not enough.
 * @typedef {number | number[]} SegmentMask
 */

/**
 * Frames `first` to `last` of a head group; bit i of `cached` is set where segment i was attended.
 * @typedef {[first: number, last: number, kind: string, cached: SegmentMask]} PageRun
 */

/**
 * Page table of a head group.
 * @typedef {object} GroupPages
 * @property {string} name
 * @property {number} heads
 * @property {number} segments
 * @property {PageRun[]} runs
 * @property {[first: number, last: number, position: number][]} [positions] frames that are read elsewhere in RoPE than
 *   at their number; `position` is that of the first
 * @property {number[]} [edited] frames with content that the policy has changed
 */

const MASK_BITS = 30; // as in fkv/xray.py

/** @param {SegmentMask} cached @param {number} segment @returns {boolean} */
export function isCached(cached, segment) {
  const word = typeof cached === "number" ? cached : cached[Math.floor(segment / MASK_BITS)];
  return ((word >> (segment % MASK_BITS)) & 1) === 1;
}

/** @param {GroupPages} group @param {number} frame @returns {number} where the frame sits in RoPE when it is read */
export function positionOf(group, frame) {
  const row = group.positions?.find(([first, last]) => first <= frame && frame <= last);
  return row ? row[2] + frame - row[0] : frame;
}

/**
 * One stream's figures of a chunk; `${stage}_s` are seconds. `xray` is its page tables in the last denoising pass, and
 * `passes` those of each pass, null where they are the same; `rows` streams of all visitors were computed together.
 * @typedef {{
 *   policy: string, hash: string, video_frames: number, kv_bytes: number, fps_denoise: number, fps_end_to_end: number,
 *   xray: GroupPages[], passes?: Record<string, GroupPages[] | null>, rows?: number,
 * } & Record<`${string}_s`, number>} StreamRecord
 */

/** @typedef {[frame: number, rows: number[][]]} PatchMap mass of one query patch on every patch of a key frame */

/** @typedef {(number | null)[][]} Shares of pages that both read, among those that one or the other reads */

/**
 * How far choices of pages agree in a chunk.
 * @typedef {object} Choices
 * @property {string[]} passes
 * @property {Shares} layers of each two layers
 * @property {Shares} steps of each two passes
 */

/**
 * Where the heads of one stream looked in a chunk.
 * @typedef {object} Attention
 * @property {string} stream
 * @property {string} pass which pass of the chunk
 * @property {number[]} frames query frames
 * @property {number[]} key_frames
 * @property {Record<string, string[]>} kinds by head group: why the pages of each key frame are there
 * @property {string[][]} groups [layer][head] head group
 * @property {number[][][][]} mass [layer][head][query frame][key frame]
 * @property {(number | null)[][]} scores [layer][head]
 * @property {{ layer: number, head: number, row: number, col: number, frame: number }} focus the query patch of `maps`
 * @property {PatchMap[]} maps
 * @property {number[][] | null} static static heads of each layer
 * @property {number | null} threshold
 * @property {{ static: number[], dynamic: number[] } | null} cost bytes of a head of either role in each layer
 * @property {Choices | null} [overlap] where heads choose what they read
 */

/**
 * What a chunk file tells besides its frames.
 * @typedef {object} ChunkRecord
 * @property {number} index from 0
 * @property {number} frame last latent frame of the chunk
 * @property {number} per_latent video frames per latent frame
 * @property {string} prompt
 * @property {[rows: number, cols: number]} grid patches of a latent frame
 * @property {string[]} events
 * @property {Record<string, StreamRecord>} streams the past of a branch has A alone
 * @property {string[]} [later] streams that will have the chunk later, in another file
 * @property {string} [branch] how B leaves A with this chunk
 * @property {{ drift: Record<string, number>, psnr?: number | null }} [quality] drift of every stream's colours, in
 *   [0, 1]; PSNR between two streams in dB, null where they are equal
 * @property {Attention} [heads]
 * @property {Attention} [beside] of the same head in the other stream
 */

/** @typedef {{ record: ChunkRecord, jpegs: Uint8Array[] }} ChunkFile */

/**
 * Take a chunk file apart: parts of uint32 length and bytes; the record first, then the JPEGs of every stream.
 * @param {ArrayBuffer} buffer
 * @returns {ChunkFile}
 */
export function parse(buffer) {
  const view = new DataView(buffer);
  const parts = [];
  for (let at = 0; at < buffer.byteLength;) {
    const size = view.getUint32(at, true);
    parts.push(new Uint8Array(buffer, at + 4, size));
    at += 4 + size;
  }
  return { record: JSON.parse(new TextDecoder().decode(parts[0])), jpegs: parts.slice(1) };
}

/** @param {StreamRecord} record @param {string} pass "" for the last denoising pass @returns {GroupPages[]} */
export const tablesIn = (record, pass) => record.passes?.[pass] ?? record.xray;

/**
 * @param {StreamRecord[]} records
 * @returns {[name: string, differs: boolean][]} the passes of a chunk, and whether a stream reads otherwise in them
 *   than in the last denoising pass
 */
export function passesOf(records) {
  const names = new Set(records.flatMap((record) => Object.keys(record.passes ?? {})));
  return [...names].map((name) => [name, records.some((record) => Boolean(record.passes?.[name]))]);
}

/**
 * @param {StreamRecord} record
 * @returns {[stage: string, milliseconds: number][]}
 */
export function stageTimes(record) {
  return shared.stages.map((stage) => [stage, 1000 * record[`${stage}_s`]]);
}

/** @param {ChunkRecord} record @returns {string[]} names of the streams, also of those that have the chunk later */
export const streamsOf = ({ streams, later = [] }) => [...Object.keys(streams), ...later].sort();

/** @param {ChunkRecord} record @returns {number} video frames of the chunk */
export const framesOf = ({ streams }) => Object.values(streams)[0].video_frames;

/**
 * Put what another file tells of a chunk into its record, as protocol.py does.
 * @param {ChunkRecord} record
 * @param {ChunkRecord} later
 */
export function merged(record, later) {
  const streams = Object.entries({ ...record.streams, ...later.streams }).sort(([a], [b]) => (a < b ? -1 : 1));
  const quality = { ...later.quality, drift: { ...record.quality?.drift, ...later.quality?.drift } };
  delete record.later;
  return Object.assign(record, later, { streams: Object.fromEntries(streams), quality });
}

/**
 * @param {ChunkRecord} record
 * @returns {number} seconds that all streams of a chunk took
 */
export function secondsOf(record) {
  const times = Object.values(record.streams).flatMap(stageTimes);
  return times.reduce((sum, [, milliseconds]) => sum + milliseconds, 0) / 1000;
}
