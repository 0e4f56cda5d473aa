/* One figure of the Atlas tab: asks for it in the page's theme, again when the theme or the model changes, and links its files. */

const { name, models } = props.value, select = element.querySelector("select");
const root = (window.gradio_config?.root || document.baseURI).replace(/\/$/, "");
let drawn = "";

function draw() {
  const theme = document.body.classList.contains("dark") ? "dark" : "light", model = select.value, query = new URLSearchParams({ model, theme });
  if (drawn === `${query}`) return;
  drawn = `${query}`;
  for (const link of element.querySelectorAll("a")) link.href = `${root}/atlas/${name}.${link.dataset.ending}?${query}`;
  trigger("draw", { model, theme });
}

select.append(...models.map((model) => new Option(model)));
select.parentNode.hidden = models.length === 0;
select.addEventListener("change", draw);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
draw();
