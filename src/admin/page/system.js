// Upstreams with their endpoints; certificates, reloads, telemetry and what an operator may change.

import { change, may, read } from "./server.js";
import { bytes, count, day, el, moment, pill } from "./draw.js";

const STATES = { usable: "good", slow_start: "warn", ejected: "bad", unhealthy: "bad", out: "warn" };

export function upstreamsView(state, tell) {
  const upstreams = state.upstreams?.upstreams;
  if (!upstreams) return [el("p.empty", {}, "Reading the upstreams …")];
  return [
    el("div.head", {}, el("h1", {}, "Upstreams"), el("p", {}, `${upstreams.length}, with their endpoints as they are now`)),
    upstreams.map((upstream) => {
      const usable = upstream.endpoints.filter((endpoint) => ["usable", "slow_start"].includes(endpoint.state)).length;
      const breaker = Object.entries(upstream.breaker ?? {}).map(([bound, level]) => `${bound} ${count(level.now)} of ${count(level.most)}${level.refused ? `, ${count(level.refused)} refused` : ""}`);
      return el("section.panel", {},
        el("h2", {}, upstream.name, el("small", {}, `${usable} of ${upstream.endpoints.length} usable`), upstream.panic ? pill("panic: all in use are taken", "bad") : null,
          breaker.length ? el("small.right", {}, `breaker: ${breaker.join(" · ")}`) : null),
        el("div.wrap", {}, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Endpoint"), el("th", {}, "State"), el("th.col-mid", {}, "Health checks"), el("th.num", {}, "In flight"), el("th.num.col-mid", {}, "Weight"), may("change") ? el("th.num", {}, "") : null)),
          el("tbody", {}, upstream.endpoints.map((endpoint) => el("tr", {},
            el("td.mono", {}, endpoint.endpoint),
            el("td", {}, pill(endpoint.state.replace("_", " "), STATES[endpoint.state]), endpoint.ejected_for_seconds ? el("span.sub", {}, `for ${endpoint.ejected_for_seconds} s more`) : null),
            el("td.col-mid", {}, endpoint.health), el("td.num", {}, count(endpoint.in_flight)), el("td.num.col-mid", {}, String(endpoint.weight)),
            may("change") ? el("td.num", {}, el("button.button.small", { type: "button", click: () => tell(change("/api/endpoint", { upstream: upstream.name, endpoint: endpoint.endpoint, in_use: !endpoint.in_use })) }, endpoint.in_use ? "Take out" : "Put back")) : null))))));
    }),
  ];
}

const KINDS = { error: "errors", refused: "refusals", slow: "slow ones", sample: "samples" };

const sum = (values) => Object.values(values).reduce((all, value) => all + value, 0);

/** What is to be said loudly: spans that are lost or unaccounted for. */
export function alarm(telemetry) {
  if (!telemetry) return null;
  if (!telemetry.balanced) return "The telemetry does not balance: spans are missing that were neither exported nor dropped.";
  const lost = Object.entries(telemetry.spans).map(([receiver, sums]) => [receiver, sum(sums.dropped)]).filter(([, dropped]) => dropped > 0);
  if (lost.length) return lost.map(([receiver, dropped]) => `${count(dropped)} spans for ${receiver} were lost`).join(", ");
  return null;
}

export async function systemView(state, tell) {
  const browse = may("browse");
  const [telemetry, reloads, certificates, audit] = browse
    ? await Promise.all([read("/api/telemetry"), read("/api/reloads"), read("/api/certificates"), may("audit") ? read("/api/audit") : null])
    : [];
  if (!browse) return [el("div.head", {}, el("h1", {}, "System")), el("section.panel", {}, el("p.empty", {}, "Certificates, reloads and telemetry are for developers and operators."))];
  return [
    el("div.head", {}, el("h1", {}, "System"), el("p", {}, `configuration ${reloads.generation}, hash ${reloads.hash.slice(0, 12)}`)),
    may("change") ? controls(state, reloads, tell) : null,
    balance(telemetry),
    el("div.two", {}, certificatesPanel(certificates.certificates), reloadsPanel(reloads)),
    audit ? auditPanel(audit.audit) : null,
  ];
}

let chosen = null;

function controls(state, reloads, tell) {
  const { log_level: level, sampling_ratio: ratio } = reloads.overrides ?? {};
  const levels = el("select", { id: "level" }, ["", "error", "warn", "info", "debug", "trace"].map((word) => el("option", { value: word, selected: word === (level?.value ?? "") }, word || "as started")));
  const share = el("input", { id: "ratio", type: "number", min: 0, max: 1, step: "any", placeholder: "as in the file", value: ratio?.value ?? "" });
  const routes = (state.routes?.routes ?? []).filter((route) => route.name);
  const route = el("select", { id: "route", change: () => { chosen = route.value; } }, routes.map((one) => el("option", { value: one.name, selected: one.name === chosen }, one.name + (one.maintenance ? " (in maintenance)" : ""))));
  const field = (id, label, input) => el("div.field", {}, el("label", { for: id }, label), input);
  const button = (text, act) => el("button.button", { type: "button", click: act }, text);
  return el("section.panel", {}, el("h2", {}, "Changes", el("small", {}, "on record in the audit; level and sampling until the next reload")), el("div.body.changes", {},
    button("Reload the configuration", () => tell(change("/api/reload"))),
    field("level", "Log level", levels), button("Set level", () => tell(change("/api/log_level", { level: levels.value || null }))),
    field("ratio", "Sampling ratio", share), button("Set ratio", () => tell(change("/api/sampling", { ratio: share.value === "" ? null : Number(share.value) }))),
    field("route", "Route", route),
    button("Maintenance on", () => tell(change("/api/maintenance", { route: route.value, maintenance: true }))),
    button("off", () => tell(change("/api/maintenance", { route: route.value, maintenance: false }))),
    button("as in the file", () => tell(change("/api/maintenance", { route: route.value, maintenance: null })))));
}

function balance(telemetry) {
  const why = (values) => Object.entries(values).filter(([, value]) => value > 0).map(([reason, value]) => `${reason} ${count(value)}`).join(", ");
  const cell = (value, reasons, kind) => el("td.num", {}, el(value && kind ? `span.${kind}` : "span", {}, count(value)), reasons ? el("span.sub", {}, reasons) : null);
  return el("section.panel", {}, el("h2", {}, "Telemetry", pill(telemetry.balanced ? "adds up" : "does not add up", telemetry.balanced ? "good" : "bad"), el("small", {}, `${count(telemetry.spans_made)} spans were made`)),
    el("div.wrap", {}, el("table", {}, el("thead", {}, el("tr", {}, ["Receiver", "Exported", "Unsampled", "Dropped", "Queued"].map((word, at) => el(at ? "th.num" : "th", {}, word)))),
      el("tbody", {}, Object.entries(telemetry.spans).map(([receiver, sums]) => el("tr", {}, el("td", {}, receiver === "none" ? "none is configured" : receiver), cell(sums.exported), cell(sum(sums.unsampled), why(sums.unsampled)), cell(sum(sums.dropped), why(sums.dropped), "bad"), cell(sums.queued))),
        el("tr", {}, el("td", {}, "access log"), cell(telemetry.access_records_written), el("td.num", {}, "–"), cell(telemetry.access_records_dropped, null, "bad"), el("td.num", {}, "–"))))),
    el("div.body.note", {}, `This page keeps ${Object.entries(telemetry.recent.kept).map(([kind, value]) => `${count(value)} ${KINDS[kind]}`).join(", ")} in ${bytes(telemetry.recent.bytes)}; ${count(sum(telemetry.recent.displaced))} made room for others.`));
}

function certificatesPanel(certificates) {
  return el("section.panel", {}, el("h2", {}, "Certificates"), certificates.length ? el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Certificate"), el("th", {}, "Listener"), el("th.num", {}, "Expires"))),
    el("tbody", {}, certificates.map((one) => el("tr", {}, el("td", {}, one.certificate), el("td", {}, one.listener), el("td.num", {}, el(one.days_left < 0 ? "span.bad" : one.soon ? "span.warn" : "span", {}, one.days_left < 0 ? "has expired" : `in ${Math.floor(one.days_left)} days`), el("span.sub", {}, day(one.expires))))))) : el("p.empty", {}, "No listener speaks TLS"));
}

const OUTCOMES = { applied: "good", unchanged: "", refused: "bad" };

function reloadsPanel(reloads) {
  const listed = (word, { count: all, first }) => all ? el("li", {}, el("span.faint", {}, `${word} `), el("span.mono", {}, first.join(", ")), all > first.length ? ` and ${all - first.length} more` : "") : null;
  const waits = reloads.awaiting_restart.length ? el("div.body.warn", {}, `Count after a restart: ${reloads.awaiting_restart.join(", ")}`) : null;
  return el("section.panel", {}, el("h2", {}, "Reloads"), waits, reloads.reloads.length ? el("table", {}, el("tbody", {}, reloads.reloads.map((one) => el("tr", {},
    el("td", {}, day(one.at), el("span.sub", {}, `${one.trigger} · ${one.took_ms.toFixed(1)} ms`)),
    el("td", {}, pill(one.outcome, OUTCOMES[one.outcome])),
    el("td", {}, el("ul.plainlist", {}, ["added", "removed", "changed", "files"].map((word) => listed(word, one.difference[word])), one.problems.map((problem) => el("li.bad", {}, problem)))))))) : el("p.empty", {}, "None since the start"));
}

function auditPanel(audit) {
  return el("section.panel", {}, el("h2", {}, "Audit", el("small", {}, "who has looked and who has changed what")), el("div.wrap", {}, el("table.audit", {}, el("thead", {}, el("tr", {}, el("th", {}, "Time"), el("th", {}, "Who"), el("th", {}, "What"), el("th.col-mid", {}, "Of"), el("th.num", {}, "Result"))),
    el("tbody", {}, audit.slice(0, 40).map((one) => el("tr", {}, el("td.mono", {}, moment(one.time)), el("td", {}, one.who === "-" ? "" : `${one.who} `, el("span.faint.mono", {}, one.from)), el("td.mono", {}, one.what, one.times > 1 ? el("span.sub", {}, `${count(one.times)} times`) : null), el("td.mono.col-mid", {}, one.target ?? ""), el("td.num", {}, el(one.status >= 400 ? "span.warn" : "span", {}, String(one.status)))))))));
}
