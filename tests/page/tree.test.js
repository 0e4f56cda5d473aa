// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { childrenOf, layout, lineage, nameOf, reasons, recipe } from "../../assets/studio/explore/tree.js";

/** @param {number} parent @param {number} depth @param {object} other */
const node = (parent, depth, other = {}) => ({
  parent,
  depth,
  move: "plain",
  noise: 0,
  changes: [],
  reward: 0.5,
  predicted: false,
  parts: { continuity: 0.5 },
  score: 0.5,
  bytes: 500_000,
  cluster: 0,
  why: "",
  decided: false,
  ...other,
});

const TREE = [
  node(-1, 1, { decided: true }),
  node(-1, 1, { noise: 1 }),
  node(0, 2, { noise: 2, changes: ["re-cache = a blue star", "steps = 2"], decided: true }),
  node(0, 2, { why: "not among the best" }),
  node(1, 2, { why: "not among the best" }),
];

test("every leaf has a row of its own, and parents stand amid their children", () => {
  assert.deepEqual(childrenOf(TREE), [[2, 3], [4], [], [], []]);
  assert.deepEqual(layout(TREE), { row: [0.5, 2, 0, 1, 2], rows: 3 });
  assert.deepEqual(layout([]), { row: [], rows: 0 });
});

test("a node is left once all that follows from it is", () => {
  assert.deepEqual(reasons(TREE), [
    "",
    "all that followed was abandoned",
    "",
    "not among the best",
    "not among the best",
  ]);
});

test("a future is repeated by its noise and changes, chunks counted from 1", () => {
  assert.deepEqual(lineage(TREE, 2), [0, 2]);
  assert.deepEqual(recipe(TREE, 2), { noises: "0,2", story: "2: re-cache = a blue star\n2: steps = 2" });
});

test("screen readers hear what is seen", () => {
  const parts = { continuity: 0.4, change: 0.6 };
  assert.equal(
    nameOf(node(0, 3, { parts, cluster: 1, move: "noise 2" }), 6, "not among the best"),
    "Future 7, chunk 3: noise 2; reward 0.50 (continuity 0.40, change 0.60); looks like group B; " +
      "holds 0.50 MB of cache; abandoned: not among the best",
  );
});

test("a predicted reward is called one", () => {
  const said = nameOf(node(0, 3, { predicted: true, parts: {} }), 6, "");
  assert.match(said, /; reward 0\.50, predicted and not measured; looks/);
});
