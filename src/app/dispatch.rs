//! The poll loop: one thread takes batches from the log, hands them to the workers, and commits what they applied.
//!
//! Offsets are committed from the workers' reports alone, so a commit never passes an unapplied record; and only after
//! the dead letters of those records are delivered, so nothing is lost in between.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::event::{Time, wall_clock};
use crate::output::dead_letters::{DeadLetters, Letter, Origin};
use crate::source::idle::{Silence, raises};
use crate::source::latency::Latency;
use crate::source::rebalance::{self, Command, Event};
use crate::source::status::{Position, SourceStatus};
use crate::source::{LogClient, Partition, Polled, SourceError, Start, TopicPartition};
use crate::worker::pool::{Applied, Pool, Stopped};

/// How long one poll waits for messages.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// How often the state is told to those who ask.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often silent topic-partitions are looked for.
const IDLE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long leaving the group may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How the poll loop is to work.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Names of the source topics, for messages to people.
    pub topics: Vec<String>,
    /// Where a partition is read from when it is taken over: until state is durable, always from there.
    pub start: Start,
    /// How far ahead of the wall clock an event may lie, in milliseconds.
    pub max_future: i64,
    /// How often offsets are committed.
    pub commit_every: Duration,
    /// After how long a caught-up topic-partition without records no longer holds time up.
    pub idle_after: Duration,
}

/// How far one topic-partition is read and applied.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The offset behind the last record handed to a worker.
    handed_out: Option<i64>,
    position: Position,
    /// When a record came the last time, or the partition was taken over.
    last_record: Option<Instant>,
    /// The offset last told to the group; none once a commit has failed, so that the next one tells all.
    committed: Option<i64>,
}

/// The poll loop and what it holds on to.
pub struct Dispatcher<C: LogClient> {
    client: C,
    pool: Pool<C::Batch>,
    applied: Receiver<Applied<C::Batch>>,
    dead_letters: Option<DeadLetters>,
    rules: Rules,
    group: rebalance::State,
    progress: BTreeMap<TopicPartition, Progress>,
    status: watch::Sender<SourceStatus>,
    latency: Latency,
    last_commit: Instant,
    last_publish: Option<Instant>,
    last_idle_check: Option<Instant>,
}

impl<C: LogClient> Dispatcher<C> {
    /// A poll loop for a client that has just joined its group.
    pub fn new(
        client: C,
        pool: Pool<C::Batch>,
        applied: Receiver<Applied<C::Batch>>,
        dead_letters: Option<DeadLetters>,
        rules: Rules,
        status: watch::Sender<SourceStatus>,
    ) -> Dispatcher<C> {
        let topics = u16::try_from(rules.topics.len()).unwrap_or(u16::MAX);
        Dispatcher {
            group: rebalance::State::new(client.protocol(), topics),
            client,
            pool,
            applied,
            dead_letters,
            rules,
            progress: BTreeMap::new(),
            status,
            latency: Latency::default(),
            last_commit: Instant::now(),
            last_publish: None,
            last_idle_check: None,
        }
    }

    /// Polls until `stop` says so or hangs up, then stops in order: what is handed out is applied and committed, and
    /// the group is left.
    ///
    /// # Errors
    /// When the source cannot go on.
    pub fn run(mut self, stop: &Receiver<()>) -> Result<(), SourceError> {
        let outcome = loop {
            if !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
                break Ok(());
            }
            if let Err(error) = self.round() {
                break Err(error);
            }
        };
        let left = self.step(Event::Closing);
        self.close();
        outcome.and(left)
    }

    fn close(self) {
        self.client.close(CLOSE_WAIT);
        if self.pool.join().is_err() {
            error!("a worker ended before its time");
        }
    }

    fn round(&mut self) -> Result<(), SourceError> {
        let polled = self.client.poll(POLL_WAIT);
        let read = Instant::now();
        let latest = wall_clock().plus(self.rules.max_future);
        for polled in polled {
            if !matches!(polled, Polled::Trouble(_) | Polled::Uncommitted | Polled::Lost(_) | Polled::Fatal(_)) {
                self.well_again();
            }
            match polled {
                Polled::Records(at, batch) => self.hand_out(at, batch, latest, read)?,
                Polled::End { at, offset } => self.pool.end(at, offset).map_err(gone)?,
                Polled::Assigned(given) => self.step(Event::Assigned(given))?,
                Polled::Revoked(taken) => self.step(Event::Revoked(taken))?,
                Polled::Lost(taken) => {
                    warn!("the group took partitions away because this member was silent too long");
                    self.step(Event::Lost(taken))?;
                }
                Polled::Uncommitted => self.progress.values_mut().for_each(|progress| progress.committed = None),
                Polled::Trouble(text) => self.trouble(text),
                Polled::Fatal(error) => return Err(error),
            }
        }
        self.take_reports();
        if self.last_commit.elapsed() >= self.rules.commit_every {
            self.commit_in_passing();
        }
        if self.last_publish.is_none_or(|last| last.elapsed() >= PUBLISH_EVERY) {
            self.publish();
            self.raise_idle_watermarks()?;
        }
        Ok(())
    }

    /// Where a topic-partition is caught up and silent, time goes on with the others of its topic.
    fn raise_idle_watermarks(&mut self) -> Result<(), SourceError> {
        let idle_after = self.rules.idle_after;
        let silent_for = |progress: &Progress| {
            (progress.position.lag() == Some(0)).then(|| progress.last_record.map(|last| last.elapsed())).flatten()
        };
        let is_idle = |progress: &Progress| silent_for(progress).is_some_and(|silent| silent >= idle_after);
        let due = self.last_idle_check.is_none_or(|last| last.elapsed() >= IDLE_CHECK_EVERY);
        if !due || !self.progress.values().any(is_idle) {
            return Ok(());
        }
        self.last_idle_check = Some(Instant::now());
        let status = self.pool.workers().status().map_err(gone)?;
        let watermark = |at: &TopicPartition| {
            let partition = status.partitions.iter().find(|partition| partition.partition == at.partition)?;
            *partition.topic_watermarks.get(usize::from(at.topic.0))?
        };
        let silence = |(at, progress): (&TopicPartition, &Progress)| Silence {
            at: *at,
            watermark: watermark(at),
            silent_for: silent_for(progress),
        };
        let all: Vec<_> = self.progress.iter().map(silence).collect();
        raises(&all, idle_after).into_iter().try_for_each(|(at, to)| self.pool.raise(at, to)).map_err(gone)
    }

    fn hand_out(
        &mut self,
        at: TopicPartition,
        batch: C::Batch,
        latest: Time,
        read: Instant,
    ) -> Result<(), SourceError> {
        use crate::source::RecordBatch;
        let Some(progress) = self.progress.get_mut(&at) else { return Ok(()) };
        if !batch.is_empty() {
            progress.last_record = Some(Instant::now());
            progress.handed_out = Some(batch.get(batch.len() - 1).offset + 1);
        }
        self.pool.records(at, batch, latest, read).map_err(gone)
    }

    fn trouble(&mut self, text: String) {
        let known = self.status.borrow().trouble.as_deref() == Some(&text);
        if !known {
            warn!("{text}");
            self.status.send_modify(|status| status.trouble = Some(text));
        }
    }

    fn well_again(&self) {
        self.status.send_if_modified(|status| status.trouble.take().is_some());
    }

    /// Takes a step of the rebalance protocol and does what it commands.
    fn step(&mut self, event: Event) -> Result<(), SourceError> {
        let rebalanced = !matches!(event, Event::Closing);
        let (next, commands) = rebalance::step(&self.group, event);
        self.group = next;
        for command in commands {
            self.obey(command)?;
        }
        if rebalanced {
            let owned: Vec<_> = self.group.owned().iter().map(|partition| partition.0).collect();
            info!(partitions = ?owned, "the group has handed out partitions anew");
            self.status.send_modify(|status| {
                status.joined = true;
                status.rebalances += 1;
            });
            self.publish();
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), SourceError> {
        match command {
            Command::Start(partitions) => self.start(&partitions),
            Command::Stop(partitions) => self.stop(&partitions),
            Command::Commit(partitions) => {
                self.commit_before_leaving(&partitions);
                Ok(())
            }
            Command::Assign(these) => {
                let starts = self.starts(&these);
                self.client.assign(&starts)
            }
            Command::IncrementalAssign(these) => {
                let starts = self.starts(&these);
                self.client.incremental_assign(&starts)
            }
            Command::Unassign(these) => {
                self.progress.retain(|at, _| self.group.owned().contains(&at.partition));
                self.client.unassign(&these)
            }
            // Done once everything else is, by `close`.
            Command::Close => Ok(()),
        }
    }

    fn start(&mut self, partitions: &[Partition]) -> Result<(), SourceError> {
        for &partition in partitions {
            self.pool.start_partition(partition).map_err(gone)?;
            for topic in 0..self.rules.topics.len() {
                let topic = crate::source::TopicIndex(u16::try_from(topic).unwrap_or(u16::MAX));
                let progress = Progress { last_record: Some(Instant::now()), ..Progress::default() };
                self.progress.insert(TopicPartition { topic, partition }, progress);
            }
        }
        Ok(())
    }

    /// Everything handed out is applied and reported before the engines go.
    fn stop(&mut self, partitions: &[Partition]) -> Result<(), SourceError> {
        for &partition in partitions {
            self.pool.stop_partition(partition).map_err(gone)?;
        }
        self.pool.wait_until_applied().map_err(gone)?;
        self.take_reports();
        Ok(())
    }

    /// Where to read on: behind what was handed out, or where a fresh engine begins.
    fn starts(&self, these: &[TopicPartition]) -> Vec<(TopicPartition, Start)> {
        let start = |at: &TopicPartition| {
            let handed_out = self.progress.get(at).and_then(|progress| progress.handed_out);
            (*at, handed_out.map_or(self.rules.start, Start::Offset))
        };
        these.iter().map(start).collect()
    }

    /// Notes what the workers have applied, and sends off what they rejected.
    fn take_reports(&mut self) {
        let now = Instant::now();
        while let Ok(applied) = self.applied.try_recv() {
            self.latency.record(applied.took, applied.records);
            if let Some((batch, rejected)) = &applied.rejected {
                self.bury(applied.at, batch, rejected);
            }
            let Some(progress) = self.progress.get_mut(&applied.at) else { continue };
            let position = &mut progress.position;
            position.applied = position.applied.max(Some(applied.next));
            if applied.end {
                position.last_at_end = Some(now);
            }
        }
    }

    fn bury(&self, at: TopicPartition, batch: &C::Batch, rejected: &[crate::worker::Rejected]) {
        let Some(dead_letters) = &self.dead_letters else { return };
        let topic = self.rules.topics.get(usize::from(at.topic.0)).map_or("", String::as_str);
        let (origin, now) = (Origin { topic, partition: at.partition.0 }, wall_clock().millis());
        for rejected in rejected {
            dead_letters.publish(&Letter::new(&origin, batch, rejected.index, &rejected.rejection, now));
        }
    }

    /// What is applied and not yet committed.
    fn uncommitted(&self, wanted: impl Fn(Partition) -> bool) -> Vec<(TopicPartition, i64)> {
        let due = |(at, progress): (&TopicPartition, &Progress)| {
            let next = progress.position.applied?;
            (wanted(at.partition) && progress.committed != Some(next)).then_some((*at, next))
        };
        self.progress.iter().filter_map(due).collect()
    }

    fn commit_in_passing(&mut self) {
        self.last_commit = Instant::now();
        let next = self.uncommitted(|_| true);
        if next.is_empty() || !self.letters_delivered() {
            return;
        }
        self.client.commit(&next);
        self.note_committed(&next);
    }

    fn commit_before_leaving(&mut self, partitions: &[Partition]) {
        let next = self.uncommitted(|partition| partitions.contains(&partition));
        if next.is_empty() || !self.letters_delivered() {
            return;
        }
        match self.client.commit_and_wait(&next) {
            Ok(()) => self.note_committed(&next),
            Err(error) => warn!("the last offsets are not committed, so their records will be read again: {error}"),
        }
    }

    fn letters_delivered(&self) -> bool {
        let delivered = self.dead_letters.as_ref().map_or(Ok(()), DeadLetters::flush);
        delivered.inspect_err(|error| error!("no offsets are committed: {error}")).is_ok()
    }

    fn note_committed(&mut self, next: &[(TopicPartition, i64)]) {
        for (at, offset) in next {
            if let Some(progress) = self.progress.get_mut(at) {
                progress.committed = Some(*offset);
            }
        }
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.last_publish = Some(now);
        for (at, progress) in &mut self.progress {
            progress.position.end = self.client.end_offset(*at).max(progress.position.end);
            if progress.position.lag() == Some(0) {
                progress.position.last_at_end = Some(now);
            }
        }
        let was_behind = !self.status.borrow().has_caught_up();
        self.status.send_modify(|status| {
            status.owned = self.group.owned().iter().copied().collect();
            status.positions = self.progress.iter().map(|(at, progress)| (*at, progress.position)).collect();
            status.last_poll = Some(now);
            status.latency.clone_from(&self.latency);
        });
        if was_behind && self.status.borrow().has_caught_up() {
            info!("caught up with every owned partition");
        }
    }
}

fn gone(_: Stopped) -> SourceError {
    SourceError::Unavailable("a worker thread ended before its time; this is a bug".to_owned())
}

#[cfg(test)]
mod tests;
