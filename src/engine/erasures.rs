//! Which customers were erased, and when, as long as events from before may still come in.
//!
//! An erasure has a time. Events up to it, from whichever topic and whenever they arrive, belong to the customer who
//! was erased; later ones belong to a new customer of the same id. So the figures do not depend on the order in which
//! topics are read. What is kept of an erased customer is a hash of the id, the time of the erasure, and the record
//! under [`Identity`] in the place of the id; all of it goes once no topic can bring an event from before the erasure.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::Engine;
use super::ahead::Deed;
use super::axis::Moment;
use super::booking::Round;
use super::customers::{Key, Slot};
use crate::event::{Event, MINUTE, Time};

/// What an erased customer is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// A hash of the id.
    pub hash: u64,
    /// When the customer was erased; events up to then, included, are this customer's.
    pub at: Time,
    /// Whether the customer was held out from alerts.
    pub held_out: bool,
}

impl Identity {
    /// Hash (8 bytes), time in milliseconds (6), held out or not (1), zero (1).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..14].copy_from_slice(&self.at.millis().to_le_bytes()[..6]);
        bytes[14] = u8::from(self.held_out);
        bytes
    }

    /// What [`Identity::to_bytes`] was asked of.
    #[must_use]
    pub fn of_bytes(bytes: &[u8; 16]) -> Identity {
        let half = |from: usize| bytes[from..].first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        let at = i64::try_from(half(8) & 0xFFFF_FFFF_FFFF).unwrap_or(i64::MAX);
        Identity { hash: half(0), at: Time::clamped(at), held_out: bytes[14] != 0 }
    }

    /// How files spell it: a byte 0, the hash, the time and whether the customer was held out.
    #[must_use]
    pub fn text(&self) -> String {
        format!("\0{:016x}{:012x}{}", self.hash, self.at.millis(), u8::from(self.held_out))
    }

    /// Reads what [`Identity::text`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Identity> {
        let hex = text.strip_prefix('\0').filter(|hex| hex.len() == 29)?;
        let [hash, at, held_out] = [0..16, 16..28, 28..29].map(|part| u64::from_str_radix(hex.get(part)?, 16).ok());
        let at = Time::from_millis(i64::try_from(at?).ok()?).ok()?;
        Some(Identity { hash: hash?, at, held_out: held_out? != 0 })
    }
}

/// One erasure, as files hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErasureState {
    /// A hash of the id.
    pub hash: u64,
    /// When, in epoch milliseconds.
    pub at: i64,
    /// Whether the customer was held out from alerts.
    pub held_out: bool,
}

type Times = SmallVec<[(Time, bool); 1]>;

/// The erasures that may still matter.
#[derive(Debug, Clone)]
pub struct Erasures {
    /// By the hash of the id, ascending.
    times: HashMap<u64, Times, foldhash::fast::FixedState>,
    /// No erasure is older than this.
    oldest: Time,
}

impl Default for Erasures {
    fn default() -> Erasures {
        Erasures { times: HashMap::default(), oldest: Time::MAX }
    }
}

impl Erasures {
    /// The erased customer whose event that is: the first erasure at or after it. `None`: nobody erased since.
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

    /// Remembers an erasure.
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

    /// Forgets the erasures before `limit`, and says whose they were.
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

    /// What files hold, in a fixed order.
    #[must_use]
    pub fn state(&self) -> Vec<ErasureState> {
        let of = |(&hash, times): (&u64, &Times)| -> SmallVec<[ErasureState; 1]> {
            times.iter().map(|&(at, held_out)| ErasureState { hash, at: at.millis(), held_out }).collect()
        };
        let mut all: Vec<_> = self.times.iter().flat_map(of).collect();
        all.sort_unstable_by_key(|erasure| (erasure.at, erasure.hash));
        all
    }

    /// Goes on with what [`Erasures::state`] said.
    pub fn resume(&mut self, state: &[ErasureState]) {
        for &ErasureState { hash, at, held_out } in state {
            self.add(Identity { hash, at: Time::clamped(at), held_out });
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.times.allocation_size()
    }
}

impl Engine {
    /// Keeps an event that lies behind what other topics have brought so far; a session from a minute earlier on, for
    /// visits count by the minute.
    pub(super) fn keep_ahead(&mut self, slot: Slot, event: &Event<'_>) {
        let limit = self.clock.ahead_of().plus(-MINUTE);
        if event.time >= limit {
            self.ahead.add(slot, Deed::of(event));
            if !self.customers.is_copying() {
                self.ahead.sweep(limit);
            }
        }
    }

    /// What the customer is looked up by whose event at `time` it is.
    pub(super) fn key_at<'a>(&self, id: &Key<'a>, time: Time) -> Key<'a> {
        self.erasures.find(id.hash(), time).map_or(*id, |identity| Key::erased(&identity))
    }

    /// Forgets a customer. Events up to the erasure belong to the one who is forgotten, whichever topic brings them and
    /// however late; later ones to a new customer of the same id. The erasure is at `time`, but never before what its
    /// own topic has brought; without either it means nothing. The id leaves memory now, the record once no topic can
    /// bring an event from before any more; the sums stay, and who was erased falls silent and is lost in due time.
    /// Returns whether there was a record.
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

    /// Forgets the erased customers of whom no topic can bring an event any more.
    #[inline]
    pub(super) fn forget_erased(&mut self) {
        if self.erasures.has_before(Time::MAX) && self.erasures.has_before(self.clock.accepted_from()) {
            self.forget_erased_before(self.clock.accepted_from());
        }
    }

    /// Sums go on to count what no record tells of any more.
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
