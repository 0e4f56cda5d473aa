// @ts-check
/** One figure of the Atlas tab and links to its files; both follow the page's theme and the selected model. */

import { find, findAll, onTheme, ROOT } from "./dom.js";

/** @import { Component } from "./stage.js" */

/** What screen readers call the figures. @type {Record<string, string>} */
const TITLES = {
  "role-atlas": "Role atlas: which heads are static, model by model",
  "head-map": "Roles and scores of all heads",
};

/** @param {Component<{ name: string, models: string[] }>} component */
export function mount({ element, props, trigger }) {
  const { name, models } = props.value;
  const select = /** @type {HTMLSelectElement} */ (find(element, "select"));
  let drawn = "";

  function draw() {
    const theme = document.body.classList.contains("dark") ? "dark" : "light";
    const model = select.value;
    const query = String(new URLSearchParams({ model, theme }));
    if (drawn === query) return;
    drawn = query;
    for (const link of /** @type {HTMLAnchorElement[]} */ (findAll(element, "a"))) {
      link.href = `${ROOT}atlas/${name}.${link.dataset.ending}?${query}`;
    }
    const figure = document.getElementById(`fkv-${name}`);
    figure?.setAttribute("role", "figure");
    figure?.setAttribute("aria-label", model ? `${TITLES[name]} of ${model}` : TITLES[name]);
    trigger("draw", { model, theme });
  }

  select.append(...models.map((model) => new Option(model)));
  find(element, "label").hidden = models.length === 0;
  select.addEventListener("change", draw);
  onTheme(draw);
  draw();
}
