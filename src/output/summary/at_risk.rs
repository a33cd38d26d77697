//! The customers at risk, as `/api/v1/at-risk` lists them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Background;
use super::customer::{CustomerMoney, money};
use crate::engine::at_risk::{AtRisk, AtRiskCustomer};
use crate::engine::spec::Spec;
use crate::event::{Currency, Time, decimal_text};

/// The first of the customers at risk, and what all of them come to.
#[derive(Debug, Clone, Serialize)]
pub struct AtRiskSummary {
    /// The instant at which status is read; null before the first event.
    pub as_of: Option<Time>,
    /// By what they are in order.
    pub sort: &'static str,
    /// The currency of the order by value.
    pub currency: Option<Currency>,
    /// How many customers of this replica are at risk.
    pub total_at_risk: u64,
    /// What they brought to date: orders less refunds and cancellations, decimal strings in major units.
    pub revenue_at_risk: BTreeMap<Currency, String>,
    /// The first of them.
    pub customers: Vec<AtRiskEntry>,
}

/// One of them.
#[derive(Debug, Clone, Serialize)]
pub struct AtRiskEntry {
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
    /// Since when the silence is longer than usual.
    pub at_risk_since: Option<Time>,
    /// When the customer is lapsed if no order comes.
    pub lapses_at: Option<Time>,
    /// Whether there is a complaint.
    pub complained: bool,
    /// The value of each dimension.
    pub segments: BTreeMap<String, String>,
    /// Money by currency.
    pub currencies: BTreeMap<Currency, CustomerMoney>,
}

impl AtRiskSummary {
    /// Before the first event nobody is at risk.
    #[must_use]
    pub fn new(
        spec: &Spec,
        background: &Background,
        as_of: Option<Time>,
        (sort, currency): (&'static str, Option<Currency>),
        found: AtRisk,
    ) -> AtRiskSummary {
        let entry = |AtRiskCustomer { id, figures, .. }: AtRiskCustomer| {
            let dimensions = spec.dimensions.iter().map(|dimension| dimension.name.clone());
            AtRiskEntry {
                customer_id: id,
                stage: figures.standing.map_or("prospect", |(stage, _)| stage.name()),
                orders: figures.orders,
                first_order: figures.first_order,
                last_order: figures.last_order,
                at_risk_since: figures.turns.map(|(at_risk, _)| at_risk),
                lapses_at: figures.turns.map(|(_, lapsed)| lapsed),
                complained: figures.complained,
                segments: dimensions.zip(figures.segments.iter().cloned()).collect(),
                currencies: money(spec, &figures, background),
            }
        };
        let revenue = found.revenue.into_iter();
        AtRiskSummary {
            as_of,
            sort,
            currency,
            total_at_risk: found.total,
            revenue_at_risk: revenue.map(|(currency, minor)| (currency, decimal_text(minor, currency))).collect(),
            customers: found.first.into_iter().map(entry).collect(),
        }
    }
}
