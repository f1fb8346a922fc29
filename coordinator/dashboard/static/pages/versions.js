import { get, path, post } from "../api.js";
import { attempt, confirm } from "../dialog.js";
import { h, show, table } from "../dom.js";
import { date, metrics, number } from "../format.js";

// So many are asked for at a time.
const LIMIT = 100;

export async function open({ main, name, operator }) {
  const place = h("div", {}), compared = h("div", { "aria-live": "polite" });
  let versions = [], older = false, chosen = [];

  async function load() {
    take([], await get(`${path("runs", name, "versions")}?limit=${LIMIT}`));
  }

  async function loadOlder() {
    take(versions, await get(`${path("runs", name, "versions")}?limit=${LIMIT}&before=${versions.at(-1).version}`));
  }

  function take(before, found) {
    versions = [...before, ...found.toReversed()];
    older = found.length === LIMIT;
    draw();
  }

  const words = (version) => [version.kind === "merge" ? "" : version.kind, version.best && "best", version.pruned && "pruned", version.current_line ? "" : "rolled back"].filter(Boolean).join(", ");

  function draw() {
    show(place, table("Versions, newest first", [
      { head: "version", cell: (version) => version.version },
      { head: "compare", cell: (version) => h("input", { type: "checkbox", "aria-label": `Compare version ${version.version}`, checked: chosen.includes(version.version), onchange: (event) => choose(version.version, event.target.checked) }) },
      { head: "made", cell: (version) => date(version.created_at) },
      { head: "metrics", cell: (version) => metrics(version.metrics) },
      { head: "remarks", cell: words },
      ...(operator ? [{ head: "actions", cell: actions }] : []),
    ], versions, "There is no version yet."),
    older && h("button", { type: "button", onclick: () => attempt(loadOlder) }, "Show older ones"));
  }

  function actions(version) {
    if (version.pruned) return h("span", { class: "quiet" }, "its weights are gone");
    const at = (form) => `${path("runs", name, "download")}?version=${version.version}&format=${form}`;
    return h("div", { class: "row tight" },
      ["safetensors", "pt", "pte"].map((form) => h("a", { href: at(form), download: "", "aria-label": `Download version ${version.version} as .${form}` }, `.${form}`)),
      version !== versions[0] && version.current_line && h("button", { type: "button", "aria-label": `Roll back to version ${version.version}`, onclick: () => rollBack(version.version) }, "Roll back"));
  }

  function choose(number_, on) {
    chosen = on ? [...chosen, number_].slice(-2) : chosen.filter((each) => each !== number_);
    draw();
    place.querySelector(`input[aria-label="Compare version ${number_}"]`)?.focus();
    if (chosen.length < 2) return show(compared);
    const [from, to] = chosen.toSorted((a, b) => a - b).map((each) => versions.find((version) => version.version === each));
    const names = [...new Set([...Object.keys(from.metrics), ...Object.keys(to.metrics)])];
    show(compared, h("section", { class: "card" }, h("h2", {}, `Version ${from.version} and version ${to.version}`), table("Comparison", [
      { head: "metric", cell: (each) => each },
      { head: `version ${from.version}`, number: true, cell: (each) => number(from.metrics[each]) },
      { head: `version ${to.version}`, number: true, cell: (each) => number(to.metrics[each]) },
      { head: "change", number: true, cell: (each) => { const change = to.metrics[each] - from.metrics[each]; return `${change > 0 ? "+" : ""}${number(change)}`; } },
    ], names, "Neither has metrics.")));
  }

  async function rollBack(to) {
    const answer = await confirm(`Roll back to version ${to}?`, `A new version repeats version ${to}. Updates that were based on versions after it are discarded; nothing is deleted from the history.`, "Roll back", { danger: true, field: "Why (for the audit log)" });
    if (answer && await attempt(() => post(path("runs", name, "rollback"), { version: to, why: answer.why }), "Rolled back.")) await load();
  }

  show(main, h("div", { class: "row" }, h("h1", { class: "grow" }, "Versions"), h("button", { type: "button", onclick: () => attempt(load) }, "Load again")),
    h("p", { class: "quiet" }, "Choose two to compare them."), compared, place);
  await load();
}
