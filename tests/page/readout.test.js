// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { sharing } from "../../assets/studio/readout.js";

test("with whom a visitor shares passes is said below the FPS", () => {
  assert.deepEqual(
    [undefined, 1, 2, 3].map((rows) => sharing(rows)),
    ["", "", "\nshared with 1 other", "\nshared with 2 others"],
  );
});
