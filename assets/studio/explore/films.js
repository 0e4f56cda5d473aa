// @ts-check
/** The frames of nodes, and canvases that play them in a loop. */

import { ROOT } from "../dom.js";
import { fetchFile } from "../files.js";

/** The JPEGs of the nodes of one tree, fetched once. */
export class Films {
  /** @param {string} key of the run */
  constructor(key) {
    this.key = key;
    /** Whether another tree is shown by now. */
    this.left = false;
    /** @type {Map<number, Promise<Uint8Array[]>>} */
    this.nodes = new Map();
  }

  /** @param {number} number @returns {Promise<Uint8Array[]>} none where the server no longer keeps them */
  of(number) {
    let frames = this.nodes.get(number);
    if (!frames) {
      frames = this.fetch(number);
      this.nodes.set(number, frames);
    }
    return frames;
  }

  /** @param {number} number */
  async fetch(number) {
    const file = await fetchFile(`${ROOT}stage/${this.key}/${number}`, () => !this.left);
    return file?.jpegs ?? [];
  }

  /** @param {number[]} numbers @returns {Promise<Uint8Array[]>} the frames of several nodes, one after the other */
  async along(numbers) {
    return (await Promise.all(numbers.map((number) => this.of(number)))).flat();
  }
}

/** @param {HTMLCanvasElement} canvas @param {Uint8Array | undefined} jpeg */
export async function paint(canvas, jpeg) {
  if (!jpeg) return;
  const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (jpeg)], { type: "image/jpeg" }));
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  bitmap.close();
}

/** Plays frames on several canvases at once, on one clock, in a loop. */
export class Loop {
  /** @type {[HTMLCanvasElement, Uint8Array[]][]} */
  films = [];
  at = 0;
  playing = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  painted = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  timer = undefined;

  /** @param {[HTMLCanvasElement, Uint8Array[]][]} films @param {number} fps */
  play(films, fps) {
    this.stop();
    this.films = films;
    this.at = 0;
    this.show();
    this.timer = setInterval(() => {
      if (!this.playing || films[0]?.[0].offsetParent === null) return;
      this.at += 1;
      this.show();
    }, 1000 / fps);
  }

  stop() {
    clearInterval(this.timer);
    this.films = [];
  }

  show() {
    for (const [canvas, frames] of this.films) {
      if (frames.length) void paint(canvas, frames[this.at % frames.length]);
    }
    this.painted += 1;
  }
}
