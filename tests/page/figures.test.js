// @ts-check
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { clip, spread } from "../../assets/studio/canvas.js";
import { policyIn } from "../../assets/studio/ask.js";
import { decimals, namesOf, placed, roundUp, stackedBars } from "../../assets/studio/charts.js";
import { cividis } from "../../assets/studio/colours.js";
import { inkOn } from "../../assets/studio/heads/grid.js";
import { layOut } from "../../assets/studio/heads/detail.js";
import { rolesIn } from "../../assets/studio/heads/roles.js";
import { segmentBoxes, tintCache } from "../../assets/studio/overlay.js";
import { recentRates } from "../../assets/studio/readout.js";
import { Timeline } from "../../assets/studio/timeline.js";
import { isCached, passesOf, positionOf, tablesIn } from "../../assets/studio/protocol.js";
import { cachedSegments, describe, labelled, signsIn, titles } from "../../assets/studio/xray.js";
import { chunk, learnFacts, rounds, stream } from "./records.js";

/** @import { GroupPages } from "../../assets/studio/protocol.js" */

before(learnFacts);

/** @param {GroupPages["runs"]} runs @returns {GroupPages} */
const group = (name = "all", heads = 8, ...runs) => ({ name, heads, segments: 3, runs });

/** Draw on a canvas that notes what is written on it. @param {(canvas: HTMLCanvasElement) => void} draw */
function written(draw) {
  /** @type {string[]} */
  const texts = [];
  const known = {
    font: "12px sans-serif",
    measureText: (/** @type {string} */ text) => ({ width: 6 * text.length }),
    fillText: (/** @type {string} */ text) => texts.push(text),
  };
  const pen = new Proxy(known, { get: (target, name) => Reflect.get(target, name) ?? (() => {}) });
  const style = { fontSize: "12px", fontFamily: "sans-serif", getPropertyValue: () => "#000" };
  const page = { window: { devicePixelRatio: 1 }, getComputedStyle: () => style };
  Object.assign(globalThis, page);
  const canvas = { getContext: () => pen, getBoundingClientRect: () => ({ width: 320, height: 192 }) };
  draw(/** @type {any} */ (canvas));
  for (const name of Object.keys(page)) Reflect.deleteProperty(globalThis, name);
  return texts;
}

test("kinds stand on the picture as words, so that no letter means a kind and a stream", () => {
  const groups = [group("static", 3, [0, 0, "sink", 1]), group("dynamic", 5, [0, 0, "anchor", 2])];
  assert.deepEqual(
    written((canvas) => tintCache(canvas, groups, 0, [6, 10], false)),
    ["sink", "anchor", "dropped"],
  );
});

test("bars write the length of every stage of every stream, and which shade it is", () => {
  const bars = [
    {
      label: "A",
      parts: /** @type {[string, number][]} */ ([
        ["text", 0],
        ["denoise", 376],
        ["context", 101],
        ["decode", 6],
      ]),
    },
    {
      label: "B",
      parts: /** @type {[string, number][]} */ ([
        ["text", 0],
        ["denoise", 450],
        ["context", 122],
        ["decode", 5],
      ]),
    },
  ];
  const texts = written((canvas) => stackedBars(canvas, bars, "ms"));
  for (const text of ["376", "101", "6.0", "450", "122", "5.0", "denoise", "context", "decode"]) {
    assert.ok(texts.includes(text), text);
  }
  assert.ok(!texts.includes("text"));
});

test("the axis ends at a round number at or above the largest value", () => {
  const pairs = [
    [0.7, 0.8],
    [1, 1],
    [1.0005, 1],
    [1.1, 2],
    [7, 8],
    [9, 10],
    [61, 80],
    [151, 200],
    [0.034, 0.04],
  ];
  for (const [value, top] of pairs) assert.ok(Math.abs(roundUp(value) - top) < 1e-9, `${value}: ${roundUp(value)}`);
});

test("an axis is labelled with as many decimals as its middle has", () => {
  const pairs = [
    [15, 0],
    [2.5, 1],
    [0.5, 1],
    [0.05, 2],
    [0.015, 3],
    [0.1 + 0.05, 2],
  ];
  for (const [middle, digits] of pairs) assert.equal(decimals(middle), digits, String(middle));
});

test("the legend explains what page tables show", () => {
  const plain = group("all", 8, [0, 2, "sink", 7], [3, 5, "current", 7]);
  assert.deepEqual(new Set(signsIn([plain])), new Set(["sink", "current"]));
  const marked = { ...plain, edited: [2], positions: /** @type {GroupPages["positions"]} */ ([[0, 2, 3]]) };
  assert.deepEqual(new Set(signsIn([plain, marked])), new Set(["sink", "current", "edited", "strip"]));
});

test("a line is a policy where it names a stream, else a prompt", () => {
  assert.deepEqual(policyIn(" b = sliding-window:window_frames=6 "), {
    stream: "B",
    policy: "sliding-window:window_frames=6",
  });
  for (const prompt of ["a red ball", "A =", "C = full", "a blue star = b"]) assert.equal(policyIn(prompt), null);
});

test("texts that do not fit are cut, and left out where too little would remain", () => {
  const pen = { measureText: (/** @type {string} */ text) => /** @type {TextMetrics} */ ({ width: 10 * text.length }) };
  assert.equal(clip(pen, "a red ball", 100), "a red ball");
  assert.equal(clip(pen, "a red ball", 99), "a red ba…");
  assert.equal(clip(pen, "a red ball", 40), "");
});

test("the key of a chart names every part that has a length, in rows that fit", () => {
  const parts = (/** @type {number[]} */ ...values) =>
    /** @type {[string, number][]} */ (["text", "denoise", "decode"].map((name, i) => [name, values[i]]));
  const bars = [
    { label: "A", parts: parts(0, 50, 9) },
    { label: "B", parts: parts(0, 90, 0.4) },
  ];
  assert.deepEqual(namesOf(bars), ["denoise", "decode"]);
  assert.deepEqual(namesOf([{ label: "A", parts: parts(3, 50, 0) }, ...bars]), ["text", "denoise", "decode"]);
  assert.deepEqual(namesOf([]), []);
  assert.deepEqual(placed([40, 40, 40], 100), [
    [0, 0],
    [40, 0],
    [0, 1],
  ]);
  assert.deepEqual(placed([140, 10], 100), [
    [0, 0],
    [0, 1],
  ]);
});

test("labels keep their order, their distance and to the canvas", () => {
  assert.deepEqual(spread([50, 52, 10], 12, 200).slice(0, 2), [50, 62]);
  assert.deepEqual(spread([1], 12, 200), [6]);
  assert.deepEqual(spread([190, 198], 12, 200), [182, 194]);
});

test("the colour map runs from dark blue to yellow and ends there", () => {
  assert.equal(cividis(0), "0, 34, 78");
  assert.equal(cividis(1), "254, 232, 56");
  assert.equal(cividis(-1), cividis(0));
  assert.equal(cividis(2), cividis(1));
  assert.equal(cividis(0.5), "125, 124, 120");
});

test("rates are of the last four chunks: all frames by all seconds, decoding and text apart", () => {
  const slow = stream({ denoise_s: 0.98, text_s: 0.5 });
  const run = rounds(chunk(0, { streams: { A: slow } }), chunk(1), null, chunk(3), chunk(4));
  const last = recentRates(run, "A", 4);
  assert.ok(Math.abs(last.denoise - 36 / 0.24) < 1e-9);
  assert.ok(Math.abs(last.all - 36 / 0.3) < 1e-9);
  const early = recentRates(run, "A", 1);
  assert.ok(Math.abs(early.denoise - 24 / 1.08) < 1e-9);
  assert.ok(Math.abs(early.all - 24 / 1.62) < 1e-9);
});

test("a frame of which some segments are read and others held shows both", () => {
  const groups = [
    group("layer 0", 2, [0, 0, "held", 0b101], [0, 0, "recalled", 0b010]),
    group("layer 1", 2, [0, 0, "kept", 1]),
  ];
  assert.deepEqual(cachedSegments(groups, 0), ["kept", "recalled", "held"]);
});

test("a segment is cached where any group has it; any kind is shown before moved", () => {
  const groups = [
    group("static", 2, [0, 0, "sink", 0b111]),
    group("dynamic", 6, [0, 0, "moved", 0b011], [4, 6, "moved", 0b101]),
  ];
  assert.deepEqual(cachedSegments(groups, 0), ["sink", "sink", "sink"]);
  assert.deepEqual(cachedSegments(groups.toReversed(), 0), ["sink", "sink", "sink"]);
  assert.deepEqual(cachedSegments(groups, 5), ["moved", null, "moved"]);
  assert.deepEqual(cachedSegments(groups, 7), [null, null, null]);
});

test("a group of all heads is the first layer where others are split by role", () => {
  assert.deepEqual(titles([group("all", 8), group("static", 12)], "A"), ["A  first layer (8)", "A  static (12)"]);
  assert.deepEqual(titles([group("all", 64)], "B"), ["B  all heads (64)"]);
});

test("rows of many layers have titles at equal distances, as many as fit", () => {
  assert.deepEqual(labelled(3, 10), [0, 1, 2]);
  assert.deepEqual(labelled(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(labelled(30, 10), [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]);
  assert.deepEqual(labelled(30, 7), [0, 5, 10, 15, 20, 25]);
  assert.deepEqual(labelled(5, 0), [0]);
});

test("a pass has its own page tables where it reads otherwise than the last denoising pass", () => {
  const context = [group("all", 8, [0, 2, "held", 0b111])];
  const a = stream({ xray: [group("all", 8, [0, 2, "kept", 0b111])], passes: { "step 0": null, context } });
  assert.equal(tablesIn(a, "context"), context);
  assert.equal(tablesIn(a, "step 0"), a.xray);
  assert.equal(tablesIn(a, ""), a.xray);
  assert.equal(tablesIn(stream({}), "context").length, 0); // recorded before passes were
  assert.deepEqual(passesOf([a, stream({ passes: { "step 0": null } })]), [
    ["step 0", false],
    ["context", true],
  ]);
  assert.deepEqual(passesOf([stream({})]), []);
});

test("a segment of whole rows is one box, any other one box per row", () => {
  assert.deepEqual(segmentBoxes(20, 20, 10), [{ token: 20, row: 2, col: 0, rows: 2, cols: 10 }]);
  assert.deepEqual(segmentBoxes(15, 15, 10), [
    { token: 15, row: 1, col: 5, rows: 1, cols: 5 },
    { token: 20, row: 2, col: 0, rows: 1, cols: 10 },
  ]);
});

test("masks of more than 30 segments come in several numbers", () => {
  const cached = [1, 2 + 2 ** 29];
  const found = Array.from({ length: 60 }, (_, i) => i).filter((i) => isCached(cached, i));
  assert.deepEqual(found, [0, 31, 59]);
  assert.ok(isCached(2 ** 29, 29) && !isCached(2 ** 29, 28));
});

test("a page table says in words what is read elsewhere and what is edited", () => {
  /** @type {import("../../assets/studio/protocol.js").GroupPages} */
  const group = { name: "all", heads: 4, segments: 1, runs: [[0, 1, "sink", 1]], positions: [[0, 1, 8]], edited: [1] };
  assert.equal(positionOf(group, 1), 9);
  assert.equal(positionOf(group, 5), 5);
  assert.equal(describe([group]), "all heads: frames 0–1 sink; read at other positions: 0–1 at 8–9; edited: 1.");
});

test("the frame-by-frame map fills its panel whatever the number of rows, and breaks where frames are left out", () => {
  const keys = [0, 8, 9, 10];
  for (const count of [1, 3, 24]) {
    const rows = Array.from({ length: count }, (_, i) => ({ frame: i, own: [10], keys, mass: [1, 2, 3, 4] }));
    const { at, wide, high, top } = layOut({ width: 600, height: 300, size: 12 }, rows);
    assert.ok(Math.abs(top + count * high - (300 - 12 - 6)) < 1e-9, `${count} rows`);
    assert.ok(Math.abs(at[3] + wide - 600) < 1e-9);
    assert.ok(at[1] - at[0] > wide + 10 && Math.abs(at[2] - at[1] - wide) < 1e-9);
  }
});

test("a run that has ended leaves no empty chunks on the timeline, one that goes on those still to come", () => {
  const player = { rounds: rounds(chunk(0), chunk(1), chunk(2)), loop: false, wanted: 3 };
  const room = (/** @type {boolean} */ runningShown, /** @type {string} */ link) =>
    Reflect.get(Timeline.prototype, "room", { session: { player, runningShown, shown: { link } } });
  assert.equal(room(false, "length=3"), 3);
  assert.equal(room(true, "length=8"), 8);
  assert.equal(room(true, "length=0"), 12);
});

test("roles are read from a file where they are of a model of this size", () => {
  const text = (/** @type {object} */ more) => JSON.stringify({ static_heads: [[1, 0], []], ...more });
  assert.deepEqual(rolesIn(text({ threshold: 0.6 }), 2, 2), { roles: [[0, 1], []], threshold: 0.6 });
  assert.deepEqual(rolesIn(text({ threshold: null }), 2, 2), { roles: [[0, 1], []], threshold: null });
  for (const bad of ["", "null", "[]", "{", '{"static_heads": [1, 2]}', text({ static_heads: [["0"], []] })]) {
    assert.equal(rolesIn(bad, 2, 2), null, bad);
  }
  assert.equal(rolesIn(text({}), 3, 2), null);
  assert.equal(rolesIn(text({}), 2, 1), null);
});

test("every score can be read on its shade", () => {
  const luminance = (/** @type {number[]} */ rgb) => {
    const [r, g, b] = rgb.map((each) =>
      each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (let score = 0; score <= 1; score += 0.005) {
    const shade = luminance(cividis(score).split(", ").map(Number));
    const contrast = inkOn(score) === "#000000" ? (shade + 0.05) / 0.05 : 1.05 / (shade + 0.05);
    assert.ok(contrast >= 4.5, `${score.toFixed(3)}: ${contrast.toFixed(2)}`);
  }
});
