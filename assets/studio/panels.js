// @ts-check
/** The cache X-ray and the charts below the frames. */

import { lineChart, stackedBars } from "./charts.js";
import { find, findAll, findCanvas } from "./dom.js";
import { passesOf, stageTimes, streamsOf, tablesIn } from "./protocol.js";
import { describe, drawXray, signsIn } from "./xray.js";

/** @import { Player } from "./player.js" */
/** @import { ChunkRecord, GroupPages, StreamRecord } from "./protocol.js" */

/** @param {string} name of a stream */
const driftOf = (name) => (/** @type {StreamRecord} */ _, /** @type {ChunkRecord} */ record) =>
  record.quality?.drift[name];

const LAST = "last denoising step";

export class Panels {
  /** The passes that the selector offers, so that it is written anew only when they change. */
  offered = "";
  /** @type {Set<string>} what the X-ray has shown of the run, which its legend explains */
  signs = new Set();
  /** @type {string | null} the run that `signs` is of */
  run = null;

  /** @param {HTMLElement} stage @param {Player} player */
  constructor(stage, player) {
    this.player = player;
    this.fps = findCanvas(stage, '[data-chart="fps"]');
    this.kv = findCanvas(stage, '[data-chart="kv"]');
    this.drift = findCanvas(stage, '[data-chart="drift"]');
    this.stages = findCanvas(stage, '[data-chart="stages"]');
    /** @type {HTMLCanvasElement[]} */
    this.xrays = findAll(stage, ".fkv-xray canvas");
    /** @type {HTMLSelectElement} */
    this.pass = find(stage, ".fkv-pass select");
    this.pass.addEventListener("change", () => this.paint());
    this.legend = findAll(stage, ".fkv-legend [data-kind]");
    this.offer([]);
  }

  /** Offer the passes of a chunk, and keep the choice where it is among them. @param {StreamRecord[]} records */
  offer(records) {
    const passes = passesOf(records);
    const key = JSON.stringify(passes);
    if (key === this.offered) return;
    this.offered = key;
    const { value } = this.pass;
    const options = passes.map(([name, differs]) => new Option(differs ? `${name} (reads other pages)` : name, name));
    this.pass.replaceChildren(new Option(LAST, ""), ...options);
    this.pass.value = passes.some(([name]) => name === value) ? value : "";
  }

  /** Explain what a run's tables have shown so far. @param {GroupPages[][]} tables */
  explain(tables) {
    const { key } = this.player;
    if (key !== this.run) this.signs = new Set(["dropped"]);
    this.run = key;
    for (const sign of tables.flatMap(signsIn)) this.signs.add(sign);
    for (const item of this.legend) item.hidden = !this.signs.has(item.dataset.kind ?? "");
  }

  /**
   * @param {string} name of the stream
   * @param {(own: StreamRecord, record: ChunkRecord) => number | undefined} value
   * @returns {(number | null)[]} one value per chunk
   */
  series(name, value) {
    const { rounds } = this.player;
    return rounds.map(({ record }) => (record?.streams[name] && value(record.streams[name], record)) ?? null);
  }

  paint() {
    const { round } = this.player;
    const record = round?.record ?? null;
    const names = record ? streamsOf(record) : ["A", "B"];
    const streams = names.flatMap((name) => {
      const own = this.player.of(name).round?.record?.streams[name];
      return own ? [/** @type {const} */ ([name, own])] : [];
    });
    const cursor = round ? round.number : null;
    const rates = names.flatMap((name) => {
      const dash = name === "B";
      return [
        { label: name, values: this.series(name, (own) => own.fps_denoise), dash, width: 2.4 },
        { label: "", values: this.series(name, (own) => own.fps_end_to_end), dash, width: 1.2, soft: true },
      ];
    });
    const megabytes = names.map((name) => {
      return { label: name, values: this.series(name, (own) => own.kv_bytes / 1e6), dash: name === "B", width: 2.4 };
    });
    const drift = names.map((name) => {
      return { label: name, values: this.series(name, driftOf(name)), dash: name === "B", width: 2.4 };
    });
    lineChart(this.fps, rates, cursor);
    lineChart(this.kv, megabytes, cursor);
    lineChart(this.drift, drift, cursor);
    stackedBars(
      this.stages,
      streams.map(([name, own]) => ({ label: name, parts: stageTimes(own) })),
      "ms",
    );
    if (record) this.offer(streams.map(([, own]) => own));
    const pass = this.pass.value;
    const tables = Object.fromEntries(streams.map(([name, own]) => [name, tablesIn(own, pass)]));
    this.explain(Object.values(tables));
    const frames = Object.fromEntries(
      streams.map(([name]) => [name, (this.player.of(name).round?.record?.frame ?? -1) + 1]),
    );
    for (const canvas of this.xrays) {
      const name = canvas.dataset.stream ?? "";
      drawXray(canvas, name, tables, frames);
      canvas.title = tables[name] ? describe(tables[name]) : "";
      canvas.setAttribute("aria-label", `Page table of stream ${name}, ${pass || LAST}. ${canvas.title}`.trim());
    }
  }
}
