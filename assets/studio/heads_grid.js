/* Heads: the grid of buttons. */

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
  const unused = buttons.map((_, layer) => unparted(layer));
  buttons.forEach((row, layer) => row.forEach((button, head) => {
    const score = values?.[layer][head] ?? null, role = now ? (isStatic(now, layer, head) ? "static" : "dynamic") : "";
    const changed = Boolean(now) && isStatic(now, layer, head) !== isStatic(before, layer, head), selected = layer === chosen.layer && head === chosen.head;
    changing ||= changed;
    const colour = score === null ? null : cividis(score);
    button.style.background = colour ? `rgb(${colour})` : "";
    button.style.color = colour ? (score > 0.45 ? "#000" : "#fff") : "";
    button.dataset.role = role; button.dataset.changed = changed; button.dataset.unused = unused[layer];
    button.title = unused[layer] ? "All heads of this layer keep the same: roles are not used in it" : "";
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
