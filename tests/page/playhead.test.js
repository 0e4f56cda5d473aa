// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { latentFrame, Playhead } from "../../assets/studio/playhead.js";
import { chunk, learnFacts, stream } from "./records.js";

beforeEach(learnFacts);

/** A run of `count` chunks of 12 frames, one every `interval` ms from 0 on. @param {number} count */
function run(count, { interval = 750, loop = false } = {}) {
  const playhead = new Playhead();
  playhead.reset("run", 16, loop);
  for (let number = 0; number < count; number++) playhead.append(chunk(number), number * interval);
  playhead.wanted = count;
  return playhead;
}

test("rounds begin where the one before ended, also where a chunk is gone", () => {
  const playhead = run(2);
  playhead.append(chunk(3), 0);
  assert.deepEqual(
    playhead.rounds.map((round) => [round.start, round.frames]),
    [
      [0, 12],
      [12, 12],
      [24, 0],
      [24, 12],
    ],
  );
  assert.equal(playhead.lead.total, 36);
  assert.equal(playhead.newest?.index, 3);
});

test("a live stream plays at the pace at which chunks arrive, at most a little faster than its video", () => {
  const slow = run(1);
  for (let number = 1; number < 16; number++) {
    Object.assign(slow.lead, { at: number - 1, offset: 7 }); // as many frames are left as should be
    slow.append(chunk(number), number * 3000); // 4 frames a second
  }
  assert.ok(Math.abs(slow.lead.pace - 4) < 0.3, `pace ${slow.lead.pace}`);
  const fast = run(2, { interval: 100 });
  assert.equal(fast.lead.pace, 1.15 * 16);
});

test("the fewer frames are left, the slower the pace", () => {
  const pace = (/** @type {number} */ offset) => {
    const playhead = run(1);
    Object.assign(playhead.lead, { rate: 10, offset });
    playhead.append(chunk(1), 1200);
    return playhead.lead.pace;
  };
  assert.ok(pace(11) < pace(8) && pace(8) < pace(6));
});

test("seconds during which the frame was held do not slow the pace", () => {
  const playhead = run(1);
  playhead.hold(true);
  playhead.append(chunk(1), 60_000);
  assert.ok((playhead.lead.rate ?? 0) > 100, `rate ${playhead.lead.rate}`);
});

test("a stream that fell behind in the background jumps to the newest chunks", () => {
  const playhead = run(4);
  assert.equal(playhead.at, 0);
  playhead.append(chunk(4), 0);
  assert.equal(playhead.at, 3);
  playhead.seek(0);
  playhead.append(chunk(5), 0);
  assert.equal(playhead.at, 0, "what was sought stays");
});

test("seeking stays within the run and stops following; following returns to the newest chunk", () => {
  const playhead = run(3);
  playhead.seek(-4);
  assert.deepEqual([playhead.at, playhead.lead.offset, playhead.following], [0, 0, false]);
  playhead.seek(9);
  assert.equal(playhead.at, 2);
  playhead.seek(1);
  playhead.follow();
  assert.deepEqual([playhead.at, playhead.lead.offset, playhead.following], [2, 0, true]);
  playhead.ended = true;
  playhead.follow();
  assert.equal(playhead.frame, 11, "the end of a finished run is its last frame");
});

test("playing crosses chunks and waits at the last frame of a live stream", () => {
  const playhead = run(2);
  playhead.seek(0);
  playhead.lead.offset = 11;
  playhead.play(0.125); // 2 frames at 16 a second
  assert.deepEqual([playhead.at, playhead.frame, playhead.position], [1, 1, 13]);
  for (let i = 0; i < 20; i++) playhead.play(0.25);
  assert.deepEqual([playhead.at, playhead.frame, playhead.following], [1, 11, true]);
});

test("a held frame stays, and a long pause of the clock counts for a quarter of a second", () => {
  const playhead = run(2);
  playhead.seek(0);
  playhead.hold(true);
  playhead.play(1);
  assert.equal(playhead.lead.offset, 0);
  playhead.hold(false);
  playhead.play(30);
  assert.equal(playhead.lead.offset, 4);
});

test("a recording starts over at its end, but not before all of it has arrived", () => {
  const playhead = run(2, { loop: true });
  playhead.seek(1);
  for (let i = 0; i < 3; i++) playhead.play(0.25);
  assert.deepEqual([playhead.at, playhead.lead.offset], [0, 0]);
  playhead.wanted = 3;
  for (let i = 0; i < 12; i++) playhead.play(0.25);
  assert.deepEqual([playhead.at, playhead.frame], [1, 11]);
});

test("chunks that are gone are passed over", () => {
  const playhead = run(1);
  playhead.append(chunk(2), 0);
  playhead.seek(0);
  playhead.lead.offset = 11.9;
  playhead.play(0.1);
  assert.equal(playhead.at, 2);
});

test("another run begins from nothing and says so", () => {
  const playhead = run(3);
  let resets = 0;
  playhead.addEventListener("reset", () => resets++);
  playhead.reset("other", 24);
  assert.deepEqual(
    [playhead.rounds.length, playhead.wanted, playhead.lead.pace, playhead.following, resets],
    [0, 0, 24, true, 1],
  );
  assert.equal(playhead.round, null);
});

test("the last latent frame of a chunk covers its last video frames", () => {
  const round = { number: 1, start: 12, frames: 12, record: chunk(1) }; // latent frames 3, 4, 5
  assert.deepEqual(
    [0, 3, 4, 7, 8, 11].map((frame) => latentFrame(round, frame)),
    [3, 3, 4, 4, 5, 5],
  );
  const first = { number: 0, start: 0, frames: 9, record: chunk(0) }; // as from a causal decoder
  assert.deepEqual(
    [0, 1, 4, 5, 8].map((frame) => latentFrame(first, frame)),
    [0, 1, 1, 2, 2],
  );
});

/** Chunks `from` to `to` of one stream of two, each in a file of its own. */
function* of(/** @type {"A" | "B"} */ name, /** @type {number} */ from, /** @type {number} */ to) {
  for (let i = from; i < to; i++)
    yield chunk(i, { streams: { [name]: stream() }, ...(name === "A" ? { later: ["B"] } : {}) });
}

/** A run whose stream A has 8 chunks and B 3. */
function apart() {
  const playhead = new Playhead();
  playhead.reset("run", 16);
  [...of("A", 0, 8), ...of("B", 0, 3)].forEach((record, file) => playhead.append(record, 750 * file, file));
  return playhead;
}

test("each stream is shown as far as its chunks have come, and none waits for the other", () => {
  const playhead = apart();
  const { A, B } = playhead.tracks;
  for (let i = 0; i < 100; i++) playhead.play(0.25);
  assert.deepEqual([A.at, A.frame, B.at, B.frame], [7, 11, 2, 11]);
  assert.deepEqual([playhead.lead, playhead.last, playhead.at], [A, B, 7]);
  assert.deepEqual(Object.keys(playhead.rounds[2].record?.streams ?? {}), ["A", "B"]);
  assert.deepEqual([playhead.rounds[2].record?.later, playhead.rounds[3].record?.later], [undefined, ["B"]]);
});

test("what compares streams frame by frame shows both where the slower one is", () => {
  const playhead = apart();
  const { A, B } = playhead.tracks;
  playhead.aligned = true;
  for (let i = 0; i < 100; i++) playhead.play(0.25);
  assert.deepEqual([A.at, A.frame], [B.at, B.frame]);
  assert.equal(B.at, 2);
});

test("a replay shows all streams at the same frame, and waits where one is not decoded", () => {
  const playhead = apart();
  const { A, B } = playhead.tracks;
  playhead.ended = true;
  playhead.seek(1);
  playhead.play(0.25, ["B"]);
  assert.deepEqual([A.offset, B.offset], [0, 0]);
  playhead.play(0.25);
  assert.deepEqual([A.at, A.offset, B.at, B.offset], [1, 4, 1, 4]);
});

test("a stream that leaves another one goes on from where both were", () => {
  const playhead = run(2);
  playhead.play(0.25);
  playhead.append(chunk(2, { streams: { A: stream(), B: stream() } }), 1500);
  const { A, B } = playhead.tracks;
  for (let i = 0; i < 6; i++) {
    assert.deepEqual([B.at, B.offset, B.position], [A.at, A.offset, A.position]);
    playhead.play(0.25);
  }
});
