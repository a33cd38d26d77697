//! History as OpenMetrics text with timestamps, which `promtool tsdb create-blocks-from openmetrics` turns into blocks,
//! so that a dashboard shows years on its first day.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::read::{Samples, WindowView, read_segment};
use super::{Kind, Metric, SEGMENT, WINDOW};
use crate::engine::WindowParts;
use crate::engine::axis::Pane;
use crate::engine::spec::{Spec, WindowId};
use crate::event::Time;
use crate::output::summary::Background;

/// The figures of one window over time.
#[derive(Debug, Clone)]
pub struct WindowSeries {
    /// Which window.
    pub window: WindowId,
    /// Of the customers of one value of a dimension: the names of both. `None`: of all customers.
    pub segment: Option<(String, String)>,
    /// Panes in their order, with their figures.
    pub panes: Vec<(Pane, WindowParts)>,
}

/// Whether a pane is shown when one in `step` milliseconds is enough: where a multiple of `step` since the epoch lies
/// behind its beginning and no later than its end. Panes as long as the step or longer all are, save the empty ones of
/// dates that a zone skipped.
#[must_use]
pub fn is_shown(spec: &Spec, window: WindowId, pane: Pane, step: i64) -> bool {
    let (begin, end) = (spec.first_instant(window, pane).millis(), spec.first_instant(window, pane + 1).millis());
    let step = step.max(1);
    begin < end && (step <= end - begin || end.div_euclid(step) > begin.div_euclid(step))
}

/// Writes every window metric of every pane given, each stamped with the last second of its pane: the instant at which a
/// scrape would have shown it. A pane that is still open at `until`, where the history ends, is stamped with that: a sample
/// of the future would keep Prometheus from taking any other until then. `labels` are added to every sample.
///
/// The samples of a family stand together and in it those of a series, by time, as OpenMetrics 1.0 demands.
///
/// # Errors
/// When writing fails.
pub fn write(
    out: &mut impl Write,
    spec: &Spec,
    background: &Background,
    series: &[WindowSeries],
    labels: &[(String, String)],
    until: Time,
) -> io::Result<()> {
    let added: String = labels.iter().map(|(name, value)| format!(",{name}=\"{}\"", escaped(value))).collect();
    let has_segments = series.iter().any(|run| run.segment.is_some());
    for metric in WINDOW.iter().chain(SEGMENT.iter().filter(|_| has_segments)) {
        debug_assert!(metric.kind == Kind::Gauge);
        writeln!(out, "# TYPE {} gauge", metric.name)?;
        writeln!(out, "# HELP {} {}", metric.name, escaped(metric.help))?;
        for run in series {
            for (values, samples) in samples(metric, spec, background, run, until) {
                let pairs = metric.labels().iter().zip(values);
                let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(&value))).collect();
                let series = format!("{}{{{}{added}}}", metric.name, pairs.join(","));
                for (second, value) in samples {
                    writeln!(out, "{series} {value} {second}")?;
                }
            }
        }
    }
    writeln!(out, "# EOF")
}

/// Seconds since the epoch and values of each series of a metric, by the values of its labels.
fn samples(
    metric: &Metric,
    spec: &Spec,
    background: &Background,
    run: &WindowSeries,
    until: Time,
) -> BTreeMap<Vec<String>, Vec<(i64, f64)>> {
    let mut series = BTreeMap::<Vec<String>, Vec<(i64, f64)>>::new();
    for (pane, figures) in &run.panes {
        let mut found = Samples::default();
        let view = WindowView::new(spec, background, run.window, *pane, figures);
        match &run.segment {
            None => view.read(metric, &mut found),
            Some((dimension, value)) => {
                read_segment(metric, [spec.name(run.window), dimension, value], &view, &mut found);
            }
        }
        let end = spec.first_instant(run.window, pane + 1).millis() / 1000 - 1;
        let second = end.min(until.millis() / 1000);
        for (labels, value) in found.0 {
            series.entry(labels).or_default().push((second, value));
        }
    }
    series
}

/// A text as it stands between quotes, and behind HELP.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
