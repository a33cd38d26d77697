//! The poll loop: takes batches from the log, hands them to the workers, and steers what makes their state durable.
//!
//! What a partition goes through is decided by [`crate::checkpoint::protocol`], who reads what by
//! [`crate::bus::rebalance`]; this loop passes events to both and does what they command (`durable.rs`). It
//! never waits for the store or for a commit. No offset is committed but the one that a worker has reached with a copy
//! of its state.

pub(crate) mod alert_rate;
mod assignment;
mod checkpoint;
mod commit;
pub(crate) mod commit_thread;
mod findings;
pub(crate) mod group_watch;
mod lifecycle_log;
pub(crate) mod log_identity;
pub(crate) mod outbox;
pub(crate) mod rejection_breaker;
pub(crate) mod store_tasks;
mod uncommitted;
pub(crate) mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use lifecycle_log::LifecycleLog;
use uncommitted::Uncommitted;

use self::alert_rate::AlertRate;
use self::commit_thread::Committer;
use self::group_watch::Findings;
use self::outbox::Outbox;
use self::rejection_breaker::{BreakerRules, RejectionBreaker, Tripped};
use self::store_tasks::{Answer, Files, StoreTasks};
use crate::bus::rebalance;
use crate::bus::{GroupClient, GroupToken, Partition, Polled, RecordBatch, SourceError, Start, TopicPartition};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::protocol::{self, AssignmentEpoch, BudgetId, Epoch, PartitionPhase};
use crate::engine::Engine;
use crate::event::{Time, wall_clock};
use crate::output::dead_letters::{OutboxRecord, RecordOrigin, Topics};
use crate::status::idle::{IdleProgress, raises};
use crate::status::latency::Latency;
use crate::status::{Checkpoints, PartitionState, ReadPosition, SourceStatus};
use crate::worker::pool::{Applied, Pool, Report, Stopped};

/// How long one poll waits for messages.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// How often the state is told to those who ask.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often silent topic-partitions are looked for.
const IDLE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long giving up partitions may take; the group waits `max.poll.interval.ms` for it, five minutes.
const RELEASE_WAIT: Duration = Duration::from_secs(15);
/// How long leaving the group may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How the poll loop is to work.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Names of the source topics, for messages to people.
    pub topics: Vec<String>,
    /// Names of the sources.
    pub sources: Vec<String>,
    /// Where a partition of each topic is read from that has no state and no committed offset.
    pub starts: Vec<Start>,
    /// How far ahead of the wall clock an event may lie, in milliseconds.
    pub max_future: i64,
    /// How often checkpoints are taken.
    pub checkpoint_every: Duration,
    /// How long files that are needed no longer are kept, for `rewind`.
    pub keep_files: Duration,
    /// After how long a caught-up topic-partition without records no longer holds time up.
    pub idle_after: Duration,
    /// When alerts may leave.
    pub alert_rate: AlertRate,
    /// The attribute `source` of alerts.
    pub alert_source: String,
    /// Names of our topics, for messages to people.
    pub outputs: Topics,
    /// When a source counts as misread.
    pub breaker: BreakerRules,
    /// After how long without a committed checkpoint the daemon says so.
    pub stale_after: Duration,
}

/// How far one topic-partition is read and applied.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The offset behind the last record handed to a worker.
    handed_out: Option<i64>,
    position: ReadPosition,
    /// When a record came the last time, or the partition was taken over.
    last_record: Option<Instant>,
}

/// A revocation that the group waits for.
#[derive(Debug)]
struct Release {
    /// What to answer, once all partitions of it are released; `None` when the group waits for nothing.
    unassign: Option<Vec<TopicPartition>>,
    waiting: BTreeSet<Partition>,
}

/// Handles for tasks, always of the member as it is now.
type Handles<C> = Arc<Mutex<<C as GroupClient>::Handle>>;

/// What the poll loop works with.
pub struct Parts<C: GroupClient> {
    /// A member that has just joined its group.
    pub client: C,
    /// The workers.
    pub pool: Pool<C::Batch>,
    /// What they report.
    pub reports: Receiver<Report<C::Batch>>,
    /// The store.
    pub store_tasks: Arc<StoreTasks>,
    /// The commit thread.
    pub committer: Committer,
    /// What both answer.
    pub answers: Receiver<Answer>,
    /// Why others want the daemon to end.
    pub failures: Receiver<SourceError>,
    /// What the watch over topics and group finds.
    pub findings: Receiver<Findings>,
}

/// The poll loop and what it holds on to.
pub struct Coordinator<C: GroupClient> {
    client: C,
    pool: Pool<C::Batch>,
    reports: Receiver<Report<C::Batch>>,
    rules: Rules,
    group: rebalance::State,
    durable: protocol::State,
    store_tasks: Arc<StoreTasks>,
    committer: Committer,
    answers: Receiver<Answer>,
    failures: Receiver<SourceError>,
    findings: Receiver<Findings>,
    handles: Handles<C>,
    progress: BTreeMap<TopicPartition, Progress>,
    /// What the client was told to read.
    read: BTreeSet<TopicPartition>,
    /// The assignment epoch of each partition that is read.
    running: BTreeMap<Partition, AssignmentEpoch>,
    /// How many engines of a partition are dropped and not yet gone: their reports mean nothing.
    forgetting: BTreeMap<Partition, u32>,
    /// Partitions of which nothing more is handed out.
    stopped: BTreeSet<Partition>,
    /// Partitions that begin, until they are assigned.
    beginning: BTreeSet<Partition>,
    /// Engines that were loaded and not yet begun with.
    loaded: BTreeMap<Partition, (Box<Engine>, Box<Manifest>)>,
    files: BTreeMap<Partition, Files>,
    /// The ids of the source topics when a partition was taken over.
    ids: BTreeMap<Partition, Vec<String>>,
    outbox: Outbox,
    /// Who we were when a checkpoint began.
    tokens: BTreeMap<Epoch, GroupToken>,
    /// The checkpoint that a worker was asked for, until it has begun or is rolled back.
    asked: BTreeMap<Partition, Epoch>,
    /// The checkpoint that is not to be committed any more.
    aborted: Option<Epoch>,
    /// In which partition and place of it each record of the transaction under way is.
    records: Vec<(Partition, usize)>,
    releases: Vec<Release>,
    budgets: Vec<(Instant, BudgetId)>,
    /// Files that may be deleted, and from when on.
    pending_deletes: Vec<(Instant, Vec<String>)>,
    /// Why partitions wait for a person.
    failed: BTreeMap<Partition, String>,
    /// Whether a source is misread as a whole.
    breaker: RejectionBreaker,
    /// Whether reading is paused because of the outbox.
    held: bool,
    /// What is paused because its records wait for a schema.
    stalled: BTreeSet<TopicPartition>,
    checkpoint_begun: Option<Instant>,
    checkpoints: Checkpoints,
    uncommitted: Uncommitted,
    lifecycle_log: LifecycleLog,
    ending: Option<Ending>,
    status: watch::Sender<SourceStatus>,
    latency: Latency,
    last_checkpoint: Instant,
    /// Whether the last checkpoint could not take all alerts that may leave.
    more_alerts: bool,
    last_publish: Option<Instant>,
    last_idle_check: Option<Instant>,
    begun: Instant,
    last_usage: Option<Instant>,
    /// Topics of which it was told that their messages are of no use.
    told_poor: BTreeSet<String>,
}

/// How the loop ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    InOrder,
    Fenced,
}

impl<C: GroupClient> Coordinator<C> {
    /// A poll loop for a client that has just joined its group.
    pub fn new(
        parts: Parts<C>,
        rules: Rules,
        protocol: protocol::Rules,
        status: watch::Sender<SourceStatus>,
    ) -> Coordinator<C> {
        let topics = u16::try_from(rules.topics.len()).unwrap_or(u16::MAX);
        let Parts { client, pool, reports, store_tasks, committer, answers, failures, findings } = parts;
        let breaker = RejectionBreaker::new(rules.breaker, rules.topics.len());
        Coordinator {
            group: rebalance::State::new(client.protocol(), topics),
            durable: protocol::State::new(protocol),
            handles: Arc::new(Mutex::new(client.handle())),
            client,
            pool,
            reports,
            rules,
            store_tasks,
            committer,
            answers,
            failures,
            findings,
            progress: BTreeMap::new(),
            read: BTreeSet::new(),
            running: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            stopped: BTreeSet::new(),
            beginning: BTreeSet::new(),
            loaded: BTreeMap::new(),
            files: BTreeMap::new(),
            ids: BTreeMap::new(),
            outbox: Outbox::default(),
            tokens: BTreeMap::new(),
            asked: BTreeMap::new(),
            aborted: None,
            records: Vec::new(),
            releases: Vec::new(),
            budgets: Vec::new(),
            pending_deletes: Vec::new(),
            failed: BTreeMap::new(),
            breaker,
            held: false,
            stalled: BTreeSet::new(),
            checkpoint_begun: None,
            checkpoints: Checkpoints::default(),
            uncommitted: Uncommitted::default(),
            lifecycle_log: LifecycleLog::default(),
            ending: None,
            status,
            latency: Latency::default(),
            last_checkpoint: Instant::now(),
            more_alerts: false,
            last_publish: None,
            last_idle_check: None,
            begun: Instant::now(),
            last_usage: None,
            told_poor: BTreeSet::new(),
        }
    }

    /// Polls until `stop` says so or hangs up, then stops in order: what is handed out is applied, a last checkpoint is
    /// taken and committed, and the group is left.
    ///
    /// # Errors
    /// When the source cannot go on.
    pub fn run(mut self, stop: &Receiver<()>) -> Result<(), SourceError> {
        let mut closing = false;
        let outcome = loop {
            if !closing && !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
                closing = true;
                info!("reading ends; what was read is applied and committed");
                if let Err(error) = self.close_group() {
                    break Err(error);
                }
            }
            match &self.ending {
                Some(Ending::InOrder) => break Ok(()),
                Some(Ending::Fenced) => {
                    break Err(SourceError::Fenced(
                        "another instance with the same kafka.instance_id took over. Each replica needs its own".into(),
                    ));
                }
                None => {}
            }
            if let Err(error) = self.round() {
                break Err(error);
            }
        };
        self.close();
        outcome
    }

    fn close(self) {
        info!("leaving the group");
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
            if !matches!(polled, Polled::Error(_) | Polled::Lost(_) | Polled::Fatal(_)) {
                self.clear_error();
            }
            match polled {
                Polled::Records(at, batch) => self.hand_out(at, batch, latest, read)?,
                Polled::End { at, offset } => self.hand_out_end(at, offset)?,
                Polled::Assigned(given) => self.rebalance(rebalance::Event::Assigned(given))?,
                Polled::Revoked(taken) => self.rebalance(rebalance::Event::Revoked(taken))?,
                Polled::Lost(taken) => {
                    warn!("the group took partitions away because this member was silent too long");
                    self.rebalance(rebalance::Event::Lost(taken))?;
                }
                Polled::Error(text) => self.last_error(text),
                Polled::OutOfRange(at, text) => {
                    self.cannot_read(at, &text, |partition, assignment| protocol::Event::OutOfRange {
                        partition,
                        assignment,
                    })?;
                }
                Polled::Damaged(at, text) => {
                    self.cannot_read(at, &text, |partition, assignment| protocol::Event::LogDamaged {
                        partition,
                        assignment,
                    })?;
                }
                Polled::Fatal(error) => return Err(error),
            }
        }
        if let Ok(error) = self.failures.try_recv() {
            return Err(error);
        }
        self.take_reports()?;
        self.take_answers()?;
        if !self.group.is_closing() {
            self.take_findings()?;
        }
        self.keep_time()?;
        self.assign_beginning()?;
        if self.last_publish.is_none_or(|last| last.elapsed() >= PUBLISH_EVERY) {
            self.publish();
            self.pause_stalled()?;
            self.raise_idle_watermarks()?;
            self.look_at_usage()?;
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
        let silence = |(at, progress): (&TopicPartition, &Progress)| IdleProgress {
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
        if self.stopped.contains(&at.partition) {
            return Ok(());
        }
        let Some(progress) = self.progress.get_mut(&at) else { return Ok(()) };
        if !batch.is_empty() {
            progress.last_record = Some(Instant::now());
            progress.handed_out = Some(batch.get(batch.len() - 1).offset + 1);
        }
        self.pool.records(at, batch, latest, read).map_err(gone)
    }

    /// An end says that everything before it was handed out, which is not so where batches are passed over.
    fn hand_out_end(&mut self, at: TopicPartition, offset: i64) -> Result<(), SourceError> {
        if self.stopped.contains(&at.partition) || !self.progress.contains_key(&at) {
            return Ok(());
        }
        self.pool.end(at, offset).map_err(gone)
    }

    /// The log does not hold what is to be read next, or it cannot be made out: the partition stops, with every topic
    /// of it.
    fn cannot_read(
        &mut self,
        at: TopicPartition,
        text: &str,
        event: fn(Partition, AssignmentEpoch) -> protocol::Event,
    ) -> Result<(), SourceError> {
        warn!("{text}");
        let Some(&assignment) = self.running.get(&at.partition) else { return Ok(()) };
        self.step(event(at.partition, assignment))?;
        // Nothing more of it is to be fetched, nor to be thrown away.
        let read: Vec<_> = self.read.iter().filter(|read| read.partition == at.partition).copied().collect();
        self.client.pause(&read)
    }

    /// Reads no more of what waits for a schema, and on where it does not wait any more.
    fn pause_stalled(&mut self) -> Result<(), SourceError> {
        let stalled = self.pool.stalled();
        if stalled == self.stalled {
            return Ok(());
        }
        let read = |at: &&TopicPartition| self.read.contains(at);
        let paused: Vec<_> = stalled.difference(&self.stalled).filter(read).copied().collect();
        let resumed: Vec<_> = self.stalled.difference(&stalled).filter(read).copied().collect();
        self.stalled = stalled;
        if self.held {
            // All is paused; what is not any more is found out when that ends.
            return Ok(());
        }
        self.client.pause(&paused)?;
        self.client.resume(&resumed)
    }

    fn last_error(&mut self, text: String) {
        let known = self.status.borrow().last_error.as_deref() == Some(&text);
        if !known {
            warn!("{text}");
            self.status.send_modify(|status| status.last_error = Some(text));
        }
    }

    fn clear_error(&self) {
        self.status.send_if_modified(|status| status.last_error.take().is_some());
    }

    /// Takes note of what the workers have done.
    fn take_reports(&mut self) -> Result<(), SourceError> {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                // What a dropped engine did before it was gone will be done again.
                Report::Applied(applied) if self.forgetting.contains_key(&applied.at.partition) => {}
                Report::Begun(partition, ..) | Report::Taken(partition, ..)
                    if self.forgetting.contains_key(&partition) => {}
                Report::Begun(partition, epoch, alerts) => self.checkpoint_begun(partition, Epoch(epoch), &alerts),
                Report::Applied(applied) => self.applied(&applied)?,
                Report::Taken(partition, epoch, taken) => self.checkpoint_taken(partition, Epoch(epoch), taken)?,
                Report::Forgotten(partition) => self.forgotten(partition),
            }
        }
        Ok(())
    }

    fn forgotten(&mut self, partition: Partition) {
        if let Some(count) = self.forgetting.get_mut(&partition) {
            *count -= 1;
            if *count == 0 {
                self.forgetting.remove(&partition);
            }
        }
    }

    fn applied(&mut self, applied: &Applied<C::Batch>) -> Result<(), SourceError> {
        let records = applied.batch.as_ref().map_or(0, RecordBatch::len);
        self.latency.record(applied.took, records);
        if let Some(tripped) = self.breaker.note(usize::from(applied.at.topic.0), records, &applied.rejected) {
            return Err(self.misread(applied, &tripped));
        }
        if records > 0 {
            self.uncommitted.applied(applied.at.partition, Instant::now());
        }
        if let Some(batch) = &applied.batch {
            self.add_dead_letters(applied.at, batch, &applied.rejected);
        }
        let Some(progress) = self.progress.get_mut(&applied.at) else { return Ok(()) };
        let position = &mut progress.position;
        position.applied = position.applied.max(Some(applied.next));
        if applied.end {
            position.last_at_end = Some(Instant::now());
        }
        Ok(())
    }

    /// Why the program stops rather than turn a whole topic into dead letters; an explanation holds no customer id.
    fn misread(&self, applied: &Applied<C::Batch>, tripped: &Tripped) -> SourceError {
        let topic = self.rules.topics.get(usize::from(applied.at.topic.0)).map_or("", String::as_str);
        let (index, example) = &tripped.example;
        let offset = applied.batch.as_ref().map_or(-1, |batch| batch.get(*index).offset);
        SourceError::Configuration(format!(
            "topic {topic:?} is read in the wrong format: {} of {} messages cannot be used, most of them for {}; such as \
             partition {} offset {offset}: {example}. Correct the format of the topic's source under [sources], or the \
             producers; to take all of them for dead letters, set dead_letters.stop_after = 0",
            tripped.rejected,
            tripped.messages,
            tripped.reason.label(),
            applied.at.partition.0,
        ))
    }

    /// Puts the records of rejected records into the outbox.
    fn add_dead_letters(&mut self, at: TopicPartition, batch: &C::Batch, rejected: &[crate::worker::Rejected]) {
        if rejected.is_empty() {
            return;
        }
        let topic = self.rules.topics.get(usize::from(at.topic.0)).map_or("", String::as_str);
        let group = self.store_tasks.group.as_str();
        let (origin, now) = (RecordOrigin { group, topic, partition: at.partition.0 }, wall_clock().millis());
        for rejected in rejected {
            let record = OutboxRecord::new(&origin, batch, rejected, now);
            self.outbox.add(at.partition, record);
        }
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.last_publish = Some(now);
        if let Ok(mut handle) = self.handles.lock() {
            *handle = self.client.handle();
        }
        for (at, progress) in &mut self.progress {
            progress.position.end = self.client.end_offset(*at).max(progress.position.end);
            if progress.position.lag() == Some(0) {
                progress.position.last_at_end = Some(now);
            }
        }
        let state = |(partition, phase): (Partition, PartitionPhase)| {
            let state = match phase {
                PartitionPhase::Restoring => PartitionState::Restoring,
                PartitionPhase::Running => PartitionState::Running,
                PartitionPhase::Draining => PartitionState::Draining,
                PartitionPhase::Failed => {
                    PartitionState::Failed(self.failed.get(&partition).cloned().unwrap_or_default())
                }
            };
            (partition, state)
        };
        let states: BTreeMap<_, _> = self.durable.partitions().map(state).collect();
        let was_behind = !self.status.borrow().has_caught_up();
        self.status.send_modify(|status| {
            status.owned = self.group.owned().iter().copied().collect();
            status.missing.retain(|partition, _| states.contains_key(partition));
            status.states = states;
            status.positions = self.progress.iter().map(|(at, progress)| (*at, progress.position)).collect();
            status.last_poll = Some(now);
            status.schemas = self.pool.last_error();
            status.split_customers = self.pool.key_placement().counts();
            status.checkpoints = self.checkpoints;
            status.checkpoints.uncommitted_since = self.uncommitted.since();
            status.checkpoints.stale_after = Some(self.rules.stale_after);
            status.latency.clone_from(&self.latency);
        });
        self.lifecycle_log.split(&self.pool.key_placement().found(), &self.rules.topics);
        if was_behind && self.status.borrow().has_caught_up() {
            self.lifecycle_log.caught_up();
        }
    }
}

fn gone(_: Stopped) -> SourceError {
    SourceError::Unavailable("a worker thread ended before its time; this is a bug".to_owned())
}

#[cfg(test)]
mod tests;
