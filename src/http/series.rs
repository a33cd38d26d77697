//! `/api/v1/series`: figures of one window over time.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::engine::WindowParts;
use crate::engine::axis::Pane;
use crate::engine::spec::{Spec, WindowId};
use crate::event::Time;
use crate::output::metrics::openmetrics::is_shown;
use crate::output::summary::{Background, pane_summary};

/// Maximum number of panes in a response.
const MAX_POINTS: usize = 11_000;
/// Maximum number of panes to select from with a step.
const MAX_PANES: i64 = 1_000_000;
/// Default number of panes before now.
const DEFAULT_POINTS: Pane = 500;

/// The query.
#[derive(Debug, Deserialize)]
pub(super) struct SeriesQuery {
    window: String,
    /// One or more, separated by commas.
    figure: String,
    currency: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// Return one pane per this many seconds, plus the first and the last.
    step_seconds: Option<i64>,
}

/// The requested panes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panes {
    pub window: WindowId,
    pub list: Arc<[Pane]>,
}

/// The response: one point per pane, with the first instant of the pane.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    window: String,
    figure: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    points: Vec<Point>,
}

/// A time, followed by the value of each figure.
#[derive(Debug)]
struct Point(Time, Vec<Value>);

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = serde_json::to_value(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_seq(std::iter::once(&time).chain(&self.1))
    }
}

impl SeriesQuery {
    /// The requested panes, by default up to now; may extend into the future.
    ///
    /// # Errors
    /// When the query is invalid; with a remedy.
    pub(super) fn panes(&self, spec: &Spec, now: Time) -> Result<Panes, String> {
        let window = spec.window(&self.window).ok_or_else(|| {
            let names: Vec<_> = crate::engine::window_ids(spec).map(|id| spec.name(id)).collect();
            format!("window {:?} is not configured; there are {}", self.window, names.join(", "))
        })?;
        let to = spec.pane(window, instant("to", self.to.as_deref())?.unwrap_or(now));
        let from = instant("from", self.from.as_deref())?.map(|from| spec.pane(window, from));
        let from = from.unwrap_or_else(|| to.saturating_sub(DEFAULT_POINTS - 1));
        let panes = i64::from(to) - i64::from(from) + 1;
        if panes <= 0 {
            return Err("from lies behind to".to_owned());
        }
        let step = self.step_seconds.unwrap_or(0).saturating_mul(1000);
        let shown = |&pane: &Pane| pane == from || pane == to || step <= 0 || is_shown(spec, window, pane, step);
        let most = MAX_POINTS + 1;
        let list: Vec<Pane> = match panes {
            ..=MAX_PANES => (from..=to).filter(shown).take(most).collect(),
            _ => Vec::new(),
        };
        match list.len() {
            1..=MAX_POINTS => Ok(Panes { window, list: list.into() }),
            _ => Err(format!(
                "{panes} panes are asked for, at most {MAX_POINTS} are answered, out of at most {MAX_PANES}; move from \
                 and to closer, or set step_seconds"
            )),
        }
    }

    /// Computes the figures of each pane.
    ///
    /// # Errors
    /// When a figure does not exist.
    pub(super) fn answer(
        self,
        spec: &Spec,
        background: &Background,
        panes: &Panes,
        parts: &[Option<WindowParts>],
    ) -> Result<Series, String> {
        let mut points = Vec::with_capacity(parts.len());
        for (&pane, figures) in panes.list.iter().zip(parts) {
            let values = match figures {
                None => self.figures().map(|_| Value::Null).collect(),
                Some(figures) => {
                    let summary = pane_summary(spec, panes.window, pane, figures, background);
                    let summary = serde_json::to_value(summary).map_err(|error| error.to_string())?;
                    self.figures().map(|figure| self.read(&summary, figure)).collect::<Result<_, _>>()?
                }
            };
            points.push(Point(spec.first_instant(panes.window, pane), values));
        }
        Ok(Series { window: self.window, figure: self.figure, currency: self.currency, points })
    }

    fn figures(&self) -> impl Iterator<Item = &str> {
        self.figure.split(',')
    }

    fn read(&self, summary: &Value, figure: &str) -> Result<Value, String> {
        let unknown = || format!("figure {figure:?} does not exist; see /api/v1/definitions");
        match &self.currency {
            Some(currency) => Ok(summary["currencies"][currency].get(figure).cloned().unwrap_or(Value::Null)),
            None => match summary.get(figure) {
                Some(Value::Object(_)) | None => Err(format!("{}; money needs currency=", unknown())),
                Some(value) => Ok(value.clone()),
            },
        }
    }
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Time>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    Time::parse_or_millis(text).map(Some).map_err(|error| format!("{name} is {error}"))
}
