// @ts-check
/** The Explore tab: the tree of futures as it grows, one future or two side by side, and futures to choose by hand. */

import { press } from "../controls.js";
import { arrowStep, find, findAll, findButton, findCanvas, findInput, svg, write } from "../dom.js";
import { isTaken } from "../keyboard.js";
import { sayExpanded } from "../modes.js";
import { Films, Loop, paint } from "./films.js";
import { childrenOf, layout, letter, lineage, megabytes, nameOf, reasons, recipe, rewardOf } from "./tree.js";

/** @import { Component } from "../stage.js" */
/** @import { TreeNode } from "./tree.js" */

/**
 * What the server tells of a tree.
 * @typedef {object} Tree
 * @property {"idle" | "queued" | "running" | "choose" | "done" | "error"} state
 * @property {string} text
 * @property {string} [run] key of the frames
 * @property {number} [fps]
 * @property {TreeNode[]} [nodes] as they were made
 * @property {number[]} [options] nodes to choose from
 * @property {number} [span] chunks of each of them
 * @property {{ prompt: string, seed: number, policy: string }} [form] with which the Live tab goes on
 */

const CELL = { width: 132, height: 104 }; // pixels of a node and the space around it
const NODE = { width: 104, height: 88 };
const THICK = 9; // pixels of the edge of the node that holds most of the cache

/** @param {Component<Tree>} component */
export function mount({ element, props, trigger, watch }) {
  const tab = new Tab(find(element, ".fkv-explore"), trigger);
  watch("value", () => tab.receive(props.value));
  tab.receive(props.value);
  sayExpanded();
}

class Tab {
  /** @type {Tree} */
  tree = { state: "idle", text: "" };
  films = new Films("");
  /** @type {HTMLButtonElement[]} of the nodes */
  buttons = [];
  /** @type {number | null} the node whose future plays */
  chosen = null;
  /** @type {number | null} the node beside which it plays */
  beside = null;
  comparing = false;
  future = new Loop();
  options = new Loop();

  /** @param {HTMLElement} tab @param {(event: string, data: object) => void} trigger */
  constructor(tab, trigger) {
    this.tab = tab;
    this.trigger = trigger;
    this.say = find(tab, ".fkv-explore-say");
    this.choices = find(tab, ".fkv-options");
    this.explored = find(tab, ".fkv-explored");
    this.canvas = find(tab, ".fkv-tree");
    /** @type {SVGSVGElement} */
    this.edges = find(tab, ".fkv-tree svg");
    this.one = findCanvas(tab, ".fkv-one");
    this.two = findCanvas(tab, ".fkv-two");
    this.wipe = findInput(tab, ".fkv-wipe-at input");
    this.compare = findButton(tab, '[data-do="compare"]');
    this.wipe.addEventListener("input", () => this.cut());
    this.compare.addEventListener("click", () => this.toggleCompare());
    const play = findButton(tab, '[data-do="play"]');
    const sayPlay = () => {
      write(play, this.future.playing ? "Pause" : "Play");
      play.setAttribute("aria-pressed", String(this.future.playing));
    };
    play.addEventListener("click", () => {
      this.future.playing = !this.future.playing;
      sayPlay();
    });
    sayPlay();
    const live = findButton(tab, '[data-do="live"]');
    this.actions = [play, this.compare, live]; // of the future that plays
    live.addEventListener("click", () => {
      if (this.chosen !== null) trigger("live", { ...this.tree.form, ...recipe(this.nodes, this.chosen) });
    });
    document.addEventListener("fkv-go-on", () => {
      findAll(document, "[role=tab]")[0].click(); // the Live tab
      setTimeout(() => press("fkv-go"));
    });
    document.addEventListener("keydown", (event) => this.key(event), { capture: true });
  }

  get nodes() {
    return this.tree.nodes ?? [];
  }

  /** @param {Tree | null} tree */
  receive(tree) {
    if (!tree?.state) return;
    const isOther = tree.run !== undefined && tree.run !== this.tree.run;
    this.tree = tree.run === undefined ? { ...this.tree, state: tree.state, text: tree.text } : tree;
    this.tab.dataset.state = tree.state;
    write(this.say, tree.text);
    if (isOther) this.begin(tree.run ?? "");
    this.drawTree();
    this.offer(tree.state === "choose" ? (tree.options ?? []) : []);
    if (tree.state === "done" && this.chosen === null) this.choose(this.best());
  }

  /** @param {string} run */
  begin(run) {
    this.films.left = true;
    this.films = new Films(run);
    for (const button of this.buttons) button.remove();
    this.buttons = [];
    this.chosen = null;
    this.beside = null;
    this.comparing = false;
    this.compare.setAttribute("aria-pressed", "false");
    this.future.stop();
    this.one.getContext("2d")?.clearRect(0, 0, this.one.width, this.one.height);
    this.two.hidden = true;
    find(this.tab, ".fkv-wipe-at").hidden = true;
    write(find(this.tab, ".fkv-future-name"), "Choose a node of the tree to play its future.");
    find(this.tab, ".fkv-future-facts").replaceChildren();
    this.tell();
  }

  /** @returns {number | null} the last node of the chosen path */
  best() {
    const decided = this.nodes.map((node, number) => (node.decided ? number : -1));
    const last = Math.max(...decided, -1);
    return last >= 0 ? last : this.nodes.length ? this.nodes.length - 1 : null;
  }

  // The tree.

  drawTree() {
    const { nodes } = this;
    this.explored.hidden = nodes.length === 0;
    const { row, rows } = layout(nodes);
    const why = reasons(nodes);
    const most = Math.max(...nodes.map((node) => node.bytes), 1);
    const depth = Math.max(...nodes.map((node) => node.depth), 0);
    this.canvas.style.width = `${depth * CELL.width}px`;
    this.canvas.style.height = `${rows * CELL.height}px`;
    const paths = nodes.map((node, number) => {
      const [x, y] = [(node.depth - 1) * CELL.width, row[number] * CELL.height];
      const button = this.buttons[number] ?? this.button(number);
      button.style.transform = `translate(${x}px, ${y}px)`;
      button.dataset.left = why[number] ? "yes" : "no";
      button.dataset.decided = node.decided ? "yes" : "no";
      button.dataset.cluster = String(node.cluster % 6);
      button.title = why[number];
      button.setAttribute("aria-label", nameOf(node, number, why[number]));
      const reward = `${node.predicted ? "pred. " : ""}${node.reward.toFixed(2)}`;
      write(find(button, "span"), `${letter(node.cluster)} · ${reward}`);
      return node.parent < 0 ? [] : this.edge(node, x, y, row[node.parent] * CELL.height, most, why[number]);
    });
    write(find(this.tab, ".fkv-widest"), megabytes(most));
    this.edges.setAttribute("width", String(depth * CELL.width));
    this.edges.setAttribute("height", String(rows * CELL.height));
    this.edges.replaceChildren(...paths.flat());
    if (this.chosen !== null) this.tell();
  }

  /** An edge as wide as the node holds of the cache, with its bytes. */
  /** @type {(node: TreeNode, x: number, y: number, from: number, most: number, why: string) => SVGElement} */
  edge(node, x, y, from, most, why) {
    const [left, right, middle] = [x - CELL.width + NODE.width, x, NODE.height / 2];
    const bend = (left + right) / 2;
    const width = Math.max(1, (THICK * node.bytes) / most).toFixed(1);
    const line = `M${left} ${from + middle} C${bend} ${from + middle} ${bend} ${y + middle} ${right} ${y + middle}`;
    const path = svg("path", { d: line, "stroke-width": width, class: why ? "fkv-left" : "" });
    path.append(svg("title"));
    write(find(path, "title"), `${megabytes(node.bytes)} of cache`);
    return path;
  }

  /** @param {number} number */
  button(number) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "fkv-node";
    button.setAttribute("aria-pressed", "false");
    const canvas = document.createElement("canvas");
    button.append(canvas, document.createElement("span"));
    button.addEventListener("click", () => this.choose(number));
    button.addEventListener("keydown", (event) => this.step(event, number));
    this.canvas.append(button);
    this.buttons[number] = button;
    void this.films.of(number).then((frames) => paint(canvas, frames.at(-1)));
    return button;
  }

  /** Arrow keys lead to the parent, the first child, and to the nodes above and below. */
  /** @param {KeyboardEvent} event @param {number} number */
  step(event, number) {
    const step = arrowStep(event);
    if (!step) return;
    const [rows, columns] = step;
    const { row } = layout(this.nodes);
    const beside = this.nodes
      .map((_, other) => other)
      .filter((other) => this.nodes[other].depth === this.nodes[number].depth)
      .sort((one, other) => row[one] - row[other]);
    const next = [beside[beside.indexOf(number) + rows], this.nodes[number].parent, childrenOf(this.nodes)[number][0]];
    this.buttons[columns === 0 ? next[0] : columns < 0 ? next[1] : next[2]]?.focus();
  }

  // One future, or two.

  /** @param {number | null} number */
  choose(number) {
    if (this.comparing && this.beside === null && number !== this.chosen) this.beside = number;
    else {
      this.chosen = number;
      this.beside = null;
      if (this.comparing) this.toggleCompare();
    }
    void this.play();
    this.tell();
  }

  toggleCompare() {
    this.comparing = !this.comparing;
    this.compare.setAttribute("aria-pressed", String(this.comparing));
    if (!this.comparing && this.beside !== null) {
      this.beside = null;
      void this.play();
    }
    this.tell();
  }

  async play() {
    const { chosen, beside } = this;
    if (chosen === null) return;
    const frames = await this.films.along(lineage(this.nodes, chosen));
    const other = beside === null ? null : await this.films.along(lineage(this.nodes, beside));
    if (chosen !== this.chosen || beside !== this.beside) return;
    this.two.hidden = other === null;
    find(this.tab, ".fkv-wipe-at").hidden = other === null;
    this.cut();
    const length = Math.min(frames.length, other?.length ?? frames.length);
    /** @type {[HTMLCanvasElement, Uint8Array[]][]} */
    const films = [[this.one, frames.slice(0, length)]];
    if (other) films.push([this.two, other.slice(0, length)]);
    this.future.play(films, this.tree.fps ?? 16);
  }

  /** Show the second future on the right of the wipe. */
  cut() {
    this.two.style.clipPath = `inset(0 0 0 ${this.wipe.value}%)`;
  }

  /** Say which future plays, and what is known of its last chunk. */
  tell() {
    this.buttons.forEach((button, number) => {
      button.setAttribute("aria-pressed", String(number === this.chosen || number === this.beside));
    });
    for (const button of this.actions) button.disabled = this.chosen === null;
    if (this.chosen === null) return;
    const waits = this.comparing && this.beside === null ? " Choose another node of the tree." : "";
    const second = this.beside === null ? "" : `, and on the right future ${this.beside + 1}`;
    write(find(this.tab, ".fkv-future-name"), `Future ${this.chosen + 1}${second}.${waits}`);
    const why = reasons(this.nodes);
    const shown = [this.chosen, this.beside].filter((number) => number !== null);
    const columns = shown.map((number) => factsOf(this.nodes[number], why[number]));
    if (shown.length > 1) columns.forEach((facts, at) => facts.unshift(["Future", String(shown[at] + 1)]));
    const list = find(this.tab, ".fkv-future-facts");
    list.dataset.futures = String(columns.length);
    list.replaceChildren(
      ...columns[0].flatMap(([name], row) => [make("dt", name), ...columns.map((facts) => make("dd", facts[row][1]))]),
    );
  }

  // By hand.

  /** @param {number[]} options nodes to choose from */
  offer(options) {
    const shown = this.choices.dataset.options ?? "";
    if (shown === options.join()) return;
    this.choices.dataset.options = options.join();
    this.choices.hidden = options.length === 0;
    this.options.stop();
    const buttons = options.map((option, number) => this.option(option, number));
    this.choices.replaceChildren(...buttons);
    if (options.length) void this.playOptions(options, buttons);
  }

  /** @param {number} option @param {number} number */
  option(option, number) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Go on with future ${number + 1}: ${this.nodes[option].move}`);
    const label = document.createElement("span");
    const rewards = this.newest(option).map((at) => this.nodes[at].reward);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    label.textContent = `${number + 1} · reward ${mean.toFixed(2)}`;
    button.append(document.createElement("canvas"), label);
    button.addEventListener("click", () => this.pick(number));
    return button;
  }

  /** @param {number} option @returns {number[]} the nodes of it that were made for this choice */
  newest(option) {
    return lineage(this.nodes, option).slice(-(this.tree.span ?? 1));
  }

  /** @param {number[]} options @param {HTMLButtonElement[]} buttons */
  async playOptions(options, buttons) {
    const films = await Promise.all(options.map((option) => this.films.along(this.newest(option))));
    if (this.choices.dataset.options !== options.join()) return;
    this.options.play(
      buttons.map((button, number) => [findCanvas(button, "canvas"), films[number]]),
      this.tree.fps ?? 16,
    );
  }

  /** @param {number} number */
  pick(number) {
    if (this.tree.state !== "choose") return;
    this.offer([]);
    write(this.say, `Going on with future ${number + 1}.`);
    this.trigger("choose", { number });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const buttons = findAll(this.choices, "button");
    const number = Number(event.key) - 1;
    if (!buttons[number] || isTaken(event)) return;
    if (this.choices.offsetParent === null) return; // another tab is open
    event.preventDefault();
    this.pick(number);
  }
}

/** @param {TreeNode} node @param {string} why @returns {[string, string][]} what is known of it, by name */
function factsOf(node, why) {
  return [
    ["Chunk", `${node.depth}, move: ${node.move}`],
    ["Reward", rewardOf(node)],
    ["Group of looks", letter(node.cluster)],
    ["Holds", `${megabytes(node.bytes)} of cache`],
    ["Fate", why ? `abandoned: ${why}` : node.decided ? "on the chosen path" : "goes on"],
  ];
}

/** @param {string} tag @param {string} text */
function make(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
