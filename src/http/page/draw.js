"use strict";
// How things are drawn and written. Whatever the API says gets into the page as text or as a number, never as markup.

const at = id => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== undefined && child !== null));
  return node;
}
const h = (tag, attributes, ...children) => dress(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => dress(document.createElementNS(SVG, tag), attributes, children);

// Numbers ---------------------------------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat();
const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const share = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const rough = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const points = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const NOTHING = "–";

// Amounts are exact decimal strings; a browser's float is good enough to look at.
function money(text, code, short) {
  if (text === null || text === undefined) return NOTHING;
  const value = Number(text);
  const digits = short && Math.abs(value) >= 10000 ? { maximumFractionDigits: 0, minimumFractionDigits: 0 } : {};
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency: code, ...digits }).format(value);
  } catch {
    return `${fine.format(value)} ${code}`;
  }
}

function duration(seconds) {
  const [size, word] = seconds % 86400 === 0 ? [86400, "day"] : seconds % 3600 === 0 ? [3600, "hour"] : [60, "minute"];
  const count = seconds / size;
  return `${fine.format(count)} ${word}${count === 1 ? "" : "s"}`;
}

// How long ago something was, roughly.
function ago(seconds) {
  const [size, word] = seconds < 120 ? [1, "second"] : seconds < 7200 ? [60, "minute"] : seconds < 172800 ? [3600, "hour"] : [86400, "day"];
  const count = Math.round(seconds / size);
  return `${whole.format(count)} ${word}${count === 1 ? "" : "s"} ago`;
}

let zone = "UTC";
const instant = (time, options) => new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options }).format(new Date(time));
const day = time => instant(time, { dateStyle: "medium" });
const minute = time => `${instant(time, { dateStyle: "medium", timeStyle: "short" })} ${zone}`;
// A civil day such as 2026-03-01, which belongs to no zone.
const civil = (text, options = { dateStyle: "medium" }) =>
  new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options }).format(Date.parse(text));
const words = name => { const text = name.replaceAll("_", " "); return text[0].toUpperCase() + text.slice(1); };

// Small pictures ----------------------------------------------------------------------------------------------------------

// A curve without axes; where a value is missing there is a gap.
function sparkline(values) {
  const known = values.filter(value => value !== null);
  if (known.length < 2) return s("svg", { viewBox: "0 0 100 30", "aria-hidden": "true" });
  const low = Math.min(...known), high = Math.max(...known), span = high - low || Math.abs(high) || 1;
  const x = i => (100 * i / (values.length - 1)).toFixed(2);
  const y = value => (27 - 24 * (value - low) / span).toFixed(2);
  const line = runs(values).map(run => run.map((i, n) => `${n ? "L" : "M"}${x(i)} ${y(values[i])}`).join("")).join("");
  const area = runs(values).map(run =>
    `M${x(run[0])} 30${run.map(i => `L${x(i)} ${y(values[i])}`).join("")}L${x(run.at(-1))} 30Z`).join("");
  return s("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: "area", d: area }), s("path", { class: "stroke", d: line }));
}

// One column a period; the last one is still open.
function columns(values) {
  const high = Math.max(...values.map(value => value ?? 0)) || 1, width = 100 / Math.max(values.length, 6);
  return s("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, values.map((value, i) =>
    value === null ? null : s("rect", { class: i === values.length - 1 ? "column open" : "column",
      x: i * width + width * .12, width: width * .76, y: 29 - 28 * value / high, height: Math.max(28 * value / high, .3) })));
}

// The places of values that stand next to each other.
function runs(values) {
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    if (i > 0 && values[i - 1] !== null) found.at(-1).push(i); else found.push([i]);
  });
  return found;
}

function steps(high) {
  if (!(high > 0)) return [0, 1];
  const raw = high / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find(factor => factor * power >= raw) * power;
  return Array.from({ length: Math.ceil(high / step - 1e-9) + 1 }, (_, i) => i * step);
}

// The large picture: `list` of { label, short, value, open }, drawn as a line or as columns into `box`. `tell` is called
// with the place that the pointer or the arrow keys are at.
function chart(box, list, { title, bars, write, axis, tell }) {
  const values = list.map(point => point.value), known = values.filter(value => value !== null);
  if (known.length < (bars ? 1 : 2)) {
    box.replaceChildren(h("p", { class: "nothing" }, "Not enough history yet for a curve."));
    return;
  }
  const wide = Math.max(box.clientWidth, 260), high = 240, left = 58, right = 14, top = 10, bottom = 26;
  const ticks = steps(Math.max(...known)), most = ticks.at(-1);
  const slot = (wide - left - right) / (bars ? Math.max(list.length, 6) : list.length - 1);
  const x = i => left + slot * (bars ? i + .5 : i), y = value => high - bottom - (high - top - bottom) * value / most;
  const summary = `${title}: ${list.length} points from ${list[0].label} to ${list.at(-1).label}, between ` +
    `${write(Math.min(...known))} and ${write(Math.max(...known))}, at the end ${write(values.at(-1))}. Arrow keys move along.`;
  const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", tabindex: "0", "aria-label": summary });
  for (const tick of ticks) {
    svg.append(s("line", { class: "grid", x1: left, x2: wide - right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, axis(tick)));
  }
  const every = Math.ceil(list.length / Math.max(2, Math.floor((wide - left) / 110)));
  list.forEach((point, i) => {
    const last = list.length - 1, fits = i % every === 0 && (i + every <= last || i === last || x(last) - x(i) >= 70);
    if (fits) svg.append(s("text", { class: "tick", x: x(i), y: high - 6, "text-anchor": bars ? "middle" : i === 0 ? "start" : i === last ? "end" : "middle" }, point.short));
  });
  if (bars) {
    list.forEach((point, i) => point.value !== null && svg.append(s("rect", { class: point.open ? "column open" : "column",
      x: x(i) - slot * .36, width: slot * .72, y: y(point.value), height: Math.max(high - bottom - y(point.value), 1), rx: 2 })));
  } else {
    const line = runs(values).map(run => run.map((i, n) => `${n ? "L" : "M"}${x(i)} ${y(values[i])}`).join(""));
    const area = runs(values).map(run => `M${x(run[0])} ${y(0)}${run.map(i => `L${x(i)} ${y(values[i])}`).join("")}L${x(run.at(-1))} ${y(0)}Z`);
    svg.append(s("path", { class: "area", d: area.join("") }), s("path", { class: "stroke", d: line.join("") }));
  }
  const cursor = s("line", { class: "cursor", y1: top, y2: high - bottom, visibility: "hidden" });
  const dot = s("circle", { class: "dot", r: 5, visibility: "hidden" });
  svg.append(cursor, dot);
  let place = list.length - 1;
  const show = i => {
    place = Math.max(0, Math.min(list.length - 1, i));
    const value = values[place];
    dress(cursor, { x1: x(place), x2: x(place), visibility: "visible" }, []);
    dress(dot, { cx: x(place), cy: y(value ?? 0), visibility: value === null ? "hidden" : "visible" }, []);
    tell(list[place]);
  };
  const rest = () => {
    place = list.length - 1;
    for (const node of [cursor, dot]) node.setAttribute("visibility", "hidden");
    tell(list[place]);
  };
  svg.addEventListener("pointermove", event => {
    const bounds = svg.getBoundingClientRect(), along = (event.clientX - bounds.left) * wide / bounds.width - left;
    show(bars ? Math.floor(along / slot) : Math.round(along / slot));
  });
  svg.addEventListener("pointerleave", rest);
  svg.addEventListener("blur", rest);
  svg.addEventListener("keydown", event => {
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: list.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); show(to); }
  });
  box.replaceChildren(svg);
  rest();
}
