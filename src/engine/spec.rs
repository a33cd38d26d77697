//! What an engine computes: windows, zone and time rules, the same for every partition.

use super::axis::{ActiveFor, Axis, Moment, Pane, Resolution};
use super::inactivity::InactivitySpec;
use super::lifecycle::LifecycleSpec;
use super::rates::Rates;
use super::segments::DimensionSpec;
use super::zone::{Unit, Zone};
use crate::event::{Currency, DAY, MINUTE, Time};

/// A rolling window in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollingSpec {
    /// The name in the label `window`.
    pub name: String,
    /// P, the period.
    pub period: i64,
    /// A, how long customers stay active; at least P.
    pub active_for: i64,
    /// r, the resolution: whole minutes that divide P and A.
    pub resolution: i64,
}

/// A calendar window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarSpec {
    /// The calendar period of the window.
    pub unit: Unit,
    /// A in civil days; `None`: customers stay active to the end of the period in which they ordered.
    pub active_for_days: Option<i32>,
}

/// What an engine computes.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Rolling windows.
    pub rolling: Vec<RollingSpec>,
    /// Calendar windows.
    pub calendar: Vec<CalendarSpec>,
    /// Time zone of civil days.
    pub zone: Zone,
    /// How far an event may be behind the watermark of its topic, in milliseconds.
    pub allowed_lateness: i64,
    /// How long event ids are remembered, in milliseconds of event time.
    pub dedup_for: i64,
    /// How far back the arrays of rolling windows reach, in milliseconds; `None`: to the beginning.
    pub history: Option<i64>,
    /// For each source topic, whether its events move the clock.
    pub topics: Vec<bool>,
    /// Dimensions by which every window is split; at most [`crate::event::MAX_DIMENSIONS`].
    pub dimensions: Vec<DimensionSpec>,
    /// Whether the orders of a customer on one civil day count as one order.
    pub merge_orders: bool,
    /// Thresholds for at risk, lapsed and loyal customers.
    pub lifecycle: LifecycleSpec,
    /// Exchange rates to the reporting currency; `None` without a reporting currency.
    pub rates: Option<Rates>,
    /// Alert rules for silent customers.
    pub inactivity: InactivitySpec,
}

/// A window of a [`Spec`], rolling or calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowId {
    /// Index in [`Spec::rolling`].
    Rolling(usize),
    /// Index in [`Spec::calendar`].
    Calendar(usize),
}

impl Spec {
    /// Whether figures in a currency are reported; a reporting currency only while the spec names it.
    #[must_use]
    pub fn tells(&self, currency: Currency) -> bool {
        !currency.is_reporting() || self.rates.as_ref().is_some_and(|rates| rates.reporting() == currency)
    }

    /// The name of a window in metrics and answers.
    #[must_use]
    pub fn name(&self, window: WindowId) -> &str {
        match window {
            WindowId::Rolling(i) => &self.rolling[i].name,
            WindowId::Calendar(i) => self.calendar[i].unit.name(),
        }
    }

    /// How a window divides time.
    #[must_use]
    pub fn axis(&self, window: WindowId) -> Axis {
        match window {
            WindowId::Rolling(i) => {
                let spec = &self.rolling[i];
                let resolution = Resolution::of_minutes(panes(spec.resolution, MINUTE));
                Axis::Rolling { resolution, period: panes(spec.period, spec.resolution) }
            }
            WindowId::Calendar(i) => Axis::Calendar(self.calendar[i].unit),
        }
    }

    /// A of a window, in panes.
    #[must_use]
    pub fn active_for(&self, window: WindowId) -> ActiveFor {
        match window {
            WindowId::Rolling(i) => ActiveFor::Panes(panes(self.rolling[i].active_for, self.rolling[i].resolution)),
            WindowId::Calendar(i) => self.calendar[i].active_for_days.map_or(ActiveFor::Period, ActiveFor::Panes),
        }
    }

    /// A of a window in milliseconds, with 24 hours per civil day; `None` if customers stay active to the end of the
    /// calendar period.
    #[must_use]
    pub fn active_for_millis(&self, window: WindowId) -> Option<i64> {
        match window {
            WindowId::Rolling(i) => Some(self.rolling[i].active_for),
            WindowId::Calendar(i) => self.calendar[i].active_for_days.map(|days| i64::from(days) * DAY),
        }
    }

    /// The window of a name.
    #[must_use]
    pub fn window(&self, name: &str) -> Option<WindowId> {
        super::window_ids(self).find(|&id| self.name(id) == name)
    }

    /// The first instant of a pane of a window.
    #[must_use]
    pub fn first_instant(&self, window: WindowId, pane: Pane) -> Time {
        self.axis(window).first_instant(pane, &self.zone)
    }

    /// The pane of a window that contains an instant.
    #[must_use]
    pub fn pane(&self, window: WindowId, time: Time) -> Pane {
        self.axis(window).pane(Moment::new(time, &self.zone))
    }

    /// Whether the window that ends with pane `p` is complete: the data begin no later than the first instant of pane
    /// `opens(p) - A + 1` (for a rolling window p - P - A + 1).
    #[must_use]
    pub fn is_complete(&self, window: WindowId, p: Pane, data_begin: Option<Time>) -> bool {
        let axis = self.axis(window);
        let first = axis.active_since(axis.opens(p), self.active_for(window));
        let needed = axis.first_instant(first, &self.zone);
        data_begin.is_some_and(|begin| begin <= needed)
    }
}

fn panes(span: i64, of: i64) -> i32 {
    i32::try_from(span / of.max(1)).unwrap_or(i32::MAX / 8).max(1)
}
