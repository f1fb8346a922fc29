import { get, path, post, remove } from "../api.js";
import { attempt, confirm, say } from "../dialog.js";
import { h, s, show, table } from "../dom.js";
import { date } from "../format.js";

export async function open({ main, name, operator }) {
  if (!operator) return show(main, h("p", { class: "empty" }, "This session may look only."));
  const made = h("div", {}), tokens = h("div", {});
  const uses = h("select", { id: "uses" }, [["1", "one device"], ["10", "10 devices"], ["100", "100 devices"], ["", "any number"]].map(([value, words]) => h("option", { value }, words)));
  const valid = h("select", { id: "valid" }, [["3600", "an hour"], ["86400", "a day"], ["604800", "a week"], ["", "for ever"]].map(([value, words]) => h("option", { value }, words)));
  const note = h("input", { id: "note", type: "text", maxlength: 200, placeholder: "for whom" });

  async function invite(event) {
    event.preventDefault();
    const body = { uses: uses.value ? Number(uses.value) : null, seconds: valid.value ? Number(valid.value) : null, note: note.value };
    const found = await attempt(() => post(path("runs", name, "join"), body));
    if (!found) return;
    const here = /\/\/(127\.|localhost|\[::1\])/.test(decodeURIComponent(found.link));
    show(made,
      qr(found.rows),
      h("label", { for: "link" }, "Link", h("input", { id: "link", type: "text", readonly: true, value: found.link, onfocus: (focus) => focus.target.select() })),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => navigator.clipboard.writeText(found.link).then(() => say("Copied."), () => say("Select the link and copy it.", true)) }, "Copy the link"),
        found.page && h("a", { href: found.page, rel: "noreferrer" }, "The same as a page that cameras open")),
      here && h("p", { class: "notice" }, "The coordinator listens on this machine alone: a phone cannot reach it. Set server.host or server.public_url in the run file."),
      h("p", { class: "quiet" }, "On a computer: ", h("code", {}, `ftte-device join '${found.link}' --data MODULE:CALLABLE`)));
    await list();
  }

  async function list() {
    const rows = await get(path("runs", name, "tokens"));
    const state = (token) => (token.revoked_at ? "revoked" : token.expires_at && token.expires_at < Date.now() / 1000 ? "expired" : token.uses_left === 0 ? "used up" : "good");
    show(tokens, table("Invitations", [
      { head: "id", cell: (token) => token.id },
      { head: "for", cell: (token) => token.note || "–" },
      { head: "uses left", number: true, cell: (token) => token.uses_left ?? "any" },
      { head: "good until", cell: (token) => (token.expires_at ? date(token.expires_at) : "for ever") },
      { head: "state", cell: state },
      { head: "actions", cell: (token) => (state(token) === "good" ? h("button", { type: "button", "aria-label": `Revoke the invitation ${token.id}`, onclick: () => revoke(token) }, "Revoke") : "") },
    ], rows.toReversed(), "There are no invitations yet."));
  }

  async function revoke(token) {
    if (await confirm("Revoke the invitation?", "Nobody enrols with it any more. Who has enrolled with it stays.", "Revoke") && await attempt(() => remove(path("runs", name, "tokens", token.id)), "Revoked.")) await list();
  }

  show(main, h("h1", {}, "Join a device"),
    h("div", { class: "grid" },
      h("section", { class: "card" },
        h("p", {}, "An invitation holds the coordinator's address, the run's key and a token. Scan it with the app, or send the link."),
        h("form", { onsubmit: invite },
          h("label", { for: "uses" }, "For", uses), h("label", { for: "valid" }, "Valid", valid), h("label", { for: "note" }, "Note", note),
          h("button", { class: "primary" }, "Make an invitation"))),
      h("section", { class: "card" }, made)),
    h("h2", {}, "Invitations"), tokens);
  show(made, h("p", { class: "empty" }, "The code appears here."));
  await list();
}

function qr(rows) {
  const size = rows.length + 8;
  const d = rows.flatMap((row, y) => [...row].map((bit, x) => (bit === "1" ? `M${x + 4} ${y + 4}h1v1h-1z` : ""))).join("");
  return s("svg", { class: "qr", viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "QR code of the invitation" },
    s("rect", { width: size, height: size, fill: "#fff" }), s("path", { d, fill: "#000" }));
}
