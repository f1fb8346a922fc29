// Ask before something is done, and say what it does; say what went wrong.

import { h } from "./dom.js";

export function confirm(title, words, verb, { danger = false, field = null } = {}) {
  return new Promise((decide) => {
    const input = field && h("input", { id: "why", type: "text", maxlength: 200, autocomplete: "off" });
    const done = (result) => { dialog.close(); dialog.remove(); decide(result); };
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, words),
      field && h("label", { for: "why" }, field, input),
      h("div", { class: "row end" },
        h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
        h("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => done({ why: input?.value || "" }) }, verb)));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function say(words, bad = false) {
  let place = document.getElementById("said");
  if (!place) {
    place = h("div", { id: "said", role: "status" });
    document.body.append(place);
  }
  const line = h("p", { class: bad ? "bad" : "" }, words);
  place.append(line);
  setTimeout(() => line.remove(), bad ? 12_000 : 5_000);
}

// Do what was decided; whether it was done.
export async function attempt(act, done) {
  try {
    const result = await act();
    if (done) say(done);
    return result ?? true;
  } catch (error) {
    say(error.message, true);
    return null;
  }
}
