/* Other ways to look at the two pictures, and what can be drawn on them. */

const DOUBLINGS = 2;
const FACTOR = 2 ** DOUBLINGS; // by which differences are amplified
const LETTERS = { sink: "S", anchor: "A", moved: "M", kept: "K", current: "C" };

/* A canvas' pen, once the canvas is as large as what is to be drawn on it. */
function sized(canvas, like) {
  if (canvas.width !== like.width || canvas.height !== like.height) { canvas.width = like.width; canvas.height = like.height; }
  const pen = canvas.getContext("2d");
  pen.globalCompositeOperation = "copy";
  return pen;
}

function drawCopy(canvas, picture) { sized(canvas, picture).drawImage(picture, 0, 0); }

/* |A - B| per colour channel, times FACTOR. */
function drawDifference(canvas, a, b) {
  const pen = sized(canvas, a);
  pen.drawImage(a, 0, 0);
  pen.globalCompositeOperation = "difference";
  pen.drawImage(b, 0, 0);
  pen.globalCompositeOperation = "lighter";
  for (let i = 0; i < DOUBLINGS; i++) pen.drawImage(canvas, 0, 0);
}

/* The latent frame that is on screen: the last of a chunk covers its last `per_latent` video frames, and so on backwards. */
function latentFrame(round, offset) {
  const { frame, per_latent: each } = round.record, left = round.frames - 1 - Math.min(round.frames - 1, Math.floor(offset));
  return Math.max(0, frame - Math.floor(left / each));
}

/* What the cache holds of each segment of a latent frame, by any head group: a kind, or null where it was dropped. */
function heldSegments(groups, frame) {
  const kinds = Array(groups[0].segments).fill(null);
  for (const { runs } of groups) {
    const run = runs.find(([first, last]) => first <= frame && frame <= last);
    if (run) kinds.forEach((kind, i) => { if ((run[3] >> i) & 1) kinds[i] = kind && kind !== "moved" ? kind : run[2]; });
  }
  return kinds;
}

/* Segments are consecutive tokens of the grid [rows, columns]; each is tinted and lettered by what it is, at its left or right end. */
function tintCache(canvas, groups, frame, [rows, cols], right) {
  const { pen, width, height, size, colour } = sheet(canvas), kinds = heldSegments(groups, frame), tokens = (rows * cols) / kinds.length;
  const high = height / rows, wide = width / cols;
  kinds.forEach((kind, i) => {
    const fill = colour(KINDS[kind] ?? "--fkv-gone");
    const first = i * tokens, last = first + tokens, whole = first % cols === 0 && tokens % cols === 0;
    for (let token = first; token < last; ) {
      const row = Math.floor(token / cols), end = whole ? last : Math.min(last, (row + 1) * cols), rows = whole ? tokens / cols : 1;
      const [x, y, long, deep] = [(token % cols) * wide, row * high, whole ? width : (end - token) * wide, rows * high];
      pen.globalAlpha = kind ? 0.36 : 0.72;
      pen.fillStyle = fill; pen.fillRect(x, y, long, deep);
      pen.globalAlpha = 1;
      pen.strokeStyle = fill; pen.lineWidth = 1.5; pen.strokeRect(x + 1, y + 1, long - 2, deep - 2);
      const tall = Math.min(size, deep * 0.8);
      if (token === first) plate(pen, LETTERS[kind] ?? "×", right ? x + long - tall - 8 : x + 4, y + deep / 2, tall);
      token = end;
    }
  });
}

/* A letter on a dark plate, legible on any picture. */
function plate(pen, text, x, y, size) {
  pen.textAlign = "center";
  pen.fillStyle = "rgba(10,14,20,.82)"; pen.fillRect(x, y - size / 2 - 1, size + 4, size + 2);
  pen.fillStyle = "#fff"; pen.fillText(text, x + size / 2 + 2, y + 0.5);
}

/* What is drawn on a picture, in words at its upper left or right; on a canvas whose pen `sheet` has set. */
function label(canvas, text, right) {
  const pen = canvas.getContext("2d"), high = 1.8 * parseFloat(pen.font), wide = pen.measureText(text).width + high, x = right ? canvas.clientWidth - wide - 8 : 8;
  pen.fillStyle = "rgba(10,14,20,.82)"; pen.fillRect(x, 8, wide, high);
  pen.textAlign = "left"; pen.fillStyle = "#fff"; pen.fillText(text, x + high / 2, 8 + high / 2);
}

/* Where the chosen head looked from its query patch, on the frame that is shown. heads: of the newest record that has them. */
function drawAttention(canvas, heads, frame) {
  const { pen, width, height, colour } = sheet(canvas), own = heads.maps.find(([number]) => number === frame);
  const peak = Math.max(1, ...heads.maps.flatMap(([, rows]) => rows.flat()));
  const patches = own?.[1] ?? [[-1]], high = height / patches.length, wide = width / patches[0].length;
  patches.forEach((row, y) => row.forEach((mass, x) => {
    const level = Math.max(0, mass) / peak;
    pen.globalAlpha = mass < 0 ? 0.72 : 0.3 + 0.5 * level;
    pen.fillStyle = mass < 0 ? colour("--fkv-gone") : cividis(level);
    pen.fillRect(x * wide, y * high, wide + 0.5, high + 0.5);
  }));
  pen.globalAlpha = 1;
  const { row, col, frame: query } = heads.focus;
  if (heads.frames.at(query) === frame) {
    pen.lineWidth = 4; pen.strokeStyle = "#0a0e14"; pen.strokeRect(col * wide + 2, row * high + 2, wide - 4, high - 4);
    pen.lineWidth = 2; pen.strokeStyle = "#fff"; pen.strokeRect(col * wide + 2, row * high + 2, wide - 4, high - 4);
  }
}

const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

/* The perceptual colour map of all scores; level in [0, 1]. */
function cividis(level) {
  const place = Math.min(1, level) * (CIVIDIS.length - 1), low = Math.min(CIVIDIS.length - 2, Math.floor(place)), share = place - low;
  return `rgb(${CIVIDIS[low].map((value, i) => Math.round(value + share * (CIVIDIS[low + 1][i] - value))).join(",")})`;
}
