import { get, path } from "../api.js";
import { Chart } from "../charts.js";
import { h, s, show, table, update } from "../dom.js";
import { bytes, clock, count, metrics, number, percent, plural, seconds } from "../format.js";
import { follow } from "../live.js";
import { TRIP_PARTS, actions, bars, layerPicture, phase, tile } from "./parts.js";

const MOST_POINTS = 4_000;
const MOST_LINES = 200;

export async function open({ main, name, operator, linked }) {
  const plans = await get(path("runs", name, "plans"));
  const part = (title, ...rest) => h("section", { class: "card" }, h("h2", {}, title), ...rest);
  const places = Object.fromEntries(["head", "tiles", "buffer", "layers", "classes", "times", "weights", "staleness", "lines"].map((key) => [key, h("div", {})]));
  for (const [key, value] of [["class", "lines"], ["tabindex", "0"], ["role", "region"], ["aria-label", "Events, newest first"]]) places.lines.setAttribute(key, value);
  const axes = h("fieldset", { class: "row choice" }, h("legend", { class: "hidden" }, "Horizontal axis"),
    ["version", "time"].map((each, index) => h("label", {}, h("input", { type: "radio", name: "axis", value: each, checked: index === 0, onchange: redraw }), each)));
  const curve = h("div", { class: "chart" }), merges = h("div", { class: "chart" });
  show(main, places.head, places.tiles,
    h("div", { class: "columns" },
      h("div", { class: "column" },
        part("Metrics", axes, curve),
        part("Buffer", places.buffer),
        part("Layers that each tier trains", h("p", { class: "quiet" }, "From the input to the output. Coverage: the share of updates that trained the layer."), places.layers),
        part("Staleness of merged updates", places.staleness),
        part("Weights given", places.weights)),
      h("div", { class: "column" },
        part("Merges: staleness and weight", merges),
        part("Where a trip's time goes", places.times),
        part("Who takes part", places.classes)),
      h("section", { class: "card full" }, h("h2", {}, "Events"), places.lines)));

  const points = [];
  let metric = null, watched = "";
  const merge = new Chart(merges, "Staleness and weight of merged updates", [
    { label: "staleness", color: "--three", format: (value) => number(value, 2) },
    { label: "weight", color: "--one", scale: "right", dash: [6, 4], format: (value) => number(value, 3) },
  ], "Nothing has been merged yet.");

  function redraw() {
    const time = axes.querySelector("input:checked").value === "time";
    const x = points.map((point) => (time ? point.created_at : point.version));
    if (!points.length) return;
    metric.show([x, ...metric.series.map((each) => points.map((p) => p.metrics[each.label] ?? null))], time);
    merge.show([x, points.map((p) => p.staleness), points.map((p) => p.weight)], time);
  }

  // The metric that decides, and beside it the loss.
  function watch(name) {
    watched = name;
    const format = (value) => number(value);
    metric = new Chart(curve, "Metrics", [
      ...(name === "loss" ? [] : [{ label: name, color: "--one", format }]),
      { label: "loss", color: "--two", scale: name === "loss" ? "y" : "right", dash: [6, 4], format },
    ], "No version has metrics: the task has no held-out samples, or none was evaluated yet.");
  }

  function take({ run, versions, lines }) {
    if (!metric) watch(run.watched.metric);
    const seen = points.at(-1)?.version ?? -1;
    points.push(...versions.filter((point) => point.version > seen));
    if (points.length > MOST_POINTS) points.splice(0, points.length - MOST_POINTS);
    if (versions.length) redraw();
    const connected = run.devices - (run.states.offline || 0);
    update(places.head, [run.phase, run.waiting, run.notice], () => [
      h("div", { class: "row" }, h("h1", { class: "grow" }, name), phase(run),
        operator && actions(run)),
      h("p", { class: "waiting" }, run.waiting),
      run.notice && h("p", { class: "notice", role: "status" }, run.notice),
    ].filter(Boolean));
    const value = run.metrics[watched];
    update(places.tiles, [run.version, run.metrics, run.best, connected, run.devices, run.rate, run.bytes_up, run.bytes_down, run.merged], () => h("div", { class: "tiles" },
      tile("version", count(run.version), run.best === null ? "" : `best: ${run.best}`),
      tile(watched, number(value), run.goal !== null ? `goal ${run.goal}` : metrics(Object.fromEntries(Object.entries(run.metrics).filter(([each]) => each !== watched)))),
      tile("devices", `${count(connected)} of ${count(run.devices)}`, "connected"),
      tile("updates", count(run.merged), `merged; ${number(run.rate ?? 0, 1)} a minute`),
      tile("payload", bytes(run.bytes_up + run.bytes_down), run.dense_bytes ? `${percent((run.bytes_up + run.bytes_down) / run.dense_bytes)} of a dense exchange` : "up and down"),
      tile("staleness", number(run.mean_staleness, 1), "versions, lately")));
    update(places.buffer, [run.buffered, run.capacity, run.adaptive, run.states], () => buffer(run));
    update(places.layers, run.coverage, () => layerPicture(plans, run.coverage));
    update(places.classes, run.classes, () => classes(run.classes));
    update(places.times, run.times, () => times(run.times));
    update(places.staleness, run.staleness, () => Object.keys(run.staleness).length
      ? bars("Updates by staleness", Object.entries(run.staleness).slice(0, 12).map(([tau, of]) => [plural(Number(tau), "version"), of]), count)
      : h("p", { class: "empty" }, "Nothing has been merged yet."));
    update(places.weights, run.weights, () => Object.keys(run.weights || {}).length
      ? bars("Newest updates by staleness weight", Object.entries(run.weights).map(([weight, of]) => [weight, of]), count)
      : h("p", { class: "empty" }, "Nothing has been merged yet."));
    for (const line of lines) {
      places.lines.prepend(h("p", { class: line.kind }, h("time", { datetime: new Date(1000 * line.at).toISOString() }, clock(line.at)), " ", line.words));
    }
    while (places.lines.childElementCount > MOST_LINES) places.lines.lastElementChild.remove();
    if (!places.lines.childElementCount) show(places.lines, h("p", { class: "empty" }, "Nothing has happened yet."));
  }

  const stop = follow(path("runs", name, "events"), take, linked);
  return () => { stop(); metric?.close(); merge.close(); };
}

function buffer(run) {
  const words = `${run.buffered} of ${plural(run.capacity, "update")}${run.adaptive ? ", a size that adapts" : ""}`;
  const doing = ["training", "downloading", "uploading", "waiting", "evaluating", "idle"].filter((state) => run.states[state]);
  const picture = run.capacity <= 60
    ? s("svg", { class: "buffer", width: Math.min(run.capacity, 20) * 24, viewBox: `0 0 ${Math.min(run.capacity, 20) * 18} ${Math.ceil(run.capacity / 20) * 18}`, role: "img", "aria-label": `Buffer: ${words}` },
        Array.from({ length: run.capacity }, (_, index) => s("rect", {
          x: (index % 20) * 18 + 1, y: Math.floor(index / 20) * 18 + 1, width: 15, height: 15, rx: 3,
          class: index < run.buffered ? "trained" : "frozen" })))
    : h("progress", { max: run.capacity, value: Math.min(run.buffered, run.capacity), "aria-label": `Buffer: ${words}` });
  return [h("p", {}, words), picture, h("p", { class: "quiet" }, doing.length ? doing.map((state) => `${run.states[state]} ${state}`).join(", ") : "No device is working.")];
}

function times(values) {
  if (!values?.trips) return h("p", { class: "empty" }, "No update has come yet.");
  const parts = TRIP_PARTS.filter(([name]) => values[name] !== null).map(([name, words]) => [words, values[name]]);
  return [bars("Mean time of a trip's parts", parts, seconds), h("p", { class: "quiet" }, `Means over the last ${plural(values.trips, "update")}. Training is what devices say; elsewhere is the rest of their time with the work, such as waiting for a charger.`)];
}

function classes(rows) {
  return [participation(rows || []), classTable(rows)];
}

const className = (row) => `${row.tier}${row.pace === "slow" ? ", slow" : ""}`;

// For each class two bars: its share of the devices, and of the updates. Equal lengths: all contribute alike.
function participation(rows) {
  const bar = (kind, of, share) => h("div", { class: "pair" },
    h("meter", { class: kind, min: 0, max: 1, value: share, "aria-label": `${of}: ${percent(share)}` }), h("span", {}, percent(share)));
  return rows.length > 0 && h("figure", { class: "figure" },
    h("dl", { class: "bars", "aria-label": "Share of the devices and of the updates by class" }, rows.map((row) => [
      h("dt", {}, className(row)),
      h("dd", { class: "pairs" }, bar("few", "of the devices", row.share_of_devices), bar("", "of the updates", row.share_of_updates))])),
    h("figcaption", { class: "quiet" }, h("span", { class: "key few" }), "of the devices ", h("span", { class: "key" }), "of the updates"));
}

function classTable(rows) {
  return table("Participation by class of devices", [
    { head: "class", cell: className },
    { head: "devices", number: true, cell: (row) => `${row.devices} (${percent(row.share_of_devices)})` },
    { head: "updates", number: true, cell: (row) => `${count(row.updates)} (${percent(row.share_of_updates)})` },
    { head: "failures", number: true, cell: (row) => count(row.failures) },
    { head: "on their own data", cell: (row) => metrics(row.metrics) },
  ], rows || [], "No device has got work yet.");
}
