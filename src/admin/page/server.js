// Asks the gateway: reads, changes, and the stream of what happens.

let csrf = null;
export const me = { rights: [] };
export const may = (right) => me.rights.includes(right);

/** What is wrong, in words for people; `status` is that of the answer. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const text = await answer.text();
  let value = null;
  try { value = JSON.parse(text); } catch { /* plain text */ }
  if (!answer.ok) throw new Refused(answer.status, value?.problem ?? (text.trim() || `status ${answer.status}`));
  return value;
}

export const read = (path) => ask(path, {});

export function change(path, value) {
  const headers = { "content-type": "application/json" };
  if (csrf) headers["x-csrf-token"] = csrf;
  return ask(path, { method: "POST", headers, body: JSON.stringify(value ?? {}) });
}

/** Learns who looks. */
export async function meet() {
  Object.assign(me, await read("/api/me"));
  csrf = me.csrf;
  return me;
}

export async function login(token) {
  await change("/api/login", { token });
  return meet();
}

export async function logout() {
  await change("/api/logout");
  csrf = null;
}

/** Listens until `close`; `hear(name, data)` for each event, `state(on)` when the stream comes and goes. */
export function listen(hear, state) {
  const source = new EventSource("/api/stream");
  for (const name of ["hello", "routes", "upstreams", "telemetry", "reloads", "trace", "lagged"]) {
    source.addEventListener(name, (event) => hear(name, JSON.parse(event.data)));
  }
  source.onopen = () => state(true);
  source.onerror = () => state(false);
  return source;
}
