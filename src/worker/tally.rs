//! Counters of a worker, for the metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::{Reason, Skip};
use crate::engine::inactivity::release::{RuleParts, add_rules};
use crate::event::{Currency, EventType};

/// Counters of a worker since it started, by source topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decoded messages by type, including duplicates and late ones.
    pub events: Vec<[u64; EventType::ALL.len()]>,
    /// Rejected messages by reason.
    pub rejected: Vec<[u64; Reason::ALL.len()]>,
    /// Messages and events skipped on purpose, by reason.
    pub skipped: Vec<[u64; Skip::ALL.len()]>,
    /// The first unknown types found.
    pub unknown_types: Vec<BTreeSet<String>>,
    /// Duplicate events.
    pub duplicates: u64,
    /// Events rejected as too late.
    pub late: u64,
    /// Amounts without a rate to the reporting currency.
    pub unconverted: BTreeMap<Currency, u64>,
    /// Results of the alert rules in committed checkpoints.
    pub inactivity: Vec<RuleParts>,
}

impl Tally {
    /// Counters at zero.
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

    /// Adds the counters of another worker.
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

    /// Counts a message of an unknown type.
    pub fn add_unknown(&mut self, topic: usize, name: &str) {
        self.events[topic][EventType::Unknown as usize] += 1;
        note_type(&mut self.unknown_types[topic], name);
    }

    /// Adds results of the alert rules.
    pub fn add_inactivity(&mut self, more: &[RuleParts]) {
        add_rules(&mut self.inactivity, more);
    }

    /// Adds amounts without a rate.
    pub fn add_unconverted(&mut self, amounts: &BTreeMap<Currency, u64>) {
        for (&currency, count) in amounts {
            *self.unconverted.entry(currency).or_default() += count;
        }
    }
}

/// Maximum number of unknown types kept by name.
const TYPES: usize = 16;

/// Keeps the name of an unknown type, up to the limit.
pub fn note_type(types: &mut BTreeSet<String>, name: &str) {
    if types.len() < TYPES && !types.contains(name) {
        types.insert(name.to_owned());
    }
}
