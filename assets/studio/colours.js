// @ts-check
/** The colour map of scores, and which colour of the page stands for which head role. */

const STOPS = [
  "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073",
  "7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838",
];
const CIVIDIS = STOPS.join(" ")
  .split(" ")
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/**
 * @param {number} level in [0, 1]
 * @returns {string} "r, g, b" of cividis, the perceptual colour map of all scores
 */
export function cividis(level) {
  const place = Math.max(0, Math.min(1, level)) * (CIVIDIS.length - 1);
  const low = Math.floor(place);
  const high = Math.min(CIVIDIS.length - 1, low + 1);
  return CIVIDIS[low].map((value, i) => Math.round(value + (place - low) * (CIVIDIS[high][i] - value))).join(", ");
}

/** CSS variables of head roles. @type {Record<string, string>} */
export const ROLES = { static: "--fkv-static", dynamic: "--fkv-dynamic" };

/** Ground of letters and words that must be legible on any frame. */
export const PLATE = "rgba(10, 14, 20, .82)";
