//! Customers in a checkpoint: copies of their records and ids, and their data in the side tables.

use std::borrow::Cow;

use super::plain::{Reader, put_number, put_signed};
use super::{deeds, silences};
use crate::engine::ahead::Deed;
use crate::engine::customers::Arena;
use crate::engine::days::DaySum;
use crate::engine::inactivity::table::Silences;
use crate::engine::rebooking::{Booked, Entry};
use crate::engine::record::{KeyTag, Known, Record};
use crate::engine::window::Flow;
use crate::engine::zone::Day;
use crate::event::Time;

/// Customers without duplicates.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Customers that were copied in turn, by slot.
    in_turn: Copies,
    /// Customers that were copied early because they were about to change, in that order.
    early: Copies,
}

/// Copies of records, in the order in which they were taken.
#[derive(Debug, Clone, Default)]
struct Copies {
    slots: Vec<u32>,
    records: Vec<Record>,
    ids: Arena,
    /// Row and end in `bytes` of the data in side tables, for the few customers with any.
    side_state: Vec<(u32, usize)>,
    bytes: Vec<u8>,
}

impl Copies {
    #[inline]
    fn push(&mut self, slot: u32, record: &Record, ids: &Arena) {
        self.slots.push(slot);
        self.records.push(self.ids.adopt(record, ids));
    }

    /// Adds data of the side tables for a row after all earlier ones.
    fn add_side_state(&mut self, row: usize, side_state: &SideState) {
        side_state.encode(&mut self.bytes);
        self.side_state.push((u32::try_from(row).unwrap_or(u32::MAX), self.bytes.len()));
    }

    /// Returns a row; `place` is the index in `side_state` at which to look, and is advanced for the next row.
    fn row(&self, row: usize, place: &mut usize) -> Row<'_> {
        let (slot, record) = (self.slots[row], &self.records[row]);
        let ends = |place: usize| if place == 0 { 0 } else { self.side_state[place - 1].1 };
        let side_state = match self.side_state.get(*place) {
            Some(&(of, end)) if of as usize == row => {
                let bytes = &self.bytes[ends(*place)..end];
                *place += 1;
                bytes
            }
            _ => &[],
        };
        let id = (record.tag != KeyTag::FREE).then(|| self.ids.id(record));
        Row { slot, id, known: record.known(), side_state }
    }
}

/// One customer in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// Number of the slot.
    pub slot: u32,
    /// The customer's id; `None` if the slot is free now.
    pub id: Option<Cow<'a, str>>,
    /// Data of the record.
    pub known: Known,
    /// Data of the side tables, encoded by [`SideState::encode`]; empty without any.
    pub side_state: &'a [u8],
}

impl Rows {
    /// Reserves memory for `rows` rows.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Rows {
        let in_turn =
            Copies { slots: Vec::with_capacity(rows), records: Vec::with_capacity(rows), ..Copies::default() };
        Rows { in_turn, ..Rows::default() }
    }

    /// Appends a slot, which may be free, after all others that were copied in turn.
    #[inline]
    pub fn push(&mut self, slot: u32, record: &Record, ids: &Arena) {
        self.in_turn.push(slot, record, ids);
    }

    /// Adds the data of the side tables for slots for which `is_aside` is true, from the `from`-th row in turn on.
    pub fn add_side_state(&mut self, from: usize, is_aside: impl Fn(u32) -> bool, of: impl Fn(u32) -> SideState) {
        for row in from..self.in_turn.slots.len() {
            let slot = self.in_turn.slots[row];
            if is_aside(slot) {
                self.in_turn.add_side_state(row, &of(slot));
            }
        }
    }

    /// Number of slots that were copied in turn.
    #[must_use]
    pub fn in_turn(&self) -> usize {
        self.in_turn.slots.len()
    }

    /// Adds a slot out of turn, which may be free, with its data in the side tables.
    pub fn push_early(&mut self, slot: u32, record: &Record, ids: &Arena, side_state: Option<&SideState>) {
        self.early.push(slot, record, ids);
        if let Some(side_state) = side_state {
            self.early.add_side_state(self.early.slots.len() - 1, side_state);
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_turn.slots.len() + self.early.slots.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots, in any order.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.in_turn.slots.iter().chain(&self.early.slots).copied()
    }

    /// The customers by slot. Those copied out of turn are sorted only here, so that sorting does not delay the copy.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let mut order: Vec<u32> = (0..).zip(&self.early.slots).map(|(row, _)| row).collect();
        order.sort_unstable_by_key(|&row| self.early.slots[row as usize]);
        let (mut row, mut place, mut early) = (0, 0, order.into_iter().peekable());
        std::iter::from_fn(move || {
            let next = self.in_turn.slots.get(row);
            let slot_of = |row: u32| self.early.slots[row as usize];
            if let Some(out_of_turn) = early.next_if(|&early| next.is_none_or(|&next| slot_of(early) < next)) {
                let mut place = self.early.side_state.partition_point(|&(of, _)| of < out_of_turn);
                return Some(self.early.row(out_of_turn as usize, &mut place));
            }
            next?;
            row += 1;
            Some(self.in_turn.row(row - 1, &mut place))
        })
    }
}

/// Data of one customer in the side tables.
///
/// A new side table needs a field here, and code in [`SideState::encode`], [`SideState::decode`] and the two functions
/// of the engine that fill and restore it; without these, compilation fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SideState {
    /// Orders older than those in the record, ascending.
    pub orders: Vec<Time>,
    /// Minutes of sessions older than those in the record, ascending.
    pub sessions: Vec<i32>,
    /// Entries to book again if an earlier first order arrives, in log order.
    pub rebooking: Vec<Entry>,
    /// Times of the earliest mention, complaint and cost, as long as they matter.
    pub extras: [Option<Time>; 3],
    /// Net revenue in currencies other than the first, in minor units by the number of the currency.
    pub further: Vec<(u8, i64)>,
    /// Silences in progress.
    pub silences: Silences,
    /// Events ahead of the slowest topic, in log order.
    pub ahead: Vec<Deed>,
    /// Payments on the days that can still change.
    pub days: Vec<DaySum>,
}

/// Numbers of the parts of the encoding.
mod part {
    pub const ORDERS: u64 = 1;
    pub const SESSIONS: u64 = 2;
    pub const JOURNAL: u64 = 3;
    pub const EXTRAS: u64 = 4;
    pub const FURTHER: u64 = 5;
    pub const COMEBACKS: u64 = 6;
    pub const OPEN: u64 = 7;
    pub const NOTICES: u64 = 8;
    pub const AHEAD: u64 = 9;
    pub const DAYS: u64 = 10;
}

/// Kinds of entries to book again.
mod booked {
    pub const SESSION: u64 = 0;
    pub const ORDER: u64 = 1;
    pub const REFUND: u64 = 2;
    pub const CANCELLATION: u64 = 3;
    pub const AMOUNT: u64 = 4;
    pub const COUNT: u64 = 5;
}

impl SideState {
    /// Appends the encoding: for each part that is not empty its number, the number of elements, and the elements.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let SideState { orders, sessions, rebooking, extras, further, silences, ahead, days } = self;
        encode_part(out, part::ORDERS, orders, |out, order| put_signed(out, order.millis()));
        encode_part(out, part::SESSIONS, sessions, |out, &minute| put_signed(out, i64::from(minute)));
        encode_part(out, part::JOURNAL, rebooking, |out, entry| {
            put_signed(out, entry.time.millis());
            let (what, money) = match entry.what {
                Booked::Session => (booked::SESSION, None),
                Booked::Money(Flow::Order, currency, minor) => (booked::ORDER, Some((currency, minor))),
                Booked::Money(Flow::Refund, currency, minor) => (booked::REFUND, Some((currency, minor))),
                Booked::Money(Flow::Cancellation, currency, minor) => (booked::CANCELLATION, Some((currency, minor))),
                Booked::Money(Flow::Amount, currency, minor) => (booked::AMOUNT, Some((currency, minor))),
                Booked::Money(Flow::Count, currency, minor) => (booked::COUNT, Some((currency, minor))),
            };
            put_number(out, what);
            if let Some((currency, minor)) = money {
                put_number(out, u64::from(currency));
                put_signed(out, minor);
            }
        });
        let extras: Vec<_> = (0_u64..).zip(extras).filter_map(|(what, time)| Some((what, (*time)?))).collect();
        encode_part(out, part::EXTRAS, &extras, |out, &(what, time)| {
            put_number(out, what);
            put_signed(out, time.millis());
        });
        encode_part(out, part::FURTHER, further, |out, &(currency, minor)| {
            put_number(out, u64::from(currency));
            put_signed(out, minor);
        });
        let Silences { winback_candidates, open, notices } = silences;
        encode_part(out, part::COMEBACKS, winback_candidates, silences::put_comeback);
        encode_part(out, part::OPEN, open, silences::put_open);
        encode_part(out, part::NOTICES, notices, silences::put_notice);
        encode_part(out, part::AHEAD, ahead, deeds::put_deed);
        encode_part(out, part::DAYS, days, put_day);
    }

    /// The inverse of [`SideState::encode`]; `None` for other bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<SideState> {
        let mut reader = Reader::new(bytes);
        let mut side_state = SideState::default();
        while !reader.is_empty() {
            let (part, len) = (reader.number()?, reader.len()?);
            for _ in 0..len {
                match part {
                    part::ORDERS => side_state.orders.push(take_time(&mut reader)?),
                    part::SESSIONS => side_state.sessions.push(i32::try_from(reader.signed()?).ok()?),
                    part::JOURNAL => side_state.rebooking.push(take_entry(&mut reader)?),
                    part::EXTRAS => {
                        let what = usize::try_from(reader.number()?).ok()?;
                        *side_state.extras.get_mut(what)? = Some(take_time(&mut reader)?);
                    }
                    part::FURTHER => {
                        let currency = u8::try_from(reader.number()?).ok()?;
                        side_state.further.push((currency, reader.signed()?));
                    }
                    part::COMEBACKS => {
                        side_state.silences.winback_candidates.push(silences::take_comeback(&mut reader)?)
                    }
                    part::OPEN => side_state.silences.open.push(silences::take_open(&mut reader)?),
                    part::NOTICES => side_state.silences.notices.push(silences::take_notice(&mut reader)?),
                    part::AHEAD => side_state.ahead.push(deeds::take_deed(&mut reader)?),
                    part::DAYS => side_state.days.push(take_day(&mut reader)?),
                    _ => return None,
                }
            }
        }
        Some(side_state)
    }
}

fn encode_part<T>(out: &mut Vec<u8>, part: u64, all: &[T], encode: impl Fn(&mut Vec<u8>, &T)) {
    if !all.is_empty() {
        put_number(out, part);
        put_number(out, all.len() as u64);
        all.iter().for_each(|one| encode(out, one));
    }
}

fn take_time(reader: &mut Reader<'_>) -> Option<Time> {
    Time::from_millis(reader.signed()?).ok()
}

fn put_day(out: &mut Vec<u8>, sum: &DaySum) {
    let &DaySum { day, currency, first, orders, minor } = sum;
    put_signed(out, i64::from(day));
    put_number(out, u64::from(currency));
    put_signed(out, first.millis());
    put_number(out, u64::from(orders));
    put_signed(out, minor);
}

fn take_day(reader: &mut Reader<'_>) -> Option<DaySum> {
    Some(DaySum {
        day: Day::try_from(reader.signed()?).ok()?,
        currency: u8::try_from(reader.number()?).ok()?,
        first: take_time(reader)?,
        orders: u32::try_from(reader.number()?).ok()?,
        minor: reader.signed()?,
    })
}

fn take_entry(reader: &mut Reader<'_>) -> Option<Entry> {
    let time = take_time(reader)?;
    let flow = match reader.number()? {
        booked::SESSION => return Some(Entry { time, what: Booked::Session }),
        booked::ORDER => Flow::Order,
        booked::REFUND => Flow::Refund,
        booked::CANCELLATION => Flow::Cancellation,
        booked::AMOUNT => Flow::Amount,
        booked::COUNT => Flow::Count,
        _ => return None,
    };
    let currency = u8::try_from(reader.number()?).ok()?;
    Some(Entry { time, what: Booked::Money(flow, currency, reader.signed()?) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let flow = prop::sample::select(vec![Flow::Order, Flow::Refund, Flow::Cancellation, Flow::Amount, Flow::Count]);
        let what = prop_oneof![
            Just(Booked::Session),
            (flow, any::<u8>(), any::<i64>()).prop_map(|(flow, currency, minor)| Booked::Money(flow, currency, minor)),
        ];
        (0..Time::MAX.millis(), what).prop_map(|(time, what)| Entry { time: Time::clamped(time), what })
    }

    fn day() -> impl Strategy<Value = DaySum> {
        let sum = (any::<Day>(), any::<u8>(), 0..Time::MAX.millis(), any::<u32>(), any::<i64>());
        sum.prop_map(|(day, currency, first, orders, minor)| DaySum {
            day,
            currency,
            first: Time::clamped(first),
            orders,
            minor,
        })
    }

    proptest! {
        #[test]
        fn what_lies_aside_survives(
            orders in prop::collection::vec(0..Time::MAX.millis(), 0..9),
            sessions in prop::collection::vec(any::<i32>(), 0..9),
            rebooking in prop::collection::vec(entry(), 0..9),
            extras in any::<[Option<i64>; 3]>(),
            further in prop::collection::vec(any::<(u8, i64)>(), 0..4),
            silences in silences::tests::silences(),
            ahead in prop::collection::vec(deeds::tests::deed(), 0..4),
            days in prop::collection::vec(day(), 0..4),
        ) {
            let orders = orders.into_iter().map(Time::clamped).collect();
            let extras = extras.map(|time| time.map(Time::clamped));
            let side_state = SideState { orders, sessions, rebooking, extras, further, silences, ahead, days };
            let mut bytes = Vec::new();
            side_state.encode(&mut bytes);
            prop_assert_eq!(bytes.is_empty(), side_state == SideState::default());
            prop_assert_eq!(SideState::decode(&bytes), Some(side_state.clone()));
            for len in 0..bytes.len() {
                prop_assert_ne!(SideState::decode(&bytes[..len]), Some(side_state.clone()));
            }
        }

        #[test]
        fn nonsense_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            _ = SideState::decode(&bytes);
        }
    }
}
