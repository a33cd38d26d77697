//! `/api/v1/series`: one figure of one window over time.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::WindowParts;
use crate::engine::axis::Pane;
use crate::engine::spec::{Spec, WindowId};
use crate::event::Time;
use crate::output::summary::{Background, pane_summary};

/// How many panes one answer holds at most.
const MAX_POINTS: i64 = 11_000;
/// How many panes before now an answer holds unless told otherwise.
const DEFAULT_POINTS: Pane = 500;

/// What is asked.
#[derive(Debug, Deserialize)]
pub(super) struct SeriesQuery {
    window: String,
    figure: String,
    currency: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// Which panes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Panes {
    pub window: WindowId,
    pub from: Pane,
    pub to: Pane,
}

/// The answer: a point a pane, stamped with the first instant of the pane.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    window: String,
    figure: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    points: Vec<(Time, Value)>,
}

impl SeriesQuery {
    /// The panes that are asked for; up to now unless told otherwise, and into the future when told so.
    ///
    /// # Errors
    /// What is wrong with the question, and what would be right.
    pub(super) fn panes(&self, spec: &Spec, now: Time) -> Result<Panes, String> {
        let window = spec.window(&self.window).ok_or_else(|| {
            let names: Vec<_> = crate::engine::window_ids(spec).map(|id| spec.name(id)).collect();
            format!("window {:?} is not configured; there are {}", self.window, names.join(", "))
        })?;
        let to = spec.pane(window, instant("to", self.to.as_deref())?.unwrap_or(now));
        let from = instant("from", self.from.as_deref())?.map(|from| spec.pane(window, from));
        let from = from.unwrap_or_else(|| to.saturating_sub(DEFAULT_POINTS));
        let points = i64::from(to) - i64::from(from) + 1;
        match points {
            ..=0 => Err("from lies behind to".to_owned()),
            1..=MAX_POINTS => Ok(Panes { window, from, to }),
            _ => {
                Err(format!("{points} panes are asked for, at most {MAX_POINTS} are answered; move from and to closer"))
            }
        }
    }

    /// Reads the figure off each pane.
    ///
    /// # Errors
    /// When there is no such figure.
    pub(super) fn answer(
        self,
        spec: &Spec,
        background: &Background,
        panes: Panes,
        parts: &[Option<WindowParts>],
    ) -> Result<Series, String> {
        let mut points = Vec::with_capacity(parts.len());
        for (pane, figures) in (panes.from..).zip(parts) {
            let value = match figures {
                None => Value::Null,
                Some(figures) => {
                    let summary = pane_summary(spec, panes.window, pane, figures, background);
                    self.read(&serde_json::to_value(summary).map_err(|error| error.to_string())?)?
                }
            };
            points.push((spec.first_instant(panes.window, pane), value));
        }
        Ok(Series { window: self.window, figure: self.figure, currency: self.currency, points })
    }

    fn read(&self, summary: &Value) -> Result<Value, String> {
        let unknown = || format!("figure {:?} does not exist; see /api/v1/definitions", self.figure);
        match &self.currency {
            Some(currency) => Ok(summary["currencies"][currency].get(&self.figure).cloned().unwrap_or(Value::Null)),
            None => match summary.get(&self.figure) {
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
