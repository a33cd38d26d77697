//! What is to be posted, and in which order. Pure: time and chance are arguments.
//!
//! The alerts of one customer leave in the order of the topic, one at a time; another customer's wait for nobody. An
//! alert that failed waits for its next try while others go on. A position is committed only once everything before it
//! is delivered or given up, so a restart loses nothing, and repeats at most what was delivered ahead of an older one.

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
    /// How many bytes it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + self.payload.len() + headers
    }

    /// The id of its event; where it holds none, its place, which is as unique.
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

/// What is to be done with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Post it.
    Post(Arc<Alert>),
    /// Put it into the dead-letter topic, for this reason.
    DeadLetter(Arc<Alert>, String),
}

/// Whose turn it is: a customer, or a partition for what has no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn(i32, Option<Vec<u8>>);

#[derive(Debug)]
struct KeyQueue {
    alerts: VecDeque<Arc<Alert>>,
    tries: Tries,
    /// Why the first one is given up.
    reason: Option<String>,
}

/// How far a partition is.
#[derive(Debug, Default)]
struct Progress {
    /// Behind the last record that was read.
    read: i64,
    /// What was read and is not done with.
    pending: BTreeSet<i64>,
    committed: i64,
}

impl Progress {
    fn next(&self) -> i64 {
        self.pending.first().copied().unwrap_or(self.read)
    }
}

/// Everything that was read and is not done with.
#[derive(Debug, Default)]
pub struct Queue {
    queues: HashMap<Turn, KeyQueue>,
    ready: VecDeque<Turn>,
    /// Those that wait, by when they are ready.
    later: BTreeSet<(Instant, Turn)>,
    /// Those that are under way.
    out: BTreeSet<Turn>,
    /// Whether what is under way belongs to a partition that was given up meanwhile.
    orphaned: BTreeSet<Turn>,
    partitions: BTreeMap<i32, Progress>,
    /// Nobody is posted before: the endpoint asked for it.
    not_before: Option<Instant>,
    last_taken: Option<Instant>,
    bytes: usize,
    waiting: usize,
}

impl Queue {
    /// A partition is read from here on.
    pub fn begin(&mut self, partition: i32, next: i64) {
        self.partitions.insert(partition, Progress { read: next, pending: BTreeSet::new(), committed: next });
    }

    /// A partition is given up: what waits of it is forgotten, and what is under way does not count.
    pub fn give_up(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        let of = |turn: &Turn| turn.0 == partition;
        for (_, queue) in self.queues.extract_if(|turn, _| of(turn)) {
            self.waiting -= queue.alerts.len();
            self.bytes -= queue.alerts.iter().map(|alert| alert.bytes()).sum::<usize>();
        }
        self.ready.retain(|turn| !of(turn));
        self.later.retain(|(_, turn)| !of(turn));
        self.orphaned.extend(self.out.iter().filter(|turn| of(turn)).cloned());
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// Adds a record that was read; of a partition that is not read, or twice, it is passed over.
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
        // Where one of a former assignment is still under way, its end makes the way free.
        if is_new && !self.out.contains(&turn) {
            self.ready.push_back(turn);
        }
    }

    /// Notes that nothing to be posted lies before `offset`: what is there are marks of transactions, or tombstones.
    pub fn passed(&mut self, partition: i32, offset: i64) {
        if let Some(progress) = self.partitions.get_mut(&partition) {
            progress.read = progress.read.max(offset);
        }
    }

    /// What is to be done next, if anything may be done now.
    pub fn next(&mut self, now: Instant) -> Option<(Turn, Task)> {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.later.pop_first().map(|(_, turn)| turn));
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
        self.out.insert(turn.clone());
        Some((turn, task))
    }

    /// When [`Queue::next`] may have something again that it has not now.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let first = if self.ready.is_empty() { self.later.first().map(|(at, _)| *at) } else { self.not_before };
        first.map(|at| self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// An attempt has ended. Returns what that asks for; [`Action::Disable`] is the caller's to do.
    pub fn attempted(&mut self, turn: Turn, outcome: &Outcome, now: Instant, draw: f64) -> Option<Action> {
        let queue = self.returned(&turn)?;
        let mut tries = std::mem::take(&mut queue.tries);
        let action = step(&mut tries, outcome, self.last_taken, now, draw);
        let queue = self.queues.get_mut(&turn)?;
        queue.tries = tries;
        match &action {
            Action::Delivered => {
                self.last_taken = Some(now);
                self.done(turn);
            }
            Action::Retry { at, asked } => {
                if *asked {
                    self.not_before = self.not_before.max(Some(*at));
                }
                self.later.insert((*at, turn));
            }
            Action::GiveUp(why) => {
                queue.reason = Some(why.clone());
                self.ready.push_back(turn);
            }
            Action::Disable => self.ready.push_front(turn),
        }
        Some(action)
    }

    /// A given-up alert is in the dead-letter topic, or could not be brought there and waits until `again`.
    pub fn dead_lettered(&mut self, turn: Turn, again: Option<Instant>) -> bool {
        if self.returned(&turn).is_none() {
            return false;
        }
        match again {
            None => self.done(turn),
            Some(at) => drop(self.later.insert((at, turn))),
        }
        again.is_none()
    }

    /// Takes note that what was under way came back; `None` when it belongs to a assignment that is over.
    fn returned(&mut self, turn: &Turn) -> Option<&mut KeyQueue> {
        if !self.out.remove(turn) {
            return None;
        }
        if self.orphaned.remove(turn) {
            // Read again meanwhile, it waited for this.
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

    /// How many alerts wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// What they hold together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.out.len()
    }

    /// The log time of the oldest of them, in epoch milliseconds.
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

    /// These are committed.
    pub fn committed(&mut self, next: &[(i32, i64)]) {
        for (partition, next) in next {
            if let Some(progress) = self.partitions.get_mut(partition) {
                progress.committed = *next;
            }
        }
    }

    /// Whether the last commits got through is unknown: everything is to be committed again.
    pub fn forget_commits(&mut self) {
        self.partitions.values_mut().for_each(|progress| progress.committed = -1);
    }
}

#[cfg(test)]
mod tests;
