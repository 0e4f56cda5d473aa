/* The stage: what Gradio sends goes in here, what is seen comes out of the player's one clock. */

const $ = (selector) => element.querySelector(selector), $$ = (selector) => [...element.querySelectorAll(selector)];
const root = (window.gradio_config?.root || document.baseURI).replace(/\/$/, "");
const screens = Object.fromEntries($$(".fkv-screen").map((figure) => [figure.dataset.stream, figure.querySelector("canvas")]));
const player = new Player((key, number) => `${root}/stage/${key}/${number}`, screens, (round) => show(round));
let manifest = {}, marks = [];
window.fkvStage = { painted: player.painted, player, get marks() { return marks; }, get state() { return manifest.state ?? "idle"; } };

/* Only what changed is written, so that screen readers hear a sentence once. */
function write(node, text) { if (node && node.textContent !== text) node.textContent = text; }

function receive() {
  const next = props.value;
  if (!next || !next.state || (next.began ?? Infinity) < (manifest.began ?? 0)) return;
  if (next.run && next.run !== player.key) begin(next);
  const before = manifest.state;
  manifest = next;
  $(".fkv").dataset.state = next.state;
  write($(".fkv-status"), next.text);
  if (!next.run) return;
  player.ended = next.state === "done" || next.state === "error";
  if (next.state === "paused") player.hold(true);
  if (next.state === "live" && before === "paused") player.hold(false);
  if (next.chunks > player.wanted) player.advance(next.chunks);
}

function begin(next) {
  player.reset(next.run, next.fps);
  marks = [];
  $(".fkv-marks").replaceChildren();
  write($(".fkv-fps"), String(next.fps));
  write($(".fkv-run"), "");
  $(".fkv").dataset.streams = next.streams.join("");
  for (const canvas of Object.values(screens)) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  for (const figure of $$(".fkv-screen")) {
    write(figure.querySelector(".fkv-policy"), next.policies[figure.dataset.stream] ?? "");
    for (const read of figure.querySelectorAll(".fkv-read b")) write(read, "–");
  }
  const address = new URL(window.location.href), link = new URLSearchParams(next.link);
  for (const [name, value] of link) address.searchParams.set(name, value);
  window.history.replaceState(null, "", address);
  draw(null);
}

/* A chunk came on screen, or a new one is known. */
function show(round) {
  collectMarks();
  if (!round?.record) { draw(null); return; }
  for (const figure of $$(".fkv-screen")) {
    const name = figure.dataset.stream, own = round.record.streams[name];
    if (!own) continue;
    const rates = recent(name, round.number);
    write(figure.querySelector('[data-read="fps_denoise"] b'), rates.denoise.toFixed(1));
    write(figure.querySelector('[data-read="fps_end_to_end"] b'), rates.all.toFixed(1));
    write(figure.querySelector('[data-read="kv_bytes"] b'), (own.kv_bytes / 1e6).toFixed(1));
  }
  ratios(round);
  const hashes = Object.entries(round.record.streams).map(([name, own]) => `${name} ${own.hash}`);
  write($(".fkv-run"), `Frame hash up to chunk ${round.number + 1}: ${hashes.join(" · ")}. Equal hashes mean equal pictures; the address bar holds this run.`);
  draw(round);
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
    const text = round.number === 0 ? round.record?.prompt : round.record?.events.join(", ").replace(/^prompt: /, "");
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
  for (const canvas of $$(".fkv-xray canvas")) {
    const own = round?.record?.streams[canvas.dataset.stream];
    drawXray(canvas, canvas.dataset.stream, own?.xray, round?.record ? round.record.frame + 1 : 0);
  }
  paintTimeline(round);
}

function paintTimeline(round) {
  const canvas = $(".fkv-timeline"), { pen, width, height, size, ink, soft, colour } = sheet(canvas);
  const count = player.rounds.length, room = Math.max(12, count, Number(new URLSearchParams(manifest.link).get("length")) || 0);
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
  $(".fkv-edge").disabled = !count || shown === count - 1;
  write($(".fkv-pace"), count ? `${player.following ? "live" : "replay"}, ${Math.min(player.fps * 1.15, player.following && !player.ended ? player.pace : player.fps).toFixed(0)} of ${player.fps} fps shown` : "");
}

function clip(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  while (text.length > 1 && pen.measureText(`${text}…`).width > room) text = text.slice(0, -1);
  return text.length > 3 ? `${text}…` : "";
}

/* Controls. Gradio's own buttons do what needs the server. */

const press = (id) => { const button = document.querySelector(`#${id}`); if (button && !button.disabled) button.click(); };
const running = () => ["queued", "live", "paused"].includes(manifest.state);

function seekAt(event) {
  const box = $(".fkv-timeline").getBoundingClientRect(), count = Math.max(12, player.rounds.length, Number(new URLSearchParams(manifest.link).get("length")) || 0);
  const number = Math.floor(((event.clientX - box.left) / box.width) * count);
  if (number >= 0 && number < player.rounds.length) player.seek(number);
}
$(".fkv-timeline").addEventListener("pointerdown", (event) => { event.currentTarget.setPointerCapture(event.pointerId); seekAt(event); });
$(".fkv-timeline").addEventListener("pointermove", (event) => { if (event.buttons) seekAt(event); });
$(".fkv-edge").addEventListener("click", () => player.follow());
$(".fkv-begin").addEventListener("click", () => press("fkv-go"));

function space() {
  if (running()) { press("fkv-pause"); return; }
  if (!player.rounds.length) return;
  if (player.following && player.ended) player.seek(0);
  else player.hold(!player.held);
}

const setDark = (dark) => document.body.classList.toggle("dark", dark);
const talk = (on) => { document.body.classList.toggle("fkv-talk", on); draw(null); };
const help = () => { const dialog = document.querySelector(".fkv-help"); if (dialog.open) dialog.close(); else dialog.showModal(); };
const actions = {
  " ": space, g: () => press("fkv-go"), s: () => press("fkv-stop"), t: () => talk(!document.body.classList.contains("fkv-talk")), "?": help,
  d: () => setDark(!document.body.classList.contains("dark")), End: () => player.follow(),
  ArrowLeft: () => player.seek(player.at - 1), ArrowRight: () => player.seek(player.at + 1),
};

function example(number) {
  const button = document.querySelectorAll("#fkv-examples button")[number - 1];
  if (!button) return;
  button.click();
  if (running()) setTimeout(() => press("fkv-change"), 300);
}

document.addEventListener("keydown", (event) => {
  const target = event.target, typing = target.closest?.("input, textarea, select, [contenteditable], [role=listbox]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && target.closest?.("button, summary, [role=tab]")) return;
  if (event.key.startsWith("Arrow") && target.closest?.("[role=tab], [role=radiogroup]")) return;
  const action = actions[event.key] ?? (/^[1-9]$/.test(event.key) ? () => example(Number(event.key)) : null);
  if (!action) return;
  event.preventDefault();
  action();
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#fkv-pause")) player.hold(manifest.state !== "paused"); // at once; the stream follows at the next chunk
  const name = event.target.closest?.("[data-fkv]")?.dataset.fkv;
  if (name) ({ theme: actions.d, talk: actions.t, help }[name] ?? (() => {}))();
});

new ResizeObserver(() => draw(null)).observe($(".fkv"));
new MutationObserver(() => draw(null)).observe(document.body, { attributes: true, attributeFilter: ["class"] });
if (new URLSearchParams(window.location.search).get("talk") === "1") talk(true);
watch("value", receive);
receive();
draw(null);
