//! Detects customers that occur in two partitions, which makes every figure wrong: the topics are not all keyed by
//! customer id with the same partitioner.
//!
//! It samples, so that it costs the engines next to nothing: one customer in 32, chosen by the last bytes of the id.
//! For each slot of a small table, the first such customer is remembered as a hash with its partition. All workers
//! share the table. Two customers that share a slot are confused with a probability of 2^-48.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::bus::{Partition, TopicIndex, TopicPartition};

/// Maximum number of customers remembered: 144 KiB.
const SLOTS: usize = 1 << 14;
/// The bits of an entry that hold the partition; the others hold the hash.
const PARTITION: u64 = 0xffff;
/// The sampling rate.
const ONE_IN: u32 = 32;

/// A customer seen in two partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Where it was seen first.
    pub first: TopicPartition,
    /// Where it was seen later.
    pub then: TopicPartition,
}

/// The sample of customers and their partitions.
#[derive(Debug)]
pub struct KeyPlacementSample {
    /// Zero, or most of a hash with the partition.
    entries: Box<[AtomicU64]>,
    /// The topic of each entry, for the report.
    topics: Box<[AtomicU8]>,
    /// Events of customers who were seen in another partition before, by topic.
    counts: Box<[AtomicU64]>,
    /// The first split customer of each topic.
    found: Mutex<Vec<Split>>,
}

impl KeyPlacementSample {
    /// An empty sample.
    #[must_use]
    pub fn new(topics: usize) -> KeyPlacementSample {
        KeyPlacementSample {
            entries: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            topics: (0..SLOTS).map(|_| AtomicU8::new(0)).collect(),
            counts: (0..topics).map(|_| AtomicU64::new(0)).collect(),
            found: Mutex::default(),
        }
    }

    /// Records the customer of an event.
    #[inline]
    pub fn note(&self, at: TopicPartition, customer: &str) {
        if is_of_sample(customer) {
            self.check(at, customer);
        }
    }

    #[cold]
    fn check(&self, at: TopicPartition, customer: &str) {
        let hash = xxh3_64(customer.as_bytes());
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        // Uses bits that do not choose the slot; never zero, which marks an empty slot.
        let who = hash | (1 << 63);
        let partition = u64::from(at.partition.0.unsigned_abs()) & PARTITION;
        let entry = (who & !PARTITION) | partition;
        let known = self.entries[slot].load(Ordering::Relaxed);
        if known == entry || (known != 0 && (known ^ entry) & !PARTITION != 0) {
            return; // unchanged, or the slot belongs to another customer
        }
        if known == 0 {
            self.topics[slot].store(u8::try_from(at.topic.0).unwrap_or(u8::MAX), Ordering::Relaxed);
            self.entries[slot].store(entry, Ordering::Relaxed);
            return;
        }
        if let Some(count) = self.counts.get(usize::from(at.topic.0)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.iter().all(|split| split.then.topic != at.topic) {
            let topic = TopicIndex(self.topics[slot].load(Ordering::Relaxed).into());
            let before = Partition(i32::try_from(known & PARTITION).unwrap_or(i32::MAX));
            found.push(Split { first: TopicPartition { topic, partition: before }, then: at });
        }
    }

    /// Events of customers who were seen in another partition before, by topic.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The first split customer of each topic that has one.
    #[must_use]
    pub fn found(&self) -> Vec<Split> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Decides by the last four bytes: ids usually differ there, and hashing the whole id would cost more than the check.
#[inline]
fn is_of_sample(customer: &str) -> bool {
    let bytes = customer.as_bytes();
    let last = match bytes.last_chunk::<4>() {
        Some(last) => u32::from_le_bytes(*last),
        None => bytes.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)),
    };
    last.wrapping_mul(0x9e37_79b1) >> 27 == 0
}

const _: () = assert!(ONE_IN == 1 << (32 - 27), "as many as the shift leaves");

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: u16, partition: i32) -> TopicPartition {
        TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }
    }

    fn customers() -> impl Iterator<Item = String> {
        (0..20_000).map(|number| format!("customer-{number}"))
    }

    #[test]
    fn one_customer_in_32_is_sampled_for_any_kind_of_id() {
        let numbers: Vec<String> = (0..100_000).map(|number: u32| number.to_string()).collect();
        let hashes: Vec<String> = (0..100_000_u32).map(|n| format!("{:016x}", xxh3_64(&n.to_le_bytes()))).collect();
        for ids in [numbers, hashes, customers().collect()] {
            let share = ids.iter().filter(|id| is_of_sample(id)).count() * 32 * 100 / ids.len();
            assert!((50..200).contains(&share), "{share} percent of the sample, such as {}", ids[99]);
        }
        assert!(!is_of_sample("1") || !is_of_sample("2"));
    }

    #[test]
    fn customers_that_stay_in_a_partition_are_not_reported() {
        let key_placement = KeyPlacementSample::new(2);
        for (number, customer) in customers().enumerate() {
            let partition = i32::try_from(number % 7).unwrap();
            for topic in [0, 1, 0] {
                key_placement.note(at(topic, partition), &customer);
            }
        }
        assert_eq!((key_placement.counts(), key_placement.found()), (vec![0, 0], vec![]));
    }

    #[test]
    fn customers_that_move_are_reported_with_both_partitions() {
        let key_placement = KeyPlacementSample::new(2);
        for customer in customers() {
            key_placement.note(at(0, 3), &customer);
            key_placement.note(at(1, 3), &customer);
        }
        for customer in customers().take(500) {
            key_placement.note(at(1, 5), &customer);
        }
        assert_eq!(key_placement.found(), [Split { first: at(0, 3), then: at(1, 5) }]);
        let [first, second] = key_placement.counts()[..] else { panic!("two topics") };
        assert!(first == 0 && (5..30).contains(&second), "{second} of 500");
    }
}
