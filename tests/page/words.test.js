// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { withWord, wordsOf } from "../../assets/studio/words.js";

const GROUPS = {
  colour: ["red", "orange"],
  shape: ["ball", "star"],
  motion: ["bouncing"],
  place: ["hills", "city"],
  time: ["day", "night"],
};
const SYNONYMS = { sphere: "ball", town: "city" };

test("a word takes the place of the prompt's own, also of a synonym, with the right article", () => {
  const change = (/** @type {string} */ group, /** @type {string} */ word) =>
    withWord("A red sphere bouncing over the town at night", group, word, GROUPS, SYNONYMS);
  assert.equal(change("colour", "orange"), "An orange sphere bouncing over the town at night");
  assert.equal(change("shape", "star"), "A red star bouncing over the town at night");
  assert.equal(change("place", "hills"), "A red sphere bouncing over the hills at night");
  assert.equal(withWord("an orange ball", "colour", "red", GROUPS, SYNONYMS), "a red ball");
});

test("a prompt without such a word becomes one of the words that are known", () => {
  assert.equal(withWord("a great red star", "place", "city", GROUPS, SYNONYMS), "a red star in the city");
  assert.equal(withWord("", "time", "day", GROUPS, SYNONYMS), "a ball by day");
  assert.deepEqual(wordsOf("a red ball and an orange star", GROUPS, SYNONYMS).colour.word, "red");
});
