// The page: which view is shown, what the stream says, and the keys.

import { Refused, listen, login, logout, me, meet, read } from "./server.js";
import { el } from "./draw.js";
import { routeView, routesView } from "./routes.js";
import { traceView, tracesView } from "./traces.js";
import { alarm, systemView, upstreamsView } from "./system.js";

const $ = (id) => document.getElementById(id);
const main = $("main");
const state = { routes: null, upstreams: null, telemetry: null };
let source = null;
let hear = null;
let turn = 0;
let steps = 0;

const go = (href) => { if (location.hash === href) show(); else location.hash = href; };

async function show({ quiet = false } = {}) {
  const own = ++turn;
  const [path, query] = (location.hash.slice(1) || "/routes").split("?");
  const [, view, ...rest] = path.split("/");
  const name = decodeURIComponent(rest.join("/"));
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  let elements;
  let listener = null;
  try {
    // what the stream tells in a moment, if one comes here first
    if (view === "traces" || view === "system" || name) state.routes ??= await read("/api/routes");
    if (view === "routes" && name) elements = await routeView(state, name);
    else if (view === "traces" && name) elements = await traceView(name);
    else if (view === "traces") ({ elements, hear: listener } = await tracesView(state, query, go));
    else if (view === "upstreams") elements = upstreamsView(state, tell);
    else if (view === "system") elements = await systemView(state, tell);
    else elements = routesView(state);
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return enter();
    elements = [el("section.panel", {}, el("p.empty", { role: "alert" }, error.message))];
  }
  if (own !== turn) return;
  hear = listener;
  const focused = focusedRow();
  main.replaceChildren(...elements.flat(9).filter(Boolean));
  document.title = `${name ? `${name.slice(0, 24)} · ` : ""}${view} · tracegate`;
  if (quiet) rows().find((row) => row.dataset.href === focused)?.focus({ preventScroll: true });
  else { main.scrollIntoView({ block: "nearest" }); scrollTo(0, 0); }
}

/** Does a change and shows what came of it. */
async function tell(changing) {
  try {
    await changing;
    say("Done.", false);
  } catch (error) {
    say(error.message, true);
  }
  show({ quiet: true });
}

let saying = null;
function say(text, bad) {
  clearTimeout(saying);
  const place = $("live").querySelector("span");
  place.textContent = text;
  place.className = bad ? "bad" : "good";
  saying = setTimeout(() => { place.className = ""; place.textContent = "live"; }, 4000);
}

function start() {
  $("who").textContent = me.who && me.who !== "-" ? `${me.who} · ${me.role}` : "";
  $("logout").hidden = !me.session;
  follow();
  show();
}

/** Follows what happens. A browser asks again of its own where the stream broke off, not where it was refused. */
function follow() {
  source?.close();
  const own = listen((name, data) => {
    if (name === "trace") return hear?.(data);
    if (name === "lagged") return say(`${data.missed} exchanges were missed`, true);
    if (name in state) state[name] = data;
    if (name === "telemetry") warn(alarm(data));
    if (name === "routes" && $("main").childElementCount) refresh();
  }, (on) => {
    $("live").className = `live ${on ? "on" : "off"}`;
    $("live").querySelector("span").textContent = on ? "live" : "reconnecting";
    if (!on) check().then(() => { if (own === source && own.readyState === EventSource.CLOSED && !me.login_needed) setTimeout(follow, 5000); });
  });
  source = own;
}

/** A stream that broke may mean that the session is over. */
async function check() {
  try {
    await meet();
    if (me.login_needed) enter();
  } catch { /* the gateway is away; the browser tries again */ }
}

/** Views that consist of what the stream tells are drawn anew; others stay as they were read. */
function refresh() {
  const [, view, name] = (location.hash.slice(1).split("?")[0] || "/routes").split("/");
  if (["routes", "upstreams"].includes(view) && (!name || view === "upstreams")) show({ quiet: true });
}

function warn(text) {
  const place = $("alarm");
  place.hidden = !text;
  if (text && place.textContent !== text) place.textContent = text;
}

function enter() {
  source?.close();
  turn += 1;
  hear = null;
  $("logout").hidden = true;
  $("who").textContent = "";
  $("live").className = "live";
  $("live").querySelector("span").textContent = "logged out";
  const problem = el("p.problem", { role: "alert" });
  const token = el("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  const form = el("form.login", { submit: async (event) => {
    event.preventDefault();
    try {
      await login(token.value);
      start();
    } catch (error) {
      problem.textContent = error.message;
      token.select();
    }
  } }, el("h1", {}, "Log in"), el("p", {}, "With a token of the role support, developer or operator: one that ", el("code", {}, "tracegate token new"), " has made, or an access token of the issuer in ", el("code", {}, "[admin.jwt]"), ". A client certificate needs no login."),
  el("div.field", {}, el("label", { for: "token" }, "Token"), token), el("button.button.primary", { type: "submit" }, "Log in"), problem);
  main.replaceChildren(form);
  token.focus();
}

/* keys */

const rows = () => [...main.querySelectorAll("tr.row")];
const focusedRow = () => document.activeElement?.closest?.("tr.row")?.dataset.href;

function move(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement?.closest("tr.row"));
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function back() {
  const [path, query] = location.hash.slice(1).split("?");
  const [, view, name] = path.split("/");
  if (name) return steps > 0 ? history.back() : go(`#/${view}`);
  if (query) go(`#/${view}`);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else back();
    return;
  }
  if (typing) return;
  const views = { 1: "routes", 2: "traces", 3: "upstreams", 4: "system" };
  if (event.key === "/") { event.preventDefault(); $("find").focus(); $("find").select(); }
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "t") theme();
  else if (event.key in views) go(`#/${views[event.key]}`);
  else if (event.key === "Enter" && event.target.matches("tr.row")) go(event.target.dataset.href);
});

main.addEventListener("click", (event) => {
  const row = event.target.closest("tr.row");
  if (row && !event.target.closest("a, button") && !String(getSelection())) go(row.dataset.href);
});

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("find").value.trim();
  $("find").blur();
  const id = wanted.split("-").find((part) => /^[0-9a-f]{32}$/i.test(part));
  if (id) go(`#/traces/${id.toLowerCase()}`);
  else if (wanted) go(`#/traces?find=${encodeURIComponent(wanted)}`);
});

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
$("theme").addEventListener("click", theme);
$("help-open").addEventListener("click", () => $("help").showModal());
$("logout").addEventListener("click", async () => { await logout().catch(() => {}); await meet(); enter(); });
addEventListener("hashchange", () => { steps += 1; if (!me.login_needed) show(); });

try {
  await meet();
  if (me.login_needed) enter();
  else start();
} catch (error) {
  main.replaceChildren(el("p.empty", { role: "alert" }, `The gateway does not answer: ${error.message}`));
}
