//! The worker threads: each owns every n-th partition, takes batches from a bounded queue, and answers queries between
//! them. A scrape sends the same query to all workers and merges the answers.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checkpoints::CheckpointQueue;
use super::key_placement::KeyPlacementSample;
use super::waiting::{Queued, Stalled, Waiting};
use super::{Rejected, Taken, Worker, WorkerConfig, WorkerStatus, add_series};
use crate::bus::{Partition, RecordBatch, TopicPartition};
use crate::engine::axis::Pane;
use crate::engine::customer::CustomerFigures;
use crate::engine::inactivity::release::{Alert, Allowance};
use crate::engine::listing::{ListQuestion, Listing};
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::spec::WindowId;
use crate::engine::{Engine, WindowParts};
use crate::event::{Currency, Time};

/// Maximum number of queued batches per worker; then the poll loop waits.
const QUEUED_BATCHES: usize = 4;
/// How often batches that wait for a schema are retried.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Work items, processed in order.
enum Work<B> {
    Begin {
        partition: Partition,
        engine: Box<Engine>,
        next: Vec<i64>,
    },
    Unpark(Partition, SyncSender<Option<Vec<i64>>>),
    Park(Partition),
    Forget(Partition),
    Checkpoint(Partition, u64, Allowance),
    Confirm(Partition, u64),
    RollBack(Partition, u64),
    Records {
        at: TopicPartition,
        batch: B,
        latest: Time,
        read: Instant,
    },
    End {
        at: TopicPartition,
        offset: i64,
    },
    Raise {
        at: TopicPartition,
        to: Time,
    },
    /// Answered once all earlier work is done.
    Barrier(SyncSender<()>),
    Ask(Question),
    /// Ends the thread; query handles may outlive it.
    Quit,
}

/// A query to a worker.
enum Question {
    Status(SyncSender<WorkerStatus>),
    Snapshot { at: Time, periods: Periods, reply: SyncSender<Snapshot> },
    Series { window: WindowId, panes: Arc<[Pane]>, reply: SyncSender<Vec<Option<WindowParts>>> },
    Customer { id: Arc<str>, reply: SyncSender<Option<CustomerFigures>> },
    Know { silences: Arc<[(String, Time)]>, reply: SyncSender<Vec<bool>> },
    Currencies(SyncSender<Vec<Currency>>),
    List { question: ListQuestion, from: (Partition, usize), reply: SyncSender<Slice> },
}

/// The listing of a slice of customers, and where the worker's next slice begins.
type Slice = (Listing, Option<(Partition, usize)>);

/// Where a slice begins: the worker, and the position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    worker: usize,
    from: (Partition, usize),
}

impl Cursor {
    /// The first position.
    pub const START: Cursor = Cursor { worker: 0, from: (Partition(0), 0) };
}

/// A batch that was applied, or an end that was reached.
pub struct Applied<B> {
    /// The topic-partition.
    pub at: TopicPartition,
    /// The offset after the last applied record.
    pub next: i64,
    /// Whether it is an end.
    pub end: bool,
    /// The time since the records were read.
    pub took: Duration,
    /// The records, unless it is an end. The receiver drops them, because the poll loop has more time than a worker.
    pub batch: Option<B>,
    /// The rejected ones.
    pub rejected: Vec<Rejected>,
}

/// Reports of the workers, in the order of events.
pub enum Report<B> {
    /// Records were applied, or an end was reached.
    Applied(Applied<B>),
    /// A checkpoint has begun. It includes everything reported before, and these alerts; nothing reported later.
    Begun(Partition, u64, Vec<Alert>),
    /// A checkpoint was taken. `None` if nothing was read since the last one, so that none has begun.
    Taken(Partition, u64, Option<Taken>),
    /// The engine of a partition was dropped: ignore earlier reports about it.
    Forgotten(Partition),
}

/// The worker threads.
pub struct Pool<B> {
    queues: Vec<SyncSender<Work<B>>>,
    threads: Vec<JoinHandle<()>>,
    stalled: Stalled,
    config: Arc<WorkerConfig>,
    key_placement: Arc<KeyPlacementSample>,
}

/// The workers are gone: the daemon is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the workers have stopped")]
pub struct Stopped;

impl<B: RecordBatch> Pool<B> {
    /// Starts `threads` workers, at least one, which send their reports to `reports`.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start(config: &Arc<WorkerConfig>, threads: usize, reports: &Sender<Report<B>>) -> std::io::Result<Pool<B>> {
        let stalled = Stalled::default();
        let key_placement = Arc::new(KeyPlacementSample::new(config.decoders.len()));
        let mut pool = Pool {
            queues: Vec::new(),
            threads: Vec::new(),
            stalled,
            config: Arc::clone(config),
            key_placement: Arc::clone(&key_placement),
        };
        for i in 0..threads.max(1) {
            let (queue, work) = sync_channel(QUEUED_BATCHES);
            let (worker, reports) =
                (Worker::with_key_placement(Arc::clone(config), Arc::clone(&key_placement)), reports.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{i}"));
            let stalled = pool.stalled.clone();
            pool.threads.push(thread.spawn(move || run(worker, &work, &reports, stalled))?);
            pool.queues.push(queue);
        }
        Ok(pool)
    }

    fn queue(&self, partition: Partition) -> &SyncSender<Work<B>> {
        &self.queues[partition.0.unsigned_abs() as usize % self.queues.len()]
    }

    /// Hands a partition to its worker, with an engine that has read up to `next`, by topic.
    ///
    /// # Errors
    /// If the worker is gone.
    pub fn begin(&self, partition: Partition, engine: Box<Engine>, next: Vec<i64>) -> Result<(), Stopped> {
        self.queue(partition).send(Work::Begin { partition, engine, next }).map_err(|_| Stopped)
    }

    /// Restarts a parked engine and waits for the next offsets of its topics; `None` if it is not parked.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn unpark(&self, partition: Partition) -> Result<Option<Vec<i64>>, Stopped> {
        ask(self.queue(partition), |reply| Work::Unpark(partition, reply))?.recv().map_err(|_| Stopped)
    }

    /// Stops a partition after everything queued, and keeps its engine.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn park(&self, partition: Partition) -> Result<(), Stopped> {
        self.queue(partition).send(Work::Park(partition)).map_err(|_| Stopped)
    }

    /// Drops the engine of a partition after everything queued; [`Report::Forgotten`] confirms it.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn forget(&self, partition: Partition) -> Result<(), Stopped> {
        self.queue(partition).send(Work::Forget(partition)).map_err(|_| Stopped)
    }

    /// Requests a checkpoint, which begins after everything queued and after earlier checkpoints. [`Report::Begun`]
    /// carries the released alerts, [`Report::Taken`] the checkpoint. Work queued later runs in between.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn checkpoint(&self, partition: Partition, epoch: u64, allowance: Allowance) -> Result<(), Stopped> {
        self.queue(partition).send(Work::Checkpoint(partition, epoch, allowance)).map_err(|_| Stopped)
    }

    /// Marks a checkpoint as committed.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn confirm(&self, partition: Partition, epoch: u64) -> Result<(), Stopped> {
        self.queue(partition).send(Work::Confirm(partition, epoch)).map_err(|_| Stopped)
    }

    /// Rolls back a checkpoint. One that has not begun is cancelled without a report.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn roll_back(&self, partition: Partition, epoch: u64) -> Result<(), Stopped> {
        self.queue(partition).send(Work::RollBack(partition, epoch)).map_err(|_| Stopped)
    }

    /// Queues a batch with the time it was read; waits while the queue is full. Events after `latest` are rejected.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn records(&self, at: TopicPartition, batch: B, latest: Time, read: Instant) -> Result<(), Stopped> {
        self.queue(at.partition).send(Work::Records { at, batch, latest, read }).map_err(|_| Stopped)
    }

    /// Queues the end of a topic-partition: there is no record before `offset` left.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn end(&self, at: TopicPartition, offset: i64) -> Result<(), Stopped> {
        self.queue(at.partition).send(Work::End { at, offset }).map_err(|_| Stopped)
    }

    /// Raises the watermark of a topic-partition that is caught up and silent.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn raise(&self, at: TopicPartition, to: Time) -> Result<(), Stopped> {
        self.queue(at.partition).send(Work::Raise { at, to }).map_err(|_| Stopped)
    }

    /// The topic-partitions with records that wait for a schema: stop reading them for now.
    #[must_use]
    pub fn stalled(&self) -> BTreeSet<TopicPartition> {
        self.stalled.get()
    }

    /// The sample of customers and their partitions.
    #[must_use]
    pub fn key_placement(&self) -> &KeyPlacementSample {
        &self.key_placement
    }

    /// Why schemas are not available, if so.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.config.decoders.iter().find_map(|decoder| decoder.last_error())
    }

    /// Waits until everything queued so far is applied and reported.
    ///
    /// # Errors
    /// If a worker is gone.
    pub fn wait_until_applied(&self) -> Result<(), Stopped> {
        let answers: Vec<_> = self.queues.iter().map(|queue| ask(queue, Work::Barrier)).collect::<Result<_, _>>()?;
        answers.iter().try_for_each(|answer| answer.recv().map_err(|_| Stopped))
    }

    /// A handle for queries.
    #[must_use]
    pub fn workers(&self) -> Workers {
        let asks = self.queues.iter().map(|queue| {
            let queue = queue.clone();
            let ask: Ask = Arc::new(move |question| queue.send(Work::Ask(question)).map_err(|_| Stopped));
            ask
        });
        Workers(asks.collect())
    }

    /// Finishes queued work, then waits for the threads to end.
    ///
    /// # Errors
    /// If a worker panicked.
    pub fn join(self) -> Result<(), Stopped> {
        for queue in self.queues {
            // A worker that panicked receives nothing; `join` reports it.
            _ = queue.send(Work::Quit);
        }
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| Stopped))
    }
}

fn ask<B, T>(
    queue: &SyncSender<Work<B>>,
    question: impl FnOnce(SyncSender<T>) -> Work<B>,
) -> Result<Receiver<T>, Stopped> {
    let (reply, answer) = sync_channel(1);
    queue.send(question(reply)).map_err(|_| Stopped)?;
    Ok(answer)
}

fn run<B: RecordBatch>(worker: Worker, work: &Receiver<Work<B>>, reports: &mpsc::Sender<Report<B>>, stalled: Stalled) {
    let mut worker_loop =
        WorkerLoop { worker, waiting: Waiting::new(stalled), checkpoints: CheckpointQueue::default(), reports };
    // Alternate checkpoint slices with queued work of equal duration, so that checkpointing takes at most half of a
    // worker's time.
    let mut owed = Duration::ZERO;
    loop {
        if !worker_loop.waiting.is_empty() {
            worker_loop.try_again();
        }
        let next = if !worker_loop.checkpoints.is_empty() {
            work.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        } else if worker_loop.waiting.is_empty() {
            work.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            work.recv_timeout(TRY_AGAIN_AFTER)
        };
        match next {
            Ok(Work::Quit) => return worker_loop.finish(None),
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(work) => {
                let begun = Instant::now();
                worker_loop.take(work);
                owed = owed.saturating_sub(begun.elapsed());
            }
            Err(RecvTimeoutError::Timeout) => owed = Duration::ZERO,
        }
        if owed.is_zero() && !worker_loop.checkpoints.is_empty() {
            let begun = Instant::now();
            worker_loop.advance_checkpoints();
            owed = begun.elapsed();
        }
    }
}

/// The event loop of a worker with its queues.
struct WorkerLoop<'r, B> {
    worker: Worker,
    waiting: Waiting<B>,
    checkpoints: CheckpointQueue,
    reports: &'r mpsc::Sender<Report<B>>,
}

impl<B: RecordBatch> WorkerLoop<'_, B> {
    fn take(&mut self, work: Work<B>) {
        // Work that must follow a checkpoint waits for it; batches need not.
        match &work {
            Work::Begin { partition, .. } | Work::Unpark(partition, _) | Work::Park(partition) => {
                self.finish(Some(*partition));
            }
            Work::Barrier(_) => self.finish(None),
            _ => {}
        }
        let worker = &mut self.worker;
        // Ignore send errors: the caller may have gone away.
        match work {
            Work::Begin { partition, engine, next } => {
                self.waiting.forget(partition);
                worker.begin(partition, *engine, next);
            }
            Work::Unpark(partition, reply) => _ = reply.send(worker.unpark(partition)),
            Work::Park(partition) => {
                self.waiting.forget(partition);
                worker.park(partition);
            }
            Work::Forget(partition) => {
                self.waiting.forget(partition);
                self.checkpoints.forget(partition);
                worker.forget(partition);
                _ = self.reports.send(Report::Forgotten(partition));
            }
            Work::Checkpoint(partition, epoch, allowance) => self.checkpoints.request(partition, epoch, allowance),
            Work::Confirm(partition, epoch) => worker.confirm(partition, epoch),
            Work::RollBack(partition, epoch) => {
                if !self.checkpoints.roll_back(partition, epoch) {
                    self.checkpoints.forget_in_progress(partition, epoch);
                    worker.roll_back(partition, epoch);
                }
            }
            Work::Records { at, batch, latest, read } => {
                let is_ready = worker.is_ready_for(at, &batch);
                let admitted = self.waiting.admit(at, Queued::Records(batch, latest, read), is_ready);
                admitted.into_iter().for_each(|queued| self.apply(at, queued));
            }
            Work::End { at, offset } => {
                let admitted = self.waiting.admit(at, Queued::End(offset), true);
                admitted.into_iter().for_each(|queued| self.apply(at, queued));
            }
            Work::Raise { at, to } => worker.raise_watermark(at, to),
            Work::Quit => {}
            Work::Barrier(reply) => _ = reply.send(()),
            Work::Ask(Question::Status(reply)) => _ = reply.send(worker.status()),
            Work::Ask(Question::Series { window, panes, reply }) => _ = reply.send(worker.series(window, &panes)),
            Work::Ask(Question::Customer { id, reply }) => _ = reply.send(worker.customer(&id)),
            Work::Ask(Question::Know { silences, reply }) => _ = reply.send(worker.know(&silences)),
            Work::Ask(Question::Currencies(reply)) => _ = reply.send(worker.currencies()),
            Work::Ask(Question::List { question, from, reply }) => _ = reply.send(worker.listing(&question, from)),
            Work::Ask(Question::Snapshot { at, periods, reply }) => _ = reply.send(worker.snapshot(at, periods)),
        }
    }

    /// Advances the checkpoints by one slice.
    fn advance_checkpoints(&mut self) {
        self.checkpoints.advance(&mut self.worker, |report| _ = self.reports.send(report));
    }

    fn finish(&mut self, partition: Option<Partition>) {
        self.checkpoints.finish(partition, &mut self.worker, |report| _ = self.reports.send(report));
    }

    /// Applies waiting records that have become ready.
    fn try_again(&mut self) {
        while let Some((at, queued)) = self.waiting.next(|at, batch| self.worker.is_ready_for(at, batch)) {
            self.apply(at, queued);
        }
    }

    fn apply(&mut self, at: TopicPartition, queued: Queued<B>) {
        let applied = match queued {
            Queued::Records(batch, latest, read) => {
                let mut rejected = Vec::new();
                let Some(next) = self.worker.apply(at, &batch, latest, &mut rejected) else { return };
                Applied { at, next, end: false, took: read.elapsed(), batch: Some(batch), rejected }
            }
            Queued::End(offset) => {
                self.worker.end(at, offset);
                let (took, rejected) = (Duration::ZERO, Vec::new());
                Applied { at, next: offset, end: true, took, batch: None, rejected }
            }
        };
        _ = self.reports.send(Report::Applied(applied));
    }
}

type Ask = Arc<dyn Fn(Question) -> Result<(), Stopped> + Send + Sync>;

/// A handle for queries to the workers. Every method blocks until all workers have answered.
#[derive(Clone)]
pub struct Workers(Vec<Ask>);

/// The calendar periods to include in an overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The open period and the previous one.
    OpenAndPrevious,
    /// All periods since the first order.
    All,
}

/// The status of all workers, and their figures at one instant.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Partitions and counts of all workers.
    pub status: WorkerStatus,
    /// The figures at the smallest watermark of the partitions; `None` before the first event.
    pub snapshot: Option<Snapshot>,
}

impl Overview {
    /// As [`WorkerStatus::now`].
    #[must_use]
    pub fn now(&self) -> Option<Time> {
        self.status.now()
    }

    /// As [`WorkerStatus::data_begin`].
    #[must_use]
    pub fn data_begin(&self) -> Option<Time> {
        self.status.data_begin()
    }
}

impl Workers {
    /// The status of all workers and the figures of all partitions, evaluated at the same pane of each window.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn overview(&self, wanted: Wanted) -> Result<Overview, Stopped> {
        let mut overview = Overview { status: self.status()?, snapshot: None };
        if let Some(now) = overview.now() {
            let first_order = overview.status.partitions.iter().filter_map(|partition| partition.first_order).min();
            let periods = match wanted {
                Wanted::OpenAndPrevious => Periods::OpenAndPrevious,
                Wanted::All => Periods::Since(first_order.unwrap_or(now)),
            };
            overview.snapshot = self.snapshot(now, periods)?;
        }
        Ok(overview)
    }

    /// The state of all workers, without figures.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn status(&self) -> Result<WorkerStatus, Stopped> {
        let mut status = WorkerStatus::default();
        for answer in self.ask_all(Question::Status)? {
            status.partitions.extend(answer.partitions);
            status.tally.add(&answer.tally);
        }
        Ok(status)
    }

    /// The figures of one window of all partitions in each of some panes.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn series(&self, window: WindowId, panes: &Arc<[Pane]>) -> Result<Vec<Option<WindowParts>>, Stopped> {
        let answers = self.ask_all(|reply| Question::Series { window, panes: Arc::clone(panes), reply })?;
        let sum = answers.into_iter().reduce(|mut sums, more| {
            add_series(&mut sums, &more);
            sums
        });
        Ok(sum.unwrap_or_default())
    }

    /// The figures of a customer; `None` if no partition of this replica has it.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn customer(&self, id: &str) -> Result<Option<CustomerFigures>, Stopped> {
        let id: Arc<str> = id.into();
        let answers = self.ask_all(|reply| Question::Customer { id: Arc::clone(&id), reply })?;
        Ok(answers.into_iter().flatten().next())
    }

    /// For each id and time, whether there is a record of the customer that begins no later.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn know(&self, silences: &Arc<[(String, Time)]>) -> Result<Vec<bool>, Stopped> {
        let answers = self.ask_all(|reply| Question::Know { silences: Arc::clone(silences), reply })?;
        let either = |a: Vec<bool>, b: Vec<bool>| a.into_iter().zip(b).map(|(a, b)| a || b).collect();
        Ok(answers.into_iter().reduce(either).unwrap_or_default())
    }

    /// The known currencies, in order.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn currencies(&self) -> Result<BTreeSet<Currency>, Stopped> {
        Ok(self.ask_all(Question::Currencies)?.into_iter().flatten().collect())
    }

    /// The listing of one slice of customers, and the cursor of the next slice. Between slices the worker processes
    /// queued work.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn listing(&self, question: ListQuestion, cursor: Cursor) -> Result<(Listing, Option<Cursor>), Stopped> {
        let Some(ask) = self.0.get(cursor.worker) else { return Ok((Listing::default(), None)) };
        let (reply, answer) = sync_channel(1);
        ask(Question::List { question, from: cursor.from, reply })?;
        let (found, next) = answer.recv().map_err(|_| Stopped)?;
        let next_worker = cursor.worker + 1;
        let next = match next {
            Some(from) => Some(Cursor { from, ..cursor }),
            None => (next_worker < self.0.len()).then_some(Cursor { worker: next_worker, ..Cursor::START }),
        };
        Ok((found, next))
    }

    fn snapshot(&self, at: Time, periods: Periods) -> Result<Option<Snapshot>, Stopped> {
        let answers = self.ask_all(|reply| Question::Snapshot { at, periods, reply })?;
        Ok(answers.into_iter().reduce(|mut sum, more| {
            sum.merge(&more);
            sum
        }))
    }

    fn ask_all<T>(&self, question: impl Fn(SyncSender<T>) -> Question) -> Result<Vec<T>, Stopped> {
        let mut answers = Vec::with_capacity(self.0.len());
        for ask in &self.0 {
            let (reply, answer) = sync_channel(1);
            ask(question(reply))?;
            answers.push(answer);
        }
        answers.into_iter().map(|answer| answer.recv().map_err(|_| Stopped)).collect()
    }
}
