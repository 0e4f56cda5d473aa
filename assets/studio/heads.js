/* The Heads tab: what every head looks at, from the newest chunk that was watched, and roles that can be changed. */

const $ = (selector) => element.querySelector(selector), $$ = (selector) => [...element.querySelectorAll(selector)];
const { layers, heads, rows, cols, perLatent, model, profile } = props.value;
const UNIT = 10000, GONE = -1, ROWS = 24, AGES = { sink: "sink frame", older: "older frames", anchor: "anchor frame", current: "current chunk" };
const AGE_KINDS = { sink: "sink", older: "moved", anchor: "anchor", current: "current" };
const CIVIDIS = "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838"
  .split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const total = (masses) => masses.reduce((sum, value) => sum + Math.max(0, value), 0) / UNIT;
const megabytes = (bytes) => (bytes / 1e6).toFixed(3);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const released = profile?.static_heads ?? null;
const lowest = profile?.scores ? profile.scores.flat().indexOf(Math.min(...profile.scores.flat())) : 0;

let chosen = { layer: Math.floor(lowest / heads), head: lowest % heads }, patch = { row: Math.floor(rows / 2), col: Math.floor(cols / 2) };
let stream = "A", source = "profile", threshold = profile?.threshold ?? 0.8;
let draft = null, asked = null; // static heads per layer: as the slider would have them; as the stream was asked to have them
let visible = false, overlaid = false, sent = "", sentAt = 0, drawn = "";

/* What is known: rounds of the player that were watched. */

const player = () => window.fkvStage?.player;
const running = () => ["live", "paused"].includes(window.fkvStage?.state);
const names = () => Object.keys(player()?.rounds.findLast((round) => round.record)?.record.streams ?? {});
const watched = () => (player()?.rounds ?? []).filter((round) => round.record?.heads?.stream === stream);
const newest = () => watched().at(-1)?.record;
const shown = () => { const round = player()?.rounds[player().at]; return round?.record?.heads?.stream === stream ? round.record : null; };
const applied = () => newest()?.heads.static ?? released;
const roles = () => draft ?? asked ?? applied();
const scores = () => (source === "live" ? newest()?.heads.scores : profile?.scores) ?? null;
const isStatic = (of, layer, head) => Boolean(of?.[layer].includes(head));
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

function ask(next) {
  asked = next; draft = null;
  trigger("roles", { static_heads: next });
  paint();
}

/* The grid. */

const buttons = everyHead((layer, head) => {
  const button = document.createElement("button");
  button.type = "button"; button.tabIndex = -1; button.className = "fkv-cell";
  button.append(document.createElement("b"), document.createElement("span"));
  button.addEventListener("click", () => choose(layer, head));
  return button;
});
{
  const grid = $(".fkv-grid"), label = (text) => { const node = document.createElement("span"); node.textContent = text; node.setAttribute("aria-hidden", "true"); return node; };
  grid.style.setProperty("--heads", heads);
  grid.dataset.dense = heads > 16;
  grid.append(label(""), ...Array.from({ length: heads }, (_, head) => label(head)));
  buttons.forEach((row, layer) => grid.append(label(layer), ...row));
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const place = buttons.flat().indexOf(event.target);
    if (!step || place < 0) return;
    event.preventDefault(); event.stopPropagation();
    const [layer, head] = [Math.floor(place / heads) + step[0], (place % heads) + step[1]];
    if (layer >= 0 && layer < layers && head >= 0 && head < heads) focus(buttons[layer][head]);
  });
}

function focus(button) {
  for (const other of buttons.flat()) other.tabIndex = other === button ? 0 : -1;
  button.focus();
}

function choose(layer, head) {
  chosen = { layer, head };
  paint();
}

function paintGrid() {
  const now = roles(), before = applied(), values = scores();
  let changing = false;
  buttons.forEach((row, layer) => row.forEach((button, head) => {
    const score = values?.[layer][head] ?? null, role = now ? (isStatic(now, layer, head) ? "static" : "dynamic") : "";
    const changed = Boolean(now) && isStatic(now, layer, head) !== isStatic(before, layer, head), selected = layer === chosen.layer && head === chosen.head;
    changing ||= changed;
    const colour = score === null ? null : cividis(score);
    button.style.background = colour ? `rgb(${colour})` : "";
    button.style.color = colour ? (score > 0.45 ? "#000" : "#fff") : "";
    button.dataset.role = role; button.dataset.changed = changed;
    button.firstChild.textContent = role.charAt(0).toUpperCase();
    button.lastChild.textContent = score === null ? "–" : score >= 0.995 ? "1.0" : score.toFixed(2).slice(1);
    button.setAttribute("aria-pressed", selected);
    if (selected && !button.parentNode.contains(document.activeElement)) buttons.flat().forEach((other) => { other.tabIndex = other === button ? 0 : -1; });
    button.setAttribute("aria-label", [`layer ${layer}, head ${head}`, role, score === null ? "no score" : `score ${score.toFixed(2)}`, changed ? "would change" : ""].filter(Boolean).join(", "));
  }));
  const count = now?.reduce((sum, each) => sum + each.length, 0);
  $('[data-count="static"]').textContent = now ? count : "–";
  $('[data-count="dynamic"]').textContent = now ? layers * heads - count : "–";
  $(".fkv-changing").style.visibility = changing ? "" : "hidden";
}

/* The threshold: what would change, and what it would cost. */

const split = (at) => { const values = scores(), now = applied(); return everyHead((layer, head) => head).map((row, layer) => row.filter((head) => (values[layer][head] === null ? isStatic(now, layer, head) : values[layer][head] >= at))); };

function bytes(of, cost) {
  return everyHead((layer, head) => cost[isStatic(of, layer, head) ? "static" : "dynamic"][layer]).flat().reduce((sum, each) => sum + each, 0);
}

function consequence() {
  const record = newest(), before = applied(), now = draft ?? asked ?? before, cost = record?.heads.cost;
  if (asked && !draft) return running() ? "Asked for; the stream takes it with its next chunk." : "";
  const flips = everyHead((layer, head) => isStatic(now, layer, head) - isStatic(before, layer, head)).flat();
  const up = flips.filter((flip) => flip > 0).length, down = flips.filter((flip) => flip < 0).length;
  const words = up + down ? `${up + down} of ${layers * heads} heads change: ${[up && `${up} to static`, down && `${down} to dynamic`].filter(Boolean).join(", ")}.` : "No head changes its role.";
  if (!cost) return `${words} ${record ? `Stream ${stream} keeps the same for all heads, so its memory does not change.` : "How many bytes that is shows while a stream runs."}`;
  const [from, to] = [bytes(before, cost), bytes(now, cost)];
  return `${words} KV ${megabytes(from)} MB → ${megabytes(to)} MB (${to > from ? "+" : to < from ? "−" : "±"}${Math.abs(to - from).toLocaleString("en")} bytes), counted in the pages that heads of either role hold in the newest chunk.`;
}

function paintRoles() {
  const values = scores()?.flat().filter((score) => score !== null) ?? [], known = values.length > 0;
  $(".fkv-roles-tools").hidden = !applied();
  $('.fkv-threshold input').disabled = !known;
  $(".fkv-threshold output").textContent = threshold.toFixed(2);
  $('.fkv-threshold input').value = threshold;
  write($(".fkv-consequence"), known ? consequence() : "This stream gives no head a score: none holds frames beyond the sink and the newest four.");
  const tuneable = running() && (newest()?.heads.cost || !newest());
  $('[data-do="apply"]').disabled = !tuneable || !draft || same(draft, applied());
  $('[data-do="flip"]').disabled = !tuneable || !applied();
  $('[data-do="silence"]').disabled = !running() || silenced();
  $('[data-do="reset"]').disabled = !released || (!draft && (!tuneable || same(asked ?? applied(), released)));
  if (applied()) histogram($(".fkv-histogram"));
}

function histogram(canvas) {
  const { pen, width, height, size, ink, soft, rule, colour } = sheet(canvas), now = roles(), values = scores() ?? everyHead(() => null);
  const bins = Array.from({ length: 25 }, () => ({ static: 0, dynamic: 0 })), edge = 8, bottom = height - size - 4, x = (score) => edge + (width - 2 * edge) * score;
  everyHead((layer, head) => values[layer][head] !== null && (bins[Math.min(24, Math.floor(25 * values[layer][head]))][isStatic(now, layer, head) ? "static" : "dynamic"] += 1));
  const most = Math.max(1, ...bins.map((bin) => bin.static + bin.dynamic)), high = (count) => ((bottom - 2.4 * size) * count) / most;
  bins.forEach((bin, i) => {
    let top = bottom;
    for (const role of ["static", "dynamic"]) {
      const tall = high(bin[role]);
      if (!tall) continue;
      pen.fillStyle = colour(`--fkv-${role}`); pen.fillRect(x(i / 25) + 1, top - tall, x(1 / 25) - x(0) - 2, tall);
      if (role === "static") texture(pen, "anchor", x(i / 25) + 1, top - tall, x(1 / 25) - x(0) - 2, tall);
      top -= tall;
    }
  });
  pen.strokeStyle = rule; pen.beginPath(); pen.moveTo(edge, bottom); pen.lineTo(width - edge, bottom); pen.stroke();
  pen.fillStyle = soft;
  for (const [score, side] of [[0, "left"], [0.5, "center"], [1, "right"]]) { pen.textAlign = side; pen.fillText(score, x(score), height - size / 2); }
  const line = (score, text, dash) => {
    const right = score < 0.5;
    pen.strokeStyle = pen.fillStyle = dash ? soft : ink; pen.lineWidth = dash ? 1 : 2; pen.setLineDash(dash ? [2, 3] : []);
    pen.beginPath(); pen.moveTo(x(score), dash ? size + 4 : 0); pen.lineTo(x(score), bottom); pen.stroke(); pen.setLineDash([]);
    pen.textAlign = right ? "left" : "right"; pen.fillText(text, x(score) + (right ? 5 : -5), (dash ? 1.6 : 0.5) * size + 1);
  };
  if (source === "profile" && profile?.uniform_score) line(profile.uniform_score, "uniform attention", true);
  line(threshold, `static from ${threshold.toFixed(2)}`);
  canvas.setAttribute("aria-label", `Histogram of scores: ${values.flat().filter((score) => score !== null && score >= threshold).length} heads reach the threshold`);
}

/* Whether the chosen head has lost its past in the newest chunk. */
function silenced() {
  const [, heads] = (newest()?.streams[stream]?.policy ?? "").split(" without ");
  return (heads ?? "").split("+").includes(`${chosen.layer}.${chosen.head}`);
}

/* One head. */

function paintDetail() {
  const { layer, head } = chosen, record = shown() ?? newest(), seen = record?.heads, role = roles() && (isStatic(roles(), layer, head) ? "static" : "dynamic");
  const facts = [role, silenced() && "silenced", profile?.scores && `profile score ${profile.scores[layer][head].toFixed(2)}`, seen && `live score ${seen.scores[layer][head]?.toFixed(2) ?? "none"}`];
  write($(".fkv-detail h3"), `Layer ${layer}, head ${head} · ${facts.filter(Boolean).join(" · ")}`);
  $(".fkv-detail").dataset.head = `${layer}.${head}`;
  write($('[data-do="flip"]'), role ? `Flip to ${role === "static" ? "dynamic" : "static"}` : "Flip role");
  agesChart($(".fkv-ages"), seen && seen.mass[layer][head], seen);
  framesChart($(".fkv-frames"));
  strip($(".fkv-strip"), record);
}

function empty(canvas, text) {
  const { pen, width, height, soft, colour } = sheet(canvas);
  pen.fillStyle = colour("--fkv-dropped"); pen.beginPath(); pen.roundRect(0, 0, width, height, 6); pen.fill();
  pen.fillStyle = soft; pen.textAlign = "center"; pen.fillText(text, width / 2, height / 2);
}

const WAITING = "shows while a stream runs";

function agesChart(canvas, mass, seen) {
  if (!mass) { empty(canvas, WAITING); return; }
  const { pen, width, height, size, ink, colour } = sheet(canvas), entries = Object.entries(AGES), row = height / entries.length;
  const left = 10 + Math.max(...entries.map(([, name]) => pen.measureText(name).width)), right = width - pen.measureText("not held").width - 8, said = [];
  entries.forEach(([age, name], i) => {
    const own = mass.flatMap((line) => line.filter((value, key) => seen.ages[key] === age && value !== GONE)), share = total(own) / mass.length;
    const y = i * row + row * 0.18, high = row * 0.64;
    pen.fillStyle = ink; pen.textAlign = "left"; pen.fillText(name, 0, y + high / 2);
    pen.fillStyle = colour("--fkv-dropped"); pen.fillRect(left, y, right - left, high);
    pen.fillStyle = colour(KINDS[AGE_KINDS[age]]);
    pen.fillRect(left, y, (right - left) * share, high);
    for (let at = 0; at < (right - left) * share; at += 14) texture(pen, AGE_KINDS[age], left + at, y, Math.min(14, (right - left) * share - at), high);
    pen.fillStyle = ink; pen.fillText(own.length ? percent(share) : "not held", right + 6, y + high / 2);
    said.push(`${name} ${own.length ? percent(share) : "not held"}`);
  });
  canvas.setAttribute("aria-label", `Attention by age: ${said.join(", ")}`);
}

/* Rows of the newest watched chunks; columns are the key frames that any of them held. */
let framesAt = null;
function framesChart(canvas) {
  const { layer, head } = chosen, seen = watched().slice(-Math.ceil(ROWS / 3)).map((round) => round.record.heads);
  framesAt = null;
  if (!seen.length) { empty(canvas, WAITING); return; }
  const { pen, width, height, size, soft, colour } = sheet(canvas);
  const lines = seen.flatMap((each) => each.frames.map((frame, i) => ({ frame, own: each.frames, keys: each.key_frames, mass: each.mass[layer][head][i] }))).slice(-ROWS);
  const keys = [...new Set(lines.flatMap((line) => line.keys))].sort((a, b) => a - b), place = new Map(keys.map((key, i) => [key, i]));
  const left = 34, top = 2, bottom = height - size - 6, wide = (width - left) / keys.length, high = (bottom - top) / Math.max(12, lines.length), space = wide > 5 ? 1 : 0;
  const peak = Math.max(1, ...lines.flatMap((line) => line.mass));
  lines.forEach((line, i) => {
    pen.fillStyle = colour("--fkv-dropped"); pen.fillRect(left, top + i * high, width - left, high - space);
    line.mass.forEach((value, j) => {
      if (value === GONE) return;
      pen.fillStyle = `rgb(${cividis(value / peak)})`;
      pen.fillRect(left + place.get(line.keys[j]) * wide, top + i * high, wide - space, high - space);
    });
  });
  pen.strokeStyle = colour("--fkv-current"); pen.lineWidth = 2;
  lines.forEach((line, i) => {
    if (line.frame !== line.own[0]) return;
    pen.strokeRect(left + place.get(line.frame) * wide, top + i * high, line.own.length * wide - space, line.own.length * high - space);
  });
  pen.fillStyle = soft; pen.textAlign = "right";
  lines.forEach((line, i) => { if (i === 0 || (line.frame === line.own[0] && i % 6 === 0)) pen.fillText(line.frame, left - 6, top + (i + 0.5) * high); });
  pen.textAlign = "center";
  let free = 0;
  keys.forEach((key, i) => {
    const x = left + (i + 0.5) * wide, half = pen.measureText(key).width / 2;
    if (x - half < free || x + half > width) return;
    pen.fillText(key, x, height - size / 2); free = x + half + 10;
  });
  framesAt = { lines, keys, left, top, wide, high };
  const last = lines.at(-1), order = last.mass.map((value, i) => [value, last.keys[i]]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const most = `Query frame ${last.frame} looks most at key frames ${order.map(([value, key]) => `${key} (${percent(value / UNIT)})`).join(", ")}; the brightest cell is ${percent(peak / UNIT)}.`;
  canvas.setAttribute("aria-label", most);
  write($(".fkv-readout"), most);
}
$(".fkv-frames").addEventListener("pointermove", (event) => {
  if (!framesAt) return;
  const { lines, keys, left, top, wide, high } = framesAt, line = lines[Math.floor((event.offsetY - top) / high)], key = keys[Math.floor((event.offsetX - left) / wide)];
  if (!line || key === undefined) return;
  const value = line.mass[line.keys.indexOf(key)] ?? GONE;
  $(".fkv-readout").textContent = `Query frame ${line.frame} → key frame ${key}: ${value === GONE ? "not held" : percent(value / UNIT)}`;
});

/* Patch maps: [key frame, rows of mass] of one query patch. */

const peakOf = (maps) => Math.max(1, ...maps.flatMap(([, map]) => map.flat()));
const focusOf = (record) => (record && same([record.heads.focus.layer, record.heads.focus.head], [chosen.layer, chosen.head]) ? record.heads : null);

/* Mass per patch over a picture of `width` x `height` at (x, y): cividis, more opaque where there is more; grey where nothing is held. */
function patches(pen, map, peak, x, y, width, height, opaque) {
  const [wide, high] = [width / cols, height / rows];
  map.forEach((line, row) => line.forEach((value, col) => {
    const [left, top, right, bottom] = [x + col * wide, y + row * high, x + (col + 1) * wide, y + (row + 1) * high].map(Math.round), level = value / peak;
    pen.fillStyle = value === GONE ? "rgba(90, 96, 105, .75)" : `rgba(${cividis(level)}, ${opaque ? 1 : 0.3 + 0.55 * level})`;
    pen.fillRect(left, top, right - left, bottom - top);
  }));
}

function outline(pen, row, col, width, height, dashed) {
  const [wide, high] = [width / cols, height / rows], box = [col * wide, row * high, wide, high];
  for (const [colour, line] of [["#000", 6], ["#fff", 3]]) {
    pen.strokeStyle = colour; pen.lineWidth = line; pen.setLineDash(dashed ? [8, 6] : []);
    pen.strokeRect(...box);
  }
  pen.setLineDash([]);
}

/* The latent frame of a chunk that is on screen. */
function latent(round, seen) {
  const frame = Math.min(round.frames - 1, Math.floor(player().offset)), back = Math.floor((round.frames - 1 - frame) / perLatent);
  return seen.frames[Math.max(0, seen.frames.length - 1 - back)];
}

/* Draw where the chosen patch looks over what `canvas` shows of stream `name`. Returns whether there was something to draw. */
function overlay(canvas, name, record = shown()) {
  const round = player()?.rounds[player().at], seen = record?.heads;
  if (!seen || seen.stream !== name || !round?.frames) return false;
  const frame = latent(round, seen), map = seen.maps.find(([key]) => key === frame)?.[1], pen = canvas.getContext("2d");
  if (map) patches(pen, map, peakOf(seen.maps), 0, 0, canvas.width, canvas.height);
  outline(pen, seen.focus.row, seen.focus.col, canvas.width, canvas.height, frame !== seen.frames.at(-1));
  return Boolean(map);
}

function mirror() {
  const canvas = $(".fkv-look"), pen = canvas.getContext("2d"), picture = player()?.screens[stream], record = focusOf(shown()) ? shown() : null;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const any = picture && names().length;
  if (any) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const there = any && record && overlay(canvas, stream, record), round = player()?.rounds[player().at];
  if (!record) outline(pen, patch.row, patch.col, canvas.width, canvas.height, true);
  const share = there && total(record.heads.maps.find(([key]) => key === latent(round, record.heads))[1].flat());
  write(
    $(".fkv-detail-top .fkv-note"),
    there ? `Patch at row ${record.heads.focus.row}, column ${record.heads.focus.col} of frame ${record.heads.frames.at(-1)}: ${percent(share)} of its attention falls on frame ${latent(round, record.heads)}, which is on screen.`
      : running() ? "Arrives with the next chunk." : names().length ? "The stream has ended; go live again to follow this head." : "Go live, and the picture appears here.",
  );
  canvas.setAttribute("aria-label", `Query patch at row ${patch.row}, column ${patch.col}; arrow keys move it`);
}

function strip(canvas, record) {
  const seen = focusOf(record);
  if (!seen) { empty(canvas, running() ? "arrives with the next chunk" : WAITING); write($(".fkv-strip-note"), ""); return; }
  const { pen, width, height, size, ink, soft, colour } = sheet(canvas), room = Math.max(4, Math.min(14, Math.floor(width / 74))), peak = peakOf(seen.maps);
  const maps = seen.maps.length <= room ? seen.maps : [seen.maps[0], ...seen.maps.slice(1 - room)];
  const cell = width / room, wide = cell - 6, high = Math.min((wide * rows) / cols, height - 2 * size - 8);
  maps.forEach(([frame, map], i) => {
    const x = i * cell, age = seen.ages[seen.key_frames.indexOf(frame)], share = total(map.flat());
    patches(pen, map, peak, x, 0, wide, high, true);
    pen.fillStyle = colour(KINDS[AGE_KINDS[age]]); pen.fillRect(x, high + 2, wide, 4);
    pen.textAlign = "left"; pen.fillStyle = ink; pen.fillText(`${frame} ${age}`, x, high + 8 + size / 2, wide);
    pen.fillStyle = soft; pen.fillText(percent(share), x, high + 8 + 1.6 * size, wide);
  });
  const left = seen.maps.length - maps.length;
  write($(".fkv-strip-note"), `brightest patch ${percent(peak / UNIT)}${left ? ` · ${left} frames between the first two are left out` : ""}`);
  canvas.setAttribute("aria-label", `Attention on ${maps.map(([frame, map]) => `frame ${frame}: ${percent(total(map.flat()))}`).join(", ")}`);
}

{
  const canvas = $(".fkv-look"), move = (row, col) => { patch = { row: Math.max(0, Math.min(rows - 1, row)), col: Math.max(0, Math.min(cols - 1, col)) }; };
  canvas.style.aspectRatio = `${cols} / ${rows}`;
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    move(Math.floor((rows * (event.clientY - box.top)) / box.height), Math.floor((cols * (event.clientX - box.left)) / box.width));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault(); event.stopPropagation();
    move(patch.row + step[0], patch.col + step[1]);
  });
}

/* The whole tab. */

function write(node, text) { if (node.textContent !== text) node.textContent = text; }

function say() {
  const state = window.fkvStage?.state ?? "idle", record = newest();
  if (!applied()) return `No head roles are known for ${model}, so no head is static or dynamic yet: run “python -m fkv profile --model ${model} --out roles.json” to find them.`;
  if (record && running()) return `Stream ${stream}, ${record.streams[stream].policy}: attention of the ${record.heads.pass} pass of every chunk, from a sample of its queries.`;
  if (running()) return "Waiting for the next chunk of the stream.";
  if (state === "queued") return "Waiting for a turn on this machine.";
  return record ? `The stream has ended; this is its chunk ${(shown() ?? record).index + 1}.` : `Scores are ${model}'s own profile. Go live to see where its heads look.`;
}

function paint() {
  if (asked && (same(asked, newest()?.heads.static) || !running())) asked = null;
  const there = names();
  if (there.length && !there.includes(stream)) stream = there[0];
  for (const input of $$('[data-of="stream"] input')) { input.checked = input.value === stream; input.disabled = there.length < 2; }
  for (const input of $$('[data-of="source"] input')) { input.checked = input.value === source; input.disabled = input.value === "live" ? !newest() : !profile?.scores; }
  write($(".fkv-heads-say"), say());
  $(".fkv-heads-go").hidden = running() || window.fkvStage?.state === "queued";
  paintGrid(); paintRoles(); paintDetail();
}

function tick() {
  if (!visible && !overlaid) return;
  look();
  const key = [player()?.key, player()?.rounds.length, player()?.at, window.fkvStage?.state].join();
  if (visible) { if (key !== drawn) { drawn = key; paint(); } mirror(); }
  requestAnimationFrame(tick);
}

function see(now) {
  const idle = !visible && !overlaid;
  ({ visible = visible, overlaid = overlaid } = now);
  if (visible || overlaid) { drawn = ""; if (idle) requestAnimationFrame(tick); }
  else { sentAt = 0; look(); }
}

const actions = {
  apply: () => ask(draft), flip: () => { const now = asked ?? applied(), { layer, head } = chosen; ask(now.map((each, i) => (i !== layer ? each : isStatic(now, layer, head) ? each.filter((other) => other !== head) : [...each, head].sort((a, b) => a - b)))); },
  silence: () => trigger("silence", { stream, layer: chosen.layer, head: chosen.head }),
  reset: () => { threshold = profile.threshold ?? threshold; draft = null; if (same(asked ?? applied(), released)) paint(); else ask(released); },
  download: () => {
    const file = { model, num_layers: layers, num_heads: heads, ...profile, static_heads: roles() }, link = document.createElement("a");
    if (!same(roles(), released)) file.source = "changed by hand in the studio; scores as profiled";
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 1)}\n`], { type: "application/json" }));
    link.download = `roles-${model}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  },
};
for (const button of $$("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
$(".fkv-threshold input").addEventListener("input", (event) => { threshold = Number(event.target.value); draft = split(threshold); paintGrid(); paintRoles(); paintDetail(); });
for (const input of $$('[data-of="stream"] input')) input.addEventListener("change", () => { stream = input.value; paint(); });
for (const input of $$('[data-of="source"] input')) input.addEventListener("change", () => { source = input.value; draft = null; paint(); });
$(".fkv-heads-go").addEventListener("click", () => document.querySelector("#fkv-go")?.click());

new IntersectionObserver((entries) => see({ visible: entries.at(-1).isIntersecting })).observe($(".fkv-heads"));
new ResizeObserver(() => { drawn = ""; }).observe($(".fkv-heads"));
new MutationObserver(() => { drawn = ""; }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
/* For other tabs: keep watching, and draw over a canvas of theirs. */
window.fkvHeads = { overlay: (canvas, name) => overlay(canvas, name), watch: (on) => see({ overlaid: on }), get chosen() { return { ...chosen }; } };
paint();
