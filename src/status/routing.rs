//! Status of the repartitioning of a source: written by its task, read by scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::ReadPosition;
use crate::bus::{Partition, TopicIndex};

/// Status of one repartitioned source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The topic that it reads.
    pub topic: String,
    /// The target topic, by its index among the topics that the group reads.
    pub into: TopicIndex,
    /// Whether this replica repartitions it.
    pub is_ours: bool,
    /// Why this replica fails to repartition it, if so.
    pub last_error: Option<String>,
    /// The committed position in each partition of the source topic.
    pub positions: BTreeMap<Partition, ReadPosition>,
    /// When this replica first reached the end of the source topic.
    pub caught_up_at: Option<Instant>,
    /// When this replica last reached the end of the source topic.
    pub last_at_end: Option<Instant>,
    /// Events copied and committed since the process started.
    pub events: u64,
    /// Committed dead letters.
    pub dead_letters: u64,
    /// Rejected messages, by the number of the reason.
    pub rejected: Vec<u64>,
    /// Skipped messages, by the number of the reason.
    pub skipped: Vec<u64>,
    /// Messages of an unknown type.
    pub unknown: u64,
    /// The first unknown types found.
    pub unknown_types: BTreeSet<String>,
}

impl Routing {
    /// Records not yet copied; `None` until every end is known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        self.positions.values().try_fold(0, |sum, position| Some(sum + position.lag()?))
    }
}

/// Shared [`Routing`].
#[derive(Debug, Default)]
pub struct RoutingStatus(Mutex<Routing>);

impl RoutingStatus {
    /// The initial status.
    #[must_use]
    pub fn new(topic: String, into: TopicIndex) -> RoutingStatus {
        RoutingStatus(Mutex::new(Routing { topic, into, ..Routing::default() }))
    }

    /// The current status.
    #[must_use]
    pub fn read(&self) -> Routing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the status.
    pub fn change<T>(&self, change: impl FnOnce(&mut Routing) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
