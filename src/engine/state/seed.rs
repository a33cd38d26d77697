//! Fills new and redefined windows and segments of an engine that is restored under another spec. They take over what
//! the old windows counted where panes and definitions allow it. Elsewhere they are computed from the records: the
//! first order, the newest orders and the newest sessions of each customer. For the rest, the engine notes when it will
//! be known.

use std::collections::BTreeMap;

use super::derive::{Definition, Old, Plan, load};
use super::windows::WindowState;
use super::{Kept, Scalars};
use crate::engine::axis::{Moment, Pane};
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::engine::extras::Rare;
use crate::engine::known::{Change, Erased, Known, LifecycleKnown, Why, WindowKnown};
use crate::engine::lifecycle::{LifeTerm, Lifecycle};
use crate::engine::rebooking::Booked;
use crate::engine::record::Mark;
use crate::engine::segments::{DimensionState, Segments, UNKNOWN_PLACE};
use crate::engine::spec::WindowId;
use crate::engine::state::arrays::{RestoredArrays, escape};
use crate::engine::window::{OrderTerm, Sign, ToDate, Window};
use crate::engine::zone::month_of;
use crate::engine::{Engine, window_ids};
use crate::event::{MINUTE, Time};

/// How far back the records of customers are sufficient to compute windows.
#[derive(Debug, Clone, Default)]
struct Reach {
    /// From this instant on, the two newest orders of every customer are known.
    orders: Option<Time>,
    /// From this instant on, the newest session of every customer is known.
    sessions: Option<Time>,
    /// By window: the pane from which active customers are known.
    active: Vec<Pane>,
    /// By window: lost customers are known from the later of this pane and the one in `active`.
    lost: Vec<Pane>,
    /// The newest order and session of erased customers.
    erased: Erased,
}

/// The windows of a state: those of all customers, and those of each value of the dimensions that are kept.
struct OldArrays {
    olds: Vec<Old>,
    windows: Vec<Window>,
    /// By dimension of the spec.
    segments: Vec<Vec<(String, Vec<Window>)>>,
}

impl OldArrays {
    fn load(engine: &Engine, scalars: &Scalars, kept: &[bool], shelf: &mut RestoredArrays) -> OldArrays {
        let (dimensions, zone) = (engine.segments.state(), &engine.spec.zone);
        let old = |state: &WindowState| {
            let definition = Definition::parse(&state.key)?;
            let pane = |time| definition.axis.pane(Moment::new(time, zone));
            let known = state.known(definition.axis, definition.active_for, pane).known;
            Some(Old { key: state.key.clone(), definition, known })
        };
        let olds: Vec<_> = scalars.windows.iter().filter_map(old).collect();
        let windows = load(&olds, "window", shelf);
        let of_dimension = |(dimension, kept): (&DimensionState, &bool)| {
            let state = scalars.dimensions.iter().find(|state| state.name == dimension.name && *kept);
            let values = state.into_iter().flat_map(|state| &state.values);
            let root = format!("segment/{}@{}", escape(&dimension.name), dimension.born);
            values.map(|value| (value.clone(), load(&olds, &format!("{root}/{}", escape(value)), shelf))).collect()
        };
        let segments = dimensions.iter().zip(kept).map(of_dimension).collect();
        OldArrays { olds, windows, segments }
    }
}

impl Engine {
    /// Computes everything that is not in `kept` from the arrays of the state and from the customers.
    pub(super) fn respecify(&mut self, kept: &Kept, scalars: &Scalars, shelf: &mut RestoredArrays) {
        let mut arrays = OldArrays::load(self, scalars, &kept.dimensions, shelf);
        let before = self.lifecycle_before(kept, scalars, shelf);
        let (windows, segments, reach) = self.seed(kept, &mut arrays, &before);
        let newest = self.clock.newest();
        let kinds: Vec<_> = arrays.olds.iter().map(|old| old.definition.clone()).collect();
        for (index, (id, mut window)) in window_ids(&self.spec).zip(windows).enumerate() {
            if kept.windows[index].1 {
                continue;
            }
            let definition = Definition::of(&self.spec, id);
            let mut known = self.rebuilt(index, id, &reach, newest);
            let plan =
                Plan::new(&definition, &arrays.olds, |old| arrays.windows[old].limit(), &self.spec.zone, &mut known);
            window.keep(&plan.selection().rest());
            plan.take_over(&mut window, &arrays.olds, &mut arrays.windows, &self.spec.zone);
            self.windows[index] = window;
            let change = newest.map(|at| Change { at: at.millis(), why: definition.change(kinds.iter()) });
            self.knowledge.windows[index] = WindowKnown { known, change: change.filter(|_| !known.is_always()) };
        }
        let is_kept = |dimension: usize, window: usize| kept.dimensions[dimension] && kept.windows[window].1;
        self.segments.adopt(segments, |dimension, window| !is_kept(dimension, window));
        for dimension in 0..kept.dimensions.len() {
            self.respecify_dimension(dimension, kept, &mut arrays, &reach);
        }
        self.fold_seeded();
    }

    /// Computes the windows of the values of one dimension.
    fn respecify_dimension(&mut self, dimension: usize, kept: &Kept, arrays: &mut OldArrays, reach: &Reach) {
        let newest = self.clock.newest();
        let spec = self.spec.clone();
        let kinds: Vec<_> = arrays.olds.iter().map(|old| old.definition.clone()).collect();
        for (index, id) in window_ids(&spec).enumerate() {
            if kept.dimensions[dimension] && kept.windows[index].1 {
                continue;
            }
            let definition = Definition::of(&spec, id);
            let mut known = self.rebuilt(index, id, reach, newest);
            self.complete_dimension(dimension, index, kept.dimensions[dimension], arrays);
            let mut why = Why::Dimension;
            if kept.dimensions[dimension] {
                why = definition.change(kinds.iter());
                let OldArrays { olds, segments, .. } = &mut *arrays;
                let values = &mut segments[dimension];
                let limit = |old: usize| {
                    let limits = values.iter().map(|(_, windows)| windows[old].limit());
                    limits.max().unwrap_or(Pane::MIN)
                };
                let plan = Plan::new(&definition, olds, limit, &spec.zone, &mut known);
                let rest = plan.selection().rest();
                self.segments.windows_of(dimension, index).for_each(|window| window.keep(&rest));
                for (value, windows) in values.iter_mut() {
                    let into = self.segments.window_of_value(dimension, value, index);
                    plan.take_over(into, olds, windows, &spec.zone);
                }
            }
            let change = newest.map(|at| Change { at: at.millis(), why }).filter(|_| !known.is_always());
            self.knowledge.dimensions[dimension][index] = WindowKnown { known, change };
        }
    }

    /// Adds erased customers to the values that they had; to [`UNKNOWN`](crate::engine::segments::UNKNOWN) in a new
    /// dimension.
    fn complete_dimension(&mut self, dimension: usize, index: usize, is_kept: bool, arrays: &mut OldArrays) {
        let mut all = BTreeMap::<u8, ToDate>::new();
        if is_kept {
            for (value, windows) in &mut arrays.segments[dimension] {
                if let Some(window) = windows.first_mut() {
                    *all.entry(self.segments.place_of(dimension, value)).or_default() += &window.to_date();
                }
            }
        } else if let Some(window) = arrays.windows.first_mut() {
            all.insert(UNKNOWN_PLACE, window.to_date().of_people());
        }
        for (place, all) in all {
            self.segments.window_of_place(dimension, place, index).complete(&all);
        }
    }

    /// What is known of a window that is computed from the records of the customers.
    fn rebuilt(&self, index: usize, id: WindowId, reach: &Reach, newest: Option<Time>) -> Known {
        let (axis, active_for) = (self.spec.axis(id), self.spec.active_for(id));
        let pane = |time: Option<Time>| time.map_or(Pane::MIN, |time| self.spec.pane(id, time));
        let erased = |millis: Option<i64>| millis.map(|millis| self.spec.pane(id, Time::clamped(millis)));
        let (order, session) = (erased(reach.erased.order), erased(reach.erased.session));
        let behind = |from: Pane, erased: Option<Pane>| erased.map_or(from, |erased| from.max(erased));
        let newest = newest.map_or(Pane::MIN, |newest| self.spec.pane(id, newest));
        let next = if newest == Pane::MIN { newest } else { newest + 1 };
        let lapses = order.map(|order| axis.lapses(order, active_for));
        Known {
            flows: next,
            new: order.map_or(Pane::MIN, |order| order + 1),
            to_date: newest,
            ordering: behind(pane(reach.orders), order.map(|order| axis.leaves(order))),
            visiting: behind(pane(reach.sessions), session.map(|session| axis.leaves(session))),
            active: behind(reach.active[index], lapses),
            lost: behind(reach.active[index].max(reach.lost[index]), lapses.map(|lapses| axis.leaves(lapses))),
            reporting: if self.spec.rates.is_some() { next } else { Pane::MIN },
        }
    }

    /// Stages and statuses of the state, counted by its own definition.
    fn lifecycle_before(&self, kept: &Kept, scalars: &Scalars, shelf: &mut RestoredArrays) -> Lifecycle {
        if kept.lifecycle {
            return self.lifecycle.clone();
        }
        let mut before = Lifecycle::new(self.spec.lifecycle.clone());
        before.show(&format!("lifecycle/{}", scalars.lifecycle), shelf);
        before
    }

    /// Books the records of all customers into empty windows, and replaces everything else that is not in `kept`.
    fn seed(&mut self, kept: &Kept, arrays: &mut OldArrays, before: &Lifecycle) -> (Vec<Window>, Segments, Reach) {
        let blank: Vec<_> = {
            let spec = &self.spec;
            window_ids(spec).map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect()
        };
        let windows = std::mem::replace(&mut self.windows, blank);
        let emptied = self.segments.emptied();
        let segments = std::mem::replace(&mut self.segments, emptied);
        let fresh = Lifecycle::new(self.spec.lifecycle.clone());
        let lifecycle = std::mem::replace(&mut self.lifecycle, fresh);
        let cohorts = std::mem::take(&mut self.cohorts);
        let totals = self.totals.clone();
        // Erased customers have no record any more.
        if before.seen_to_date() == self.customers.len() as i64 {
            self.knowledge.erased = Erased::default();
        }
        let active = vec![Pane::MIN; self.windows.len()];
        let mut reach = Reach { lost: active.clone(), active, erased: self.knowledge.erased, ..Reach::default() };
        let slots: Vec<_> = self.customers.occupied().collect();
        slots.into_iter().for_each(|slot| self.seed_customer(slot, &mut reach));
        // Counts over all time do not depend on definitions.
        self.totals = totals;
        let mut seeded = std::mem::replace(&mut self.windows, windows);
        if let Some(all) = arrays.windows.first_mut().map(Window::to_date) {
            seeded.iter_mut().for_each(|window| window.complete(&all));
        }
        let of_segments = std::mem::replace(&mut self.segments, segments);
        if kept.lifecycle {
            self.lifecycle = lifecycle;
        } else {
            self.complete_lifecycle(before, &reach);
        }
        if kept.cohorts {
            self.cohorts = cohorts;
        } else {
            let next = self.clock.newest().map(|newest| month_of(self.spec.zone.day(newest)) + 1);
            self.knowledge.cohorts.cells = next;
            self.knowledge.cohorts.returns = next;
            self.knowledge.cohorts.sizes = next.filter(|_| reach.erased.order.is_some());
        }
        (seeded, of_segments, reach)
    }

    /// Adds the erased customers, all of whom have lapsed or will lapse.
    fn complete_lifecycle(&mut self, before: &Lifecycle, reach: &Reach) {
        let spec = &self.spec.lifecycle;
        let erased = reach.erased.order.map(|order| order.saturating_add(spec.active_for));
        let newest = self.clock.newest().map(Time::millis);
        let reached = newest.max(erased);
        self.lifecycle.complete(before, newest);
        self.knowledge.lifecycle = LifecycleKnown { customers: reached, transitions: newest };
    }

    fn seed_customer(&mut self, slot: Slot, reach: &mut Reach) {
        let record = *self.customers.record(slot);
        let mut orders = self.recent.newest_orders(slot, &record, record.orders as usize);
        if orders.len() < record.orders as usize {
            // Older orders than the two newest before the floor may have gaps between them.
            let old = orders.partition_point(|&order| order < self.clock.floor(Class::Orders));
            orders.drain(..old.checked_sub(2).unwrap_or(old));
        }
        let unknown = record.orders as usize - orders.len();
        // The first order is always known: it counts, and so does the gap to the next known order.
        if let Some(first) = record.first().filter(|_| unknown > 0) {
            self.note_reach(first, &orders, reach);
            orders.insert(0, first);
        }
        if record.sessions_forgotten() {
            let known = self.recent.known_sessions(slot, &record);
            let start = |minute: i32| Time::clamped(i64::from(minute) * MINUTE);
            let old = known.partition_point(|&minute| start(minute) < self.clock.floor(Class::Sessions));
            let oldest = known.get(old.saturating_sub(1)).map(|&minute| start(minute));
            reach.sessions = reach.sessions.max(oldest);
        }
        self.note_forgotten_extras(slot, reach);
        let moments: Vec<_> = orders.iter().map(|&order| Moment::new(order, &self.spec.zone)).collect();
        for (i, &s) in moments.iter().enumerate() {
            let before = |back: usize| i.checked_sub(back).map(|i| moments[i]);
            let term = OrderTerm { x: before(2), y: before(1), s };
            self.windows.iter_mut().for_each(|window| window.order(&term, Sign::Add));
            self.segments.order(record.profile, &term, Sign::Add);
            self.cohorts.of(moments[0]).order(term.y, s, Sign::Add);
        }
        if let Some(seen) = record.seen() {
            self.lifecycle.prospect(seen, record.first(), Sign::Add);
        }
        self.seed_stages(&orders, unknown);
        self.seed_visits(slot);
        self.seed_journal(slot);
        self.seed_extras(slot);
    }

    /// The time of a customer's first mention or complaint is forgotten once it is before the floor; from the floor on
    /// it is certain.
    fn note_forgotten_extras(&self, slot: Slot, reach: &mut Reach) {
        let record = self.customers.record(slot);
        let floor = self.clock.floor(Class::Orders);
        let is_forgotten = |what| self.extras.earliest(slot, record, what) == Some(Time::MIN);
        if is_forgotten(Rare::Mention) && !record.has(Mark::Referred) {
            reach.orders = reach.orders.max(Some(floor));
        }
        if is_forgotten(Rare::Complaint) {
            for (id, lost) in window_ids(&self.spec).zip(&mut reach.lost) {
                *lost = (*lost).max(self.spec.pane(id, floor));
            }
        }
    }

    /// Notes the reach of a customer with unknown orders: all from the oldest of `known` on are known. Before that the
    /// customer is certainly active as long as the first order counts.
    fn note_reach(&self, first: Time, known: &[Time], reach: &mut Reach) {
        let newest = self.clock.newest();
        reach.orders = reach.orders.max(known.get(1).copied().or(newest));
        let Some(oldest) = known.first().copied().or(newest) else { return };
        for (id, active) in window_ids(&self.spec).zip(&mut reach.active) {
            let pane = self.spec.pane(id, oldest);
            let lapses = self.spec.axis(id).lapses(self.spec.pane(id, first), self.spec.active_for(id));
            if lapses < pane {
                *active = (*active).max(pane);
            }
        }
    }

    /// Counts stages from the known orders; old transitions are unknown.
    fn seed_stages(&mut self, orders: &[Time], unknown: usize) {
        for (i, &order) in orders.iter().enumerate() {
            // The unknown orders are between the first and the second known order.
            let skipped = if i == 0 { 0 } else { unknown.saturating_sub(1) };
            let term = LifeTerm {
                first: orders[0],
                before: i.checked_sub(1).map(|i| orders[i]),
                order,
                rank: u32::try_from(i + 1 + skipped).unwrap_or(u32::MAX),
                after: orders.get(i + 1).copied(),
            };
            self.lifecycle.order(&term, Sign::Add);
        }
    }

    fn seed_visits(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        let minutes = self.recent.known_sessions(slot, self.customers.record(slot));
        let mut before = None;
        for minute in minutes {
            let at = Moment::new(Time::clamped(i64::from(minute) * MINUTE), &self.spec.zone);
            self.book_visit(belonging, before, at, Sign::Add);
            before = Some(at);
        }
    }

    /// Books sessions and money of young customers, so that they can be taken back if an earlier first order arrives.
    fn seed_journal(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        for entry in self.rebooking.of(slot).to_vec() {
            let at = Moment::new(entry.time, &self.spec.zone);
            let profile = belonging.at(entry.time);
            match entry.what {
                Booked::Session => self.segments.each(profile, |window| window.session(at, Sign::Add)),
                Booked::Money(flow, currency, minor) => {
                    let currency = usize::from(currency);
                    self.segments.money(profile, flow, currency, minor, at, Sign::Add);
                    if let Some(first) = belonging.first_by(entry.time) {
                        self.cohorts.of(first).money(flow, currency, minor, at, Sign::Add);
                    }
                }
            }
        }
    }

    /// Books rare events; of old ones only their existence is known.
    fn seed_extras(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        self.book_referral(slot, belonging, Sign::Add);
        self.book_coverage(slot, belonging, Sign::Add);
        self.book_complaint(slot, belonging, Sign::Add);
    }

    /// Folds the same panes as in the restored arrays.
    fn fold_seeded(&mut self) {
        if self.folded_at == Time::MIN {
            return;
        }
        for (i, window) in self.windows.iter_mut().enumerate().take(self.spec.rolling.len()) {
            window.fold_before(self.spec.pane(WindowId::Rolling(i), self.folded_at));
        }
        self.lifecycle.fold_before(self.folded_at);
    }
}
