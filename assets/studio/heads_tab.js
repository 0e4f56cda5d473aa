/* Heads: the whole tab, and what its buttons do. */

function write(node, text) { if (node.textContent !== text) node.textContent = text; }

function say() {
  const state = window.fkvStage?.state ?? "idle", record = newest();
  if (!applied()) return `No head roles are known for ${model}, so no head is static or dynamic yet: run “python -m fkv profile --model ${model} --out roles.json” to find them.`;
  if (record && running()) return `Stream ${stream}, ${record.streams[stream].policy}: attention of the ${record.heads.pass} pass of every chunk, from a sample of its queries.`;
  if (running()) return "Waiting for the next chunk of the stream.";
  if (state === "queued") return "Waiting for a turn on this machine.";
  if (state === "recorded" && record) return `A recorded run; this is its chunk ${(shown() ?? record).index + 1}. Go live to see where heads look now.`;
  return record ? `The stream has ended; this is its chunk ${(shown() ?? record).index + 1}.` : `Scores${profiled ? " and attention" : ""} are the means of ${model}'s own profile${profiled ? `, of ${profile.prompts.length} prompts under the full cache` : ""}. Go live to see where heads look in a stream.`;
}

function paint() {
  follow();
  if (asked && (same(asked, newest()?.heads.static) || !running())) asked = wanted = null;
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
  apply: () => ask(draft, source === "profile" ? wanted : null), flip: () => { const now = asked ?? applied(), { layer, head } = chosen; ask(now.map((each, i) => (i !== layer ? each : isStatic(now, layer, head) ? each.filter((other) => other !== head) : [...each, head].sort((a, b) => a - b)))); },
  silence: () => {
    trigger("silence", { stream, layer: chosen.layer, head: chosen.head, silent: !silenced() });
    if (silenced()) given.add(named());
    paint();
  },
  reset: () => { draft = wanted = null; if (same(asked ?? applied(), released)) paint(); else ask(released); },
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
$(".fkv-threshold input").addEventListener("input", (event) => { wanted = Number(event.target.value); draft = split(wanted); paintGrid(); paintRoles(); paintDetail(); });
for (const input of $$('[data-of="stream"] input')) input.addEventListener("change", () => { stream = input.value; paint(); });
for (const input of $$('[data-of="source"] input')) input.addEventListener("change", () => { source = input.value; draft = wanted = null; paint(); });
$(".fkv-heads-go").addEventListener("click", () => document.querySelector("#fkv-go")?.click());

new IntersectionObserver((entries) => see({ visible: entries.at(-1).isIntersecting })).observe($(".fkv-heads"));
new ResizeObserver(() => { drawn = ""; }).observe($(".fkv-heads"));
new MutationObserver(() => { drawn = ""; }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
/* For other tabs: keep watching, and draw over a canvas of theirs. */
window.fkvHeads = { overlay: (canvas, name) => overlay(canvas, name), watch: (on) => see({ overlaid: on }), get chosen() { return { ...chosen }; } };
paint();
