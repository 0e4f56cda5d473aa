// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  atMost,
  filmed,
  goodness,
  ordered,
  roundBytes,
  spanOf,
  trackOf,
  within,
  written,
} from "../../assets/studio/board/rules.js";

/** @import { Measure, Row } from "../../assets/studio/board/rules.js" */

const ANY = { track: "", text: "", peak: Infinity, kv: Infinity, frames: Infinity, fps: 0 };
/** @type {Record<string, Measure>} */
const MEASURES = {
  adherence: { title: "adherence", digits: 2, better: "high", help: "" },
  flicker: { title: "flicker", digits: 3, better: "low", help: "" },
  brightness: { title: "brightness change", digits: 1, better: "zero", help: "" },
};

/** @param {string} policy @param {Record<string, number>} means @param {object} rest */
function row(policy, means, rest = {}) {
  const measures = Object.fromEntries(
    Object.entries(means).map(([name, mean]) => [name, { mean, low: null, high: null }]),
  );
  const costs = { peak_bytes: 10e9, kv_bytes: 1e9, frames_denoise: 12, fps: 20 };
  const words = { rule: policy, family: "released", parity: "equal", paper: "", track: "as released", frames: null };
  return /** @type {Row} */ (/** @type {unknown} */ ({ policy, measures, ...costs, ...words, ...rest }));
}

const names = (/** @type {Row[]} */ rows) => rows.map(({ policy }) => policy);

test("limits leave rules out; what is drawn and not generated passes all but that on speed", () => {
  const rows = [
    row("full", {}, { peak_bytes: 13e9, frames_denoise: 80 }),
    row("longlive", {}, { fps: 12 }),
    row("renders", {}, { peak_bytes: null, kv_bytes: null, frames_denoise: null, fps: null, track: "truth" }),
  ];
  assert.deepEqual(names(within(rows, ANY)), ["full", "longlive", "renders"]);
  assert.deepEqual(names(within(rows, { ...ANY, peak: 12e9 })), ["longlive", "renders"]);
  assert.deepEqual(names(within(rows, { ...ANY, fps: 16 })), ["full"]);
  assert.deepEqual(names(within(rows, { ...ANY, frames: 21, track: "as released" })), ["longlive"]);
  assert.deepEqual(names(within(rows, { ...ANY, text: "Long equal" })), ["longlive"]);
});

test("a budget is a track of its own", () => {
  const budget = row("longlive", {}, { track: "same budget", frames: 9 });
  assert.equal(trackOf(budget), "same budget: 9 frames");
  assert.deepEqual(within([budget], { ...ANY, track: "same budget: 7 frames" }), []);
});

test("the best are first, whichever way a measure goes, and those without it last", () => {
  const rows = [
    row("a", { adherence: 0.5, flicker: 0.1, brightness: -4 }),
    row("b", {}),
    row("c", { adherence: 0.9, flicker: 0.2, brightness: 2 }),
    row("d", {}),
  ];
  assert.deepEqual(names(ordered(rows, "adherence", MEASURES)), ["c", "a", "b", "d"]);
  assert.deepEqual(names(ordered(rows, "flicker", MEASURES)), ["a", "c", "b", "d"]);
  assert.deepEqual(names(ordered(rows, "brightness", MEASURES)), ["c", "a", "b", "d"]);
  assert.equal(goodness(rows[1], "flicker", MEASURES), -Infinity);
});

test("changes have a sign, and columns span their error bars", () => {
  assert.equal(written(0.25, MEASURES.brightness), "+0.3");
  assert.equal(written(-2, MEASURES.brightness), "-2.0");
  assert.equal(written(0.123, MEASURES.adherence), "0.12");
  const rows = [row("a", { adherence: 0.5 }), row("b", { adherence: 0.7 })];
  rows[0].measures.adherence = { mean: 0.5, low: 0.25, high: 0.6 };
  assert.deepEqual(spanOf(rows, "adherence"), [0.25, 0.7]);
  assert.deepEqual(spanOf([rows[1]], "adherence"), [0.7 - 0.5, 0.7 + 0.5]);
});

test("a slider at its end sets no limit", () => {
  assert.equal(atMost(1, 12, Math.round), Infinity);
  assert.equal(atMost(0.5, 12, Math.round), 6);
});

test("a row that reads what a slider says is within it", () => {
  assert.equal(atMost(0.29, 24, Math.round), 7);
  assert.equal(roundBytes(1.2345e9), 1.23e9);
  assert.equal(roundBytes(12_345_678), 12.3e6);
});

test("the reference's video is shown beside the rule's and never in its place", () => {
  const [full, rule, none] = [true, true, false].map((clip, i) => row("abc"[i], {}, { clip }));
  assert.deepEqual(names(filmed(rule, full)), ["b", "a"]);
  assert.deepEqual(names(filmed(full, full)), ["a"]);
  assert.deepEqual(names(filmed(rule, none)), ["b"]);
  assert.deepEqual(filmed(none, full), []);
});
