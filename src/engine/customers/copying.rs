//! A copy of customers as they were at one instant, made in slices while they go on.
//!
//! At that instant only which slots belong to it is noted. They are copied in their turn; one that is about to change
//! before is copied first ([`Customers::copy_early`]), so that each is in the copy as it was at the instant.

use super::{CHUNK, Changed, Customers, KeyTag, Slot, record_mut};
use crate::engine::state::rows::{Rows, SideState};

/// A copy under way.
#[derive(Debug, Clone)]
pub(super) struct Copying {
    /// Which slots were changed at the instant: of those the free ones belong to the copy too.
    changed: Vec<u64>,
    /// Which slots are still to be looked at.
    left: Vec<u64>,
    /// The word of `left` to go on with.
    next: usize,
    rows: Rows,
}

impl Copying {
    fn has(words: &[u64], slot: u32) -> bool {
        words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Bytes of memory held, but for the copies, which go with the checkpoint.
    pub(super) fn bytes(&self) -> usize {
        (self.changed.capacity() + self.left.capacity()) * size_of::<u64>()
    }
}

impl Customers {
    /// Begins a copy of the changed slots and of all customers of the buckets (ascending); they count as written from
    /// here on. One copy at a time.
    pub fn begin_copy(&mut self, buckets: &[u32]) {
        debug_assert!(self.copying.is_none(), "one copy at a time");
        let slots = self.slots();
        let Changed { words: mut changed, slots: count } = std::mem::take(&mut self.changed);
        changed.resize(slots.div_ceil(64), 0);
        let mut left = changed.clone();
        for &bucket in buckets {
            let first = bucket as usize * (CHUNK / 64);
            let words = left.len().min(first + CHUNK / 64);
            left[first..words].fill(u64::MAX);
        }
        // What is appended from here on is none of it.
        if let Some(last) = left.last_mut()
            && !slots.is_multiple_of(64)
        {
            *last &= (1 << (slots % 64)) - 1;
        }
        let rows = Rows::with_capacity(count + (buckets.len() * CHUNK).min(slots));
        self.copying = Some(Box::new(Copying { changed, left, next: 0, rows }));
    }

    /// Whether a copy is under way.
    #[inline]
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Whether a slot belongs to the copy under way and is not copied yet.
    #[inline]
    #[must_use]
    pub fn is_left(&self, slot: Slot) -> bool {
        self.copying.as_ref().is_some_and(|copying| Copying::has(&copying.left, slot.0))
    }

    /// Copies a slot before its turn, if it is left, with what the side tables hold of it; it may be changed then.
    pub fn copy_early(&mut self, slot: Slot, side_state: Option<&SideState>) {
        let Some(copying) = self.copying.as_mut().filter(|copying| Copying::has(&copying.left, slot.0)) else { return };
        copying.left[slot.0 as usize / 64] &= !(1 << (slot.0 % 64));
        let record = record_mut(&mut self.slab, slot.0);
        record.set_unchanged();
        if record.tag != KeyTag::FREE || Copying::has(&copying.changed, slot.0) {
            copying.rows.push_early(slot.0, record, &self.arena, side_state);
        }
    }

    /// Copies about so many slots more, in the order of the slots. `aside` says what the side tables hold of those that
    /// `is_aside` names. Whether none is left.
    pub fn copy_more(
        &mut self,
        most: usize,
        is_aside: impl Fn(u32) -> bool,
        side_state: impl Fn(u32) -> SideState,
    ) -> bool {
        let Some(copying) = self.copying.as_deref_mut() else { return true };
        let Copying { changed, left, next, rows } = copying;
        let from = rows.in_turn();
        while *next < left.len() && rows.in_turn() < from.saturating_add(most) {
            let (chunk, first) = (*next * 64 / CHUNK, *next * 64 % CHUNK);
            for i in bits(std::mem::take(&mut left[*next])) {
                let Some(record) = self.slab.get_mut(chunk).and_then(|chunk| chunk.get_mut(first + i)) else { break };
                record.set_unchanged();
                if record.tag != KeyTag::FREE || changed[*next] >> i & 1 == 1 {
                    rows.push((*next * 64 + i) as u32, record, &self.arena);
                }
            }
            *next += 1;
        }
        rows.add_side_state(from, is_aside, side_state);
        *next == left.len()
    }

    /// Ends the copy; what is not copied by then is not in it.
    pub fn end_copy(&mut self) -> Option<Rows> {
        Some(self.copying.take()?.rows)
    }
}

/// The places of the bits that are set, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (place < u64::BITS).then_some(place as usize)
    })
}
