import { h, show, update } from "../dom.js";
import { bytes, metrics, percent, plural } from "../format.js";
import { follow } from "../live.js";
import { phase } from "./parts.js";

export function open({ main, linked }) {
  const list = h("div", { class: "grid" });
  show(main, h("h1", {}, "Runs"), list);
  return follow("/api/events", ({ runs }) => update(list, runs, () => runs.length ? runs.map(card) :
    h("p", { class: "empty" }, "No run is served here. ", h("code", {}, "ftte runs create RUN.toml"), " adds one.")), linked);
}

function card(run) {
  const connected = run.devices - (run.states.offline || 0);
  return h("section", { class: "card" },
    h("div", { class: "row" }, h("h2", { class: "grow" }, h("a", { href: `#/runs/${encodeURIComponent(run.name)}` }, run.name)), phase(run)),
    h("p", { class: "quiet" }, run.task),
    h("dl", { class: "facts" },
      h("dt", {}, "version"), h("dd", {}, run.version),
      h("dt", {}, "metrics"), h("dd", {}, metrics(run.metrics)),
      h("dt", {}, "devices"), h("dd", {}, `${connected} of ${plural(run.devices, "device")} connected`),
      h("dt", {}, "payload"), h("dd", {}, `${bytes(run.bytes_up)} up, ${bytes(run.bytes_down)} down`,
        run.dense_bytes ? `: ${percent((run.bytes_up + run.bytes_down) / run.dense_bytes)} of a dense exchange` : "")),
    h("p", {}, run.waiting),
    run.notice && h("p", { class: "notice" }, run.notice));
}
