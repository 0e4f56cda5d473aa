/* The page table as a picture: columns are latent frames, rows head groups, as high as they have heads; a cell is a page. */

const KINDS = { sink: "--fkv-sink", anchor: "--fkv-anchor", moved: "--fkv-dynamic", kept: "--fkv-kept", current: "--fkv-current" };
const ROLES = { static: "--fkv-static", dynamic: "--fkv-dynamic" };
const GROUP_NAMES = { all: "all heads", static: "static heads", dynamic: "dynamic heads" };

/* groups: of the record's xray. frames: how many latent frames the axis spans. */
function drawXray(canvas, name, groups, frames) {
  const { pen, width, height, size, ink, soft, colour } = sheet(canvas);
  if (!groups) { pen.fillStyle = soft; pen.fillText(name, 2, height / 2); return; }
  const byRole = partedByRole(groups);
  const left = Math.min(width * 0.28, 16 + Math.max(...groups.map((group) => pen.measureText(title(group, name, byRole)).width)));
  const gap = 6, heads = groups.reduce((sum, group) => sum + group.heads, 0), room = height - gap * (groups.length - 1);
  const least = Math.min(size, room / groups.length), cell = (width - left) / Math.max(12, frames);
  const extra = room - least * groups.length;
  let top = 0;
  for (const group of groups) {
    const high = least + (extra * group.heads) / heads, part = high / group.segments;
    pen.fillStyle = ink; pen.textAlign = "left"; pen.fillText(title(group, name, byRole), 0, top + high / 2, left - 14);
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
    top += high + gap;
  }
}

const partedByRole = (groups) => groups.some((group) => group.name in ROLES);
/* Where heads are parted by role, those that all keep alike are the first layer's. */
const title = (group, stream, byRole) => `${stream}  ${byRole && group.name === "all" ? "first layer" : GROUP_NAMES[group.name] ?? group.name} (${group.heads})`;
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
