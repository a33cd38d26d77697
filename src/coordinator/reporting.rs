//! What the coordinator reports: its log, and the status for probes, metrics and the page.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tokio::sync::watch;
use tracing::warn;

use super::Coordinator;
use super::lifecycle_log::LifecycleLog;
use super::uncommitted::Uncommitted;
use crate::bus::{GroupClient, Partition, TopicPartition};
use crate::checkpoint::protocol::PartitionPhase;
use crate::status::latency::Latency;
use crate::status::{Checkpoints, PartitionState, SourceStatus};

/// Data to report, and the channel for the status.
pub(super) struct Reporting {
    pub(super) status: watch::Sender<SourceStatus>,
    pub(super) latency: Latency,
    pub(super) checkpoints: Checkpoints,
    pub(super) uncommitted: Uncommitted,
    pub(super) log: LifecycleLog,
    /// Topics for which unusable messages were logged.
    pub(super) warned_poor: BTreeSet<String>,
}

impl Reporting {
    pub(super) fn new(status: watch::Sender<SourceStatus>) -> Reporting {
        Reporting {
            status,
            latency: Latency::default(),
            checkpoints: Checkpoints::default(),
            uncommitted: Uncommitted::default(),
            log: LifecycleLog::default(),
            warned_poor: BTreeSet::new(),
        }
    }
}

impl<C: GroupClient> Coordinator<C> {
    pub(super) fn last_error(&mut self, text: String) {
        let known = self.reporting.status.borrow().last_error.as_deref() == Some(&text);
        if !known {
            warn!("{text}");
            self.reporting.status.send_modify(|status| status.last_error = Some(text));
        }
    }

    pub(super) fn clear_error(&self) {
        self.reporting.status.send_if_modified(|status| status.last_error.take().is_some());
    }

    /// Publishes why checkpoints are not committed; `None` once they are.
    pub(super) fn commit_error(&self, why: Option<String>) {
        self.reporting.status.send_if_modified(|status| {
            let is_news = status.commit_error != why;
            status.commit_error = why;
            is_news
        });
    }

    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        self.timers.last_publish = Some(now);
        if let Ok(mut handle) = self.handles.lock() {
            *handle = self.client.handle();
        }
        for (&partition, owned) in &mut self.partitions {
            for (&topic, progress) in &mut owned.progress {
                let end = self.client.end_offset(TopicPartition { topic, partition });
                progress.position.end = end.max(progress.position.end);
                if progress.position.lag() == Some(0) {
                    progress.position.last_at_end = Some(now);
                }
            }
        }
        let state = |(partition, phase): (Partition, PartitionPhase)| {
            let state = match phase {
                PartitionPhase::Restoring => PartitionState::Restoring,
                PartitionPhase::Running => PartitionState::Running,
                PartitionPhase::Draining => PartitionState::Draining,
                PartitionPhase::Failed => {
                    let why = self.partitions.get(&partition).and_then(|owned| owned.failure.clone());
                    PartitionState::Failed(why.unwrap_or_default())
                }
            };
            (partition, state)
        };
        let states: BTreeMap<_, _> = self.durable.partitions().map(state).collect();
        let was_behind = !self.reporting.status.borrow().has_caught_up();
        self.reporting.status.send_modify(|status| {
            status.owned = self.group.owned().iter().copied().collect();
            status.missing.retain(|partition, _| states.contains_key(partition));
            status.states = states;
            status.positions = self.progress().map(|(at, progress)| (at, progress.position)).collect();
            status.last_poll = Some(now);
            status.schemas = self.pool.last_error();
            status.split_customers = self.pool.key_placement().counts();
            status.checkpoints = self.reporting.checkpoints;
            status.checkpoints.uncommitted_since = self.reporting.uncommitted.since();
            status.checkpoints.stale_after = Some(self.rules.stale_after);
            status.latency.clone_from(&self.reporting.latency);
        });
        self.reporting.log.split(&self.pool.key_placement().found(), &self.rules.topics);
        if was_behind && self.reporting.status.borrow().has_caught_up() {
            self.reporting.log.caught_up();
        }
    }
}
