// @ts-check
/** The Heads tab: its parts, and when they are drawn. */

import { press } from "../controls.js";
import { find, findAll, onLayout, write } from "../dom.js";
import { learn } from "../shared.js";
import { ChoicesPanel } from "./choices.js";
import { Detail } from "./detail.js";
import { Grid } from "./grid.js";
import { Patches } from "./patches.js";
import { RolesPanel } from "./roles.js";
import { heads } from "./state.js";

/** @import { Component } from "../stage.js" */
/** @import { Facts, HeadsState } from "./state.js" */

/** @param {Component<Facts>} component */
export function mount({ element, props, trigger }) {
  learn(props.facts);
  heads.connect(props.value, trigger);
  const tab = find(element, ".fkv-heads");
  /** @type {{ paint(): void }[]} */
  const parts = [new Bar(tab, heads), new Grid(tab, heads), new RolesPanel(tab, heads), new Detail(tab, heads)];
  parts.push(new ChoicesPanel(tab, heads));
  const patches = new Patches(tab, heads);
  const paint = () => {
    for (const part of parts) part.paint();
    patches.paintStrip();
    patches.paintFrame();
  };
  const paintIfVisible = () => {
    if (heads.visible) paint();
  };
  heads.addEventListener("change", paintIfVisible);
  heads.player.addEventListener("frame", () => {
    if (heads.visible) patches.paintFrame();
  });
  onLayout(tab, paintIfVisible);
  new IntersectionObserver((entries) => heads.watch({ visible: entries.at(-1)?.isIntersecting })).observe(tab);
  paint();
}

/** What the tab shows, in a sentence, and of which stream and scores. */
class Bar {
  /** @param {HTMLElement} tab @param {HeadsState} state */
  constructor(tab, state) {
    this.state = state;
    this.sentence = find(tab, ".fkv-heads-say");
    this.go = find(tab, ".fkv-heads-go");
    /** @type {HTMLInputElement[]} */
    this.streams = findAll(tab, '[data-of="stream"] input');
    /** @type {HTMLInputElement[]} */
    this.sources = findAll(tab, '[data-of="source"] input');
    this.go.addEventListener("click", () => press("fkv-go"));
    for (const input of this.streams) {
      const beside = input.value === "AB";
      input.addEventListener("change", () => state.pickStream(beside ? "A" : input.value, beside));
    }
    for (const input of this.sources) {
      input.addEventListener("change", () => state.pickSource(input.value === "live" ? "live" : "profile"));
    }
  }

  paint() {
    const { beside, facts, newest, session, source, stream, streams } = this.state;
    for (const input of this.streams) {
      input.checked = input.value === (beside ? "AB" : stream);
      input.disabled = streams.length < 2;
    }
    for (const input of this.sources) {
      input.checked = input.value === source;
      input.disabled = input.value === "live" ? !newest : !facts.profile?.scores;
    }
    write(this.sentence, this.text());
    this.go.hidden = session.running;
  }

  text() {
    const { applied, facts, newest, running, session, shown, stream } = this.state;
    const { model, profile, profiled } = facts;
    if (!applied) {
      const command = `python -m fkv profile --model ${model} --out roles.json`;
      return `No head roles are known for ${model}. Run “${command}” to find out which heads are static.`;
    }
    if (newest && running) {
      const { policy } = newest.streams[stream];
      const { pass } = newest.heads;
      return `Stream ${stream}, ${policy}: attention in the ${pass} pass of every chunk, from a sample of its queries.`;
    }
    if (running) return "Waiting for the stream’s next chunk.";
    if (session.state === "queued") return "Waiting in the queue.";
    const chunk = ((shown ?? newest)?.index ?? 0) + 1;
    if (session.state === "recorded" && newest)
      return `Chunk ${chunk} of a recorded run. Go live to see where heads look now.`;
    if (newest) return `The stream has ended; this is its chunk ${chunk}.`;
    const prompts = profiled
      ? ` and attention are means over ${profile?.prompts?.length} prompts with the full cache`
      : " are means";
    return `Scores${prompts}, from the profile of ${model}. Go live to see where heads look in a stream.`;
  }
}
