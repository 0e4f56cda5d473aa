// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { addressOf, sayable } from "../../assets/studio/address.js";
import { HeadsState } from "../../assets/studio/heads/state.js";
import { isTaken, listen } from "../../assets/studio/keyboard.js";
import { Player } from "../../assets/studio/player.js";
import { Session } from "../../assets/studio/session.js";
import { openTab } from "../../assets/studio/tabs.js";
import { marksOf } from "../../assets/studio/timeline.js";
import { chunk, learnFacts, rounds, stream } from "./records.js";

/** @import { Manifest } from "../../assets/studio/session.js" */

beforeEach(learnFacts);

/** A session whose player fetches nothing. */
function open() {
  const player = new Player(() => "");
  player.advance = async (count) => {
    player.files = count;
  };
  return new Session(player);
}

/** @param {Manifest["state"]} state @param {Partial<Manifest>} [own] @returns {Manifest} */
const manifest = (state, own) => ({ state, run: "one", began: 1, chunks: 1, fps: 16, streams: ["A"], ...own });

test("a manifest of another run begins it; an older one is ignored", () => {
  const session = open();
  session.receive(manifest("live"));
  session.receive(manifest("live", { run: "two", began: 2 }));
  session.receive(manifest("done", { chunks: 9 }));
  assert.deepEqual([session.player.key, session.state, session.player.wanted], ["two", "live", 1]);
});

test("the recording plays on while a run waits in the queue", () => {
  const session = open();
  session.receive(manifest("recorded", { run: "recording", began: 0 }));
  session.receive(manifest("queued", { chunks: 0 }));
  assert.deepEqual([session.player.key, session.running], ["recording", true]);
  session.receive(manifest("live"));
  assert.deepEqual([session.player.key, session.player.loop], ["one", false]);
});

test("what is shown stays until the first chunk of the next run, and pause already means that run", () => {
  const session = open();
  session.receive(manifest("recorded", { run: "recording", began: 0 }));
  session.receive(manifest("live", { chunks: 0 }));
  assert.deepEqual([session.player.key, session.player.loop, session.runningShown], ["recording", true, true]);
  session.receive(manifest("live", { chunks: 1 }));
  assert.equal(session.player.key, "one");
  session.player.append(chunk(0), 0);
  session.receive(manifest("live", { run: "two", began: 2, chunks: 0 }));
  assert.equal(session.player.key, "one", "the frame of the run before stays");
});

test("chunks of a run that was left for another are not asked for", () => {
  const session = open();
  session.receive(manifest("live"));
  session.goPressed();
  session.receive(manifest("live", { chunks: 5 }));
  assert.equal(session.player.wanted, 1);
  session.receive({ state: "error", text: "no such policy" });
  session.receive(manifest("live", { chunks: 6 }));
  assert.equal(session.player.wanted, 6, "it goes on, since the new one was refused");
});

test("the frame stops at once when pause is pressed and moves again when resumed, whatever arrives late", () => {
  const session = open();
  session.receive(manifest("live"));
  session.pausePressed();
  assert.equal(session.player.held, true);
  session.pausePressed();
  assert.equal(session.player.held, false);
  session.receive(manifest("paused"));
  assert.equal(session.player.held, false, "the visitor has resumed since");
  session.receive(manifest("live"));
  session.receive(manifest("paused"));
  assert.equal(session.player.held, true);
});

test("a step plays its chunk although the stream is paused", () => {
  const session = open();
  session.receive(manifest("live"));
  session.receive(manifest("paused"));
  session.stepPressed();
  session.receive(manifest("live", { chunks: 2 }));
  session.receive(manifest("paused", { chunks: 2 }));
  assert.deepEqual([session.player.held, session.player.wanted], [false, 2]);
});

test("the address holds settings, changes and those still planned, and nothing of an earlier run", () => {
  const run = rounds(chunk(0), chunk(1, { events: ["A = full", "roles: 1.2 dynamic"] }));
  const link = new URLSearchParams({ prompt: "a red ball", seed: "3", story: "1: too late\n9: re-cache = a star" });
  const address = new URL(addressOf("http://host/path?threshold=0.3&talk=1", String(link), run));
  assert.equal(address.searchParams.get("story"), "2: A = full\n9: re-cache = a star");
  assert.deepEqual([...address.searchParams.keys()].sort(), ["prompt", "seed", "story", "talk"]);
  assert.equal(address.pathname, "/path");
  assert.deepEqual(["7: roles: 99 heads changed", "heads = 1.2 dynamic"].map(sayable), [false, true]);
});

test("marks are the first prompt and every change", () => {
  const run = rounds(chunk(0), chunk(1), chunk(2, { events: ["a star", "B = full"] }), null);
  assert.deepEqual(marksOf(run), [
    { chunk: 0, text: "a red ball" },
    { chunk: 2, text: "a star, B = full" },
  ]);
});

/** Heads of a model of 2 layers of 3 heads, of a session in which stream A runs. */
function watching() {
  const session = open();
  const heads = new HeadsState(session);
  const sent = /** @type {[event: string, data: any][]} */ ([]);
  const scores = [
    [0.9, 0.1, 0.5],
    [0.2, 0.8, null],
  ];
  const profile = { scores, static_heads: [[0], [1]], threshold: 0.8 };
  heads.start({ layer: 0, head: 1, row: 3, col: 5 }, (...all) => sent.push(all));
  heads.connect({ model: "m", layers: 2, heads: 3, rows: 6, cols: 10, profile, profiled: null }, (...all) =>
    sent.push(all),
  );
  session.receive(manifest("live"));
  session.player.append(chunk(0, { streams: { A: stream() } }), 0);
  session.player.dispatchEvent(new Event("chunk"));
  return { session, heads, sent };
}

test("a key that is held down acts once, one that scrubs again and again, and a slider keeps its own", () => {
  /** @type {(event: object) => void} */
  let press = () => {};
  Object.assign(globalThis, {
    document: {
      addEventListener: (/** @type {string} */ _, /** @type {any} */ heard) => (press = heard),
      querySelector: () => dialog,
    },
  });
  let dialog = /** @type {object | null} */ (null);
  const acted = /** @type {string[]} */ ([]);
  listen(Object.fromEntries([" ", "ArrowLeft", "End", "?"].map((key) => [key, () => acted.push(key)])));
  const preventDefault = () => {};
  const page = { closest: () => null, matches: () => false };
  const slider = { ...page, closest: (/** @type {string} */ selector) => /range\]$/.test(selector) || null };
  for (const key of [" ", "ArrowLeft"]) {
    for (const repeat of [false, true]) press({ key, repeat, target: page, preventDefault });
  }
  for (const target of [page, slider]) press({ key: "End", target, preventDefault });
  assert.deepEqual(acted, [" ", "ArrowLeft", "ArrowLeft", "End"]);
  const digit = /** @type {any} */ ({ key: "1", target: page });
  const field = { ...page, closest: (/** @type {string} */ selector) => /select/.test(selector) || null };
  assert.deepEqual([isTaken(digit), isTaken({ ...digit, target: field })], [false, true]);
  dialog = {};
  assert.equal(isTaken(digit), true, "a future is not chosen behind a dialog either");
  for (const key of ["End", "?"]) press({ key, target: page, preventDefault });
  assert.deepEqual(acted.slice(4), ["?"], "an open dialog takes every key but the one that closes it");
});

test("an address opens a head where it names one of the Heads tab", () => {
  Object.assign(globalThis, { document: { querySelectorAll: () => [] } });
  /** @type {[query: string, layer: number, head: number][]} */
  const cases = [
    ["tab=heads&head=3.2", 3, 2],
    ["tab=heads&head=1e-1.2", 0, 0],
    ["tab=heads&head=3", 0, 0],
    ["head=99.99", 0, 0],
  ];
  for (const [query, layer, head] of cases) {
    const heads = new HeadsState(open());
    openTab(new URLSearchParams(query), heads);
    assert.deepEqual(heads.chosen, { layer, head }, query);
  }
});

test("attention can be asked for where the Heads tab was never opened", () => {
  const { session, heads } = watching();
  const other = new HeadsState(session);
  /** @type {string[]} */
  const sent = [];
  other.start({ ...heads.chosen, ...heads.patch }, (event) => sent.push(event));
  other.watch({ overlaid: true });
  assert.equal(sent.join(), "look");
});

test("the server watches only while somebody looks, and only what changed", async () => {
  const { session, heads, sent } = watching();
  assert.equal(sent.length, 0);
  heads.watch({ visible: true });
  heads.update();
  assert.deepEqual(sent, [["look", { stream: "A", layer: 0, head: 1, row: 3, col: 5 }]]);
  heads.choose(1, 2);
  heads.choose(1, 0);
  assert.equal(sent.length, 1, "not at once again");
  await new Promise((done) => setTimeout(done, 200));
  assert.deepEqual(sent[1], ["look", { stream: "A", layer: 1, head: 0, row: 3, col: 5 }]);
  heads.watch({ overlaid: true });
  heads.watch({ visible: false });
  assert.equal(sent.length, 2, "the stage still draws it");
  heads.watch({ overlaid: false });
  assert.deepEqual(sent[2], ["look", { stream: null }]);
  heads.watch({ visible: true });
  await new Promise((done) => setTimeout(done, 200));
  session.receive(manifest("done"));
  assert.deepEqual(
    sent.slice(3).map(([, want]) => want.stream),
    ["A", null],
  );
});

test("a message without effect is sent again", () => {
  const { session, heads, sent } = watching();
  heads.watch({ visible: true });
  const arrive = (/** @type {number} */ head) => {
    const focus = { layer: 0, head, row: 3, col: 5, frame: -1 };
    session.player.append(
      chunk(1, { heads: /** @type {any} */ ({ stream: "A", static: null, scores: [], focus }) }),
      0,
    );
    session.player.dispatchEvent(new Event("chunk"));
  };
  arrive(0);
  assert.equal(sent.length, 1, "not yet");
  heads.sentAt -= 3000;
  arrive(0);
  assert.equal(sent.length, 2);
  heads.sentAt -= 3000;
  arrive(1);
  assert.equal(sent.length, 2, "heard");
});

test("heads without a score keep their role at any threshold", () => {
  const { heads } = watching();
  assert.deepEqual(heads.split(0.5), [[0, 2], [1]]);
  heads.facts.profile = { ...heads.facts.profile, static_heads: [[], [2]] };
  assert.deepEqual(heads.split(0.85), [[0], [2]]);
});

test("roles that were asked for show until the stream has them", () => {
  const { session, heads, sent } = watching();
  heads.choose(0, 1);
  heads.flip();
  assert.deepEqual(sent.at(-1), ["roles", { static_heads: [[0, 1], [1]], threshold: null }]);
  assert.deepEqual(heads.roles, [[0, 1], [1]]);
  assert.deepEqual(heads.applied, [[0], [1]]);
  const seen = /** @type {any} */ ({ stream: "A", static: [[0, 1], [1]], threshold: null, scores: [] });
  session.player.append(chunk(1, { heads: seen }), 0);
  session.player.dispatchEvent(new Event("chunk"));
  assert.deepEqual([heads.asked, heads.applied, heads.threshold], [null, [[0, 1], [1]], null]);
});

test("another run forgets edits of the one before", () => {
  const { session, heads } = watching();
  heads.drag(0.3);
  assert.deepEqual(heads.roles, [[0, 2], [1]]);
  session.receive(manifest("live", { run: "two", began: 2 }));
  assert.deepEqual([heads.draft, heads.threshold], [null, 0.8]);
});

test("a silenced head can be unsilenced once, from the next run on", () => {
  const { session, heads, sent } = watching();
  heads.choose(1, 0);
  assert.equal(heads.silenced, false);
  heads.silence();
  assert.deepEqual(sent.at(-1), ["silence", { stream: "A", layer: 1, head: 0, silent: true }]);
  const own = { A: stream({ policy: "full without 0.2+1.0" }) };
  session.player.append(
    chunk(1, { streams: own, heads: /** @type {any} */ ({ stream: "A", static: null, scores: [] }) }),
    0,
  );
  assert.deepEqual([heads.silenced, heads.returns], [true, false]);
  heads.silence();
  assert.equal(sent.at(-1)?.[1].silent, false);
  assert.equal(heads.returns, true);
});

test("while a run waits, or ends without a chunk, the recording stays a recording", () => {
  const session = open();
  const recording = { state: "recorded", run: "sample", chunks: 2, began: 0, link: "", streams: ["A"] };
  session.receive(/** @type {any} */ (recording));
  session.player.append(chunk(0, { streams: { A: stream() } }), 0);
  for (const state of /** @type {const} */ (["queued", "done", "error"])) {
    session.receive(manifest(state, { run: "own", chunks: 0, link: "length=40" }));
    assert.equal(session.state, state);
    assert.deepEqual([session.shown.state, session.shown.link, session.player.key], ["recorded", "", "sample"]);
    assert.deepEqual([session.player.loop, session.player.rounds.length, session.runningShown], [true, 1, false]);
  }
  session.receive(manifest("live", { run: "own", chunks: 1 }));
  assert.deepEqual([session.shown.state, session.player.key, session.runningShown], ["live", "own", true]);
});

test("roles of a file of other scores are asked for as they are, not by its threshold", () => {
  const { heads, sent } = watching();
  heads.load([[0, 1], [1]], 0.6);
  assert.equal(heads.threshold, null);
  heads.apply();
  assert.deepEqual(sent.at(-1), ["roles", { static_heads: [[0, 1], [1]], threshold: null }]);
  heads.load([[0, 2], [1]], 0.5);
  heads.apply();
  assert.deepEqual(sent.at(-1), ["roles", { static_heads: [[0, 2], [1]], threshold: 0.5 }]);
});

test("roles are handed out with the threshold that gives them, or none", () => {
  const { heads } = watching();
  assert.equal(heads.thresholdOf([[0], [1]]), 0.8);
  heads.drag(0.5);
  assert.equal(heads.thresholdOf(heads.roles), 0.5);
  assert.equal(heads.thresholdOf([[0, 1], [1]]), null);
  assert.equal(heads.waiting, "Arrives with the next chunk");
});
