//! What a worker counts, for the metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::{Reason, Skip};
use crate::engine::inactivity::release::{RuleParts, add_rules};
use crate::event::{Currency, EventType};

/// What one worker has counted since it started, by source topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decoded messages of each type, duplicates and late ones included.
    pub events: Vec<[u64; EventType::ALL.len()]>,
    /// Messages rejected for each reason.
    pub rejected: Vec<[u64; Reason::ALL.len()]>,
    /// Messages and events skipped on purpose, for each reason.
    pub skipped: Vec<[u64; Skip::ALL.len()]>,
    /// The unknown types that were found first.
    pub unknown_types: Vec<BTreeSet<String>>,
    /// Second copies.
    pub duplicates: u64,
    /// Events too late to count.
    pub late: u64,
    /// Amounts that had no rate into the reporting currency.
    pub unconverted: BTreeMap<Currency, u64>,
    /// What came of the rules, as far as it is committed.
    pub inactivity: Vec<RuleParts>,
}

impl Tally {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(topics: usize) -> Tally {
        Tally {
            events: vec![Default::default(); topics],
            rejected: vec![Default::default(); topics],
            skipped: vec![Default::default(); topics],
            unknown_types: vec![BTreeSet::new(); topics],
            ..Tally::default()
        }
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Tally) {
        let topics = self.events.len().max(other.events.len());
        self.events.resize(topics, Default::default());
        self.rejected.resize(topics, Default::default());
        self.skipped.resize(topics, Default::default());
        self.unknown_types.resize(topics, BTreeSet::new());
        for (mine, theirs) in self.events.iter_mut().zip(&other.events) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        for (mine, theirs) in self.rejected.iter_mut().zip(&other.rejected) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        for (mine, theirs) in self.skipped.iter_mut().zip(&other.skipped) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        for (mine, theirs) in self.unknown_types.iter_mut().zip(&other.unknown_types) {
            theirs.iter().for_each(|name| note_type(mine, name));
        }
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.add_unconverted(&other.unconverted);
        self.add_inactivity(&other.inactivity);
    }

    /// Takes note of a message of an unknown type.
    pub fn add_unknown(&mut self, topic: usize, name: &str) {
        self.events[topic][EventType::Unknown as usize] += 1;
        note_type(&mut self.unknown_types[topic], name);
    }

    /// Adds what came of the rules.
    pub fn add_inactivity(&mut self, more: &[RuleParts]) {
        add_rules(&mut self.inactivity, more);
    }

    /// Adds amounts that had no rate.
    pub fn add_unconverted(&mut self, amounts: &BTreeMap<Currency, u64>) {
        for (&currency, count) in amounts {
            *self.unconverted.entry(currency).or_default() += count;
        }
    }
}

/// How many unknown types are kept by name.
const TYPES: usize = 16;

/// Keeps the name of an unknown type, unless enough are kept.
pub fn note_type(types: &mut BTreeSet<String>, name: &str) {
    if types.len() < TYPES && !types.contains(name) {
        types.insert(name.to_owned());
    }
}
