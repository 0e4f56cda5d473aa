// @ts-check
/** The row of chunks: click or drag to scrub; marks where something was changed. */

import { clip, sheet } from "./canvas.js";
import { find, findButton, findCanvas, write } from "./dom.js";

/** @import { Round } from "./playhead.js" */
/** @import { Session } from "./session.js" */
/** @typedef {{ chunk: number, text: string }} Mark */

const FEWEST = 12; // chunks that the timeline of an endless run has room for at least

/** @param {Round[]} rounds @returns {Mark[]} the first prompt, and every change by the chunk from which it holds */
export function marksOf(rounds) {
  return rounds.flatMap(({ number, record }) => {
    const changes = [...(record?.events ?? []), ...(record?.branch ? [record.branch] : [])];
    const text = number === 0 ? (record?.prompt ?? "") : changes.join(", ");
    return number === 0 || text ? [{ chunk: number, text }] : [];
  });
}

export class Timeline {
  /** @type {Mark[]} */
  marks = [];

  /** @param {HTMLElement} stage @param {Session} session */
  constructor(stage, session) {
    this.session = session;
    this.canvas = findCanvas(stage, ".fkv-timeline");
    this.list = find(stage, ".fkv-marks");
    this.pace = find(stage, ".fkv-pace");
    this.play = findButton(stage, ".fkv-play");
    this.edge = findButton(stage, ".fkv-edge");
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.seekAt(event);
    });
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.edge.addEventListener("click", () => session.player.follow());
  }

  begin() {
    this.marks = [];
    this.list.replaceChildren();
  }

  /** List the marks, where one is new or tells more, as once B comes to a chunk that A has had. */
  collect() {
    const marks = marksOf(this.session.player.rounds);
    if (JSON.stringify(marks) === JSON.stringify(this.marks)) return;
    this.marks = marks;
    const items = marks.map(({ chunk, text }) => {
      const item = document.createElement("li");
      item.textContent = `chunk ${chunk + 1}: ${text}`;
      return item;
    });
    this.list.replaceChildren(...items);
  }

  /** Chunks that the timeline has room for. */
  get room() {
    const { player, runningShown, shown } = this.session;
    const length = Number(new URLSearchParams(shown.link).get("length")) || FEWEST;
    return Math.max(1, player.rounds.length, runningShown && !player.loop ? length : player.wanted);
  }

  /** @param {PointerEvent} event @returns {number} number of the chunk under the pointer */
  chunkAt(event) {
    const { left, width } = this.canvas.getBoundingClientRect();
    return Math.floor(((event.clientX - left) / width) * this.room);
  }

  /** @param {PointerEvent} event */
  seekAt(event) {
    const number = this.chunkAt(event);
    if (number >= 0 && number < this.session.player.rounds.length) this.session.player.seek(number);
  }

  /** @param {PointerEvent} event */
  hover(event) {
    if (event.buttons) this.seekAt(event);
    const chunk = this.chunkAt(event);
    const mark = this.marks.findLast((each) => each.chunk <= chunk);
    const there = mark && chunk < this.session.player.rounds.length;
    this.canvas.title = there ? `chunk ${chunk + 1}; since chunk ${mark.chunk + 1}: ${mark.text}` : "";
  }

  paint() {
    const { player } = this.session;
    const count = player.rounds.length;
    const shown = player.round ? player.at : -1;
    this.draw(count, shown);
    this.canvas.setAttribute("aria-valuemax", String(count));
    this.canvas.setAttribute("aria-valuenow", String(shown + 1));
    this.canvas.setAttribute("aria-valuetext", count ? `chunk ${shown + 1} of ${count}` : "nothing generated yet");
    this.edge.disabled = !count || shown === count - 1 || player.loop;
    write(this.pace, count ? this.paceText() : "");
    this.paintPlay();
  }

  /** @param {number} count of chunks @param {number} shown number of the chunk that is shown */
  draw(count, shown) {
    const { pen, width, height, size, ink, colour } = sheet(this.canvas);
    const { room } = this;
    const found = this.session.player.rounds.findIndex((round) => round.record?.branch);
    const branch = found < 0 ? Infinity : found;
    const cell = width / room;
    const top = size + 6;
    for (let i = 0; i < room; i++) {
      pen.fillStyle = i === shown ? ink : colour(i < count ? "--fkv-done" : "--fkv-kind-dropped");
      const wide = Math.max(0.5, cell - (cell > 4 ? 2 : 0));
      pen.fillRect(i * cell, top, wide, height - top);
      if (i >= branch) pen.clearRect(i * cell, (top + height) / 2 - 1, wide, 2); // two futures
    }
    pen.textAlign = "left";
    pen.fillStyle = ink;
    this.marks.forEach((mark, i) => {
      const x = mark.chunk * cell;
      const end = i + 1 < this.marks.length ? this.marks[i + 1].chunk * cell : width;
      pen.fillRect(x, 0, 2, height);
      pen.fillText(clip(pen, `${i + 1} · ${mark.text}`, end - x - 12), x + 6, size / 2 + 1);
    });
  }

  paceText() {
    const { player, shown } = this.session;
    const { state } = shown;
    const live = player.following && !player.ended;
    const pace = live ? player.lead.pace : player.fps;
    const name = state === "recorded" ? "recording" : live ? "live" : "replay";
    if (player.gone) return `${name}, frames no longer kept`;
    if (state === "paused" && player.following) return `${name}, paused`;
    if (player.held) return `${name}, held`;
    return `${name}, ${pace > player.fps + 0.5 ? "catching up" : `${pace.toFixed(0)} of ${player.fps} fps shown`}`;
  }

  /** The button that plays and pauses what is shown, a replay or the stream. */
  paintPlay() {
    const { player, runningShown: running } = this.session;
    const done = player.following && player.ended;
    const text = !player.held && !done ? "Pause" : running ? "Resume" : "Play";
    this.play.disabled = !player.rounds.length;
    write(this.play, text);
    this.play.setAttribute("aria-label", `${text} the ${running ? "stream" : "replay"}`);
  }
}
