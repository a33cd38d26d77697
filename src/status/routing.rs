//! How the router of a source is doing, for those who ask: written by its task, read by a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::ReadPosition;
use crate::bus::{Partition, TopicIndex};

/// What is known of one router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The topic that it reads.
    pub topic: String,
    /// The topic that it fills, by its place among those that the group reads.
    pub into: TopicIndex,
    /// Whether this replica routes.
    pub is_ours: bool,
    /// Why it does not route although it should, if so.
    pub last_error: Option<String>,
    /// How far each partition of its topic is routed and committed.
    pub positions: BTreeMap<Partition, ReadPosition>,
    /// When everything was routed the first time since this replica routes.
    pub caught_up_at: Option<Instant>,
    /// When everything was routed the last time.
    pub last_at_end: Option<Instant>,
    /// Events that were routed and committed since the process began.
    pub events: u64,
    /// Dead letters that were committed.
    pub dead_letters: u64,
    /// Messages that could not be decoded, by the number of the reason.
    pub rejected: Vec<u64>,
    /// Messages skipped on purpose, by the number of the reason.
    pub skipped: Vec<u64>,
    /// Messages of a type that this version does not know.
    pub unknown: u64,
    /// Those types, the first that were found.
    pub unknown_types: BTreeSet<String>,
}

impl Routing {
    /// Records that are not routed yet; `None` until every end is known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        self.positions.values().try_fold(0, |sum, position| Some(sum + position.lag()?))
    }
}

/// The shared place of a [`Routing`].
#[derive(Debug, Default)]
pub struct RoutingStatus(Mutex<Routing>);

impl RoutingStatus {
    /// A router that has done nothing yet.
    #[must_use]
    pub fn new(topic: String, into: TopicIndex) -> RoutingStatus {
        RoutingStatus(Mutex::new(Routing { topic, into, ..Routing::default() }))
    }

    /// What is known now.
    #[must_use]
    pub fn read(&self) -> Routing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes something down.
    pub fn change<T>(&self, change: impl FnOnce(&mut Routing) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
