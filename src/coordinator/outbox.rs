//! Outbox records that wait for their transaction: the dead letters and alerts of each partition, in order.
//!
//! A checkpoint closes the outbox of its partitions: the records then belong to the checkpoint, and are removed when it
//! is committed or return to the front when it is rolled back. Pure; [`super::checkpoint`] decides when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::bus::Partition;
use crate::checkpoint::protocol::Epoch;
use crate::output::dead_letters::{Channel, OutboxRecord};

impl Limit {
    fn refuses(self, record: &OutboxRecord) -> bool {
        record.to == Channel::DeadLetters && record.bytes() >= self.refused
    }
}

/// The outboxes of all partitions.
#[derive(Debug, Default)]
pub struct Outbox {
    boxes: BTreeMap<Partition, Waiting>,
    bytes: u64,
    /// The size limit of the dead-letter topic, as far as it is known.
    limit: Option<Limit>,
}

/// The smallest size that the topic has rejected, and the size to which records are truncated.
#[derive(Debug, Clone, Copy)]
struct Limit {
    refused: usize,
    to: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    open: VecDeque<Arc<OutboxRecord>>,
    closed: Option<(Epoch, Vec<Arc<OutboxRecord>>)>,
}

impl Outbox {
    /// Appends a record to the outbox of its partition.
    pub fn add(&mut self, partition: Partition, mut record: OutboxRecord) {
        if let Some(limit) = self.limit.filter(|limit| limit.refuses(&record)) {
            record.shrink_to(limit.to);
        }
        self.bytes += record.bytes() as u64;
        self.boxes.entry(partition).or_default().open.push_back(Arc::new(record));
    }

    /// Total size, including closed records.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Assigns all records of a partition to a checkpoint.
    pub fn close(&mut self, partition: Partition, epoch: Epoch) {
        let of = self.boxes.entry(partition).or_default();
        let records = Vec::from(std::mem::take(&mut of.open));
        debug_assert!(of.closed.is_none(), "one checkpoint at a time");
        of.closed = Some((epoch, records));
    }

    /// Whether the checkpoint of a partition is neither committed nor rolled back.
    #[must_use]
    pub fn is_open(&self, partition: Partition, epoch: Epoch) -> bool {
        self.boxes.get(&partition).and_then(|of| of.closed.as_ref()).is_some_and(|(open, _)| *open == epoch)
    }

    /// The records of a checkpoint.
    #[must_use]
    pub fn of_checkpoint(&self, partition: Partition, epoch: Epoch) -> &[Arc<OutboxRecord>] {
        match self.boxes.get(&partition).and_then(|of| of.closed.as_ref()) {
            Some((of, records)) if *of == epoch => records,
            _ => &[],
        }
    }

    /// Truncates the record at `index` of a checkpoint, which was rejected for its size, and every other record that is
    /// as large, now and later. `false` if it cannot be smaller.
    pub fn truncate(&mut self, partition: Partition, epoch: Epoch, index: usize) -> bool {
        let records = self.boxes.get_mut(&partition).and_then(|of| of.closed.as_mut()).filter(|(of, _)| *of == epoch);
        let Some(record) = records.and_then(|(_, records)| records.get_mut(index)) else { return false };
        let before = record.bytes();
        let shorter = Arc::make_mut(record);
        if !shorter.shrink() {
            return false;
        }
        let to = shorter.bytes();
        self.bytes = self.bytes + to as u64 - before as u64;
        let limit = Limit { refused: self.limit.map_or(before, |limit| limit.refused.min(before)), to };
        self.limit = Some(limit);
        for of in self.boxes.values_mut() {
            let in_checkpoint = of.closed.iter_mut().flat_map(|(_, records)| records);
            for record in of.open.iter_mut().chain(in_checkpoint).filter(|record| limit.refuses(record)) {
                let before = record.bytes() as u64;
                let shorter = Arc::make_mut(record);
                shorter.shrink_to(to);
                self.bytes = self.bytes + shorter.bytes() as u64 - before;
            }
        }
        true
    }

    /// Removes and returns the records of a committed checkpoint.
    pub fn confirm(&mut self, partition: Partition, epoch: Epoch) -> Vec<Arc<OutboxRecord>> {
        let Some(of) = self.boxes.get_mut(&partition) else { return Vec::new() };
        let Some((_, records)) = of.closed.take_if(|(of, _)| *of == epoch) else { return Vec::new() };
        self.bytes -= total(&records);
        records
    }

    /// Returns the records of a checkpoint to the front, in order.
    pub fn roll_back(&mut self, partition: Partition, epoch: Epoch) {
        let Some(of) = self.boxes.get_mut(&partition) else { return };
        let Some((_, records)) = of.closed.take_if(|(of, _)| *of == epoch) else { return };
        for record in records.into_iter().rev() {
            of.open.push_front(record);
        }
    }

    /// Removes all records of a partition.
    pub fn drop(&mut self, partition: Partition) {
        if let Some(of) = self.boxes.remove(&partition) {
            let closed = of.closed.map_or(0, |(_, records)| total(&records));
            self.bytes -= closed + of.open.iter().map(|record| record.bytes() as u64).sum::<u64>();
        }
    }
}

fn total(records: &[Arc<OutboxRecord>]) -> u64 {
    records.iter().map(|record| record.bytes() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Partition = Partition(1);
    const TWO: Partition = Partition(2);

    fn record(text: &str) -> OutboxRecord {
        OutboxRecord {
            to: Channel::DeadLetters,
            key: None,
            payload: Some(text.as_bytes().to_vec()),
            headers: Vec::new(),
            time: None,
        }
    }

    fn texts(outbox: &Outbox, partition: Partition, epoch: Epoch) -> Vec<String> {
        let text = |record: &Arc<OutboxRecord>| String::from_utf8(record.payload.clone().unwrap()).unwrap();
        outbox.of_checkpoint(partition, epoch).iter().map(text).collect()
    }

    #[test]
    fn letters_leave_once_and_return_to_the_front_in_order() {
        let mut outbox = Outbox::default();
        outbox.add(ONE, record("a"));
        outbox.add(ONE, record("bb"));
        outbox.add(TWO, record("other"));
        outbox.close(ONE, Epoch(1));
        outbox.add(ONE, record("ccc"));
        assert_eq!((texts(&outbox, ONE, Epoch(1)), outbox.bytes()), (vec!["a".into(), "bb".into()], 11));
        assert!(texts(&outbox, ONE, Epoch(2)).is_empty() && texts(&outbox, TWO, Epoch(1)).is_empty());
        outbox.roll_back(ONE, Epoch(2));
        outbox.roll_back(ONE, Epoch(1));
        outbox.close(ONE, Epoch(2));
        assert_eq!(texts(&outbox, ONE, Epoch(2)), ["a", "bb", "ccc"]);
        let mut settle = |epoch| outbox.confirm(ONE, Epoch(epoch)).len();
        assert_eq!((settle(1), settle(2), outbox.bytes()), (0, 3, 5));
        outbox.drop(TWO);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_letter_that_is_too_large_is_cut_off_as_far_as_it_takes_and_later_ones_with_it() {
        let mut outbox = Outbox::default();
        outbox.add(ONE, record(&"x".repeat(1 << 20)));
        outbox.close(ONE, Epoch(1));
        outbox.add(ONE, record(&"x".repeat(2 << 20)));
        assert!(outbox.truncate(ONE, Epoch(1), 0));
        assert!(outbox.bytes() <= 2 << 17, "those that wait beside it too: {}", outbox.bytes());
        outbox.drop(ONE);
        outbox.limit = None;
        outbox.add(ONE, record(&"x".repeat(1 << 20)));
        outbox.close(ONE, Epoch(1));
        let mut sizes = Vec::new();
        while outbox.truncate(ONE, Epoch(1), 0) {
            sizes.push(outbox.bytes());
            assert_eq!(outbox.bytes(), total(outbox.of_checkpoint(ONE, Epoch(1))));
        }
        assert!(sizes.len() == 4 && sizes[3] <= 1 << 10, "{sizes:?}");
        assert!(!outbox.truncate(ONE, Epoch(1), 1), "there is none");
        let before = outbox.bytes();
        outbox.add(TWO, record(&"x".repeat(1 << 13)));
        assert!(outbox.bytes() - before <= 1 << 10, "what would be refused is cut off beforehand");
        outbox.add(TWO, record(&"x".repeat(500)));
        outbox.close(TWO, Epoch(2));
        assert_eq!(texts(&outbox, TWO, Epoch(2))[1].len(), 500, "smaller ones are not");
    }
}
