// @ts-check
/** The Live tab's stage: connects the session, the player and everything that draws. */

import { remember } from "./address.js";
import { asker } from "./ask.js";
import { Controls, press, promptField } from "./controls.js";
import { find, findAll, findButton, findCanvas, onLayout, writeStatus } from "./dom.js";
import { heads } from "./heads/state.js";
import { listen } from "./keyboard.js";
import { sayExpanded, setTalk, toggleDark, toggleFigures, toggleHelp, toggleTalk } from "./modes.js";
import { FACTOR } from "./overlay.js";
import { Panels } from "./panels.js";
import { streamsOf } from "./protocol.js";
import { Readout } from "./readout.js";
import { session } from "./session.js";
import { sortTables } from "./sort.js";
import { learn } from "./shared.js";
import { followTabs, openTab } from "./tabs.js";
import { offer } from "./take.js";
import { Timeline } from "./timeline.js";
import { Tour } from "./tour.js";
import { Views } from "./views.js";

/** @import { Manifest } from "./session.js" */

/**
 * What Gradio hands to the script of a gr.HTML component.
 * @template [T=any] value
 * @template [P={}] other props
 * @typedef {object} Component
 * @property {HTMLElement} element
 * @property {{ value: T, facts: import("./shared.js").PageFacts } & P} props
 * @property {(event: string, data: object) => void} trigger
 * @property {(props: string, callback: () => void) => void} watch
 */

const NARROW = 720; // pixels, as in style.css
const MOVES = 3; // frames painted from which the video moves

/** @param {Component<Manifest, { focus: { layer: number, head: number, row: number, col: number } }>} component */
export function mount({ element, props, trigger, watch }) {
  learn(props.facts);
  heads.start(props.focus, trigger);
  const born = performance.now();
  const stage = find(element, ".fkv");
  const { player } = session;
  const readout = new Readout(stage, session);
  const timeline = new Timeline(stage, session);
  const panels = new Panels(stage, player);
  const views = new Views(stage, session, heads);
  const controls = new Controls(session);
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const screens = findAll(stage, ".fkv-screen").map((figure) => [figure.dataset.stream, findCanvas(figure, "canvas")]);
  const paint = onceAFrame(() => {
    panels.paint();
    timeline.paint();
  });
  /** @type {number | null} milliseconds until the video moved */
  let waited = null;

  session.addEventListener("begin", () => {
    if (player.loop && still) player.hold(true);
    stage.dataset.streams = (session.shown.streams ?? []).join("");
    timeline.begin();
    readout.begin();
    views.look();
    paint();
  });
  session.addEventListener("manifest", () => {
    stage.dataset.state = session.state;
    stage.dataset.shown = session.shown.state;
    say(session.manifest.text ?? "");
    if (session.shown.run === player.key) remember(session.shown.link ?? "", player.rounds);
    timeline.paintPlay();
    undo.disabled = !session.streaming;
  });
  session.addEventListener("state", () => {
    views.paint(true);
    paint();
  });
  const branch = findButton(stage, ".fkv-branch");
  const undo = findButton(stage, ".fkv-undo");
  /** Show the streams of the chunk shown: the past of a branch is one stream. */
  const followStreams = () => {
    const streams = player.round?.record ? streamsOf(player.round.record).join("") : "";
    if (streams && streams !== stage.dataset.streams) {
      stage.dataset.streams = streams;
      views.look();
    }
    branch.disabled = !player.round?.record || player.loop;
  };
  player.addEventListener("chunk", () => {
    timeline.collect();
    followStreams();
    remember(session.shown.link ?? "", player.rounds);
    readout.show();
    paint();
  });
  player.addEventListener("frame", () => {
    if (waited === null && player.painted.A + player.painted.B > MOVES) waited = performance.now() - born;
    const { width, height } = player.screens[stage.dataset.streams === "B" ? "B" : "A"];
    stage.style.setProperty("--fkv-ratio", (width / height).toFixed(4));
    views.paint();
  });
  onLayout(stage, () => {
    views.paint(true);
    paint();
  });

  const playPause = () => {
    controls.playPause();
    timeline.paintPlay();
  };
  /** Answer a press at once; the next report of the server replaces it. @param {string} text */
  const say = (text) => writeStatus(find(stage, ".fkv-status"), text);
  const announce = (/** @type {string} */ text) => say(`${session.manifest.text ?? ""} Next: ${text}.`);
  listen({
    " ": playPause,
    ".": () => controls.step(),
    "?": toggleHelp,
    a: () => views.attention.click(),
    b: () => branch.click(),
    c: () => views.cache.click(),
    d: toggleDark,
    e: () => controls.takeExample(announce),
    f: () => press("fkv-flush"),
    g: () => controls.go(),
    h: toggleFigures,
    p: asker(element, session, trigger, announce),
    s: () => press("fkv-stop"),
    t: toggleTalk,
    x: () => press("fkv-cut"),
    z: () => undo.click(),
    ArrowLeft: () => player.seek(player.at - 1),
    ArrowRight: () => player.seek(player.at + 1),
    End: () => player.follow(),
    ...Object.fromEntries(views.radios.map((radio, i) => [String(i + 1), () => radio.click()])),
  });
  find(stage, ".fkv-play").addEventListener("click", playPause);
  branch.addEventListener("click", () => {
    say(`Branching after chunk ${player.at + 1}: generating its past once more.`);
    const prompt = player.round?.record?.prompt ?? "";
    trigger("branch", { chunk: player.at + 1, prompt, query: window.location.search });
    session.goPressed();
  });
  undo.addEventListener("click", () => {
    say("Taking the last change back.");
    trigger("undo", {});
  });
  for (const button of findAll(stage, ".fkv-begin")) button.addEventListener("click", () => press("fkv-go"));
  document.addEventListener("click", ({ target }) => {
    const button = /** @type {Element} */ (target).closest?.("button");
    if (button?.id === "fkv-pause") {
      say(session.state === "paused" ? "Resuming." : "Pauses after this chunk.");
      session.pausePressed();
    }
    if (button?.id === "fkv-stop") say(session.state === "live" ? "Stops after this chunk." : "Stopping.");
    if (button?.id === "fkv-change") announce(promptField().value.trim());
    if (button?.id === "fkv-step") session.stepPressed();
    if (button?.id === "fkv-go") {
      say(session.running ? "Starting over." : "Starting: the first chunk comes in a moment.");
      session.goPressed();
      if (window.innerWidth <= NARROW) stage.scrollIntoView({ behavior: still ? "auto" : "smooth" });
    }
    if (button?.dataset.fkv === "theme") toggleDark();
    if (button?.dataset.fkv === "talk") toggleTalk();
    if (button?.dataset.fkv === "help") toggleHelp();
    if (button?.dataset.fkv === "tour") {
      toggleHelp();
      tour.start();
    }
  });

  publish({
    player,
    heads,
    factor: FACTOR,
    get painted() {
      return player.painted;
    },
    get marks() {
      return timeline.marks;
    },
    get state() {
      return session.state;
    },
    get view() {
      return views.shown;
    },
    get waited() {
      return waited;
    },
  });
  offer(stage, session);
  const tour = new Tour(find(element, ".fkv-tour"));
  followTabs(heads);
  sayExpanded();
  sortTables();
  const query = new URLSearchParams(window.location.search);
  if (query.get("talk") === "1") setTalk(true);
  else if (query.get("embed") === "1") document.body.classList.add("fkv-embed");
  else {
    openTab(query, heads);
    if (!query.has("tab")) tour.greet();
  }
  // Live's panel hides on other tabs, and all that is in it.
  find(document, ".gradio-container").append(find(stage, ".fkv-leave"), ...findAll(element, "dialog"));
  player.start(Object.fromEntries(screens));
  watch("value", () => session.receive(props.value));
  session.receive(props.value);
  paint();
}

/**
 * Set `window.fkvStudio`, the only global of the page, for tests and the browser's console. The page never reads it.
 *
 * - `player`: the Player of the stage
 * - `heads`: the HeadsState that the Heads tab and the stage share
 * - `painted`: frames painted per stream
 * - `marks`: changes on the timeline
 * - `state`: state of the run, as in Manifest
 * - `view`: view of the stage, as in its radio buttons
 * - `factor`: amplification of the difference view
 * - `waited`: milliseconds until the video moved; null before
 *
 * @param {object} studio
 */
function publish(studio) {
  Object.assign(window, { fkvStudio: studio });
}

/**
 * @param {() => void} draw
 * @returns {() => void} requests `draw` before the next repaint, once even if called several times
 */
function onceAFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}
