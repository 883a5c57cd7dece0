// Elements, figures and charts. Text becomes text nodes: nothing here makes markup of what a request said.

/** An element: `el("td.num", {title}, children…)`. A function as attribute listens to that event. */
export function el(what, attributes, ...children) {
  const [name, ...classes] = what.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  return fill(element, attributes, children);
}

export function svg(what, attributes, ...children) {
  const [name, ...classes] = what.split(".");
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A method and a path, which breaks before a slash if it must. */
export const path = (method, template) => [method, method && template ? " " : "", ...template.split("/").flatMap((part, index) => (index ? [el("wbr"), `/${part}`] : [part]))];

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(2)} s`;
  return `${(value / 60_000).toFixed(1)} min`;
}

export const rate = (value) => (value === 0 ? "0" : value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 ? value.toFixed(0) : value.toFixed(value < 1 ? 2 : 1));
export const percent = (value) => (value === 0 ? "0 %" : value < 0.001 ? "<0.1 %" : value < 0.1 ? `${(value * 100).toFixed(1)} %` : `${Math.round(value * 100)} %`);
export const count = (value) => (value ?? 0).toLocaleString("en");
export const clock = (date) => new Date(date).toLocaleTimeString("en-GB", { hour12: false });
export const day = (date) => new Date(date).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const moment = (date) => new Date(date).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const bytes = (value) => (value < 1024 ? `${value} B` : value < 1 << 20 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / (1 << 20)).toFixed(1)} MiB`);

export const PHASES = {
  gateway: "the gateway itself", queue: "waiting for a place in the pool", resolve: "finding the address",
  connect: "connecting", handshake: "TLS handshake", send: "sending the request",
  wait: "waiting for the upstream", receive: "receiving the answer",
};

export const LEVELS = { failing: "bad", slow: "warn", maintenance: "warn", refusing: "warn", fine: "good", idle: "" };

export const pill = (text, kind) => el(`span.pill${kind ? `.${kind}` : ""}`, {}, text);

export function statusText(trace) {
  const kind = trace.reason ? (trace.blame === "client" ? "warn" : "bad") : trace.status >= 400 ? "warn" : "good";
  return el(`span.status.mono.${kind}`, {}, String(trace.status ?? "—"));
}

/** One bar of phases, by shares. */
export function phaseBar(shares, title) {
  const bar = svg("svg.phases", { viewBox: "0 0 1000 8", preserveAspectRatio: "none", role: "img", "aria-label": title ?? phaseWords(shares) });
  let x = 0;
  for (const phase of Object.keys(PHASES)) {
    const width = (shares[phase] ?? 0) * 1000;
    if (width <= 0) continue;
    bar.append(svg(`rect.${phase}`, { x, y: 0, width, height: 8 }, svg("title", {}, `${PHASES[phase]}: ${percent(shares[phase])}`)));
    x += width;
  }
  return bar;
}

export function phaseWords(shares) {
  const [phase, share] = Object.entries(shares).sort((a, b) => b[1] - a[1])[0] ?? [];
  return phase ? `${percent(share)} ${PHASES[phase]}` : "nothing known";
}

export const phaseLegend = (names) => el("div.legend", {}, names.map((name) => el("span", {}, el(`i.${name}`), PHASES[name])));

const WIDTH = 420, HEIGHT = 170, LEFT = 46, BOTTOM = 22, TOP = 10;

/** A chart over time. `lines`: [{values, kind, label}], or `stacks`: [{values, kind, label}] as columns. */
export function chart({ from, step, lines = [], stacks = [], area, unit, label }) {
  const all = stacks.length ? stacks : lines;
  const length = Math.max(...all.map((one) => one.values.length), 1);
  const sums = Array.from({ length }, (_, at) => stacks.reduce((sum, one) => sum + (one.values[at] ?? 0), 0));
  const top = nice(Math.max(...(stacks.length ? sums : lines.flatMap((one) => one.values.map((value) => value ?? 0))), 0));
  const slots = Math.max(length, 60);
  const x = (at) => LEFT + ((at + slots - length + 0.5) / slots) * (WIDTH - LEFT - 6);
  const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const at = y(top * share);
    picture.append(svg("line.grid", { x1: LEFT, x2: WIDTH - 6, y1: at, y2: at }), svg("text", { x: LEFT - 6, y: at + 3.5, "text-anchor": "end" }, unit(top * share)));
  }
  for (const at of [0, Math.floor((slots - 1) / 2), slots - 1]) {
    const seconds = from + (at - (slots - length)) * step;
    const anchor = at === 0 ? "start" : at === slots - 1 ? "end" : "middle";
    picture.append(svg("text", { x: x(at - (slots - length)), y: HEIGHT - 4, "text-anchor": anchor }, clock(seconds * 1000).slice(0, step < 60 ? 8 : 5)));
  }
  const width = Math.max(((WIDTH - LEFT) / slots) * 0.72, 1.5);
  for (let at = 0; at < length; at += 1) {
    let below = 0;
    for (const { values, kind } of stacks) {
      const value = values[at] ?? 0;
      if (value > 0) picture.append(svg(`rect.${kind}`, { x: x(at) - width / 2, width, y: y(below + value), height: Math.max(y(below) - y(below + value), 1) }));
      below += value;
    }
  }
  for (const { values, kind } of lines) {
    const parts = [];
    let open = false;
    values.forEach((value, at) => {
      if (value === null) { open = false; return; }
      const alone = (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null;
      if (alone) picture.append(svg(`circle.dot${kind ? `.${kind}` : ""}`, { cx: x(at), cy: y(value), r: 2.2 }));
      parts.push(`${open ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
      open = true;
    });
    if (area && parts.length) picture.append(svg("path.area", { d: `${parts.join("").replace(/M/g, (match, place) => (place ? "L" : match))}L${x(values.length - 1).toFixed(1)} ${y(0)}L${x(0).toFixed(1)} ${y(0)}Z` }));
    picture.append(svg(`path.line${kind ? `.${kind}` : ""}`, { d: parts.join(""), "vector-effect": "non-scaling-stroke" }));
  }
  const hover = svg("line.hover", { y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const title = svg("title", {}, label);
  picture.append(hover, title);
  picture.addEventListener("mousemove", (event) => {
    const box = picture.getBoundingClientRect();
    const place = Math.round((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - 6) * slots - 0.5) - (slots - length);
    if (place < 0 || place >= length) { hover.setAttribute("visibility", "hidden"); return; }
    hover.setAttribute("visibility", "visible");
    hover.setAttribute("x1", x(place));
    hover.setAttribute("x2", x(place));
    const said = all.map((one) => `${one.label} ${one.values[place] === null ? "–" : unit(one.values[place] ?? 0)}`).join(" · ");
    title.textContent = `${clock((from + place * step) * 1000)}  ${said}`;
  });
  picture.addEventListener("mouseleave", () => hover.setAttribute("visibility", "hidden"));
  return picture;
}

function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 1.0001) ?? 10 * power;
}
