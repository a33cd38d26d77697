//! The daemon: starts HTTP first, then the source, which waits for brokers and topics without a time limit.

pub mod notify;

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::bus::transaction::Transactions;
use crate::bus::{CoPartitioning, SourceError, check_co_partitioning};
use crate::checkpoint::files;
use crate::checkpoint::protocol::{self, Delivery};
use crate::checkpoint::store::{Store, StoreError};
use crate::config::{self, Settings};
use crate::coordinator::alert_rate::AlertRate;
use crate::coordinator::commit_thread::{CommitMode, Committer};
use crate::coordinator::group_watch;
use crate::coordinator::log_identity::{LogProbe, look};
use crate::coordinator::store_tasks::{Answer, StoreTasks, TopicIds};
use crate::coordinator::{Coordinator, Parts, Rules};
use crate::engine::spec::Spec;
use crate::http;
use crate::kafka::{
    KafkaAdmin, KafkaBatch, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer, create_topics,
    partition_counts,
};
use crate::output::alerts;
use crate::output::dead_letters::DeadLetters;
use crate::repartition::{self, Routers};
use crate::status::SourceStatus;
use crate::webhook::endpoint::Endpoint;
use crate::webhook::signature::Keys;
use crate::webhook::task::{WebhookConfig, WebhookTask};
use crate::wiring::{breaker_rules, kafka_settings, open_store, outputs, replica, starts, worker_config};
use crate::worker::pool::{Pool, Report, Workers};

/// Timeout of one request for partition counts.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// Pause before looking again for brokers or topics that were not available.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Upper limit of that pause, which doubles while the brokers do not answer.
const RETRY_MOST: Duration = Duration::from_secs(8);
/// Time that the poll loop may take to stop.
const STOP_BUDGET: Duration = Duration::from_secs(25);
/// Timeout for creating a topic.
const CREATE_WAIT: Duration = Duration::from_secs(30);
/// Timeout of one request for topic ids.
const TOPIC_IDS_WAIT: Duration = Duration::from_secs(10);
/// How long the topic ids are cached.
const TOPIC_IDS_FRESH: Duration = Duration::from_secs(2);
/// Age at which an unfinished file counts as abandoned.
const UNFINISHED_FOR: Duration = Duration::from_secs(600);
/// Bytes of pending dead letters that trigger an early checkpoint.
const OUTBOX_LIMIT: u64 = 32 << 20;
/// How many checkpoint intervals to cache the state of a released partition, in case it returns.
const PARKED_FOR: u32 = 30;

/// A running daemon.
pub struct Daemon {
    begun: Instant,
    address: SocketAddr,
    workers: Workers,
    status: watch::Receiver<SourceStatus>,
    stop_http: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    stop_source: mpsc::Sender<()>,
    source_ended: oneshot::Receiver<Result<(), SourceError>>,
    webhook: Option<WebhookTask>,
}

impl Daemon {
    /// Starts everything; the source waits in the background for brokers and topics. `access` controls who may query
    /// single customers.
    ///
    /// # Errors
    /// When the address is in use, or the operating system cannot start a thread.
    pub async fn start(settings: Settings, access: http::Access) -> Result<Daemon> {
        announce(&settings);
        let begun = Instant::now();
        let webhook = webhook_config(&settings)?;
        let listener = http::bind(settings.http.listen).await?;
        let address = listener.local_addr()?;
        let config = Arc::new(worker_config::new(&settings));
        let (reports, reported) = mpsc::channel();
        let pool = Pool::start(&config, worker_threads(), &reports)?;
        let workers = pool.workers();
        let delivery = webhook.as_ref().map(|config| Arc::clone(&config.status));
        let (status_sender, status) = watch::channel(SourceStatus { webhook: delivery, ..SourceStatus::default() });
        let service = http::Service {
            workers: workers.clone(),
            source: status.clone(),
            spec: Arc::clone(&config.spec),
            topics: settings.keyed_topics(),
            background: worker_config::background(&settings, None),
            access,
            partitioner: worker_config::partitioner(&settings),
            replica: replica(&settings),
            dashboards_url: settings.http.dashboards_url.clone(),
        };
        let (stop_http, http_stops) = oneshot::channel::<()>();
        let server = tokio::spawn(http::serve(listener, service, async move { _ = http_stops.await }));
        info!(%address, "serving figures and metrics");
        let (stop_source, source_stops) = mpsc::channel::<()>();
        let (end_sender, source_ended) = oneshot::channel();
        let spec = Arc::clone(&config.spec);
        let source = Source { settings, spec, status: status_sender, source_stops, runtime: Handle::current() };
        std::thread::Builder::new().name("source".into()).spawn(move || {
            _ = end_sender.send(source.run(pool, reported));
        })?;
        let webhook = webhook.map(WebhookTask::start).transpose()?;
        Ok(Daemon { begun, address, workers, status, stop_http, server, stop_source, source_ended, webhook })
    }

    /// The address on which HTTP listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle for querying figures.
    #[must_use]
    pub fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// The status of the source.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.clone()
    }

    /// Runs until `shutdown` completes or a permanent failure, then stops everything in order: the source applies and
    /// commits the records it has read and leaves the group, then HTTP stops.
    ///
    /// # Errors
    /// When the configuration does not fit the cluster, or the source fails permanently.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let ended = tokio::select! {
            ended = &mut self.source_ended => Some(ended),
            () = shutdown => {
                info!("stopping");
                drop(self.stop_source);
                self.webhook.iter_mut().for_each(WebhookTask::ask_to_stop);
                tokio::time::timeout(STOP_BUDGET, &mut self.source_ended).await.ok()
            }
        };
        if let Some(webhook) = self.webhook {
            // Joining blocks; the runtime's threads must keep answering requests.
            _ = tokio::task::spawn_blocking(move || webhook.stop()).await;
        }
        info!("stopping HTTP");
        drop(self.stop_http);
        self.server.await.context("the HTTP server stopped unexpectedly")?.context("the HTTP server failed")?;
        match ended {
            Some(ended) => ended.context("the source thread stopped unexpectedly")??,
            None => warn!("the source did not stop within {} s; exiting without it", STOP_BUDGET.as_secs()),
        }
        let source = self.status.borrow();
        let (checkpoints, dead_letters) = (source.checkpoints.committed, source.checkpoints.dead_letters);
        let (records, seconds) = (source.latency.count(), self.begun.elapsed().as_secs());
        info!(records, checkpoints, dead_letters, seconds, "stopped");
        Ok(())
    }
}

/// Logs the main settings in one line, without secrets.
fn announce(settings: &Settings) {
    let list = |names: Vec<&str>| names.join(" ");
    let topics = list(settings.sources.values().map(|source| source.topic.as_str()).collect());
    let windows = list(settings.windows.iter().map(|window| window.name.as_str()).collect());
    let delivery = match settings.kafka.delivery {
        config::Delivery::ExactlyOnce => "exactly_once",
        config::Delivery::AtLeastOnce => "at_least_once",
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        brokers = settings.kafka.brokers,
        group = settings.kafka.group_id,
        topics,
        delivery,
        windows,
        zone = settings.time.zone.name(),
        store = settings.checkpoint.url,
        "starting"
    );
}

/// One core polls and decompresses; the others run workers.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_sub(1).max(1)
}

/// State owned by the source thread.
struct Source {
    settings: Settings,
    spec: Arc<Spec>,
    runtime: Handle,
    status: watch::Sender<SourceStatus>,
    source_stops: Receiver<()>,
}

impl Source {
    fn run(self, pool: Pool<KafkaBatch>, reports: Receiver<Report<KafkaBatch>>) -> Result<(), SourceError> {
        let kafka = kafka_settings(&self.settings);
        let instance = replica(&self.settings);
        let Some(store) = self.open_store()? else {
            return pool.join().map_err(|error| SourceError::Unavailable(error.to_string()));
        };
        let _lock = lock(&store, &kafka.group_id, &instance)?;
        let Some(partitions) = self.wait_for_topics(&kafka)? else {
            return pool.join().map_err(|error| SourceError::Unavailable(error.to_string()));
        };
        self.create_topics(&kafka, partitions);
        let (answer_sender, answers) = mpsc::channel();
        let store_tasks = Arc::new(StoreTasks {
            store,
            runtime: self.runtime.clone(),
            spec: Arc::clone(&self.spec),
            group: kafka.group_id.clone(),
            topics: kafka.topics.clone(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            topic_ids: self.topic_ids(&kafka),
            probe: log_probe(kafka.clone()),
            answers: answer_sender.clone(),
            encoding: Mutex::default(),
        });
        let (delivery, mode) = self.commit_mode(&kafka, &instance);
        // Ignore send errors: the poll loop may have ended.
        let committer = Committer::start(mode, move |reply| _ = answer_sender.send(Answer::CommitReply(reply)));
        let committer =
            committer.map_err(|error| SourceError::Unavailable(format!("cannot start the commit thread: {error}")))?;
        info!(topics = ?kafka.topics, partitions, group = %kafka.group_id, "joining the group");
        let client = KafkaClient::join(&kafka)?;
        let rules = Rules {
            topics: kafka.topics.clone(),
            sources: self.settings.sources.keys().cloned().collect(),
            starts: starts(&self.settings),
            max_future: self.settings.customers.max_future.get(),
            checkpoint_every: self.settings.checkpoint.interval.to_std(),
            keep_files: self.settings.checkpoint.keep.to_std(),
            idle_after: self.settings.time.idle_after.to_std(),
            alert_rate: AlertRate::new(&self.settings, partitions),
            alert_source: alerts::source(&kafka.group_id),
            outputs: outputs(&self.settings),
            breaker: breaker_rules(&self.settings),
            stale_after: self.settings.checkpoint.stale_after.to_std(),
        };
        let protocol = protocol::Rules {
            delivery,
            topics: kafka.topics.clone(),
            outbox_limit: OUTBOX_LIMIT,
            parked_for: PARKED_FOR,
        };
        let (fatal, failures) = mpsc::channel();
        let routers = Routers::start(&self.settings, &self.status, &fatal);
        let routers =
            routers.map_err(|error| SourceError::Unavailable(format!("cannot start a router thread: {error}")))?;
        let (finding_sender, findings) = mpsc::channel();
        let (_watching, stop_watch) = mpsc::channel();
        group_watch::start(kafka, partitions, self.status.subscribe(), finding_sender, stop_watch)?;
        let parts = Parts { client, pool, reports, store_tasks, committer, answers, failures, findings };
        let ended = Coordinator::new(parts, rules, protocol, self.status).run(&self.source_stops);
        routers.stop();
        ended
    }

    /// Waits until all source topics exist and have equal partition counts; `None` when asked to stop.
    fn wait_for_topics(&self, kafka: &KafkaSettings) -> Result<Option<u32>, SourceError> {
        let mut pause = RETRY_AFTER;
        loop {
            if let Err(why) = repartition::topics::create_topics(&self.settings, kafka) {
                self.last_error(why.to_string());
            }
            match partition_counts(kafka, METADATA_WAIT) {
                Ok(counts) => {
                    pause = RETRY_AFTER;
                    self.status.send_modify(|status| status.partition_counts.clone_from(&counts));
                    let named: Vec<_> = kafka.topics.iter().cloned().zip(counts).collect();
                    match check_co_partitioning(&named)? {
                        CoPartitioning::Equal(partitions) => {
                            self.status.send_modify(|status| status.last_error = None);
                            return Ok(Some(partitions));
                        }
                        CoPartitioning::Missing(missing) => {
                            self.last_error(format!("waiting for topic(s) that do not exist: {}", missing.join(", ")));
                        }
                    }
                }
                Err(SourceError::Unavailable(why)) => {
                    self.last_error(why);
                    // Back off after an authentication failure: some brokers lock accounts.
                    pause = (pause * 2).min(RETRY_MOST);
                }
                Err(error) => return Err(error),
            }
            if !matches!(self.source_stops.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                return Ok(None);
            }
        }
    }

    fn last_error(&self, text: String) {
        if self.status.borrow().last_error.as_deref() != Some(&text) {
            warn!("{text}; retrying");
        }
        self.status.send_modify(|status| {
            status.last_error = Some(text);
            status.last_poll = Some(Instant::now());
        });
    }

    /// With at-least-once delivery the broker may support neither transactions nor topic ids, as the embedded one does.
    fn topic_ids(&self, kafka: &KafkaSettings) -> TopicIds {
        match self.settings.kafka.delivery {
            config::Delivery::ExactlyOnce => topic_ids(kafka.clone()),
            config::Delivery::AtLeastOnce => {
                let none = vec![None; kafka.topics.len()];
                Arc::new(move || Ok(none.clone()))
            }
        }
    }

    /// Waits until the store can be opened; `None` when asked to stop.
    fn open_store(&self) -> Result<Option<Store>, SourceError> {
        loop {
            match self.runtime.block_on(open_store(&self.settings)) {
                Ok(store) => return Ok(Some(store)),
                Err(error) if is_lasting(&error) => return Err(SourceError::Configuration(error.to_string())),
                Err(error) => self.last_error(error.to_string()),
            }
            if !matches!(self.source_stops.recv_timeout(RETRY_AFTER), Err(RecvTimeoutError::Timeout)) {
                return Ok(None);
            }
        }
    }

    /// The delivery guarantee, and how the commit thread implements it.
    fn commit_mode(&self, kafka: &KafkaSettings, instance: &str) -> (Delivery, CommitMode) {
        let topics = outputs(&self.settings);
        match self.settings.kafka.delivery {
            config::Delivery::ExactlyOnce => {
                let settings = TransactionSettings::new(kafka, instance);
                let make = move || {
                    let producer = TransactionalProducer::new(&settings)?;
                    Ok(Box::new(producer) as Box<dyn Transactions>)
                };
                (Delivery::ExactlyOnce, CommitMode::Transactions { make: Box::new(make), topics })
            }
            config::Delivery::AtLeastOnce => {
                let dead_letters = DeadLetters::new(kafka, topics);
                let dead_letters =
                    dead_letters.inspect_err(|error| warn!("dead letters and alerts are dropped: {error}")).ok();
                (Delivery::AtLeastOnce, CommitMode::Plain(dead_letters))
            }
        }
    }

    /// Creates the dead-letter topic and, if there are inactivity rules, the alert topic, unless they exist. Without
    /// them, rejected messages and alerts block commits.
    fn create_topics(&self, kafka: &KafkaSettings, partitions: u32) {
        self.create_if_missing(kafka, &self.settings.dead_letters.topic, partitions);
        if !self.settings.inactivity.is_empty() {
            self.create_if_missing(kafka, &self.settings.alerts.topic, partitions);
        }
    }

    fn create_if_missing(&self, kafka: &KafkaSettings, topic: &String, partitions: u32) {
        let lookup = KafkaSettings { topics: vec![topic.clone()], ..kafka.clone() };
        let exists = partition_counts(&lookup, METADATA_WAIT).is_ok_and(|counts| counts != [None]);
        if exists {
            return;
        }
        match create_topics(&lookup, i32::try_from(partitions).unwrap_or(i32::MAX), &[], CREATE_WAIT) {
            Ok(()) => info!(topic, partitions, "created a topic"),
            Err(error) => warn!("cannot create topic {topic:?}: {error}"),
        }
    }
}

/// The configuration of the webhook task, if `alerts.webhook` is set.
fn webhook_config(settings: &Settings) -> Result<Option<WebhookConfig>, SourceError> {
    let Some(hook) = &settings.alerts.webhook else { return Ok(None) };
    let secret = hook.secret.as_ref().map_or("", config::Secret::reveal);
    let wrong = |what: String| SourceError::Configuration(format!("alerts.webhook.secret_file: {what}"));
    let keys = Keys::parse(secret).map_err(|error| wrong(format!("{} {error}", hook.secret_file.display())))?;
    let mut kafka = kafka_settings(settings);
    let group = std::mem::take(&mut kafka.group_id);
    kafka.group_id = format!("{group}-webhook");
    kafka.topics = vec![settings.alerts.topic.clone()];
    // Prefetch little: pending alerts stay in the topic.
    for (option, value) in [("queued.min.messages", "1000"), ("queued.max.messages.kbytes", "4096")] {
        kafka.options.insert(option.to_owned(), value.to_owned());
    }
    let dead_letters = DeadLetters::new(&kafka, outputs(settings))?;
    let endpoint = Endpoint::new(&hook.url, keys, hook.timeout.to_std(), hook.allow_private);
    Ok(Some(WebhookConfig { group, kafka, endpoint, dead_letters, status: Arc::default() }))
}

/// Whether opening the store needs human intervention; all other errors may be temporary.
fn is_lasting(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Url(_) | StoreError::NotBuilt(_) | StoreError::Permission { .. } | StoreError::Identity { .. }
    )
}

/// Prevents a second process from using a local store under the same name; the lock ends with the process.
fn lock(store: &Store, group: &str, instance: &str) -> Result<Option<File>, SourceError> {
    let Some(path) = store.url().strip_prefix("file://") else { return Ok(None) };
    let path = Path::new(path).join(format!("{}.lock", files::group_directory(&format!("{group}-{instance}"))));
    let failed = |error: io::Error| SourceError::Configuration(format!("{}: {error}", path.display()));
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            if let Err(error) = store.sweep_unfinished(UNFINISHED_FOR) {
                warn!("cannot remove unfinished files: {error}");
            }
            Ok(Some(file))
        }
        Err(std::fs::TryLockError::WouldBlock) => Err(SourceError::Fenced(format!(
            "another process of group {group:?} uses {} with kafka.instance_id {instance:?}; give each replica its own",
            store.url()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Looks up the ids of the source topics with a client of its own, created once. The answer is cached for a short time,
/// so partitions assigned together share one request.
fn topic_ids(kafka: KafkaSettings) -> TopicIds {
    type Answered = (KafkaAdmin, Instant, Vec<Option<String>>);
    let known: Mutex<Option<Answered>> = Mutex::new(None);
    Arc::new(move || {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, at, ids)) = &*known
            && at.elapsed() < TOPIC_IDS_FRESH
        {
            return Ok(ids.clone());
        }
        let admin = match known.take() {
            Some((admin, ..)) => admin,
            None => KafkaAdmin::new(&kafka)?,
        };
        let ids = admin.topic_ids(TOPIC_IDS_WAIT)?;
        *known = Some((admin, Instant::now(), ids.clone()));
        Ok(ids)
    })
}

/// Fetches single records with a client of its own, created once.
fn log_probe(kafka: KafkaSettings) -> LogProbe {
    let known: Mutex<Option<KafkaAdmin>> = Mutex::new(None);
    Arc::new(move |at, offset| {
        let admin = {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match &*known {
                Some(admin) => admin.clone(),
                None => known.insert(KafkaAdmin::new(&kafka)?).clone(),
            }
        };
        look(&admin, at, offset)
    })
}
