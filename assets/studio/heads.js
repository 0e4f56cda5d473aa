/* Heads: what is known of every head, from the newest chunk that was watched, what is chosen, and what the server is asked. */

const $ = (selector) => element.querySelector(selector), $$ = (selector) => [...element.querySelectorAll(selector)];
const { layers, heads, rows, cols, perLatent, model, profile, profiled } = props.value;
const UNIT = 10000, GONE = -1, ROWS = 24, KIND_NAMES = Object.fromEntries(props.value.kinds.map((kind) => [kind.key, kind.name]));
const CIVIDIS = "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838"
  .split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const total = (masses) => masses.reduce((sum, value) => sum + Math.max(0, value), 0) / UNIT;
const megabytes = (bytes) => (bytes / 1e6).toFixed(3);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const released = profile?.static_heads ?? null;
const lowest = profile?.scores ? profile.scores.flat().indexOf(Math.min(...profile.scores.flat())) : 0;

let chosen = { layer: Math.floor(lowest / heads), head: lowest % heads }, patch = { row: Math.floor(rows / 2), col: Math.floor(cols / 2) };
let stream = "A", source = "profile", followed = "";
let given = new Set(); // silenced heads that are to have a past in the next run
let draft = null, asked = null, wanted = null; // static heads per layer: as the slider would have them; as the stream was asked to have them; where the slider is
let visible = false, overlaid = false, sent = "", sentAt = 0, drawn = "";

/* What is known: rounds of the player that were watched. */

const player = () => window.fkvStage?.player;
const running = () => ["live", "paused"].includes(window.fkvStage?.state);
const names = () => Object.keys(player()?.rounds.findLast((round) => round.record)?.record.streams ?? {});
const watched = () => (player()?.rounds ?? []).filter((round) => round.record?.heads?.stream === stream);
const newest = () => watched().at(-1)?.record;
const shown = () => { const round = player()?.rounds[player().at]; return round?.record?.heads?.stream === stream ? round.record : null; };
/* Attention to draw: of the chunk on screen or the newest, and where nothing runs, the mean of the profile. */
const attention = () => (shown() ?? newest())?.heads ?? (running() ? null : profiled);
/* What the pages of each key frame are for, to the head that is chosen. */
const kindsOf = (seen) => seen.kinds[seen.groups[chosen.layer][chosen.head]];
const applied = () => newest()?.heads.static ?? released;
const roles = () => draft ?? asked ?? applied();
/* The threshold that gives the roles, null where none does, as after one was flipped. */
const threshold = () => wanted ?? (newest() ? newest().heads.threshold : profile?.threshold) ?? null;
const scores = () => (source === "live" ? newest()?.heads.scores : profile?.scores) ?? null;
const isStatic = (of, layer, head) => Boolean(of?.[layer].includes(head));
/* Whether the stream's policy keeps the same for all heads of a layer, although it parts others by role. */
function unparted(layer) {
  const record = newest() ?? player()?.rounds.findLast((round) => round.record)?.record;
  const groups = record?.streams[stream]?.xray ?? [], all = groups.find((group) => group.name === "all");
  return Boolean(all) && partedByRole(groups) && layer < all.heads / heads;
}
const everyHead = (make) => Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) => make(layer, head)));

function cividis(level) {
  const at = Math.max(0, Math.min(1, level)) * (CIVIDIS.length - 1), low = Math.floor(at), high = Math.min(CIVIDIS.length - 1, low + 1);
  return CIVIDIS[low].map((value, i) => Math.round(value + (at - low) * (CIVIDIS[high][i] - value)));
}

/* The server is told what to watch: while this tab or the overlay shows, one patch of one head; nothing otherwise. */
function look() {
  const want = (visible || overlaid) && running() ? { stream: names().includes(stream) ? stream : names()[0] ?? stream, ...chosen, ...patch } : { stream: null };
  const key = want.stream && JSON.stringify([player().key, want]);
  if (key === sent || performance.now() - sentAt < 120) return;
  sent = key; sentAt = performance.now();
  trigger("look", want);
}

/* What another run was asked for, or not yet asked for, is not this one's. */
function follow() {
  if (followed === (followed = player()?.key ?? "")) return;
  draft = asked = wanted = null;
  given = new Set();
}

/* at: the threshold of the profile's scores that gives these static heads, if one does. */
function ask(next, at = null) {
  asked = next; draft = null; wanted = at;
  trigger("roles", { static_heads: next, threshold: at });
  paint();
}
