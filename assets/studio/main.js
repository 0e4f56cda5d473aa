/* The stage: what Gradio sends goes in here, what is seen comes out of the player's one clock. */

const $ = (selector) => element.querySelector(selector), $$ = (selector) => [...element.querySelectorAll(selector)];
const root = (window.gradio_config?.root || document.baseURI).replace(/\/$/, "");
const stage = $(".fkv");
const screens = Object.fromEntries($$(".fkv-screen").map((figure) => [figure.dataset.stream, figure.querySelector("canvas")]));
const player = new Player((key, number) => `${root}/stage/${key}/${number}`, screens, (round) => show(round), () => overlay());
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
const born = performance.now();
let manifest = {}, marks = [], stepping = false, moved = null;
let left = null; // the run that was left for another, whose chunks the server forgets
let wish = null; // whether the stream was asked to pause, until it has followed
window.fkvStage = {
  painted: player.painted, player, factor: FACTOR, get waited() { return moved && moved - born; }, get marks() { return marks; }, get state() { return manifest.state ?? "idle"; }, get view() { return stage.dataset.view; },
};

/* Only what changed is written, so that screen readers hear a sentence once. */
function write(node, text) { if (node && node.textContent !== text) node.textContent = text; }

function receive() {
  const next = props.value;
  if (!next || !next.state || (next.began ?? Infinity) < (manifest.began ?? 0)) return;
  if (!next.run) left = null; // it goes on, since what was asked for instead cannot be done
  else if (next.run === left) return;
  const waits = next.state === "queued" && player.loop; // the recording plays on meanwhile
  if (next.run && next.run !== player.key && !waits) begin(next);
  const before = manifest;
  manifest = next;
  stage.dataset.state = next.state;
  write($(".fkv-status"), next.text);
  if (!next.run || waits) return;
  remember();
  player.ended = !running();
  if (!running() || wish === (next.state === "paused")) wish = null;
  if (next.state === "paused" && before.state !== "paused" && wish === null) { player.hold(!stepping); stepping = false; }
  if (next.state === "live" && before.state === "paused" && wish === null) player.hold(false);
  if (next.state !== before.state) { overlay(true); draw(null); }
  if (next.chunks > player.wanted) player.advance(next.chunks);
}

function begin(next) {
  const recorded = next.state === "recorded";
  player.reset(next.run, next.fps, recorded);
  if (recorded && still) player.hold(true);
  marks = [];
  $(".fkv-marks").replaceChildren();
  write($(".fkv-fps"), String(next.fps));
  write($(".fkv-run"), "");
  for (const ratio of $$("[data-ratio]")) write(ratio, "");
  wish = null;
  stage.dataset.streams = next.streams.join("");
  for (const canvas of Object.values(screens)) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  for (const figure of $$(".fkv-screen")) {
    write(figure.querySelector(".fkv-policy"), next.policies[figure.dataset.stream] ?? "");
    for (const read of figure.querySelectorAll(".fkv-read b")) write(read, "–");
  }
  for (const source of $$(".fkv-source")) write(source, source.closest("h3") ? ` · ${next.source}` : next.source);
  look(view);
  draw(null);
}

/* The address bar holds the run: what its link names, what was changed meanwhile, and nothing left over from an earlier run. */
const LINK = ["model", "prompt", "seed", "length", "view", "a", "b", "threshold", "story"];
function remember() {
  if (!manifest.link) return;
  const address = new URL(window.location.href), link = new URLSearchParams(manifest.link);
  const made = player.rounds.flatMap((round) => (round.record?.events ?? []).map((event) => `${round.number + 1}: ${event}`));
  const planned = (link.get("story") ?? "").split("\n").filter((line) => parseInt(line, 10) > player.rounds.length);
  const story = [...made.filter(told), ...planned].join("\n");
  if (story) link.set("story", story); else link.delete("story");
  for (const name of LINK) address.searchParams.delete(name);
  for (const [name, value] of link) address.searchParams.set(name, value);
  if (address.href !== window.location.href) window.history.replaceState(null, "", address);
}

/* Whether a storyboard line can say it; roles that were changed head by head have none. */
const told = (line) => !/^(\d+: )?roles: /.test(line);

/* A chunk came on screen, or a new one is known. */
function show(round) {
  collectMarks();
  remember();
  if (!round?.record) { draw(null); return; }
  for (const figure of $$(".fkv-screen")) {
    const name = figure.dataset.stream, own = round.record.streams[name];
    if (!own) continue;
    const rates = recent(name, round.number);
    write(figure.querySelector(".fkv-policy"), own.policy);
    write(figure.querySelector('[data-read="fps_denoise"] b'), rates.denoise.toFixed(1));
    write(figure.querySelector('[data-read="fps_end_to_end"] b'), rates.all.toFixed(1));
    write(figure.querySelector('[data-read="kv_bytes"] b'), (own.kv_bytes / 1e6).toFixed(1));
  }
  ratios(round);
  const hashes = Object.entries(round.record.streams).map(([name, own]) => `${name} ${own.hash}`);
  write($(".fkv-run"), `Frame hash up to chunk ${round.number + 1}: ${hashes.join(" · ")}. Equal hashes mean equal pictures. ${held()}`);
  draw(round);
}

/* What the address bar holds of this run. */
function held() {
  if (manifest.state === "recorded") return "";
  const whole = player.rounds.every((round) => (round.record?.events ?? []).every(told));
  return `The address bar holds this run${whole ? "" : ", but for the head roles that were changed one by one"}.`;
}

/* How A and B differ, in figures of this run. */
function ratios(round) {
  const { A, B } = round.record.streams, both = A && B;
  const fps = both && recent("A", round.number).denoise / recent("B", round.number).denoise;
  write($('[data-ratio="fps"]'), both ? ` · A ${fps.toFixed(1)} × B` : "");
  write($('[data-ratio="kv"]'), both ? ` · B ${(B.kv_bytes / A.kv_bytes).toFixed(1)} × A` : "");
}

/* Rates over the last four chunks: frames of all by seconds of all. */
function recent(name, number) {
  const own = player.rounds.slice(Math.max(0, number - 3), number + 1).map((round) => round.record?.streams[name]).filter(Boolean);
  const sum = (key) => own.reduce((total, each) => total + each[key], 0);
  const denoise = sum("denoise_s") + sum("context_s") + sum("rebuild_s"), frames = sum("video_frames");
  return { denoise: frames / denoise, all: frames / (denoise + sum("text_s") + sum("decode_s")) };
}

function collectMarks() {
  const known = marks.at(-1)?.seen ?? 0;
  for (const round of player.rounds.slice(known)) {
    const text = round.number === 0 ? round.record?.prompt : round.record?.events.join(", ");
    if (round.number === 0 || text) {
      marks.push({ chunk: round.number, text: text ?? "", seen: round.number + 1 });
      const item = document.createElement("li");
      item.textContent = `chunk ${round.number + 1}: ${text}`;
      $(".fkv-marks").append(item);
    }
    if (marks.length) marks.at(-1).seen = round.number + 1;
  }
}

let waiting = false;
function draw(round) {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paintPanels(player.rounds[player.at] ?? null); });
}

function paintPanels(round) {
  const streams = Object.keys(round?.record?.streams ?? { A: 1, B: 1 });
  const series = (name, value) => player.rounds.map((each) => (each.record?.streams[name] ? value(each.record.streams[name]) : null));
  const cursor = round ? round.number : null;
  const lines = streams.flatMap((name) => [
    { label: name, values: series(name, (own) => own.fps_denoise), dash: name === "B", width: 2.4 },
    { label: "", values: series(name, (own) => own.fps_end_to_end), dash: name === "B", width: 1.2, soft: true },
  ]);
  lineChart($('[data-chart="fps"]'), lines, cursor);
  lineChart($('[data-chart="kv"]'), streams.map((name) => ({ label: name, values: series(name, (own) => own.kv_bytes / 1e6), dash: name === "B", width: 2.4 })), cursor);
  stackedBars($('[data-chart="stages"]'), round?.record ? streams.map((name) => ({ label: name, parts: stages(round.record.streams[name]).each })) : [], "ms");
  const tables = Object.fromEntries(Object.entries(round?.record?.streams ?? {}).map(([name, own]) => [name, own.xray]));
  for (const canvas of $$(".fkv-xray canvas")) drawXray(canvas, canvas.dataset.stream, tables, round?.record ? round.record.frame + 1 : 0);
  paintTimeline(round);
}

function paintTimeline(round) {
  const canvas = $(".fkv-timeline"), { pen, width, height, size, ink, soft, colour } = sheet(canvas);
  const count = player.rounds.length, room = span();
  const cell = width / room, top = size + 6, shown = round ? round.number : -1;
  for (let i = 0; i < room; i++) {
    pen.fillStyle = i === shown ? ink : i < count ? colour("--fkv-done") : colour("--fkv-dropped");
    pen.fillRect(i * cell, top, Math.max(0.5, cell - (cell > 4 ? 2 : 0)), height - top);
  }
  pen.textAlign = "left";
  marks.forEach((mark, i) => {
    const x = mark.chunk * cell, end = i + 1 < marks.length ? marks[i + 1].chunk * cell : width, text = `${i + 1} · ${mark.text}`;
    pen.fillStyle = ink;
    pen.fillRect(x, 0, 2, height);
    pen.fillText(clip(pen, text, end - x - 12), x + 6, size / 2 + 1);
  });
  canvas.setAttribute("aria-valuemax", Math.max(0, count));
  canvas.setAttribute("aria-valuenow", shown + 1);
  canvas.setAttribute("aria-valuetext", count ? `chunk ${shown + 1} of ${count}` : "nothing generated yet");
  $(".fkv-edge").disabled = !count || shown === count - 1 || player.loop;
  const live = player.following && !player.ended, pace = live ? player.pace : player.fps, name = manifest.state === "recorded" ? "recording" : live ? "live" : "replay";
  const how = manifest.state === "paused" && player.following ? "paused" : player.held ? "held" : pace > player.fps + 0.5 ? "catching up" : `${pace.toFixed(0)} of ${player.fps} fps shown`;
  write($(".fkv-pace"), count ? `${name}, ${how}` : "");
  playing();
}

/* The button that plays and pauses what is there; a running stream has its own above. */
function playing() {
  const button = $(".fkv-play"), done = player.following && player.ended;
  button.disabled = running() || !player.rounds.length;
  write(button, player.held || done ? "Play" : "Pause");
  button.setAttribute("aria-label", `${button.textContent} what is replayed`);
}

function clip(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  while (text.length > 1 && pen.measureText(`${text}…`).width > room) text = text.slice(0, -1);
  return text.length > 3 ? `${text}…` : "";
}

/* Controls. Gradio's own buttons do what needs the server. */

/* Wait until something holds, or has not held for five seconds. */
const soon = async (holds) => { for (const until = performance.now() + 5000; !holds() && performance.now() < until; ) await new Promise(requestAnimationFrame); };
const press = (id) => { const button = document.querySelector(`#${id}`); if (button && !button.disabled) button.click(); };
const running = () => ["queued", "live", "paused"].includes(manifest.state);

/* For how many chunks the timeline has room. */
const span = () => Math.max(12, player.rounds.length, Number(new URLSearchParams(manifest.link).get("length")) || 0);

function chunkAt(event) {
  const box = $(".fkv-timeline").getBoundingClientRect();
  return Math.floor(((event.clientX - box.left) / box.width) * span());
}

function seekAt(event) {
  const number = chunkAt(event);
  if (number >= 0 && number < player.rounds.length) player.seek(number);
}
$(".fkv-timeline").addEventListener("pointerdown", (event) => { event.currentTarget.setPointerCapture(event.pointerId); seekAt(event); });
$(".fkv-timeline").addEventListener("pointermove", (event) => {
  if (event.buttons) seekAt(event);
  const chunk = chunkAt(event), mark = marks.findLast((each) => each.chunk <= chunk);
  event.currentTarget.title = mark && chunk < player.rounds.length ? `chunk ${chunk + 1}; since chunk ${mark.chunk + 1}: ${mark.text}` : "";
});
$(".fkv-edge").addEventListener("click", () => player.follow());
$(".fkv-play").addEventListener("click", () => space());
$(".fkv-begin").addEventListener("click", () => press("fkv-go"));

function space() {
  if (running()) { press("fkv-pause"); return; }
  if (!player.rounds.length) return;
  if (player.following && player.ended) { player.seek(0); player.hold(false); }
  else player.hold(!player.held);
  playing();
}

/* One more chunk of a paused stream, played to its end. */
function step() {
  if (manifest.state === "paused") press("fkv-step");
  else if (manifest.state === "live") press("fkv-pause");
}

/* Views: A and B beside each other, one of them, or both in one picture. */

const VIEWS = ["AB", "A", "B", "wipe", "difference"];
const TITLES = $$(".fkv-layers label").map((label) => [label, label.title]);
const NO_LAYERS = "Not on the difference, which is made of both pictures: cache and attention belong to one stream";
let view = "AB", split = 50;

function look(wanted) {
  view = wanted;
  const both = (stage.dataset.streams ?? "AB") === "AB", shown = both ? view : stage.dataset.streams;
  stage.dataset.view = shown;
  for (const input of $$(".fkv-views input")) { input.checked = input.value === shown; input.disabled = !both && input.value !== shown; }
  $(".fkv-left").setAttribute("aria-label", shown === "wipe" ? "Stream A left of the divider, stream B right of it" : `Difference of A and B, ${FACTOR} times amplified`);
  write($(".fkv-factor"), shown === "difference" ? `|A − B| × ${FACTOR}` : "");
  for (const [label, title] of TITLES) {
    const input = label.querySelector("input");
    input.disabled = shown === "difference" || (input.value === "attention" && !watched() && !askable());
    label.title = shown === "difference" ? NO_LAYERS : title;
  }
  overlay(true);
  draw(null);
}

function divide(percent) {
  split = Math.max(0, Math.min(100, percent));
  $(".fkv-both").style.setProperty("--fkv-split", `${split}%`);
  const divider = $(".fkv-divider");
  divider.setAttribute("aria-valuenow", Math.round(split));
  divider.setAttribute("aria-valuetext", `${Math.round(split)} % A, ${Math.round(100 - split)} % B`);
}

/* Whether a stream can be asked where a head looks. */
const askable = () => ["live", "paused"].includes(manifest.state);

/* What asks is the Heads tab's script, which Gradio starts when that tab is shown first: where it has not been, for a moment. */
async function headsScript() {
  if (!window.fkvHeads) {
    const [live, tab] = document.querySelectorAll("[role=tab]"), top = scrollY;
    tab.click();
    await soon(() => window.fkvHeads);
    live.click();
    await new Promise(requestAnimationFrame);
    scrollTo(0, top);
  }
  return window.fkvHeads;
}

/* The newest record that says where the chosen head looks. */
const watched = () => player.rounds.findLast((round) => round.record?.heads)?.record.heads;

/* Whatever lies on the pictures or is made of both; called with every frame. */
let overlaid = "";
function overlay(anew = false) {
  if (player.painted.A + player.painted.B > 3) moved ??= performance.now();
  if (stage.dataset.view === "wipe") { drawCopy($(".fkv-left"), screens.A); drawCopy($(".fkv-right"), screens.B); }
  if (stage.dataset.view === "difference") drawDifference($(".fkv-left"), screens.A, screens.B);
  const round = player.rounds[player.at], newest = player.rounds.findLast((each) => each.record)?.record, heads = watched();
  if (!round?.record) return;
  const frame = latentFrame(round, player.offset), [cache, attention] = $$(".fkv-layers input"), key = [player.key, frame, newest.index, cache.checked, attention.checked].join();
  if (!anew && key === overlaid) return;
  overlaid = key;
  attention.disabled = cache.disabled || !(heads || askable());
  for (const canvas of $$(".fkv-over").filter((each) => each.offsetParent)) {
    const name = canvas.closest("[data-stream]").dataset.stream, own = newest.streams[name];
    sheet(canvas);
    if (cache.checked && own) tintCache(canvas, own.xray, frame, newest.grid, canvas.classList.contains("fkv-right"));
    if (!attention.checked || heads?.stream !== name) continue;
    if (frame <= heads.frames.at(-1)) drawAttention(canvas, heads, frame);
    label(canvas, `${name}: where layer ${heads.focus.layer}, head ${heads.focus.head} looks`, canvas.classList.contains("fkv-right"));
  }
}

for (const input of $$(".fkv-views input")) input.addEventListener("change", () => look(input.value));
for (const input of $$(".fkv-layers input")) input.addEventListener("change", () => overlay(true));
$(".fkv-layers [value=attention]").addEventListener("change", async (event) => (await headsScript())?.watch(event.target.checked));
$(".fkv-both .fkv-frame").addEventListener("pointermove", (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  divide((100 * (event.clientX - box.left)) / box.width);
});
$(".fkv-divider").addEventListener("keydown", (event) => {
  const to = { ArrowLeft: split - 5, ArrowRight: split + 5, Home: 0, End: 100 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  divide(to);
});
const layer = (number) => { const input = $$(".fkv-layers input")[number]; if (!input.disabled) input.click(); };

const setDark = (dark) => document.body.classList.toggle("dark", dark);
const talk = (on) => {
  if (on) document.querySelector("[role=tab]")?.click(); // the Live tab
  document.body.classList.toggle("fkv-talk", on);
  const address = new URL(window.location.href);
  if (on) address.searchParams.set("talk", "1"); else address.searchParams.delete("talk");
  window.history.replaceState(null, "", address);
  draw(null);
};
const help = () => { const dialog = document.querySelector(".fkv-help"); if (dialog.open) dialog.close(); else dialog.showModal(); };
const actions = {
  " ": space, ".": step, g: async () => { await taking; press("fkv-go"); }, s: () => press("fkv-stop"), t: () => talk(!document.body.classList.contains("fkv-talk")), "?": help,
  d: () => setDark(!document.body.classList.contains("dark")), End: () => player.follow(), c: () => layer(0), a: () => layer(1), e: () => example(),
  ArrowLeft: () => player.seek(player.at - 1), ArrowRight: () => player.seek(player.at + 1),
  ...Object.fromEntries(VIEWS.map((name, i) => [String(i + 1), () => { if (!$(`.fkv-views [value=${name}]`).disabled) look(name); }])),
};

/* The next example becomes the prompt, which takes a moment. */
let taken = 0, taking = null;
async function example() {
  const buttons = document.querySelectorAll("#fkv-examples button");
  if (!buttons.length) return;
  taken = (taken + 1) % buttons.length;
  const field = document.querySelector("#fkv-prompt :is(textarea, input)"), before = field.value, text = buttons[taken].textContent.trim();
  if (!running()) write($(".fkv-status"), `${manifest.text ?? ""} Next: ${text}.`);
  buttons[taken].click();
  await (taking = soon(() => field.value === text || field.value !== before));
  if (running()) press("fkv-change");
}

const TEXT = "textarea, select, [contenteditable], [role=listbox], input:not([type=radio], [type=checkbox], [type=range])";
document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || target.closest?.(TEXT)) return;
  if (event.key === " " && target.closest?.("button, summary, input, [role=tab]")) return;
  if (event.key.startsWith("Arrow") && target.closest?.("[role=tab], [role=radiogroup], input")) return;
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#fkv-pause")) { stepping = false; wish = !(wish ?? manifest.state === "paused"); player.hold(wish); } // at once; the stream follows at the next chunk
  if (event.target.closest?.("#fkv-go") && running()) left = player.key;
  if (event.target.closest?.("#fkv-go") && window.innerWidth <= 720) stage.scrollIntoView({ behavior: still ? "auto" : "smooth" });
  if (event.target.closest?.("#fkv-step")) { stepping = true; if (!player.following) player.follow(); player.hold(false); }
  const name = event.target.closest?.("[data-fkv]")?.dataset.fkv;
  if (name) ({ theme: actions.d, talk: actions.t, help }[name] ?? (() => {}))();
});

new ResizeObserver(() => { overlay(true); draw(null); }).observe(stage);
new MutationObserver(() => { overlay(true); draw(null); }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
if (new URLSearchParams(window.location.search).get("talk") === "1") talk(true);
divide(50);
watch("value", receive);
receive();
draw(null);
