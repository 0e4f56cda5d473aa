/* The page table as a picture: columns are latent frames, rows head groups, as high as they have heads; a cell is a page. */

const KINDS = { sink: "--fkv-sink", anchor: "--fkv-anchor", moved: "--fkv-dynamic", kept: "--fkv-kept", current: "--fkv-current" };
const ROLES = { static: "--fkv-static", dynamic: "--fkv-dynamic" };
const GROUP_NAMES = { all: "all heads", static: "static heads", dynamic: "dynamic heads" };

/* streams: name -> groups of the record's xray, of all streams, so that their columns begin at the same place. frames: how many
   latent frames the axis spans. */
function drawXray(canvas, name, streams, frames) {
  const { pen, width, height, size, ink, soft, colour } = sheet(canvas), groups = streams[name];
  if (!groups) { pen.fillStyle = soft; pen.fillText(name, 2, height / 2); return; }
  const left = Math.min(width * 0.28, 16 + Math.max(...Object.entries(streams).flatMap(([each, own]) => titles(own, each)).map((text) => pen.measureText(text).width)));
  const gap = 4, heads = groups.reduce((sum, group) => sum + group.heads, 0), room = height - gap * (groups.length - 1);
  const cell = (width - left) / Math.max(12, frames), highs = groups.map((group) => (room * group.heads) / heads);
  const tops = highs.map((_, i) => highs.slice(0, i).reduce((sum, high) => sum + high + gap, 0)), names = titles(groups, name);
  pen.fillStyle = ink; pen.textAlign = "left";
  spread(tops.map((top, i) => top + highs[i] / 2), size, height).forEach((y, i) => pen.fillText(names[i], 0, y, left - 14));
  groups.forEach((group, i) => {
    const top = tops[i], high = highs[i], part = high / group.segments;
    pen.fillStyle = colour(ROLES[group.name] ?? "--fkv-kept"); pen.fillRect(left - 8, top, 3, high);
    pen.fillStyle = colour("--fkv-dropped");
    for (let frame = 0; frame < frames; frame++) pen.fillRect(left + frame * cell, top, Math.max(0.5, cell - spacing(cell)), high);
    for (const [first, last, kind, held] of group.runs) {
      for (let frame = first; frame <= last; frame++) {
        const x = left + frame * cell, wide = Math.max(0.5, cell - spacing(cell));
        for (let segment = 0; segment < group.segments; segment++) {
          if (!((held >> segment) & 1)) continue;
          const y = top + segment * part, deep = Math.max(0.5, part - (part > 4 && held !== (1 << group.segments) - 1 ? 1 : 0));
          pen.fillStyle = colour(KINDS[kind]);
          pen.fillRect(x, y, wide, deep);
          if (wide > 5) texture(pen, kind, x, y, wide, deep);
        }
      }
    }
  });
}

/* Where texts of this size go that belong at `wanted`, downwards, without lying on each other. */
function spread(wanted, size, height) {
  const placed = [];
  wanted.forEach((y, i) => placed.push(Math.max(y, size / 2, i ? placed[i - 1] + size : 0)));
  for (let i = placed.length - 1, most = height - size / 2; i >= 0; most = placed[i--] - size) placed[i] = Math.min(placed[i], most);
  return placed;
}

const partedByRole = (groups) => groups.some((group) => group.name in ROLES);
/* Where heads are parted by role, those that all keep alike are the first layer's. */
const titles = (groups, stream) => groups.map((group) => `${stream}  ${partedByRole(groups) && group.name === "all" ? "first layer" : GROUP_NAMES[group.name] ?? group.name} (${group.heads})`);
const spacing = (cell) => (cell > 4 ? 1.5 : cell > 2 ? 0.5 : 0);

/* A mark per kind, so that none is told by colour alone. */
function texture(pen, kind, x, y, wide, high) {
  pen.save();
  pen.beginPath(); pen.rect(x, y, wide, high); pen.clip();
  pen.strokeStyle = pen.fillStyle = "rgba(255,255,255,.75)"; pen.lineWidth = 1;
  pen.beginPath();
  if (kind === "sink") for (let d = -high; d < wide; d += 5) { pen.moveTo(x + d, y + high); pen.lineTo(x + d + high, y); }
  if (kind === "anchor") for (let d = 3; d < wide; d += 5) { pen.moveTo(x + d, y); pen.lineTo(x + d, y + high); }
  pen.stroke();
  if (kind === "moved") { pen.beginPath(); pen.arc(x + wide / 2, y + high / 2, Math.min(2, high / 3), 0, 7); pen.fill(); }
  pen.restore();
}
