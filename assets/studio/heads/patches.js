// @ts-check
/** Where one query patch looks: drawn on the frame, and on every cached frame beside each other. */

import { penOf, sheet } from "../canvas.js";
import { cividis } from "../colours.js";
import { arrowStep, find, findCanvas, write } from "../dom.js";
import { peakOf } from "../overlay.js";
import { kindColour, shared } from "../shared.js";
import { blank } from "./detail.js";
import { percent, shareOf, WAITS } from "./state.js";

/** @import { Attention, ChunkRecord, PatchMap } from "../protocol.js" */
/** @import { HeadsState } from "./state.js" */

const CELL = 74; // pixels that a frame of the strip needs
const [FEWEST, MOST] = [4, 14]; // frames in the strip

export class Patches {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.look = findCanvas(tab, ".fkv-look");
    this.note = find(tab, ".fkv-detail-top .fkv-note");
    this.strip = findCanvas(tab, ".fkv-strip");
    this.stripNote = find(tab, ".fkv-strip-note");
    const { rows, cols } = state.facts;
    this.look.style.aspectRatio = `${cols} / ${rows}`;
    this.look.addEventListener("click", (event) => {
      const { left, top, width, height } = this.look.getBoundingClientRect();
      state.movePatch(
        Math.floor((rows * (event.clientY - top)) / height),
        Math.floor((cols * (event.clientX - left)) / width),
      );
    });
    this.look.addEventListener("keydown", (event) => {
      const step = arrowStep(event);
      if (step) state.movePatch(state.patch.row + step[0], state.patch.col + step[1]);
    });
  }

  /**
   * @param {(ChunkRecord & { heads: Attention }) | null} record
   * @returns {Attention | null} null where the record is of another head
   */
  focused(record) {
    const { layer, head } = this.state.chosen;
    const focus = record?.heads.focus;
    return record && focus?.layer === layer && focus.head === head ? record.heads : null;
  }

  /** Draw the frame that the stage shows, and where the patch looks on it. */
  paintFrame() {
    const { state } = this;
    const { patch, player, streams } = state;
    const pen = penOf(this.look);
    const { width, height } = this.look;
    const screen = player.screens[state.stream];
    const seen = this.focused(state.shown);
    pen.clearRect(0, 0, width, height);
    if (screen && streams.length) pen.drawImage(screen, 0, 0, width, height);
    const found = screen && seen ? this.drawFocus(pen, seen) : "";
    if (!seen) this.outline(pen, patch.row, patch.col, true);
    write(this.note, found || this.waiting());
    this.look.setAttribute("aria-label", `Query patch at row ${patch.row}, column ${patch.col}; arrow keys move it`);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Attention} seen
   * @returns {string} a sentence about it; empty where the frame is not cached
   */
  drawFocus(pen, seen) {
    const frame = this.state.player.of(this.state.stream).latentFrame;
    if (frame === null) return "";
    const map = seen.maps.find(([key]) => key === frame)?.[1];
    const { row, col } = seen.focus;
    const last = seen.frames.at(-1);
    if (map)
      this.drawMap(
        pen,
        map,
        peakOf(seen.maps),
        { x: 0, y: 0, width: this.look.width, height: this.look.height },
        false,
      );
    this.outline(pen, row, col, frame !== last);
    if (!map) return "";
    const share = percent(shareOf(map.flat()));
    const patch = `Patch at row ${row}, column ${col} of frame ${last}`;
    return `${patch}: ${share} of its attention falls on frame ${frame}, the one shown.`;
  }

  /** Why the frame shows no attention. */
  waiting() {
    const { session, running, streams } = this.state;
    if (running) return `${WAITS}.`;
    if (session.state === "recorded") return "A recorded run; go live to follow this head.";
    return streams.length ? "The stream has ended; go live again to follow this head." : "Go live to see frames here.";
  }

  /** Mass on every cached frame. */
  paintStrip() {
    const { state } = this;
    const seen = this.focused(state.shown ?? state.newest);
    if (!seen) {
      blank(this.strip, state.waiting);
      write(this.stripNote, "");
      return;
    }
    const { pen, width, height, size, ink, soft, colour } = sheet(this.strip);
    const room = Math.max(FEWEST, Math.min(MOST, Math.floor(width / CELL)));
    const maps = seen.maps.length <= room ? seen.maps : [seen.maps[0], ...seen.maps.slice(1 - room)];
    const peak = peakOf(seen.maps);
    const { rows, cols } = state.facts;
    const kinds = seen.kinds[seen.groups[state.chosen.layer][state.chosen.head]];
    const wide = width / room - 6;
    const high = Math.min((wide * rows) / cols, height - 2 * size - 8);
    maps.forEach(([frame, map], i) => {
      const x = (i * width) / room;
      const kind = kinds[seen.key_frames.indexOf(frame)];
      this.drawMap(pen, map, peak, { x, y: 0, width: wide, height: high }, true);
      pen.fillStyle = colour(kindColour(kind));
      pen.fillRect(x, high + 2, wide, 4);
      pen.textAlign = "left";
      pen.fillStyle = ink;
      pen.fillText(`${frame} ${kind}`, x, high + 8 + size / 2, wide);
      pen.fillStyle = soft;
      pen.fillText(percent(shareOf(map.flat())), x, high + 8 + 1.6 * size, wide);
    });
    this.describeStrip(maps, seen.maps.length - maps.length, peak);
  }

  /** @param {PatchMap[]} maps @param {number} hidden frames that are left out @param {number} peak */
  describeStrip(maps, hidden, peak) {
    const brightest = `brightest patch ${percent(peak / shared.unit)}`;
    write(this.stripNote, hidden ? `${brightest} · ${hidden} frames after the first are left out` : brightest);
    const shares = maps.map(([frame, map]) => `frame ${frame}: ${percent(shareOf(map.flat()))}`);
    this.strip.setAttribute("aria-label", `Attention on ${shares.join(", ")}`);
  }

  /**
   * Mass per patch in cividis; grey where nothing is cached.
   * @param {CanvasRenderingContext2D} pen
   * @param {number[][]} map
   * @param {number} peak
   * @param {{ x: number, y: number, width: number, height: number }} box
   * @param {boolean} opaque else more opaque where there is more
   */
  drawMap(pen, map, peak, { x, y, width, height }, opaque) {
    const { rows, cols } = this.state.facts;
    map.forEach((line, row) => {
      line.forEach((value, col) => {
        const [left, right] = [col, col + 1].map((at) => Math.round(x + (at * width) / cols));
        const [top, bottom] = [row, row + 1].map((at) => Math.round(y + (at * height) / rows));
        const level = value / peak;
        const alpha = opaque ? 1 : 0.3 + 0.55 * level;
        pen.fillStyle = value === shared.gone ? "rgba(90, 96, 105, .75)" : `rgba(${cividis(level)}, ${alpha})`;
        pen.fillRect(left, top, right - left, bottom - top);
      });
    });
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} row @param {number} col @param {boolean} dashed */
  outline(pen, row, col, dashed) {
    const { rows, cols } = this.state.facts;
    const wide = this.look.width / cols;
    const high = this.look.height / rows;
    pen.setLineDash(dashed ? [8, 6] : []);
    for (const [colour, line] of /** @type {[string, number][]} */ ([
      ["#000", 6],
      ["#fff", 3],
    ])) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(col * wide, row * high, wide, high);
    }
    pen.setLineDash([]);
  }
}
