//! The figures of all windows at one instant, as parts that add up over engines that were asked the same question.

use super::spec::{Spec, WindowId};
use super::zone::{Day, Unit};
use super::{Engine, WindowParts};
use crate::event::Time;

/// Which calendar periods are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Periods {
    /// Every one from that which holds this instant to the one that holds the instant of the question.
    Since(Time),
    /// The one that holds the instant of the question and the one before.
    OpenAndPrevious,
}

/// One calendar period's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Period {
    /// Its place in [`Spec::calendar`].
    pub window: usize,
    /// Its first day.
    pub from: Day,
    /// Its last day, also while it is open.
    pub to: Day,
    /// Whether its last day has passed.
    pub closed: bool,
    /// The figures up to the smaller of its last day and the day of the question.
    pub figures: WindowParts,
}

/// The figures of all windows at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The instant of the question.
    pub at: Time,
    /// By place in [`Spec::rolling`]; `None` when some engine no longer reaches back that far.
    pub rolling: Vec<Option<WindowParts>>,
    /// Calendar periods, oldest first within each window.
    pub periods: Vec<Period>,
}

impl Snapshot {
    /// What a snapshot of no engine at all says: nothing happened.
    #[must_use]
    pub fn empty(spec: &Spec, at: Time, periods: Periods) -> Snapshot {
        let rolling = vec![Some(WindowParts::default()); spec.rolling.len()];
        let periods = (0..spec.calendar.len()).flat_map(|window| list_periods(spec, window, at, periods)).collect();
        Snapshot { at, rolling, periods }
    }

    /// Adds the figures of one engine.
    pub fn add(&mut self, engine: &mut Engine) {
        for (i, sum) in self.rolling.iter_mut().enumerate() {
            match (engine.figures(WindowId::Rolling(i), self.at), sum.as_mut()) {
                (Some(more), Some(so_far)) => *so_far += &more,
                _ => *sum = None,
            }
        }
        for period in &mut self.periods {
            let p = last_pane(engine.spec(), period, self.at);
            if let Some(more) = engine.figures_of_pane(WindowId::Calendar(period.window), p) {
                period.figures += &more;
            }
        }
    }

    /// Adds a snapshot that answers the same question for other engines.
    pub fn merge(&mut self, other: &Snapshot) {
        for (sum, more) in self.rolling.iter_mut().zip(&other.rolling) {
            match (sum.as_mut(), more) {
                (Some(so_far), Some(more)) => *so_far += more,
                _ => *sum = None,
            }
        }
        for (sum, more) in self.periods.iter_mut().zip(&other.periods) {
            sum.figures += &more.figures;
        }
    }
}

/// The pane at which a period is evaluated: the smaller of its last day and today.
#[must_use]
pub fn last_pane(spec: &Spec, period: &Period, at: Time) -> Day {
    period.to.min(spec.zone.day(at))
}

fn list_periods(spec: &Spec, window: usize, at: Time, periods: Periods) -> Vec<Period> {
    let unit: Unit = spec.calendar[window].unit;
    let today = spec.zone.day(at);
    let open = unit.first_day(today);
    let mut from = match periods {
        Periods::Since(time) => unit.first_day(spec.zone.day(time)),
        Periods::OpenAndPrevious => unit.first_day(open - 1),
    };
    let mut list = Vec::new();
    while from <= open {
        let next = unit.next_period(from);
        let (to, closed) = (next - 1, today > next - 1);
        list.push(Period { window, from, to, closed, figures: WindowParts::default() });
        from = next;
    }
    list
}
