// @ts-check
/** Rules of a board: which are within limits, in which order, and how their measures are written. */

/**
 * @typedef {{ mean: number, low: number | null, high: number | null }} Interval of 95 % over prompts
 * @typedef {{ title: string, digits: number, better: "high" | "low" | "zero" | "none", help: string }} Measure
 */

/**
 * A rule on a track, as the server tells it (`fkv.studio.tabs.board.told`).
 * @typedef {object} Row
 * @property {string} board
 * @property {string} name of its files
 * @property {string} policy
 * @property {string} rule
 * @property {string} family
 * @property {string} paper
 * @property {string} reading
 * @property {string} parity
 * @property {string} origin
 * @property {string} track
 * @property {number | null} frames of the budget
 * @property {Record<string, Interval>} measures
 * @property {string[]} differs measures that differ from the reference's by more than chance
 * @property {number | null} frames_denoise
 * @property {number | null} frames_context
 * @property {string | null} positions
 * @property {number | null} span
 * @property {string | null} granularity
 * @property {string | null} calibration
 * @property {number | null} passes
 * @property {number | null} kv_bytes
 * @property {number | null} peak_bytes
 * @property {number | null} ms_generate
 * @property {number | null} ms_total
 * @property {number | null} fps
 * @property {boolean} busy
 * @property {string | null} device
 * @property {number} videos
 * @property {string} date
 * @property {boolean} clip
 * @property {string | null} live
 * @property {{ frames: number, groups: import("../protocol.js").GroupPages[] } | null} xray
 */

/**
 * @typedef {object} Limits
 * @property {string} track "" for all
 * @property {string} text that a rule must contain
 * @property {number} peak bytes at most
 * @property {number} kv bytes at most
 * @property {number} frames read at most
 * @property {number} fps at least
 */

/** @param {Row} row @returns {string} the track with its budget */
export const trackOf = (row) => (row.frames === null ? row.track : `${row.track}: ${row.frames} frames`);

/**
 * Rules without costs, such as videos that the world draws, pass every limit but that on speed.
 * @param {Row[]} rows
 * @param {Limits} limits
 */
export function within(rows, { track, text, peak, kv, frames, fps }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    const said = [row.policy, row.rule, row.family, row.parity, row.paper, row.track].join(" ").toLowerCase();
    return (
      (!track || trackOf(row) === track) &&
      words.every((word) => said.includes(word)) &&
      (row.peak_bytes ?? 0) <= peak &&
      (row.kv_bytes ?? 0) <= kv &&
      (row.frames_denoise ?? 0) <= frames &&
      (row.fps ?? (fps > 0 ? 0 : Infinity)) >= fps
    );
  });
}

/**
 * @param {Row} row
 * @param {string} name of a measure
 * @param {Record<string, Measure>} measures
 * @returns {number} larger is better
 */
export function goodness(row, name, measures) {
  const mean = row.measures[name]?.mean;
  if (mean === undefined) return -Infinity;
  return { high: mean, none: mean, low: -mean, zero: -Math.abs(mean) }[measures[name].better];
}

/**
 * @param {Row[]} rows
 * @param {string} name of a measure
 * @param {Record<string, Measure>} measures
 * @returns {Row[]} the best first; rows that are equally good keep their order
 */
export const ordered = (rows, name, measures) =>
  rows
    .map((row) => /** @type {const} */ ([goodness(row, name, measures), row]))
    .sort(([a], [b]) => (a === b ? 0 : b - a))
    .map(([, row]) => row);

/** @param {number} value @param {Measure} measure */
export const written = (value, { digits, better }) =>
  (better === "zero" && value >= 0 ? "+" : "") + value.toFixed(digits);

/**
 * @param {Row[]} rows
 * @param {string} name of a measure
 * @returns {[low: number, high: number]} what all error bars of a column span
 */
export function spanOf(rows, name) {
  const values = rows.flatMap((row) => {
    const found = row.measures[name];
    return found ? [found.low ?? found.mean, found.high ?? found.mean] : [];
  });
  const low = Math.min(...values);
  const high = Math.max(...values);
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

/**
 * @param {number} share 0 to 1 along a slider
 * @param {number} most
 * @param {(limit: number) => number} round to what the page writes, so that a row that reads the limit meets it
 * @returns {number} a limit; no limit at the end
 */
export const atMost = (share, most, round) => (share >= 1 ? Infinity : round(share * most));

/** @param {number} value @returns {number} bytes in hundredths of a GB, or tenths of a MB */
export function roundBytes(value) {
  const step = value >= 1e9 ? 1e7 : 1e5;
  return Math.round(value / step) * step;
}

/**
 * @param {Row} row
 * @param {Row | undefined} base the reference
 * @returns {Row[]} whose videos are shown: the rule's, then the reference's; none where the rule has none
 */
export const filmed = (row, base) => (row.clip ? [row, ...(base?.clip && base !== row ? [base] : [])] : []);
