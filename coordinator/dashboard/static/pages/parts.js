// What several pages have in common.

import { path, post } from "../api.js";
import { attempt, confirm } from "../dialog.js";
import { h, s } from "../dom.js";
import { number, percent } from "../format.js";

// What a trip's time goes to, in the order in which it happens, and its words.
export const TRIP_PARTS = [["waiting", "waiting"], ["download", "download"], ["training", "training"], ["elsewhere", "elsewhere"], ["upload", "upload"], ["until_merged", "until merged"]];

export const phase = (run) => h("span", { class: `phase ${run.phase}` }, run.phase);
export const deviceState = (state) => h("span", { class: `state ${state}` }, state);

// What can be done to a run: the button, what it does, and in which phases.
const ACTIONS = {
  start: ["Start", "Devices get work, and updates are merged.", ["created", "finished"]],
  resume: ["Resume", "Devices get work again, and updates are merged.", ["paused", "draining"]],
  pause: ["Pause", "No work is given out and nothing is merged. Updates of devices that train now are taken, and merged later.", ["running", "draining"]],
  drain: ["Drain", "No new work is given out. What devices train now is merged; then the run pauses.", ["running"]],
  finish: ["Finish", "The run ends now, and devices are told. It can be started again.", ["created", "running", "paused", "draining"]],
};

async function act(run, action) {
  const [verb, words] = ACTIONS[action];
  if (await confirm(`${verb} ${run.name}?`, words, verb, { danger: action === "finish" })) {
    await attempt(() => post(path("runs", run.name, action)), `${verb}: done.`);
  }
}

// Buttons for what can be done to a run in its phase.
export const actions = (run, of = "") => Object.entries(ACTIONS).filter(([, [, , phases]]) => phases.includes(run.phase)).map(([action, [verb]]) =>
  h("button", { type: "button", class: action === "finish" ? "danger" : "", "aria-label": of ? `${verb} ${of}` : null, onclick: () => act(run, action) }, verb));

// Layers from the input to the output, a row for each tier, as much filled as is trained.
export function layerPicture(plans, coverage) {
  const cell = 26, gap = 4, left = 84, layers = plans.layers, tiers = plans.tiers;
  const rows = tiers.length + (coverage ? 1 : 0), width = left + layers.length * (cell + gap), height = rows * (cell + 12) + 6;
  const row = (name, shares, kind, y) => [
    s("text", { x: left - 8, y: y + cell / 2 + 4, "text-anchor": "end" }, name),
    shares.map((share, index) => {
      const x = left + index * (cell + gap), high = share > 0 ? Math.max(share * cell, 3) : 0;
      return s("g", {},
        s("title", {}, `${layers[index].name}: ${percent(share)} ${kind === "covered" ? "of the updates train it" : `trained by ${name}`}`),
        s("rect", { x, y, width: cell, height: cell, rx: 3, class: "frozen" }),
        s("rect", { x, y: y + cell - high, width: cell, height: high, rx: 3, class: kind }));
    }),
  ];
  const words = tiers.map((tier) => `${tier.name} trains ${percent(tier.trained / plans.parameters)}`).join("; ");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Layers that each tier trains" },
    s("svg", { class: "layers", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Layers that each tier trains: ${words}` },
      [...tiers].reverse().map((tier, index) => row(tier.name, tier.shares, "trained", index * (cell + 12) + 3)),
      coverage && row("coverage", coverage, "covered", tiers.length * (cell + 12) + 3)));
}

export function bars(label, entries, format = (value) => number(value, 1)) {
  const most = Math.max(...entries.map(([, value]) => value), 1e-9);
  return h("dl", { class: "bars", "aria-label": label }, entries.map(([name, value]) => [
    h("dt", {}, name),
    h("dd", {}, h("meter", { min: 0, max: most, value, "aria-label": `${name}: ${format(value)}` }), h("span", {}, format(value))),
  ]));
}

export function tile(label, value, more) {
  return h("div", { class: "tile" }, h("span", { class: "quiet" }, label), h("strong", {}, value), more && h("span", { class: "quiet" }, more));
}
