/* Heads: one head, by age of what it looks at and frame by frame. */

function paintDetail() {
  const { layer, head } = chosen, record = shown() ?? newest(), live = record?.heads, seen = attention(), role = roles() && (isStatic(roles(), layer, head) ? "static" : "dynamic");
  const facts = [role, unparted(layer) && "role not used in this layer", silenced() && "silenced", profile?.scores && `profile score ${profile.scores[layer][head].toFixed(2)}`, live && (live.scores[layer][head] == null ? "no live score: it holds nothing older" : `live score ${live.scores[layer][head].toFixed(2)}`)];
  write($(".fkv-detail h3"), `Layer ${layer}, head ${head} · ${facts.filter(Boolean).join(" · ")}`);
  $(".fkv-detail").dataset.head = `${layer}.${head}`;
  write($('[data-do="silence"]'), !silenced() ? "Silence" : given.has(named()) ? "Has a past in the next run" : "Give it a past again");
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
  const { pen, width, height, size, ink, colour } = sheet(canvas), every = Object.values(seen.kinds).flat(), ofHead = kindsOf(seen), entries = Object.entries(KIND_NAMES).filter(([kind]) => kind !== "dropped" && every.includes(kind)), row = height / entries.length;
  const left = 10 + Math.max(...entries.map(([, name]) => pen.measureText(name).width)), right = width - pen.measureText("not held").width - 8, said = [];
  entries.forEach(([kind, name], i) => {
    const own = mass.flatMap((line) => line.filter((value, key) => ofHead[key] === kind && value !== GONE)), share = total(own) / mass.length;
    const y = i * row + row * 0.18, high = row * 0.64;
    pen.fillStyle = ink; pen.textAlign = "left"; pen.fillText(name, 0, y + high / 2);
    pen.fillStyle = colour("--fkv-dropped"); pen.fillRect(left, y, right - left, high);
    pen.fillStyle = colour(KINDS[kind]);
    pen.fillRect(left, y, (right - left) * share, high);
    for (let at = 0; at < (right - left) * share; at += 14) texture(pen, kind, left + at, y, Math.min(14, (right - left) * share - at), high);
    pen.fillStyle = ink; pen.fillText(own.length ? percent(share) : "not held", right + 6, y + high / 2);
    said.push(`${name} ${own.length ? percent(share) : "not held"}`);
  });
  canvas.setAttribute("aria-label", `Attention by age: ${said.join(", ")}`);
}

/* Rows of the newest watched chunks; columns are the key frames that any of them held. */
let framesAt = null;
function framesChart(canvas) {
  const { layer, head } = chosen, chunks = watched().slice(-Math.ceil(ROWS / 3)).map((round) => round.record.heads);
  const seen = chunks.length ? chunks : [attention()].filter(Boolean);
  framesAt = null;
  if (!seen.length) { empty(canvas, WAITING); return; }
  const { pen, width, height, size, soft, colour } = sheet(canvas);
  const lines = seen.flatMap((each) => each.frames.map((frame, i) => ({ frame, own: each.frames, keys: each.key_frames, mass: each.mass[layer][head][i] }))).slice(-ROWS);
  const keys = [...new Set(lines.flatMap((line) => line.keys))].sort((a, b) => a - b), place = new Map(keys.map((key, i) => [key, i]));
  const left = 34, top = 2, bottom = height - size - 6, wide = (width - left) / keys.length, high = (bottom - top) / Math.max(chunks.length ? 12 : 3, lines.length), space = wide > 5 ? 1 : 0;
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
