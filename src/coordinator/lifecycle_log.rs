//! What the log tells of the poll loop's life: one line for each event that a person may have to understand later. It
//! names partitions and numbers, never a customer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::bus::{Partition, TopicIndex, rebalance};
use crate::checkpoint::protocol::{Epoch, Outcome};
use crate::event::Time;
use crate::worker::key_placement::Split;

/// When what began that is not over yet.
#[derive(Debug, Default)]
pub(super) struct LifecycleLog {
    joined: bool,
    /// Since when something is owned that is not at its end.
    behind_since: Option<Instant>,
    /// Partitions whose state is being looked for or loaded.
    restoring: BTreeMap<Partition, Instant>,
    /// Partitions that are being given up.
    leaving: BTreeMap<Partition, Instant>,
    /// Why.
    why: &'static str,
    /// Partitions and records of the checkpoint under way.
    committing: (usize, usize),
    /// Windows and changes that were logged.
    respecified: BTreeSet<String>,
    /// Topics of which it was told that customers lie in two partitions.
    split: BTreeSet<TopicIndex>,
}

impl LifecycleLog {
    /// The group says something about partitions; what is given up from now on is given up because of it.
    pub(super) fn group_says(&mut self, event: &rebalance::Event) {
        self.why = match event {
            rebalance::Event::Closing => "this replica stops",
            rebalance::Event::Lost(_) => "the group took them away because this member was silent too long",
            rebalance::Event::Assigned(_) | rebalance::Event::Revoked(_) => "the group hands its partitions out anew",
        };
    }

    /// These partitions are owned now, those were before.
    pub(super) fn owns(&mut self, now: &BTreeSet<Partition>, before: &BTreeSet<Partition>) {
        let gained = now.difference(before).count();
        if gained > 0 {
            self.behind_since = Some(Instant::now());
        }
        let partitions = list(now);
        if std::mem::replace(&mut self.joined, true) {
            let lost = before.difference(now).count();
            info!(partitions, gained, lost, "the group has handed out partitions anew");
        } else {
            info!(partitions, "joined the group");
        }
    }

    pub(super) fn restores(&mut self, partition: Partition) {
        self.restoring.entry(partition).or_insert_with(Instant::now);
    }

    /// A partition begins to be read: with nothing, with so many customers, or with what was kept in memory.
    pub(super) fn begins(&mut self, partition: Partition, state: &State) {
        let took = seconds(self.restoring.remove(&partition).map_or(Duration::ZERO, |since| since.elapsed()));
        let p = partition.0;
        match state {
            State::Nothing => info!("partition {p} begins with nothing"),
            State::Loaded(customers) => {
                info!("partition {p} goes on with the state of {customers} customers, loaded in {took}");
            }
            State::Kept => info!("partition {p} goes on with the state that was kept in memory"),
        }
    }

    /// The configuration was changed, so some figures are not known yet: logged once for all partitions.
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
            info!(partitions, "handing over, behind a last checkpoint: {why}");
        } else {
            info!(partitions, "giving up what was not committed: {why}");
        }
    }

    pub(super) fn left(&mut self, partitions: &[Partition]) {
        let began = partitions.iter().filter_map(|partition| self.leaving.remove(partition)).min();
        if let Some(began) = began {
            info!(partitions = list(partitions), "let go of partitions after {}", seconds(began.elapsed()));
        }
    }

    pub(super) fn caught_up(&mut self) {
        let took = self.behind_since.take().map(|since| format!(" after {}", seconds(since.elapsed())));
        info!("caught up with every owned partition{}", took.unwrap_or_default());
    }

    /// Customers lie in two partitions: told once of each topic.
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

    /// Why a checkpoint failed is told where it fails.
    pub(super) fn committed(&self, epoch: Epoch, outcome: Outcome, took: Option<Duration>) {
        let (partitions, dead_letters) = self.committing;
        if outcome == Outcome::Committed {
            let took = took.map(seconds).unwrap_or_default();
            debug!(epoch = epoch.0, partitions, dead_letters, took, "a checkpoint is committed");
        }
    }
}

/// What a partition begins with.
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
