/* Small canvas charts in the colours of the page. A is solid, B dashed; the upright line marks the chunk that is shown. */

/* A 2D context of the canvas' size on screen, cleared, with the page's colours. */
function sheet(canvas) {
  const { width, height } = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name).trim();
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const size = parseFloat(style.fontSize);
  pen.font = `${size}px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  return { pen, width, height, size, ink: colour("--fkv-ink"), soft: colour("--fkv-soft"), rule: colour("--fkv-rule"), colour };
}

/* A round number at or above `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value * 0.999) * power;
}

/* lines: [{ label, values, dash, width, soft }], one value per chunk, null where there is none. */
function lineChart(canvas, lines, cursor) {
  const { pen, width, height, size, ink, soft, rule } = sheet(canvas);
  const count = Math.max(8, ...lines.map((line) => line.values.length));
  const top = roundUp(lines.flatMap((line) => line.values).reduce((most, value) => Math.max(most, value ?? 0), 0) || 1), step = top / 2;
  const label = (value) => value.toFixed(Number.isInteger(step) ? 0 : 1);
  const left = 10 + Math.max(pen.measureText(label(top)).width, 14), right = width - 8 - (lines.length ? Math.max(...lines.map((line) => pen.measureText(line.label).width)) : 0);
  const bottom = height - size - 8, x = (i) => left + ((right - left) * i) / (count - 1), y = (value) => bottom - ((bottom - size) * value) / top;
  const known = lines.some((line) => line.values.length);
  pen.textAlign = "right";
  for (let value = 0; value <= top * 1.001; value += step) {
    pen.strokeStyle = rule; pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(left, y(value)); pen.lineTo(right, y(value)); pen.stroke();
    pen.fillStyle = soft; if (known) pen.fillText(label(value), left - 6, y(value));
  }
  pen.textAlign = "left"; pen.fillStyle = soft; pen.fillText("chunk 1", left, height - size / 2 - 1);
  pen.textAlign = "right"; if (known) pen.fillText(String(count), right, height - size / 2 - 1);
  if (cursor !== null) {
    pen.strokeStyle = soft; pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x(cursor), size / 2); pen.lineTo(x(cursor), bottom); pen.stroke();
  }
  const ends = [];
  for (const line of lines) {
    pen.strokeStyle = pen.fillStyle = line.soft ? soft : ink;
    pen.lineWidth = line.width; pen.lineJoin = "round"; pen.setLineDash(line.dash ? [6, 4] : []);
    pen.beginPath();
    let drawing = false;
    line.values.forEach((value, i) => {
      if (value === null) { drawing = false; return; }
      pen[drawing ? "lineTo" : "moveTo"](x(i), y(value)); drawing = true;
    });
    pen.stroke();
    const last = line.values.findLastIndex((value) => value !== null);
    if (last >= 0) {
      pen.setLineDash([]);
      pen.beginPath(); pen.arc(x(last), y(line.values[last]), line.width + 0.6, 0, 7); pen.fill();
      if (line.label) ends.push({ x: x(last) + 7, y: y(line.values[last]), label: line.label, ink: pen.fillStyle });
    }
  }
  pen.setLineDash([]); pen.textAlign = "left";
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i) end.y = Math.max(end.y, ends[i - 1].y + size); });
  for (let i = ends.length - 1, floor = bottom; i >= 0; i--, floor -= size) ends[i].y = Math.min(ends[i].y, floor);
  for (const end of ends) { pen.fillStyle = end.ink; pen.fillText(end.label, end.x, end.y); }
}

/* bars: [{ label, parts: [[name, value]] }]; parts are told apart by shade and by their names. */
function stackedBars(canvas, bars, unit) {
  const { pen, width, height, size, ink, soft, rule, colour } = sheet(canvas);
  const totals = bars.map((bar) => bar.parts.reduce((sum, [, value]) => sum + value, 0)), longest = Math.max(1e-9, ...totals);
  const ends = totals.map((total) => `${total.toFixed(0)} ${unit}`);
  const left = 1.8 * size, right = width - 10 - Math.max(0, ...ends.map((text) => pen.measureText(text).width)), row = (height - 6) / Math.max(2, bars.length);
  bars.forEach((bar, i) => {
    const above = 4 + i * row + size, thick = Math.max(12, row - 2.6 * size);
    pen.textAlign = "left"; pen.fillStyle = ink; pen.fillText(bar.label, 2, above + thick / 2);
    let at = left, free = left;
    for (const [name, value] of bar.parts) {
      const long = ((right - left) * value) / longest;
      if (long <= 0) continue;
      pen.fillStyle = colour(`--fkv-stage-${name}`);
      pen.fillRect(at, above, Math.max(1, long - 1), thick);
      pen.strokeStyle = rule; pen.strokeRect(at + 0.5, above + 0.5, Math.max(1, long - 2), thick - 1);
      const text = `${name} ${value.toFixed(value < 10 ? 1 : 0)}`, wide = pen.measureText(text).width, place = Math.max(free, at);
      if (place + wide < width) {
        pen.fillStyle = soft; pen.textAlign = "left"; pen.fillText(text, place, above + thick + 0.75 * size);
        free = place + wide + 10;
      }
      at += long;
    }
    pen.fillStyle = ink; pen.textAlign = "left"; pen.fillText(ends[i], at + 6, above + thick / 2);
  });
}
