//! What is known of the silences of the few customers who have some under way.
//!
//! A silence that is not decided yet needs nothing here: it follows from the record. Once it is, it is open until the
//! win-back is decided too. Beside it lie the amounts of those orders that may turn out to end a silence, and the
//! notices that wait to leave.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::packed::Packed;
use crate::engine::customers::Slot;

/// An order that may be a win-back. Of orders at the same time the first in log order stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinbackCandidate {
    /// When, in epoch milliseconds.
    pub at: i64,
    /// The number of the currency.
    pub currency: u8,
    /// The amount in minor units.
    pub minor: i64,
}

/// A silence that was due and may still be won back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The number of the rule.
    pub rule: u16,
    /// The last qualifying event, in epoch milliseconds.
    pub since: i64,
    /// When it was due.
    pub due: i64,
    /// Until when, included, an order wins the customer back.
    pub until: i64,
    /// Whether the customer is never alerted.
    pub held_out: bool,
    /// Whether there is an alert.
    pub alerted: bool,
    /// The first order after it was due, so far.
    pub back: Option<WinbackCandidate>,
}

impl Open {
    /// Takes note of an order.
    pub fn see(&mut self, order: WinbackCandidate) -> bool {
        let ends = self.due < order.at && order.at <= self.until;
        let is_first = ends && self.back.is_none_or(|back| order.at < back.at);
        if is_first {
            self.back = Some(order);
        }
        is_first
    }

    /// When nothing can change any more what became of it.
    #[must_use]
    pub fn settled_at(&self) -> i64 {
        self.back.map_or(self.until, |back| back.at)
    }
}

/// Something that somebody is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingAlert {
    /// Its place in the order of the partition.
    pub number: u64,
    /// The number of the rule.
    pub rule: u16,
    /// The last qualifying event, in epoch milliseconds.
    pub since: i64,
    /// When the silence was due.
    pub due: i64,
    /// What there is to tell.
    pub news: PendingAlertKind,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingAlertKind {
    /// A customer is silent.
    Silent {
        /// Orders up to the instant when it was due.
        orders: u32,
        /// The number of the stage then: 0 of a prospect, see [`super::stage_number`].
        stage: u8,
        /// The number of the status then: 0 of a prospect.
        status: u8,
        /// Whether there is a complaint.
        complained: bool,
        /// Net revenue by the number of the currency, in minor units.
        revenue: Vec<(u8, i64)>,
    },
    /// The customer is back.
    Back(WinbackCandidate),
}

/// What is known of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silences {
    /// Orders that may end a silence, in log order; as a rule one, before the silence is decided.
    pub winback_candidates: SmallVec<[WinbackCandidate; 1]>,
    /// Silences that were due and may still be won back.
    pub open: Vec<Open>,
    /// What waits to leave, in its order.
    pub notices: Vec<PendingAlert>,
}

impl Silences {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Silences { winback_candidates, open, notices } = self;
        winback_candidates.is_empty() && open.is_empty() && notices.is_empty()
    }
}

// Small in the engine's own tests, so that they see what is forgotten.
const SMALLEST_SWEEP: usize = if cfg!(test) { 4 } else { 1024 };

/// The silences of everybody who has some.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Of those who have nothing but open silences that nothing has ended.
    packed: Packed,
    /// Of all others.
    entries: HashMap<Slot, Silences, foldhash::fast::FixedState>,
    sweep_at: usize,
}

impl Table {
    /// What is known of a customer.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Silences {
        let packed = || Silences { open: self.packed.of(slot).collect(), ..Silences::default() };
        self.entries.get(&slot).cloned().unwrap_or_else(packed)
    }

    /// The open silences of a customer.
    pub fn open(&self, slot: Slot) -> impl Iterator<Item = Open> {
        let of_others = self.entries.get(&slot);
        let packed = of_others.is_none().then(|| self.packed.of(slot));
        let of_others = of_others.map_or(&[][..], |silences| &silences.open);
        packed.into_iter().flatten().chain(of_others.iter().copied())
    }

    /// The notices that wait, of a customer.
    #[must_use]
    pub fn notices(&self, slot: Slot) -> &[PendingAlert] {
        self.entries.get(&slot).map_or(&[], |silences| &silences.notices)
    }

    /// What is known of a customer, to add something.
    pub fn entry(&mut self, slot: Slot) -> &mut Silences {
        let packed = &mut self.packed;
        self.entries.entry(slot).or_insert_with(|| Silences { open: packed.take(slot), ..Silences::default() })
    }

    /// Takes what is known of a customer out.
    pub fn take(&mut self, slot: Slot) -> Silences {
        let packed = &mut self.packed;
        let is_packed = || Silences { open: packed.take(slot), ..Silences::default() };
        self.entries.remove(&slot).unwrap_or_else(is_packed)
    }

    /// Puts it back, if there is anything.
    pub fn put(&mut self, slot: Slot, silences: Silences) {
        if silences.is_empty() {
            return;
        }
        let Silences { winback_candidates, open, notices } = &silences;
        if winback_candidates.is_empty() && notices.is_empty() && Packed::fits(slot, open) {
            self.packed.put(slot, open);
        } else {
            self.entries.insert(slot, silences);
        }
    }

    /// The customers of whom something is here.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.keys().copied().chain(self.packed.slots())
    }

    /// The numbers of all notices that wait, and of whom they are.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, Slot)> {
        let numbers = |(&slot, silences): (&Slot, &Silences)| {
            let numbers: Vec<_> = silences.notices.iter().map(|notice| (notice.number, slot)).collect();
            numbers
        };
        self.entries.iter().flat_map(numbers)
    }

    /// All open silences.
    pub fn all_open(&self) -> impl Iterator<Item = Open> {
        let of_others = self.entries.values().flat_map(|silences| silences.open.iter().copied());
        of_others.chain(self.packed.all())
    }

    /// Forgets the orders before `limit`, which can end no silence that is yet to be decided, once enough has gathered
    /// to be worth a walk.
    pub fn sweep(&mut self, limit: i64) {
        if self.entries.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        let packed = &mut self.packed;
        self.entries.retain(|&slot, silences| {
            silences.winback_candidates.retain(|order| order.at >= limit);
            let Silences { winback_candidates, open, notices } = silences;
            let is_plain = winback_candidates.is_empty() && notices.is_empty() && Packed::fits(slot, open);
            if is_plain {
                packed.put(slot, open);
            }
            !is_plain
        });
        self.sweep_at = 2 * self.entries.len();
        self.entries.shrink_to(self.sweep_at);
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |silences: &Silences| {
            let winback_candidates =
                if silences.winback_candidates.spilled() { silences.winback_candidates.capacity() } else { 0 };
            winback_candidates * size_of::<WinbackCandidate>()
                + silences.open.capacity() * size_of::<Open>()
                + silences.notices.capacity() * size_of::<PendingAlert>()
        };
        self.packed.bytes() + self.entries.allocation_size() + self.entries.values().map(of).sum::<usize>()
    }
}
