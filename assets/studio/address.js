// @ts-check
/** The address bar holds the run: its settings, and what was changed while it ran, as a storyboard. */

/** @import { Round } from "./playhead.js" */

const FIELDS = "model prompt seed length view a b threshold story branch schedule frames path".split(" ");

/**
 * @param {string} event
 * @returns {boolean} whether a storyboard can say it; other roles of very many heads at once cannot be said
 */
export const sayable = (event) => !/^(\d+: )?roles: /.test(event);

/**
 * @param {string} href the address as it is
 * @param {string} link query of the run's settings
 * @param {Round[]} rounds
 * @returns {string} the address that brings the run back, with nothing left over from an earlier run
 */
export function addressOf(href, link, rounds) {
  const address = new URL(href);
  const settings = new URLSearchParams(link);
  const made = rounds
    .flatMap((round) => (round.record?.events ?? []).map((event) => `${round.number + 1}: ${event}`))
    .filter(sayable);
  const planned = (settings.get("story") ?? "").split("\n").filter((line) => parseInt(line, 10) > rounds.length);
  const story = [...made, ...planned].join("\n");
  settings.delete("story");
  if (story) settings.set("story", story);
  for (const field of FIELDS) address.searchParams.delete(field);
  for (const [field, value] of settings) address.searchParams.set(field, value);
  return address.href;
}

/** @param {string} link @param {Round[]} rounds */
export function remember(link, rounds) {
  if (!link) return;
  const address = addressOf(window.location.href, link, rounds);
  if (address !== window.location.href) window.history.replaceState(null, "", address);
}
