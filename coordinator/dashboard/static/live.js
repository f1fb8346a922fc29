// The stream of a page: it opens again by itself and goes on from where it was.

import { get } from "./api.js";

// The coordinator says something every ten seconds.
const SILENCE_MS = 25_000;
const AGAIN_MS = 2_000;

export function follow(url, take, state) {
  let source = null, timer = 0, last = "", closed = false;

  function heard() {
    clearTimeout(timer);
    timer = setTimeout(() => again("silent"), SILENCE_MS);
    state("live");
  }

  function again() {
    if (closed) return;
    source?.close();
    clearTimeout(timer);
    state("lost");
    timer = setTimeout(async () => {
      // A session that has ended is found out here: the stream alone does not say why it was refused.
      try {
        await get("/api/session");
      } catch (error) {
        if (error.status === 401) return;
      }
      open();
    }, AGAIN_MS);
  }

  function open() {
    if (closed) return;
    source = new EventSource(last ? `${url}?after=${last}` : url);
    source.addEventListener("look", (event) => {
      last = event.lastEventId || last;
      heard();
      take(JSON.parse(event.data));
    });
    source.addEventListener("beat", heard);
    source.addEventListener("expired", () => { get("/api/session").catch(() => {}); });
    source.onerror = again;
  }

  open();
  return () => { closed = true; source?.close(); clearTimeout(timer); };
}
