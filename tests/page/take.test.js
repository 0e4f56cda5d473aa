// @ts-check
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { figures, ruleOf } from "../../assets/studio/take.js";
import { chunk, learnFacts, rounds, stream } from "./records.js";

before(learnFacts);

test("the figures of a run are a row per chunk and stream, and say what was run where", () => {
  const streams = { A: stream({ policy: "forcing-kv:retention=0.3,sink_frames=1" }), B: stream() };
  const run = rounds(
    chunk(0, { streams, quality: { drift: { A: 0, B: 0 }, psnr: null } }),
    chunk(1, { streams, events: ["A = full", "cut"], quality: { drift: { A: 0.25, B: 0.5 }, psnr: 31.5 } }),
  );
  const shown = { state: /** @type {const} */ ("done"), link: "model=tiny&seed=7", source: "live on a CPU, 2 threads" };
  const [head, ...rows] = figures(run, shown).trim().split("\n");
  assert.equal(rows.length, 4);
  assert.ok(rows[0].startsWith('1,A,"forcing-kv:retention=0.3,sink_frames=1",a red ball,,150,120,1000000,'));
  assert.ok(rows[1].includes(",equal,abc,tiny,7,"), "equal frames have no PSNR");
  assert.ok(rows[3].includes("A = full; cut") && rows[3].includes(",0.5,31.5,"));
  assert.ok(rows[3].endsWith('"live on a CPU, 2 threads"'));
  assert.equal(head.split(",").at(-1), "measured");
});

test("files are called by the rules that ran", () => {
  const texts = ["full", "forcing-kv:retention=0.3", "longlive without 3.2", "commit:6 longlive without 3.2"];
  assert.deepEqual(texts.map(ruleOf), ["full", "forcing-kv", "longlive", "longlive"]);
});
