//! The data kept per customer: 80 bytes, including the key.

use super::segments::Profile;
use crate::event::Time;

/// A time in 48 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Time48([u16; 3]);

impl Time48 {
    #[inline]
    fn pack(time: Time) -> Time48 {
        let millis = time.millis().cast_unsigned();
        Time48([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16])
    }

    #[inline]
    fn unpack(self) -> Time {
        let [low, middle, high] = self.0.map(i64::from);
        Time::clamped(low | middle << 16 | high << 32)
    }
}

/// Encoding of the 16 key bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyTag(u8);

impl KeyTag {
    /// Length of the longest id that is stored inline.
    pub const INLINE: usize = 16;
    /// The sixteen bytes of a UUID in lower-case spelling.
    pub const UUID: KeyTag = KeyTag(17);
    /// A position in the arena.
    pub const ARENA: KeyTag = KeyTag(18);
    /// An erased customer: a hash of the id, and the time of the erasure.
    pub const ERASED: KeyTag = KeyTag(19);
    /// A free slot.
    pub const FREE: KeyTag = KeyTag(u8::MAX);

    /// An inline id of `len` bytes, at most [`KeyTag::INLINE`].
    #[must_use]
    pub fn inline(len: usize) -> KeyTag {
        debug_assert!(len <= Self::INLINE);
        KeyTag(len as u8)
    }

    /// The length of an inline id; `None` for other encodings.
    #[must_use]
    pub fn inline_len(self) -> Option<usize> {
        (usize::from(self.0) <= Self::INLINE).then_some(usize::from(self.0))
    }

    /// A number for hashing.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Record of one customer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    /// The id or its position, see `tag`.
    pub key: [u8; 16],
    /// Encoding of `key`.
    pub tag: KeyTag,
    flags: u8,
    first: Time48,
    /// The newest orders, newest first.
    newest: [Time48; 3],
    last_session: Time48,
    seen: Time48,
    /// The customer's value of each dimension.
    pub profile: Profile,
    /// Number of orders.
    pub orders: u32,
    /// Number of sessions.
    pub sessions: u32,
    /// Minute of the newest session in an earlier minute than the last one.
    session_before: i32,
    /// The number of the first currency plus one; 0 before any payment.
    currency: u8,
    /// Net revenue to date in that currency, in minor units.
    net_revenue: i64,
}

const SEEN: u8 = 4;
const SESSION_BEFORE: u8 = 1;
const SESSIONS_FORGOTTEN: u8 = 2;
/// The bits in between are those of [`Mark`].
const CHANGED: u8 = 128;

/// The data of a customer as files store them: everything in a [`Record`] except the id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Number of orders.
    pub orders: u32,
    /// Number of sessions.
    pub sessions: u32,
    /// The first order.
    pub first: Option<Time>,
    /// The newest orders, newest first.
    pub newest: [Option<Time>; Record::NEWEST],
    /// The newest session.
    pub last_session: Option<Time>,
    /// Minute of the newest session in an earlier minute than the last one.
    pub session_before: Option<i32>,
    /// Whether older sessions were forgotten.
    pub sessions_forgotten: bool,
    /// Time of the first event.
    pub seen: Option<Time>,
    /// The customer's value of each dimension.
    pub profile: Profile,
    /// Flags that only few customers have.
    pub marks: MarkSet,
    /// The number of the first currency and the net revenue in it, in minor units; `None` before any payment.
    pub net_revenue: Option<(u8, i64)>,
}

/// A set of [`Mark`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MarkSet(u8);

impl MarkSet {
    /// Whether the set contains a mark.
    #[must_use]
    pub fn has(self, mark: Mark) -> bool {
        self.0 & mark as u8 != 0
    }

    /// Adds a mark if `on`.
    #[must_use]
    pub fn with(self, mark: Mark, on: bool) -> MarkSet {
        MarkSet(self.0 | if on { mark as u8 } else { 0 })
    }
}

/// Flags that only few customers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The first order names a referrer.
    Referred = 8,
    /// A profile names a referrer.
    Mentioned = 16,
    /// The customer has complained.
    Complained = 32,
    /// The customer has a cost.
    Costed = 64,
}

const MARKS: u8 = Mark::Referred as u8 | Mark::Mentioned as u8 | Mark::Complained as u8 | Mark::Costed as u8;

impl Record {
    /// Number of newest orders in the record itself.
    pub const NEWEST: usize = 3;

    /// The record of a customer without events.
    #[must_use]
    pub fn new(key: [u8; 16], tag: KeyTag) -> Record {
        Record { key, tag, ..Record::default() }
    }

    /// Everything but the id.
    #[must_use]
    pub fn known(&self) -> Known {
        // All fields are listed, so that a new one causes a compile error here. The accessors know which packed times
        // are valid.
        let Record {
            key: _,
            tag: _,
            flags: _,
            first: _,
            newest: _,
            last_session: _,
            seen: _,
            profile,
            orders,
            sessions,
            session_before: _,
            currency: _,
            net_revenue: _,
        } = *self;
        Known {
            orders,
            sessions,
            first: self.first(),
            newest: std::array::from_fn(|index| self.newest(index)),
            last_session: self.last_session(),
            session_before: self.session_before(),
            sessions_forgotten: self.sessions_forgotten(),
            seen: self.seen(),
            profile,
            marks: MarkSet(self.flags & MARKS),
            net_revenue: self.net_revenue(),
        }
    }

    /// The record from which [`Record::known`] was taken.
    #[must_use]
    pub fn from_known(key: [u8; 16], tag: KeyTag, known: &Known) -> Record {
        let &Known {
            orders,
            sessions,
            first,
            newest,
            last_session,
            session_before,
            sessions_forgotten,
            seen,
            profile,
            marks: MarkSet(marks),
            net_revenue,
        } = known;
        let (currency, net_revenue) = net_revenue.map_or((0, 0), |(number, minor)| (number.saturating_add(1), minor));
        let pack = |time: Option<Time>| time.map_or(Time48::default(), Time48::pack);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        Record {
            key,
            tag,
            flags: flag(seen.is_some(), SEEN)
                | flag(session_before.is_some(), SESSION_BEFORE)
                | flag(sessions_forgotten, SESSIONS_FORGOTTEN)
                | marks,
            first: pack(first),
            newest: newest.map(pack),
            last_session: pack(last_session),
            seen: pack(seen),
            profile,
            orders,
            sessions,
            session_before: session_before.unwrap_or(0),
            currency,
            net_revenue,
        }
    }

    /// Whether the record was changed since [`Record::set_unchanged`].
    #[inline]
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.flags & CHANGED != 0
    }

    /// Notes a change.
    #[inline]
    pub fn set_changed(&mut self) {
        self.flags |= CHANGED;
    }

    /// Notes that the record was written.
    #[inline]
    pub fn set_unchanged(&mut self) {
        self.flags &= !CHANGED;
    }

    /// The time of the `index`-th newest order, counted from 0; `None` if there is none or it is not in the record.
    #[inline]
    #[must_use]
    pub fn newest(&self, index: usize) -> Option<Time> {
        (index < self.orders as usize).then(|| self.newest.get(index).map(|time| time.unpack())).flatten()
    }

    /// The time of the first order.
    #[must_use]
    pub fn first(&self) -> Option<Time> {
        (self.orders > 0).then(|| self.first.unpack())
    }

    /// Inserts an order at a position among the newest, or right after them, and counts it. Returns the order that no
    /// longer fits into the record.
    #[inline]
    pub fn insert_order(&mut self, place: usize, time: Time) -> Option<Time> {
        if self.orders == 0 || time < self.first.unpack() {
            self.first = Time48::pack(time);
        }
        let full = self.orders as usize >= Self::NEWEST;
        self.orders += 1;
        if place >= Self::NEWEST {
            return Some(time);
        }
        let displaced = full.then(|| self.newest[Self::NEWEST - 1].unpack());
        self.newest.copy_within(place..Self::NEWEST - 1, place + 1);
        self.newest[place] = Time48::pack(time);
        displaced
    }

    /// Removes the order at a position among the newest or after them. If it is among them, `third` is the order that
    /// becomes the third newest. If that order is no longer known, the first order takes its place; no order will be
    /// inserted before it any more.
    pub fn take_order(&mut self, place: usize, third: Option<Time>) {
        if place < Self::NEWEST {
            self.newest.copy_within(place + 1.., place);
            self.newest[Self::NEWEST - 1] = third.map_or(self.first, Time48::pack);
        }
        self.orders = self.orders.saturating_sub(1);
    }

    /// Adds an amount in minor units. `false`, without a change, if the customer's first currency is another one.
    #[inline]
    pub fn add_net_revenue(&mut self, currency: u8, minor: i64) -> bool {
        let tag = currency.saturating_add(1);
        if self.currency == 0 {
            self.currency = tag;
        }
        let is_first = self.currency == tag;
        if is_first {
            self.net_revenue += minor;
        }
        is_first
    }

    /// The number of the first currency and the net revenue in it; `None` before any payment.
    #[must_use]
    pub fn net_revenue(&self) -> Option<(u8, i64)> {
        Some((self.currency.checked_sub(1)?, self.net_revenue))
    }

    /// The time of the first event.
    #[must_use]
    pub fn seen(&self) -> Option<Time> {
        (self.flags & SEEN != 0).then(|| self.seen.unpack())
    }

    /// Sets the time of the first event.
    pub fn set_seen(&mut self, time: Time) {
        self.flags |= SEEN;
        self.seen = Time48::pack(time);
    }

    /// The time of the newest session.
    #[must_use]
    pub fn last_session(&self) -> Option<Time> {
        (self.sessions > 0).then(|| self.last_session.unpack())
    }

    /// Sets the time of the newest session.
    pub fn set_last_session(&mut self, time: Time) {
        self.last_session = Time48::pack(time);
    }

    /// Minute of the newest session in an earlier minute than the last one.
    #[must_use]
    pub fn session_before(&self) -> Option<i32> {
        (self.flags & SESSION_BEFORE != 0).then_some(self.session_before)
    }

    /// Sets that minute and returns the old one.
    pub fn set_session_before(&mut self, minute: i32) -> Option<i32> {
        let displaced = self.session_before();
        self.flags |= SESSION_BEFORE;
        self.session_before = minute;
        displaced
    }

    /// Replaces that minute by `before`, the one before it.
    pub fn take_session_before(&mut self, before: Option<i32>) {
        self.flags &= !SESSION_BEFORE;
        if let Some(minute) = before {
            self.set_session_before(minute);
        }
    }

    /// Whether the record has any mark.
    #[inline]
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.flags & MARKS != 0
    }

    /// Whether the customer has a mark.
    #[inline]
    #[must_use]
    pub fn has(&self, mark: Mark) -> bool {
        self.flags & mark as u8 != 0
    }

    /// Sets or clears a mark.
    pub fn set(&mut self, mark: Mark, on: bool) {
        self.flags &= !(mark as u8);
        self.flags |= if on { mark as u8 } else { 0 };
    }

    /// Whether sessions were forgotten that are older than those in the record and the side table.
    #[must_use]
    pub fn sessions_forgotten(&self) -> bool {
        self.flags & SESSIONS_FORGOTTEN != 0
    }

    /// Notes that older sessions were forgotten.
    pub fn forget_sessions(&mut self) {
        self.flags |= SESSIONS_FORGOTTEN;
    }
}

const _: () = assert!(
    (SEEN | SESSION_BEFORE | SESSIONS_FORGOTTEN) & MARKS == 0
        && (SEEN | SESSION_BEFORE | SESSIONS_FORGOTTEN | MARKS) & CHANGED == 0,
    "no two flags share a bit"
);
const _: () = assert!(size_of::<Record>() <= 80, "a customer must fit into 100 bytes, table included");

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Time {
        Time::clamped(millis)
    }

    #[test]
    fn times_survive_packing() {
        for millis in [0, 1, 65_535, 65_536, 1_767_323_045_678, Time::MAX.millis()] {
            assert_eq!(Time48::pack(at(millis)).unpack(), at(millis));
        }
    }

    #[test]
    fn orders_move_down_and_out() {
        let mut record = Record::new([0; 16], KeyTag::inline(3));
        assert_eq!(record.first(), None);
        assert_eq!(record.insert_order(0, at(30)), None);
        assert_eq!(record.insert_order(0, at(50)), None);
        assert_eq!(record.insert_order(1, at(40)), None);
        assert_eq!(
            (0..4).map(|i| record.newest(i)).collect::<Vec<_>>(),
            [Some(at(50)), Some(at(40)), Some(at(30)), None]
        );
        assert_eq!(record.insert_order(1, at(45)), Some(at(30)));
        assert_eq!(record.insert_order(3, at(20)), Some(at(20)));
        assert_eq!((record.first(), record.orders), (Some(at(20)), 5));
    }
}
