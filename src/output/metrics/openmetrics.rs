//! History as OpenMetrics text with timestamps, which `promtool tsdb create-blocks-from openmetrics` turns into blocks,
//! so that a dashboard shows years on its first day.

use std::io::{self, Write};

use super::read::{Samples, WindowView};
use super::{Kind, WINDOW};
use crate::engine::WindowParts;
use crate::engine::axis::Pane;
use crate::engine::spec::{Spec, WindowId};
use crate::output::summary::Background;

/// The figures of one window for a run of panes.
#[derive(Debug, Clone)]
pub struct WindowSeries {
    /// Which window.
    pub window: WindowId,
    /// The first pane.
    pub from: Pane,
    /// The figures of that pane and those after it; `None` where the history is no longer kept.
    pub figures: Vec<Option<WindowParts>>,
}

/// Writes every window metric of every pane, each stamped with the last second of its pane: the instant at which a scrape
/// would have shown it.
///
/// # Errors
/// When writing fails.
pub fn write(out: &mut impl Write, spec: &Spec, background: &Background, series: &[WindowSeries]) -> io::Result<()> {
    for metric in WINDOW {
        debug_assert!(metric.kind == Kind::Gauge);
        writeln!(out, "# TYPE {} gauge", metric.name)?;
        writeln!(out, "# HELP {} {}", metric.name, metric.help)?;
        for run in series {
            for (pane, figures) in (run.from..).zip(&run.figures) {
                let Some(figures) = figures else { continue };
                let view = WindowView::new(spec, background, run.window, pane, figures);
                let mut samples = Samples::default();
                view.read(&metric.values, &mut samples);
                let stamp = spec.first_instant(run.window, pane + 1).millis() / 1000 - 1;
                for (labels, value) in samples.0 {
                    let labels: Vec<_> =
                        metric.labels().iter().zip(labels).map(|(name, value)| format!("{name}={value:?}")).collect();
                    writeln!(out, "{}{{{}}} {value} {stamp}", metric.name, labels.join(","))?;
                }
            }
        }
    }
    writeln!(out, "# EOF")
}
