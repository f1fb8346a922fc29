import { get, path, post, remove } from "../api.js";
import { attempt, confirm } from "../dialog.js";
import { h, show, table } from "../dom.js";
import { ago, bytes, clock, count, date, metrics, number, percent, seconds } from "../format.js";
import { TRIP_PARTS, deviceState } from "./parts.js";

const PROFILE = { engine: "engine", budget: "budget", samples: "samples", executorch: "ExecuTorch", peak_rss_bytes: "peak memory" };

export async function open({ main, name, detail, operator }) {
  const here = path("runs", name, "devices", detail);
  const back = `#/runs/${encodeURIComponent(name)}/devices`;

  async function load() {
    const device = await get(here);
    const facts = (rows) => h("dl", { class: "facts" }, rows.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
    const form = (key, value) => (/bytes|budget/.test(key) && typeof value === "number" ? bytes(value) : typeof value === "object" ? JSON.stringify(value) : String(value));
    const profile = Object.entries(device.profile).filter(([key]) => !["self_check"].includes(key)).map(([key, value]) => [PROFILE[key] || key.replaceAll("_", " "), form(key, value)]);
    show(main,
      h("p", {}, h("a", { href: back }, "← All devices")),
      h("div", { class: "row" }, h("h1", { class: "grow" }, device.id), deviceState(device.state),
        operator && !device.revoked_at && h("button", { type: "button", onclick: revoke }, "Revoke"),
        operator && h("button", { type: "button", class: "danger", onclick: withdraw }, "Withdraw")),
      device.set_aside && h("p", { class: "notice" }, `Set aside until ${date(device.set_aside_until)}: ${device.set_aside}`),
      device.self_check && h("p", { class: "notice" }, `Its runtime failed the self-check: ${device.self_check}`),
      h("div", { class: "grid" },
        h("section", { class: "card" }, h("h2", {}, "What it has done"), facts([
          ["updates", count(device.updates)], ["failures", count(device.failures)], ["lost in a row", count(device.lost)],
          ["staleness", device.staleness === null ? "–" : `${device.staleness} versions, lately`],
          ["bytes", `${bytes(device.bytes_up)} up, ${bytes(device.bytes_down)} down`],
          ["enrolled", date(device.enrolled_at)], ["last seen", ago(device.last_seen)]])),
        h("section", { class: "card" }, h("h2", {}, "What it is"), profile.length ? facts(profile) : h("p", { class: "empty" }, "It has not said yet.")),
        h("section", { class: "card" }, h("h2", {}, "Its plan"), device.plan ? facts([
          ["tier", device.plan.tier], ["trains", `${count(device.plan.trained)} parameters`], ["budget", bytes(device.plan.budget_bytes)],
          ["measured", bytes(device.plan.measured_bytes)], ["planned", bytes(device.plan.planned_bytes)]]) : h("p", { class: "empty" }, "It has had no work yet.")),
        h("section", { class: "card" }, h("h2", {}, "Its last report"), Object.keys(device.report).length ? facts([
          ["samples", count(device.report.samples)], ["loss", number(device.report.loss)], ["metrics", metrics(device.report.metrics)],
          ["training", `${count(device.report.steps)} steps in ${seconds(device.report.seconds)}`]]) : h("p", { class: "empty" }, "It has sent no update yet."))),
      h("h2", {}, "Its updates"),
      table("Updates of this device, newest first", [
        { head: "arrived", cell: (trip) => clock(trip.received_at) },
        { head: "of version", number: true, cell: (trip) => trip.version },
        { head: "became", cell: (trip) => (trip.merged_into !== null ? `version ${trip.merged_into}` : trip.discarded || "waits") },
        { head: "staleness", number: true, cell: (trip) => trip.staleness ?? "–" },
        { head: "weight", number: true, cell: (trip) => number(trip.weight, 3) },
        { head: "loss", number: true, cell: (trip) => number(trip.loss, 3) },
        { head: "size", number: true, cell: (trip) => bytes(trip.bytes_up) },
        ...TRIP_PARTS.map(([name, words]) => ({ head: words, number: true, cell: (trip) => seconds(trip[`${name}_seconds`]) })),
      ], device.trips, "It has sent no update yet."));
  }

  async function revoke() {
    const words = "The device is sent away and may not come back. What it has contributed stays.";
    if (await confirm(`Revoke ${detail}?`, words, "Revoke", { danger: true }) && await attempt(() => post(`${here}/revoke`), "Revoked.")) await load();
  }

  async function withdraw() {
    const words = "All that is known of the device is deleted, and its updates that wait are stopped. What was merged stays in the model, without its name. This cannot be undone.";
    if (await confirm(`Withdraw ${detail}?`, words, "Withdraw", { danger: true }) && await attempt(() => remove(here), "Withdrawn.")) location.hash = back;
  }

  await load();
}
