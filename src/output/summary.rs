//! The summary of all windows, as in `replay --format json` and `/api/v1/summary`.

mod customer;
mod distributions;
mod further;
mod listing;
mod sent;
mod winback;

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::engine::WindowParts;
use crate::engine::axis::Pane;
use crate::engine::figures::MoneyParts;
use crate::engine::known::{CHURN, FLOWS, REPORTING, needs};
use crate::engine::snapshot::{Period, Snapshot, last_pane};
use crate::engine::spec::{Spec, WindowId};
use crate::engine::zone;
use crate::event::{Currency, Time, decimal_text};

pub use customer::CustomerSummary;
pub use distributions::{DistributionSummary, distributions};
pub use further::{feedback, known_stages, transitions};
pub use listing::{CustomerEntry, CustomerList};
pub use sent::{AlertEntry, AlertList};
pub use winback::{RuleSummary, winback};

/// Facts about the dataset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Background {
    /// When the data begin.
    pub data_begin: Option<Time>,
    /// Whether the data include the first order of the business.
    pub history_whole: bool,
    /// Index of the rolling window that the lifetime value refers to.
    pub clv_window: Option<usize>,
}

/// All windows at one instant.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The instant; `null` before the first event.
    pub as_of: Option<Time>,
    /// Rolling windows.
    pub windows: Vec<WindowSummary>,
    /// Calendar periods, oldest first within each window.
    pub calendar: Vec<WindowSummary>,
    /// Every cell of the cohort triangle up to the month of the instant.
    pub cohorts: Vec<CohortSummary>,
    /// Customers by stage and status; empty while they are not known.
    pub stages: Vec<StageSummary>,
    /// Parts other than windows that are not known because the configuration was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingPart>,
    /// Transitions between statuses or stages so far that can no longer change.
    pub transitions: Vec<TransitionSummary>,
    /// Referred customers with an order, as far as this can no longer change.
    pub referrals: i64,
    /// Feedback by kind, up to the hour of the instant.
    pub feedback: Vec<FeedbackSummary>,
    /// Distributions of gaps and order values.
    pub distributions: Vec<DistributionSummary>,
    /// Outcomes of the inactivity rules so far.
    pub winback: Vec<RuleSummary>,
    /// Rolling windows and open calendar periods by dimension value.
    pub segments: Vec<SegmentSummary>,
}

/// One cell of the cohort triangle.
#[derive(Debug, Clone, Serialize)]
pub struct CohortSummary {
    /// Month of the first order, such as `2026-01`.
    pub cohort: String,
    /// Months since then.
    pub age_months: i32,
    /// Customers of the cohort.
    pub customers: Option<i64>,
    /// Customers with an order in the month.
    pub ordering_customers: Option<i64>,
    /// Their orders in the month.
    pub orders: Option<i64>,
    /// Money by currency.
    pub currencies: BTreeMap<Currency, CohortMoney>,
}

/// The money of one currency in a cell of the cohort triangle.
#[derive(Debug, Clone, Serialize)]
pub struct CohortMoney {
    /// Revenue: a decimal string in major units.
    pub revenue: Option<String>,
    /// Refunds in the month, likewise.
    pub refunds: Option<String>,
    /// Cancelled amounts in the month, likewise.
    pub cancellations: Option<String>,
}

/// The number of customers with a stage and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageSummary {
    /// prospect, new, repeat or loyal.
    pub stage: &'static str,
    /// active, `at_risk` or lapsed; none for a prospect.
    pub status: &'static str,
    /// Number of customers.
    pub customers: i64,
}

/// The number of transitions from one status or stage to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransitionSummary {
    /// The old status or stage.
    pub from: &'static str,
    /// The new status or stage.
    pub to: &'static str,
    /// How often.
    pub count: i64,
}

/// The amount of feedback of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedbackSummary {
    /// The kind, such as `complaint`.
    pub kind: String,
    /// How often.
    pub count: i64,
}

/// One window for one value of a dimension.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentSummary {
    /// The dimension.
    pub dimension: String,
    /// The value.
    pub value: String,
    /// Whether a partition counts some of its customers as `other`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// Its figures.
    #[serde(flatten)]
    pub window: WindowSummary,
}

/// One window. Ratios with a zero denominator are null.
#[derive(Debug, Clone, Serialize)]
pub struct WindowSummary {
    /// Its name.
    pub window: String,
    /// First day of a calendar period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Last day of a calendar period, also while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether the calendar period is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// P of a rolling window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<i64>,
    /// A; `null` where customers stay active to the end of the calendar period.
    pub active_for_seconds: Option<i64>,
    /// The counts and ratios.
    #[serde(flatten)]
    pub people: People,
    /// Number of customers with known costs; not by segment.
    #[serde(flatten)]
    pub coverage: Option<Coverage>,
    /// Whether the data reach back far enough for churn to be meaningful.
    pub complete: bool,
    /// Whether the data also include the first order of every customer.
    pub new_complete: bool,
    /// Figures that are not known, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingFigures>,
    /// Money by currency, for currencies with activity.
    pub currencies: BTreeMap<Currency, MoneySummary>,
}

/// Figures of a window that are `null` because the configuration was changed after state existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingFigures {
    /// What was changed.
    pub reason: &'static str,
    /// The event time that had been reached by then.
    pub changed_at: Option<Time>,
    /// When all figures of the window will be known.
    pub until: Time,
    /// The figures, and when each will be known.
    pub figures: BTreeMap<&'static str, Time>,
}

impl MissingFigures {
    fn of(figures: &WindowParts) -> Option<MissingFigures> {
        let missing = &figures.missing;
        let until = missing.last()?;
        let named = FIGURES.iter().chain(&["revenue", "average_order_value", "clv"]);
        Some(MissingFigures {
            reason: figures.change.map_or("the configuration was changed", |change| change.why.text()),
            changed_at: figures.change.map(|change| Time::clamped(change.at)),
            until,
            figures: named.filter_map(|&figure| Some((figure, missing.until(needs(figure))?))).collect(),
        })
    }
}

/// A part of the summary that is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingPart {
    /// `stages`, `transitions` or `cohorts`.
    pub part: &'static str,
    /// What was changed.
    pub reason: &'static str,
    /// When it will be known, or since when it is counted.
    pub until: Time,
}

/// The figures of [`People`] and [`Coverage`].
const FIGURES: [&str; 27] = [
    "start_customers",
    "end_customers",
    "new_customers",
    "lost_customers",
    "retained_customers",
    "reactivated_customers",
    "ordering_customers",
    "repeat_customers",
    "returning_customers",
    "visiting_customers",
    "referred_customers",
    "lost_complainers",
    "orders",
    "sessions",
    "churn_ratio",
    "retention_ratio",
    "crr_ratio",
    "repeat_ratio",
    "returning_ratio",
    "conversion_ratio",
    "referral_ratio",
    "lost_complainer_ratio",
    "purchase_frequency",
    "lifespan_seconds",
    "customers_to_date",
    "costed_customers",
    "cost_coverage_ratio",
];

/// The counts and ratios of a window; `null` if not known, or if the denominator of a ratio is zero.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "named and defined in docs/definitions.md")]
pub struct People {
    pub start_customers: Option<i64>,
    pub end_customers: Option<i64>,
    pub new_customers: Option<i64>,
    pub lost_customers: Option<i64>,
    pub retained_customers: Option<i64>,
    pub reactivated_customers: Option<i64>,
    pub ordering_customers: Option<i64>,
    pub repeat_customers: Option<i64>,
    pub returning_customers: Option<i64>,
    pub visiting_customers: Option<i64>,
    pub referred_customers: Option<i64>,
    pub lost_complainers: Option<i64>,
    pub orders: Option<i64>,
    pub sessions: Option<i64>,
    pub churn_ratio: Option<f64>,
    pub retention_ratio: Option<f64>,
    pub crr_ratio: Option<f64>,
    pub repeat_ratio: Option<f64>,
    pub returning_ratio: Option<f64>,
    pub conversion_ratio: Option<f64>,
    pub referral_ratio: Option<f64>,
    pub lost_complainer_ratio: Option<f64>,
    pub purchase_frequency: Option<f64>,
    pub lifespan_seconds: Option<f64>,
}

/// Coverage of costs.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "named and defined in docs/definitions.md")]
pub struct Coverage {
    pub customers_to_date: Option<i64>,
    pub costed_customers: Option<i64>,
    pub cost_coverage_ratio: Option<f64>,
}

/// The money of one currency in a window: decimal strings in major units.
#[derive(Debug, Clone, Serialize)]
pub struct MoneySummary {
    /// Orders paid in this currency.
    pub orders: Option<i64>,
    /// Revenue of the orders.
    pub revenue: Option<String>,
    /// Refunds.
    pub refunds: Option<String>,
    /// Cancelled amounts.
    pub cancellations: Option<String>,
    /// Revenue per order.
    pub average_order_value: Option<String>,
    /// Revenue less refunds and cancellations, per order.
    pub net_average_order_value: Option<String>,
    /// Net revenue per ordering customer, times lifespan / P; only for the reference window, once it is complete.
    pub clv: Option<String>,
    /// Costs of customers; not by segment.
    #[serde(flatten)]
    pub costs: Option<CostSummary>,
}

/// The costs of one currency in a window: decimal strings in major units.
#[derive(Debug, Clone, Serialize)]
pub struct CostSummary {
    /// Acquisition costs.
    pub acquisition_costs: Option<String>,
    /// Retention costs.
    pub retention_costs: Option<String>,
    /// The lifetime value minus costs to date per customer to date; absent without costs or lifetime value.
    pub clv_after_costs: Option<String>,
}

impl Summary {
    /// The summary before the first event.
    #[must_use]
    pub fn before_any_event() -> Summary {
        Summary {
            as_of: None,
            windows: Vec::new(),
            calendar: Vec::new(),
            cohorts: Vec::new(),
            stages: Vec::new(),
            missing: Vec::new(),
            transitions: Vec::new(),
            referrals: 0,
            feedback: Vec::new(),
            distributions: Vec::new(),
            winback: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Builds the summary from a snapshot of all engines.
    #[must_use]
    pub fn new(spec: &Spec, snapshot: &Snapshot, background: &Background) -> Summary {
        let rolling = snapshot.rolling.iter().enumerate();
        let windows =
            rolling.filter_map(|(i, parts)| Some(rolling_summary(spec, i, parts.as_ref()?, snapshot.at, background)));
        let periods = snapshot.periods.iter().map(|period| period_summary(spec, period, snapshot.at, background));
        Summary {
            as_of: Some(snapshot.at),
            windows: windows.collect(),
            calendar: periods.collect(),
            cohorts: further::cohorts(spec, snapshot),
            stages: further::known_stages(snapshot).into_iter().flatten().collect(),
            missing: further::missing(spec, snapshot),
            transitions: further::transitions(&snapshot.lifecycle).collect(),
            referrals: snapshot.totals.referrals,
            feedback: further::feedback(&snapshot.totals).collect(),
            distributions: distributions(&snapshot.distributions),
            winback: winback(&snapshot.inactivity),
            segments: further::segments(spec, snapshot, background),
        }
    }
}

/// One window that ends with pane `p`; for a calendar window, its period up to that day.
#[must_use]
pub fn pane_summary(
    spec: &Spec,
    window: WindowId,
    p: Pane,
    figures: &WindowParts,
    background: &Background,
) -> WindowSummary {
    window_summary(spec, window, p, figures, background)
}

fn rolling_summary(spec: &Spec, i: usize, figures: &WindowParts, at: Time, background: &Background) -> WindowSummary {
    let id = WindowId::Rolling(i);
    let mut summary = window_summary(spec, id, spec.pane(id, at), figures, background);
    summary.period_seconds = Some(spec.rolling[i].period / 1000);
    summary
}

fn period_summary(spec: &Spec, period: &Period, at: Time, background: &Background) -> WindowSummary {
    let id = WindowId::Calendar(period.window);
    let mut summary = window_summary(spec, id, last_pane(spec, period, at), &period.figures, background);
    summary.from = Some(zone::date(period.from).to_string());
    summary.to = Some(zone::date(period.to).to_string());
    summary.closed = Some(period.closed);
    summary
}

fn window_summary(spec: &Spec, id: WindowId, p: Pane, figures: &WindowParts, background: &Background) -> WindowSummary {
    let complete = spec.is_complete(id, p, background.data_begin) && figures.missing.knows(CHURN);
    let reference = match id {
        WindowId::Rolling(i) if complete && background.clv_window == Some(i) => Some(spec.rolling[i].period),
        _ => None,
    };
    let money =
        |(&currency, money): (&Currency, &MoneyParts)| (currency, money_summary(currency, money, figures, reference));
    WindowSummary {
        window: spec.name(id).to_owned(),
        from: None,
        to: None,
        closed: None,
        period_seconds: None,
        active_for_seconds: spec.active_for_millis(id).map(|millis| millis / 1000),
        people: people(figures),
        coverage: Some(coverage(figures)),
        complete,
        new_complete: complete && background.history_whole && figures.missing.knows(needs("new_customers")),
        missing: MissingFigures::of(figures),
        currencies: figures.money.iter().filter(|(_, money)| !money.is_nothing()).map(money).collect(),
    }
}

fn people(figures: &WindowParts) -> People {
    let parts = &figures.parts;
    let is_known = |figure: &str| figures.missing.knows(needs(figure));
    let count = |figure: &str, count: i64| is_known(figure).then_some(count);
    let ratio = |figure: &str, ratio: Option<f64>| ratio.filter(|_| is_known(figure));
    People {
        start_customers: count("start_customers", parts.start),
        end_customers: count("end_customers", parts.end),
        new_customers: count("new_customers", parts.new),
        lost_customers: count("lost_customers", parts.lost),
        retained_customers: count("retained_customers", parts.retained()),
        reactivated_customers: count("reactivated_customers", parts.reactivated()),
        ordering_customers: count("ordering_customers", parts.ordering),
        repeat_customers: count("repeat_customers", parts.repeat),
        returning_customers: count("returning_customers", parts.returning),
        visiting_customers: count("visiting_customers", parts.visiting),
        referred_customers: count("referred_customers", parts.referred),
        lost_complainers: count("lost_complainers", parts.lost_complainers),
        orders: count("orders", parts.orders),
        sessions: count("sessions", parts.sessions),
        churn_ratio: ratio("churn_ratio", parts.churn_ratio()),
        retention_ratio: ratio("retention_ratio", parts.retention_ratio()),
        crr_ratio: ratio("crr_ratio", parts.crr_ratio()),
        repeat_ratio: ratio("repeat_ratio", parts.repeat_ratio()),
        returning_ratio: ratio("returning_ratio", parts.returning_ratio()),
        conversion_ratio: ratio("conversion_ratio", parts.conversion_ratio()),
        referral_ratio: ratio("referral_ratio", parts.referral_ratio()),
        lost_complainer_ratio: ratio("lost_complainer_ratio", parts.lost_complainer_ratio()),
        purchase_frequency: ratio("purchase_frequency", parts.purchase_frequency()),
        lifespan_seconds: ratio("lifespan_seconds", parts.lifespan_seconds()),
    }
}

fn coverage(figures: &WindowParts) -> Coverage {
    let parts = &figures.parts;
    let is_known = figures.missing.knows(needs("customers_to_date"));
    Coverage {
        customers_to_date: is_known.then_some(parts.to_date),
        costed_customers: is_known.then_some(parts.costed),
        cost_coverage_ratio: parts.cost_coverage_ratio().filter(|_| is_known),
    }
}

fn money_summary(
    currency: Currency,
    money: &MoneyParts,
    figures: &WindowParts,
    reference: Option<i64>,
) -> MoneySummary {
    let is_known = figures.missing.knows(if currency.is_reporting() { REPORTING } else { FLOWS });
    let reference = reference.filter(|_| is_known && figures.missing.knows(needs("clv")));
    let average = |minor: i128| ratio(decimal(minor, currency)?, Decimal::from(money.orders)).filter(|_| is_known);
    let print = |value: Option<Decimal>| value.map(|value| amount_text(value, currency));
    let amount = |minor: i128| is_known.then(|| decimal_text(minor, currency));
    MoneySummary {
        orders: is_known.then_some(money.orders),
        revenue: amount(money.revenue),
        refunds: amount(money.refunds),
        cancellations: amount(money.cancellations),
        average_order_value: print(average(money.revenue)),
        net_average_order_value: print(average(money.net())),
        clv: print(reference.and_then(|period| lifetime_value(currency, money, figures, period))),
        costs: Some(CostSummary {
            acquisition_costs: amount(money.costs.acquisition),
            retention_costs: amount(money.costs.retention),
            clv_after_costs: print(reference.and_then(|period| value_after_costs(currency, money, figures, period))),
        }),
    }
}

/// (net revenue / ordering customers) x (lifespan / P): the simple historical lifetime value, with the mean observed
/// lifespan in place of 1 / churn (Gupta and Lehmann, "Managing Customers as Investments", 2005, chapter 2).
#[must_use]
pub fn lifetime_value(currency: Currency, money: &MoneyParts, figures: &WindowParts, period: i64) -> Option<Decimal> {
    let parts = &figures.parts;
    let per_customer = ratio(decimal(money.net(), currency)?, Decimal::from(parts.ordering))?;
    let lifespan = ratio(Decimal::try_from_i128_with_scale(parts.gap_millis, 0).ok()?, Decimal::from(parts.repeaters))?;
    per_customer.checked_mul(ratio(lifespan, Decimal::from(period))?)
}

/// The lifetime value minus costs to date in that currency per customer to date; `None` without known costs. Customers
/// without a known cost count as zero: see [`Parts::cost_coverage_ratio`].
///
/// [`Parts::cost_coverage_ratio`]: crate::engine::figures::Parts::cost_coverage_ratio
#[must_use]
pub fn value_after_costs(
    currency: Currency,
    money: &MoneyParts,
    figures: &WindowParts,
    period: i64,
) -> Option<Decimal> {
    let spent = Some(money.costs).filter(|costs| costs.events_to_date > 0)?.to_date;
    let per_customer = ratio(decimal(spent, currency)?, Decimal::from(figures.parts.to_date))?;
    lifetime_value(currency, money, figures, period)?.checked_sub(per_customer)
}

fn decimal(minor: i128, currency: Currency) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(minor, currency.exponent()).ok()
}

fn ratio(numerator: Decimal, denominator: Decimal) -> Option<Decimal> {
    numerator.checked_div(denominator)
}

/// Formats an amount with at most ten decimals and at least those of the currency.
fn amount_text(value: Decimal, currency: Currency) -> String {
    let mut value = value.round_dp(10).normalize();
    if value.scale() < currency.exponent() {
        value.rescale(currency.exponent());
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_have_as_many_decimals_as_they_need() {
        let eur = Currency::from_code("EUR").unwrap();
        let jpy = Currency::from_code("JPY").unwrap();
        for (minor, by, currency, text) in [
            (1000, 3, eur, Some("3.3333333333")),
            (1000, 4, eur, Some("2.50")),
            (1000, 0, eur, None),
            (1001, 2, jpy, Some("500.5")),
            (1000, 2, jpy, Some("500")),
        ] {
            let value = ratio(decimal(minor, currency).unwrap(), Decimal::from(by));
            assert_eq!(value.map(|value| amount_text(value, currency)).as_deref(), text);
        }
    }
}
