// Routes: which one needs a look and why, and the charts of one of them.

import { may, read } from "./server.js";
import { LEVELS, PHASES, chart, count, el, milliseconds, path, percent, phaseBar, phaseLegend, phaseWords, pill, rate } from "./draw.js";
import { traceTable } from "./traces.js";

const shown = (name) => name || "(no route)";
const link = (name) => `#/routes/${encodeURIComponent(name || "-")}`;

export function routesView(state) {
  const routes = state.routes?.routes;
  if (!routes) return [el("p.empty", {}, "Reading the routes …")];
  const left = state.routes.left_out ? el("p.note", {}, `${state.routes.left_out} more routes are not followed: telemetry.recent.routes`) : null;
  return [
    el("div.head", {}, el("h1", {}, "Routes"), el("p", {}, "the one that needs a look first, over the last five minutes")),
    verdict(routes),
    el("section.panel", { "aria-label": "Routes" }, el("div.wrap", {}, el("table", {},
      el("thead", {}, el("tr", {}, el("th", {}, "Route"), el("th", {}, "State"), el("th.num.col-mid", {}, "Requests/s"), el("th.num", {}, "Errors"),
        el("th.num.col-mid", {}, "p50"), el("th.num", {}, "p95"), el("th.num.col-mid", {}, "p99"), el("th.col-mid", {}, "Where the time goes"), el("th.col-wide", {}, "Why"))),
      el("tbody", {}, routes.map(row))))),
    left,
    el("p.note", {}, phaseLegend(Object.keys(PHASES))),
  ];
}

function verdict(routes) {
  const [first] = routes;
  const level = first?.trouble.level ?? "idle";
  const troubled = routes.filter((route) => ["failing", "slow", "refusing", "maintenance"].includes(route.trouble.level));
  if (!troubled.length) {
    const busy = routes.filter((route) => route.trouble.level === "fine").length;
    // exchanges are known at once, figures when the series are read
    const begun = !busy && routes.some((route) => !route.recent && route.phases_of);
    const said = busy ? `${busy} ${busy === 1 ? "route has" : "routes have"} requests, and none is failing or slow`
      : begun ? "The first figures come in a moment" : "No requests in the last five minutes";
    return el("section.verdict", {}, el("div", {}, el("h2", {}, busy ? "Nothing needs a look" : begun ? "Just begun" : "Quiet"), el("p", {}, said)));
  }
  const more = troubled.length > 1 ? ` · ${troubled.length - 1} more below` : "";
  return el(`section.verdict.${level}`, {},
    el("div", {}, el("h2", {}, `${shown(first.name)} is ${level === "maintenance" ? "in maintenance" : level}`),
      el("p", {}, first.trouble.why + more, el("br"), example(first))),
    el("div.right", {}, first.example ? [el("a.link", { href: `#/traces/${first.example.trace_id}` }, first.trouble.level === "slow" ? "The slowest" : "The last one"), el("span.faint", {}, "  ·  ")] : null,
      el("a.link", { href: link(first.name) }, "The route →")));
}

function example({ example: one, phases, phases_of: of }) {
  const time = of ? phaseWords(phases) : null;
  const where = one?.endpoint ? `last at ${one.endpoint}${one.detail ? ` (${one.detail})` : ""}` : null;
  return [where, time].filter(Boolean).join(" · ");
}

function row(route) {
  const { recent, trouble } = route;
  const errors = recent?.errors ?? 0;
  return el("tr.row", { tabindex: 0, "data-href": link(route.name) },
    el("td", {}, el("a.name", { href: link(route.name), tabindex: -1 }, shown(route.name)),
      el("span.sub.mono", {}, route.template ? path(route.methods.join(" "), route.template) : "nothing matched")),
    el("td.state", { title: trouble.level }, pill(trouble.level, LEVELS[trouble.level])),
    el("td.num.col-mid", {}, recent ? rate(recent.rate) : "–"),
    el("td.num", {}, el(errors ? "span.bad" : "span.faint", {}, recent ? percent(recent.error_ratio) : "–")),
    el("td.num.col-mid", {}, milliseconds(recent?.p50_ms)),
    el("td.num", {}, milliseconds(recent?.p95_ms)),
    el("td.num.col-mid", {}, milliseconds(recent?.p99_ms)),
    el("td.col-mid", {}, route.phases_of ? phaseBar(route.phases) : el("span.faint", {}, "–")),
    el("td.why.col-wide", {}, trouble.why));
}

const REASONS = ["r0", "r1", "r2", "r3", "r4"];

export async function routeView(state, name) {
  const key = name === "-" ? "" : name;
  const [points, failed, slow] = await Promise.all([
    read(`/api/routes/${encodeURIComponent(name)}`),
    read(`/api/traces?route=${encodeURIComponent(name)}&failed=true&limit=8`),
    may("browse") ? read(`/api/traces?route=${encodeURIComponent(name)}&kept=slow&limit=5`) : null,
  ]);
  const route = state.routes?.routes.find((one) => one.name === key);
  const wrap = el("div");
  const draw = (minutes) => wrap.replaceChildren(charts(minutes ? points.minutes : points.steps));
  const hour = (points.minutes?.requests.length ?? 0) > 5;
  draw(hour);
  const button = (text, minutes) => el("button.button.small", { type: "button", "aria-pressed": String(minutes === hour), click: (event) => swap(event, minutes) }, text);
  const pick = el("div.right", {}, button("Hour", true), " ", button("5 minutes", false));
  function swap(event, minutes) {
    for (const button of pick.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    draw(minutes);
  }
  return [
    el("p.crumb", {}, el("a", { href: "#/routes" }, "Routes"), " / "),
    el("div.head", {}, el("h1", {}, shown(key)),
      route ? pill(route.trouble.level, LEVELS[route.trouble.level]) : null,
      el("p.mono", {}, route ? `${route.methods.join(" ")} ${route.template}${route.upstreams.length ? ` → ${route.upstreams.join(", ")}` : ""}` : ""), pick),
    route ? el("p.soft", {}, `${route.trouble.why}${route.phases_of ? `; ${phaseWords(route.phases)} (of ${route.phases_of} exchanges)` : ""}`) : null,
    route?.recent ? facts(route) : null,
    wrap,
    el("div", {}, el("section.panel", {}, el("h2", {}, "Failed of late", el("small", {}, "newest first"), more(name, "failed=true")),
      failed.traces.length ? traceTable(failed.traces) : el("p.empty", {}, "None is kept here"))),
    slow ? el("section.panel", {}, el("h2", {}, "Slowest", el("small", {}, "of each five minutes, and those tried more than once"), more(name, "kept=slow")),
      slow.traces.length ? traceTable(slow.traces) : el("p.empty", {}, "None is kept here")) : null,
  ];
}

const more = (name, rest) => el("span.right", {}, el("a.link", { href: `#/traces?route=${encodeURIComponent(name)}&${rest}` }, "All →"));

function facts({ recent, hour, phases, phases_of }) {
  const fact = (term, value, small) => el("div", {}, el("dt", {}, term), el("dd", {}, value, small ? el("small", {}, ` ${small}`) : null));
  return [
    el("dl.facts", {},
      fact("Requests", rate(recent.rate), "/s"),
      fact("Errors", el(recent.errors ? "span.bad" : "span", {}, percent(recent.error_ratio)), `${count(recent.errors)} of ${count(recent.requests)}`),
      fact("p50", milliseconds(recent.p50_ms), `hour ${milliseconds(hour.p50_ms)}`),
      fact("p95", milliseconds(recent.p95_ms), `hour ${milliseconds(hour.p95_ms)}`),
      fact("p99", milliseconds(recent.p99_ms), `hour ${milliseconds(hour.p99_ms)}`)),
    phases_of ? el("section.panel", {}, el("h2", {}, "Where the time goes", el("small", {}, `${phases_of} exchanges of the last five minutes`)),
      el("div.body", {}, phaseBar(phases), phaseLegend(Object.keys(PHASES).filter((phase) => phases[phase])))) : null,
  ];
}

function charts(points) {
  if (!points || !points.requests.length) return el("section.panel", {}, el("p.empty", {}, "No requests in the last hour"));
  const { from, step_seconds: step } = points;
  const time = { from, step };
  const reasons = Object.entries(points.reasons).map(([word, values]) => ({ label: word, values, sum: values.reduce((a, b) => a + b, 0) })).sort((a, b) => b.sum - a.sum);
  const stacks = reasons.slice(0, 4).map((one, at) => ({ ...one, kind: REASONS[at] }));
  if (reasons.length > 4) {
    const rest = reasons.slice(4);
    stacks.push({ label: "others", kind: REASONS[4], sum: rest.reduce((sum, one) => sum + one.sum, 0), values: points.requests.map((_, at) => rest.reduce((sum, one) => sum + one.values[at], 0)) });
  }
  const panel = (title, small, picture, legend) => el("section.panel", {}, el("h2", {}, title, el("small", {}, small)), el("div.body", {}, picture, legend ? el("div.legend", {}, legend) : null));
  const entry = (kind, text) => el("span", {}, el(`i.${kind}`), text);
  return el("div.charts", {},
    panel("Rate", "requests a second", chart({ ...time, label: "Requests a second", unit: rate, area: true, lines: [{ label: "requests/s", values: points.requests.map((value) => value / step) }] })),
    panel("Failures", "by reason, those of clients as well", chart({ ...time, label: "Failures by reason", unit: (value) => (Number.isInteger(value) ? count(value) : ""), stacks: stacks.length ? stacks : [{ label: "none", kind: "r4", values: points.requests.map(() => 0) }] }),
      stacks.length ? stacks.map((one) => entry(one.kind, `${one.label} ${count(one.sum)}`)) : entry("r4", "none")),
    panel("Duration", "to the last byte", chart({ ...time, label: "Durations", unit: (value) => milliseconds(value).replace(".00", ""), lines: [
      { label: "p99", kind: "p99", values: points.p99_ms }, { label: "p95", kind: "p95", values: points.p95_ms }, { label: "p50", kind: "p50", values: points.p50_ms }] }),
      [entry("b50", "p50"), entry("b95", "p95"), entry("b99", "p99")]));
}
