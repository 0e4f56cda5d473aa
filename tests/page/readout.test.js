// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { sharing } from "../../assets/studio/readout.js";

test("with whom a visitor shares passes is said beside the FPS", () => {
  assert.deepEqual(
    [undefined, 1, 2, 3].map((rows) => sharing(rows)),
    ["", "", ", shared with 1 other", ", shared with 2 others"],
  );
});
