/* Heads: the threshold, what would change and what it would cost. */

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
  const at = threshold();
  $(".fkv-threshold output").textContent = at?.toFixed(2) ?? "none gives these roles";
  if (at !== null) $('.fkv-threshold input').value = at;
  write($(".fkv-scores-note"), source === "live" ? "of the newest chunk, under its cache: not those that the roles were drawn from" : "heads from the threshold on are static");
  write($(".fkv-consequence"), known ? consequence() : "This stream gives no head a score: none holds frames beyond the sink and the newest four.");
  const tuneable = running() && (newest()?.heads.cost || !newest());
  $('[data-do="apply"]').disabled = !tuneable || !draft || same(draft, applied());
  $('[data-do="flip"]').disabled = !tuneable || !applied() || unparted(chosen.layer);
  $('[data-do="silence"]').disabled = !running() || (silenced() && given.has(named()));
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
  const at = source === "live" ? wanted : threshold();
  if (at !== null) line(at, `static from ${at.toFixed(2)}`);
  canvas.setAttribute("aria-label", `Histogram of scores${at === null ? "" : `: ${values.flat().filter((score) => score !== null && score >= at).length} heads reach the threshold`}`);
}

/* The chosen head of the stream that is looked into. */
const named = () => `${stream}${chosen.layer}.${chosen.head}`;

/* Whether the chosen head has lost its past in the newest chunk. */
function silenced() {
  const [, heads] = (newest()?.streams[stream]?.policy ?? "").split(" without ");
  return (heads ?? "").split("+").includes(`${chosen.layer}.${chosen.head}`);
}
