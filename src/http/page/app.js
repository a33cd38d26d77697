
// What the page asks, and what it makes of the answers.

const FIGURES = [
  { figure: "churn_ratio", name: "Churn", kind: "ratio", better: -1, needs: "complete" },
  { figure: "end_customers", name: "Active customers", kind: "count", better: 1, needs: "complete" },
  { figure: "new_customers", name: "New customers", kind: "count", better: 1, needs: "new_complete" },
  { figure: "reactivated_customers", name: "Came back", kind: "count", better: 1, needs: "new_complete" },
  { figure: "repeat_ratio", name: "Bought again", kind: "ratio", better: 1 },
  { figure: "returning_ratio", name: "Returning", kind: "ratio", better: 1, needs: "new_complete" },
  { figure: "purchase_frequency", name: "Orders per customer", kind: "number", better: 1 },
  { figure: "conversion_ratio", name: "Visitors who ordered", kind: "ratio", better: 1, optional: true },
  { figure: "orders", name: "Orders", kind: "count", better: 1, sums: true },
  { figure: "revenue", name: "Revenue", kind: "money", better: 1 },
  { figure: "average_order_value", name: "Average order", kind: "money", better: 1 },
  { figure: "clv", name: "Customer lifetime value", kind: "money", better: 1, optional: true, needs: "complete" },
];
const PEOPLE = FIGURES.filter(figure => figure.kind !== "money").map(figure => figure.figure).concat("complete", "new_complete");
const MONEY = FIGURES.filter(figure => figure.kind === "money" || figure.sums).map(figure => figure.figure);
const DAY = 86400000;

const page = { summary: null, definitions: null, state: null, view: null, figure: "churn_ratio", currency: null, currencies: [], trends: null, drawn: {} };

async function ask(path, headers) {
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
  const body = await answer.json().catch(() => ({}));
  return { status: answer.status, ok: answer.ok, body };
}
async function must(path) {
  const { ok, status, body } = await ask(path);
  if (!ok) throw new Error(body.error ?? `${path} answered ${status}`);
  return body;
}
// Whether a part has to be drawn anew: what stays the same keeps focus, selection and scroll position.
function changed(part, value) {
  const text = JSON.stringify(value);
  if (page.drawn[part] === text) return false;
  page.drawn[part] = text;
  return true;
}
const code = currency => currency === "reporting" ? page.definitions.reporting_currency ?? "reporting" : currency;
const definition = (figure, perCurrency) =>
  page.definitions.figures.find(one => one.figure === figure && one.per_currency === perCurrency) ?? {};

// Spans of time -----------------------------------------------------------------------------------------------------------

// Every window: `now` its figures, `periods` those of a calendar window, oldest first.
function views() {
  const { windows, calendar } = page.summary;
  const rolling = windows.map(now => {
    const span = duration(now.period_seconds);
    return { key: now.window, now, label: /^\d+d$/.test(now.window) ? span : now.window, during: `in the last ${span}`, before: `the ${span} before`, period: now.period_seconds * 1000 };
  });
  const named = [...new Set(calendar.map(period => period.window))].map(key => {
    const periods = calendar.filter(period => period.window === key);
    return { key, now: periods.at(-1), periods, label: `This ${key}`, during: `so far this ${key}`, before: `the ${key} before, up to the same day` };
  });
  return rolling.concat(named);
}

// Whether a figure is of the chosen currency alone. Orders are, wherever they stand beside the revenue of one currency of several.
const isOfCurrency = spec => spec.kind === "money" || spec.sums && page.currencies.length > 1;
function titleOf(spec) {
  if (!spec.sums || !isOfCurrency(spec)) return spec.name;
  return page.currency === "reporting" ? `${spec.name}, all converted` : `${spec.name} in ${page.currency}`;
}
function value(spec, figures, currency) {
  const found = isOfCurrency(spec) ? figures?.currencies?.[currency]?.[spec.figure] : figures?.[spec.figure];
  return found === null || found === undefined ? null : Number(found);
}
function number(count) {
  return count === null ? NOTHING : whole.format(count);
}
function write(spec, number, short = true) {
  if (number === null) return NOTHING;
  return { ratio: () => share.format(number), count: () => whole.format(number), number: () => fine.format(number),
    money: () => money(number, code(page.currency), short) }[spec.kind]();
}
function axis(spec, number, most) {
  if (spec.kind === "ratio") return (most < .05 ? share : rough).format(number);
  return new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 2 }).format(number);
}
// Whether the data reach back far enough for a figure that a window ending at `end` and beginning at `begin` shows.
function reaches(spec, figures, begin) {
  if (figures.missing?.figures[spec.figure]) return false;
  if (spec.needs) return figures[spec.needs] === true;
  return !page.summary.data_begin || Date.parse(page.summary.data_begin) <= begin;
}

// Trends: two questions for the people and as many for the money of the chosen currency.
async function trends(view) {
  const asOf = page.summary.as_of, now = Date.parse(asOf);
  const series = async (from, to, step) => {
    const path = `api/v1/series?window=${encodeURIComponent(view.key)}&from=${new Date(from).toISOString()}&to=${new Date(to).toISOString()}&step_seconds=${Math.round(step / 1000)}`;
    const questions = [must(`${path}&figure=${PEOPLE}`)];
    if (page.currency) questions.push(must(`${path}&figure=${MONEY}&currency=${encodeURIComponent(page.currency)}`));
    const [people, sums] = await Promise.all(questions);
    return people.points.map(([time, ...found], i) => ({
      time, ...Object.fromEntries(PEOPLE.map((name, n) => [name, found[n]])),
      currencies: { [page.currency]: Object.fromEntries(MONEY.map((name, n) => [name, sums?.points[i]?.[n + 1] ?? null])) },
    }));
  };
  if (view.periods) return { before: await sameDayBefore(view, now, series) };
  const span = Math.min(Math.max(6 * view.period, 180 * DAY), Math.max(1095 * DAY, 2 * view.period));
  const [recent, long] = await Promise.all([series(now - view.period, now, view.period / 60), series(now - span, now, span / 180)]);
  return { before: recent[0], recent, long };
}

// The figures of the period before an open one, up to the day of it that is today.
async function sameDayBefore(view, now, series) {
  const before = view.periods.at(-2);
  if (!before) return null;
  const local = Object.fromEntries(new Intl.DateTimeFormat("en", { timeZone: zone, hourCycle: "h23", year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" })
    .formatToParts(now).map(part => [part.type, Number(part.value)]));
  const today = Date.UTC(local.year, local.month - 1, local.day);
  const ahead = today + (local.hour * 3600 + local.minute * 60 + local.second) * 1000 - Math.floor(now / 1000) * 1000;
  const day = Math.min(Date.parse(before.from) + today - Date.parse(view.now.from), Date.parse(before.to));
  const noon = day + DAY / 2 - ahead;
  return (await series(noon, noon, 0))[0];
}

// Parts of the page -------------------------------------------------------------------------------------------------------

function drawHealth(state, error) {
  const { summary } = page, notices = [];
  const say = (text, className) => { at("health").textContent = text; at("health").className = `pill ${className}`; };
  const lagging = (state?.topics ?? []).filter(topic => topic.lagging);
  if (error) {
    say("No answer", "bad");
    notices.push(h("p", { class: "notice bad" }, `retentiond does not answer: ${error.message ?? error}. `, summary ? "What stands here is what it said before." : "This page keeps asking."));
  } else if (!state.ready) {
    const catching = state.reasons.length > 0 && state.reasons.every(reason => reason.startsWith("catching up"));
    say(catching ? "Catching up" : "Not ready", "warn");
    const lag = state.lag_events > 0 ? `, ${whole.format(state.lag_events)} messages are still to be read` : "";
    const what = summary?.as_of ? `These are the figures of ${minute(summary.as_of)}${lag}. Each is right for that moment.` : `Figures come as soon as events are read${lag}.`;
    notices.push(h("div", { class: "notice warn" }, what, h("ul", {}, state.reasons.map(reason => h("li", {}, reason)))));
  } else if (lagging.length > 0) {
    say("Catching up", "warn");
    notices.push(h("div", { class: "notice warn" }, "Not everything that was sent is in these figures yet.", h("ul", {}, lagging.map(topic => h("li", {}, behind(topic))))));
  } else if (!summary?.as_of) {
    say("Waiting for orders", "");
  } else {
    say("Up to date", "good");
  }
  // What lags is said above in other words.
  const notes = (state?.notes ?? []).filter(note => !lagging.some(({ topic }) => note.startsWith(`topic ${topic} lags`)));
  notices.push(...notes.map(note => h("p", { class: "notice" }, note)));
  at("as-of").textContent = summary?.as_of ? `as of ${minute(summary.as_of)}` : "";
  if (changed("notices", notices.map(notice => notice.textContent))) at("notices").replaceChildren(...notices);
}

function behind({ topic, lag_events: messages, lag_seconds: seconds }) {
  const count = messages === null ? "messages" : `${whole.format(messages)} ${messages === 1 ? "message" : "messages"}`;
  return seconds === null ? `${topic}: ${count} still to be read` : `${topic}: ${count} behind, last read to its end ${ago(seconds)}`;
}

// What is waited for while there is no figure yet.
function drawEmpty() {
  const { state, summary } = page, topics = state?.topics ?? [];
  const how = topic => topic.lag_events === 0 ? "read to its end" : topic.lag_events > 0 ? `${whole.format(topic.lag_events)} messages still to be read` : "not read yet";
  const lines = topics.map(topic => h("li", {}, h("b", {}, topic.topic), `: ${how(topic)}`));
  const parts = [h("p", {}, "Figures appear here as soon as the first order has been read.")];
  if (summary.partitions_total !== null && summary.partitions_assigned === 0) {
    parts.push(h("p", {}, "This replica holds no partition, so it will show none: the other replicas have them all, or the group is still being assigned."));
  } else if (lines.length > 0) {
    parts.push(h("p", {}, "Waiting for messages on:"), h("ul", {}, lines));
    if (topics.every(topic => topic.lag_events === 0)) {
      parts.push(h("p", {}, "All messages so far have been read, and none of them was an order. If you expect orders there, ", h("code", {}, "retentiond validate --sample 10"), " shows what the messages are taken for, and the topic of dead letters why they were refused."));
    }
  }
  if (changed("empty", parts.map(part => part.textContent))) at("empty-what").replaceChildren(...parts);
}

// A replica that holds a part of the customers says so where it counts them.
function drawPart() {
  const { partitions_assigned: assigned, partitions_total: total } = page.summary, isPart = total !== null && assigned < total;
  at("part").hidden = !isPart;
  if (!isPart || !changed("part", [assigned, total])) return;
  const link = page.definitions.dashboards_url;
  const dashboards = link ? h("a", { href: link }, "the dashboards") : "the Grafana dashboards";
  at("part").replaceChildren(h("b", {}, `A part of the customers: ${assigned} of ${total} partitions.`), " The figures are those of this replica alone; ", dashboards, " add up all replicas",
    link ? "." : h("span", {}, " (set ", h("code", {}, "http.dashboards_url"), " to link them here)."));
}

function drawChoices(all) {
  if (changed("windows", [all.map(view => [view.key, view.label])])) {
    at("windows").replaceChildren(at("windows").querySelector("legend"), ...all.map(view =>
      h("label", {}, h("input", { type: "radio", name: "window", value: view.key }), view.label)));
  }
  for (const input of at("windows").querySelectorAll("input")) input.checked = input.value === page.view.key;
  const orders = new Map();
  for (const view of all) for (const [currency, sum] of Object.entries(view.now.currencies)) orders.set(currency, Math.max(orders.get(currency) ?? 0, sum.orders));
  const listed = [...orders.keys()].sort((a, b) => (b === "reporting") - (a === "reporting") || orders.get(b) - orders.get(a));
  page.currencies = listed;
  if (!listed.includes(page.currency)) page.currency = listed[0] ?? null;
  if (changed("currencies", [listed])) {
    at("currency").replaceChildren(...listed.map(currency => h("option", { value: currency }, currency === "reporting" ? `${code(currency)}, all converted` : currency)));
  }
  at("currency-choice").hidden = listed.length < 2;
  if (page.currency) at("currency").value = page.currency;
}

function difference(spec, now, before) {
  if (now === null || before === null) return null;
  if (spec.kind === "ratio") return { size: now - before, text: `${points.format(100 * Math.abs(now - before))} points` };
  return before === 0 ? null : { size: now - before, text: share.format(Math.abs(now / before - 1)) };
}

function beginOf(view, figures) {
  return view.periods ? Date.parse(figures.from ?? view.periods.at(-2)?.from) : Date.parse(figures.time ?? page.summary.as_of) - view.period;
}

function drawHeadline(view) {
  const { now } = view, before = page.trends?.before, spec = FIGURES[0], active = duration(now.active_for_seconds);
  const parts = [];
  if (now.complete && now.churn_ratio !== null) {
    parts.push(h("b", {}, `${whole.format(now.lost_customers)} of ${whole.format(now.start_customers)}`), ` customers went silent ${view.during}: a churn of `, h("b", {}, share.format(now.churn_ratio)));
    const delta = before?.complete ? difference(spec, now.churn_ratio, before.churn_ratio) : null;
    if (delta) parts.push(`, ${delta.text} ${delta.size < 0 ? "less" : "more"} than in ${view.before}`);
  } else {
    parts.push(h("b", {}, number(now.ordering_customers)), " customers ordered ", h("b", {}, number(now.orders)), ` times ${view.during}`);
  }
  at("headline").replaceChildren(...parts, ".");
  const span = now.from ? `${civil(now.from)} to ${civil(now.to)}. ` : "";
  at("basis").textContent = `${span}A customer counts as active for ${active} after an order. Arrows compare with ${view.before}.`;
}

function whyUnsure(view, spec) {
  const begin = page.summary.data_begin, missing = view.now.missing;
  const known = missing && (missing.figures[spec.figure] ?? (spec.needs ? missing.until : null));
  if (known) return `Not known until ${day(known)}: ${missing.reason}.`;
  if (spec.needs === "new_complete" && view.now.complete) return "Only known if the data begin with the shop's very first order. If they do, set history_whole = true under [time].";
  if (!begin || view.periods) return `The data begin too late${begin ? `, on ${day(begin)}` : ""}.`;
  const from = Date.parse(begin) + view.period + (spec.needs ? view.now.active_for_seconds * 1000 : 0);
  return `The data begin on ${day(begin)}: right from ${day(from)} on.`;
}

function drawTiles(view) {
  const { now } = view, focused = document.activeElement?.dataset?.figure;
  const tiles = FIGURES.filter(spec => !isOfCurrency(spec) || page.currency).map(spec => {
    const current = value(spec, now, page.currency);
    if (current === null && spec.optional) return null;
    const sure = reaches(spec, now, beginOf(view, now)), before = page.trends?.before;
    const comparable = sure && before && reaches(spec, before, beginOf(view, before));
    const delta = comparable ? difference(spec, current, value(spec, before, page.currency)) : null;
    const flat = delta && /^[^1-9]*$/.test(delta.text), arrow = flat ? "unchanged" : delta?.size > 0 ? "▲" : "▼";
    const sense = !delta || flat ? "" : delta.size * spec.better > 0 ? "good" : "bad";
    const list = view.periods?.slice(-12) ?? page.trends?.recent ?? [];
    const curve = list.map(one => reaches(spec, one, beginOf(view, one)) ? value(spec, one, page.currency) : null);
    const meaning = definition(spec.figure, isOfCurrency(spec)), text = write(spec, current);
    return h("button", { class: "tile", type: "button", "data-figure": spec.figure, "aria-pressed": String(page.figure === spec.figure), title: meaning.formula },
      h("span", { class: "name" }, titleOf(spec)),
      h("span", { class: "fit" }, h("span", { class: `value${sure ? "" : " unsure"}`, "--characters": text.length }, text)),
      h("span", { class: `change ${sense}` }, delta ? [h("span", { "aria-hidden": "true" }, arrow), h("span", { class: "unseen" }, flat ? "" : delta.size > 0 ? "up" : "down"), flat ? "" : ` ${delta.text}`] : ""),
      view.periods ? columns(curve) : sparkline(curve),
      sure ? h("span", { class: "what" }, meaning.plain ?? "") : h("span", { class: "why" }, whyUnsure(view, spec)));
  });
  at("tiles").replaceChildren(...tiles.filter(Boolean));
  if (focused) at("tiles").querySelector(`[data-figure="${focused}"]`)?.focus();
}

function drawCurve(view) {
  const spec = FIGURES.find(one => one.figure === page.figure);
  const list = (view.periods?.slice(-24) ?? page.trends?.long ?? []).map(one => ({
    label: one.time ? day(one.time) : `${civil(one.from)} to ${civil(one.to)}${one.closed ? "" : ", so far"}`,
    short: one.time ? instant(one.time, { day: "numeric", month: "short" }) : civil(one.from, { month: "short", year: "2-digit" }),
    value: reaches(spec, one, beginOf(view, one)) ? value(spec, one, page.currency) : null,
    open: one.closed === false,
  }));
  const first = list.findIndex(point => point.value !== null);
  const shown = first < 0 ? [] : list.slice(first);
  at("curve-title").textContent = titleOf(spec);
  at("curve-note").textContent = view.periods ? "by period" : `each point: the ${duration(view.now.period_seconds)} up to it`;
  const most = steps(Math.max(0, ...shown.map(point => point.value ?? 0))).at(-1);
  if (shown.length === 0) at("readout").textContent = "";
  chart(at("curve"), shown, { title: titleOf(spec), bars: Boolean(view.periods), write: number => write(spec, number), axis: number => axis(spec, number, most),
    tell: point => at("readout").replaceChildren(h("strong", {}, write(spec, point.value)), ` · ${point.label}`) });
  if (!at("curve-details").open) return;
  at("curve-head").replaceChildren(h("tr", {}, h("th", { scope: "col" }, view.periods ? "Period" : "Day"), h("th", { scope: "col" }, titleOf(spec))));
  at("curve-rows").replaceChildren(...shown.toReversed().map(point => h("tr", {}, h("th", { scope: "row" }, point.label), h("td", {}, write(spec, point.value, false)))));
}

function drawFlow(view) {
  const { start_customers: start, lost_customers: lost, new_customers: fresh, reactivated_customers: back, end_customers: end, retained_customers: kept } = view.now;
  const most = Math.max(start, end, 1), percent = number => `${100 * number / most}%`;
  const rows = [
    ["At the start", 0, start, "", "var(--dim)", "complete"], ["Went silent", kept, lost, "−", "var(--lapsed)", "complete"],
    ["Stayed", 0, kept, "", "var(--dim)", "complete"], ["New", kept, fresh, "+", "var(--active)", "new_complete"],
    ["Came back", kept + fresh, back, "+", "var(--active)", "new_complete"], ["Active now", 0, end, "", "var(--accent)", "complete"],
  ];
  at("flow").replaceChildren(...rows.map(([name, from, size, sign, fill, needs]) => h("tr", { class: view.now[needs] ? "" : "unsure" },
    h("th", { scope: "row" }, name),
    h("td", { "aria-hidden": "true" }, h("div", { class: "track" }, h("i", { "--from": percent(from), "--size": percent(size), "--fill": fill }))),
    h("td", {}, size === null ? NOTHING : `${sign}${whole.format(size)}`))));
}

function drawCohorts() {
  const { cohorts } = page.summary, choices = [["share", "share who ordered"], ["orders", "orders per customer"]];
  if (page.currency) choices.push(["money", `revenue per customer in ${code(page.currency)}`]);
  const select = at("cohort-figure"), chosen = choices.some(([key]) => key === select.value) ? select.value : "share";
  if (changed("cohort-choices", choices)) select.replaceChildren(...choices.map(([key, name]) => h("option", { value: key }, name)));
  select.value = chosen;
  at("cohort-section").hidden = cohorts.length === 0;
  if (!changed("cohorts", [cohorts, chosen, page.currency])) return;
  const read = {
    share: cell => cell.ordering_customers / cell.customers, orders: cell => cell.orders / cell.customers,
    money: cell => Number(cell.currencies[page.currency]?.revenue ?? 0) / cell.customers,
  }[chosen];
  const text = { share: value => rough.format(value), orders: value => fine.format(value), money: value => axis({}, value) }[chosen];
  const rows = new Map();
  for (const cell of cohorts) rows.set(cell.cohort, [...rows.get(cell.cohort) ?? [], cell]);
  const first = chosen === "share" ? 1 : 0, shown = [...rows].slice(-24), oldest = Math.min(24, Math.max(...shown.map(([, cells]) => cells.length - 1)));
  const ages = Array.from({ length: Math.max(0, oldest - first + 1) }, (_, i) => i + first);
  const most = Math.max(...shown.flatMap(([, cells]) => cells.slice(first).map(read)), 1e-9);
  at("cohort-head").replaceChildren(h("tr", {}, h("th", { scope: "col" }, "First order"), h("th", { scope: "col" }, "Customers"), ages.map(age => h("th", { scope: "col" }, age === 0 ? "same month" : `+${age}`))));
  at("cohorts").replaceChildren(...shown.map(([month, cells]) => h("tr", {}, h("th", { scope: "row" }, civil(`${month}-01`, { month: "short", year: "numeric" })), h("td", { class: "size" }, number(cells[0].customers)),
    ages.map(age => {
      const cell = cells[age];
      if (!cell) return h("td", { class: "size" }, "");
      if (cell.orders === null || cell.customers === null) return h("td", { class: "size", title: "not known since the time zone was changed" }, NOTHING);
      const part = read(cell) / most, open = age === cells.length - 1;
      return h("td", { class: `${part > .7 ? "dark" : ""}${open ? " open" : ""}`, "--share": `${Math.round(100 * part)}%`, title: `${whole.format(cell.ordering_customers)} of ${whole.format(cell.customers)} ordered, ${whole.format(cell.orders)} orders${open ? "; this month is not over" : ""}` }, text(read(cell)));
    }))));
}

function drawStages() {
  const { stages } = page.summary;
  if (!changed("stages", stages)) return;
  const of = (stage, status) => stages.find(one => one.stage === stage && one.status === status)?.customers;
  const list = [["prospect", "Prospects", "seen, no order yet", ["none"]], ["new", "New", "one order", ["active", "at_risk", "lapsed"]],
    ["repeat", "Repeat", "two orders or more", ["active", "at_risk", "lapsed"]], ["loyal", "Loyal", "many orders and active", ["active", "at_risk", "lapsed"]]];
  const total = ([stage, , , statuses]) => statuses.reduce((sum, status) => sum + (of(stage, status) ?? 0), 0), most = Math.max(...list.map(total), 1);
  const colour = { active: "active", at_risk: "risk", lapsed: "lapsed", none: "none" };
  at("stage-rows").replaceChildren(...list.flatMap(row => {
    const [stage, name, meaning, statuses] = row, head = h("th", { scope: "row" }, name, h("small", {}, meaning));
    const cells = stage === "prospect" ? [h("td", { colspan: "3", class: "start" }, `${whole.format(of(stage, "none") ?? 0)} without an order`)]
      : statuses.map(status => h("td", {}, of(stage, status) === undefined ? NOTHING : whole.format(of(stage, status))));
    const bar = h("div", { class: "stack", "--size": `${100 * total(row) / most}%` }, statuses.map(status => h("i", { class: colour[status], "--part": of(stage, status) ?? 0 })));
    return [h("tr", {}, head, cells), h("tr", { "aria-hidden": "true" }, h("td", { colspan: "4", class: "line" }, bar))];
  }));
}

function drawSegments(view) {
  const all = page.summary.segments.filter(one => one.window === view.key), dimensions = [...new Set(all.map(one => one.dimension))];
  at("segment-section").hidden = dimensions.length === 0;
  if (dimensions.length === 0) return;
  const select = at("dimension"), chosen = dimensions.includes(select.value) ? select.value : dimensions[0];
  if (changed("dimensions", dimensions)) select.replaceChildren(...dimensions.map(name => h("option", { value: name }, name)));
  select.value = chosen;
  const rows = all.filter(one => one.dimension === chosen && (one.end_customers || one.start_customers || one.orders)).sort((a, b) => b.end_customers - a.end_customers);
  if (!changed("segments", [rows, page.currency])) return;
  const more = rows.length - 20;
  at("segments").replaceChildren(...rows.slice(0, 20).map(one => h("tr", {}, h("th", { scope: "row" }, one.value), h("td", {}, whole.format(one.end_customers)),
    h("td", { class: one.complete ? "" : "unsure" }, h("span", { class: "meter", "aria-hidden": "true" }, h("i", { "--size": `${100 * (one.churn_ratio ?? 0)}%` })), one.churn_ratio === null ? NOTHING : share.format(one.churn_ratio)),
    h("td", {}, one.repeat_ratio === null ? NOTHING : share.format(one.repeat_ratio)), h("td", {}, page.currency ? money(one.currencies[page.currency]?.revenue ?? "0", code(page.currency), true) : NOTHING))),
    ...(more > 0 ? [h("tr", {}, h("th", { scope: "row" }, `and ${more} more`), h("td", { colspan: "4" }))] : []));
}

function drawAll(list) {
  if (!at("all").open || !changed("all", [list])) return;
  const cell = (figure, found, currency) => {
    if (found === null || found === undefined) return NOTHING;
    if (typeof found === "boolean") return found ? "yes" : "no";
    if (currency && figure !== "orders") return money(found, code(currency));
    if (figure === "lifespan_seconds") return `${fine.format(found / 86400)} days`;
    return figure.endsWith("_ratio") ? share.format(found) : fine.format(found);
  };
  const currencies = [...new Set(list.flatMap(view => Object.keys(view.now.currencies)))];
  const rows = page.definitions.figures.flatMap(one => (one.per_currency ? currencies : [null]).map(currency => h("tr", {},
    h("th", { scope: "row", title: one.formula }, `${words(one.figure)}${currency ? ` · ${currency === "reporting" ? `${code(currency)}, all converted` : currency}` : ""}`, h("small", {}, one.plain ?? one.formula)),
    list.map(({ now }) => h("td", {}, cell(one.figure, currency ? now.currencies[currency]?.[one.figure] : now[one.figure], currency))))));
  at("all-head").replaceChildren(h("tr", {}, h("th", { scope: "col" }, "Figure"), list.map(view => h("th", { scope: "col" }, view.label))));
  at("all-rows").replaceChildren(...rows);
}

// Asking again and again --------------------------------------------------------------------------------------------------

function draw() {
  const list = views();
  at("empty").hidden = list.length > 0;
  at("figures").hidden = list.length === 0;
  if (list.length === 0) return drawEmpty();
  drawPart();
  const wanted = decodeURIComponent(location.hash.slice(1));
  page.view = list.find(view => view.key === wanted) ?? list.find(view => view.key === "30d") ?? list[0];
  drawChoices(list);
  const trendsOf = `${page.view.key} ${page.currency}`;
  if (page.trends && page.trendsOf !== trendsOf) page.trends = null;
  drawHeadline(page.view);
  drawFlow(page.view);
  drawTiles(page.view);
  if (page.trends || page.view.periods) drawCurve(page.view);
  drawCohorts();
  drawStages();
  drawSegments(page.view);
  drawAll(list);
  if (page.trendsAt !== page.summary.as_of || page.trendsOf !== trendsOf) drawTrends(trendsOf);
}

async function drawTrends(trendsOf) {
  const asOf = page.summary.as_of;
  [page.trendsOf, page.trendsAt] = [trendsOf, asOf];
  try {
    const found = await trends(page.view);
    // Meanwhile another span of time may have been chosen.
    if (page.trendsOf !== trendsOf || page.trendsAt !== asOf) return;
    page.trends = found;
    drawHeadline(page.view);
    drawTiles(page.view);
    drawCurve(page.view);
    document.body.dataset.trends = asOf;
  } catch (error) {
    page.trendsAt = null;
    drawHealth(null, error);
  }
}

async function refresh() {
  let state = null;
  try {
    if (!page.definitions) {
      page.definitions = await must("api/v1/definitions");
      zone = page.definitions.windows.find(window => window.zone)?.zone ?? "UTC";
    }
    const [ready, summary] = await Promise.all([ask("readyz"), must("api/v1/summary")]);
    [state, page.summary] = [{ reasons: [], ...ready.body }, summary];
    page.state = state;
    drawHealth(state);
    draw();
    document.body.dataset.asOf = summary.as_of ?? "never";
  } catch (error) {
    drawHealth(null, error);
  }
  return state?.ready ? 5000 : 2000;
}

async function forever(work, pause) {
  // Nobody looks at a page in the background, so nobody is asked for it.
  const next = document.hidden ? 1000 : await work().catch(() => pause) ?? pause;
  setTimeout(forever, next, work, pause);
}

at("windows").addEventListener("change", event => { location.hash = encodeURIComponent(event.target.value); });
window.addEventListener("hashchange", () => page.summary && draw());
at("currency").addEventListener("change", event => { page.currency = event.target.value; draw(); drawList(); });
at("cohort-figure").addEventListener("change", drawCohorts);
at("dimension").addEventListener("change", () => drawSegments(page.view));
at("all").addEventListener("toggle", () => drawAll(views()));
at("curve-details").addEventListener("toggle", () => page.view && drawCurve(page.view));
at("tiles").addEventListener("click", event => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  page.figure = tile.dataset.figure;
  drawTiles(page.view);
  drawCurve(page.view);
});
let width = 0;
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - width) > 4 && page.view && (page.trends || page.view.periods)) { width = entry.contentRect.width; drawCurve(page.view); }
}).observe(at("curve"));

forever(refresh, 2000);
forever(drawWinbacks, 15000);
forever(async () => page.summary && page.definitions ? refreshList() : 200, 30000);
