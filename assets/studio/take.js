// @ts-check
/** What a visitor takes home of a run: its link, the frame that is shown, the figures of every chunk. */

import { penOf } from "./canvas.js";
import { findAll, write } from "./dom.js";
import { stageTimes } from "./protocol.js";

/** @import { Playhead, Round } from "./playhead.js" */
/** @import { Session, Manifest } from "./session.js" */

const WIDE = 640; // pixels of one picture of a frame at least
const FOOT = 44; // pixels of the line below it
const SAID = 2000; // milliseconds for which a button says what it has done

/** @param {HTMLElement} stage @param {Session} session */
export function offer(stage, session) {
  /** @type {Record<string, () => Promise<string> | string>} what a button does, and says afterwards */
  const actions = { link: copyLink, frame: () => saveFrame(stage, session), figures: () => saveFigures(session) };
  for (const button of /** @type {HTMLButtonElement[]} */ (findAll(stage, "[data-take]"))) {
    const label = button.textContent ?? "";
    button.addEventListener("click", async () => {
      write(button, await actions[button.dataset.take ?? ""]());
      setTimeout(() => write(button, label), SAID);
    });
    const follow = () => (button.disabled = button.dataset.take !== "link" && !session.player.rounds.length);
    session.player.addEventListener("chunk", follow);
    session.addEventListener("begin", follow);
  }
}

async function copyLink() {
  const address = window.location.href;
  try {
    await navigator.clipboard.writeText(address);
    return "Copied";
  } catch {
    window.prompt("Copy this link:", address); // without https, browsers let no script copy
    return "Copy link";
  }
}

/** @param {string} name @param {Blob} data */
export function save(name, data) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(data);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAID);
}

/**
 * @param {string} policy
 * @returns {string} the name of its rule, without a shorter context pass, parameters and silenced heads
 */
export const ruleOf = (policy) => policy.replace(/^commit:\d+ /, "").split(/[: ]/)[0];

/** @param {Manifest} shown @returns {{ name: string, model: string, seed: string }} of its files, and what they say */
function identity({ link = "", state, streams = [], policies = {} }) {
  const settings = new URLSearchParams(link);
  const seed = settings.get("seed") ?? "";
  const names = streams.map((stream) => ruleOf(policies[stream] ?? ""));
  const parts = state === "recorded" ? ["recorded"] : [`seed${seed}`];
  return { name: ["forcing-kv-studio", ...names, ...parts].join("-"), model: settings.get("model") ?? "", seed };
}

/** @param {HTMLElement} stage @param {Session} session */
async function saveFrame(stage, { player, shown }) {
  const drawn = /** @type {HTMLCanvasElement[][]} */ (
    findAll(stage, ".fkv-frame")
      .filter((frame) => frame.offsetParent)
      .map((frame) => findAll(frame, "canvas"))
  );
  const [{ width, height }] = drawn[0];
  const scale = Math.ceil(WIDE / width);
  const canvas = document.createElement("canvas");
  canvas.width = scale * width * drawn.length;
  canvas.height = scale * height + FOOT;
  const pen = penOf(canvas);
  pen.fillStyle = "#0a0e14";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  drawn.forEach((layers, i) => {
    for (const layer of layers) {
      if (!layer.offsetParent || !layer.width) continue;
      const split = layer.classList.contains("fkv-right") ? splitOf(stage) : 0; // the wipe's right side
      const cut = Math.round(split * layer.width);
      const left = scale * width * (i + split);
      if (cut < layer.width) {
        const wide = scale * width * (1 - split);
        pen.drawImage(layer, cut, 0, layer.width - cut, layer.height, left, 0, wide, scale * height);
      }
    }
  });
  const said = [...placeOf(player), shown.source];
  pen.font = "16px sans-serif";
  pen.textBaseline = "middle";
  pen.fillStyle = "#fff";
  pen.fillText(said.filter(Boolean).join(" · "), 12, canvas.height - FOOT / 2, canvas.width - 24);
  const data = await new Promise((done) => canvas.toBlob(done, "image/png"));
  save(`${identity(shown).name}-chunk${player.at + 1}.png`, data);
  return "Saved";
}

/** @param {Playhead} player @returns {string[]} the chunk of each stream that is shown, the prompt and the policies */
export function placeOf({ at, round, tracks }) {
  const streams = Object.entries(tracks).flatMap(([name, { at: own, round: shown }]) => {
    const policy = shown?.record?.streams[name]?.policy;
    return policy ? [`${name} ${policy}${own === at ? "" : ` at chunk ${own + 1}`}`] : [];
  });
  return [`chunk ${at + 1}`, round?.record?.prompt ?? "", ...streams];
}

/** @param {HTMLElement} stage @returns {number} share of the wipe that shows A */
function splitOf(stage) {
  const both = /** @type {HTMLElement} */ (stage.querySelector(".fkv-both"));
  return parseFloat(both.style.getPropertyValue("--fkv-split")) / 100;
}

/** @param {Session} session */
function saveFigures({ player, shown }) {
  save(`${identity(shown).name}.csv`, new Blob([figures(player.rounds, shown)], { type: "text/csv" }));
  return "Saved";
}

/**
 * @param {Round[]} rounds
 * @param {Manifest} shown
 * @returns {string} CSV with a row per chunk and stream
 */
export function figures(rounds, shown) {
  const { model, seed } = identity(shown);
  const rows = rounds.flatMap(({ number, record }) => {
    return Object.entries(record?.streams ?? {}).map(([stream, own]) => ({
      chunk: number + 1,
      stream,
      policy: own.policy,
      prompt: record?.prompt,
      changes: record?.events.join("; "),
      fps_denoise: own.fps_denoise,
      fps_end_to_end: own.fps_end_to_end,
      kv_bytes: own.kv_bytes,
      ...Object.fromEntries(stageTimes(own).map(([stage, milliseconds]) => [`${stage}_ms`, milliseconds.toFixed(3)])),
      colour_drift: record?.quality?.drift[stream],
      psnr_a_to_b: record?.quality?.psnr === null ? "equal" : record?.quality?.psnr,
      frames_sha256_so_far: own.hash,
      model,
      seed,
      measured: shown.source,
    }));
  });
  const names = Object.keys(rows[0] ?? {});
  return [names, ...rows.map((row) => Object.values(row))].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/** @param {unknown} value */
function cell(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
