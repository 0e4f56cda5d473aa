// @ts-check
/** Fetches each chunk's file, decodes it near the playhead and paints both canvases on one clock. */

import { Playhead } from "./playhead.js";
import { parse } from "./protocol.js";

/** @import { Round } from "./playhead.js" */
/** @import { ChunkFile } from "./protocol.js" */
/** @typedef {Record<string, ImageBitmap[]>} Frames decoded frames of every stream */

const NEAR = 5; // chunks on either side of the playhead that stay decoded
const RETRIES = [0, 200, 600, 1500]; // milliseconds before each attempt to fetch

export class Player extends Playhead {
  /** @type {Record<string, HTMLCanvasElement>} */
  screens = {};
  /** @type {Record<string, number>} frames painted of every stream */
  painted = { A: 0, B: 0 };
  /** @type {Map<number, Frames | Promise<Frames>>} decoded chunks, or their decoding */
  near = new Map();
  /** @type {{ chunk: number, frame: number } | null} what the canvases show */
  shown = null;
  busy = false;
  last = 0;

  /** @param {(key: string, number: number) => string} address of a chunk file */
  constructor(address) {
    super();
    this.address = address;
  }

  /** @param {Record<string, HTMLCanvasElement>} screens canvas of every stream, painted from now on */
  start(screens) {
    this.screens = screens;
    this.last = performance.now();
    /** @type {FrameRequestCallback} */
    const tick = (now) => {
      this.tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** @override @param {string | null} key @param {number} fps @param {boolean} loop */
  reset(key, fps, loop = false) {
    this.drop(() => true);
    Object.assign(this.painted, { A: 0, B: 0 });
    this.near = new Map();
    this.busy = false;
    this.shown = null;
    super.reset(key, fps, loop);
  }

  /** @param {(number: number) => boolean} which chunks to forget the decoded frames of */
  drop(which) {
    for (const [number, frames] of this.near) {
      if (!which(number)) continue;
      this.near.delete(number);
      Promise.resolve(frames).then(close);
    }
  }

  /** @param {number} count chunks on the server; those that are not here yet are fetched in order */
  async advance(count) {
    this.wanted = Math.max(this.wanted, count);
    if (this.busy || this.key === null) return;
    this.busy = true;
    const key = this.key;
    while (this.key === key && this.rounds.length < this.wanted) {
      const file = await this.fetch(key, this.rounds.length);
      if (this.key !== key) return;
      this.add(file);
    }
    this.busy = false;
  }

  /**
   * @param {string} key
   * @param {number} number
   * @returns {Promise<ChunkFile | null>} null where the server no longer keeps it
   */
  async fetch(key, number) {
    for (const wait of RETRIES) {
      await new Promise((done) => setTimeout(done, wait));
      try {
        const answer = await fetch(this.address(key, number));
        if (answer.status === 404) return null;
        if (answer.ok) return parse(await answer.arrayBuffer());
      } catch {
        // the network failed; try again
      }
    }
    return null;
  }

  /** @param {ChunkFile | null} file of the next chunk */
  add(file) {
    const number = this.rounds.length;
    this.append(file?.record ?? null, performance.now());
    if (!file) return;
    if (Math.abs(number - this.at) <= NEAR) this.keep(number, decode(file));
    this.dispatchEvent(new Event("chunk"));
  }

  /** @override @param {number} number */
  seek(number) {
    super.seek(number);
    this.tick(performance.now());
  }

  /** @param {number} now milliseconds */
  tick(now) {
    const elapsed = (now - this.last) / 1000;
    this.last = now;
    const { round } = this;
    if (!round) return;
    const frames = this.near.get(round.number);
    if (frames === undefined && round.record) {
      this.refetch(round.number);
      return;
    }
    if (frames instanceof Promise) return;
    this.paint(round, frames ?? {});
    this.play(elapsed);
    const next = this.rounds[this.at + 1] ?? (this.loop ? this.rounds[0] : null);
    if (next?.record && !this.near.has(next.number)) this.refetch(next.number);
  }

  /** @param {number} number of a chunk to decode once more */
  refetch(number) {
    if (this.key === null) return;
    this.keep(
      number,
      this.fetch(this.key, number).then((file) => (file ? decode(file) : {})),
    );
  }

  /** @param {number} number @param {Promise<Frames>} coming */
  keep(number, coming) {
    const { near } = this;
    near.set(number, coming);
    coming.then((frames) => {
      if (near.get(number) === coming) near.set(number, frames);
    });
    this.drop((other) => Math.abs(other - this.at) > NEAR && other !== number);
  }

  /** @param {Round} round @param {Frames} frames */
  paint(round, frames) {
    const { frame } = this;
    const before = this.shown;
    if (before && before.chunk === round.number && before.frame === frame) return;
    this.shown = { chunk: round.number, frame };
    for (const [name, bitmaps] of Object.entries(frames)) {
      const canvas = this.screens[name];
      if (canvas && bitmaps[frame]) {
        copyTo(canvas, bitmaps[frame]);
        this.painted[name] += 1;
      }
    }
    this.dispatchEvent(new Event("frame"));
    if (before?.chunk !== round.number) this.dispatchEvent(new Event("chunk"));
  }
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} bitmap */
function copyTo(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
}

/** @param {Frames} frames to free */
function close(frames) {
  for (const bitmap of Object.values(frames).flat()) bitmap.close();
}

/** @param {ChunkFile} file @returns {Promise<Frames>} */
async function decode({ record, jpegs }) {
  const bitmaps = await Promise.all(
    jpegs.map((bytes) => createImageBitmap(new Blob([/** @type {BlobPart} */ (bytes)], { type: "image/jpeg" }))),
  );
  /** @type {Frames} */
  const frames = {};
  for (const [name, stream] of Object.entries(record.streams)) frames[name] = bitmaps.splice(0, stream.video_frames);
  return frames;
}
