//! Recognizes duplicates: exact 64-bit fingerprints, each with the UTC day of the event that counted.
//!
//! An event is a duplicate if its day is at most `remember` days from that day. Only days of events matter, so the
//! result does not depend on the partitioning, and a replay decides the same. A fingerprint is dropped once every event
//! that would be its duplicate is too late to be accepted. A Bloom filter is no alternative: it would take some real
//! orders for duplicates. The tables are sharded, so that growing and sweeping touch only a small part at once.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::state::rotation::{Rotation, oldest};
use crate::event::{DAY, EventType, Time};

/// Number of shards per class.
pub const SHARDS: usize = 64;

const SMALLEST_PRUNE: usize = 1024;

/// A jump over more days than this would wrap around the 16 bits of a tag.
const MAX_JUMP: i64 = 16_000;
/// Maximum of the days for which ids are remembered, and of the allowed lateness in days; with a jump, they fit into a
/// tag.
const MAX_DAYS: i64 = 7_000;

/// How long an id is remembered in days, rounded up.
#[must_use]
pub fn days(remember: i64) -> i64 {
    (remember.div_euclid(DAY) + i64::from(remember.rem_euclid(DAY) > 0)).clamp(0, MAX_DAYS)
}

/// A fingerprint and the low 16 bits of its day's number; 10 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed)]
struct Seen {
    fingerprint: u64,
    bucket: u16,
}

/// The fingerprints of one class of events.
#[derive(Debug, Clone)]
pub struct Dedup {
    shards: Vec<HashTable<Seen>>,
    /// Maximum number of days between an event and its duplicate.
    life: i64,
    /// How many days after its own day a fingerprint is kept: then every duplicate is too late.
    keep: i64,
    /// The day of the class's time.
    current: i64,
    /// The next shard to sweep; [`SHARDS`] if all are swept.
    sweep: usize,
    /// Fingerprints since the last checkpoint, with their buckets; `None` before the first checkpoint.
    fresh: Option<Vec<Fingerprint>>,
    /// Length of `fresh` at which those are removed that expired before they were written.
    prune_at: usize,
}

/// A fingerprint and the number of its day.
pub type Fingerprint = (u64, i64);

/// Fingerprints of one shard in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Number of the shard.
    pub shard: u8,
    /// Whether these are all fingerprints of the shard, or only those since the last checkpoint.
    pub full: bool,
    /// The fingerprints.
    pub seen: Vec<Fingerprint>,
}

/// How the fingerprints of a checkpoint are to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Buckets {
    /// Width of a bucket in milliseconds: a day. Version 0.1.0 used longer ones if ids were remembered for very long.
    pub width: i64,
    /// The bucket of the class's time; `None` before the first event.
    pub current: Option<i64>,
}

/// Identifies an event by customer, type and id.
#[must_use]
pub fn fingerprint(customer_hash: u64, kind: EventType, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), customer_hash ^ (kind as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

impl Dedup {
    /// Treats events of the same id as duplicates if they are at most `remember` milliseconds, in whole days, apart.
    /// `lateness`: how far behind the class's time events are accepted.
    #[must_use]
    pub fn new(remember: i64, lateness: i64) -> Dedup {
        let life = days(remember);
        let keep = life + days(lateness) + 1;
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Dedup { shards, life, keep, current: i64::MIN, sweep: SHARDS, fresh: None, prune_at: SMALLEST_PRUNE }
    }

    /// Whether an event is a duplicate of one that counted; otherwise it is remembered. `clock` is the class's time,
    /// which never moves back. `time` is the event's own time.
    #[inline]
    pub fn is_duplicate(&mut self, fingerprint: u64, clock: Time, time: Time) -> bool {
        let now = clock.millis() / DAY;
        if now > self.current {
            self.advance(now);
        }
        if self.sweep < SHARDS {
            self.sweep_one();
        }
        let (current, life, keep) = (self.current, self.life, self.keep);
        let day = self.day(time);
        let tag = day as u16;
        let shard = &mut self.shards[shard_of(fingerprint)];
        match shard.entry(place(fingerprint), |seen| seen.fingerprint == fingerprint, |seen| place(seen.fingerprint)) {
            Entry::Occupied(mut entry) => {
                // A duplicate does not extend the time for which the first event is remembered.
                let age = age(current, entry.get().bucket);
                // An expired fingerprint does not count, whether swept or not.
                if age <= keep && (day - (current - age)).abs() <= life {
                    return true;
                }
                entry.get_mut().bucket = tag;
            }
            Entry::Vacant(entry) => {
                entry.insert(Seen { fingerprint, bucket: tag });
            }
        }
        if let Some(fresh) = &mut self.fresh {
            fresh.push((fingerprint, day));
        }
        false
    }

    /// Whether an event that is too late to count is a duplicate of one that counted.
    #[must_use]
    pub fn knows(&self, fingerprint: u64, time: Time) -> bool {
        let shard = &self.shards[shard_of(fingerprint)];
        let seen = shard.find(place(fingerprint), |seen| seen.fingerprint == fingerprint);
        seen.is_some_and(|seen| {
            let age = age(self.current, seen.bucket);
            age <= self.keep && (self.day(time) - (self.current - age)).abs() <= self.life
        })
    }

    fn day(&self, time: Time) -> i64 {
        let day = time.millis() / DAY;
        if self.current == i64::MIN { day } else { day.clamp(self.current - MAX_JUMP, self.current + MAX_JUMP) }
    }

    fn advance(&mut self, bucket: i64) {
        if self.current != i64::MIN && bucket - self.current > MAX_JUMP {
            // Everything has long expired, and the tags would wrap around.
            self.shards.iter_mut().for_each(HashTable::clear);
        }
        while self.sweep < SHARDS {
            self.sweep_one();
        }
        self.current = bucket;
        self.sweep = 0;
        self.prune_fresh();
    }

    /// While a backlog is read, weeks pass between two checkpoints; fingerprints that expire before the next one need
    /// not be written.
    fn prune_fresh(&mut self) {
        let (current, keep) = (self.current, self.keep);
        if let Some(fresh) = self.fresh.as_mut().filter(|fresh| fresh.len() >= self.prune_at) {
            fresh.retain(|(_, bucket)| current - bucket <= keep);
            self.prune_at = SMALLEST_PRUNE.max(2 * fresh.len());
        }
    }

    fn sweep_one(&mut self) {
        let (current, keep) = (self.current, self.keep);
        let shard = &mut self.shards[self.sweep];
        shard.retain(|seen| age(current, seen.bucket) <= keep);
        if shard.capacity() > 4 * shard.len() + 64 {
            shard.shrink_to(2 * shard.len(), |seen| place(seen.fingerprint));
        }
        self.sweep += 1;
    }

    /// How the fingerprints are to be read.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        Buckets { width: DAY, current: (self.current != i64::MIN).then_some(self.current) }
    }

    /// Whether no fingerprint was added since the last checkpoint.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.fresh.as_ref().is_some_and(Vec::is_empty)
    }

    /// The fingerprints since the last checkpoint, by shard, and the shards that are due in full.
    pub fn take_fresh(&mut self, rotation: &mut Rotation, sequence: u64) -> Vec<ShardState> {
        let written = self.fresh.replace(Vec::new());
        let fresh = written.as_ref().map_or(self.len(), Vec::len);
        rotation.resize(SHARDS, 0);
        let due = match written {
            None => (0..SHARDS).collect(),
            Some(_) => oldest(rotation.last(), fresh, self.len()),
        };
        let mut checkpoint: Vec<_> =
            (0_u8..).take(SHARDS).map(|shard| ShardState { shard, full: false, seen: Vec::new() }).collect();
        let alive = |(_, bucket): &Fingerprint| self.current - bucket <= self.keep;
        for fingerprint in written.into_iter().flatten().filter(alive) {
            checkpoint[shard_of(fingerprint.0)].seen.push(fingerprint);
        }
        for &shard in &due {
            rotation.note(shard, sequence);
            checkpoint[shard].full = true;
            checkpoint[shard].seen = self.all_of(shard);
        }
        checkpoint.retain(|shard| shard.full || !shard.seen.is_empty());
        checkpoint
    }

    fn all_of(&self, shard: usize) -> Vec<Fingerprint> {
        let absolute = |seen: &Seen| (seen.fingerprint, self.current - age(self.current, seen.bucket));
        let alive = |seen: &&Seen| age(self.current, seen.bucket) <= self.keep;
        self.shards[shard].iter().filter(alive).map(absolute).collect()
    }

    /// Notes that a checkpoint was not written after all.
    pub fn roll_back(&mut self, checkpoint: &[ShardState]) {
        // The fingerprints of a full shard do not show which of them were new.
        if checkpoint.iter().any(|shard| shard.full) {
            self.fresh = None;
        } else if let Some(fresh) = &mut self.fresh {
            fresh.extend(checkpoint.iter().flat_map(|shard| &shard.seen));
        }
    }

    /// Starts at the newest bucket of a checkpoint, whose buckets may have another width.
    pub fn resume(&mut self, buckets: Buckets) {
        if let Some(current) = buckets.current {
            self.current = convert(current, buckets.width, DAY);
        }
        self.fresh = Some(Vec::new());
    }

    /// Restores a fingerprint of a bucket of `width`; does not replace an existing one. Called after [`Dedup::resume`].
    pub fn remember(&mut self, (fingerprint, bucket): Fingerprint, width: i64) {
        let bucket = convert(bucket, width, DAY).min(self.current + MAX_JUMP);
        if self.current - bucket > self.keep {
            return;
        }
        let shard = &mut self.shards[shard_of(fingerprint)];
        let same = |seen: &Seen| seen.fingerprint == fingerprint;
        let entry = shard.entry(place(fingerprint), same, |seen| place(seen.fingerprint));
        entry.or_insert(Seen { fingerprint, bucket: bucket as u16 });
    }

    /// Number of fingerprints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// Whether there are no fingerprints.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fresh = self.fresh.as_ref().map_or(0, Vec::capacity) * size_of::<Fingerprint>();
        self.shards.iter().map(HashTable::allocation_size).sum::<usize>() + fresh
    }
}

/// The hash of a fingerprint within its shard: hash tables distinguish entries by the highest bits, which are the same
/// in all fingerprints of a shard.
fn place(fingerprint: u64) -> u64 {
    fingerprint ^ (fingerprint << 29)
}

/// The shard of a fingerprint.
fn shard_of(fingerprint: u64) -> usize {
    (fingerprint >> 58) as usize
}

/// Converts the number of a bucket to another width. The result contains the end of the bucket, so that nothing expires
/// earlier.
fn convert(bucket: i64, width: i64, into: i64) -> i64 {
    if width == into { bucket } else { ((bucket + 1) * width - 1).div_euclid(into) }
}

/// The age of a tag in buckets; negative if it is in the future.
fn age(current: i64, tag: u16) -> i64 {
    i64::from((current as u16).wrapping_sub(tag).cast_signed())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_copy_lies_within_the_span_of_the_event_that_counted() {
        let mut dedup = Dedup::new(7 * DAY, DAY);
        let mut seen = |day: i64| dedup.is_duplicate(42, Time::clamped(day * DAY), Time::clamped(day * DAY));
        assert!(!seen(100));
        assert!(seen(100));
        assert!(seen(107));
        assert!(!seen(108));
        assert!(seen(115));
        assert!(!seen(9_000));
    }

    /// Another topic may hold back the class's time, or another customer may advance it: neither changes a result.
    #[test]
    fn the_days_of_the_events_decide_and_not_the_time_of_the_class() {
        let mut dedup = Dedup::new(3 * DAY, 2 * DAY);
        let on = |day: i64| Time::clamped(day * DAY);
        assert!(!dedup.is_duplicate(1, on(100), on(100)));
        assert!(!dedup.is_duplicate(2, on(100), on(104)));
        assert!(!dedup.is_duplicate(1, on(100), on(104)), "four days later");
        assert!(dedup.is_duplicate(2, on(104), on(101)), "three days earlier");
        assert!(dedup.is_duplicate(2, on(109), on(107)), "as late as it may be");
        assert!(!dedup.is_duplicate(2, on(109), on(108)));
        assert!(dedup.knows(2, on(105)) && !dedup.knows(2, on(104)) && !dedup.knows(3, on(109)));
        assert!(!dedup.is_duplicate(3, on(109), on(4_000)));
        assert!((109..3_998).step_by(7).all(|day| dedup.is_duplicate(3, on(day), on(3_999))));
        assert!(dedup.is_duplicate(3, on(4_004), on(4_003)) && !dedup.is_duplicate(3, on(4_004), on(4_004)));
    }

    #[test]
    fn what_expires_before_it_is_written_is_not_written() {
        let mut dedup = Dedup::new(3 * DAY, 0);
        let mut rotation = Rotation::default();
        dedup.take_fresh(&mut rotation, 1);
        let all = 100 * SMALLEST_PRUNE as u64;
        for id in 0..all {
            let at = Time::clamped(20_000 * DAY + id.cast_signed() * DAY / 100);
            assert!(!dedup.is_duplicate(id << 57 | id, at, at));
            assert!(dedup.fresh.as_ref().is_some_and(|fresh| fresh.len() < 2 * SMALLEST_PRUNE));
        }
        let written: Vec<_> = dedup.take_fresh(&mut rotation, 2).into_iter().filter(|shard| !shard.full).collect();
        let alive = |(_, bucket): &Fingerprint| dedup.current - bucket <= dedup.keep;
        assert!(written.iter().flat_map(|shard| &shard.seen).all(alive));
    }

    #[test]
    fn type_customer_and_id_all_count() {
        let all = [
            fingerprint(1, EventType::Order, "a"),
            fingerprint(1, EventType::Order, "b"),
            fingerprint(1, EventType::Refund, "a"),
            fingerprint(2, EventType::Order, "a"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }

    proptest! {
        #[test]
        fn equals_a_map_of_last_days(
            events in prop::collection::vec((0..40_u64, 0..3_i64), 1..2_000),
            life in 1..10_i64,
        ) {
            let mut dedup = Dedup::new(life * DAY, 0);
            let mut model = HashMap::<u64, i64>::new();
            let mut day = 20_000;
            for (id, step) in events {
                day += if step == 2 { 1 } else { 0 };
                let fingerprint = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let expected = model.get(&id).is_some_and(|seen| day - seen <= life);
                if !expected {
                    model.insert(id, day);
                }
                prop_assert_eq!(dedup.is_duplicate(fingerprint, Time::clamped(day * DAY), Time::clamped(day * DAY)), expected);
            }
            prop_assert!(dedup.len() <= 40);
        }
    }
}
