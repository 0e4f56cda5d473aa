// @ts-check
/** Fetches each chunk's files, decodes them near the playhead and paints the canvas of every stream. */

import { Playhead } from "./playhead.js";
import { fetchFile } from "./files.js";

/** @import { Track } from "./playhead.js" */
/** @import { ChunkFile } from "./protocol.js" */
/** @typedef {Record<string, ImageBitmap[]>} Frames decoded frames of every stream */

const NEAR = 5; // chunks on either side of the playhead that stay decoded
export class Player extends Playhead {
  /** @type {Record<string, HTMLCanvasElement>} */
  screens = {};
  /** @type {Record<string, number>} frames painted of every stream */
  painted = { A: 0, B: 0 };
  /** @type {Map<number, Frames | Promise<Frames>>} decoded files, or their decoding */
  near = new Map();
  /** @type {Record<string, string>} chunk and frame that each canvas shows */
  shown = {};
  /** Files on the server, and those that were fetched. */
  files = 0;
  fetched = 0;
  busy = false;
  ticked = 0;

  /** @param {(key: string, number: number) => string} address of a chunk file */
  constructor(address) {
    super();
    this.address = address;
  }

  /** @param {Record<string, HTMLCanvasElement>} screens canvas of every stream, painted from now on */
  start(screens) {
    this.screens = screens;
    this.ticked = performance.now();
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
    Object.assign(this, { near: new Map(), shown: {}, files: 0, fetched: 0, busy: false });
    super.reset(key, fps, loop);
  }

  /** @param {(number: number) => boolean} which files to forget the decoded frames of */
  drop(which) {
    for (const [number, frames] of this.near) {
      if (!which(number)) continue;
      this.near.delete(number);
      Promise.resolve(frames).then(close);
    }
  }

  /** @param {number} files on the server; those that are not here yet are fetched in order */
  async advance(files) {
    this.files = Math.max(this.files, files);
    if (this.busy || this.key === null) return;
    this.busy = true;
    const key = this.key;
    for (; this.fetched < this.files; this.fetched += 1) {
      const file = await this.fetch(key, this.fetched);
      if (this.key !== key) return;
      if (file) this.add(file);
    }
    this.busy = false;
  }

  /**
   * @param {string} key
   * @param {number} number
   * @returns {Promise<ChunkFile | null>} null where the server no longer keeps it, or another run is shown
   */
  fetch(key, number) {
    return fetchFile(this.address(key, number), () => this.key === key);
  }

  /** @param {ChunkFile} file that was fetched */
  add(file) {
    this.append(file.record, performance.now(), this.fetched);
    if (this.nearby().has(this.fetched)) this.keep(this.fetched, decode(file));
    this.dispatchEvent(new Event("chunk"));
  }

  /** The files of the chunks around those that are shown. @returns {Set<number>} */
  nearby() {
    const rounds = Object.values(this.tracks).flatMap(({ at, rounds }) =>
      rounds.filter(({ number }) => Math.abs(number - at) <= NEAR),
    );
    return new Set(rounds.map(({ file }) => file));
  }

  /** @override @param {number} number */
  seek(number) {
    super.seek(number);
    this.tick(performance.now());
  }

  /** @param {number} now milliseconds */
  tick(now) {
    const elapsed = (now - this.ticked) / 1000;
    this.ticked = now;
    const tracks = Object.entries(this.tracks);
    if (!tracks.length) return;
    const waiting = tracks.filter(([name, track]) => !this.ready(name, track)).map(([name]) => name);
    this.paint(tracks.filter(([name]) => !waiting.includes(name)));
    this.play(elapsed, waiting);
    for (const [, { at, rounds }] of tracks) {
      const next = rounds[at + 1] ?? (this.loop ? rounds[0] : null);
      if (next && next.file >= 0 && !this.near.has(next.file)) this.refetch(next.file);
    }
  }

  /** Whether the frames of the chunk that is shown are decoded; those that are not are fetched once more. */
  ready(/** @type {string} */ name, /** @type {Track} */ { round }) {
    if (!round?.record?.streams[name] || round.file < 0) return true;
    const frames = this.near.get(round.file);
    if (frames === undefined) this.refetch(round.file);
    return frames !== undefined && !isComing(frames);
  }

  /** Whether the server no longer keeps the frames of the chunk that is shown. */
  get gone() {
    if (!this.round) return false;
    const frames = this.near.get(this.round.file);
    return this.round.file < 0 || (frames !== undefined && Object.keys(frames).length === 0 && !isComing(frames));
  }

  /** @param {number} number of a file to decode once more */
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
    const wanted = this.nearby();
    this.drop((other) => !wanted.has(other) && other !== number);
  }

  /** @param {[name: string, track: Track][]} tracks whose frames are decoded */
  paint(tracks) {
    let [anotherFrame, anotherChunk] = [false, false];
    for (const [name, { round, frame }] of tracks) {
      const [chunk, before] = [String(round?.number), this.shown[name] ?? ""];
      this.shown[name] = `${chunk}.${frame}`;
      if (this.shown[name] === before) continue;
      anotherFrame = true;
      anotherChunk ||= before.split(".")[0] !== chunk;
      const bitmaps = /** @type {Frames | undefined} */ (this.near.get(round?.file ?? -1))?.[name];
      const screen = this.screens[name];
      if (!screen) continue;
      if (bitmaps?.[frame]) copyTo(screen, bitmaps[frame]);
      else screen.getContext("2d")?.clearRect(0, 0, screen.width, screen.height); // not the picture of another chunk
      this.painted[name] += Number(Boolean(bitmaps?.[frame]));
    }
    if (anotherFrame) this.dispatchEvent(new Event("frame"));
    if (anotherChunk) this.dispatchEvent(new Event("chunk"));
  }
}

/** Whether frames are still being decoded. */
const isComing = (/** @type {Frames | Promise<Frames>} */ frames) => frames instanceof Promise;

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
