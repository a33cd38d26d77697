//! The task behind the webhook: reads the alert topic as a group of its own, has every message posted, and commits what
//! is done with.
//!
//! It reads the topic and not memory, so whatever it does slows nobody else: an endpoint that is down leaves the alerts
//! where they are. What is posted when, and how far the topic is done, is decided by [`crate::webhook::queue`].

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
use crate::webhook::policy::{Action, Outcome, told};
use crate::webhook::queue::{Alert, Queue, Task, Turn};

/// How many alerts are under way at a time.
const AT_ONCE: usize = 8;
/// How many alerts wait in memory before the topic is read no further, and how many bytes.
const WAITING: usize = 1_000;
const WAITING_BYTES: usize = 16 << 20;
/// How long one poll waits for messages, or for an attempt to end.
const STEP: Duration = Duration::from_millis(50);
/// How often positions are committed and figures published.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long one question to the brokers may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long to wait before what failed is begun anew.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long attempts that are under way are waited for at the end.
const GRACE: Duration = Duration::from_secs(3);
/// How long leaving the group may take.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// How long one commit may take; meanwhile the topic is not read, and attempts that ended are not followed up.
const COMMIT_WAIT: Duration = Duration::from_secs(3);
/// How long a given-up alert waits that the dead-letter topic did not take.
const DEAD_LETTER_RETRY: Duration = Duration::from_secs(30);

/// What the task works with.
pub struct WebhookConfig {
    /// The consumer group of the replicas, which dead letters name.
    pub group: String,
    /// Its group, with the alert topic as the only one.
    pub kafka: KafkaSettings,
    /// Where alerts are posted.
    pub endpoint: Endpoint,
    /// Where those go that are given up.
    pub dead_letters: DeadLetters,
    /// What is told.
    pub status: Arc<DeliveryStatus>,
}

/// The running task.
pub struct WebhookTask {
    stop: Option<Sender<()>>,
    thread: JoinHandle<()>,
}

impl WebhookTask {
    /// Starts it; it waits for the brokers and the topic as long as it takes.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(config: WebhookConfig) -> std::io::Result<WebhookTask> {
        let (stop, stops) = channel();
        let thread = std::thread::Builder::new().name("webhook".into()).spawn(move || work(config, &stops))?;
        Ok(WebhookTask { stop: Some(stop), thread })
    }

    /// Asks it to stop, and does not wait.
    pub fn ask_to_stop(&mut self) {
        self.stop = None;
    }

    /// Asks it to stop and waits until it has: attempts under way may end, and what is delivered is committed.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            error!("the webhook ended before its time");
        }
    }
}

/// An attempt, or the way into the dead-letter topic, of one session.
struct Job {
    session: u64,
    turn: Turn,
    task: Task,
}

/// How it ended.
struct Ended {
    session: u64,
    turn: Turn,
    how: How,
}

enum How {
    Attempted(Outcome),
    DeadLettered(Result<(), Undelivered>),
}

/// How a session ends.
enum End {
    Stopped,
    Disabled,
    Failed(String),
}

fn work(config: WebhookConfig, stops: &Receiver<()>) {
    let since = wall_clock().millis() - MINUTE;
    let (jobs, taken) = channel();
    let (tell, ended) = channel();
    let WebhookConfig { group, kafka, endpoint, dead_letters, status } = config;
    let posting = Arc::new(Posting {
        topic: kafka.topics.first().cloned().unwrap_or_default(),
        group,
        endpoint,
        dead_letters: Mutex::new(dead_letters),
        jobs: Mutex::new(taken),
    });
    for number in 0..AT_ONCE {
        let (posting, tell) = (Arc::clone(&posting), tell.clone());
        let thread = std::thread::Builder::new().name(format!("webhook-{number}"));
        if let Err(error) = thread.spawn(move || posting.run(&tell)) {
            return error!("no webhook: no thread for it: {error}");
        }
    }
    let stopped = |wait: Duration| !matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    let mut told = None;
    for session in 0.. {
        let joined = match partition_counts(&kafka, ANSWER_WAIT).as_deref() {
            Ok([Some(_)]) => KafkaClient::join(&kafka).map_err(|error| error.to_string()),
            Ok(_) => Err(format!("topic {:?} does not exist yet", posting.topic)),
            Err(error) => Err(error.to_string()),
        };
        let end = match joined {
            Ok(client) => {
                told = None;
                Session::new(client, session, since, &jobs, &ended, &status).run(stops)
            }
            Err(why) => End::Failed(why),
        };
        match end {
            End::Stopped | End::Disabled => return,
            End::Failed(why) if told.as_ref() != Some(&why) => {
                warn!("no alerts are posted, trying again: {why}");
                told = Some(why);
            }
            End::Failed(_) => {}
        }
        if stopped(RETRY_AFTER) {
            return;
        }
    }
}

/// What the threads share that wait for the endpoint.
struct Posting {
    topic: String,
    group: String,
    endpoint: Endpoint,
    dead_letters: Mutex<DeadLetters>,
    jobs: Mutex<Receiver<Job>>,
}

impl Posting {
    fn run(&self, tell: &Sender<Ended>) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { session, turn, task }) = job else { return };
            let how = match &task {
                Task::Post(alert) => How::Attempted(self.post(alert)),
                Task::DeadLetter(alert, why) => How::DeadLettered(self.dead_letter(alert, why)),
            };
            if tell.send(Ended { session, turn, how }).is_err() {
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
    /// Where a partition begins that has no position: at what was published after this, in epoch milliseconds.
    since: i64,
    queue: Queue,
    jobs: &'a Sender<Job>,
    ended: &'a Receiver<Ended>,
    status: &'a DeliveryStatus,
    /// What the group gave us and could not be begun with yet.
    given: Option<Vec<TopicPartition>>,
    is_paused: bool,
    is_disabled: bool,
    /// Whether the last attempt failed.
    is_failing: bool,
    told: Option<String>,
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
            given: None,
            is_paused: false,
            is_disabled: false,
            is_failing: false,
            told: None,
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
        while self.queue.under_way() > 0 && Instant::now() < deadline {
            self.take_ended(deadline.saturating_duration_since(Instant::now()));
        }
        self.commit();
        self.publish();
        self.client.close(CLOSE_WAIT);
        end
    }

    fn round(&mut self) -> Result<(), SourceError> {
        self.hand_out();
        let wait = match self.queue.wake_at() {
            _ if self.queue.under_way() > 0 => Duration::ZERO,
            Some(at) => STEP.min(at.saturating_duration_since(Instant::now())),
            None => STEP,
        };
        for polled in self.client.poll(wait) {
            self.take_polled(polled)?;
        }
        if self.given.is_some() {
            self.take_over()?;
        }
        self.take_ended(if self.queue.under_way() > 0 { STEP } else { Duration::ZERO });
        self.keep_bounds()?;
        if self.last_commit.elapsed() >= COMMIT_EVERY {
            self.commit();
            self.last_commit = Instant::now();
            self.publish();
        }
        Ok(())
    }

    fn hand_out(&mut self) {
        while self.queue.under_way() < AT_ONCE {
            let Some((turn, task)) = self.queue.next(Instant::now()) else { return };
            // The threads live as long as this one.
            _ = self.jobs.send(Job { session: self.number, turn, task });
        }
    }

    fn take_polled(&mut self, polled: Polled<C::Batch>) -> Result<(), SourceError> {
        match polled {
            Polled::Records(at, batch) => self.read(at.partition.0, &batch),
            Polled::End { at, offset } => self.queue.passed(at.partition.0, offset),
            Polled::Assigned(given) => match (&mut self.given, self.client.protocol()) {
                (Some(waiting), RebalanceProtocol::Incremental) => waiting.extend(given),
                (waiting, _) => *waiting = Some(given),
            },
            Polled::Revoked(taken) => {
                self.commit();
                self.give_up(&taken)?;
            }
            Polled::Lost(taken) => self.give_up(&taken)?,
            Polled::Error(text) => self.warn_once(format!("the webhook's reader: {text}")),
            // The next session begins with what the topic still holds.
            Polled::OutOfRange(_, text) | Polled::Damaged(_, text) => return Err(SourceError::Unavailable(text)),
            Polled::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn read(&mut self, partition: i32, batch: &C::Batch) {
        for index in 0..batch.len() {
            let record = batch.get(index);
            let Some(payload) = record.payload else {
                self.queue.passed(partition, record.offset + 1);
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

    /// Begins with what the group gave us, where the group left it; tried again with the next round if the brokers do
    /// not answer.
    fn take_over(&mut self) -> Result<(), SourceError> {
        let Some(given) = self.given.clone() else { return Ok(()) };
        let starts = match self.starts(&given) {
            Ok(starts) => starts,
            Err(SourceError::Unavailable(why)) => {
                warn!("the webhook's positions are not known yet: {why}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let list: Vec<_> = starts.iter().map(|(at, next, _)| (*at, Start::Offset(*next))).collect();
        match self.client.protocol() {
            RebalanceProtocol::Eager => self.client.assign(&list)?,
            RebalanceProtocol::Incremental => self.client.incremental_assign(&list)?,
        }
        self.given = None;
        self.is_paused = false;
        for (at, next, _) in &starts {
            self.queue.begin(at.partition.0, *next);
        }
        if starts.iter().any(|(.., is_committed)| !is_committed) {
            // So that the next start begins here, whatever was delivered until then.
            self.queue.forget_commits();
        }
        Ok(())
    }

    /// Where each begins, and whether that is committed.
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

    fn give_up(&mut self, taken: &[TopicPartition]) -> Result<(), SourceError> {
        let taken: Vec<_> = match self.client.protocol() {
            RebalanceProtocol::Eager => {
                self.given = None;
                self.queue.partitions().map(place).collect()
            }
            RebalanceProtocol::Incremental => {
                if let Some(given) = &mut self.given {
                    given.retain(|at| !taken.contains(at));
                }
                taken.iter().copied().filter(|at| self.queue.partitions().any(|of| of == at.partition.0)).collect()
            }
        };
        taken.iter().for_each(|at| self.queue.give_up(at.partition.0));
        self.client.unassign(&taken)
    }

    /// Takes note of what has ended, waiting for the first if nothing has.
    fn take_ended(&mut self, wait: Duration) {
        let first = if wait.is_zero() { self.ended.try_recv().ok() } else { self.ended.recv_timeout(wait).ok() };
        let mut next = first;
        while let Some(ended) = next {
            if ended.session == self.number {
                self.take_one(ended);
            }
            next = self.ended.try_recv().ok();
        }
    }

    fn take_one(&mut self, Ended { turn, how, .. }: Ended) {
        let now = Instant::now();
        match how {
            How::Attempted(outcome) => {
                self.status.change(|status| status.attempts[outcome.class().index()] += 1);
                let action = self.queue.attempted(turn, &outcome, now, rand::random());
                self.follow(action, &outcome);
            }
            How::DeadLettered(result) => {
                let again = result.inspect_err(|error| error!("an alert is neither delivered nor given up: {error}"));
                if self.queue.dead_lettered(turn, again.err().map(|_| now + DEAD_LETTER_RETRY)) {
                    self.status.change(|status| status.given_up += 1);
                }
            }
        }
    }

    fn follow(&mut self, action: Option<Action>, outcome: &Outcome) {
        match action {
            Some(Action::Delivered) => {
                self.status.change(|status| status.delivered += 1);
                if std::mem::take(&mut self.is_failing) {
                    info!("the webhook takes alerts again");
                }
            }
            Some(Action::Retry { .. }) if !self.is_failing => {
                self.is_failing = true;
                warn!("the webhook does not take an alert, trying again: {}", told(outcome));
            }
            Some(Action::GiveUp(why)) => warn!("an alert is given up and becomes a dead letter: {why}"),
            Some(Action::Disable) => {
                self.is_disabled = true;
                self.status.change(|status| status.is_disabled = true);
                error!(
                    "the webhook answered 410 Gone: no alert is posted until a restart. The topic keeps them; remove \
                     [alerts.webhook], or set another url"
                );
            }
            Some(Action::Retry { .. }) | None => {}
        }
    }

    /// Reads no further while too much waits.
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

    /// Commits how far each partition is done. What fails stays uncommitted, and the next commit tries it again.
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
                self.told = None;
            }
            Err(why) => self.warn_once(format!("what was posted is not committed, and may be posted again: {why}")),
        }
    }

    fn warn_once(&mut self, text: String) {
        if self.told.as_ref() != Some(&text) {
            warn!("{text}");
            self.told = Some(text);
        }
    }

    fn publish(&self) {
        let age = |time: i64| Duration::from_millis((wall_clock().millis() - time).max(0).unsigned_abs());
        let oldest = self.queue.oldest().and_then(|time| Instant::now().checked_sub(age(time)));
        self.status.change(|status| status.oldest = oldest);
    }
}
