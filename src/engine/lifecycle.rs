//! Customers by stage and status at an instant, and transitions between them. The counts are difference arrays over
//! hours, so nothing has to happen when a customer falls silent.
//!
//! Between two orders a customer is active, then at risk, then lapsed. The boundaries follow from the order's rank, its
//! time and the time of the first order, so future boundaries are booked with the order.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::Pane;
use super::prefix::{Cell, Prefix};
use super::state::arrays::Visitor;
use super::state::plain::plain;
use super::window::Sign;
use crate::event::{HOUR, Time};

/// Number of orders from which a customer's own mean gap counts.
const ORDERS_WITH_PACE: u32 = 3;

/// Thresholds for at risk, lapsed and loyal customers.
#[derive(Debug, Clone, PartialEq)]
pub struct LifecycleSpec {
    /// A customer without an order for this time has lapsed, in milliseconds.
    pub active_for: i64,
    /// A customer is at risk after this multiple of the own mean gap.
    pub at_risk_cadence: f64,
    /// Minimum time until a customer is at risk, in milliseconds.
    pub at_risk_min: i64,
    /// Number of orders that makes a customer loyal.
    pub loyal_orders: u32,
}

impl LifecycleSpec {
    /// Hours of silence until a customer is at risk: clamp(cadence x (last - first) / (n - 1), min, 0.75 x
    /// `active_for`); with fewer than three orders 0.5 x `active_for`.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "spans are far below 2^53 ms")]
    fn at_risk_after(&self, rank: u32, first: Time, last: Time) -> Pane {
        let active_for = self.active_for as f64;
        let silence = if rank < ORDERS_WITH_PACE {
            0.5 * active_for
        } else {
            let span = (last.millis() - first.millis()) as f64;
            (self.at_risk_cadence * span / f64::from(rank - 1)).max(self.at_risk_min as f64).min(0.75 * active_for)
        };
        (silence / HOUR as f64).ceil() as Pane
    }

    fn lapsed_after(&self) -> Pane {
        hour(self.active_for + HOUR - 1)
    }

    /// The boundaries after an order of a rank, for a customer whose first order was at `first`.
    fn course(&self, rank: u32, first: Time, order: Time) -> StatusTimeline {
        let from = pane(order);
        StatusTimeline {
            from,
            at_risk: from + self.at_risk_after(rank, first, order),
            lapsed: from + self.lapsed_after(),
            stage: self.stage(rank, Status::Active),
            stage_lapsed: self.stage(rank, Status::Lapsed),
        }
    }

    /// Stage and status at an instant of a customer with `orders` orders from `first` to `last`, exact to the hour.
    #[must_use]
    pub fn standing(&self, orders: u32, first: Time, last: Time, at: Time) -> (Stage, Status) {
        let silent = pane(at) - pane(last);
        let status = if silent >= self.lapsed_after() {
            Status::Lapsed
        } else if silent >= self.at_risk_after(orders, first, last) {
            Status::AtRisk
        } else {
            Status::Active
        };
        (self.stage(orders, status), status)
    }

    /// When a customer with `orders` orders from `first` to `last` becomes at risk and lapsed if no order follows: the
    /// first instants of the hours at which [`LifecycleSpec::standing`] changes.
    #[must_use]
    pub fn turns(&self, orders: u32, first: Time, last: Time) -> (Time, Time) {
        let after = |hours: Pane| Time::clamped(i64::from(pane(last).saturating_add(hours)) * HOUR);
        (after(self.at_risk_after(orders, first, last)), after(self.lapsed_after()))
    }

    fn stage(&self, orders: u32, status: Status) -> Stage {
        match orders {
            _ if orders >= self.loyal_orders && status == Status::Lapsed => Stage::Repeat,
            _ if orders >= self.loyal_orders => Stage::Loyal,
            1 => Stage::New,
            _ => Stage::Repeat,
        }
    }
}

/// Statuses of a customer after an order if none follows.
#[derive(Debug, Clone, Copy)]
struct StatusTimeline {
    /// The hour of the order; the customer is active from then on.
    from: Pane,
    /// The hour from which the customer is at risk.
    at_risk: Pane,
    /// The hour from which the customer has lapsed.
    lapsed: Pane,
    /// The stage before `lapsed`.
    stage: Stage,
    /// The stage from `lapsed` on.
    stage_lapsed: Stage,
}

impl StatusTimeline {
    /// Stage and status just before the hour `until`.
    fn standing(&self, until: Pane) -> (Stage, Status) {
        if self.lapsed < until {
            (self.stage_lapsed, Status::Lapsed)
        } else if self.at_risk < until {
            (self.stage, Status::AtRisk)
        } else {
            (self.stage, Status::Active)
        }
    }
}

/// The stage of a customer who has ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// One order.
    New = 0,
    /// Two or more.
    Repeat = 1,
    /// `loyal_orders` or more, and not lapsed.
    Loyal = 2,
}

impl Stage {
    /// The name in labels and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::New => "new",
            Stage::Repeat => "repeat",
            Stage::Loyal => "loyal",
        }
    }
}

/// The status of a customer who has ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The last order is recent, compared with the customer's own pace.
    Active = 0,
    /// Silent for longer than usual for the customer.
    AtRisk = 1,
    /// No order within `active_for`.
    Lapsed = 2,
}

impl Status {
    /// The name in labels and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::AtRisk => "at_risk",
            Status::Lapsed => "lapsed",
        }
    }
}

/// A counted transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "see Transition::names")]
pub enum Transition {
    FirstOrder,
    ToAtRisk,
    ToLapsed,
    Recovered,
    Reactivated,
    SecondOrder,
    BecameLoyal,
    LostLoyalty,
}

impl Transition {
    /// Every transition.
    pub const ALL: [Transition; 8] = [
        Transition::FirstOrder,
        Transition::ToAtRisk,
        Transition::ToLapsed,
        Transition::Recovered,
        Transition::Reactivated,
        Transition::SecondOrder,
        Transition::BecameLoyal,
        Transition::LostLoyalty,
    ];

    /// The statuses or stages before and after.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Transition::FirstOrder => ("none", "active"),
            Transition::ToAtRisk => ("active", "at_risk"),
            Transition::ToLapsed => ("at_risk", "lapsed"),
            Transition::Recovered => ("at_risk", "active"),
            Transition::Reactivated => ("lapsed", "active"),
            Transition::SecondOrder => ("new", "repeat"),
            Transition::BecameLoyal => ("repeat", "loyal"),
            Transition::LostLoyalty => ("loyal", "repeat"),
        }
    }
}

/// The differences of one hour, and its transitions.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Hour {
    customers: [[i32; 3]; 3],
    prospects: i32,
    transitions: [i32; Transition::ALL.len()],
}

/// Customers by stage and status at an instant, and the transitions up to it. They add up over partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LifecycleParts {
    /// By [`Stage`], then [`Status`].
    pub customers: [[i64; 3]; 3],
    /// Prospects: seen, but without an order.
    pub prospects: i64,
    /// Transitions so far, by [`Transition`].
    pub transitions: [i64; Transition::ALL.len()],
}

plain!(Hour { customers, prospects, transitions });
plain!(LifecycleParts { customers, prospects, transitions });

impl Cell for Hour {
    type Sum = LifecycleParts;
    type Store = Vec<Hour>;
    fn add_to(&self, sum: &mut LifecycleParts) {
        for (row, more) in sum.customers.iter_mut().zip(&self.customers) {
            row.iter_mut().zip(more).for_each(|(sum, more)| *sum += i64::from(*more));
        }
        sum.prospects += i64::from(self.prospects);
        sum.transitions.iter_mut().zip(&self.transitions).for_each(|(sum, more)| *sum += i64::from(*more));
    }
}

impl std::ops::AddAssign<&LifecycleParts> for LifecycleParts {
    fn add_assign(&mut self, other: &LifecycleParts) {
        for (row, more) in self.customers.iter_mut().zip(&other.customers) {
            row.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.prospects += other.prospects;
        self.transitions.iter_mut().zip(&other.transitions).for_each(|(sum, more)| *sum += more);
    }
}

/// An order with everything on which stage and status depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeTerm {
    /// The customer's first order.
    pub first: Time,
    /// The order before, if any.
    pub before: Option<Time>,
    /// The order.
    pub order: Time,
    /// Its rank: 1 for the first order.
    pub rank: u32,
    /// The order after, if any.
    pub after: Option<Time>,
}

/// The stages and statuses of all customers of a partition.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    spec: LifecycleSpec,
    hours: Prefix<Hour>,
    /// Transitions up to this hour are not reported because they were counted under another definition.
    silent_to: Option<Pane>,
}

impl Lifecycle {
    /// A lifecycle without customers.
    #[must_use]
    pub fn new(spec: LifecycleSpec) -> Lifecycle {
        Lifecycle { spec, hours: Prefix::default(), silent_to: None }
    }

    /// Books or undoes an order with its consequences until the next one.
    pub fn order(&mut self, term: &LifeTerm, sign: Sign) {
        let before = term.before.map(|before| self.spec.course(term.rank - 1, term.first, before));
        self.begin(term, before.as_ref(), sign as i32);
    }

    /// Books a new newest order: of the bookings of the order before, those after the new order are taken back. The
    /// result is the same as taking `term.before` back and booking it again with a following order, but most of that
    /// would cancel out.
    pub fn newest_order(&mut self, term: &LifeTerm) {
        let before = term.before.map(|before| self.spec.course(term.rank - 1, term.first, before));
        if let Some(before) = &before {
            let until = pane(term.order);
            if before.at_risk >= until {
                self.fall_at_risk(before, -1);
            }
            if before.lapsed >= until {
                self.lapse(before, -1);
            }
            self.end(before, until, 1);
        }
        self.begin(term, before.as_ref(), 1);
    }

    /// Books an order, given the timeline of the order before.
    fn begin(&mut self, term: &LifeTerm, before: Option<&StatusTimeline>, by: i32) {
        let course = self.spec.course(term.rank, term.first, term.order);
        let cell = self.hours.cell(course.from);
        cell.customers[course.stage as usize][Status::Active as usize] += by;
        let mut pass = |transition: Transition| cell.transitions[transition as usize] += by;
        // Strictly later: a boundary in the pane of the order itself was never visible.
        let was_lapsed = before.is_some_and(|before| course.from > before.lapsed);
        match before {
            None => pass(Transition::FirstOrder),
            Some(_) if was_lapsed => pass(Transition::Reactivated),
            Some(before) if course.from > before.at_risk => pass(Transition::Recovered),
            Some(_) => {}
        }
        if before.is_some() && term.rank == 2 {
            pass(Transition::SecondOrder);
        }
        let loyal = self.spec.loyal_orders;
        if before.is_some() && (term.rank == loyal || (term.rank > loyal && was_lapsed)) {
            pass(Transition::BecameLoyal);
        }
        let until = term.after.map_or(Pane::MAX, pane);
        if course.at_risk < until {
            self.fall_at_risk(&course, by);
        }
        if course.lapsed < until {
            self.lapse(&course, by);
        }
        if term.after.is_some() {
            self.end(&course, until, by);
        }
    }

    fn fall_at_risk(&mut self, course: &StatusTimeline, by: i32) {
        let cell = self.hours.cell(course.at_risk);
        let customers = &mut cell.customers[course.stage as usize];
        customers[Status::Active as usize] -= by;
        customers[Status::AtRisk as usize] += by;
        cell.transitions[Transition::ToAtRisk as usize] += by;
    }

    fn lapse(&mut self, course: &StatusTimeline, by: i32) {
        let cell = self.hours.cell(course.lapsed);
        cell.customers[course.stage as usize][Status::AtRisk as usize] -= by;
        cell.customers[course.stage_lapsed as usize][Status::Lapsed as usize] += by;
        cell.transitions[Transition::ToLapsed as usize] += by;
        cell.transitions[Transition::LostLoyalty as usize] += if course.stage == Stage::Loyal { by } else { 0 };
    }

    /// Ends a timeline at the next order.
    fn end(&mut self, course: &StatusTimeline, until: Pane, by: i32) {
        let (stage, status) = course.standing(until);
        self.hours.cell(until).customers[stage as usize][status as usize] -= by;
    }

    /// Books or undoes a prospect during [`from`, `until`): a customer without orders was seen first at `from`, or
    /// earlier than known so far.
    pub fn prospect(&mut self, from: Time, until: Option<Time>, sign: Sign) {
        let by = sign as i32;
        self.hours.cell(pane(from)).prospects += by;
        if let Some(until) = until {
            self.hours.cell(pane(until)).prospects -= by;
        }
    }

    /// Customers by stage and status at `at`, and the transitions before the hour of `horizon`, which can no longer
    /// change.
    pub fn parts(&self, at: Time, horizon: Time) -> LifecycleParts {
        let mut parts = self.hours.upto(pane(at));
        let last = pane(horizon) - 1;
        parts.transitions = match self.silent_to {
            Some(silent) if last <= silent => [0; Transition::ALL.len()],
            _ => self.hours.upto(last).transitions,
        };
        if let Some(silent) = self.silent_to.filter(|&silent| silent < last && silent >= self.hours.limit()) {
            let untold = self.hours.upto(silent).transitions;
            parts.transitions.iter_mut().zip(untold).for_each(|(count, untold)| *count -= untold);
        }
        parts
    }

    /// Folds the hours before `limit` into one sum.
    pub fn fold_before(&mut self, limit: Time) {
        let limit = pane(limit);
        // Transitions that are not reported now are never reported.
        let untold = self.silent_to.filter(|&silent| silent < limit && silent >= self.hours.limit());
        if let Some(silent) = untold {
            let transitions = self.hours.upto(silent).transitions.map(|count| -count);
            self.hours.add_before_all(&LifecycleParts { transitions, ..LifecycleParts::default() });
        }
        self.hours.fold_before(limit);
    }

    /// Number of customers and prospects ever seen.
    #[must_use]
    pub fn seen_to_date(&self) -> i64 {
        let all = self.hours.upto(Pane::MAX);
        all.prospects + all.customers.iter().flatten().sum::<i64>()
    }

    /// Adds those whom `before` counts but who have no record any more: prospects, and customers, who are counted as
    /// lapsed. Transitions up to `newest` followed another definition and are no longer reported.
    pub fn complete(&mut self, before: &Lifecycle, newest: Option<i64>) {
        let (all, own) = (before.hours.upto(Pane::MAX), self.hours.upto(Pane::MAX));
        let mut missing = LifecycleParts { prospects: all.prospects - own.prospects, ..LifecycleParts::default() };
        for (missing, (all, own)) in missing.customers.iter_mut().zip(all.customers.iter().zip(&own.customers)) {
            missing[Status::Lapsed as usize] = all.iter().sum::<i64>() - own.iter().sum::<i64>();
        }
        self.hours.add_before_all(&missing);
        self.keep_silent_to(newest);
    }

    /// Reports only the transitions after the hour of `newest`.
    pub fn keep_silent_to(&mut self, newest: Option<i64>) {
        self.silent_to = newest.map(hour);
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        let Lifecycle { spec: _, hours, silent_to: _ } = self;
        visitor.visit(&format!("{key}/hours"), hours);
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.hours.bytes()
    }
}

fn pane(time: Time) -> Pane {
    hour(time.millis())
}

fn hour(millis: i64) -> Pane {
    Pane::try_from(millis / HOUR).unwrap_or(Pane::MAX / 4)
}
