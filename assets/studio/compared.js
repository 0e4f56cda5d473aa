// @ts-check
/** Names the chart of Compare for screen readers: Gradio puts it on the page without a name. */

/** @import { Component } from "./stage.js" */

/** @param {Component<string>} component how far a comparison is, which changes whenever the chart can have changed */
export function mount({ watch }) {
  watch("value", () =>
    requestAnimationFrame(() => {
      const chart = document.getElementById("fkv-pareto");
      chart?.setAttribute("role", "figure");
      chart?.setAttribute("aria-label", "Speed against quality of every policy");
    }),
  );
}
