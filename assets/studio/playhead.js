// @ts-check
/** Which chunk and frame are shown, and how fast time passes: the pure half of the player. */

import { secondsOf } from "./protocol.js";

/** @import { ChunkRecord } from "./protocol.js" */

/**
 * A chunk of a run; `record` is null where the server no longer keeps it.
 * @typedef {{ number: number, start: number, frames: number, record: ChunkRecord | null }} Round
 */

const SPARE = 5; // frames that should be left when the next chunk arrives
const STALL = 0.25; // seconds at most that one step of the clock counts
const CATCH_UP = 1.15; // how much faster than its own rate a live stream may play

/**
 * Plays chunks that arrive at an uneven pace, on one clock for all streams.
 *
 * Dispatches `reset` (another run), `chunk` (another chunk is shown, or a new one arrived) and `frame` (another frame
 * is shown).
 */
export class Playhead extends EventTarget {
  /** @type {string | null} run that is played */
  key = null;
  /** Frames per second of the video. */
  fps = 16;
  /** @type {Round[]} */
  rounds = [];
  /** Chunks that are on the server. */
  wanted = 0;
  /** Number of the chunk that is shown. */
  at = 0;
  /** Frame within this chunk; its fraction is time. */
  offset = 0;
  /** Whether the frame stands still. */
  held = false;
  /** Whether a finished run is played over and over. */
  loop = false;
  /** Whether no more chunks will come. */
  ended = false;
  /** Whether the newest chunk is shown, not one that was sought. */
  following = true;
  /** @type {number | null} frames per second at which chunks arrive */
  rate = null;
  /** Frames per second at which a live stream is shown. */
  pace = 16;
  /** @type {number | null} when the newest chunk arrived, in milliseconds */
  arrived = null;

  /**
   * Begin with another run.
   * @param {string | null} key
   * @param {number} fps
   * @param {boolean} loop whether the run is a finished one that is played from its start over and over
   */
  reset(key, fps, loop = false) {
    this.key = key;
    this.fps = fps;
    this.rounds = [];
    this.wanted = 0;
    this.at = 0;
    this.offset = 0;
    this.held = false;
    this.loop = loop;
    this.ended = loop;
    this.following = !loop;
    this.rate = null;
    this.pace = fps;
    this.arrived = null;
    this.dispatchEvent(new Event("reset"));
  }

  /** Frames of all chunks so far. */
  get total() {
    const last = this.rounds.at(-1);
    return last ? last.start + last.frames : 0;
  }

  /** Frame that is shown, counted from the start of the run. */
  get position() {
    const round = this.rounds[this.at];
    return round ? round.start + this.offset : 0;
  }

  /** @returns {Round | null} the chunk that is shown */
  get round() {
    return this.rounds[this.at] ?? null;
  }

  /** @returns {ChunkRecord | null} record of the newest chunk that has one */
  get newest() {
    return this.rounds.findLast((round) => round.record)?.record ?? null;
  }

  /**
   * Append the next chunk of the run; a live stream that has fallen behind jumps to it.
   * @param {ChunkRecord | null} record
   * @param {number} now milliseconds
   */
  append(record, now) {
    const number = this.rounds.length;
    const start = this.total;
    if (!record) {
      this.rounds.push({ number, start, frames: 0, record });
      return;
    }
    const frames = Object.values(record.streams)[0].video_frames;
    this.rounds.push({ number, start, frames, record });
    this.setPace(frames, secondsOf(record), now);
    const hidden = this.following && this.total - this.position > 4 * frames + SPARE; // the tab was in the background
    if (!hidden) return;
    this.at = number - 1;
    this.offset = 0;
  }

  /**
   * Play as fast as chunks arrive, slower while few frames are left and faster while many are.
   * @param {number} frames of the chunk that arrived
   * @param {number} seconds that it took
   * @param {number} now milliseconds
   */
  setPace(frames, seconds, now) {
    const between = this.arrived !== null && !this.held ? (now - this.arrived) / 1000 : seconds;
    const measured = frames / between;
    this.rate = this.rate === null ? measured : 0.6 * this.rate + 0.4 * measured;
    this.arrived = now;
    const surplus = (this.total - this.position - frames - SPARE) / frames;
    this.pace = Math.min(CATCH_UP * this.fps, Math.max(1, this.rate * (1 + 0.5 * surplus)));
  }

  /** @param {boolean} held whether the frame stands still */
  hold(held) {
    if (this.held && !held) this.arrived = null;
    this.held = held;
  }

  /** @param {number} number of an earlier chunk, from which to play on unless the frame is held */
  seek(number) {
    if (!this.rounds.length) return;
    this.at = Math.max(0, Math.min(this.rounds.length - 1, number));
    this.offset = 0;
    this.following = false;
  }

  /** Show the newest chunk and those that come. */
  follow() {
    if (!this.rounds.length) return;
    this.following = true;
    this.at = this.rounds.length - 1;
    this.offset = this.ended ? Math.max(0, this.rounds[this.at].frames - 1) : 0;
  }

  /** Frame of the shown chunk, a whole number. */
  get frame() {
    return Math.max(0, Math.min((this.round?.frames ?? 1) - 1, Math.floor(this.offset)));
  }

  /** @param {number} elapsed seconds of the clock; the frame moves on by at most `STALL` */
  play(elapsed) {
    if (this.held) return;
    const live = this.following && !this.ended;
    this.offset += Math.min(STALL, elapsed) * (live ? this.pace : this.fps);
    while (this.offset >= this.rounds[this.at].frames) {
      if (this.at + 1 === this.rounds.length) {
        this.atEnd();
        return;
      }
      this.offset -= this.rounds[this.at].frames;
      this.at += 1;
    }
  }

  /** Start over where a whole recording is looped; else wait at the last frame. */
  atEnd() {
    if (this.loop && this.rounds.length === this.wanted) {
      this.at = 0;
      this.offset = 0;
      return;
    }
    this.offset = Math.max(0, this.rounds[this.at].frames - 1e-3);
    this.following = !this.loop;
  }
}

/**
 * The last latent frame of a chunk covers its last `per_latent` video frames, and so on backwards.
 *
 * @param {Round & { record: ChunkRecord }} round
 * @param {number} frame video frame of the chunk
 * @returns {number} latent frame of the run
 */
export function latentFrame(round, frame) {
  const back = Math.floor((round.frames - 1 - frame) / round.record.per_latent);
  return Math.max(0, round.record.frame - back);
}
