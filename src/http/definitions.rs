//! What the figures mean, for those who read them: `/api/v1/definitions`.

use serde::Serialize;

use crate::engine::spec::{Spec, WindowId};
use crate::engine::window_ids;
use crate::output::metrics;

/// What the windows are and how each figure is computed.
#[derive(Debug, Clone, Serialize)]
pub struct Definitions<'a> {
    windows: Vec<WindowDefinition<'a>>,
    figures: Vec<FigureDefinition>,
    distributions: Vec<FigureDefinition>,
    /// Of `/api/v1/customers/{id}`.
    customer: Vec<FigureDefinition>,
}

#[derive(Debug, Clone, Serialize)]
struct WindowDefinition<'a> {
    window: &'a str,
    /// `rolling` or `calendar`.
    kind: &'static str,
    /// P, of a rolling window.
    #[serde(skip_serializing_if = "Option::is_none")]
    period_seconds: Option<i64>,
    /// A.
    active_for_seconds: i64,
    /// r, of a rolling window; a pane of a calendar window is a civil day.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution_seconds: Option<i64>,
    /// Whose civil days, of a calendar window.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
struct FigureDefinition {
    /// Its name in the summary.
    figure: &'static str,
    /// Whether it stands under `currencies`, once for each.
    per_currency: bool,
    /// How it is computed; S, E, N, L, P and A are the figures and lengths of the same window, p its last pane.
    formula: &'static str,
    /// The metric that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'static str>,
}

impl Definitions<'_> {
    /// The windows of a spec, and every figure.
    #[must_use]
    pub fn new(spec: &Spec) -> Definitions<'_> {
        let windows = window_ids(spec).map(|id| window(spec, id)).collect();
        Definitions {
            windows,
            figures: figures().collect(),
            distributions: distributions().collect(),
            customer: customer().into(),
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
        active_for_seconds: spec.active_for_millis(id) / 1000,
        resolution_seconds: rolling.map(|window| window.resolution / 1000),
        zone: rolling.is_none().then(|| spec.zone.name()),
    }
}

/// The figures that are metrics, in the words of the metrics, and the one that is none.
fn figures() -> impl Iterator<Item = FigureDefinition> {
    let metrics = metrics::definitions().filter_map(|metric| {
        let per_currency = metric.labels().contains(&"currency");
        let name = metric.figure()?;
        let figure = if per_currency { name.strip_prefix("currency_").unwrap_or(name) } else { name };
        Some(FigureDefinition { figure, per_currency, formula: metric.help, metric: Some(metric.name) })
    });
    metrics.chain([FigureDefinition {
        figure: "lifespan_seconds",
        per_currency: false,
        formula: "The sum of the gaps between successive orders <= p, divided by the customers with at least 2 orders \
                  <= p.",
        metric: None,
    }])
}

/// The distributions of the summary, in the words of the metrics.
fn distributions() -> impl Iterator<Item = FigureDefinition> {
    metrics::definitions().filter_map(|metric| {
        let per_currency = metric.labels().contains(&"currency");
        let figure = metric.distribution()?;
        Some(FigureDefinition { figure, per_currency, formula: metric.help, metric: Some(metric.name) })
    })
}

fn customer() -> [FigureDefinition; 2] {
    let figure = |figure, formula| FigureDefinition { figure, per_currency: true, formula, metric: None };
    [
        figure("net_revenue", "Orders - refunds - cancellations to date."),
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
    }
}
