//! The webhook task: reads the alert topic in its own consumer group, posts every message, and commits offsets.
//!
//! It reads from the topic rather than from memory, so it slows nothing else down: while the endpoint is down, the
//! alerts stay in the topic. [`crate::webhook::queue`] decides what is posted when, and which offsets can be committed.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::bus::{
    Committed, GroupClient, GroupHandle, Partition, Polled, RebalanceProtocol, RecordBatch, SourceError, Start,
    TopicIndex, TopicPartition,
};
use crate::event::{MINUTE, wall_clock};
use crate::kafka::{KafkaClient, KafkaSettings, partition_counts};
use crate::output::dead_letters::{Channel, DeadLetters, OutboxRecord, RecordOrigin, Undelivered};
use crate::status::delivery::DeliveryStatus;
use crate::webhook::endpoint::{Endpoint, Post};
use crate::webhook::policy::{Action, Outcome, describe};
use crate::webhook::queue::{Alert, Queue, Task, Turn};

/// How many alerts are in flight at a time.
const MAX_IN_FLIGHT: usize = 8;
/// Alerts and bytes in memory at which reading pauses.
const WAITING: usize = 1_000;
const WAITING_BYTES: usize = 16 << 20;
/// How long to wait for messages or for the end of an attempt, per iteration.
const STEP: Duration = Duration::from_millis(50);
/// How often offsets are committed and the status is published.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Timeout of one request to the brokers.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Pause before a new session after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long to wait for attempts in flight when stopping.
const GRACE: Duration = Duration::from_secs(3);
/// Timeout for leaving the group.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// Timeout of a commit; it blocks reading and the handling of finished attempts.
const COMMIT_WAIT: Duration = Duration::from_secs(3);
/// Pause before retrying a dead letter that could not be written.
const DEAD_LETTER_RETRY: Duration = Duration::from_secs(30);

/// Configuration and clients of the task.
pub struct WebhookConfig {
    /// The consumer group of the replicas, named in dead letters.
    pub group: String,
    /// Client settings with the task's own group and the alert topic.
    pub kafka: KafkaSettings,
    /// Where alerts are posted.
    pub endpoint: Endpoint,
    /// Producer for alerts that are given up.
    pub dead_letters: DeadLetters,
    /// Where the task publishes its status.
    pub status: Arc<DeliveryStatus>,
}

/// The running task.
pub struct WebhookTask {
    stop: Option<Sender<()>>,
    thread: JoinHandle<()>,
}

impl WebhookTask {
    /// Starts the task; it waits for the brokers and the topic without a time limit.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn start(config: WebhookConfig) -> std::io::Result<WebhookTask> {
        let (stop, stops) = channel();
        let thread = std::thread::Builder::new().name("webhook".into()).spawn(move || work(config, &stops))?;
        Ok(WebhookTask { stop: Some(stop), thread })
    }

    /// Asks the task to stop without waiting.
    pub fn ask_to_stop(&mut self) {
        self.stop = None;
    }

    /// Asks the task to stop and waits: attempts in flight may finish, and delivered alerts are committed.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            error!("the webhook task stopped unexpectedly");
        }
    }
}

/// A task for a posting thread, and the session that it belongs to.
struct Job {
    session: u64,
    turn: Turn,
    task: Task,
}

/// The result of a job.
struct Ended {
    session: u64,
    turn: Turn,
    result: JobResult,
}

enum JobResult {
    Attempted(Outcome),
    DeadLettered(Result<(), Undelivered>),
}

/// Why a session ended.
enum End {
    Stopped,
    Disabled,
    Failed(String),
}

fn work(config: WebhookConfig, stops: &Receiver<()>) {
    let since = wall_clock().millis() - MINUTE;
    let (jobs, queued) = channel();
    let (results, ended) = channel();
    let WebhookConfig { group, kafka, endpoint, dead_letters, status } = config;
    let posting = Arc::new(Posting {
        topic: kafka.topics.first().cloned().unwrap_or_default(),
        group,
        endpoint,
        dead_letters: Mutex::new(dead_letters),
        jobs: Mutex::new(queued),
    });
    for number in 0..MAX_IN_FLIGHT {
        let (posting, results) = (Arc::clone(&posting), results.clone());
        let thread = std::thread::Builder::new().name(format!("webhook-{number}"));
        if let Err(error) = thread.spawn(move || posting.run(&results)) {
            return error!("the webhook is off: cannot start a thread: {error}");
        }
    }
    let stopped = |wait: Duration| !matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    let mut last_warning = None;
    for session in 0.. {
        let joined = match partition_counts(&kafka, ANSWER_WAIT).as_deref() {
            Ok([Some(_)]) => KafkaClient::join(&kafka).map_err(|error| error.to_string()),
            Ok(_) => Err(format!("topic {:?} does not exist yet", posting.topic)),
            Err(error) => Err(error.to_string()),
        };
        let end = match joined {
            Ok(client) => {
                last_warning = None;
                Session::new(client, session, since, &jobs, &ended, &status).run(stops)
            }
            Err(why) => End::Failed(why),
        };
        match end {
            End::Stopped | End::Disabled => return,
            End::Failed(why) if last_warning.as_ref() != Some(&why) => {
                warn!("alerts are not posted, retrying: {why}");
                last_warning = Some(why);
            }
            End::Failed(_) => {}
        }
        if stopped(RETRY_AFTER) {
            return;
        }
    }
}

/// State shared by the posting threads.
struct Posting {
    topic: String,
    group: String,
    endpoint: Endpoint,
    dead_letters: Mutex<DeadLetters>,
    jobs: Mutex<Receiver<Job>>,
}

impl Posting {
    fn run(&self, results: &Sender<Ended>) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { session, turn, task }) = job else { return };
            let result = match &task {
                Task::Post(alert) => JobResult::Attempted(self.post(alert)),
                Task::DeadLetter(alert, why) => JobResult::DeadLettered(self.dead_letter(alert, why)),
            };
            if results.send(Ended { session, turn, result }).is_err() {
                return;
            }
        }
    }

    fn post(&self, alert: &Alert) -> Outcome {
        let content_type = alert.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let content_type = content_type.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
        self.endpoint.post(&Post { id: &alert.id(), content_type, body: &alert.payload })
    }

    fn dead_letter(&self, alert: &Alert, why: &str) -> Result<(), Undelivered> {
        let Alert { partition, offset, .. } = *alert;
        let dead_letter = OutboxRecord {
            to: Channel::DeadLetters,
            key: alert.key.clone(),
            payload: Some(alert.payload.clone()),
            headers: alert.headers.clone(),
            time: alert.time,
        };
        let origin = RecordOrigin { group: &self.group, topic: &self.topic, partition };
        let dead_letter = dead_letter.marked(&origin, offset, &format!("webhook_rejected: {why}"));
        self.dead_letters.lock().unwrap_or_else(PoisonError::into_inner).deliver(&[&dead_letter])
    }
}

/// One membership in the group.
struct Session<'a, C: GroupClient> {
    client: C,
    number: u64,
    /// Start of partitions without a committed offset: alerts published after this time, in epoch milliseconds.
    since: i64,
    queue: Queue,
    jobs: &'a Sender<Job>,
    ended: &'a Receiver<Ended>,
    status: &'a DeliveryStatus,
    /// Assigned partitions that are not started yet.
    assigned: Option<Vec<TopicPartition>>,
    is_paused: bool,
    is_disabled: bool,
    /// Whether the last attempt failed.
    is_failing: bool,
    last_warning: Option<String>,
    last_commit: Instant,
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(0), partition: Partition(partition) }
}

impl<'a, C: GroupClient> Session<'a, C> {
    fn new(
        client: C,
        number: u64,
        since: i64,
        jobs: &'a Sender<Job>,
        ended: &'a Receiver<Ended>,
        status: &'a DeliveryStatus,
    ) -> Session<'a, C> {
        Session {
            client,
            number,
            since,
            queue: Queue::default(),
            jobs,
            ended,
            status,
            assigned: None,
            is_paused: false,
            is_disabled: false,
            is_failing: false,
            last_warning: None,
            last_commit: Instant::now(),
        }
    }

    fn run(mut self, stops: &Receiver<()>) -> End {
        let end = loop {
            if !matches!(stops.try_recv(), Err(TryRecvError::Empty)) {
                break End::Stopped;
            }
            if self.is_disabled {
                break End::Disabled;
            }
            if let Err(error) = self.round() {
                break End::Failed(error.to_string());
            }
        };
        let deadline = Instant::now() + GRACE;
        while self.queue.in_flight() > 0 && Instant::now() < deadline {
            self.handle_ended(deadline.saturating_duration_since(Instant::now()));
        }
        self.commit();
        self.publish();
        self.client.close(CLOSE_WAIT);
        end
    }

    fn round(&mut self) -> Result<(), SourceError> {
        self.start_jobs();
        let wait = match self.queue.wake_at() {
            _ if self.queue.in_flight() > 0 => Duration::ZERO,
            Some(at) => STEP.min(at.saturating_duration_since(Instant::now())),
            None => STEP,
        };
        for polled in self.client.poll(wait) {
            self.handle_polled(polled)?;
        }
        if self.assigned.is_some() {
            self.start_assigned()?;
        }
        self.handle_ended(if self.queue.in_flight() > 0 { STEP } else { Duration::ZERO });
        self.keep_bounds()?;
        if self.last_commit.elapsed() >= COMMIT_EVERY {
            self.commit();
            self.last_commit = Instant::now();
            self.publish();
        }
        Ok(())
    }

    fn start_jobs(&mut self) {
        while self.queue.in_flight() < MAX_IN_FLIGHT {
            let Some((turn, task)) = self.queue.next(Instant::now()) else { return };
            // Cannot fail: the posting threads live as long as this one.
            _ = self.jobs.send(Job { session: self.number, turn, task });
        }
    }

    fn handle_polled(&mut self, polled: Polled<C::Batch>) -> Result<(), SourceError> {
        match polled {
            Polled::Records(at, batch) => self.read(at.partition.0, &batch),
            Polled::End { at, offset } => self.queue.advance(at.partition.0, offset),
            Polled::Assigned(given) => match (&mut self.assigned, self.client.protocol()) {
                (Some(waiting), RebalanceProtocol::Incremental) => waiting.extend(given),
                (waiting, _) => *waiting = Some(given),
            },
            Polled::Revoked(revoked) => {
                self.commit();
                self.release(&revoked)?;
            }
            Polled::Lost(revoked) => self.release(&revoked)?,
            Polled::Error(text) => self.warn_once(format!("the webhook's reader: {text}")),
            // The next session starts with the oldest alert that the topic still has.
            Polled::OutOfRange(_, text) | Polled::Damaged(_, text) => return Err(SourceError::Unavailable(text)),
            Polled::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn read(&mut self, partition: i32, batch: &C::Batch) {
        for index in 0..batch.len() {
            let record = batch.get(index);
            let Some(payload) = record.payload else {
                self.queue.advance(partition, record.offset + 1);
                continue;
            };
            let headers = batch.headers(index).into_iter();
            self.queue.add(Alert {
                partition,
                offset: record.offset,
                key: record.key.map(<[u8]>::to_vec),
                payload: payload.to_vec(),
                headers: headers.map(|header| (header.name.into_owned(), header.value.map(<[u8]>::to_vec))).collect(),
                time: batch.stamp(index).time,
            });
        }
    }

    /// Starts the assigned partitions at their committed offsets; retried in the next round if the brokers do not
    /// answer.
    fn start_assigned(&mut self) -> Result<(), SourceError> {
        let Some(given) = self.assigned.clone() else { return Ok(()) };
        let starts = match self.starts(&given) {
            Ok(starts) => starts,
            Err(SourceError::Unavailable(why)) => {
                warn!("cannot fetch the webhook's committed offsets yet: {why}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let list: Vec<_> = starts.iter().map(|(at, next, _)| (*at, Start::Offset(*next))).collect();
        match self.client.protocol() {
            RebalanceProtocol::Eager => self.client.assign(&list)?,
            RebalanceProtocol::Incremental => self.client.incremental_assign(&list)?,
        }
        self.assigned = None;
        self.is_paused = false;
        for (at, next, _) in &starts {
            self.queue.begin(at.partition.0, *next);
        }
        if starts.iter().any(|(.., is_committed)| !is_committed) {
            // Pin the start, so that a restart begins here even if nothing is delivered until then.
            self.queue.forget_commits();
        }
        Ok(())
    }

    /// Where each partition starts, and whether that offset is committed.
    fn starts(&self, given: &[TopicPartition]) -> Result<Vec<(TopicPartition, i64, bool)>, SourceError> {
        let handle = self.client.handle();
        let committed = handle.committed(given, ANSWER_WAIT)?;
        let ask = |start: Start| {
            let question: Vec<_> = given.iter().map(|at| (*at, start)).collect();
            handle.offsets(&question, ANSWER_WAIT)
        };
        let earliest = ask(Start::Earliest)?;
        let fresh = if committed.iter().all(Option::is_some) { Vec::new() } else { ask(Start::At(self.since))? };
        let start = |(i, at): (usize, &TopicPartition)| match &committed[i] {
            Some(committed) if committed.offset < earliest[i] => {
                let lost = earliest[i] - committed.offset;
                warn!("up to {lost} alert(s) of partition {} were deleted before they were posted", at.partition.0);
                (*at, earliest[i], false)
            }
            Some(committed) => (*at, committed.offset, true),
            None => (*at, fresh[i], false),
        };
        Ok(given.iter().enumerate().map(start).collect())
    }

    fn release(&mut self, revoked: &[TopicPartition]) -> Result<(), SourceError> {
        let revoked: Vec<_> = match self.client.protocol() {
            RebalanceProtocol::Eager => {
                self.assigned = None;
                self.queue.partitions().map(place).collect()
            }
            RebalanceProtocol::Incremental => {
                if let Some(given) = &mut self.assigned {
                    given.retain(|at| !revoked.contains(at));
                }
                revoked.iter().copied().filter(|at| self.queue.partitions().any(|of| of == at.partition.0)).collect()
            }
        };
        revoked.iter().for_each(|at| self.queue.release(at.partition.0));
        self.client.unassign(&revoked)
    }

    /// Handles finished jobs; waits for the first one if there is none.
    fn handle_ended(&mut self, wait: Duration) {
        let first = if wait.is_zero() { self.ended.try_recv().ok() } else { self.ended.recv_timeout(wait).ok() };
        let mut next = first;
        while let Some(ended) = next {
            if ended.session == self.number {
                self.handle(ended);
            }
            next = self.ended.try_recv().ok();
        }
    }

    fn handle(&mut self, Ended { turn, result, .. }: Ended) {
        let now = Instant::now();
        match result {
            JobResult::Attempted(outcome) => {
                self.status.change(|status| status.attempts[outcome.class().index()] += 1);
                let action = self.queue.attempted(turn, &outcome, now, rand::random());
                self.react(action, &outcome);
            }
            JobResult::DeadLettered(result) => {
                let result =
                    result.inspect_err(|error| error!("cannot write an undeliverable alert as a dead letter: {error}"));
                if self.queue.dead_lettered(turn, result.err().map(|_| now + DEAD_LETTER_RETRY)) {
                    self.status.change(|status| status.given_up += 1);
                }
            }
        }
    }

    fn react(&mut self, action: Option<Action>, outcome: &Outcome) {
        match action {
            Some(Action::Delivered) => {
                self.status.change(|status| status.delivered += 1);
                if std::mem::take(&mut self.is_failing) {
                    info!("the webhook accepts alerts again");
                }
            }
            Some(Action::Retry { .. }) if !self.is_failing => {
                self.is_failing = true;
                warn!("the webhook did not accept an alert, retrying: {}", describe(outcome));
            }
            Some(Action::GiveUp(why)) => warn!("giving up an alert, which becomes a dead letter: {why}"),
            Some(Action::Disable) => {
                self.is_disabled = true;
                self.status.change(|status| status.is_disabled = true);
                error!(
                    "the webhook answered 410 Gone: no alerts are posted until a restart. They stay in the topic; \
                     remove [alerts.webhook] or change its url"
                );
            }
            Some(Action::Retry { .. }) | None => {}
        }
    }

    /// Pauses reading while too many alerts are waiting.
    fn keep_bounds(&mut self) -> Result<(), SourceError> {
        let is_full = self.queue.len() >= WAITING || self.queue.bytes() >= WAITING_BYTES;
        let has_room = self.queue.len() < WAITING / 2 && self.queue.bytes() < WAITING_BYTES / 2;
        let all: Vec<_> = self.queue.partitions().map(place).collect();
        if is_full && !self.is_paused {
            self.is_paused = true;
            self.client.pause(&all)?;
        } else if has_room && self.is_paused {
            self.is_paused = false;
            self.client.resume(&all)?;
        }
        Ok(())
    }

    /// Commits the progress of all partitions. After a failure, the next commit tries again.
    fn commit(&mut self) {
        let next = self.queue.uncommitted();
        if next.is_empty() {
            return;
        }
        let committed =
            |(partition, next): &(i32, i64)| (place(*partition), Committed { offset: *next, metadata: Vec::new() });
        let list: Vec<_> = next.iter().map(committed).collect();
        let token = self.client.group_token().map_err(|error| error.to_string());
        let handle = self.client.handle();
        let outcome =
            token.and_then(|token| handle.commit(&token, &list, COMMIT_WAIT).map_err(|error| error.to_string()));
        match outcome {
            Ok(()) => {
                self.queue.committed(&next);
                self.last_warning = None;
            }
            Err(why) => self.warn_once(format!("cannot commit; alerts may be posted again: {why}")),
        }
    }

    fn warn_once(&mut self, text: String) {
        if self.last_warning.as_ref() != Some(&text) {
            warn!("{text}");
            self.last_warning = Some(text);
        }
    }

    fn publish(&self) {
        let age = |time: i64| Duration::from_millis((wall_clock().millis() - time).max(0).unsigned_abs());
        let oldest = self.queue.oldest().and_then(|time| Instant::now().checked_sub(age(time)));
        self.status.change(|status| status.oldest = oldest);
    }
}
