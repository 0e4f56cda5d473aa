// @ts-check
/** The visitor's run as the server reports it, and the player that shows it. */

import { ROOT } from "./dom.js";
import { Player } from "./player.js";

/**
 * The state of the run, which the server sends whenever it changes.
 * @typedef {object} Manifest
 * @property {"idle" | "queued" | "live" | "paused" | "done" | "error" | "recorded"} state
 * @property {string} [text] the state in a sentence
 * @property {string} [run] key of the run's chunk files
 * @property {number} [began] when the run began; an older one is ignored
 * @property {number} [chunks] on the server
 * @property {number} [files] that hold them, where not all streams have a chunk at the same time
 * @property {number} [fps]
 * @property {string} [link] query of the address that brings the run back
 * @property {string} [source] where the figures were measured
 * @property {string[]} [streams]
 * @property {Record<string, string>} [policies]
 */

/**
 * Dispatches `begin` (another run is shown), `manifest` (the server reported) and `state` (the state of the shown run
 * changed).
 */
export class Session extends EventTarget {
  /** @type {Manifest} */
  manifest = { state: "idle" };
  /** @type {Manifest} of the run that is shown, which is the recording until a run of one's own begins */
  shown = { state: "idle" };
  /** @type {string | null} a run that was left for another; its chunks are going away */
  left = null;
  /** @type {boolean | null} whether the stream was asked to pause, until it has followed */
  wish = null;
  /** Whether a paused stream generates one more chunk, which is to be played. */
  stepping = false;

  /** @param {Player} player */
  constructor(player) {
    super();
    this.player = player;
  }

  get state() {
    return this.manifest.state;
  }

  /** Whether a run is queued or under way. */
  get running() {
    return ["queued", "live", "paused"].includes(this.state);
  }

  /** Whether play and pause mean the stream, not what is replayed. */
  get runningShown() {
    return this.streaming || (this.running && this.manifest === this.shown);
  }

  /** Whether the stream takes changes. */
  get streaming() {
    return ["live", "paused"].includes(this.state);
  }

  /** @param {Manifest | null | undefined} next */
  receive(next) {
    if (!next?.state || (next.began ?? Infinity) < (this.manifest.began ?? 0)) return;
    if (next.run && next.run === this.left) return;
    if (!next.run) this.left = null; // the new run was refused, so the one before goes on
    const before = this.state;
    const other = next.run !== this.player.key;
    const shows = this.player.loop || this.player.rounds.length > 0;
    const waits = other && !next.chunks && shows; // what is shown stays until the first chunk
    this.manifest = next;
    if (next.run && !waits) this.shown = next;
    if (next.run && other && !waits) this.begin(next.run, next);
    this.dispatchEvent(new Event("manifest"));
    if (!next.run || waits) return;
    this.player.ended = !this.running;
    this.settle(before);
    if (next.state !== before) this.dispatchEvent(new Event("state"));
    const { chunks = 0, files = chunks } = next;
    this.player.wanted = Math.max(this.player.wanted, chunks);
    if (files > this.player.files) this.player.advance(files);
  }

  /** @param {string} run @param {Manifest} manifest */
  begin(run, manifest) {
    this.player.reset(run, manifest.fps ?? this.player.fps, manifest.state === "recorded");
    this.wish = null;
    this.dispatchEvent(new Event("begin"));
  }

  /**
   * Let the frame stand or move as the stream pauses or goes on, unless the visitor has pressed otherwise since.
   * @param {string} before the state before
   */
  settle(before) {
    const { state } = this;
    if (!this.running || this.wish === (state === "paused")) this.wish = null;
    if (this.wish !== null) return;
    if (state === "paused" && before !== "paused") {
      this.player.hold(!this.stepping);
      this.stepping = false;
    }
    if (state === "live" && before === "paused") this.player.hold(false);
  }

  /** Pause or resume was pressed: the frame follows at once, the stream with its next chunk. */
  pausePressed() {
    this.stepping = false;
    this.wish = !(this.wish ?? this.state === "paused");
    this.player.hold(this.wish);
  }

  /** Another run was asked for. */
  goPressed() {
    if (this.running) this.left = this.player.key;
  }

  /** One more chunk was asked for. */
  stepPressed() {
    this.stepping = true;
    if (!this.player.following) this.player.follow();
    this.player.hold(false);
  }
}

/** The session of this page. */
export const session = new Session(new Player((key, number) => `${ROOT}stage/${key}/${number}`));
