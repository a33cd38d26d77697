//! Silences in progress, of the few customers who have some.
//!
//! A silence that is not decided yet needs no entry: it follows from the record. After the decision it is open until
//! its win-back is decided too. The table also holds the amounts of orders that may turn out to end a silence, and the
//! notices to release.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::packed::Packed;
use crate::engine::customers::Slot;

/// An order that may be a win-back. Of orders at the same time the first in log order comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinbackCandidate {
    /// Time of the order in epoch milliseconds.
    pub at: i64,
    /// The engine's number of the currency.
    pub currency: u8,
    /// The amount in minor units.
    pub minor: i64,
}

/// A silence that was due and may still end with a win-back. Times are epoch milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The number of the rule.
    pub rule: u16,
    /// The last qualifying event.
    pub since: i64,
    /// The due time.
    pub due: i64,
    /// The last time at which an order is a win-back.
    pub until: i64,
    /// Whether the customer is never alerted.
    pub held_out: bool,
    /// Whether an alert was created.
    pub alerted: bool,
    /// The first order after the due time, so far.
    pub back: Option<WinbackCandidate>,
}

impl Open {
    /// Notes an order. Returns whether it is now the first one after the due time.
    pub fn see(&mut self, order: WinbackCandidate) -> bool {
        let ends = self.due < order.at && order.at <= self.until;
        let is_first = ends && self.back.is_none_or(|back| order.at < back.at);
        if is_first {
            self.back = Some(order);
        }
        is_first
    }

    /// The time after which the outcome can no longer change.
    #[must_use]
    pub fn settled_at(&self) -> i64 {
        self.back.map_or(self.until, |back| back.at)
    }
}

/// A notice to release: an alert or a win-back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingAlert {
    /// Sequence number in the partition.
    pub number: u64,
    /// The number of the rule.
    pub rule: u16,
    /// The last qualifying event, in epoch milliseconds.
    pub since: i64,
    /// The due time of the silence, in epoch milliseconds.
    pub due: i64,
    /// Content.
    pub news: PendingAlertKind,
}

/// Content of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingAlertKind {
    /// A customer is silent.
    Silent {
        /// Orders up to the due time.
        orders: u32,
        /// Number of the stage at that time, 0 for a prospect, see [`super::stage_number`].
        stage: u8,
        /// Number of the status at that time, 0 for a prospect.
        status: u8,
        /// Whether the customer has complained.
        complained: bool,
        /// Net revenue in minor units, by the engine's number of the currency.
        revenue: Vec<(u8, i64)>,
    },
    /// The customer has ordered again.
    Back(WinbackCandidate),
}

/// Silences in progress of one customer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silences {
    /// Orders that may end a silence, in log order; usually at most one before the silence is decided.
    pub winback_candidates: SmallVec<[WinbackCandidate; 1]>,
    /// Silences that were due and may still end with a win-back.
    pub open: Vec<Open>,
    /// Notices to release, in their order.
    pub notices: Vec<PendingAlert>,
}

impl Silences {
    /// Whether nothing is in progress.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Silences { winback_candidates, open, notices } = self;
        winback_candidates.is_empty() && open.is_empty() && notices.is_empty()
    }
}

// Small in unit tests, so that they notice wrongly forgotten entries.
const SMALLEST_SWEEP: usize = if cfg!(test) { 4 } else { 1024 };

/// Silences in progress, by customer.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Customers who have only open silences, none of which an order has ended.
    packed: Packed,
    /// All other customers.
    entries: HashMap<Slot, Silences, foldhash::fast::FixedState>,
    sweep_at: usize,
}

impl Table {
    /// The silences of a customer.
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

    /// The notices of a customer that wait for their release.
    #[must_use]
    pub fn notices(&self, slot: Slot) -> &[PendingAlert] {
        self.entries.get(&slot).map_or(&[], |silences| &silences.notices)
    }

    /// The silences of a customer, to change.
    pub fn entry(&mut self, slot: Slot) -> &mut Silences {
        let packed = &mut self.packed;
        self.entries.entry(slot).or_insert_with(|| Silences { open: packed.take(slot), ..Silences::default() })
    }

    /// Removes and returns the silences of a customer.
    pub fn take(&mut self, slot: Slot) -> Silences {
        let packed = &mut self.packed;
        let is_packed = || Silences { open: packed.take(slot), ..Silences::default() };
        self.entries.remove(&slot).unwrap_or_else(is_packed)
    }

    /// Stores silences again that were taken out, unless they are empty.
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

    /// The customers with silences in progress.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.keys().copied().chain(self.packed.slots())
    }

    /// Numbers and customers of all notices to release.
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

    /// Forgets the orders before `limit`, which can no longer end an undecided silence, once the table has doubled.
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

    /// Approximate memory in bytes.
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
