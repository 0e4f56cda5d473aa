// @ts-check
/** Picks a policy: its rule, what it reads and keeps, and a control for each of its parameters. */

import { find, onLayout, write } from "./dom.js";
import { learn } from "./shared.js";
import { drawPages } from "./xray.js";

/** @import { GroupPages } from "./protocol.js" */
/** @import { Component } from "./stage.js" */

/**
 * @typedef {object} Parameter
 * @property {string} name
 * @property {string} help
 * @property {string} values that it accepts, in words
 * @property {string} unit
 * @property {"checkbox" | "choice" | "share" | "number"} control
 * @property {string[]} options of a choice
 * @property {boolean} whole whether it accepts whole numbers alone
 */

/** @typedef {{ frames: number, groups: GroupPages[] }} Drawing */

/**
 * @typedef {object} Rule
 * @property {string} name
 * @property {string} help
 * @property {string} paper
 * @property {string} reading
 * @property {Drawing} drawing with default parameters
 * @property {Parameter[]} parameters
 */

/**
 * @typedef {object} Picked
 * @property {string} stream
 * @property {string | null} name of the policy
 * @property {Record<string, string>} values of its parameters
 * @property {string} figures what it holds and reads on this model
 * @property {Drawing | null} drawing with these parameters; null where that of the rule stays
 * @property {string} problem
 */

const PATIENCE = 400; // milliseconds in which another choice replaces the one before, as arrow keys make them

/** @param {Component<Picked, { catalogue: { title: string, policies: Rule[] }[] }>} component */
export function mount({ element, props, trigger, watch }) {
  learn(props.facts);
  const picker = new Picker(find(element, ".fkv-picker"), props.catalogue, props.value.stream, trigger);
  watch("value", () => picker.show(props.value));
  picker.show(props.value);
}

class Picker {
  /** @type {Map<string, { rule: Rule, radio: HTMLInputElement, canvas: HTMLCanvasElement, drawing: Drawing }>} */
  rules = new Map();
  /** @type {Map<string, (HTMLInputElement | HTMLSelectElement)[]>} controls of each parameter */
  controls = new Map();
  /** @type {string | null} policy that the parameters belong to */
  shown = null;
  /** @type {number | undefined} */
  timer;

  /**
   * @param {HTMLElement} element
   * @param {{ title: string, policies: Rule[] }[]} catalogue
   * @param {string} stream
   * @param {(event: string, data: object) => void} trigger
   */
  constructor(element, catalogue, stream, trigger) {
    this.stream = stream;
    this.trigger = trigger;
    this.problem = find(element, ".fkv-problem");
    this.figures = find(element, ".fkv-figures");
    this.parameters = find(element, ".fkv-parameters");
    const list = find(element, ".fkv-rules");
    for (const { title, policies } of catalogue) {
      const heading = made("h4", "", title);
      heading.setAttribute("aria-level", "3");
      list.append(heading, ...policies.map((rule) => this.card(rule)));
    }
    onLayout(list, () => this.draw());
  }

  /** @param {Rule} rule */
  card(rule) {
    const radio = input("radio", `${rule.name} for ${this.stream}`);
    radio.name = `fkv-rule-${this.stream}`;
    radio.value = rule.name;
    radio.addEventListener("change", () => this.pick(rule.name, {}));
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const title = made("span", "fkv-rule-name", rule.name);
    title.append(made("small", "", `reads ${rule.reading}`));
    const words = made("span", "fkv-rule-words");
    words.append(title, made("span", "", rule.paper ? `${rule.help} (${rule.paper})` : rule.help));
    const label = made("label", "fkv-rule");
    label.append(radio, canvas, words);
    this.rules.set(rule.name, { rule, radio, canvas, drawing: rule.drawing });
    return label;
  }

  draw() {
    for (const { canvas, drawing } of this.rules.values()) {
      if (canvas.clientWidth) drawPages(canvas, drawing.groups, drawing.frames);
    }
  }

  /** @param {Picked} picked */
  show({ name, values, figures, drawing, problem }) {
    write(this.problem, problem);
    write(this.figures, figures);
    for (const each of this.rules.values()) {
      each.radio.checked = each.rule.name === name;
      each.drawing = (each.radio.checked && drawing) || each.rule.drawing;
    }
    this.draw();
    const found = name === null ? undefined : this.rules.get(name);
    if (this.shown !== name) {
      this.shown = name;
      this.controls.clear();
      this.parameters.replaceChildren(...(found?.rule.parameters ?? []).map((each) => this.control(each)));
    }
    for (const [parameter, controls] of this.controls) {
      for (const control of controls) {
        if (control instanceof HTMLInputElement && control.type === "checkbox") {
          control.checked = values[parameter] === "true";
        } else if (control.value !== values[parameter]) control.value = values[parameter];
      }
    }
  }

  /** @param {Parameter} parameter */
  control({ name, help, values, unit, control, options, whole }) {
    const row = made("div", "fkv-parameter");
    const label = `${name} of ${this.stream}`;
    const type = control === "checkbox" ? control : "number";
    const field = control === "choice" ? choice(options, label) : input(type, label);
    const controls = [field];
    if (field instanceof HTMLInputElement && control !== "checkbox") {
      field.min = "0";
      field.step = whole ? "1" : "any";
    }
    if (control === "share") {
      const slider = input("range", `${name} of ${this.stream} as a share`);
      [slider.min, slider.max, slider.step] = ["0", "1", "0.01"];
      controls.push(slider);
    }
    for (const each of controls) each.addEventListener("change", () => this.set(name, textOf(each)));
    this.controls.set(name, controls);
    const title = made("b", "", name);
    title.append(unit ? made("small", "", ` ${unit}`) : "");
    row.append(title, ...controls, made("small", "fkv-parameter-help", `${help} (${values})`));
    return row;
  }

  /** @param {string} name of a parameter @param {string} value */
  set(name, value) {
    if (this.shown === null) return;
    const values = [...this.controls].map(([each, [field]]) => [each, textOf(field)]);
    this.pick(this.shown, { ...Object.fromEntries(values), [name]: value });
  }

  /** @param {string} name of a policy @param {Record<string, string>} values of its parameters */
  pick(name, values) {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.trigger("pick", { name, values }), PATIENCE);
  }
}

/** @param {HTMLInputElement | HTMLSelectElement} control @returns {string} its value as a policy's text has it */
function textOf(control) {
  if (control instanceof HTMLSelectElement) return control.value;
  if (control.type === "checkbox") return String(control.checked);
  return control.type === "range" ? Number(control.value).toFixed(2) : control.value;
}

/**
 * @param {string} tag
 * @param {string} [name] of its class
 * @param {string} [text]
 */
function made(tag, name = "", text = "") {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
}

/** @param {string} type @param {string} label */
function input(type, label) {
  const node = document.createElement("input");
  node.type = type;
  node.setAttribute("aria-label", label);
  return node;
}

/** @param {string[]} options @param {string} label */
function choice(options, label) {
  const node = document.createElement("select");
  node.append(...options.map((each) => new Option(each)));
  node.setAttribute("aria-label", label);
  return node;
}
