/* Heads: patch maps, [key frame, rows of mass] of one query patch, drawn on the picture and frame by frame. */

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
      : running() ? "Arrives with the next chunk." : window.fkvStage?.state === "recorded" ? "A recorded run; go live to follow this head." : names().length ? "The stream has ended; go live again to follow this head." : "Go live, and the picture appears here.",
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
    const x = i * cell, kind = kindsOf(seen)[seen.key_frames.indexOf(frame)], share = total(map.flat());
    patches(pen, map, peak, x, 0, wide, high, true);
    pen.fillStyle = colour(KINDS[kind]); pen.fillRect(x, high + 2, wide, 4);
    pen.textAlign = "left"; pen.fillStyle = ink; pen.fillText(`${frame} ${kind}`, x, high + 8 + size / 2, wide);
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
