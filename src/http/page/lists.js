// Customers by name, whom an alert told of, and what came of it.

const SHOWN = 25;
const date = time => time ? day(time) : NOTHING;
const amounts = found => found === null || found === undefined ? NOTHING : typeof found !== "object" ? String(found)
  : Object.entries(found).map(([currency, sum]) => money(typeof sum === "object" ? sum?.net_revenue ?? sum?.revenue : sum, code(currency))).join(" · ") || NOTHING;
// What a customer brought: in the reporting currency, with what was paid only where that is something else.
function brought(found) {
  const { reporting, ...paid } = typeof found === "object" && found !== null ? found : {};
  if (!reporting) return amounts(found);
  const currencies = Object.keys(paid), isSame = currencies.length === 1 && currencies[0] === code("reporting");
  return isSame ? amounts({ reporting }) : [amounts({ reporting }), h("small", {}, amounts(paid))];
}

// Each list: where it is, what it is, how it can be sorted, and its columns.
const LISTS = {
  "at-risk": {
    path: "api/v1/at-risk", what: "Their last order is longer ago than it usually is, but they have not gone yet.", none: "Nobody is at risk at the moment.",
    entries: body => body.customers, total: body => body.total_at_risk,
    sorts: [["value", "what they brought"], ["orders", "orders"], ["last_order", "longest without an order"], ["at_risk_since", "longest at risk"], ["lapses_at", "next to lapse"]],
    columns: [...of(), ["At risk since", one => date(one.at_risk_since)], ["Lapses", one => date(one.lapses_at)]],
  },
  lapsed: {
    path: "api/v1/lapsed", what: "They have been silent for so long that they count as gone.", none: "Nobody has lapsed.",
    entries: body => body.customers, total: body => body.total_lapsed,
    sorts: [["lapsed_at", "latest to lapse"], ["value", "what they brought"], ["orders", "orders"], ["last_order", "longest without an order"]],
    columns: [...of(), ["Lapsed", one => date(one.lapsed_at)]],
  },
  alerts: {
    path: "api/v1/alerts", what: "Alerts and win-backs that this replica has sent since it started, the newest first.", none: "No alert has been sent since this replica started.",
    entries: body => body.alerts, total: () => undefined, sorts: [],
    columns: [["Customer", one => one.customer_id], ["Sent", one => minute(one.sent_at)], ["What", one => one.type === "winback" ? "came back" : "fell silent"], ["Rule", one => one.rule],
      ["Silent since", one => date(one.silent_since)], ["Ordered again", one => date(one.ordered_at)], ["Risk", one => one.risk ?? NOTHING], ["Revenue", one => amounts(one.revenue)]],
  },
};
function of() {
  return [["Customer", one => one.customer_id], ["Stage", one => one.stage ?? NOTHING], ["Orders", one => fine.format(one.orders ?? 0)],
    ["Brought so far", one => brought(one.currencies ?? one.revenue)], ["Last order", one => date(one.last_order)]];
}

const people = { list: "at-risk", sort: {}, entries: [], next: null, pages: 0 };
const bearer = () => { const token = sessionStorage.getItem("token"); return token ? { authorization: `Bearer ${token}` } : {}; };

function query(limit, cursor) {
  const sort = people.sort[people.list] ?? LISTS[people.list].sorts[0]?.[0], parts = { limit };
  if (cursor) return new URLSearchParams({ limit, cursor });
  if (sort) parts.sort = sort;
  if (sort === "value" && page.currency) parts.currency = page.currency;
  return new URLSearchParams(parts);
}

// Asks for the first page, or for the one behind what is shown.
async function drawList(more) {
  const list = LISTS[people.list], asked = JSON.stringify([people.list, people.sort, page.currency]);
  const { status, body } = await ask(`${list.path}?${query(SHOWN, more ? people.next : null)}`, bearer());
  // Meanwhile another list may have been chosen.
  if (asked !== JSON.stringify([people.list, people.sort, page.currency])) return;
  const found = status === 200 ? list.entries(body) : null;
  at("risk-section").hidden = ![200, 400, 401, 403, 429].includes(status);
  at("closed").hidden = status !== 403;
  at("token-form").hidden = status !== 401;
  at("risk-table").hidden = [401, 403].includes(status);
  at("no-rules").hidden = (page.definitions?.rules ?? [""]).length > 0;
  if (status === 401 && sessionStorage.getItem("token")) {
    sessionStorage.removeItem("token");
    at("token-note").textContent = "This token is not valid: it is the content of the file that http.token_file names.";
  }
  at("risk-note").textContent = "";
  if (!Array.isArray(found)) {
    at("list-what").textContent = status === 400 ? `${body.error}.` : list.what;
    return;
  }
  people.entries = more ? people.entries.concat(found) : found;
  people.pages = more ? people.pages + 1 : 1;
  people.next = body.next_cursor ?? null;
  const total = list.total(body) ?? people.entries.length;
  if (people.entries.length > 0) at("risk-note").textContent = people.entries.length < total ? `${whole.format(people.entries.length)} of ${whole.format(total)}` : whole.format(total);
  at("list-what").textContent = people.entries.length > 0 ? list.what : list.none;
  at("list-more").hidden = !people.next;
  at("list-csv").hidden = people.entries.length === 0;
  at("list-scroll").hidden = people.entries.length === 0;
  if (changed("sorts", people.list)) at("list-sort").replaceChildren(...list.sorts.map(([key, text]) => h("option", { value: key }, text)));
  at("list-sort").parentElement.hidden = list.sorts.length === 0;
  at("list-sort").value = people.sort[people.list] ?? list.sorts[0]?.[0] ?? "";
  if (!changed("people", [people.list, people.entries])) return;
  at("risk-head").replaceChildren(h("tr", {}, list.columns.map(([title]) => h("th", { scope: "col" }, title))));
  at("risks").replaceChildren(...people.entries.map(one => h("tr", {}, list.columns.map(([, cell], i) => i > 0 ? h("td", {}, cell(one))
    : h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-customer": String(one.customer_id), title: "Everything that is known of this customer" }, String(one.customer_id)))))));
}
// What was paged through stays as it is; only a single page is asked for anew.
const refreshList = async () => people.pages > 1 ? undefined : drawList();

// All pages of the list as one file.
async function download() {
  const list = LISTS[people.list], lines = [];
  let more = `?${query(10000)}&format=csv`;
  at("list-csv").disabled = true;
  try {
    while (more) {
      const answer = await fetch(`${list.path}${more}`, { headers: bearer(), cache: "no-store" });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `${list.path} answered ${answer.status}`);
      const text = await answer.text();
      // Each page has the same header.
      lines.push(lines.length ? text.slice(text.indexOf("\n") + 1) : text);
      more = /^<(\?[^>]*)>/.exec(answer.headers.get("link") ?? "")?.[1];
    }
    const address = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
    h("a", { href: address, download: `${people.list}.csv` }).click();
    setTimeout(URL.revokeObjectURL, 10000, address);
  } catch (error) {
    at("list-what").textContent = `The file cannot be made: ${error.message}.`;
  } finally {
    at("list-csv").disabled = false;
  }
}

async function showCustomer(id) {
  const { status, body } = await ask(`api/v1/customers/${encodeURIComponent(id)}`, bearer());
  const rows = status !== 200 ? [] : [
    ["Stage", `${body.stage}, ${words(body.status).toLowerCase()}`], ["Orders", whole.format(body.orders)], ["First order", date(body.first_order)], ["Last order", date(body.last_order)],
    ["At risk", body.at_risk_at ? `from ${date(body.at_risk_at)} on` : NOTHING], ["Lapsed", body.lapses_at ? `from ${date(body.lapses_at)} on` : NOTHING],
    ["Brought so far", brought(body.currencies)], ["Lifetime value", amounts(Object.fromEntries(Object.entries(body.currencies).filter(([, sum]) => sum.clv).map(([currency, sum]) => [currency, sum.clv])))],
    ["Sessions", whole.format(body.sessions)], ["Last session", date(body.last_session)], ["Complained", body.complained ? "yes" : "no"], ["Recommended by another", body.referred ? "yes" : "no"],
    ...Object.entries(body.segments).map(([dimension, value]) => [words(dimension), value]),
    ...body.deadlines.map(one => [`Alert ${one.rule}`, `due ${date(one.due_at)} if no order comes${one.held_out ? "; held out, so none is sent" : ""}`]),
  ];
  at("customer-title").textContent = id;
  at("customer-rows").replaceChildren(...rows.map(([title, text]) => h("tr", {}, h("th", { scope: "row" }, title), h("td", {}, text))));
  at("customer-note").textContent = status === 200 ? `as of ${minute(body.as_of)}` : `${body.error ?? `The answer is ${status}`}. ${body.hint ? `${words(body.hint)}.` : ""}`;
  if (!at("customer").open) at("customer").showModal();
}

// One row for each rule and group: those who were alerted, and those held out, who show what would have happened anyway.
async function drawWinbacks() {
  const { status, body } = await ask("api/v1/winback"), rules = status === 200 ? body.rules ?? [] : [];
  at("winback-section").hidden = rules.length === 0;
  if (rules.length === 0 || !changed("winbacks", [rules, page.currency])) return;
  const inPoints = ratio => `${ratio < 0 ? "−" : "+"}${points.format(100 * Math.abs(ratio))}`;
  const uplift = rule => typeof rule.uplift !== "number" ? NOTHING
    : [`${inPoints(rule.uplift)} points`, Array.isArray(rule.uplift_interval) ? h("small", {}, `${rule.uplift_interval.map(inPoints).join(" to ")}`) : ""];
  const revenue = found => amounts(found && page.currency in found ? { [page.currency]: found[page.currency] } : found);
  const row = (rule, name, group, last) => h("tr", {}, h("th", { scope: "row" }, rule.rule), h("td", {}, name), h("td", {}, whole.format(group.due ?? 0)), h("td", {}, whole.format(group.sent ?? 0)),
    h("td", {}, whole.format(group.won_back ?? 0)), h("td", {}, typeof group.winback_ratio === "number" ? share.format(group.winback_ratio) : NOTHING), h("td", {}, revenue(group.currencies)), h("td", {}, last));
  at("winbacks").replaceChildren(...rules.flatMap(rule => [["treated", "alerted"], ["holdout", "held out"]]
    .filter(([key]) => rule[key] && (key === "treated" || rule[key].due > 0)).map(([key, name]) => row(rule, name, rule[key], key === "treated" ? uplift(rule) : ""))));
}

at("lists").addEventListener("change", event => { people.list = event.target.value; drawList(); });
at("list-sort").addEventListener("change", event => { people.sort[people.list] = event.target.value; drawList(); });
at("list-more").addEventListener("click", () => drawList(true));
at("list-csv").addEventListener("click", download);
at("risks").addEventListener("click", event => {
  const customer = event.target.closest("[data-customer]")?.dataset.customer;
  if (customer !== undefined) showCustomer(customer);
});
at("token-form").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value.trim());
  at("token").value = "";
  drawList();
});

