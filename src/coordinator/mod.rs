//! The poll loop: takes batches from the log, hands them to the workers, and steers what makes their state durable.
//!
//! What a partition goes through is decided by [`crate::checkpoint::protocol`], who reads what by
//! [`crate::bus::rebalance`]; this loop passes events to both and executes their commands (`assignment.rs`,
//! `checkpoint.rs`, `commit.rs`). What it holds of one partition is in `partition.rs`. It never waits for the
//! store or for a commit. It commits only offsets that a worker has reached together with a copy of its state.

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

/// What other threads send to the poll loop.
struct Inputs<B> {
    reports: Receiver<Report<B>>,
    answers: Receiver<Answer>,
    failures: Receiver<SourceError>,
    findings: Receiver<Findings>,
}

/// What the client was told to read.
#[derive(Default)]
struct Reading {
    assigned: BTreeSet<TopicPartition>,
    /// Everything is paused because of the outbox.
    is_paused: bool,
    /// Paused because their records wait for a schema.
    stalled: BTreeSet<TopicPartition>,
}

/// The checkpoint under way.
#[derive(Default)]
struct InFlight {
    begun: Option<Instant>,
    /// The group membership when it began.
    tokens: BTreeMap<Epoch, GroupToken>,
    /// The checkpoint that must not be committed any more.
    aborted: Option<Epoch>,
    /// Partition, and index within it, of each record of the transaction.
    records: Vec<(Partition, usize)>,
    /// Whether it could not take all alerts that may leave.
    more_alerts: bool,
}

/// What is due when.
struct Timers {
    begun: Instant,
    last_checkpoint: Instant,
    last_publish: Option<Instant>,
    last_idle_check: Option<Instant>,
    last_usage: Option<Instant>,
    /// When the time for giving up partitions is over.
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
    /// How many dropped engines of a partition the workers have not acknowledged: their reports are ignored.
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
