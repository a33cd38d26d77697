//! A summary as tables for a person: rolling windows side by side, calendar periods one below the other.

use comfy_table::{CellAlignment, Table, presets};

use crate::output::summary::{Summary, WindowSummary};

/// The tables as text.
pub(super) fn render(summary: &Summary) -> String {
    let Some(as_of) = summary.as_of else { return "No event yet.".to_owned() };
    let mut text = format!("As of {as_of}\n\n{}\n", rolling(&summary.windows));
    if !summary.calendar.is_empty() {
        text.push_str(&format!("\n{}\n", calendar(&summary.calendar)));
    }
    if summary.windows.iter().any(|window| !window.complete) {
        text.push_str(
            "\n* The data do not reach back far enough: churn, retention and reactivation mean nothing yet.\n",
        );
    }
    text
}

/// A figure's name and how it is read off a window.
type Row = (&'static str, fn(&WindowSummary) -> String);

const PEOPLE: [Row; 20] = [
    ("customers at start", |w| count(w.people.start_customers)),
    ("  lost", |w| count(w.people.lost_customers)),
    ("  retained", |w| count(w.people.retained_customers)),
    ("  reactivated", |w| count(w.people.reactivated_customers)),
    ("  new", |w| count(w.people.new_customers)),
    ("customers at end", |w| count(w.people.end_customers)),
    ("churn ratio", |w| percent(w.people.churn_ratio)),
    ("retention ratio", |w| percent(w.people.retention_ratio)),
    ("crr ratio", |w| percent(w.people.crr_ratio)),
    ("ordering customers", |w| count(w.people.ordering_customers)),
    ("  repeat", |w| count(w.people.repeat_customers)),
    ("  returning", |w| count(w.people.returning_customers)),
    ("repeat ratio", |w| percent(w.people.repeat_ratio)),
    ("returning ratio", |w| percent(w.people.returning_ratio)),
    ("visiting customers", |w| count(w.people.visiting_customers)),
    ("conversion ratio", |w| percent(w.people.conversion_ratio)),
    ("orders", |w| count(w.people.orders)),
    ("sessions", |w| count(w.people.sessions)),
    ("purchase frequency", |w| decimal(w.people.purchase_frequency)),
    ("lifespan (days)", |w| decimal(w.people.lifespan_seconds.map(|seconds| seconds / 86_400.0))),
];

fn rolling(windows: &[WindowSummary]) -> Table {
    let mut table = table();
    let name = |w: &WindowSummary| if w.complete { w.window.clone() } else { format!("{}*", w.window) };
    table.set_header(std::iter::once("window".to_owned()).chain(windows.iter().map(name)));
    for (figure, read) in PEOPLE {
        table.add_row(std::iter::once(figure.to_owned()).chain(windows.iter().map(read)));
    }
    let currencies = windows.iter().flat_map(|window| window.currencies.keys().copied());
    for currency in currencies.collect::<std::collections::BTreeSet<_>>() {
        let money = |w: &WindowSummary| w.currencies.get(&currency).cloned();
        let mut row = |figure: &str, read: &dyn Fn(&WindowSummary) -> Option<String>| {
            let cells = windows.iter().map(|window| read(window).unwrap_or_else(|| "-".to_owned()));
            table.add_row(std::iter::once(format!("{figure} {currency}")).chain(cells));
        };
        row("revenue", &|w| money(w)?.revenue);
        row("refunds", &|w| money(w)?.refunds);
        row("cancellations", &|w| money(w)?.cancellations);
        row("average order value", &|w| money(w)?.average_order_value.map(short));
        row("net average order value", &|w| money(w)?.net_average_order_value.map(short));
        row("lifetime value", &|w| money(w)?.clv.map(short));
    }
    right_aligned(table)
}

fn calendar(periods: &[WindowSummary]) -> Table {
    let mut table = table();
    table.set_header([
        "period",
        "from",
        "start",
        "lost",
        "new",
        "reactivated",
        "end",
        "churn",
        "ordering",
        "repeat",
        "orders",
        "revenue",
    ]);
    for period in periods {
        let people = &period.people;
        let open = if period.closed == Some(true) { "" } else { " (open)" };
        let star = if period.complete { "" } else { "*" };
        let revenue = period
            .currencies
            .iter()
            .filter_map(|(currency, money)| Some(format!("{} {currency}", money.revenue.as_ref()?)));
        table.add_row([
            format!("{}{star}{open}", period.window),
            period.from.clone().unwrap_or_default(),
            count(people.start_customers),
            count(people.lost_customers),
            count(people.new_customers),
            count(people.reactivated_customers),
            count(people.end_customers),
            percent(people.churn_ratio),
            count(people.ordering_customers),
            count(people.repeat_customers),
            count(people.orders),
            revenue.collect::<Vec<_>>().join(", "),
        ]);
    }
    right_aligned(table)
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn right_aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn count(count: Option<i64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", 100.0 * ratio))
}

fn decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// Ten decimals are for machines.
fn short(amount: String) -> String {
    amount.parse::<rust_decimal::Decimal>().map_or(amount, |value| value.round_dp(value.scale().min(2)).to_string())
}
