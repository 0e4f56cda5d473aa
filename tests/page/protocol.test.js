// @ts-check
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";
import { parse, secondsOf, stageTimes } from "../../assets/studio/protocol.js";
import { chunk, learnFacts, stream } from "./records.js";

before(learnFacts);

/** @param {Uint8Array[]} parts @returns {ArrayBuffer} */
function joined(...parts) {
  const chunks = parts.flatMap((part) => [new Uint8Array(new Uint32Array([part.length]).buffer), part]);
  const whole = Buffer.concat(chunks);
  return whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.length);
}

test("a chunk file is its record and the JPEGs, in order", () => {
  const record = chunk(3);
  const { record: found, jpegs } = parse(
    joined(Buffer.from(JSON.stringify(record)), Buffer.from([1, 2, 3]), Buffer.from([])),
  );
  assert.deepEqual(found, record);
  assert.deepEqual(
    jpegs.map((each) => [...each]),
    [[1, 2, 3], []],
  );
});

test("the recording that ships is parsed: facts, then chunk files with as many JPEGs as frames", () => {
  const data = readFileSync(new URL("../../assets/studio/recorded.bin", import.meta.url));
  const { record: facts, jpegs: files } = parse(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
  assert.ok("checkpoint" in facts && files.length > 1);
  for (const file of files) {
    const { record, jpegs } = parse(/** @type {ArrayBuffer} */ (file.slice().buffer));
    const frames = Object.values(record.streams).reduce((sum, own) => sum + own.video_frames, 0);
    assert.equal(jpegs.length, frames);
    assert.deepEqual([...jpegs[0].slice(0, 2)], [0xff, 0xd8]);
  }
});

test("stages are in the order in which they run, in milliseconds", () => {
  const times = stageTimes(stream({ text_s: 0.004, denoise_s: 0.1 }));
  assert.deepEqual(
    times.map(([stage, ms]) => [stage, Math.round(ms)]),
    [
      ["text", 4],
      ["rebuild", 0],
      ["denoise", 100],
      ["context", 20],
      ["decode", 20],
    ],
  );
});

test("a chunk's seconds are those of all its streams", () => {
  assert.ok(Math.abs(secondsOf(chunk(0, { streams: { A: stream(), B: stream({ denoise_s: 0.16 }) } })) - 0.3) < 1e-9);
});
