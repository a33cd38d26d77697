//! One customer, as in `/api/v1/customers/{id}`.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use super::{Background, amount_text, decimal, ratio};
use crate::engine::customer::CustomerFigures;
use crate::engine::inactivity::release::Deadline;
use crate::engine::spec::Spec;
use crate::event::{Currency, Time, decimal_text};

/// One customer according to all accepted events.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerSummary {
    /// The id.
    pub id: String,
    /// prospect, new, repeat or loyal.
    pub stage: &'static str,
    /// active, `at_risk` or lapsed; none for a prospect.
    pub status: &'static str,
    /// The instant of stage and status.
    pub as_of: Time,
    /// When the customer became or becomes at risk without another order; null for a prospect.
    pub at_risk_at: Option<Time>,
    /// When the customer lapsed or lapses without another order; null for a prospect.
    pub lapses_at: Option<Time>,
    /// The earliest order.
    pub first_order: Option<Time>,
    /// The latest order.
    pub last_order: Option<Time>,
    /// Orders.
    pub orders: u32,
    /// Sessions.
    pub sessions: u32,
    /// The latest session.
    pub last_session: Option<Time>,
    /// Whether a profile or the first order names a referrer.
    pub referred: bool,
    /// Whether there is a complaint.
    pub complained: bool,
    /// The value of each dimension.
    pub segments: BTreeMap<String, String>,
    /// Money by currency.
    pub currencies: BTreeMap<Currency, CustomerMoney>,
    /// Pending silences, ordered by due time.
    pub deadlines: Vec<DeadlineSummary>,
}

/// A silence that is not decided yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadlineSummary {
    /// The rule.
    pub rule: String,
    /// The last order or session.
    pub silent_since: Time,
    /// When the alert is due.
    pub due_at: Time,
    /// When event time has passed this instant, the silence is decided.
    pub decided_at: Time,
    /// Whether the customer is in the holdout, so no alert is sent.
    pub held_out: bool,
}

/// The money of one customer in one currency: decimal strings in major units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CustomerMoney {
    /// Orders minus refunds and cancellations, to date.
    pub net_revenue: String,
    /// The lifetime value with the customer's own figures; null with fewer than two orders, or without a reference
    /// window.
    pub clv: Option<String>,
}

impl CustomerSummary {
    /// Builds a customer from an engine's state.
    #[must_use]
    pub fn new(id: String, spec: &Spec, figures: &CustomerFigures, background: &Background) -> CustomerSummary {
        let dimensions = spec.dimensions.iter().map(|dimension| dimension.name.clone());
        CustomerSummary {
            id,
            stage: figures.standing.map_or("prospect", |(stage, _)| stage.name()),
            status: figures.standing.map_or("none", |(_, status)| status.name()),
            as_of: figures.now,
            at_risk_at: figures.turns.map(|(at_risk, _)| at_risk),
            lapses_at: figures.turns.map(|(_, lapsed)| lapsed),
            first_order: figures.first_order,
            last_order: figures.last_order,
            orders: figures.orders,
            sessions: figures.sessions,
            last_session: figures.last_session,
            referred: figures.referred,
            complained: figures.complained,
            segments: dimensions.zip(figures.segments.iter().cloned()).collect(),
            currencies: money(spec, figures, background),
            deadlines: figures.deadlines.iter().map(deadline).collect(),
        }
    }
}

fn deadline(deadline: &Deadline) -> DeadlineSummary {
    let Deadline { rule, silent_since, due_at, decided_at, held_out } = deadline.clone();
    DeadlineSummary { rule, silent_since, due_at, decided_at, held_out }
}

/// The money of a customer by currency.
pub(super) fn money(
    spec: &Spec,
    figures: &CustomerFigures,
    background: &Background,
) -> BTreeMap<Currency, CustomerMoney> {
    let period = background.clv_window.and_then(|window| spec.rolling.get(window)).map(|window| window.period);
    let of = |&(currency, minor): &(Currency, i64)| {
        let clv = period.and_then(|period| own_lifetime_value(figures, currency, minor, period));
        let net_revenue = decimal_text(i128::from(minor), currency);
        (currency, CustomerMoney { net_revenue, clv: clv.map(|clv| amount_text(clv, currency)) })
    };
    figures.net_revenue.iter().map(of).collect()
}

/// Net revenue x own lifespan / max(P, now - first order): the formula of [`super::lifetime_value`] for one customer,
/// whose net revenue of a period is the mean over the time since the first order once that is longer than P.
fn own_lifetime_value(figures: &CustomerFigures, currency: Currency, minor: i64, period: i64) -> Option<Decimal> {
    let (first, last) = figures.first_order.zip(figures.last_order).filter(|_| figures.orders >= 2)?;
    let lifespan = last.millis() - first.millis();
    let over = period.max(figures.now.millis() - first.millis());
    decimal(i128::from(minor), currency)?.checked_mul(ratio(Decimal::from(lifespan), Decimal::from(over))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DAY;

    fn figures(orders: u32, first: i64, last: i64, now: i64) -> CustomerFigures {
        let at = |days: i64| Time::clamped(days * DAY);
        CustomerFigures {
            now: at(now),
            standing: None,
            turns: None,
            orders,
            first_order: Some(at(first)),
            last_order: Some(at(last)),
            sessions: 0,
            last_session: None,
            referred: false,
            complained: false,
            segments: Vec::new(),
            net_revenue: Vec::new(),
            deadlines: Vec::new(),
        }
    }

    #[test]
    fn the_own_lifetime_value_spreads_revenue_over_the_time_since_the_first_order() {
        let eur = Currency::from_code("EUR").unwrap();
        for (orders, first, last, now, minor, expected) in [
            // Younger than P: 100 x 30 / 365.
            (2, 1_000, 1_030, 1_100, 10_000, Some("8.2191780822")),
            // Older: 100 x 730 / 1,000.
            (9, 1_000, 1_730, 2_000, 10_000, Some("73.00")),
            // Ahead of the watermark.
            (2, 1_000, 1_073, 900, 36_500, Some("73.00")),
            (2, 1_000, 1_000, 1_000, 10_000, Some("0.00")),
            (2, 1_000, 1_073, 1_100, -36_500, Some("-73.00")),
            (1, 1_000, 1_000, 2_000, 10_000, None),
        ] {
            let value = own_lifetime_value(&figures(orders, first, last, now), eur, minor, 365 * DAY);
            assert_eq!(value.map(|value| amount_text(value, eur)).as_deref(), expected, "{first} {last} {now}");
        }
    }
}
