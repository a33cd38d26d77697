//! Log lines of the poll loop: one for each event that an operator may need to understand later. They contain
//! partitions and numbers, never customers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::bus::{Partition, TopicIndex, rebalance};
use crate::checkpoint::protocol::{Epoch, Outcome};
use crate::event::Time;
use crate::worker::key_placement::Split;

/// Start times of what is in progress.
#[derive(Debug, Default)]
pub(super) struct LifecycleLog {
    joined: bool,
    /// Since when an owned partition has not caught up.
    behind_since: Option<Instant>,
    /// Partitions whose state is being found or loaded.
    restoring: BTreeMap<Partition, Instant>,
    /// Partitions that are being given up.
    leaving: BTreeMap<Partition, Instant>,
    /// Why they are given up.
    why: &'static str,
    /// Numbers of partitions and records in the current commit.
    committing: (usize, usize),
    /// Changes of windows that were logged.
    respecified: BTreeSet<String>,
    /// Topics for which customers in two partitions were logged.
    split: BTreeSet<TopicIndex>,
}

impl LifecycleLog {
    /// The group assigns or revokes partitions; this is the reason for partitions given up from now on.
    pub(super) fn group_says(&mut self, event: &rebalance::Event) {
        self.why = match event {
            rebalance::Event::Closing => "this replica stops",
            rebalance::Event::Lost(_) => "the group took them away because this member was silent too long",
            rebalance::Event::Assigned(_) | rebalance::Event::Revoked(_) => "the group is rebalancing",
        };
    }

    /// The owned partitions change.
    pub(super) fn owns(&mut self, now: &BTreeSet<Partition>, before: &BTreeSet<Partition>) {
        let gained = now.difference(before).count();
        if gained > 0 {
            self.behind_since = Some(Instant::now());
        }
        let partitions = list(now);
        if std::mem::replace(&mut self.joined, true) {
            let lost = before.difference(now).count();
            info!(partitions, gained, lost, "the group was rebalanced");
        } else {
            info!(partitions, "joined the group");
        }
    }

    pub(super) fn restores(&mut self, partition: Partition) {
        self.restoring.entry(partition).or_insert_with(Instant::now);
    }

    /// A partition begins to be processed.
    pub(super) fn begins(&mut self, partition: Partition, state: &State) {
        let took = seconds(self.restoring.remove(&partition).map_or(Duration::ZERO, |since| since.elapsed()));
        let p = partition.0;
        match state {
            State::Nothing => info!("partition {p} starts without state"),
            State::Loaded(customers) => {
                info!("partition {p} restored {customers} customers in {took}");
            }
            State::Kept => info!("partition {p} resumes with the state kept in memory"),
        }
    }

    /// After a change of the configuration some figures are incomplete: logged once for all partitions.
    pub(super) fn respecified(&mut self, missing: &[(String, &'static str, Time)]) {
        let Some(until) = missing.iter().map(|(.., until)| *until).max() else { return };
        let windows: Vec<_> = missing.iter().map(|(window, why, _)| format!("{window}: {why}")).collect();
        let windows = windows.join("; ");
        if self.respecified.insert(windows.clone()) {
            warn!(
                "figures that cannot be known yet are absent, at the latest until {until} of event time ({windows}); \
                 /api/v1/summary lists them under `missing`, and docs/operate/upgrade.md says how to have them at once"
            );
        }
    }

    pub(super) fn leaves(&mut self, partitions: &[Partition], in_order: bool) {
        let now = Instant::now();
        self.leaving.extend(partitions.iter().map(|&partition| (partition, now)));
        partitions.iter().for_each(|partition| _ = self.restoring.remove(partition));
        let (partitions, why) = (list(partitions), self.why);
        if in_order {
            info!(partitions, "releasing partitions after a last checkpoint: {why}");
        } else {
            info!(partitions, "dropping partitions with uncommitted work: {why}");
        }
    }

    pub(super) fn left(&mut self, partitions: &[Partition]) {
        let began = partitions.iter().filter_map(|partition| self.leaving.remove(partition)).min();
        if let Some(began) = began {
            info!(partitions = list(partitions), "released partitions after {}", seconds(began.elapsed()));
        }
    }

    pub(super) fn caught_up(&mut self) {
        let took = self.behind_since.take().map(|since| format!(" after {}", seconds(since.elapsed())));
        info!("caught up with every owned partition{}", took.unwrap_or_default());
    }

    /// Customers are in two partitions: logged once per topic.
    pub(super) fn split(&mut self, found: &[Split], topics: &[String]) {
        let name = |topic: TopicIndex| topics.get(usize::from(topic.0)).map_or("", String::as_str);
        for Split { first, then } in found {
            if self.split.insert(then.topic) {
                error!(
                    "a customer of topic {:?} partition {} was seen in topic {:?} partition {} before, so figures are \
                     wrong: such customers count once in each. If the topic is keyed by something else than the customer \
                     id, write repartition = true for its source (sources.*.repartition) and rebuild the state; if both \
                     topics are keyed by customer id, let their producers use one partitioner",
                    name(then.topic),
                    then.partition.0,
                    name(first.topic),
                    first.partition.0
                );
            }
        }
    }

    pub(super) fn commits(&mut self, partitions: usize, records: usize) {
        self.committing = (partitions, records);
    }

    /// Only success is logged here; failures are logged where they occur.
    pub(super) fn committed(&self, epoch: Epoch, outcome: Outcome, took: Option<Duration>) {
        let (partitions, dead_letters) = self.committing;
        if outcome == Outcome::Committed {
            let took = took.map(seconds).unwrap_or_default();
            debug!(epoch = epoch.0, partitions, dead_letters, took, "a checkpoint is committed");
        }
    }
}

/// The state with which a partition begins.
pub(super) enum State {
    Nothing,
    Loaded(usize),
    Kept,
}

fn list<'a>(partitions: impl IntoIterator<Item = &'a Partition>) -> String {
    let names: Vec<_> = partitions.into_iter().map(|partition| partition.0.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
