// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { writeStatus } from "../../assets/studio/dom.js";
import { Films } from "../../assets/studio/explore/films.js";
import { fetchFile } from "../../assets/studio/files.js";
import { Player } from "../../assets/studio/player.js";
import { chunk, learnFacts } from "./records.js";

/** @import { TestContext } from "node:test" */

const FILE = new Uint8Array([2, 0, 0, 0, 0x7b, 0x7d, 1, 0, 0, 0, 9]); // {} and one JPEG

/**
 * Let the network and the server answer so, one after the other.
 * @param {TestContext} t
 * @param {(number | Error)[]} answers
 */
function answering(t, answers) {
  t.mock.method(globalThis, "setTimeout", (/** @type {() => void} */ done) => queueMicrotask(done));
  return t.mock.method(globalThis, "fetch", async () => {
    const answer = answers.shift() ?? 200;
    if (answer instanceof Error) throw answer;
    return new Response(FILE, { status: answer });
  });
}

test("a file is fetched again for as long as the network or the server fails", async (t) => {
  const fetched = answering(t, [...Array(9).fill(new TypeError("network")), 503, 500]);
  const file = await fetchFile("stage/key/0", () => true);
  assert.deepEqual([file?.record, file?.jpegs.length, fetched.mock.callCount()], [{}, 1, 12]);
});

test("a file that the server does not keep, or that nobody wants, is not fetched again", async (t) => {
  const fetched = answering(t, [404, 410, new TypeError("network")]);
  assert.equal(await fetchFile("stage/key/0", () => true), null);
  assert.equal(await fetchFile("stage/key/0", () => true), null);
  assert.equal(await fetchFile("stage/key/0", () => fetched.mock.callCount() < 3), null);
  assert.equal(fetched.mock.callCount(), 3);
});

test("the frames of a future come although the network failed at first", async (t) => {
  answering(t, [new TypeError("network"), 200, 404]);
  const films = new Films("key");
  assert.deepEqual([(await films.of(0)).length, (await films.of(1)).length], [1, 0]);
});

test("a chunk that the server no longer keeps leaves no picture of another one", async (t) => {
  learnFacts();
  answering(t, [404]);
  const drawn = /** @type {string[]} */ ([]);
  const pen = { drawImage: () => drawn.push("picture"), clearRect: () => drawn.push("blank") };
  const player = new Player(() => "stage/key/0");
  player.screens = { A: /** @type {any} */ ({ width: 8, height: 8, getContext: () => pen }) };
  player.reset("key", 16);
  for (const index of [0, 1]) player.append(chunk(index), 0);
  player.near.set(1, { A: Array(12).fill({ width: 8, height: 8, close() {} }) });
  player.seek(1);
  assert.deepEqual([drawn, player.gone], [["picture"], false]);
  player.seek(0);
  assert.deepEqual([drawn, player.gone], [["picture"], false], "while it is fetched");
  for (let turns = 0; turns < 9; turns++) await new Promise((done) => setImmediate(done));
  player.tick(0);
  assert.deepEqual([drawn, player.gone, player.painted.A], [["picture", "blank"], true, 1]);
});

test("a status of which only the figures have changed is not announced", () => {
  /** @type {string[]} */
  const live = [];
  const setAttribute = (/** @type {string} */ name, /** @type {string} */ value) => live.push(`${name} ${value}`);
  const node = /** @type {any} */ ({ textContent: "", setAttribute });
  for (const text of [
    "Streaming chunk 9 of 40: full, seed 1.",
    "Streaming chunk 10 of 40, B at chunk 8: full, seed 1.",
    "Streaming chunk 11 of 40: sliding-window, seed 1.",
    "Paused after 12 chunks.",
  ])
    writeStatus(node, text);
  assert.deepEqual(
    live,
    ["polite", "off", "polite", "polite"].map((how) => `aria-live ${how}`),
  );
});
