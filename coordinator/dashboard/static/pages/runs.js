import { h, show, update } from "../dom.js";
import { bytes, count, metrics, number, percent, plural } from "../format.js";
import { follow } from "../live.js";
import { actions, phase } from "./parts.js";

export function open({ main, linked, operator }) {
  const list = h("div", { class: "grid" });
  const cards = new Map();
  show(main, h("h1", {}, "Runs"), list);
  return follow("/api/events", ({ runs }) => {
    update(list, runs.map((run) => run.name), () => {
      cards.clear();
      for (const run of runs) cards.set(run.name, new Card(run.name, operator));
      return runs.length ? [...cards.values()].map((card) => card.element) :
        h("p", { class: "empty" }, "No run is served here. ", h("code", {}, "ftte runs create RUN.toml"), " adds one.");
    });
    for (const run of runs) cards.get(run.name).take(run);
  }, linked);
}

// One run. Its head is drawn again only when the run's phase changes, so that the focus stays on a button.
class Card {
  constructor(name, operator) {
    this.name = name;
    this.operator = operator;
    this.head = h("div", {});
    this.facts = h("div", {});
    this.element = h("section", { class: "card" }, this.head, this.facts);
  }

  take(run) {
    update(this.head, [run.phase, run.task], () => [
      h("div", { class: "row" }, h("h2", { class: "grow" }, h("a", { href: `#/runs/${encodeURIComponent(run.name)}` }, run.name)), phase(run)),
      h("p", { class: "quiet" }, run.task),
      this.operator && h("div", { class: "row tight" }, actions(run, run.name)),
    ].filter(Boolean));
    const connected = run.devices - (run.states.offline || 0);
    update(this.facts, run, () => [
      h("dl", { class: "facts" },
        h("dt", {}, "version"), h("dd", {}, count(run.version)),
        h("dt", {}, "metrics"), h("dd", {}, metrics(run.metrics)),
        h("dt", {}, "devices"), h("dd", {}, `${count(connected)} of ${plural(run.devices, "device")} connected`),
        h("dt", {}, "updates"), h("dd", {}, `${count(run.merged)} merged; ${number(run.rate ?? 0, 1)} a minute`),
        h("dt", {}, "payload"), h("dd", {}, `${bytes(run.bytes_up)} up, ${bytes(run.bytes_down)} down`,
          run.dense_bytes ? `: ${percent((run.bytes_up + run.bytes_down) / run.dense_bytes)} of a dense exchange` : "")),
      h("p", {}, run.waiting),
      run.notice && h("p", { class: "notice" }, run.notice),
    ].filter(Boolean));
  }
}
