import { post } from "../api.js";
import { h, show } from "../dom.js";

export function open(main, words, enter) {
  const input = h("input", { id: "secret", type: "password", autocomplete: "off", required: true, maxlength: 200 });
  const wrong = h("p", { class: "bad", role: "alert" }, words);
  async function submit(event) {
    event.preventDefault();
    // Somebody may paste the whole address.
    const secret = input.value.trim().split("/").pop();
    try {
      await post("/api/login", { secret });
      await enter();
    } catch (error) {
      wrong.textContent = error.message;
    }
  }
  show(main, h("section", { class: "card narrow" },
    h("h1", {}, "Log in"),
    wrong,
    h("p", {}, "Where the coordinator runs, ", h("code", {}, "ftte dashboard"),
      " prints an address that lets you in once. Or paste the admin token, which is in the file ",
      h("code", {}, "admin.token"), " of the admin folder."),
    h("form", { onsubmit: submit },
      h("label", { for: "secret" }, "Address or admin token", input),
      h("button", { class: "primary" }, "Log in"))));
  input.focus();
}
