// @ts-check
/** The figures above the frames, the ratios beside the charts and the line below them. */

import { sayable } from "./address.js";
import { find, findAll, write } from "./dom.js";
import { stageTimes } from "./protocol.js";
import { shared } from "./shared.js";

/** @import { Playhead, Round } from "./playhead.js" */
/** @import { ChunkRecord } from "./protocol.js" */
/** @import { Session } from "./session.js" */

const ENOUGH = 0.95; // of a rate, from which it counts as reached

/**
 * @param {Round[]} rounds
 * @param {string} stream
 * @param {number} number of the last chunk that counts
 * @returns {{ denoise: number, all: number }} FPS of the last `shared.rateChunks` chunks: all frames by all seconds
 */
export function recentRates(rounds, stream, number) {
  let frames = 0;
  let generate = 0;
  let total = 0;
  for (const { record } of rounds.slice(Math.max(0, number + 1 - shared.rateChunks), number + 1)) {
    const own = record?.streams[stream];
    if (!own) continue;
    frames += own.video_frames;
    for (const [stage, milliseconds] of stageTimes(own)) {
      total += milliseconds / 1000;
      if (stage !== "text" && stage !== "decode") generate += milliseconds / 1000;
    }
  }
  return { denoise: frames / generate, all: frames / total };
}

/**
 * @param {Round[]} rounds
 * @param {number} number of the last chunk that counts
 * @returns {string} how many times as fast A denoises as B in the last `shared.rateChunks` chunks, and in each of them;
 *   empty for a single chunk, which has no spread
 */
export function speedUp(rounds, number) {
  const ratio = (/** @type {{ denoise: number }[]} */ [a, b]) => a.denoise / b.denoise;
  const both = (/** @type {Round[]} */ some) =>
    ratio(["A", "B"].map((name) => recentRates(some, name, some.length - 1)));
  const recent = rounds.slice(Math.max(0, number + 1 - shared.rateChunks), number + 1);
  const each = recent.map((round) => both([round])).filter(Number.isFinite);
  if (each.length < 2) return "";
  const [low, high] = [Math.min(...each), Math.max(...each)];
  const spread = `${low.toFixed(1)}–${high.toFixed(1)}`;
  if (low <= 1 && high >= 1) return `within noise (${spread} ×)`;
  return `A ${both(recent).toFixed(1)} × B (${spread})`;
}

/**
 * Say on the slowest stream that the others wait for it, where chunks of all arrive slower than their video plays.
 * @param {Record<string, number>} rates end-to-end FPS of every stream
 * @param {number} shown frames per second at which chunks of all streams arrive
 * @param {number} fps of the video
 * @returns {Record<string, string>} a sentence for every stream, empty for most
 */
export function waiting(rates, shown, fps) {
  const [slowest, ...others] = Object.keys(rates).sort((one, other) => rates[one] - rates[other]);
  const holds = others.length && shown < ENOUGH * fps && rates[slowest] < ENOUGH * rates[others[0]];
  const sentence = `${others.join(", ")} waits for ${slowest}: ${shown.toFixed(0)} of ${fps} fps`;
  return Object.fromEntries(Object.keys(rates).map((name) => [name, holds && name === slowest ? sentence : ""]));
}

/**
 * Say on a stream how far behind the other one it is shown, and on that one, once it may get no further ahead, that it
 * waits.
 * @param {Playhead} player
 * @returns {Record<string, string>} a sentence for every stream, mostly empty
 */
export function behind({ tracks, lead, last, fps, ended }) {
  const [ahead, hindmost] = [lead, last].map((track) => Object.keys(tracks).find((name) => tracks[name] === track));
  const chunks = lead.at - last.at;
  /** @type {Record<string, string>} */
  const told = Object.fromEntries(Object.keys(tracks).map((name) => [name, ""]));
  if (chunks < 1 || !ahead || !hindmost) return told;
  const pace = ended ? "" : `: ${(last.rate ?? fps).toFixed(0)} of ${fps} fps`;
  told[hindmost] = `${chunks} ${chunks === 1 ? "chunk" : "chunks"} behind ${ahead}${pace}`;
  if (!ended && lead.rounds.length - last.rounds.length >= shared.mostAhead) told[ahead] = `waits for ${hindmost}`;
  return told;
}

/** @param {number | null} decibels null where the frames are equal */
const psnr = (decibels) => (decibels === null ? "equal" : `${decibels.toFixed(1)} dB`);

/** @param {number} [rows] streams of all visitors that were computed together */
export function sharing(rows = 1) {
  if (rows === 1) return "";
  return `\nshared with ${rows - 1} ${rows === 2 ? "other" : "others"}`;
}

export class Readout {
  /** @param {HTMLElement} stage @param {Session} session */
  constructor(stage, session) {
    this.stage = stage;
    this.session = session;
  }

  /** Another run begins: its policies and where it is measured, no figures yet. */
  begin() {
    const { fps, policies = {}, source = "" } = this.session.shown;
    write(find(this.stage, ".fkv-fps"), String(fps));
    write(find(this.stage, ".fkv-run"), "");
    for (const ratio of findAll(this.stage, "[data-ratio]")) write(ratio, "");
    for (const figure of findAll(this.stage, ".fkv-screen")) {
      write(find(figure, ".fkv-policy"), policies[figure.dataset.stream ?? ""] ?? "");
      for (const read of findAll(figure, ".fkv-read b")) write(read, "–");
      write(find(figure, ".fkv-waits"), "");
    }
    write(find(this.stage, ".fkv-source"), source && `All figures: ${source}.`);
  }

  /** Show the figures of the chunk that is shown. */
  show() {
    const { player } = this.session;
    const { fps, last } = player;
    if (!last.round?.record) return;
    /** @type {Record<string, number>} */
    const speeds = {};
    for (const figure of findAll(this.stage, ".fkv-screen")) {
      const name = figure.dataset.stream ?? "";
      const { round, rounds } = player.of(name);
      const own = round?.record?.streams[name];
      if (!round || !own) continue;
      const rates = recentRates(rounds, name, round.number);
      speeds[name] = rates.all;
      const policy = find(figure, ".fkv-policy");
      write(policy, own.policy);
      policy.title = own.policy;
      write(find(figure, '[data-read="fps_denoise"] b'), rates.denoise.toFixed(1));
      write(find(figure, '[data-read="fps_denoise"] small'), `denoise FPS${sharing(own.rows)}`);
      write(find(figure, '[data-read="fps_end_to_end"] b'), rates.all.toFixed(1));
      write(find(figure, '[data-read="kv_bytes"] b'), (own.kv_bytes / 1e6).toFixed(1));
    }
    const files = new Set(Object.values(player.tracks).map((track) => track.round?.file));
    const told = files.size > 1 ? behind(player) : waiting(speeds, last.rate ?? fps, fps);
    for (const [name, text] of Object.entries(told)) {
      write(find(this.stage, `[data-stream="${name}"] .fkv-waits`), text);
    }
    const { number, record } = last.round; // of the stream that is behind, so that both are compared at one chunk
    this.compare(record, number);
    const hashes = Object.entries(record.streams).map(([name, own]) => `${name} ${own.hash}`);
    const chunk = `Frame hash up to chunk ${number + 1}: ${hashes.join(" · ")}.`;
    write(find(this.stage, ".fkv-run"), `${chunk} Equal hashes mean identical frames. ${this.kept()}`);
  }

  /** @param {ChunkRecord} record @param {number} number */
  compare({ streams: { A, B }, quality }, number) {
    const { rounds } = this.session.player;
    const both = Boolean(A && B);
    write(find(this.stage, '[data-ratio="fps"]'), both ? speedUp(rounds, number) : "");
    write(find(this.stage, '[data-ratio="kv"]'), both ? `B ${(B.kv_bytes / A.kv_bytes).toFixed(1)} × A` : "");
    write(find(this.stage, '[data-ratio="psnr"]'), quality?.psnr === undefined ? "" : `A to B: ${psnr(quality.psnr)}`);
  }

  /** What the address bar holds of the run. */
  kept() {
    if (this.session.shown.state === "recorded") return "";
    const whole = this.session.player.rounds.every((round) => (round.record?.events ?? []).every(sayable));
    return `The address bar holds this run${whole ? "" : ", except for the roles of very many heads"}.`;
  }
}
