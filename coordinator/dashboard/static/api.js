// Requests to the coordinator that served this page.

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

let form = "";
let ended = () => {};
export const path = (...parts) => "/api/" + parts.map(encodeURIComponent).join("/");
export const whenSessionEnds = (call) => { ended = call; };

async function ask(method, url, body) {
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers: body === undefined ? { "X-FTTE-Form": form } : { "X-FTTE-Form": form, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new Refused(0, "The coordinator does not answer. Is it running?");
  }
  const data = await answer.json().catch(() => ({}));
  if (answer.status === 401 && url !== "/api/login") ended();
  if (!answer.ok) throw new Refused(answer.status, data.error || `The coordinator answered with status ${answer.status}.`);
  return data;
}

export const get = (url) => ask("GET", url);
export const post = (url, body = {}) => ask("POST", url, body);
export const remove = (url) => ask("DELETE", url);

export async function session() {
  const found = await get("/api/session");
  form = found.form;
  return found;
}
