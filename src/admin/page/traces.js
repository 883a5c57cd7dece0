// Traces: the list with its filters, and one trace as a waterfall.

import { may, me, read } from "./server.js";
import { PHASES, bytes, clock, day, el, milliseconds, path, percent, phaseLegend, pill, statusText, svg } from "./draw.js";

const COLUMNS = ["Time", "Status", "Route", "Business", "Endpoint", "Duration", "Where"];

export function traceTable(traces, body) {
  return el("div.wrap", {}, el("table.traces", {},
    el("thead", {}, el("tr", {}, el("th", {}, COLUMNS[0]), el("th", {}, COLUMNS[1]), el("th", {}, COLUMNS[2]), el("th.col-mid", {}, COLUMNS[3]),
      el("th.col-wide", {}, COLUMNS[4]), el("th.num", {}, COLUMNS[5]), el("th.col-mid", {}, COLUMNS[6]))),
    fill(body ?? el("tbody"), traces)));
}

function fill(body, traces) {
  body.replaceChildren(...traces.map((trace) => traceRow(trace)));
  return body;
}

export function traceRow(trace, fresh) {
  const href = `#/traces/${trace.trace_id}`;
  const business = Object.entries(trace.attributes ?? {}).map(([key, value]) => el("span.sub.mono", { title: key }, value));
  return el(`tr.row${fresh ? ".fresh" : ""}`, { tabindex: 0, "data-href": href },
    el("td.mono", {}, el("a", { href, tabindex: -1 }, clock(trace.time)), el("span.sub", {}, trace.trace_id.slice(0, 8))),
    el("td", {}, statusText(trace), trace.reason ? el("span.sub", {}, trace.reason + (trace.detail ? ` · ${trace.detail}` : "")) : null),
    el("td", {}, el("span.name", {}, trace.route ?? "(no route)"), el("span.sub.mono", {}, path(trace.method, trace.template ?? ""))),
    el("td.col-mid", {}, trace.operation ? el("span", {}, trace.operation) : null, business),
    el("td.col-wide.mono", {}, trace.endpoint ?? "–", trace.attempts > 1 ? el("span.sub.warn", {}, `${trace.attempts} attempts`) : null),
    el("td.num", {}, milliseconds(trace.duration_ms)),
    el("td.col-mid.soft", {}, trace.dominant ? `${percent(trace.dominant_ratio)} ${trace.dominant}` : "–"));
}

/** The list. Answers with its elements and with what to do when another exchange is kept. */
export async function tracesView(state, query, go) {
  const asked = new URLSearchParams(query);
  const { traces, more, only_failed: narrowed } = await read(`/api/traces?${asked}`);
  const body = el("tbody");
  const routes = state.routes?.routes.map((route) => route.name || "-") ?? [];
  const reasons = [...new Set([...traces.map((trace) => trace.reason), ...(state.routes?.routes.flatMap((route) => Object.keys(route.hour?.reasons ?? {})) ?? []), asked.get("reason")])].filter(Boolean).sort();
  const choice = (name, label, values) => el("label", {}, label, el("select", { name },
    el("option", { value: "" }, "any"), values.map(([value, text]) => el("option", { value, selected: asked.get(name) === value }, text ?? value))));
  const form = el("form.filters", { submit: (event) => { event.preventDefault(); apply(); }, change: () => apply() },
    choice("route", "Route", routes.map((name) => [name, name === "-" ? "(no route)" : name])),
    choice("status", "Status", [["2xx"], ["3xx"], ["4xx"], ["5xx"], ["none", "no answer"]]),
    choice("reason", "Reason", reasons.map((reason) => [reason])),
    choice("blame", "Fault of", [["upstream"], ["gateway"], ["client"]]),
    may("browse") ? choice("kept", "Kept as", [["error", "errors"], ["refused", "refusals"], ["slow", "slowest, retried"], ["sample", "samples"]]) : null,
    el("label", {}, "At least, ms", el("input", { name: "min_ms", type: "number", min: 0, step: "any", inputmode: "decimal", value: asked.get("min_ms") ?? "" })),
    el("button.button", { type: "button", click: () => go("#/traces") }, "Clear"));
  function apply() {
    const wanted = new URLSearchParams();
    for (const [key, value] of new FormData(form)) if (value) wanted.set(key, value);
    for (const key of ["find", "failed"]) if (asked.get(key)) wanted.set(key, asked.get(key));
    const text = wanted.toString();
    go(`#/traces${text ? `?${text}` : ""}`);
  }
  const said = asked.get("find") ? `matching “${asked.get("find")}”` : narrowed && !asked.get("failed") ? "those that failed; search to find any other" : "all errors, the slowest, some of the rest; newest first";
  const panel = el("section.panel", { "aria-label": "Traces" }, traceTable(traces, body));
  const none = el("p.empty", { hidden: traces.length > 0 }, asked.get("find") ? "Nothing like that is kept here: it was not sampled, or is too long ago." : "Nothing like that is kept here.");
  panel.append(none);
  const next = more ? el("button.button", { type: "button", click: async (event) => {
    const button = event.currentTarget;
    asked.set("before", traces.at(-1).number);
    const page = await read(`/api/traces?${asked}`);
    traces.push(...page.traces);
    body.append(...page.traces.map((trace) => traceRow(trace)));
    if (!page.more) button.remove();
  } }, "Older") : null;
  const hear = (trace) => {
    if (!matches(trace, asked)) return;
    none.hidden = true;
    body.prepend(traceRow(trace, true));
    while (body.children.length > 300) body.lastElementChild.remove();
  };
  return { elements: [el("div.head", {}, el("h1", {}, "Traces"), el("p", {}, said)), form, panel, el("p.note", {}, next)], hear };
}

/** Whether an exchange that was just kept belongs in this list. */
function matches(trace, asked) {
  const is = (key, own) => !asked.get(key) || asked.get(key) === own;
  const status = asked.get("status");
  const find = asked.get("find")?.toLowerCase();
  return is("route", trace.route ?? "-") && is("reason", trace.reason) && is("blame", trace.blame) && is("kept", trace.kept)
    && (!status || (status === "none" ? trace.status === undefined : status.endsWith("xx") ? String(trace.status)[0] === status[0] : String(trace.status) === status))
    && (!asked.get("failed") || trace.reason) && (!asked.get("min_ms") || trace.duration_ms >= Number(asked.get("min_ms")))
    && (!find || trace.trace_id.startsWith(find) || Object.values(trace.attributes ?? {}).some((value) => value.toLowerCase() === find));
}

export async function traceView(id) {
  const { exchanges } = await read(`/api/traces/${id}`);
  const jaeger = me.jaeger_url ? el("a.link", { href: `${me.jaeger_url}/trace/${id}`, rel: "noreferrer noopener", target: "_blank" }, "Whole trace in Jaeger ↗") : null;
  return [
    el("p.crumb", {}, el("a", { href: "#/traces" }, "Traces"), " / "),
    el("div.head", {}, el("h1.mono", {}, id), el("span.right", {}, jaeger)),
    exchanges.map(exchange),
  ];
}

function exchange(one) {
  const failed = one.reason ? el("p", {}, el(one.blame === "client" ? "span.warn" : "span.bad", {}, one.reason), one.detail ? ` · ${one.detail}` : "", ` — fault of the ${one.blame}`) : null;
  const fact = (term, value, small) => el("div", {}, el("dt", {}, term), el("dd", {}, value, small ? el("small", {}, ` ${small}`) : null));
  const used = new Set(one.attempt_list.flatMap((attempt) => attempt.parts.map((part) => part.phase)));
  return [
    el("dl.facts", {},
      fact("Answer", statusText(one)), fact("Duration", milliseconds(one.duration_ms)), fact("First byte", milliseconds(one.first_byte_ms)),
      fact("Route", el("a.link", { href: `#/routes/${encodeURIComponent(one.route ?? "-")}` }, one.route ?? "(no route)")),
      one.dominant ? fact("Most of it", one.dominant, percent(one.dominant_ratio)) : null),
    failed,
    el("section.panel", {}, el("h2", {}, "Waterfall", el("small", {}, `${day(one.time)} · ${one.attempts === 1 ? "one attempt" : `${one.attempts} attempts`}`)),
      waterfall(one), el("div.body", {}, phaseLegend(Object.keys(PHASES).filter((phase) => used.has(phase))))),
    el("div.two", {}, about(one), business(one)),
    one.attempt_list.length ? el("div.two", {}, one.attempt_list.map(attemptFacts)) : null,
  ];
}

function waterfall(one) {
  const all = Math.max(one.duration_ms, ...one.attempt_list.map((attempt) => attempt.start_ms + attempt.duration_ms), 0.001);
  const bar = (kind, start, length, title) => svg("svg", { viewBox: "0 0 1000 18", preserveAspectRatio: "none", role: "img", "aria-label": title },
    svg("rect.track", { x: 0, y: 8, width: 1000, height: 2 }), rect(kind, start, length, title));
  const rect = (kind, start, length, title) => svg(`rect.${kind}`, { x: (start / all) * 1000, y: 3, width: Math.max((length / all) * 1000, 2.5), height: 12, rx: 2 }, svg("title", {}, title));
  const line = (label, picture, time) => [label, el("div", {}, picture), el("div.time", {}, milliseconds(time))];
  const rows = [el("div.label.hint.faint", {}, "from the request’s head"), el("div", {}, el("span.scale", {}, [0, 0.25, 0.5, 0.75, 1].map((share) => el("span", {}, milliseconds(all * share))))), el("div.time")];
  const own = `${one.method} ${one.template ?? ""}`;
  rows.push(line(el("div.label", {}, el("span", { title: own }, el("strong", {}, own))), bar(one.reason && one.blame !== "client" ? "failed" : "server", 0, one.duration_ms, `the gateway, ${milliseconds(one.duration_ms)}`), one.duration_ms));
  for (const attempt of one.attempt_list) {
    const name = `${one.attempt_list.length > 1 ? `${attempt.number}. ` : ""}${attempt.service ?? one.upstream ?? ""}`;
    const picture = svg("svg", { viewBox: "0 0 1000 18", preserveAspectRatio: "none", role: "img", "aria-label": `attempt ${attempt.number} at ${attempt.endpoint}` },
      svg("rect.track", { x: 0, y: 8, width: 1000, height: 2 }), rect(attempt.reason ? "failed" : "client", attempt.start_ms, attempt.duration_ms, attempt.endpoint),
      attempt.parts.map((part) => rect(part.phase, part.start_ms, part.duration_ms, `${PHASES[part.phase]}: ${milliseconds(part.duration_ms)}`)));
    rows.push(line(el("div.label.in", {}, el("span", { title: attempt.endpoint }, `${name} `, el("span.faint.mono", {}, attempt.endpoint)), attempt.reason ? pill(attempt.reason, "bad") : null), picture, attempt.duration_ms));
    for (const part of attempt.parts) rows.push(line(el("div.label.part", {}, el("span", {}, PHASES[part.phase])), bar(part.phase, part.start_ms, part.duration_ms, PHASES[part.phase]), part.duration_ms));
  }
  return el("div.waterfall", {}, rows);
}

function list(title, pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  if (!known.length) return null;
  return el("section.panel", {}, el("h2", {}, title), el("dl.attributes", {}, known.map(([key, value]) => [el("dt", {}, key), el("dd.mono", {}, String(value))])));
}

const about = (one) => list("Exchange", [
  ["listener", one.listener], ["protocol", `${one.scheme} · HTTP/${one.protocol}`], ["operation", one.operation], ["upstream", one.upstream],
  ["error.type", one.error_type], ["rule", one.rule], ["grpc status", one.grpc_status], ["closed by", one.closed_by], ["close code", one.close_code], ["not retried", one.not_retried],
  ["kept as", one.kept], ["sampled", one.sampled ? `yes, ${one.sampled_because}` : "no"], ["stream", one.stream ? "yes" : null],
  ["request body", bytes(one.request_bytes)], ["answer’s body", bytes(one.response_bytes)], ["span", one.span_id], ["parent span", one.parent_span_id],
]);

const business = (one) => list("Attributes", [
  ...Object.entries(one.attributes ?? {}), ["client", one.client], ["client role", one.client_role], ["query keys", one.query],
  ...Object.entries(one.headers ?? {}).map(([key, value]) => [`header ${key}`, value]),
]);

const attemptFacts = (attempt) => list(`Attempt ${attempt.number}`, [
  ["endpoint", attempt.endpoint], ["peer", attempt.peer], ["service", attempt.service], ["connection", attempt.connection], ["status", attempt.status],
  ["reason", attempt.reason], ["detail", attempt.detail], ["fault of", attempt.blame], ["grpc status", attempt.grpc_status],
  ["started after", milliseconds(attempt.start_ms)], ["took", milliseconds(attempt.duration_ms)], ["sent", bytes(attempt.request_bytes)], ["received", bytes(attempt.response_bytes)], ["span", attempt.span_id],
]);
