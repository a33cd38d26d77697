//! The customer table: an index of 32-bit slots over a slab of records.
//!
//! The index takes 5 to 10 bytes per customer, and growing it moves no record. A hash map of records would copy all of
//! them when it doubles, and keep an eighth to a half of its memory empty.

mod copying;

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::erasures::Identity;
use super::record::{KeyTag, Known, Record};
use copying::Copying;

/// Number of a customer's record. It stays the same until the customer is erased, also in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A customer id, prepared for lookups.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    text: &'a str,
    /// The inline bytes. For a long id, the table fills in its position in the arena.
    bytes: [u8; 16],
    tag: KeyTag,
    hash: u64,
}

impl<'a> Key<'a> {
    /// Encodes and hashes an id.
    #[must_use]
    pub fn new(text: &'a str) -> Key<'a> {
        let key = Key::encode(text);
        let hash = if key.tag == KeyTag::ARENA { xxh3_64(text.as_bytes()) } else { hash_inline(&key.bytes, key.tag) };
        Key { hash, ..key }
    }

    /// The key of an erased customer.
    #[must_use]
    pub fn erased(identity: &Identity) -> Key<'static> {
        let bytes = identity.to_bytes();
        Key { text: "", bytes, tag: KeyTag::ERASED, hash: hash_inline(&bytes, KeyTag::ERASED) }
    }

    /// Encodes an id without its hash.
    fn encode(text: &'a str) -> Key<'a> {
        let mut bytes = [0; 16];
        let tag = if text.len() <= KeyTag::INLINE {
            bytes = padded(text.as_bytes());
            KeyTag::inline(text.len())
        } else if let Some(uuid) = parse_uuid(text) {
            bytes = uuid;
            KeyTag::UUID
        } else {
            KeyTag::ARENA
        };
        Key { text, bytes, tag, hash: 0 }
    }

    /// A hash of the id that is the same on all machines and in all versions.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Pads at most 16 bytes with zeros. Two overlapping loads are faster than a copy of variable length.
fn padded(bytes: &[u8]) -> [u8; 16] {
    if let (Some(&head), Some(&tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let [head, tail] = [head, tail].map(|half| u128::from(u64::from_le_bytes(half)));
        return (head | tail << (8 * (bytes.len() - 8))).to_le_bytes();
    }
    let mut padded = [0; 16];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

fn hash_inline(bytes: &[u8; 16], tag: KeyTag) -> u64 {
    xxh3_64_with_seed(bytes, u64::from(tag.number()))
}

/// The bytes of a UUID in canonical lower-case spelling, the only one that can be restored from the bytes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then(|| uuid.into_bytes())
}

/// Records per chunk of the slab, which is also a bucket in files. Small in unit tests, so that they have several; a
/// multiple of 64.
pub const CHUNK: usize = if cfg!(test) { 64 } else { 4096 };

/// All customers of one partition.
#[derive(Debug, Clone, Default)]
pub struct Customers {
    index: HashTable<u32>,
    slab: Vec<Vec<Record>>,
    free: Vec<u32>,
    arena: Arena,
    changed: Changed,
    copying: Option<Box<Copying>>,
    /// Number of erased customers in the table.
    erased: usize,
}

/// Slots changed since they were last written, including erased ones, one bit each. The flag in the record avoids this
/// lookup for the second and later events of a customer.
#[derive(Debug, Clone, Default)]
struct Changed {
    words: Vec<u64>,
    slots: usize,
}

impl Changed {
    fn set(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.slots += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }
}

impl Customers {
    /// Number of records, including those of erased customers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Number of customers with an id.
    #[must_use]
    pub fn identified(&self) -> usize {
        self.index.len() - self.erased
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Finds a customer.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &Key<'_>) -> Option<Slot> {
        let is_it = |&slot: &u32| holds(&self.slab, &self.arena, slot, key);
        self.index.find(key.hash, is_it).copied().map(Slot)
    }

    /// Prefetches customers into the processor's caches. Reads first all index entries and then all records that
    /// [`Customers::find`] will read, so that their cache misses overlap.
    pub fn look_ahead(&self, hashes: &[u64]) {
        const MOST: usize = 64;
        for hashes in hashes.chunks(MOST) {
            let mut slots = [u32::MAX; MOST];
            for (slot, &hash) in slots.iter_mut().zip(hashes) {
                *slot = self.index.find(hash, |_| true).copied().unwrap_or(u32::MAX);
            }
            let mut bits = 0;
            for &slot in slots.iter().filter(|&&slot| slot != u32::MAX) {
                let record = record(&self.slab, slot);
                bits ^= record.orders ^ u32::from(record.key[0]) ^ u32::from(record.tag.number());
            }
            std::hint::black_box(bits);
        }
    }

    /// Adds a record for a customer who has none.
    pub fn insert(&mut self, key: &Key<'_>) -> Slot {
        let bytes = if key.tag == KeyTag::ARENA { self.arena.store(key.text, key.hash) } else { key.bytes };
        let record = Record::new(bytes, key.tag);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.copy_early(Slot(slot), None);
                *record_mut(&mut self.slab, slot) = record;
                slot
            }
            None => self.push(record),
        };
        self.note_change(slot);
        self.erased += usize::from(key.tag == KeyTag::ERASED);
        let (slab, arena) = (&self.slab, &self.arena);
        self.index.insert_unique(key.hash, slot, |&slot| hash_of(slab, arena, slot));
        Slot(slot)
    }

    /// Replaces the id of a customer by the identity of an erased one; the id is removed from memory. A copy in
    /// progress must have copied the record before.
    pub fn rename(&mut self, key: &Key<'_>, identity: &Identity) {
        let (slab, arena) = (&self.slab, &self.arena);
        let Ok(entry) = self.index.find_entry(key.hash, |&slot| holds(slab, arena, slot, key)) else { return };
        let (slot, _) = entry.remove();
        let new = Key::erased(identity);
        let record = record_mut(&mut self.slab, slot);
        self.erased += usize::from(record.tag != KeyTag::ERASED);
        if record.tag == KeyTag::ARENA {
            self.arena.wipe(&record.key);
        }
        (record.key, record.tag) = (new.bytes, new.tag);
        self.note_change(slot);
        let (slab, arena) = (&self.slab, &self.arena);
        self.index.insert_unique(new.hash, slot, |&slot| hash_of(slab, arena, slot));
        if self.arena.is_mostly_wiped() {
            self.compact_arena();
        }
    }

    fn push(&mut self, record: Record) -> u32 {
        if self.slab.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.slab.push(Vec::with_capacity(CHUNK));
        }
        let chunks = self.slab.len();
        let chunk = &mut self.slab[chunks - 1];
        chunk.push(record);
        // 2^32 records take 340 GB: memory runs out before the slots do.
        ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
    }

    /// Removes a customer: record and id are removed from memory, the slot is used again. A copy in progress must have
    /// copied the record before.
    pub fn remove(&mut self, key: &Key<'_>) -> Option<Slot> {
        let (slab, arena) = (&self.slab, &self.arena);
        let entry = self.index.find_entry(key.hash, |&slot| holds(slab, arena, slot, key)).ok()?;
        let (slot, _) = entry.remove();
        let record = record_mut(&mut self.slab, slot);
        self.erased -= usize::from(record.tag == KeyTag::ERASED);
        if record.tag == KeyTag::ARENA {
            self.arena.wipe(&record.key);
        }
        *record = Record::new([0; 16], KeyTag::FREE);
        self.note_change(slot);
        self.free.push(slot);
        if self.arena.is_mostly_wiped() {
            self.compact_arena();
        }
        Some(Slot(slot))
    }

    fn compact_arena(&mut self) {
        let mut compact = Arena::default();
        for record in self.slab.iter_mut().flatten().filter(|record| record.tag == KeyTag::ARENA) {
            record.key = compact.store(self.arena.text(&record.key), Arena::hash(&record.key));
        }
        self.arena = compact;
    }

    /// The record of a customer.
    #[inline]
    #[must_use]
    pub fn record(&self, slot: Slot) -> &Record {
        record(&self.slab, slot.0)
    }

    /// The record of a customer, to change.
    #[inline]
    pub fn record_mut(&mut self, slot: Slot) -> &mut Record {
        debug_assert!(!self.is_left(slot), "changed before it was copied");
        let record = record_mut(&mut self.slab, slot.0);
        if !record.is_changed() {
            record.set_changed();
            self.changed.set(slot.0);
        }
        record
    }

    fn note_change(&mut self, slot: u32) {
        record_mut(&mut self.slab, slot).set_changed();
        self.changed.set(slot);
    }

    /// Number of slots, including free ones.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slab.last().map_or(0, |last| (self.slab.len() - 1) * CHUNK + last.len())
    }

    /// The slots in use, ascending.
    pub fn occupied(&self) -> impl Iterator<Item = Slot> {
        let records = (0_u32..).zip(self.slab.iter().flatten());
        records.filter(|(_, record)| record.tag != KeyTag::FREE).map(|(slot, _)| Slot(slot))
    }

    /// Number of slots changed since they were last written.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.slots
    }

    /// Notes that a slot was not written after all.
    pub fn roll_back(&mut self, slot: u32) {
        self.note_change(slot);
    }

    /// A table of free slots, to be filled with [`Customers::place`].
    #[must_use]
    pub fn with_slots(slots: usize) -> Customers {
        let free = Record::new([0; 16], KeyTag::FREE);
        let mut slab = vec![vec![free; CHUNK]; slots / CHUNK];
        if !slots.is_multiple_of(CHUNK) {
            let mut last = Vec::with_capacity(CHUNK);
            last.resize(slots % CHUNK, free);
            slab.push(last);
        }
        Customers { slab, ..Customers::default() }
    }

    /// Fills a free slot; `false` if it does not exist. [`Customers::find`] works only after [`Customers::index_all`].
    #[must_use]
    pub fn place(&mut self, slot: u32, id: &str, known: &Known) -> bool {
        let Some(record) = self.slab.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK))
        else {
            return false;
        };
        let (bytes, tag) = match Identity::parse(id) {
            Some(identity) => (identity.to_bytes(), KeyTag::ERASED),
            None => match Key::encode(id) {
                Key { tag: KeyTag::ARENA, .. } => (self.arena.store(id, xxh3_64(id.as_bytes())), KeyTag::ARENA),
                Key { bytes, tag, .. } => (bytes, tag),
            },
        };
        *record = Record::from_known(bytes, tag, known);
        true
    }

    /// Builds the index of the placed records and the list of free slots; `false` if two records have the same id.
    #[must_use]
    pub fn index_all(&mut self) -> bool {
        let Customers { index, slab, free, arena, changed: _, copying: _, erased } = self;
        let occupied = slab.iter().flatten().filter(|record| record.tag != KeyTag::FREE).count();
        *erased = slab.iter().flatten().filter(|record| record.tag == KeyTag::ERASED).count();
        let hasher = |&slot: &u32| hash_of(slab, arena, slot);
        *index = HashTable::with_capacity(occupied);
        for (slot, record) in (0_u32..).zip(slab.iter().flatten()) {
            if record.tag == KeyTag::FREE {
                free.push(slot);
                continue;
            }
            let hash = hash_of(slab, arena, slot);
            let text = arena.text_of(record);
            let same = |&other: &u32| {
                let other = self::record(slab, other);
                other.tag == record.tag
                    && if record.tag == KeyTag::ARENA {
                        arena.text(&other.key) == text
                    } else {
                        other.key == record.key
                    }
            };
            match index.entry(hash, same, hasher) {
                Entry::Occupied(_) => return false,
                Entry::Vacant(entry) => _ = entry.insert(slot),
            }
        }
        true
    }

    /// The identity of an erased customer; `None` for others.
    #[inline]
    #[must_use]
    pub fn identity(&self, slot: Slot) -> Option<Identity> {
        let record = self.record(slot);
        (record.tag == KeyTag::ERASED).then(|| Identity::of_bytes(&record.key))
    }

    /// The id of a customer.
    #[must_use]
    pub fn id(&self, slot: Slot) -> String {
        self.arena.id(self.record(slot)).into_owned()
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.slab.len() * CHUNK * size_of::<Record>()
            + self.free.capacity() * size_of::<u32>()
            + self.arena.text.capacity()
            + self.changed.words.capacity() * size_of::<u64>()
            + self.copying.as_ref().map_or(0, |copying| copying.bytes())
    }
}

#[inline]
fn record(slab: &[Vec<Record>], slot: u32) -> &Record {
    &slab[slot as usize / CHUNK][slot as usize % CHUNK]
}

#[inline]
fn record_mut(slab: &mut [Vec<Record>], slot: u32) -> &mut Record {
    &mut slab[slot as usize / CHUNK][slot as usize % CHUNK]
}

#[inline]
fn holds(slab: &[Vec<Record>], arena: &Arena, slot: u32, key: &Key<'_>) -> bool {
    let record = record(slab, slot);
    record.tag == key.tag
        && if key.tag == KeyTag::ARENA {
            Arena::hash(&record.key) == key.hash & Arena::HASH_BITS && arena.text(&record.key) == key.text
        } else {
            record.key == key.bytes
        }
}

fn hash_of(slab: &[Vec<Record>], arena: &Arena, slot: u32) -> u64 {
    let record = record(slab, slot);
    if record.tag == KeyTag::ARENA {
        xxh3_64(arena.text(&record.key).as_bytes())
    } else {
        hash_inline(&record.key, record.tag)
    }
}

/// Ids too long for a record. The key is: position (6 bytes), length (2), low half of the hash (4), zero (4).
#[derive(Debug, Clone, Default)]
pub struct Arena {
    text: String,
    wiped: usize,
}

impl Arena {
    const HASH_BITS: u64 = 0xFFFF_FFFF;

    /// Copies the id of a record from another arena, and returns the record with its position here.
    #[inline]
    pub fn adopt(&mut self, record: &Record, other: &Arena) -> Record {
        let mut record = *record;
        if record.tag == KeyTag::ARENA {
            record.key = self.store(other.text(&record.key), Arena::hash(&record.key));
        }
        record
    }

    /// The id of a record.
    #[must_use]
    pub fn id<'a>(&'a self, record: &'a Record) -> Cow<'a, str> {
        match record.tag.inline_len() {
            Some(len) => String::from_utf8_lossy(&record.key[..len]),
            None if record.tag == KeyTag::UUID => Cow::Owned(Uuid::from_bytes(record.key).to_string()),
            None if record.tag == KeyTag::ERASED => Cow::Owned(Identity::of_bytes(&record.key).text()),
            None => Cow::Borrowed(self.text(&record.key)),
        }
    }

    fn text_of(&self, record: &Record) -> &str {
        if record.tag == KeyTag::ARENA { self.text(&record.key) } else { "" }
    }

    fn store(&mut self, text: &str, hash: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..6].copy_from_slice(&(self.text.len() as u64).to_le_bytes()[..6]);
        key[6..8].copy_from_slice(&(text.len() as u16).to_le_bytes());
        key[8..12].copy_from_slice(&(hash as u32).to_le_bytes());
        self.text.push_str(text);
        key
    }

    fn range(key: &[u8; 16]) -> std::ops::Range<usize> {
        let [a, b, c, d, e, f, len_low, len_high, ..] = *key;
        let start = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) as usize;
        start..start + usize::from(u16::from_le_bytes([len_low, len_high]))
    }

    fn hash(key: &[u8; 16]) -> u64 {
        u64::from(u32::from_le_bytes([key[8], key[9], key[10], key[11]]))
    }

    fn text(&self, key: &[u8; 16]) -> &str {
        self.text.get(Self::range(key)).unwrap_or_default()
    }

    fn wipe(&mut self, key: &[u8; 16]) {
        let range = Self::range(key);
        self.wiped += range.len();
        self.text.replace_range(range.clone(), &"\0".repeat(range.len()));
    }

    fn is_mostly_wiped(&self) -> bool {
        self.wiped > 4096 && self.wiped * 2 > self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Time;

    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{1,2}",
            "[0-9]{1,17}",
            "[a-zé]{15,40}",
            (0..9_u8).prop_map(|n| format!("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f{n}")),
            (0..9_u8).prop_map(|n| format!("0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F{n}")),
        ]
    }

    fn find_or_insert(table: &mut Customers, key: &Key<'_>) -> Slot {
        table.find(key).unwrap_or_else(|| table.insert(key))
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((id(), 0..4_u8), 1..300)) {
            let mut table = Customers::default();
            let mut model = HashMap::<String, u32>::new();
            for (n, (id, op)) in ops.iter().enumerate() {
                let key = Key::new(id);
                if *op == 0 {
                    prop_assert_eq!(table.remove(&key).is_some(), model.remove(id).is_some());
                    prop_assert_eq!(table.find(&key), None);
                } else {
                    let slot = find_or_insert(&mut table, &key);
                    table.record_mut(slot).sessions = n as u32;
                    model.insert(id.clone(), n as u32);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (id, n) in &model {
                let slot = table.find(&Key::new(id)).unwrap();
                prop_assert_eq!(table.record(slot).sessions, *n);
                prop_assert_eq!(&table.id(slot), id);
            }
        }
    }

    #[test]
    fn an_erased_customer_is_found_by_hash_and_time_and_survives_files() {
        let mut table = Customers::default();
        let ids = ["c-1", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "an id that is too long to be kept inline"];
        for (n, id) in (0..).zip(ids) {
            let key = Key::new(id);
            let slot = find_or_insert(&mut table, &key);
            table.record_mut(slot).sessions = n;
            let identity = Identity { hash: key.hash(), at: Time::clamped(1_767_323_045_678), held_out: n == 1 };
            table.rename(&key, &identity);
            assert_eq!((table.find(&key), table.find(&Key::erased(&identity))), (None, Some(slot)));
            assert_eq!(table.identity(slot), Some(identity));
            let mut restored = Customers::with_slots(1);
            assert!(restored.place(0, &table.id(slot), &table.record(slot).known()) && restored.index_all());
            assert_eq!((restored.len(), restored.identified()), (1, 0));
            let found = restored.find(&Key::erased(&identity)).unwrap();
            assert_eq!(restored.record(found).sessions, n);
        }
        assert!(!table.arena.text.contains("inline"));
        assert_eq!((table.len(), table.identified()), (3, 0));
        assert!(table.remove(&Key::erased(&table.identity(Slot(0)).unwrap())).is_some());
        assert_eq!((table.len(), table.identified()), (2, 0));
    }

    #[test]
    fn an_erased_id_is_gone_from_memory_and_its_room_is_used_again() {
        let mut table = Customers::default();
        let long = |n: usize| format!("a-customer-id-that-is-too-long-{n:06}");
        for n in 0..1_000 {
            find_or_insert(&mut table, &Key::new(&long(n)));
        }
        let full = table.bytes();
        for n in 0..1_000 {
            table.remove(&Key::new(&long(n)));
        }
        assert!(!table.arena.text.contains("a-customer"));
        for n in 1_000..2_000 {
            find_or_insert(&mut table, &Key::new(&long(n)));
        }
        assert!(table.bytes() <= full + full / 4);
        assert_eq!(table.id(table.find(&Key::new(&long(1_234))).unwrap()), long(1_234));
    }
}
