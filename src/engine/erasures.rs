//! Erased customers, and when they were erased, as long as earlier events may arrive.
//!
//! An erasure has a time. Events up to that time, from any topic and in any order of arrival, belong to the erased
//! customer; later ones belong to a new customer with the same id. So figures do not depend on the order in which
//! topics are read. Of an erased customer the engine keeps a hash of the id, the time of the erasure, and the record,
//! with an [`Identity`] instead of the id. All of it is removed once no topic can deliver an event from before the
//! erasure.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::Engine;
use super::ahead::Deed;
use super::axis::Moment;
use super::booking::Round;
use super::customers::{Key, Slot};
use crate::event::{Event, MINUTE, Time};

/// Replaces the id of an erased customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// A hash of the id.
    pub hash: u64,
    /// Time of the erasure; events up to and including it belong to this customer.
    pub at: Time,
    /// Whether the customer is in the hold-out.
    pub held_out: bool,
}

impl Identity {
    /// Hash (8 bytes), time in milliseconds (6), whether held out (1), zero (1).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..14].copy_from_slice(&self.at.millis().to_le_bytes()[..6]);
        bytes[14] = u8::from(self.held_out);
        bytes
    }

    /// The inverse of [`Identity::to_bytes`].
    #[must_use]
    pub fn of_bytes(bytes: &[u8; 16]) -> Identity {
        let half = |from: usize| bytes[from..].first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        let at = i64::try_from(half(8) & 0xFFFF_FFFF_FFFF).unwrap_or(i64::MAX);
        Identity { hash: half(0), at: Time::clamped(at), held_out: bytes[14] != 0 }
    }

    /// Text in files: a byte 0, the hash, the time, and whether the customer is held out.
    #[must_use]
    pub fn text(&self) -> String {
        format!("\0{:016x}{:012x}{}", self.hash, self.at.millis(), u8::from(self.held_out))
    }

    /// The inverse of [`Identity::text`]; `None` for other texts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Identity> {
        let hex = text.strip_prefix('\0').filter(|hex| hex.len() == 29)?;
        let [hash, at, held_out] = [0..16, 16..28, 28..29].map(|part| u64::from_str_radix(hex.get(part)?, 16).ok());
        let at = Time::from_millis(i64::try_from(at?).ok()?).ok()?;
        Some(Identity { hash: hash?, at, held_out: held_out? != 0 })
    }
}

/// An erasure, as files store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErasureState {
    /// A hash of the id.
    pub hash: u64,
    /// Time of the erasure in epoch milliseconds.
    pub at: i64,
    /// Whether the customer is in the hold-out.
    pub held_out: bool,
}

type Times = SmallVec<[(Time, bool); 1]>;

/// The erasures that may still matter.
#[derive(Debug, Clone)]
pub struct Erasures {
    /// Times of erasures and whether the customer is held out, ascending, by hash of the id.
    times: HashMap<u64, Times, foldhash::fast::FixedState>,
    /// Time of the oldest erasure, or earlier.
    oldest: Time,
}

impl Default for Erasures {
    fn default() -> Erasures {
        Erasures { times: HashMap::default(), oldest: Time::MAX }
    }
}

impl Erasures {
    /// The erased customer to whom an event belongs: the first erasure at or after it. `None` if there is none.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, time: Time) -> Option<Identity> {
        if self.times.is_empty() {
            return None;
        }
        let times = self.times.get(&hash)?;
        let &(at, held_out) = times.iter().find(|(at, _)| *at >= time)?;
        Some(Identity { hash, at, held_out })
    }

    /// Adds an erasure.
    pub fn add(&mut self, Identity { hash, at, held_out }: Identity) {
        self.oldest = self.oldest.min(at);
        let times = self.times.entry(hash).or_insert_with(|| smallvec![]);
        if let Err(place) = times.binary_search_by_key(&at, |(at, _)| *at) {
            times.insert(place, (at, held_out));
        }
    }

    /// Whether there are erasures before `limit`.
    #[inline]
    #[must_use]
    pub fn has_before(&self, limit: Time) -> bool {
        self.oldest < limit && !self.times.is_empty()
    }

    /// Removes and returns the erasures before `limit`.
    pub fn take_before(&mut self, limit: Time) -> Vec<Identity> {
        let mut taken = Vec::new();
        let mut oldest = Time::MAX;
        self.times.retain(|&hash, times| {
            let old = times.iter().take_while(|(at, _)| *at < limit).count();
            taken.extend(times.drain(..old).map(|(at, held_out)| Identity { hash, at, held_out }));
            if let Some((at, _)) = times.first() {
                oldest = oldest.min(*at);
            }
            !times.is_empty()
        });
        self.times.shrink_to(2 * self.times.len());
        self.oldest = oldest;
        taken
    }

    /// The state for files, in a fixed order.
    #[must_use]
    pub fn state(&self) -> Vec<ErasureState> {
        let of = |(&hash, times): (&u64, &Times)| -> SmallVec<[ErasureState; 1]> {
            times.iter().map(|&(at, held_out)| ErasureState { hash, at: at.millis(), held_out }).collect()
        };
        let mut all: Vec<_> = self.times.iter().flat_map(of).collect();
        all.sort_unstable_by_key(|erasure| (erasure.at, erasure.hash));
        all
    }

    /// Restores what [`Erasures::state`] returned.
    pub fn resume(&mut self, state: &[ErasureState]) {
        for &ErasureState { hash, at, held_out } in state {
            self.add(Identity { hash, at: Time::clamped(at), held_out });
        }
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.times.allocation_size()
    }
}

impl Engine {
    /// Keeps an event that is ahead of other topics, or up to a minute behind that, because visits count by the minute.
    pub(super) fn keep_ahead(&mut self, slot: Slot, event: &Event<'_>) {
        let limit = self.clock.ahead_of().plus(-MINUTE);
        if event.time >= limit {
            self.ahead.add(slot, Deed::of(event));
            if !self.customers.is_copying() {
                self.ahead.sweep(limit);
            }
        }
    }

    /// The key of the customer to whom an event at `time` belongs: the id, or an erased customer.
    pub(super) fn key_at<'a>(&self, id: &Key<'a>, time: Time) -> Key<'a> {
        self.erasures.find(id.hash(), time).map_or(*id, |identity| Key::erased(&identity))
    }

    /// Erases a customer. Events up to the erasure belong to the erased customer, whichever topic delivers them and
    /// however late; later ones belong to a new customer with the same id. The time of the erasure is `time`, but never
    /// before the watermark of its own topic; without both it has no effect. The id is removed from memory now, the
    /// record once no topic can deliver an event from before the erasure. Sums stay, and the erased customer falls
    /// silent and is lost like any other. Returns whether there was a record.
    pub fn erase(&mut self, topic: usize, customer: &str, time: Option<Time>) -> bool {
        let Some(at) = time.max(self.clock.topic_watermark(topic)) else { return false };
        let id = Key::new(customer);
        let key = self.key_at(&id, at);
        let slot = self.customers.find(&key);
        let next = self.erasures.find(id.hash(), at);
        let at = slot.map_or(at, |slot| self.separable_at(slot, at));
        if next.is_some_and(|next| next.at <= at) {
            return false;
        }
        self.written.note_change();
        let identity = Identity { hash: id.hash(), at, held_out: self.spec.inactivity.is_held_out(customer) };
        self.erasures.add(identity);
        let is_known = |slot: &Slot| self.customers.record(*slot).seen().is_none_or(|seen| seen <= at);
        let Some(slot) = slot.filter(is_known) else { return false };
        self.before_change(slot);
        let later = self.ahead.take_after(slot, at);
        if !later.is_empty() {
            self.retract_later(slot, at, &later);
        }
        self.customers.rename(&key, &identity);
        self.end_silences(slot);
        if !later.is_empty() {
            let slot = self.customers.insert(&key);
            for deed in later {
                let (moment, kind) = (Moment::new(deed.time, &self.spec.zone), deed.kind());
                if let Ok(place) = self.find_place(Some(slot), &kind, moment) {
                    self.book(slot, place, moment, &kind, Round::Again);
                }
                self.ahead.add(slot, deed);
            }
        }
        true
    }

    /// Removes the erased customers for whom no topic can deliver an event any more.
    #[inline]
    pub(super) fn forget_erased(&mut self) {
        if self.erasures.has_before(Time::MAX) && self.erasures.has_before(self.clock.accepted_from()) {
            self.forget_erased_before(self.clock.accepted_from());
        }
    }

    /// Notes the newest events of a removed record, which sums still count.
    fn note_erased(&mut self, slot: Slot) {
        let record = self.customers.record(slot);
        let (order, session) = (record.newest(0).map(Time::millis), record.last_session().map(Time::millis));
        let erased = &mut self.knowledge.erased;
        (erased.order, erased.session) = (erased.order.max(order), erased.session.max(session));
    }

    #[cold]
    fn forget_erased_before(&mut self, limit: Time) {
        for identity in self.erasures.take_before(limit) {
            let key = Key::erased(&identity);
            let Some(slot) = self.customers.find(&key) else { continue };
            self.before_change(slot);
            self.note_erased(slot);
            self.customers.remove(&key);
            self.recent.remove(slot);
            self.extras.remove(slot);
            self.rebooking.remove(slot);
            self.days.remove(slot);
            self.net_revenue.remove(slot);
            self.inactivity.remove(slot);
            self.ahead.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Time {
        Time::clamped(millis)
    }

    #[test]
    fn an_event_belongs_to_the_first_erasure_that_is_not_earlier() {
        let mut erasures = Erasures::default();
        assert!(!erasures.has_before(Time::MAX));
        for (hash, time) in [(1, 50), (1, 20), (1, 50), (2, 30)] {
            erasures.add(Identity { hash, at: at(time), held_out: false });
        }
        let found = |erasures: &Erasures, hash, time| erasures.find(hash, at(time)).map(|found| found.at.millis());
        assert_eq!(
            [0, 20, 21, 50, 51].map(|time| found(&erasures, 1, time)),
            [20, 20, 50, 50, -1].map(|t| (t >= 0).then_some(t))
        );
        assert_eq!((found(&erasures, 2, 31), found(&erasures, 3, 0)), (None, None));
        let state = erasures.state();
        assert_eq!(state.len(), 3);
        assert!(erasures.has_before(at(21)) && !erasures.has_before(at(20)));
        assert_eq!(erasures.take_before(at(31)).len(), 2);
        assert_eq!(found(&erasures, 1, 0), Some(50));
        assert!(!erasures.has_before(at(50)) && erasures.has_before(at(51)));
        let mut again = Erasures::default();
        again.resume(&state);
        assert_eq!(again.state(), state);
    }
}
