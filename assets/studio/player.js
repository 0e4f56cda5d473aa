/* Plays chunks that arrive at an uneven pace: fetches each chunk's file, decodes it near the playhead, keeps one clock for both canvases. */

const NEAR = 5; // chunks on either side of the playhead that stay decoded
const SPARE = 5; // frames that should be left when the next chunk arrives

class Player {
  constructor(url, screens, onshow, onpaint) {
    this.url = url; // (key, number) -> address of a chunk file
    this.screens = screens; // stream name -> canvas
    this.onshow = onshow; // called when another chunk comes on screen or a new one is known
    this.onpaint = onpaint; // called when another frame is on screen
    this.painted = { A: 0, B: 0 };
    this.reset(null, 16);
    this.last = performance.now();
    const tick = (now) => { this.tick(now); this.request = requestAnimationFrame(tick); };
    this.request = requestAnimationFrame(tick);
  }

  /* Begin with another run; with `loop` it is a finished one, played from its start over and over. */
  reset(key, fps, loop = false) {
    this.drop(() => true);
    Object.assign(this.painted, { A: 0, B: 0 });
    this.key = key; this.fps = fps; this.rounds = []; this.near = new Map(); this.wanted = 0; this.busy = false;
    this.at = 0; this.offset = 0; this.shown = null; this.held = false;
    this.loop = this.ended = loop; this.following = !loop;
    this.rate = null; this.pace = fps; this.arrived = null;
  }

  drop(which) {
    for (const [number, pictures] of this.near || []) {
      if (!which(number)) continue;
      this.near.delete(number);
      Promise.resolve(pictures).then((each) => each && Object.values(each).flat().forEach((bitmap) => bitmap.close()));
    }
  }

  get total() { const last = this.rounds.at(-1); return last ? last.start + last.frames : 0; }
  get position() { const round = this.rounds[this.at]; return round ? round.start + this.offset : 0; }

  /* There are `count` chunks on the server: fetch those that are not here yet, in order. */
  async advance(count) {
    this.wanted = Math.max(this.wanted, count);
    if (this.busy) return;
    this.busy = true;
    const key = this.key;
    while (this.key === key && this.rounds.length < this.wanted) {
      const file = await this.file(key, this.rounds.length);
      if (this.key !== key) return;
      this.add(file);
    }
    this.busy = false;
  }

  /* One chunk file, parsed; null when the server keeps it no longer. */
  async file(key, number) {
    for (const wait of [0, 200, 600, 1500]) {
      await new Promise((done) => setTimeout(done, wait));
      try {
        const answer = await fetch(this.url(key, number));
        if (answer.status === 404) return null;
        if (answer.ok) return parse(await answer.arrayBuffer());
      } catch { /* the network; try again */ }
    }
    return null;
  }

  add(file) {
    const number = this.rounds.length, start = this.total;
    if (!file) { this.rounds.push({ number, start, frames: 0, record: null }); return; }
    const streams = Object.values(file.record.streams), frames = streams[0].video_frames;
    this.rounds.push({ number, start, frames, record: file.record });
    const now = performance.now(), seconds = streams.reduce((sum, each) => sum + stages(each).total, 0);
    const measured = this.arrived && !this.held ? (1000 * frames) / (now - this.arrived) : frames / seconds;
    this.rate = this.rate === null ? measured : 0.6 * this.rate + 0.4 * measured;
    this.arrived = now;
    const left = this.total - this.position;
    this.pace = Math.min(1.15 * this.fps, Math.max(1, this.rate * (1 + (0.5 * (left - frames - SPARE)) / frames)));
    if (this.following && left > 4 * frames + SPARE) { this.at = number - 1; this.offset = 0; } // the tab was hidden
    if (Math.abs(number - this.at) <= NEAR) this.keep(number, decode(file));
    this.onshow(this.rounds[this.at]);
  }

  hold(held) {
    if (this.held && !held) this.arrived = null;
    this.held = held;
  }

  /* Show a chunk that was there before, and play on from it unless the picture is held. */
  seek(number) {
    if (!this.rounds.length) return;
    this.at = Math.max(0, Math.min(this.rounds.length - 1, number));
    this.offset = 0;
    this.following = false;
    this.tick(performance.now());
  }

  follow() {
    if (!this.rounds.length) return;
    this.following = true;
    this.at = this.rounds.length - 1;
    this.offset = this.ended ? Math.max(0, this.rounds[this.at].frames - 1) : 0;
  }

  tick(now) {
    const elapsed = Math.min(0.25, (now - this.last) / 1000);
    this.last = now;
    const round = this.rounds[this.at];
    if (!round) return;
    const pictures = this.near.get(round.number);
    if (pictures === undefined && round.record) { this.fetchNear(round.number); return; }
    if (pictures instanceof Promise) return;
    this.paint(round, pictures);
    if (this.held) return;
    this.offset += elapsed * (this.following && !this.ended ? this.pace : this.fps);
    while (this.offset >= this.rounds[this.at].frames) {
      if (this.at + 1 >= this.rounds.length) {
        if (this.loop && this.rounds.length === this.wanted) { this.at = this.offset = 0; break; }
        this.offset = Math.max(0, this.rounds[this.at].frames - 1e-3);
        this.following = !this.loop;
        break;
      }
      this.offset -= this.rounds[this.at].frames;
      this.at += 1;
    }
    const next = this.rounds[this.at + 1] ?? (this.loop ? this.rounds[0] : null);
    if (next && next.record && !this.near.has(next.number)) this.fetchNear(next.number);
  }

  fetchNear(number) {
    const key = this.key;
    const coming = this.file(key, number).then((file) => (file ? decode(file) : {}));
    this.keep(number, coming);
  }

  keep(number, coming) {
    this.near.set(number, coming);
    const near = this.near;
    coming.then((pictures) => near.get(number) === coming && near.set(number, pictures));
    this.drop((other) => Math.abs(other - this.at) > NEAR && other !== number);
  }

  paint(round, pictures) {
    const frame = Math.min(round.frames - 1, Math.floor(this.offset)), shown = `${round.number}.${frame}`;
    if (shown === this.shown) return;
    const changed = !this.shown || this.shown.split(".")[0] !== String(round.number);
    this.shown = shown;
    for (const [name, bitmaps] of Object.entries(pictures || {})) {
      const canvas = this.screens[name], bitmap = bitmaps[frame];
      if (!canvas || !bitmap) continue;
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) { canvas.width = bitmap.width; canvas.height = bitmap.height; }
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      this.painted[name] += 1;
    }
    this.onpaint();
    if (changed) this.onshow(round);
  }
}

/* A chunk file: parts of uint32 length and bytes; the record, then the JPEGs of every stream. */
function parse(buffer) {
  const view = new DataView(buffer), parts = [];
  for (let at = 0; at < buffer.byteLength; ) {
    const size = view.getUint32(at, true);
    parts.push(new Uint8Array(buffer, at + 4, size));
    at += 4 + size;
  }
  return { record: JSON.parse(new TextDecoder().decode(parts[0])), jpegs: parts.slice(1) };
}

async function decode({ record, jpegs }) {
  const bitmaps = await Promise.all(jpegs.map((bytes) => createImageBitmap(new Blob([bytes], { type: "image/jpeg" }))));
  let at = 0;
  return Object.fromEntries(Object.entries(record.streams).map(([name, stream]) => [name, bitmaps.slice(at, (at += stream.video_frames))]));
}

const STAGES = ["text", "rebuild", "denoise", "context", "decode"];

/* Milliseconds per stage of one stream's chunk, and their sum in seconds. */
function stages(record) {
  const each = STAGES.map((name) => [name, 1000 * record[`${name}_s`]]);
  return { each, total: each.reduce((sum, [, ms]) => sum + ms, 0) / 1000 };
}
