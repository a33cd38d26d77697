//! Compact storage of open silences, for customers who have nothing else in progress: nearly all of those with a recent
//! silence. A silence takes a row of 30 bytes and an index entry; a list per customer would take 200 bytes.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::table::Open;
use crate::engine::customers::Slot;

/// Rows per chunk; rows are stored in chunks so that growing moves none.
const CHUNK: usize = if cfg!(test) { 8 } else { 4096 };
/// End of a list of rows.
const END: u32 = u32::MAX;
const HELD_OUT: u8 = 1;
const ALERTED: u8 = 2;

/// A duration or instant in milliseconds, in 48 bits.
#[derive(Debug, Clone, Copy, Default)]
struct Millis48([u16; 3]);

impl Millis48 {
    fn pack(millis: i64) -> Option<Millis48> {
        let is_short = (0..1 << 48).contains(&millis);
        is_short.then_some(Millis48([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16]))
    }

    fn unpack(self) -> i64 {
        let [low, middle, high] = self.0.map(i64::from);
        low | middle << 16 | high << 32
    }
}

/// A number with an alignment of two bytes, so that a row has no padding.
#[derive(Debug, Clone, Copy, Default)]
struct Number([u16; 2]);

impl Number {
    fn of(number: u32) -> Number {
        Number([number as u16, (number >> 16) as u16])
    }

    fn get(self) -> u32 {
        u32::from(self.0[0]) | u32::from(self.0[1]) << 16
    }
}

/// An open silence without a win-back.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    slot: Number,
    /// The next row of the customer, or the next free row.
    next: Number,
    since: Millis48,
    /// From `since` to the due time.
    after: Millis48,
    /// From the due time to the end of the win-back period.
    within: Millis48,
    rule: u16,
    bits: u8,
}

impl Row {
    /// `None` if the silence does not fit.
    fn pack(slot: Slot, open: &Open) -> Option<Row> {
        let &Open { rule, since, due, until, held_out, alerted, back } = open;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        if back.is_some() {
            return None;
        }
        Some(Row {
            slot: Number::of(slot.0),
            next: Number::of(END),
            since: Millis48::pack(since)?,
            after: Millis48::pack(due.checked_sub(since)?)?,
            within: Millis48::pack(until.checked_sub(due)?)?,
            rule,
            bits: bit(held_out, HELD_OUT) | bit(alerted, ALERTED),
        })
    }

    fn unpack(&self) -> Open {
        let since = self.since.unpack();
        let due = since + self.after.unpack();
        Open {
            rule: self.rule,
            since,
            due,
            until: due + self.within.unpack(),
            held_out: self.bits & HELD_OUT != 0,
            alerted: self.bits & ALERTED != 0,
            back: None,
        }
    }
}

/// Open silences by customer, in their order.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// The first row of each customer.
    index: HashTable<u32>,
    chunks: Vec<Vec<Row>>,
    free: u32,
}

impl Default for Packed {
    fn default() -> Packed {
        Packed { index: HashTable::new(), chunks: Vec::new(), free: END }
    }
}

/// Slots are successive numbers; a multiplication spreads them (D. Knuth, The Art of Computer Programming, volume 3,
/// section 6.4).
fn hash(slot: u32) -> u64 {
    u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20)
}

fn row(chunks: &[Vec<Row>], row: u32) -> &Row {
    &chunks[row as usize / CHUNK][row as usize % CHUNK]
}

impl Packed {
    /// Whether all silences of a customer fit.
    pub fn fits(slot: Slot, open: &[Open]) -> bool {
        open.iter().all(|open| Row::pack(slot, open).is_some())
    }

    /// The silences of a customer.
    pub fn of(&self, slot: Slot) -> impl Iterator<Item = Open> {
        let first = self.index.find(hash(slot.0), |&first| row(&self.chunks, first).slot.get() == slot.0);
        let mut next = first.copied().unwrap_or(END);
        std::iter::from_fn(move || {
            let row = (next != END).then(|| row(&self.chunks, next))?;
            next = row.next.get();
            Some(row.unpack())
        })
    }

    /// Removes and returns the silences of a customer.
    pub fn take(&mut self, slot: Slot) -> Vec<Open> {
        let Packed { index, chunks, free } = self;
        let is_it = |&first: &u32| row(chunks, first).slot.get() == slot.0;
        let Ok(entry) = index.find_entry(hash(slot.0), is_it) else { return Vec::new() };
        let (mut next, _) = entry.remove();
        let mut taken = Vec::new();
        while next != END {
            let row = &mut chunks[next as usize / CHUNK][next as usize % CHUNK];
            taken.push(row.unpack());
            let after = row.next.get();
            row.next = Number::of(*free);
            *free = next;
            next = after;
        }
        taken
    }

    /// Stores the silences of a customer without rows; all of them must fit.
    pub fn put(&mut self, slot: Slot, open: &[Open]) {
        let mut first = END;
        for open in open.iter().rev() {
            let Some(packed) = Row::pack(slot, open) else { continue };
            first = self.add(Row { next: Number::of(first), ..packed });
        }
        if first == END {
            return;
        }
        let Packed { index, chunks, free: _ } = self;
        let is_it = |&first: &u32| row(chunks, first).slot.get() == slot.0;
        let hasher = |&first: &u32| hash(row(chunks, first).slot.get());
        match index.entry(hash(slot.0), is_it, hasher) {
            Entry::Occupied(mut entry) => *entry.get_mut() = first,
            Entry::Vacant(entry) => _ = entry.insert(first),
        }
    }

    fn add(&mut self, new: Row) -> u32 {
        if self.free != END {
            let place = self.free;
            let row = &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK];
            self.free = row.next.get();
            *row = new;
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunks = self.chunks.len();
        let chunk = &mut self.chunks[chunks - 1];
        chunk.push(new);
        // 2^32 rows take 130 GB: memory runs out before the numbers do.
        ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
    }

    /// The customers with rows.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.index.iter().map(|&first| Slot(row(&self.chunks, first).slot.get()))
    }

    /// All silences, customer by customer.
    pub fn all(&self) -> impl Iterator<Item = Open> {
        self.slots().flat_map(|slot| self.of(slot))
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.len() * CHUNK * size_of::<Row>() + self.chunks.capacity() * size_of::<Vec<Row>>();
        self.index.allocation_size() + chunks
    }
}

const _: () = assert!(size_of::<Row>() == 30);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn open() -> impl Strategy<Value = Open> {
        let span = || 0..1_i64 << 48;
        (any::<(u16, bool, bool)>(), span(), span(), span()).prop_map(|(small, since, after, within)| {
            let (rule, held_out, alerted) = small;
            let due = since + after;
            Open { rule, since, due, until: due + within, held_out, alerted, back: None }
        })
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((0..20_u32, prop::collection::vec(open(), 0..4)), 1..120),
        ) {
            let (mut packed, mut model) = (Packed::default(), BTreeMap::<u32, Vec<Open>>::new());
            let mut most = 0;
            for (slot, open) in steps {
                prop_assert!(Packed::fits(Slot(slot), &open));
                prop_assert_eq!(packed.take(Slot(slot)), model.remove(&slot).unwrap_or_default());
                packed.put(Slot(slot), &open);
                if !open.is_empty() {
                    model.insert(slot, open);
                }
                for slot in 0..20 {
                    let known: Vec<_> = packed.of(Slot(slot)).collect();
                    prop_assert_eq!(known, model.get(&slot).cloned().unwrap_or_default());
                }
                let mut slots: Vec<_> = packed.slots().map(|slot| slot.0).collect();
                slots.sort_unstable();
                prop_assert!(slots.iter().eq(model.keys()));
                most = most.max(model.values().map(Vec::len).sum::<usize>());
            }
            let mut rules: Vec<_> = packed.all().map(|open| open.rule).collect();
            let mut expected: Vec<_> = model.values().flatten().map(|open| open.rule).collect();
            rules.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(rules, expected);
            // Free rows are used again.
            prop_assert!(packed.chunks.len() <= most.div_ceil(CHUNK));
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let fits = |since, due, until| {
            let open = Open { rule: 0, since, due, until, held_out: false, alerted: false, back: None };
            Packed::fits(Slot(0), &[open])
        };
        assert!(fits(0, 1 << 48, 2 << 48) != fits(0, (1 << 48) - 1, 1 << 48));
        assert!(!fits(-1, 5, 9) && !fits(5, 4, 9) && !fits(5, 6, 5) && !fits(0, 1, i64::MAX));
        assert!(!fits(i64::MIN, i64::MAX, i64::MAX));
    }

    /// The index grows by doubling, so memory per silence has a maximum right after that.
    #[test]
    fn an_open_silence_takes_less_than_48_bytes() {
        let mut packed = Packed::default();
        let mut dearest = 0;
        for slot in 0..200_000_u32 {
            let open = Open { rule: 1, since: 1, due: 2, until: 3, held_out: false, alerted: true, back: None };
            packed.put(Slot(slot), &[open]);
            if slot > 20_000 {
                dearest = dearest.max(10 * packed.bytes() / (slot as usize + 1));
            }
        }
        assert!(dearest <= 480, "{dearest} tenths of a byte");
    }
}
