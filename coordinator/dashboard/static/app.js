// Which page is shown, and who sees it.

import { get, path, post, session, whenSessionEnds } from "./api.js";
import { h, show } from "./dom.js";
import * as devices from "./pages/devices.js";
import * as device from "./pages/device.js";
import * as join from "./pages/join.js";
import * as login from "./pages/login.js";
import * as plans from "./pages/plans.js";
import * as run from "./pages/run.js";
import * as runs from "./pages/runs.js";
import * as versions from "./pages/versions.js";

const TABS = [["", "Overview"], ["devices", "Devices"], ["versions", "Versions"], ["plans", "Plans"], ["join", "Join"]];
const PAGES = { "": run, devices, versions, plans, join };
const THEMES = ["auto", "light", "dark"];

let leave = () => {};
let who = null;

const head = document.getElementById("head");
const main = document.getElementById("main");
const link = h("span", { class: "link", role: "status" });

function linked(state) {
  const words = { live: "live", lost: "disconnected, trying again", still: "" }[state];
  link.dataset.state = state;
  if (link.textContent !== words) link.textContent = words;
}

function theme(next) {
  const now = localStorage.getItem("theme") || "auto";
  const chosen = next ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now;
  localStorage.setItem("theme", chosen);
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  if (next) window.dispatchEvent(new Event("theme"));
  return chosen;
}

function drawHead(name, tab) {
  const button = h("button", { type: "button", class: "plain", onclick: () => { button.textContent = `Theme: ${theme(true)}`; } },
    `Theme: ${theme(false)}`);
  show(head,
    h("div", { class: "bar" },
      h("a", { class: "brand", href: "#/" }, h("img", { src: "/icon.svg", alt: "", width: 24, height: 24 }), "FTTE"),
      link,
      h("div", { class: "row end grow" },
        button,
        who && h("span", { class: "quiet" }, who.role === "viewer" ? `${who.by}, read-only` : who.by),
        who && h("button", { type: "button", class: "plain", onclick: logout }, "Log out"))),
    name && h("nav", { "aria-label": `Pages of the run ${name}` },
      h("span", { class: "crumb" }, name),
      TABS.filter(([id]) => id !== "join" || who.role === "operator").map(([id, words]) =>
        h("a", { href: `#/runs/${encodeURIComponent(name)}${id && `/${id}`}`, "aria-current": id === tab ? "page" : null }, words))));
}

async function logout() {
  await post("/api/logout").catch(() => {});
  who = null;
  location.hash = "#/login";
}

function locked(words) {
  leave();
  leave = () => {};
  who = null;
  linked("still");
  drawHead();
  document.title = "Log in · FTTE";
  leave = login.open(main, words, enter) || (() => {});
}

async function enter() {
  who = await session();
  if (location.hash.startsWith("#/login")) history.replaceState(null, "", "#/");
  await route();
}

async function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  if (location.hash === "#main") return main.focus();
  if (parts[0] === "login") {
    if (parts[1]) {
      history.replaceState(null, "", "#/login"); // the secret stays in no history
      try {
        await post("/api/login", { secret: parts[1] });
        return enter();
      } catch (error) {
        return locked(error.message);
      }
    }
    return locked("");
  }
  if (!who) return locked("");
  leave();
  leave = () => {};
  linked("still");
  const [kind, name, tab = "", detail] = parts;
  const page = kind !== "runs" ? runs : tab === "devices" && detail ? device : PAGES[tab] || run;
  const context = { main, name, detail, who, linked, operator: who.role === "operator" };
  drawHead(name, tab);
  document.title = name ? `${detail || tab || "overview"} · ${name} · FTTE` : "Runs · FTTE";
  show(main, h("p", { class: "empty" }, "Loading …"));
  try {
    leave = (await page.open(context)) || (() => {});
  } catch (error) {
    show(main, h("div", { class: "empty" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message),
      h("button", { type: "button", onclick: route }, "Try again")));
  }
}

document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", route);
whenSessionEnds(() => { if (who) locked("Your session has ended."); });
theme(false);
try {
  who = await session();
} catch (error) {
  if (error.status !== 401) show(main, h("p", { class: "empty" }, error.message));
}
await route();
