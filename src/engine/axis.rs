//! Maps time to panes: the pane of an instant, when an order leaves the window, and when the window opened.
//!
//! Rolling and calendar windows differ only in these functions; all other arithmetic is shared.

use super::zone::{Day, Unit, Zone};
use crate::event::{MINUTE, Time};

/// Number of a pane on an [`Axis`].
pub type Pane = i32;

/// An instant in the units from which every axis is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Event time.
    pub time: Time,
    /// Whole minutes since the epoch; every resolution is a multiple of a minute.
    pub minute: i32,
    /// The civil date in the configured zone.
    pub day: Day,
}

impl Moment {
    /// The minute and civil day of an instant.
    #[must_use]
    pub fn new(time: Time, zone: &Zone) -> Moment {
        // The limit of event times, in the year 2199, is minute 120,968,639.
        let minute = i32::try_from(time.millis() / MINUTE).unwrap_or(i32::MAX);
        Moment { time, minute, day: zone.day(time) }
    }
}

/// Length of a pane in whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    minutes: i32,
}

impl Resolution {
    /// A resolution of `minutes`, at least 1.
    #[must_use]
    pub fn of_minutes(minutes: i32) -> Resolution {
        Resolution { minutes: minutes.max(1) }
    }

    /// Length in minutes.
    #[must_use]
    pub fn minutes(self) -> i32 {
        self.minutes
    }

    /// The pane that contains a minute.
    #[inline]
    fn pane(self, minute: i32) -> Pane {
        minute.div_euclid(self.minutes)
    }
}

/// How long a customer stays active after an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveFor {
    /// A: a number of panes.
    Panes(Pane),
    /// To the end of the calendar period of the order.
    Period,
}

/// How one window divides time into panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The last `period` panes of fixed length.
    Rolling {
        /// Length of a pane.
        resolution: Resolution,
        /// Panes in the window.
        period: Pane,
    },
    /// The civil days since the beginning of a calendar period.
    Calendar(Unit),
}

impl Axis {
    /// The pane that contains a moment.
    #[inline]
    #[must_use]
    pub fn pane(self, moment: Moment) -> Pane {
        match self {
            Axis::Rolling { resolution, .. } => resolution.pane(moment.minute),
            Axis::Calendar(_) => moment.day,
        }
    }

    /// The first pane whose window no longer contains an event of `pane`.
    #[inline]
    #[must_use]
    pub fn leaves(self, pane: Pane) -> Pane {
        match self {
            Axis::Rolling { period, .. } => pane + period,
            Axis::Calendar(unit) => unit.next_period(pane),
        }
    }

    /// The first pane at which an order in `pane` no longer keeps the customer active.
    #[inline]
    #[must_use]
    pub fn lapses(self, pane: Pane, active_for: ActiveFor) -> Pane {
        match active_for {
            ActiveFor::Panes(panes) => pane + panes,
            ActiveFor::Period => self.leaves(pane),
        }
    }

    /// The oldest pane whose orders keep a customer active at `pane`.
    #[must_use]
    pub fn active_since(self, pane: Pane, active_for: ActiveFor) -> Pane {
        match (active_for, self) {
            (ActiveFor::Panes(panes), _) => pane - panes + 1,
            (ActiveFor::Period, Axis::Calendar(unit)) => unit.first_day(pane),
            (ActiveFor::Period, Axis::Rolling { .. }) => self.opens(pane) + 1,
        }
    }

    /// The last pane before the window that ends with pane `p`: the window is (`opens(p)`, `p`].
    #[must_use]
    pub fn opens(self, p: Pane) -> Pane {
        match self {
            Axis::Rolling { period, .. } => p - period,
            Axis::Calendar(unit) => unit.first_day(p) - 1,
        }
    }

    /// The first instant of a pane.
    #[must_use]
    pub fn first_instant(self, pane: Pane, zone: &Zone) -> Time {
        match self {
            Axis::Rolling { resolution, .. } => Time::clamped(i64::from(pane) * i64::from(resolution.minutes) * MINUTE),
            Axis::Calendar(_) => zone.first_instant(pane),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pane_is_the_floor_of_time_over_resolution() {
        let axis = Axis::Rolling { resolution: Resolution::of_minutes(15), period: 672 };
        for millis in [0, 899_999, 900_000, 1_767_323_045_678] {
            let moment = Moment::new(Time::clamped(millis), &Zone::utc());
            assert_eq!(i64::from(axis.pane(moment)), millis / 900_000);
        }
        assert_eq!(axis.first_instant(2, &Zone::utc()).millis(), 1_800_000);
        assert_eq!((axis.leaves(10), axis.opens(682)), (682, 10));
    }

    #[test]
    fn a_calendar_window_opens_before_its_first_day_and_is_left_with_its_last() {
        let axis = Axis::Calendar(Unit::Month);
        let first_of_march_1970 = 59;
        assert_eq!(axis.opens(first_of_march_1970 + 30), first_of_march_1970 - 1);
        assert_eq!(axis.leaves(first_of_march_1970), first_of_march_1970 + 31);
    }
}
