//! The poll loop: reads batches from the log, passes them to the workers, and coordinates what makes their state
//! durable.
//!
//! [`crate::checkpoint::protocol`] decides the phases of a partition, [`crate::bus::rebalance`] which partitions are
//! read; this loop passes events to both and executes their commands (`assignment.rs`, `checkpoint.rs`, `commit.rs`).
//! Its data about a partition are in `partition.rs`. It never waits for the store or for a transaction. It commits only
//! offsets for which a worker has copied the state.

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
mod partition;
mod records;
pub(crate) mod rejection_breaker;
mod reporting;
pub(crate) mod store_tasks;
mod uncommitted;
pub(crate) mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use self::alert_rate::AlertRate;
use self::commit_thread::Committer;
use self::group_watch::Findings;
use self::outbox::Outbox;
use self::partition::OwnedPartition;
use self::rejection_breaker::{BreakerRules, RejectionBreaker};
use self::reporting::Reporting;
use self::store_tasks::{Answer, StoreTasks};
use crate::bus::rebalance;
use crate::bus::{GroupClient, GroupToken, Partition, Polled, SourceError, Start, TopicPartition};
use crate::checkpoint::protocol::{self, BudgetId, Epoch};
use crate::event::wall_clock;
use crate::output::dead_letters::Topics;
use crate::status::SourceStatus;
use crate::worker::pool::{Pool, Report, Stopped};

/// Timeout of a poll for messages.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Interval at which the status is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Interval of checks for idle topic-partitions.
const IDLE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Maximum time to give up partitions; the group allows `max.poll.interval.ms`, five minutes.
const RELEASE_WAIT: Duration = Duration::from_secs(15);
/// Maximum time to leave the group.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Settings of the poll loop.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Names of the source topics, for messages.
    pub topics: Vec<String>,
    /// Names of the sources.
    pub sources: Vec<String>,
    /// Start position of a partition with neither state nor a committed offset, by topic.
    pub starts: Vec<Start>,
    /// How far an event may be ahead of the wall clock, in milliseconds.
    pub max_future: i64,
    /// Interval between checkpoints.
    pub checkpoint_every: Duration,
    /// How long superseded files are kept, for `rewind`.
    pub keep_files: Duration,
    /// After this time, a caught-up topic-partition without new records does not hold back the watermark.
    pub idle_after: Duration,
    /// When alerts may be sent.
    pub alert_rate: AlertRate,
    /// The attribute `source` of alerts.
    pub alert_source: String,
    /// Names of the output topics, for messages.
    pub outputs: Topics,
    /// When a source is considered to have the wrong format.
    pub breaker: BreakerRules,
    /// Time without a committed checkpoint after which the daemon warns.
    pub stale_after: Duration,
}

/// A release of partitions that is in progress.
#[derive(Debug)]
struct Release {
    /// The answer to the group once all partitions are released; `None` if it expects none.
    unassign: Option<Vec<TopicPartition>>,
    waiting: BTreeSet<Partition>,
}

/// Handle of the group member for other threads, always the current one.
type Handles<C> = Arc<Mutex<<C as GroupClient>::Handle>>;

/// The parts that the poll loop uses.
pub struct Parts<C: GroupClient> {
    /// A member that has just joined its group.
    pub client: C,
    /// The worker pool.
    pub pool: Pool<C::Batch>,
    /// Reports of the workers.
    pub reports: Receiver<Report<C::Batch>>,
    /// Tasks that use the store.
    pub store_tasks: Arc<StoreTasks>,
    /// The commit thread.
    pub committer: Committer,
    /// Answers of store tasks and commit thread.
    pub answers: Receiver<Answer>,
    /// Errors of other parts that end the daemon.
    pub failures: Receiver<SourceError>,
    /// Findings of the group watch.
    pub findings: Receiver<Findings>,
}

/// The messages of other threads to the poll loop.
struct Inputs<B> {
    reports: Receiver<Report<B>>,
    answers: Receiver<Answer>,
    failures: Receiver<SourceError>,
    findings: Receiver<Findings>,
}

/// The client's current assignment.
#[derive(Default)]
struct Reading {
    assigned: BTreeSet<TopicPartition>,
    /// Everything is paused because the outbox is full.
    is_paused: bool,
    /// Paused because their records wait for a schema.
    stalled: BTreeSet<TopicPartition>,
}

/// The checkpoint in progress.
#[derive(Default)]
struct InFlight {
    begun: Option<Instant>,
    /// The group membership when it began.
    tokens: BTreeMap<Epoch, GroupToken>,
    /// The checkpoint that must not be committed any more.
    aborted: Option<Epoch>,
    /// For each record of the transaction, its partition and its index there.
    records: Vec<(Partition, usize)>,
    /// Whether more alerts wait than it could take.
    more_alerts: bool,
}

/// Timers.
struct Timers {
    begun: Instant,
    last_checkpoint: Instant,
    last_publish: Option<Instant>,
    last_idle_check: Option<Instant>,
    last_usage: Option<Instant>,
    /// When the time to give up partitions is over.
    budgets: Vec<(Instant, BudgetId)>,
    /// Files to delete, and when.
    pending_deletes: Vec<(Instant, Vec<String>)>,
}

/// The poll loop and its state.
pub struct Coordinator<C: GroupClient> {
    client: C,
    handles: Handles<C>,
    pool: Pool<C::Batch>,
    store_tasks: Arc<StoreTasks>,
    committer: Committer,
    inputs: Inputs<C::Batch>,
    rules: Rules,
    group: rebalance::State,
    durable: protocol::State,
    /// Partitions that are owned or parked.
    partitions: BTreeMap<Partition, OwnedPartition>,
    /// Number of engines per partition that were dropped but not yet acknowledged by the workers; their reports are
    /// ignored.
    forgetting: BTreeMap<Partition, u32>,
    reading: Reading,
    releases: Vec<Release>,
    outbox: Outbox,
    in_flight: InFlight,
    timers: Timers,
    breaker: RejectionBreaker,
    reporting: Reporting,
    ending: Option<Ending>,
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
            store_tasks,
            committer,
            inputs: Inputs { reports, answers, failures, findings },
            rules,
            partitions: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            reading: Reading::default(),
            releases: Vec::new(),
            outbox: Outbox::default(),
            in_flight: InFlight::default(),
            timers: Timers {
                begun: Instant::now(),
                last_checkpoint: Instant::now(),
                last_publish: None,
                last_idle_check: None,
                last_usage: None,
                budgets: Vec::new(),
                pending_deletes: Vec::new(),
            },
            breaker,
            reporting: Reporting::new(status),
            ending: None,
        }
    }

    /// Polls until `stop` receives or hangs up, then stops in order: applies what was handed out, takes and commits a
    /// last checkpoint, and leaves the group.
    ///
    /// # Errors
    /// If the source cannot continue.
    pub fn run(mut self, stop: &Receiver<()>) -> Result<(), SourceError> {
        let mut closing = false;
        let outcome = loop {
            if !closing && !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
                closing = true;
                info!("stopped reading; applying and committing what was read");
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
        if let Ok(error) = self.inputs.failures.try_recv() {
            return Err(error);
        }
        self.take_reports()?;
        self.take_answers()?;
        if !self.group.is_closing() {
            self.take_findings()?;
        }
        self.keep_time()?;
        self.assign_beginning()?;
        if self.timers.last_publish.is_none_or(|last| last.elapsed() >= PUBLISH_EVERY) {
            self.publish();
            self.pause_stalled()?;
            self.raise_idle_watermarks()?;
            self.look_at_usage()?;
        }
        Ok(())
    }
}

fn gone(_: Stopped) -> SourceError {
    SourceError::Unavailable("a worker thread ended before its time; this is a bug".to_owned())
}

#[cfg(test)]
mod tests;
