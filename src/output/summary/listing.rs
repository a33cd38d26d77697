//! At-risk and lapsed customers, as in `/api/v1/at-risk` and `/api/v1/lapsed`: JSON and CSV.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Background;
use super::customer::{CustomerMoney, money};
use crate::engine::lifecycle::Status;
use crate::engine::listing::{ListedCustomer, Listing};
use crate::engine::spec::Spec;
use crate::event::{Currency, Time, decimal_text};

/// One page of the customers with a status, and the totals of all of them.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerList {
    /// The instant of the status; null before the first event.
    pub as_of: Option<Time>,
    /// The sort order.
    pub sort: &'static str,
    /// The currency when sorted by value.
    pub currency: Option<Currency>,
    #[serde(flatten)]
    totals: Totals,
    /// Currencies without a rate on the day of `as_of`; amounts in them are missing in the reporting currency.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unconverted: BTreeSet<Currency>,
    /// Cursor of the next page; null on the last one.
    pub next_cursor: Option<String>,
    /// The customers of this page.
    pub customers: Vec<CustomerEntry>,
}

/// The number of customers on this replica and their revenue to date: orders minus refunds and cancellations, as
/// decimal strings in major units.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Totals {
    AtRisk { total_at_risk: u64, revenue_at_risk: BTreeMap<Currency, String> },
    Lapsed { total_lapsed: u64, revenue_lapsed: BTreeMap<Currency, String> },
}

/// One customer.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerEntry {
    /// The id.
    pub customer_id: String,
    /// new, repeat or loyal.
    pub stage: &'static str,
    /// Orders.
    pub orders: u32,
    /// The earliest order.
    pub first_order: Option<Time>,
    /// The latest order.
    pub last_order: Option<Time>,
    #[serde(flatten)]
    turns: Turns,
    /// Whether there is a complaint.
    pub complained: bool,
    /// The value of each dimension.
    pub segments: BTreeMap<String, String>,
    /// Money by currency.
    pub currencies: BTreeMap<Currency, CustomerMoney>,
}

/// When the customer became at risk, and when the customer lapsed or will lapse without another order.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Turns {
    AtRisk { at_risk_since: Option<Time>, lapses_at: Option<Time> },
    Lapsed { at_risk_since: Option<Time>, lapsed_at: Option<Time> },
}

impl CustomerList {
    /// A page of the list over all customers; empty before the first event.
    #[must_use]
    pub fn new(
        spec: &Spec,
        background: &Background,
        as_of: Option<Time>,
        (status, sort, currency): (Status, &'static str, Option<Currency>),
        found: Listing,
        next_cursor: Option<String>,
    ) -> CustomerList {
        let Listing { total, revenue, unconverted, first } = found;
        let revenue = revenue.into_iter().map(|(currency, minor)| (currency, decimal_text(minor, currency))).collect();
        let totals = if status == Status::Lapsed {
            Totals::Lapsed { total_lapsed: total, revenue_lapsed: revenue }
        } else {
            Totals::AtRisk { total_at_risk: total, revenue_at_risk: revenue }
        };
        let customers = first.into_iter().map(|one| entry(spec, background, status, one)).collect();
        CustomerList { as_of, sort, currency, totals, unconverted, next_cursor, customers }
    }

    /// The customers of this page as CSV (RFC 4180) with a header. `currencies` get columns, the same on all pages.
    ///
    /// # Errors
    /// When a field cannot be written.
    pub fn csv(&self, spec: &Spec, currencies: &BTreeSet<Currency>) -> Result<Vec<u8>, csv::Error> {
        let last = match self.totals {
            Totals::AtRisk { .. } => "lapses_at",
            Totals::Lapsed { .. } => "lapsed_at",
        };
        let mut header: Vec<String> =
            ["customer_id", "stage", "orders", "first_order", "last_order", "at_risk_since", last, "complained"]
                .map(str::to_owned)
                .into();
        header.extend(spec.dimensions.iter().map(|dimension| format!("segment_{}", dimension.name)));
        header.extend(
            currencies.iter().flat_map(|currency| [format!("net_revenue_{currency}"), format!("clv_{currency}")]),
        );
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(&header)?;
        for one in &self.customers {
            table.write_record(row(one, spec, currencies))?;
        }
        table.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    }
}

fn row(one: &CustomerEntry, spec: &Spec, currencies: &BTreeSet<Currency>) -> Vec<String> {
    let (Turns::AtRisk { at_risk_since, lapses_at: lapses } | Turns::Lapsed { at_risk_since, lapsed_at: lapses }) =
        one.turns;
    let time = |time: Option<Time>| time.map_or_else(String::new, |time| time.to_string());
    let mut row = vec![
        one.customer_id.clone(),
        one.stage.to_owned(),
        one.orders.to_string(),
        time(one.first_order),
        time(one.last_order),
        time(at_risk_since),
        time(lapses),
        one.complained.to_string(),
    ];
    row.extend(spec.dimensions.iter().map(|dimension| one.segments.get(&dimension.name).cloned().unwrap_or_default()));
    for currency in currencies {
        let money = one.currencies.get(currency);
        row.push(money.map_or_else(String::new, |money| money.net_revenue.clone()));
        row.push(money.and_then(|money| money.clv.clone()).unwrap_or_default());
    }
    row
}

fn entry(spec: &Spec, background: &Background, status: Status, one: ListedCustomer) -> CustomerEntry {
    let ListedCustomer { place, figures } = one;
    let dimensions = spec.dimensions.iter().map(|dimension| dimension.name.clone());
    let (at_risk_since, lapses) = figures.turns.unzip();
    CustomerEntry {
        customer_id: place.id,
        stage: figures.standing.map_or("prospect", |(stage, _)| stage.name()),
        orders: figures.orders,
        first_order: figures.first_order,
        last_order: figures.last_order,
        turns: match status {
            Status::Lapsed => Turns::Lapsed { at_risk_since, lapsed_at: lapses },
            _ => Turns::AtRisk { at_risk_since, lapses_at: lapses },
        },
        complained: figures.complained,
        segments: dimensions.zip(figures.segments.iter().cloned()).collect(),
        currencies: money(spec, &figures, background),
    }
}
