// @ts-check
/** State of the heads, shared by the Heads tab and the stage: records, selection, edits, requests to the server. */

import { streamsOf } from "../protocol.js";
import { session } from "../session.js";
import { shared } from "../shared.js";
import { splitByRole } from "../xray.js";

/** @import { Attention, ChunkRecord } from "../protocol.js" */
/** @import { Session } from "../session.js" */

/** @typedef {Pick<Attention, "frames" | "key_frames" | "kinds" | "groups" | "mass">} Masses */

/**
 * A roles file.
 * @typedef {object} Profile
 * @property {(number | null)[][]} [scores] [layer][head]
 * @property {number[][]} static_heads
 * @property {number} [threshold]
 * @property {number} [uniform_score]
 * @property {string[]} [prompts]
 */

/**
 * @typedef {object} Facts
 * @property {string} model
 * @property {number} layers
 * @property {number} heads
 * @property {number} rows of patches in a latent frame
 * @property {number} cols
 * @property {Profile | null} profile
 * @property {Masses | null} profiled mean attention of the profile
 */

/** @typedef {(event: string, data: object) => void} Trigger */
/** @typedef {number[][]} StaticHeads static heads of each layer */

const SHORTEST = 120; // milliseconds between two messages on what to watch
const LONGEST = 2000; // milliseconds after which a message that has no effect is sent again

/** Said of everything that a running stream has not sent yet. */
export const WAITS = "Arrives with the next chunk";

/** @type {Facts} */
const NO_FACTS = { model: "", layers: 0, heads: 0, rows: 0, cols: 0, profile: null, profiled: null };

/** @param {unknown} a @param {unknown} b */
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @param {StaticHeads | null} roles @param {number} layer @param {number} head */
export const isStatic = (roles, layer, head) => Boolean(roles?.[layer].includes(head));

/** @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** @param {number[]} masses in units of 1 / `shared.unit` @returns {number} their sum, a share */
export const shareOf = (masses) => masses.reduce((sum, mass) => sum + Math.max(0, mass), 0) / shared.unit;

/**
 * @param {(number | null)[][]} scores
 * @param {number} threshold
 * @returns {StaticHeads} heads whose score reaches it
 */
const splitAt = (scores, threshold) =>
  scores.map((row) => row.flatMap((score, head) => (score !== null && score >= threshold ? [head] : [])));

/** Dispatches `change` whenever something that the tab shows has changed. */
export class HeadsState extends EventTarget {
  facts = NO_FACTS;
  /** @type {Trigger | null} of the Heads tab */
  trigger = null;
  /** @type {Trigger | null} of the stage, which asks for attention also where the tab was never opened */
  look = null;
  chosen = { layer: 0, head: 0 };
  patch = { row: 0, col: 0 };
  /** Stream whose attention is shown. */
  stream = "A";
  /** Whether the same head of the other stream is shown beside it. */
  beside = false;
  /** @type {"profile" | "live"} where scores come from */
  source = "profile";
  /** Silenced heads that are unsilenced from the next run on, as in `nameOf`. @type {Set<string>} */
  unsilenced = new Set();
  /** @type {StaticHeads | null} as the slider would have them */
  draft = null;
  /** @type {StaticHeads | null} as the stream was asked to have them */
  asked = null;
  /** @type {number | null} where the slider is */
  wanted = null;
  /** Whether the tab is on the screen. */
  visible = false;
  /** Whether the stage draws attention on the frames. */
  overlaid = false;
  /** @type {string | null} what the server watches */
  sent = null;
  sentAt = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer = undefined;

  /** @param {Session} session */
  constructor(session) {
    super();
    this.session = session;
    this.player = session.player;
    this.player.addEventListener("reset", () => this.forget());
    this.player.addEventListener("chunk", () => this.update());
    session.addEventListener("manifest", () => this.update());
  }

  /**
   * The stage is there.
   * @param {{ layer: number, head: number, row: number, col: number }} focus that is watched first
   * @param {Trigger} look
   */
  start({ layer, head, row, col }, look) {
    this.chosen = { layer, head };
    this.patch = { row, col };
    this.look = look;
    this.update();
  }

  /**
   * The Heads tab is there.
   * @param {Facts} facts
   * @param {Trigger} trigger
   */
  connect(facts, trigger) {
    this.facts = facts;
    this.trigger = trigger;
    const { layer, head } = this.chosen; // an address may name a head that the model does not have
    this.chosen = { layer: Math.min(layer, facts.layers - 1), head: Math.min(head, facts.heads - 1) };
    this.update();
  }

  // What is known

  get running() {
    return this.session.streaming;
  }

  /** Names of the streams that run. */
  get streams() {
    return this.player.newest ? streamsOf(this.player.newest) : [];
  }

  /** Records that say where heads of this stream looked. @returns {(ChunkRecord & { heads: Attention })[]} */
  get watched() {
    const records = this.player.rounds.map((round) => round.record);
    return /** @type {any} */ (records.filter((record) => record?.heads?.stream === this.stream));
  }

  get newest() {
    return this.watched.at(-1) ?? null;
  }

  /** The newest record of the same head in the other stream. @returns {(ChunkRecord & { beside: Attention }) | null} */
  get other() {
    return /** @type {any} */ ((this.beside && this.watched.findLast((record) => record.beside)) || null);
  }

  /** The record of the chunk on the screen. */
  get shown() {
    const record = this.player.of(this.stream).round?.record;
    if (record?.heads?.stream !== this.stream) return null;
    return /** @type {ChunkRecord & { heads: Attention }} */ (record);
  }

  /** @returns {Masses | null} of the chunk on the screen or the newest; without a run, the profile's */
  get attention() {
    return (this.shown ?? this.newest)?.heads ?? (this.running ? null : this.facts.profiled);
  }

  /** Why there is no attention to show. */
  get waiting() {
    return this.running ? WAITS : "Shown while a stream runs";
  }

  /** @returns {StaticHeads | null} as released with the model */
  get released() {
    return this.facts.profile?.static_heads ?? null;
  }

  /** @returns {StaticHeads | null} as the stream has them */
  get applied() {
    return this.newest?.heads.static ?? this.released;
  }

  /** @returns {StaticHeads | null} as they are shown */
  get roles() {
    return this.draft ?? this.asked ?? this.applied;
  }

  /** The threshold that gives the roles; null where none does, as after one was flipped. */
  get threshold() {
    const applied = this.newest ? this.newest.heads.threshold : this.facts.profile?.threshold;
    return this.draft ? this.wanted : (this.wanted ?? applied ?? null);
  }

  get scores() {
    return (this.source === "live" ? this.newest?.heads.scores : this.facts.profile?.scores) ?? null;
  }

  /**
   * @param {number} layer
   * @returns {boolean} whether the policy ignores roles in this layer although it uses them in others
   */
  ignoresRoles(layer) {
    const record = this.newest ?? this.player.of(this.stream).newest;
    const groups = record?.streams[this.stream]?.xray ?? [];
    const all = groups.find((group) => group.name === "all");
    return Boolean(all) && splitByRole(groups) && layer < (all?.heads ?? 0) / this.facts.heads;
  }

  /** Whether the newest chunk was generated with the chosen head silenced. */
  get silenced() {
    return this.silencedHeads.has(`${this.chosen.layer}.${this.chosen.head}`);
  }

  /** Heads that were silenced in the newest chunk, as layer.head. */
  get silencedHeads() {
    const [, heads = ""] = (this.newest?.streams[this.stream]?.policy ?? "").split(" without ");
    return new Set(heads.split("+"));
  }

  /** Whether the chosen head is silenced, but not in the next run. */
  get returns() {
    return this.silenced && this.unsilenced.has(this.chosenName);
  }

  get chosenName() {
    return `${this.stream}${this.chosen.layer}.${this.chosen.head}`;
  }

  /** Whether a stream runs that takes other roles. */
  get tuneable() {
    return this.running && Boolean(this.newest?.heads.cost || !this.newest);
  }

  /** @template T @param {(layer: number, head: number) => T} make @returns {T[][]} */
  everyHead(make) {
    const { layers, heads } = this.facts;
    return Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) => make(layer, head)));
  }

  /** @param {number} threshold @returns {StaticHeads} heads that reach it; those without a score keep their role */
  split(threshold) {
    const { scores, applied } = this;
    const reaches = this.everyHead((layer, head) => {
      const score = scores?.[layer][head] ?? null;
      return score === null ? isStatic(applied, layer, head) : score >= threshold;
    });
    return reaches.map((row) => row.flatMap((reached, head) => (reached ? [head] : [])));
  }

  /**
   * @param {StaticHeads | null} roles
   * @param {number | null} [tried] first
   * @returns {number | null} the threshold of the profile's scores that gives them; null where none is known
   */
  thresholdOf(roles, tried = this.wanted) {
    const { profile } = this.facts;
    const scores = profile?.scores;
    if (!scores) return null;
    const known = [tried, this.newest?.heads.threshold, profile.threshold];
    return known.find((threshold) => threshold != null && same(splitAt(scores, threshold), roles)) ?? null;
  }

  // What is selected and asked

  /** @param {number} layer @param {number} head */
  choose(layer, head) {
    this.chosen = { layer, head };
    this.update();
  }

  /** @param {number} row @param {number} col */
  movePatch(row, col) {
    const { rows, cols } = this.facts;
    this.patch = { row: Math.max(0, Math.min(rows - 1, row)), col: Math.max(0, Math.min(cols - 1, col)) };
    this.update();
  }

  /** @param {string} stream @param {boolean} beside */
  pickStream(stream, beside) {
    this.stream = stream;
    this.beside = beside;
    this.update();
  }

  /** @param {"profile" | "live"} source */
  pickSource(source) {
    this.source = source;
    this.draft = null;
    this.wanted = null;
    this.update();
  }

  /** @param {number} threshold where the slider is */
  drag(threshold) {
    this.wanted = threshold;
    this.draft = this.split(threshold);
    this.update();
  }

  /**
   * Show the roles of a file as a draft.
   * @param {StaticHeads} roles
   * @param {number | null} threshold that gives them by the file's own scores, which may be others than the model's
   */
  load(roles, threshold) {
    this.wanted = this.thresholdOf(roles, threshold);
    this.draft = roles;
    this.update();
  }

  /** Ask the stream for the roles that the slider shows. */
  apply() {
    if (this.draft) this.ask(this.draft, this.source === "profile" ? this.wanted : null);
  }

  /** Ask the stream for the other role of the chosen head. */
  flip() {
    const { layer, head } = this.chosen;
    const now = this.asked ?? this.applied ?? [];
    const others = (/** @type {number[]} */ row) => row.filter((other) => other !== head);
    const flipped = isStatic(now, layer, head) ? others(now[layer]) : [...now[layer], head].sort((a, b) => a - b);
    this.ask(now.map((row, i) => (i === layer ? flipped : row)));
  }

  /** Back to the roles that were released with the model. */
  reset() {
    this.draft = null;
    this.wanted = null;
    if (!this.released || same(this.asked ?? this.applied, this.released)) this.update();
    else this.ask(this.released);
  }

  /**
   * Ask the stream for other roles.
   * @param {StaticHeads} roles
   * @param {number | null} threshold of the profile's scores that gives these roles; null where none does
   */
  ask(roles, threshold = null) {
    this.asked = roles;
    this.draft = null;
    this.wanted = threshold;
    this.trigger?.("roles", { static_heads: roles, threshold });
    this.update();
  }

  /** Silence the chosen head, or unsilence it from the next run on. */
  silence() {
    const silent = !this.silenced;
    this.trigger?.("silence", { stream: this.stream, ...this.chosen, silent });
    if (!silent) this.unsilenced.add(this.chosenName);
    this.update();
  }

  /** @param {{ visible?: boolean, overlaid?: boolean }} now who looks at attention */
  watch({ visible = this.visible, overlaid = this.overlaid }) {
    this.visible = visible;
    this.overlaid = overlaid;
    this.update();
  }

  /** Another run begins: edits of the one before are not its. */
  forget() {
    this.draft = null;
    this.asked = null;
    this.wanted = null;
    this.unsilenced = new Set();
  }

  /** Something changed: drop what is settled, tell the server what to watch, and those who draw. */
  update() {
    if (this.asked && (same(this.asked, this.newest?.heads.static) || !this.running)) {
      this.asked = null;
      if (!this.draft) this.wanted = null;
    }
    const { streams } = this;
    if (streams.length && !streams.includes(this.stream)) this.stream = streams[0];
    this.tell();
    this.dispatchEvent(new Event("change"));
  }

  /** Whether the server watches something else although it was told long ago: messages may overtake each other. */
  get unheard() {
    if (this.sent === null || performance.now() - this.sentAt < LONGEST) return false;
    const seen = this.player.of(this.stream).newest?.heads;
    const wanted = { ...this.chosen, ...this.patch };
    return (
      seen?.stream !== this.stream || Object.entries(wanted).some(([name, at]) => Reflect.get(seen.focus, name) !== at)
    );
  }

  /** Tell the server to watch one patch of one head while somebody looks, and nothing otherwise; not too often. */
  tell() {
    const looking = (this.visible || this.overlaid) && this.running;
    const { stream, beside, chosen, patch } = this;
    const want = looking ? { stream, ...chosen, ...patch, ...(beside ? { beside } : {}) } : { stream: null };
    const key = looking ? JSON.stringify([this.player.key, want]) : null;
    clearTimeout(this.timer);
    if (!this.look || (key === this.sent && !this.unheard)) return;
    const wait = key === null ? 0 : this.sentAt + SHORTEST - performance.now();
    if (wait > 0) {
      this.timer = setTimeout(() => this.tell(), wait);
      return;
    }
    this.sent = key;
    this.sentAt = performance.now();
    this.look("look", want);
  }
}

/** The heads of this page. */
export const heads = new HeadsState(session);
