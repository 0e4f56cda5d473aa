// @ts-check
/** Selects for the words that the model knows: each changes one word of the prompt. */

import { promptField, writePrompt } from "./controls.js";

/** @import { Component } from "./stage.js" */
/** @typedef {Record<string, string[]>} Groups words by what they name: colour, shape, motion, place, time */

/** @param {Component<{ groups: Groups, synonyms: Record<string, string> }>} component */
export function mount({ element, props }) {
  const { groups, synonyms } = props.value;
  const selects = Object.entries(groups).map(([group, words]) => {
    const select = document.createElement("select");
    select.setAttribute("aria-label", `${group} in the prompt`);
    select.append(new Option(group, ""), ...words.map((word) => new Option(word)));
    select.options[0].disabled = true;
    select.addEventListener("change", () => {
      writePrompt(withWord(promptField().value, group, select.value, groups, synonyms));
    });
    return select;
  });
  const follow = (/** @type {string} */ prompt) => {
    const known = wordsOf(prompt, groups, synonyms);
    Object.keys(groups).forEach((group, i) => (selects[i].value = known[group]?.word ?? ""));
  };
  const box = document.createElement("div");
  box.className = "fkv-words";
  box.append(...selects);
  element.replaceChildren(box);
  document.addEventListener("fkv-prompt", (event) => follow(String(/** @type {CustomEvent} */ (event).detail ?? "")));
  follow(promptField().value);
}

/**
 * @param {string} prompt
 * @param {Groups} groups
 * @param {Record<string, string>} synonyms
 * @returns {Record<string, { word: string, written: string }>} the first word of every group, and how it is written
 */
export function wordsOf(prompt, groups, synonyms) {
  /** @type {Record<string, { word: string, written: string }>} */
  const found = {};
  for (const written of prompt.match(/[a-z]+/gi) ?? []) {
    const word = synonyms[written.toLowerCase()] ?? written.toLowerCase();
    const group = Object.keys(groups).find((each) => groups[each].includes(word));
    if (group && !found[group]) found[group] = { word, written };
  }
  return found;
}

/**
 * @param {string} prompt
 * @param {string} group
 * @param {string} word
 * @param {Groups} groups
 * @param {Record<string, string>} synonyms
 * @returns {string} the prompt with the word in place of its first of this group; where it has none, a prompt of the
 *   words that it has and this one
 */
export function withWord(prompt, group, word, groups, synonyms) {
  const known = wordsOf(prompt, groups, synonyms);
  const old = known[group]?.written;
  if (old) return articles(prompt.replace(new RegExp(`\\b${old}\\b`), word));
  const { colour, shape, motion, place, time } = Object.fromEntries(
    Object.keys(groups).map((each) => [each, each === group ? word : known[each]?.word]),
  );
  const where = place && `${["city", "desert"].includes(place) ? "in" : "over"} the ${place}`;
  const when = time && `${time === "day" ? "by" : "at"} ${time}`;
  return articles(["a", colour, shape ?? "ball", motion, where, when].filter(Boolean).join(" "));
}

/** @param {string} text @returns {string} with "a" or "an" as the next word begins */
const articles = (text) => text.replace(/\b(a)n?(?= ([a-z]))/gi, (_, a, next) => (/[aeiou]/i.test(next) ? `${a}n` : a));
