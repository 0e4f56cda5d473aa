// @ts-check
/** The Board tab: fetches the rows when it is seen, and shows those within the limits. */

import { find, findAll, findInput, onTheme, ROOT, svg, write } from "../dom.js";
import { learn } from "../shared.js";
import { arrange } from "../sort.js";
import { Opened } from "./opened.js";
import { atMost, ordered, roundBytes, spanOf, trackOf, within, written } from "./rules.js";

/** @import { Component } from "../stage.js" */
/** @import { Measure, Row } from "./rules.js" */

/**
 * @typedef {{ name: string, model: string, horizon: string, prompts: string[], seeds: number[], seconds: number,
 *   features: string }} Board
 * @typedef {{ title: string, protocol: string, source: string,
 *   figures: { method: string, rule: string, value: string }[] }} Paper
 * @typedef {{ reference: string, boards: Board[], rows: Row[], measures: Record<string, Measure>,
 *   papers: Paper[] }} Told
 */

const FEWEST = 6; // prompts; with fewer there are no intervals
const STEPS = 100; // of a slider

/** Limits on costs, by the names of their sliders. */
const SLIDERS = {
  peak: { of: (/** @type {Row} */ row) => row.peak_bytes, round: roundBytes, say: bytes, least: false },
  kv: { of: (/** @type {Row} */ row) => row.kv_bytes, round: roundBytes, say: bytes, least: false },
  frames: {
    of: (/** @type {Row} */ row) => row.frames_denoise,
    round: Math.round,
    say: (/** @type {number} */ n) => n.toFixed(0),
    least: false,
  },
  fps: {
    of: (/** @type {Row} */ row) => row.fps,
    round: (/** @type {number} */ n) => Math.round(n * 10) / 10,
    say: (/** @type {number} */ n) => `${n.toFixed(1)} FPS`,
    least: true,
  },
};

/** @param {number} value @returns {string} in MB or GB, powers of ten */
function bytes(value) {
  return value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(1)} MB`;
}

/** Columns of costs: their heading, what is written, and what they are sorted by. */
const COSTS = /** @type {[string, (row: Row) => string, (row: Row) => number | null][]} */ ([
  ["frames read", (row) => pair(row.frames_denoise, row.frames_context, 1), (row) => row.frames_denoise],
  ["passes", (row) => known(row.passes, 0), (row) => row.passes],
  ["K and V, MB", (row) => known(row.kv_bytes && row.kv_bytes / 1e6, 1), (row) => row.kv_bytes],
  ["peak, MB", (row) => known(row.peak_bytes && row.peak_bytes / 1e6, 0), (row) => row.peak_bytes],
  ["ms per chunk", (row) => about(row, pair(row.ms_generate, row.ms_total, 0)), (row) => row.ms_total],
  ["FPS", (row) => about(row, known(row.fps, 1)), (row) => row.fps],
]);

/** @param {number | null} value @param {number} digits */
const known = (value, digits) => (value === null ? "–" : String(Number(value.toFixed(digits))));

/** @param {number | null} a @param {number | null} b @param {number} digits */
const pair = (a, b, digits) => (a === null ? "–" : `${known(a, digits)} / ${known(b, digits)}`);

/** @param {Row} row @param {string} text of a speed, which says little where others wanted the machine too */
const about = (row, text) => (row.busy && row.fps !== null ? `~${text}` : text);

/** @param {Component} component */
export function mount({ element, props }) {
  learn(props.facts);
  const section = find(element, ".fkv-board");
  const seen = new IntersectionObserver(async ([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    const answer = await fetch(`${ROOT}board/rows.json`).catch(() => null);
    if (answer?.ok) new Tab(section, await answer.json());
    else write(find(section, ".fkv-said"), "The board cannot be read; reload the page to try again.");
  });
  seen.observe(section);
}

class Tab {
  /** @type {Row[]} of the board that is shown */
  rows = [];
  /** @type {string[]} measures that some row has */
  names = [];

  /** @param {HTMLElement} section @param {Told} told */
  constructor(section, told) {
    this.section = section;
    this.told = told;
    this.opened = new Opened(find(section, ".fkv-opened"), told.reference);
    this.form = /** @type {HTMLFormElement} */ (find(section, "form"));
    fill(
      this.field("board"),
      told.boards.map(({ name }) => name),
    );
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", ({ target }) => {
      const { name } = /** @type {HTMLSelectElement} */ (target);
      if (name === "by") this.head();
      if (name === "board") this.begin();
      else this.show();
    });
    find(section, "tbody").addEventListener("click", ({ target }) => {
      const button = /** @type {HTMLElement | null} */ (/** @type {Element} */ (target).closest?.("button[data-row]"));
      if (button) this.open(this.rows[Number(button.dataset.row)]);
    });
    onTheme(() => this.link());
    this.papers();
    section.dataset.state = "shown";
    if (told.boards.length) this.begin();
    else write(find(section, ".fkv-said"), "No board has been recorded yet.");
  }

  /** @param {string} name @returns {HTMLSelectElement & HTMLInputElement} */
  field(name) {
    return find(this.form, `[name="${name}"]`);
  }

  /** Begin with another board. */
  begin() {
    const name = this.field("board").value;
    const board = /** @type {Board} */ (this.told.boards.find((each) => each.name === name));
    this.rows = this.told.rows.filter((row) => row.board === name);
    this.names = Object.keys(this.told.measures).filter((each) => this.rows.some((row) => row.measures[each]));
    const tracks = [...new Set(this.rows.map(trackOf))];
    fill(this.field("track"), ["", ...tracks], ["all", ...tracks]);
    fill(
      this.field("by"),
      this.names,
      this.names.map((each) => this.told.measures[each].title),
    );
    for (const [each, { of, least }] of Object.entries(SLIDERS)) {
      const slider = findInput(this.form, `[name="${each}"]`);
      Object.assign(slider, { min: "0", max: String(STEPS), step: "1" });
      slider.value = least ? "0" : String(STEPS);
      slider.dataset.most = String(Math.max(0, ...this.rows.map((row) => of(row) ?? 0)));
    }
    const few = board.prompts.length < FEWEST;
    const seeds = `seed${board.seeds.length > 1 ? "s" : ""} ${board.seeds.join(", ")}`;
    const span = `${board.prompts.length} prompts, ${seeds}, ${board.seconds} s`;
    const meaning = few
      ? "So few prompts have no intervals, and tell nothing about the rules."
      : "Bars: 95 % intervals over prompts. Bold: differs from the reference.";
    const said = `${board.model}, trained on ${board.horizon}: ${span}. Dotted: ${this.told.reference}. ${meaning}`;
    write(find(this.section, ".fkv-said"), said);
    this.meanings();
    this.opened.close();
    this.head();
    this.show();
  }

  /** The measures in the order of their columns: that by which rules are ordered comes first, where it is seen. */
  get columns() {
    const by = this.field("by").value;
    return [by, ...this.names.filter((name) => name !== by)];
  }

  /** The limits that the form sets. */
  get limits() {
    const set = Object.entries(SLIDERS).map(([name, { round, least }]) => {
      const slider = findInput(this.form, `[name="${name}"]`);
      const share = Number(slider.value) / STEPS;
      const most = Number(slider.dataset.most);
      return [name, least ? round(share * most) : atMost(share, most, round)];
    });
    return { track: this.field("track").value, text: this.field("text").value, ...Object.fromEntries(set) };
  }

  /** Show the rows within the limits. */
  show() {
    const { limits } = this;
    for (const [name, { say, least }] of Object.entries(SLIDERS)) {
      const output = find(this.form, `[name="${name}"] + output`);
      const limit = limits[name];
      const open = least ? limit === 0 : limit === Infinity;
      write(output, open ? "any" : `${least ? "at least" : "at most"} ${say(limit)}`);
    }
    const { measures, reference } = this.told;
    const by = this.field("by").value;
    const shown = ordered(within(this.rows, limits), by, measures);
    const body = find(this.section, "tbody");
    const spans = Object.fromEntries(this.names.map((name) => [name, spanOf(this.rows, name)]));
    const base = this.rows.find((row) => row.policy === reference);
    body.replaceChildren(...shown.map((row) => this.line(row, spans, base)));
    arrange(/** @type {HTMLTableElement} */ (body.parentElement));
    const best = shown.find((row) => row.measures[by] && row.track !== "truth");
    const rules = `${shown.length} of ${this.rows.length} rows are within the limits`;
    const title = measures[by]?.title;
    write(
      find(this.section, ".fkv-best"),
      best && measures[by].better !== "none"
        ? `${rules}. Best by ${title}: ${best.policy} (${written(best.measures[by].mean, measures[by])}).`
        : `${rules}.`,
    );
    this.link();
  }

  /**
   * @param {Row} row
   * @param {Record<string, [number, number]>} spans
   * @param {Row | undefined} base the reference
   */
  line(row, spans, base) {
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: row.policy });
    button.dataset.row = String(this.rows.indexOf(row));
    const track = document.createElement("small");
    track.textContent = trackOf(row);
    name.append(button, track);
    line.append(name);
    for (const measure of this.columns) {
      const found = row.measures[measure];
      const cell = document.createElement("td");
      cell.dataset.value = found ? String(found.mean) : "";
      if (!found) cell.textContent = "–";
      else {
        const text = document.createElement(row.differs.includes(measure) ? "b" : "span");
        text.textContent = written(found.mean, this.told.measures[measure]);
        cell.append(text, bar(found, spans[measure], base?.measures[measure]?.mean));
        if (found.low !== null && found.high !== null) {
          const [low, high] = [found.low, found.high].map((end) => written(end, this.told.measures[measure]));
          cell.title = `${low} to ${high}`;
        }
      }
      line.append(cell);
    }
    for (const [, say, value] of COSTS) {
      const cell = document.createElement("td");
      cell.textContent = say(row);
      cell.dataset.value = String(value(row) ?? "");
      line.append(cell);
    }
    const parity = document.createElement("td");
    parity.textContent = row.parity;
    line.append(parity);
    return line;
  }

  /** Write the headings anew, which ends an order by one of them. */
  head() {
    const titles = [
      "rule",
      ...this.columns.map((name) => this.told.measures[name].title),
      ...COSTS.map(([title]) => title),
      "parity",
    ];
    const line = document.createElement("tr");
    for (const title of titles) {
      const heading = document.createElement("th");
      heading.scope = "col";
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: title });
      heading.append(button);
      line.append(heading);
    }
    find(this.section, "thead").replaceChildren(line);
  }

  meanings() {
    const list = document.createElement("p");
    for (const name of this.names) {
      const { title, better, help } = this.told.measures[name];
      const word = document.createElement("b");
      word.textContent = title;
      const best = { high: "more is better", low: "less is better", zero: "0 is best", none: "neither is better" }[
        better
      ];
      list.append(word, `: ${help} (${best}). `);
    }
    list.append(
      "Frames read: latent frames of a denoising pass / of the context pass, on average over heads. ",
      "Milliseconds: without / with the decoder; ~ was measured on a busy machine and says little. ",
      "Peak: on a CPU the size of the process.",
    );
    find(this.section, ".fkv-meanings").replaceChildren(list);
  }

  papers() {
    const parts = this.told.papers.flatMap(({ title, protocol, source, figures }) => {
      const heading = document.createElement("h3");
      heading.textContent = title;
      const said = document.createElement("p");
      said.textContent = `${protocol}. As stated in: ${source}. Not measured here.`;
      const table = document.createElement("table");
      for (const { method, rule, value } of figures) {
        const row = table.insertRow();
        for (const text of [method, rule, value]) row.insertCell().textContent = text;
      }
      return [heading, said, table];
    });
    find(this.section, ".fkv-papers > div").replaceChildren(...parts);
  }

  /** Let the links save the board that is shown, in the theme of the page. */
  link() {
    const theme = document.body.classList.contains("dark") ? "dark" : "light";
    const query = new URLSearchParams({ by: this.field("by").value, theme });
    for (const link of /** @type {HTMLAnchorElement[]} */ (findAll(this.section, "a[data-ending]"))) {
      link.href = `${ROOT}board/${encodeURIComponent(this.field("board").value)}.${link.dataset.ending}?${query}`;
    }
  }

  /** @param {Row} row */
  open(row) {
    const base = this.rows.find((each) => each.policy === this.told.reference);
    const board = /** @type {Board} */ (this.told.boards.find(({ name }) => name === row.board));
    this.opened.open(row, base, `${board.prompts[0]} · seed ${board.seeds[0]}`);
  }
}

/**
 * @param {HTMLSelectElement} select
 * @param {string[]} values
 * @param {string[]} titles
 */
function fill(select, values, titles = values) {
  select.replaceChildren(...values.map((value, i) => new Option(titles[i], value)));
}

const WIDE = 64; // of an error bar, in units of its drawing
const HIGH = 10;

/**
 * @param {import("./rules.js").Interval} interval
 * @param {[number, number]} span of the column
 * @param {number | undefined} reference
 * @returns {SVGElement} a dot with its interval, and a line at the reference
 */
function bar({ mean, low, high }, [from, to], reference) {
  const at = (/** @type {number} */ value) => (3 + ((value - from) / (to - from)) * (WIDE - 6)).toFixed(1);
  const middle = HIGH / 2;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "fkv-bar", "aria-hidden": "true" });
  if (reference !== undefined) drawing.append(svg("path", { class: "fkv-base", d: `M${at(reference)} 0V${HIGH}` }));
  if (low !== null && high !== null) drawing.append(svg("path", { d: `M${at(low)} ${middle}H${at(high)}` }));
  drawing.append(svg("circle", { cx: at(mean), cy: `${middle}`, r: "2.6" }));
  return drawing;
}
