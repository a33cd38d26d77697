//! A copy of customers as of one instant, taken in slices while events are processed.
//!
//! At that instant only the slots in the copy are noted. They are copied one after another. A slot that is about to
//! change is copied before that ([`Customers::copy_early`]), so that the copy shows every slot as of the instant.

use super::{CHUNK, Changed, Customers, KeyTag, Slot, record_mut};
use crate::engine::state::rows::{Rows, SideState};

/// A copy in progress.
#[derive(Debug, Clone)]
pub(super) struct Copying {
    /// Slots changed at the instant; of these, the copy also includes free ones.
    changed: Vec<u64>,
    /// Slots that remain to be copied.
    left: Vec<u64>,
    /// Index of the next word of `left`.
    next: usize,
    rows: Rows,
}

impl Copying {
    fn has(words: &[u64], slot: u32) -> bool {
        words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Memory in bytes, without the copied rows, which belong to the checkpoint.
    pub(super) fn bytes(&self) -> usize {
        (self.changed.capacity() + self.left.capacity()) * size_of::<u64>()
    }
}

impl Customers {
    /// Begins a copy of the changed slots and of all customers of `buckets` (ascending). From now on they count as
    /// written. Only one copy can be in progress.
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
        // Slots that are appended later do not belong to the copy.
        if let Some(last) = left.last_mut()
            && !slots.is_multiple_of(64)
        {
            *last &= (1 << (slots % 64)) - 1;
        }
        let rows = Rows::with_capacity(count + (buckets.len() * CHUNK).min(slots));
        self.copying = Some(Box::new(Copying { changed, left, next: 0, rows }));
    }

    /// Whether a copy is in progress.
    #[inline]
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Whether a slot remains to be copied.
    #[inline]
    #[must_use]
    pub fn is_left(&self, slot: Slot) -> bool {
        self.copying.as_ref().is_some_and(|copying| Copying::has(&copying.left, slot.0))
    }

    /// Copies a slot out of turn, with its data in the side tables, unless that is done. The slot may be changed
    /// afterwards.
    pub fn copy_early(&mut self, slot: Slot, side_state: Option<&SideState>) {
        let Some(copying) = self.copying.as_mut().filter(|copying| Copying::has(&copying.left, slot.0)) else { return };
        copying.left[slot.0 as usize / 64] &= !(1 << (slot.0 % 64));
        let record = record_mut(&mut self.slab, slot.0);
        record.set_unchanged();
        if record.tag != KeyTag::FREE || Copying::has(&copying.changed, slot.0) {
            copying.rows.push_early(slot.0, record, &self.arena, side_state);
        }
    }

    /// Copies about `most` more slots, in ascending order. `side_state` returns the data in the side tables for slots
    /// for which `is_aside` is true. Returns whether the copy is finished.
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

    /// Ends the copy; slots that are not copied yet are missing in it.
    pub fn end_copy(&mut self) -> Option<Rows> {
        Some(self.copying.take()?.rows)
    }
}

/// The positions of the bits that are set, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (place < u64::BITS).then_some(place as usize)
    })
}
