//! The figures of all windows at one instant. The parts of engines add up if all get the same query.

mod overflow;

use std::collections::BTreeMap;

pub use self::overflow::Overflow;
use super::distribution::DistributionParts;
use super::inactivity::release::{RuleParts, add_rules};
use super::known::{Change, CohortsKnown, Missing};
use super::lifecycle::LifecycleParts;
use super::spec::{Spec, WindowId};
use super::totals::TotalsParts;
use super::zone::{Day, Unit};
use super::{CohortFigures, Engine, WindowParts, window_ids};
use crate::event::Time;

/// The calendar periods to include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Periods {
    /// All from the one that contains this instant to the one that contains the instant of the snapshot.
    Since(Time),
    /// The one that contains the instant of the snapshot, and the one before.
    OpenAndPrevious,
}

/// The figures of a calendar period.
#[derive(Debug, Clone, PartialEq)]
pub struct Period {
    /// Index in [`Spec::calendar`].
    pub window: usize,
    /// First day of the period.
    pub from: Day,
    /// Last day of the period, even if it is in the future.
    pub to: Day,
    /// Whether its last day has passed.
    pub closed: bool,
    /// Figures up to its last day or the day of the snapshot, whichever is earlier.
    pub figures: WindowParts,
}

/// A segment: index of the dimension, and value.
pub type SegmentName = (usize, String);

/// The figures of a segment: of each rolling window, then of the open period of each calendar window. `None` if the
/// history of an engine does not reach back that far.
pub type SegmentFigures = Vec<Option<WindowParts>>;

/// The figures of all windows at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The instant of the snapshot.
    pub at: Time,
    /// By index in [`Spec::rolling`]; `None` if the history of an engine does not reach back that far.
    pub rolling: Vec<Option<WindowParts>>,
    /// Calendar periods, oldest first within each window.
    pub periods: Vec<Period>,
    /// Figures by segment.
    pub segments: BTreeMap<SegmentName, SegmentFigures>,
    /// By dimension and window: what an engine does not know, whether or not it has customers of a value, and why.
    pub segments_missing: Vec<Vec<(Missing, Option<Change>)>>,
    /// By dimension: the engines with more values than they keep.
    pub segments_overflowed: Vec<Overflow>,
    /// Customers by stage and status, and transitions.
    pub lifecycle: LifecycleParts,
    /// From when on the numbers of customers by stage and status are known; `None`: always.
    pub stages_from: Option<Time>,
    /// From when on transitions are counted; `None`: always.
    pub transitions_from: Option<Time>,
    /// The months from which cohorts are known.
    pub cohorts_known: CohortsKnown,
    /// Referrals and feedback.
    pub totals: TotalsParts,
    /// Distributions of gaps and order values.
    pub distributions: DistributionParts,
    /// Results of the inactivity rules so far, whatever the instant of the snapshot.
    pub inactivity: Vec<RuleParts>,
    /// The cohort triangle by cohort month and month, both counted from January of year 0; only for [`Periods::Since`].
    pub cohorts: Option<BTreeMap<(i32, i32), CohortFigures>>,
}

impl Snapshot {
    /// A snapshot without engines: all figures are zero.
    #[must_use]
    pub fn empty(spec: &Spec, at: Time, periods: Periods) -> Snapshot {
        let rolling = vec![Some(WindowParts::default()); spec.rolling.len()];
        let listed = (0..spec.calendar.len()).flat_map(|window| list_periods(spec, window, at, periods)).collect();
        Snapshot {
            at,
            rolling,
            periods: listed,
            segments: BTreeMap::new(),
            segments_missing: vec![vec![Default::default(); window_ids(spec).count()]; spec.dimensions.len()],
            segments_overflowed: vec![Overflow::default(); spec.dimensions.len()],
            lifecycle: LifecycleParts::default(),
            stages_from: None,
            transitions_from: None,
            cohorts_known: CohortsKnown::default(),
            totals: TotalsParts::default(),
            distributions: DistributionParts::default(),
            inactivity: Vec::new(),
            cohorts: matches!(periods, Periods::Since(_)).then(BTreeMap::new),
        }
    }

    /// Adds the figures of one engine.
    pub fn add(&mut self, engine: &mut Engine) {
        for (i, sum) in self.rolling.iter_mut().enumerate() {
            add_figures(sum, engine.figures(WindowId::Rolling(i), self.at).as_ref());
        }
        for period in &mut self.periods {
            let p = last_pane(engine.spec(), period, self.at);
            if let Some(more) = engine.figures_of_pane(WindowId::Calendar(period.window), p) {
                period.figures += &more;
            }
        }
        self.add_segments(engine);
        self.lifecycle += &engine.lifecycle(self.at);
        let known = engine.knowledge();
        self.stages_from = self.stages_from.max(known.lifecycle.customers.map(Time::clamped));
        self.transitions_from = self.transitions_from.max(known.lifecycle.transitions.map(Time::clamped));
        self.cohorts_known += &known.cohorts;
        self.totals += &engine.totals(self.at);
        self.distributions += &engine.distributions(self.at);
        add_rules(&mut self.inactivity, &engine.inactivity());
        if let Some(cohorts) = &mut self.cohorts {
            add_cohorts(cohorts, &engine.cohorts(self.at));
        }
    }

    fn add_segments(&mut self, engine: &mut Engine) {
        let windows: Vec<_> = window_ids(engine.spec()).collect();
        for (place, &window) in windows.iter().enumerate() {
            let p = engine.spec().pane(window, self.at);
            for (dimension, value, figures) in engine.segment_figures(window, p) {
                let nothing = || vec![Some(WindowParts::default()); windows.len()];
                add_figures(
                    &mut self.segments.entry((dimension, value)).or_insert_with(nothing)[place],
                    figures.as_ref(),
                );
            }
        }
        for (missing, more) in self.segments_missing.iter_mut().zip(engine.segments_missing(self.at)) {
            add_missing(missing, &more);
        }
        self.note_missing();
        overflow::note(&mut self.segments_overflowed, engine);
    }

    /// What an engine does not know of a dimension is unknown for all its values.
    fn note_missing(&mut self) {
        for ((dimension, _), windows) in &mut self.segments {
            for (figures, (missing, change)) in windows.iter_mut().zip(&self.segments_missing[*dimension]) {
                if let Some(figures) = figures {
                    figures.missing += missing;
                    figures.change = figures.change.max(*change);
                }
            }
        }
    }

    /// Adds a snapshot of other engines for the same query.
    pub fn merge(&mut self, other: &Snapshot) {
        for (sum, more) in self.rolling.iter_mut().zip(&other.rolling) {
            add_figures(sum, more.as_ref());
        }
        for (sum, more) in self.periods.iter_mut().zip(&other.periods) {
            sum.figures += &more.figures;
        }
        for (name, more) in &other.segments {
            match self.segments.get_mut(name) {
                Some(sum) => sum.iter_mut().zip(more).for_each(|(sum, more)| add_figures(sum, more.as_ref())),
                None => _ = self.segments.insert(name.clone(), more.clone()),
            }
        }
        for (missing, more) in self.segments_missing.iter_mut().zip(&other.segments_missing) {
            add_missing(missing, more);
        }
        self.note_missing();
        self.segments_overflowed.iter_mut().zip(&other.segments_overflowed).for_each(|(sum, more)| *sum += more);
        self.lifecycle += &other.lifecycle;
        self.stages_from = self.stages_from.max(other.stages_from);
        self.transitions_from = self.transitions_from.max(other.transitions_from);
        self.cohorts_known += &other.cohorts_known;
        self.totals += &other.totals;
        self.distributions += &other.distributions;
        add_rules(&mut self.inactivity, &other.inactivity);
        if let (Some(sum), Some(more)) = (&mut self.cohorts, &other.cohorts) {
            add_cohorts(sum, more);
        }
    }
}

/// A sum is unknown if a part is.
fn add_figures(sum: &mut Option<WindowParts>, more: Option<&WindowParts>) {
    match (sum.as_mut(), more) {
        (Some(so_far), Some(more)) => *so_far += more,
        _ => *sum = None,
    }
}

fn add_missing(sum: &mut [(Missing, Option<Change>)], more: &[(Missing, Option<Change>)]) {
    for ((missing, change), (more, other)) in sum.iter_mut().zip(more) {
        *missing += more;
        *change = (*change).max(*other);
    }
}

fn add_cohorts(sum: &mut BTreeMap<(i32, i32), CohortFigures>, more: &BTreeMap<(i32, i32), CohortFigures>) {
    for (&months, figures) in more {
        *sum.entry(months).or_default() += figures;
    }
}

/// The last pane of a period: its last day or today, whichever is earlier.
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
