//! Recent orders and sessions that do not fit into a record, so that late events find their neighbours.
//!
//! The engine knows, for every customer, all orders at or after the floor (before which no event is accepted any more)
//! and the two newest before it; of sessions one before it. The record holds the newest ones. The others are here; most
//! customers have none.

use hashbrown::HashMap;

use super::customers::Slot;
use super::record::Record;
use crate::event::Time;

type Hasher = foldhash::fast::FixedState;

/// Orders and session minutes older than those in the records, ascending, by customer.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    orders: HashMap<Slot, Vec<Time>, Hasher>,
    sessions: HashMap<Slot, Vec<i32>, Hasher>,
    sweep_orders_at: usize,
    sweep_sessions_at: usize,
}

/// Position of an order among the orders of its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderPlace {
    /// Number of newer orders.
    pub place: usize,
    /// The order after `s`.
    pub z: Option<Time>,
    /// The next order.
    pub s: Option<Time>,
    /// The order before.
    pub y: Option<Time>,
    /// The order before `y`.
    pub x: Option<Time>,
}

/// Position of a session among the customer's sessions, by minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPlace {
    /// Another session is in the same minute.
    Same,
    /// Between two minutes with sessions.
    Between {
        /// Minute of the session before.
        before: Option<i32>,
        /// Minute of the session after.
        after: Option<i32>,
    },
}

const SMALLEST_SWEEP: usize = 1024;

impl Recent {
    /// Finds the position of an order at `time`: after all that are not later. `None` if the orders before it are no
    /// longer known. That takes an event from before the floor, in a topic that begins long after the others.
    #[inline]
    #[must_use]
    pub fn place_order(&self, slot: Slot, record: &Record, time: Time, floor: Time) -> Option<OrderPlace> {
        if record.newest(0).is_none_or(|last| last <= time) {
            return Some(OrderPlace { place: 0, z: None, s: None, y: record.newest(0), x: record.newest(1) });
        }
        if time < floor && record.orders as usize > Record::NEWEST {
            return None;
        }
        self.place_late_order(slot, record, time)
    }

    #[cold]
    fn place_late_order(&self, slot: Slot, record: &Record, time: Time) -> Option<OrderPlace> {
        let older = self.orders.get(&slot).map_or(&[][..], Vec::as_slice);
        let known = (record.orders as usize).min(Record::NEWEST) + older.len();
        let nth = |index: usize| match index.checked_sub(Record::NEWEST) {
            None => record.newest(index),
            Some(rest) => older.len().checked_sub(rest + 1).map(|i| older[i]),
        };
        let place = (0..known).find(|&index| nth(index).is_some_and(|order| order <= time)).unwrap_or(known);
        let all_known = known == record.orders as usize;
        if !all_known && place + 2 > known {
            return None;
        }
        let before = |back: usize| place.checked_sub(back).and_then(nth);
        Some(OrderPlace { place, z: before(2), s: before(1), y: nth(place), x: nth(place + 1) })
    }

    /// Whether every order after `time` and the last one before it are known.
    #[must_use]
    pub fn knows_orders_since(&self, slot: Slot, record: &Record, time: Time, floor: Time) -> bool {
        let newest_reach = || (0..Record::NEWEST).any(|index| record.newest(index).is_some_and(|order| order <= time));
        let older = || self.orders.get(&slot).map_or(0, Vec::len);
        time >= floor || newest_reach() || record.orders as usize <= Record::NEWEST + older()
    }

    /// The `count` newest orders, oldest first, as far as known.
    #[must_use]
    pub fn newest_orders(&self, slot: Slot, record: &Record, count: usize) -> Vec<Time> {
        let older = self.orders.get(&slot).map_or(&[][..], Vec::as_slice);
        let in_record = (0..Record::NEWEST).filter_map(|index| record.newest(index));
        let mut orders: Vec<_> = in_record.chain(older.iter().rev().copied()).take(count).collect();
        orders.reverse();
        orders
    }

    /// Minutes of the known sessions, oldest first.
    #[must_use]
    pub fn known_sessions(&self, slot: Slot, record: &Record) -> Vec<i32> {
        let older = self.sessions.get(&slot).map_or(&[][..], Vec::as_slice);
        let in_record = record.session_before().into_iter().chain(record.last_session().map(minute_of));
        older.iter().copied().chain(in_record).collect()
    }

    /// Inserts an order into the record, and keeps the order that no longer fits there, if it is still needed.
    #[inline]
    pub fn insert_order(&mut self, slot: Slot, record: &mut Record, place: usize, time: Time, floor: Time) {
        let Some(displaced) = record.insert_order(place, time) else { return };
        // With two orders before the floor in the record, older ones cannot become neighbours any more.
        if record.newest(1).is_some_and(|second| second >= floor) {
            let older = self.orders.entry(slot).or_default();
            let at = older.partition_point(|&order| order <= displaced);
            older.insert(at, displaced);
        }
    }

    /// Removes the order that has `place` newer ones.
    pub fn take_order(&mut self, slot: Slot, record: &mut Record, place: usize) {
        let older = self.orders.get_mut(&slot);
        let third = match (older, place.checked_sub(Record::NEWEST)) {
            (Some(older), None) => older.pop(),
            (Some(older), Some(back)) => older.len().checked_sub(back + 1).map(|index| older.remove(index)),
            (None, _) => None,
        };
        record.take_order(place, third);
    }

    /// Removes the newest minute with sessions; the caller updates the number of sessions.
    pub fn take_session_minute(&mut self, slot: Slot, record: &mut Record) {
        let Some(before) = record.session_before() else { return };
        record.set_last_session(Time::clamped(i64::from(before) * crate::event::MINUTE));
        record.take_session_before(self.sessions.get_mut(&slot).and_then(Vec::pop));
    }

    /// Finds the position of a session in `minute`. `None` if the session before it is no longer known.
    #[inline]
    #[must_use]
    pub fn place_session(&self, slot: Slot, record: &Record, minute: i32, floor: Time) -> Option<SessionPlace> {
        let Some(last) = record.last_session().map(minute_of) else {
            return Some(SessionPlace::Between { before: None, after: None });
        };
        if minute > last {
            return Some(SessionPlace::Between { before: Some(last), after: None });
        }
        if minute == last {
            return Some(SessionPlace::Same);
        }
        if minute < minute_of(floor) && record.sessions_forgotten() {
            return None;
        }
        let older = self.sessions.get(&slot).map_or(&[][..], Vec::as_slice);
        let mut after = last;
        for known in record.session_before().into_iter().chain(older.iter().rev().copied()) {
            if minute == known {
                return Some(SessionPlace::Same);
            }
            if minute > known {
                return Some(SessionPlace::Between { before: Some(known), after: Some(after) });
            }
            after = known;
        }
        (!record.sessions_forgotten()).then_some(SessionPlace::Between { before: None, after: Some(after) })
    }

    /// Inserts a session in a minute without sessions.
    #[inline]
    pub fn insert_session(&mut self, slot: Slot, record: &mut Record, time: Time, floor: Time) {
        let minute = minute_of(time);
        let last = record.last_session();
        if last.is_none_or(|last| time > last) {
            record.set_last_session(time);
        }
        let newly_before = match last.map(minute_of) {
            None => return,
            Some(last) if minute > last => last,
            Some(_) => minute,
        };
        let displaced = match record.session_before() {
            Some(before) if before > newly_before => Some(newly_before),
            _ => record.set_session_before(newly_before),
        };
        let Some(displaced) = displaced else { return };
        if record.session_before().is_some_and(|before| before >= minute_of(floor)) {
            let older = self.sessions.entry(slot).or_default();
            let at = older.partition_point(|&minute| minute < displaced);
            older.insert(at, displaced);
        } else {
            record.forget_sessions();
        }
    }

    /// The customers with entries; some of them twice.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.orders.keys().chain(self.sessions.keys()).copied()
    }

    /// The entries of a customer: orders and minutes of sessions.
    #[must_use]
    pub fn of(&self, slot: Slot) -> (&[Time], &[i32]) {
        let Recent { orders, sessions, sweep_orders_at: _, sweep_sessions_at: _ } = self;
        let orders = orders.get(&slot).map_or(&[][..], Vec::as_slice);
        (orders, sessions.get(&slot).map_or(&[][..], Vec::as_slice))
    }

    /// Restores the entries that [`Recent::of`] returned.
    pub fn restore(&mut self, slot: Slot, orders: Vec<Time>, sessions: Vec<i32>) {
        if !orders.is_empty() {
            self.orders.insert(slot, orders);
        }
        if !sessions.is_empty() {
            self.sessions.insert(slot, sessions);
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.orders.remove(&slot);
        self.sessions.remove(&slot);
    }

    /// Removes orders and sessions that are too old to become neighbours, once a map has doubled, so that the cost per
    /// entry is constant. Returns the customers whose sessions were forgotten.
    #[inline]
    pub fn sweep<'a>(
        &mut self,
        record: impl Fn(Slot) -> &'a Record,
        orders_floor: Time,
        sessions_floor: Time,
    ) -> Vec<Slot> {
        if self.orders.len() >= self.sweep_orders_at.max(SMALLEST_SWEEP) {
            self.orders.retain(|&slot, older| keep_orders(record(slot), older, orders_floor));
            self.sweep_orders_at = 2 * self.orders.len();
            self.orders.shrink_to(self.sweep_orders_at);
        }
        if self.sessions.len() < self.sweep_sessions_at.max(SMALLEST_SWEEP) {
            return Vec::new();
        }
        let mut forgotten = Vec::new();
        let floor = minute_of(sessions_floor);
        self.sessions.retain(|&slot, older| {
            let before = older.len();
            let kept = keep_sessions(record(slot), older, floor);
            if older.len() < before {
                forgotten.push(slot);
            }
            kept
        });
        self.sweep_sessions_at = 2 * self.sessions.len();
        self.sessions.shrink_to(self.sweep_sessions_at);
        forgotten
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.orders.values().map(|times| times.capacity() * size_of::<Time>()).sum::<usize>()
            + self.sessions.values().map(|minutes| minutes.capacity() * size_of::<i32>()).sum::<usize>();
        self.orders.allocation_size() + self.sessions.allocation_size() + vectors
    }
}

/// Removes the orders of an entry that have two known orders between them and the floor. `false` if none remains.
fn keep_orders(record: &Record, older: &mut Vec<Time>, floor: Time) -> bool {
    let old_in_record = (0..Record::NEWEST).filter_map(|i| record.newest(i)).filter(|&order| order < floor).count();
    let old_here = older.partition_point(|&order| order < floor);
    let needed = 2_usize.saturating_sub(old_in_record);
    older.drain(..old_here.saturating_sub(needed));
    !older.is_empty()
}

/// The same for sessions, where one before the floor is enough.
fn keep_sessions(record: &Record, older: &mut Vec<i32>, floor: i32) -> bool {
    let known_old = record.session_before().is_some_and(|before| before < floor);
    let old_here = older.partition_point(|&minute| minute < floor);
    older.drain(..old_here.saturating_sub(usize::from(!known_old)));
    !older.is_empty()
}

fn minute_of(time: Time) -> i32 {
    i32::try_from(time.millis() / crate::event::MINUTE).unwrap_or(i32::MAX)
}
