// @ts-check
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { Playhead } from "../../assets/studio/playhead.js";
import { behind, sharing, speedUp, waiting } from "../../assets/studio/readout.js";
import { chunk, learnFacts, rounds, stream } from "./records.js";

before(learnFacts);

test("with whom a visitor shares passes is said below the FPS", () => {
  assert.deepEqual(
    [undefined, 1, 2, 3].map((rows) => sharing(rows)),
    ["", "", "\nshared with 1 other", "\nshared with 2 others"],
  );
});

test("a ratio of speeds has its spread, is no result within noise, and is not told of a single chunk", () => {
  const run = (/** @type {number[]} */ ...seconds) =>
    rounds(...seconds.map((denoise_s, i) => chunk(i, { streams: { A: stream(), B: stream({ denoise_s }) } })));
  assert.equal(speedUp(run(0.14, 0.14), 0), "");
  assert.equal(speedUp(run(0.14, 0.22), 1), "A 2.5 × B (2.0–3.0)");
  assert.equal(speedUp(run(0.05, 0.14), 1), "within noise (0.9–2.0 ×)");
  assert.equal(speedUp(run(9, 0.14, 0.14, 0.14, 0.14), 4), "A 2.0 × B (2.0–2.0)", "only the newest chunks count");
  assert.equal(speedUp(rounds(chunk(0), chunk(1)), 1), "", "A alone");
});

test("the slowest stream says who waits for it, where the video does not reach its own rate", () => {
  assert.deepEqual(waiting({ A: 15, B: 8 }, 7.6, 16), { A: "", B: "A waits for B: 8 of 16 fps" });
  assert.deepEqual(waiting({ A: 8, B: 15 }, 7.6, 16), { A: "B waits for A: 8 of 16 fps", B: "" });
  assert.deepEqual(waiting({ A: 40, B: 20 }, 16, 16), { A: "", B: "" });
  assert.deepEqual(waiting({ A: 8, B: 8.1 }, 7.6, 16), { A: "", B: "" });
  assert.deepEqual(waiting({ A: 8 }, 7.6, 16), { A: "" });
});

test("a stream that is shown behind the other one says how far, and that one once it waits", () => {
  const playhead = new Playhead();
  playhead.reset("run", 16);
  for (let i = 0; i < 41; i++) playhead.append(chunk(i, { later: ["B"] }), 750 * i, i);
  playhead.append(chunk(0, { streams: { B: stream() } }), 1500, 41);
  const { A, B } = playhead.tracks;
  Object.assign(B, { rate: 8.2 });
  Object.assign(A, { at: 0 });
  assert.deepEqual(behind(playhead), { A: "", B: "" });
  Object.assign(A, { at: 1 });
  assert.deepEqual(behind(playhead), { A: "waits for B", B: "1 chunk behind A: 8 of 16 fps" });
  playhead.append(chunk(1, { streams: { B: stream() } }), 3000, 42);
  Object.assign(A, { at: 5 });
  playhead.ended = true;
  assert.deepEqual(behind(playhead), { A: "", B: "5 chunks behind A" });
});
