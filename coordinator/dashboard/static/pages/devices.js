import { get, path } from "../api.js";
import { h, show, table } from "../dom.js";
import { ago, bytes, count } from "../format.js";
import { deviceState } from "./parts.js";

const LIMIT = 50;
const REFRESH_MS = 5_000;
const STATES = ["", "connected", "training", "waiting", "downloading", "uploading", "idle", "offline"];

export async function open({ main, name, linked }) {
  const wanted = { search: "", order: "id", descending: false, offset: 0, limit: LIMIT, state: "" };
  const place = h("div", { "aria-live": "off" }), pages = h("div", { class: "row" });
  let timer = 0, typing = 0, asked = 0;

  async function load() {
    const mine = ++asked;
    clearTimeout(timer);
    try {
      const found = await get(`${path("runs", name, "devices")}?${new URLSearchParams(wanted)}`);
      if (mine !== asked) return;
      draw(found);
      linked("live");
    } catch (error) {
      if (mine !== asked) return;
      linked("lost");
      if (error.status) show(place, h("p", { class: "bad" }, error.message));
    }
    timer = setTimeout(load, REFRESH_MS);
  }

  function change(values) {
    Object.assign(wanted, { offset: 0 }, values);
    load();
  }

  function sorted(head, order) {
    const on = wanted.order === order;
    return {
      head: h("button", { type: "button", class: "sort", onclick: () => change({ order, descending: on ? !wanted.descending : order !== "id" }) },
        head, h("span", { "aria-hidden": true }, on ? (wanted.descending ? " ▼" : " ▲") : "")),
      sort: on ? (wanted.descending ? "descending" : "ascending") : null,
    };
  }

  function draw({ total, offset, devices }) {
    const focused = document.activeElement?.closest("th")?.cellIndex;
    show(place, table("Devices", [
      { ...sorted("device", "id"), cell: (row) => h("a", { href: `#/runs/${encodeURIComponent(name)}/devices/${encodeURIComponent(row.id)}` }, row.id) },
      { head: "state", cell: (row) => deviceState(row.set_aside ? "set aside" : row.state) },
      { ...sorted("tier", "tier"), cell: (row) => row.tier || "–" },
      { ...sorted("updates", "updates"), number: true, cell: (row) => count(row.updates) },
      { ...sorted("failures", "failures"), number: true, cell: (row) => count(row.failures) },
      { head: "self-check", cell: (row) => (row.self_check ? h("span", { class: "bad" }, "failed") : "–") },
      { ...sorted("up", "bytes_up"), number: true, cell: (row) => bytes(row.bytes_up) },
      { ...sorted("down", "bytes_down"), number: true, cell: (row) => bytes(row.bytes_down) },
      { ...sorted("last seen", "last_seen"), cell: (row) => ago(row.last_seen) },
    ], devices, wanted.search || wanted.state ? "No device is like that." : "No device has joined yet. The page Join gives a link."));
    if (focused !== undefined) place.querySelectorAll("th[scope=col]")[focused]?.querySelector("button")?.focus();
    show(pages,
      h("span", { class: "quiet", role: "status" }, total ? `${count(offset + 1)} to ${count(offset + devices.length)} of ${count(total)}` : "0 devices"),
      h("button", { type: "button", disabled: offset === 0, onclick: () => { wanted.offset = Math.max(offset - LIMIT, 0); load(); } }, "Previous"),
      h("button", { type: "button", disabled: offset + devices.length >= total, onclick: () => { wanted.offset = offset + LIMIT; load(); } }, "Next"));
  }

  show(main, h("h1", {}, "Devices"),
    h("div", { class: "row filters" },
      h("label", { for: "search" }, "Search", h("input", { id: "search", type: "search", placeholder: "name, tier or model", maxlength: 100,
        oninput: (event) => { clearTimeout(typing); typing = setTimeout(() => change({ search: event.target.value.trim() }), 200); } })),
      h("label", { for: "state" }, "State", h("select", { id: "state", onchange: (event) => change({ state: event.target.value }) },
        STATES.map((state) => h("option", { value: state }, state || "any"))))),
    place, pages);
  await load();
  return () => { asked = -1; clearTimeout(timer); clearTimeout(typing); };
}
