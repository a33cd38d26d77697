//! History as OpenMetrics text with timestamps. `promtool tsdb create-blocks-from openmetrics` converts it to blocks,
//! so that a dashboard shows years of history on its first day.

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
    /// The window.
    pub window: WindowId,
    /// Dimension and value, if restricted to a segment; `None` for all customers.
    pub segment: Option<(String, String)>,
    /// Panes in order, with their figures.
    pub panes: Vec<(Pane, WindowParts)>,
}

/// Whether to show a pane when one per `step` milliseconds is enough: if a multiple of `step` since the epoch is after
/// its start and not after its end. This shows all panes at least as long as the step, except the empty ones of dates
/// that a time zone skipped.
#[must_use]
pub fn is_shown(spec: &Spec, window: WindowId, pane: Pane, step: i64) -> bool {
    let (begin, end) = (spec.first_instant(window, pane).millis(), spec.first_instant(window, pane + 1).millis());
    let step = step.max(1);
    begin < end && (step <= end - begin || end.div_euclid(step) > begin.div_euclid(step))
}

/// Writes every window metric of every given pane, with the last second of the pane as its timestamp: when a scrape
/// would have shown it. A pane that is still open at `until`, the end of the history, gets that timestamp: after a
/// sample from the future, Prometheus would reject all others until then. `labels` are added to every sample.
///
/// Samples are grouped by family and within it by series, in time order, as OpenMetrics 1.0 requires.
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

/// Timestamps in epoch seconds and values of each series of a metric, by label values.
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

/// Escapes a text for label values and HELP.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
