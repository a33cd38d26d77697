//! The figures of all windows at one instant, as parts that add up over engines that were asked the same question.

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

/// A value of a dimension: the place of the dimension, and the value's name.
pub type SegmentName = (usize, String);

/// The figures of one value of a dimension: of each rolling window, then of the open period of each calendar window.
/// `None` when some engine no longer reaches back that far.
pub type SegmentFigures = Vec<Option<WindowParts>>;

/// The figures of all windows at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The instant of the question.
    pub at: Time,
    /// By place in [`Spec::rolling`]; `None` when some engine no longer reaches back that far.
    pub rolling: Vec<Option<WindowParts>>,
    /// Calendar periods, oldest first within each window.
    pub periods: Vec<Period>,
    /// The same by the values of the dimensions.
    pub segments: BTreeMap<SegmentName, SegmentFigures>,
    /// Of each dimension, of each window, what some engine does not know, whether it has customers of a value or not; and
    /// why.
    pub segments_missing: Vec<Vec<(Missing, Option<Change>)>>,
    /// Of each dimension, the engines that found more values than are kept.
    pub segments_overflowed: Vec<Overflow>,
    /// Customers by stage and status, and their passages.
    pub lifecycle: LifecycleParts,
    /// From when on it is known how many customers are in each stage and status; `None`: always.
    pub stages_from: Option<Time>,
    /// From when on passages are counted; `None`: always.
    pub transitions_from: Option<Time>,
    /// From which months on cohorts are known.
    pub cohorts_known: CohortsKnown,
    /// Referrals and feedback.
    pub totals: TotalsParts,
    /// How gaps and order values are spread.
    pub distributions: DistributionParts,
    /// What came of the rules on inactivity so far, whatever the instant of the question.
    pub inactivity: Vec<RuleParts>,
    /// The cohort triangle by cohort month and month, both counted from January of year 0; only in answer to
    /// [`Periods::Since`].
    pub cohorts: Option<BTreeMap<(i32, i32), CohortFigures>>,
}

impl Snapshot {
    /// What a snapshot of no engine at all says: nothing happened.
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

    /// What one engine does not know of a dimension is known of none of its values.
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

    /// Adds a snapshot that answers the same question for other engines.
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

/// What one does not know, the sum does not know either.
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
