//! The alerts to post, and their order. Pure: time and randomness are arguments.
//!
//! The alerts of one customer are posted one at a time in topic order; customers do not wait for each other. An offset
//! is committed only once every alert before it is delivered or given up, so a restart loses nothing and repeats at
//! most alerts that were delivered ahead of an older one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::policy::{Action, Outcome, Tries, step};

/// A message of the alert topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, the customer.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its log time in epoch milliseconds.
    pub time: Option<i64>,
}

impl Alert {
    /// Approximate size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + self.payload.len() + headers
    }

    /// The event id; without one, partition and offset, which are as unique.
    #[must_use]
    pub fn id(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        let plain = |id: &str| !id.is_empty() && id.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        match serde_json::from_slice::<Event<'_>>(&self.payload) {
            Ok(event) if plain(&event.id) => event.id.into_owned(),
            _ => format!("{}-{}", self.partition, self.offset),
        }
    }
}

fn length(bytes: &Option<Vec<u8>>) -> usize {
    bytes.as_ref().map_or(0, Vec::len)
}

/// What to do with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Post it.
    Post(Arc<Alert>),
    /// Send it to the dead-letter topic, for this reason.
    DeadLetter(Arc<Alert>, String),
}

/// The key of a queue: a customer, or a whole partition for alerts without a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn(i32, Option<Vec<u8>>);

#[derive(Debug)]
struct KeyQueue {
    alerts: VecDeque<Arc<Alert>>,
    tries: Tries,
    /// Why the first alert is given up.
    reason: Option<String>,
}

/// The progress of a partition.
#[derive(Debug, Default)]
struct Progress {
    /// The offset after the last record read.
    read: i64,
    /// Offsets of alerts that were read and are neither delivered nor given up.
    pending: BTreeSet<i64>,
    committed: i64,
}

impl Progress {
    fn next(&self) -> i64 {
        self.pending.first().copied().unwrap_or(self.read)
    }
}

/// All alerts that were read and are neither delivered nor given up.
#[derive(Debug, Default)]
pub struct Queue {
    queues: HashMap<Turn, KeyQueue>,
    ready: VecDeque<Turn>,
    /// Queues that wait for a retry, by the time at which they are ready.
    delayed: BTreeSet<(Instant, Turn)>,
    /// Queues whose first alert is being posted or dead-lettered.
    in_flight: BTreeSet<Turn>,
    /// Those of `in_flight` whose partition was released; their results do not count.
    orphaned: BTreeSet<Turn>,
    partitions: BTreeMap<i32, Progress>,
    /// The endpoint asked for a pause until then.
    not_before: Option<Instant>,
    last_success: Option<Instant>,
    bytes: usize,
    waiting: usize,
}

impl Queue {
    /// Starts a partition at an offset.
    pub fn begin(&mut self, partition: i32, next: i64) {
        self.partitions.insert(partition, Progress { read: next, pending: BTreeSet::new(), committed: next });
    }

    /// Drops the alerts of a partition, and ignores the results of those in flight.
    pub fn release(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        let of = |turn: &Turn| turn.0 == partition;
        for (_, queue) in self.queues.extract_if(|turn, _| of(turn)) {
            self.waiting -= queue.alerts.len();
            self.bytes -= queue.alerts.iter().map(|alert| alert.bytes()).sum::<usize>();
        }
        self.ready.retain(|turn| !of(turn));
        self.delayed.retain(|(_, turn)| !of(turn));
        self.orphaned.extend(self.in_flight.iter().filter(|turn| of(turn)).cloned());
    }

    /// The partitions that were started and not released.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// Adds an alert; ignores those of other partitions, and duplicates.
    pub fn add(&mut self, alert: Alert) {
        let Some(progress) = self.partitions.get_mut(&alert.partition) else { return };
        if alert.offset < progress.read {
            return;
        }
        progress.read = alert.offset + 1;
        progress.pending.insert(alert.offset);
        self.waiting += 1;
        self.bytes += alert.bytes();
        let turn = Turn(alert.partition, alert.key.clone());
        let queue = self.queues.entry(turn.clone());
        let is_new = matches!(queue, std::collections::hash_map::Entry::Vacant(_));
        let queue =
            queue.or_insert_with(|| KeyQueue { alerts: VecDeque::new(), tries: Tries::default(), reason: None });
        queue.alerts.push_back(Arc::new(alert));
        // If one of a former assignment is still in flight, `take_in_flight` makes the queue ready.
        if is_new && !self.in_flight.contains(&turn) {
            self.ready.push_back(turn);
        }
    }

    /// Skips records before `offset` that are no alerts: transaction markers and tombstones.
    pub fn advance(&mut self, partition: i32, offset: i64) {
        if let Some(progress) = self.partitions.get_mut(&partition) {
            progress.read = progress.read.max(offset);
        }
    }

    /// The next task, if one is ready.
    pub fn next(&mut self, now: Instant) -> Option<(Turn, Task)> {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.delayed.pop_first().map(|(_, turn)| turn));
        }
        if self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        let turn = self.ready.pop_front()?;
        let queue = self.queues.get(&turn)?;
        let alert = Arc::clone(queue.alerts.front()?);
        let task = match &queue.reason {
            Some(why) => Task::DeadLetter(alert, why.clone()),
            None => Task::Post(alert),
        };
        self.in_flight.insert(turn.clone());
        Some((turn, task))
    }

    /// When [`Queue::next`] may return a task again.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let first = if self.ready.is_empty() { self.delayed.first().map(|(at, _)| *at) } else { self.not_before };
        first.map(|at| self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Handles the outcome of an attempt. Returns the action; the caller must handle [`Action::Disable`].
    pub fn attempted(&mut self, turn: Turn, outcome: &Outcome, now: Instant, draw: f64) -> Option<Action> {
        let queue = self.take_in_flight(&turn)?;
        let mut tries = std::mem::take(&mut queue.tries);
        let action = step(&mut tries, outcome, self.last_success, now, draw);
        let queue = self.queues.get_mut(&turn)?;
        queue.tries = tries;
        match &action {
            Action::Delivered => {
                self.last_success = Some(now);
                self.done(turn);
            }
            Action::Retry { at, asked } => {
                if *asked {
                    self.not_before = self.not_before.max(Some(*at));
                }
                self.delayed.insert((*at, turn));
            }
            Action::GiveUp(why) => {
                queue.reason = Some(why.clone());
                self.ready.push_back(turn);
            }
            Action::Disable => self.ready.push_front(turn),
        }
        Some(action)
    }

    /// Handles the outcome of a dead letter: written, or to be retried at `retry_at`. Returns whether it was written
    /// and counts.
    pub fn dead_lettered(&mut self, turn: Turn, retry_at: Option<Instant>) -> bool {
        if self.take_in_flight(&turn).is_none() {
            return false;
        }
        match retry_at {
            None => self.done(turn),
            Some(at) => drop(self.delayed.insert((at, turn))),
        }
        retry_at.is_none()
    }

    /// Takes a queue out of flight; `None` if it belongs to a former assignment.
    fn take_in_flight(&mut self, turn: &Turn) -> Option<&mut KeyQueue> {
        if !self.in_flight.remove(turn) {
            return None;
        }
        if self.orphaned.remove(turn) {
            // The partition was assigned again, and the new queue waited for this.
            if self.queues.contains_key(turn) {
                self.ready.push_back(turn.clone());
            }
            return None;
        }
        self.queues.get_mut(turn)
    }

    fn done(&mut self, turn: Turn) {
        let Some(queue) = self.queues.get_mut(&turn) else { return };
        (queue.tries, queue.reason) = (Tries::default(), None);
        if let Some(alert) = queue.alerts.pop_front() {
            self.waiting -= 1;
            self.bytes -= alert.bytes();
            if let Some(progress) = self.partitions.get_mut(&alert.partition) {
                progress.pending.remove(&alert.offset);
            }
        }
        if queue.alerts.is_empty() {
            self.queues.remove(&turn);
        } else {
            self.ready.push_back(turn);
        }
    }

    /// How many alerts are waiting or in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether no alerts are waiting or in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Total size of these alerts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many alerts are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The log time of the oldest alert, in epoch milliseconds.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.queues.values().filter_map(|queue| queue.alerts.front()?.time).min()
    }

    /// The next offsets that differ from those committed.
    #[must_use]
    pub fn uncommitted(&self) -> Vec<(i32, i64)> {
        let moved = self.partitions.iter().filter(|(_, progress)| progress.next() != progress.committed);
        moved.map(|(partition, progress)| (*partition, progress.next())).collect()
    }

    /// Notes committed offsets.
    pub fn committed(&mut self, next: &[(i32, i64)]) {
        for (partition, next) in next {
            if let Some(progress) = self.partitions.get_mut(partition) {
                progress.committed = *next;
            }
        }
    }

    /// Makes the next commit include all partitions, even those whose offset did not change.
    pub fn forget_commits(&mut self) {
        self.partitions.values_mut().for_each(|progress| progress.committed = -1);
    }
}

#[cfg(test)]
mod tests;
