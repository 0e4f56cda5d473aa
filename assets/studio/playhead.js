// @ts-check
/** Which chunk and frame of every stream are shown, and how fast time passes: the pure half of the player. */

import { framesOf, merged, secondsOf } from "./protocol.js";

/** @import { ChunkRecord } from "./protocol.js" */

/**
 * A chunk of a stream; `file` is the number of the file that holds it, and `record`, which its streams share, is null
 * where the server no longer keeps it.
 * @typedef {{ number: number, file: number, start: number, frames: number, record: ChunkRecord | null }} Round
 */

const SPARE = 5; // frames that should be left when the next chunk arrives
const STALL = 0.25; // seconds at most that one step of the clock counts
const CATCH_UP = 1.15; // how much faster than its own rate a live stream may play

/** One stream of a run: its chunks, which arrive at an uneven pace, and where it is shown. */
export class Track {
  /** @type {Round[]} */
  rounds = [];
  /** Number of the chunk that is shown. */
  at = 0;
  /** Frame within this chunk; its fraction is time. */
  offset = 0;
  /** @type {number | null} frames per second at which chunks arrive */
  rate = null;
  /** @type {number | null} when the newest chunk arrived, in milliseconds */
  arrived = null;

  /** @param {Playhead} clock */
  constructor(clock) {
    this.clock = clock;
    /** Whether the newest chunk is shown, not one that was sought. */
    this.following = !clock.loop;
    /** Frames per second at which it is shown while it is live. */
    this.pace = clock.fps;
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

  /** Frame of the shown chunk, a whole number. */
  get frame() {
    return Math.max(0, Math.min((this.round?.frames ?? 1) - 1, Math.floor(this.offset)));
  }

  /** The latent frame that is shown. @returns {number | null} */
  get latentFrame() {
    const { frame, round } = this;
    return round?.record ? latentFrame({ frames: round.frames, record: round.record }, frame) : null;
  }

  /** @returns {ChunkRecord | null} record of the newest chunk that has one */
  get newest() {
    return this.rounds.findLast((round) => round.record)?.record ?? null;
  }

  /**
   * Append a chunk; a live stream that has fallen behind jumps to it.
   * @param {ChunkRecord} record
   * @param {number} file
   * @param {number} seconds that it took
   * @param {number} now milliseconds
   */
  append(record, file, seconds, now) {
    const frames = framesOf(record);
    this.rounds.push({ number: this.rounds.length, file, start: this.total, frames, record });
    this.setPace(frames, seconds, now);
    const hidden = this.following && this.total - this.position > 4 * frames + SPARE; // the tab was in the background
    if (!hidden) return;
    this.at = this.rounds.length - 2;
    this.offset = 0;
  }

  /** Pass over a chunk that does not come. @param {ChunkRecord | null} record of the other stream */
  skip(record) {
    const frames = record ? framesOf(record) : 0;
    this.rounds.push({ number: this.rounds.length, file: -1, start: this.total, frames, record });
  }

  /** Go on from where another stream is, which has been both until now. @param {Track} other */
  join({ at, offset, rate, arrived, pace, following }) {
    Object.assign(this, { at: Math.min(at, this.rounds.length - 1), offset, rate, arrived, pace, following });
  }

  /**
   * Play as fast as chunks arrive, slower while few frames are left and faster while many are.
   * @param {number} frames of the chunk that arrived
   * @param {number} seconds that it took
   * @param {number} now milliseconds
   */
  setPace(frames, seconds, now) {
    const between = this.arrived !== null && !this.clock.held ? (now - this.arrived) / 1000 : seconds;
    const measured = frames / between;
    this.rate = this.rate === null ? measured : 0.6 * this.rate + 0.4 * measured;
    this.arrived = now;
    const surplus = (this.total - this.position - frames - SPARE) / frames;
    this.pace = Math.min(CATCH_UP * this.clock.fps, Math.max(1, this.rate * (1 + 0.5 * surplus)));
  }

  /** @param {number} number of an earlier chunk, from which to play on unless the frame is held */
  seek(number) {
    this.at = Math.max(0, Math.min(this.rounds.length - 1, number));
    this.offset = 0;
    this.following = false;
  }

  /** Show the newest chunk and those that come. */
  follow() {
    this.following = true;
    this.at = this.rounds.length - 1;
    this.offset = this.clock.ended ? Math.max(0, this.rounds[this.at].frames - 1) : 0;
  }

  /** @param {number} elapsed seconds of the clock; the frame moves on by at most `STALL` */
  play(elapsed) {
    const live = this.following && !this.clock.ended;
    this.offset += Math.min(STALL, elapsed) * (live ? this.pace : this.clock.fps);
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
    const { loop, wanted } = this.clock;
    if (loop && this.rounds.length === wanted) {
      this.at = 0;
      this.offset = 0;
      return;
    }
    this.offset = Math.max(0, this.rounds[this.at].frames - 1e-3);
    this.following = !loop;
  }
}

/**
 * Plays the streams of a run: each as far as its chunks have come while it is live, all of them at the same frame in
 * a replay.
 *
 * Dispatches `reset` (another run), `chunk` (another chunk is shown, or a new one arrived) and `frame` (another frame
 * is shown).
 */
export class Playhead extends EventTarget {
  /** @type {string | null} run that is played */
  key = null;
  /** Frames per second of the video. */
  fps = 16;
  /** @type {Record<string, Track>} by stream */
  tracks = {};
  /** @type {(ChunkRecord | undefined)[]} of all streams, by chunk */
  records = [];
  /** Chunks that are on the server. */
  wanted = 0;
  /** Whether the frame stands still. */
  held = false;
  /** Whether a finished run is played over and over. */
  loop = false;
  /** Whether no more chunks will come. */
  ended = false;
  /** Whether all streams show the same frame even while they are live. */
  aligned = false;

  /**
   * Begin with another run.
   * @param {string | null} key
   * @param {number} fps
   * @param {boolean} loop whether the run is a finished one that is played from its start over and over
   */
  reset(key, fps, loop = false) {
    this.key = key;
    this.fps = fps;
    this.tracks = {};
    this.records = [];
    this.wanted = 0;
    this.held = false;
    this.loop = loop;
    this.ended = loop;
    this.dispatchEvent(new Event("reset"));
  }

  /** The stream with most chunks. */
  get lead() {
    const [first = new Track(this), ...others] = Object.values(this.tracks);
    return others.reduce((lead, track) => (track.rounds.length > lead.rounds.length ? track : lead), first);
  }

  /** The stream that shows the earliest frame. */
  get last() {
    const [first = this.lead, ...others] = Object.values(this.tracks);
    const earlier = (/** @type {Track} */ a, /** @type {Track} */ b) => a.at - b.at || a.offset - b.offset;
    return others.reduce((last, track) => (earlier(track, last) < 0 ? track : last), first);
  }

  /** Chunks of the stream that leads; their records are those of all streams. */
  get rounds() {
    return this.lead.rounds;
  }

  get at() {
    return this.lead.at;
  }

  get frame() {
    return this.lead.frame;
  }

  get position() {
    return this.lead.position;
  }

  get following() {
    return this.lead.following;
  }

  get round() {
    return this.lead.round;
  }

  get newest() {
    return this.lead.newest;
  }

  /** @param {string} name @returns {Track} of a stream; the one that leads where there is none */
  of(name) {
    return this.tracks[name] ?? this.lead;
  }

  /**
   * Append a chunk of some streams.
   * @param {ChunkRecord} record
   * @param {number} now milliseconds
   * @param {number} file number of its file
   */
  append(record, now, file = record.index) {
    const known = this.records[record.index];
    const whole = known ? merged(known, record) : record;
    this.records[record.index] = whole;
    for (const name of Object.keys(record.streams)) {
      const track = this.tracks[name] ?? new Track(this);
      while (track.rounds.length < record.index) track.skip(this.records[track.rounds.length] ?? null);
      if (!this.tracks[name] && record.index) track.join(this.lead);
      this.tracks = Object.fromEntries(Object.entries({ ...this.tracks, [name]: track }).sort());
      track.append(whole, file, secondsOf(record), now);
    }
  }

  /** @param {boolean} held whether the frame stands still */
  hold(held) {
    if (this.held && !held) for (const track of Object.values(this.tracks)) track.arrived = null;
    this.held = held;
  }

  /** @param {number} number of an earlier chunk, from which to play on unless the frame is held */
  seek(number) {
    for (const track of Object.values(this.tracks)) track.seek(number);
  }

  /** Show the newest chunks and those that come. */
  follow() {
    for (const track of Object.values(this.tracks)) track.follow();
  }

  /**
   * @param {number} elapsed seconds of the clock
   * @param {string[]} waiting streams whose frames are not decoded; in a replay the others wait for them
   */
  play(elapsed, waiting = []) {
    const live = this.following && !this.ended;
    if (this.held || (waiting.length && (this.aligned || !live))) return;
    for (const [name, track] of Object.entries(this.tracks)) if (!waiting.includes(name)) track.play(elapsed);
    if (!this.aligned) return;
    const { at, offset } = this.last;
    for (const track of Object.values(this.tracks)) Object.assign(track, { at, offset });
  }
}

/**
 * The last latent frame of a chunk covers its last `per_latent` video frames, and so on backwards.
 *
 * @param {{ frames: number, record: ChunkRecord }} round
 * @param {number} frame video frame of the chunk
 * @returns {number} latent frame of the run
 */
export function latentFrame(round, frame) {
  const back = Math.floor((round.frames - 1 - frame) / round.record.per_latent);
  return Math.max(0, round.record.frame - back);
}
