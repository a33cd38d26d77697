//! Routers copy a topic that is not keyed by customer into one that is, event by event and exactly once. The engines
//! read the copy in place of the original (`sources.NAME.repartition`).
//!
//! One replica at a time routes a source: the owner of partition 0. It reads all partitions of the source without
//! joining a group, and writes events, dead letters and offsets in transactions. The transactional id belongs to the
//! source, not to the replica, so a new router fences a predecessor that does not yet know that it was replaced.
//! `session` implements one spell of routing; `merge` decides the order in which events of several partitions
//! leave.

mod clients;
mod merge;
mod offset_note;
mod partition_reader;
mod session;
mod start;
pub mod topics;
mod transaction;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use self::clients::Clients;
use self::clients::KafkaClients;
use self::offset_note::OffsetNote;
use self::partition_reader::Oversized;
pub(crate) use self::session::FROM;
use self::session::{End, Session};
use crate::bus::partitioner::Partitioner;
use crate::bus::{Partition, SourceError, Start, TopicIndex};
use crate::config::{self, Settings};
use crate::coordinator::rejection_breaker::BreakerRules;
use crate::decode::Decoder;
use crate::status::SourceStatus;
use crate::status::routing::RoutingStatus;
use crate::wiring::{breaker_rules, kafka_settings, start, worker_config};

/// The owner of this partition runs the router.
const ROUTER_PARTITION: Partition = Partition(0);
/// How often an idle router checks whether it owns the partition.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause before retrying after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Pause after being fenced: this replica may not have learned yet that it lost the partition.
const FENCED_AFTER: Duration = Duration::from_secs(5);
/// Pause before checking whether an operator has resolved the problem.
const OPERATOR_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What to route, and where to.
#[derive(Debug, Clone)]
pub struct Route {
    /// The name of the source.
    source: String,
    /// Its topic.
    topic: String,
    /// The target topic, keyed by customer.
    into: String,
    /// The target topic's number of partitions.
    partitions: u32,
    /// Chooses a customer's partition.
    partitioner: Partitioner,
    /// Decodes the messages of the source topic.
    decoder: Decoder,
    /// The topic for rejected messages.
    dead_letters: String,
    /// How far an event may be ahead of the wall clock, in milliseconds.
    max_future: i64,
    /// Where the first router ever starts.
    start: Start,
    /// The group that offsets are committed to; also the transactional id.
    group: String,
    /// The consumer group of the replicas, named in dead letters.
    owner: String,
    breaker: BreakerRules,
}

impl Route {
    /// The route of a source, if `repartition` is set.
    fn of(settings: &Settings, name: &str, source: &config::Source, decoder: Decoder) -> Option<Route> {
        source.repartition.then(|| Route {
            source: name.to_owned(),
            topic: source.topic.clone(),
            into: source.keyed_topic(name, &settings.kafka.group_id),
            partitions: 0,
            partitioner: worker_config::partitioner(settings),
            decoder,
            dead_letters: settings.dead_letters.topic.clone(),
            max_future: settings.customers.max_future.get(),
            start: start(settings.kafka.start),
            group: group(settings, name),
            owner: settings.kafka.group_id.clone(),
            breaker: breaker_rules(settings),
        })
    }

    /// The message for offsets that are gone although events were routed.
    fn lost_offsets(&self) -> String {
        let Route { source, topic, into, group, .. } = self;
        format!(
            "source {source:?} is not routed: group {group:?} has no offsets, but topic {into:?} has records. Starting \
             over would route events twice. Commit the position up to which topic {topic:?} was routed \
             (kafka-consumer-groups --reset-offsets --group {group} --topic {topic} --to-datetime TIME --execute; \
             events that are routed twice are deduplicated by id within customers.dedup_for), or delete topic {into:?} \
             and rebuild the state"
        )
    }

    /// The message for a source topic that was deleted and created again.
    fn other_topic(&self) -> String {
        let Route { source, topic, group, .. } = self;
        format!(
            "source {source:?} is not routed: topic {topic:?} was deleted and created again, so the committed offsets \
             refer to other records. To route the new topic from its beginning: kafka-consumer-groups --reset-offsets \
             --group {group} --topic {topic} --to-earliest --execute"
        )
    }
}

/// The group to which a source's router commits its offsets.
pub(crate) fn group(settings: &Settings, source: &str) -> String {
    format!("{}-{source}-router", settings.kafka.group_id)
}

/// The metadata of an offset at which a router starts with the first event of a record.
pub(crate) fn metadata_at_start(topic_id: Option<String>) -> Vec<u8> {
    OffsetNote { events_done: 0, topic_id }.to_string().into_bytes()
}

/// The routers of this replica.
#[derive(Default)]
pub struct Routers {
    stops: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Routers {
    /// Starts a router for each source with `repartition`. They run while this replica owns partition 0, and send
    /// errors that must stop the daemon to `fatal`.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn start(
        settings: &Settings,
        status: &watch::Sender<SourceStatus>,
        fatal: &Sender<SourceError>,
    ) -> std::io::Result<Routers> {
        let mut routers = Routers::default();
        let decoders = worker_config::source_decoders(settings);
        for (place, ((name, source), decoder)) in (0_u16..).zip(settings.sources.iter().zip(decoders)) {
            let Some(route) = Route::of(settings, name, source, decoder) else { continue };
            let routing = Arc::new(RoutingStatus::new(route.topic.clone(), TopicIndex(place)));
            status.send_modify(|status| status.routers.push(Arc::clone(&routing)));
            let clients = KafkaClients::new(&kafka_settings(settings), &route);
            let (stop, stops) = channel();
            let (watched, fatal) = (status.subscribe(), fatal.clone());
            let thread = std::thread::Builder::new().name(format!("router-{name}"));
            routers.threads.push(thread.spawn(move || work(&clients, &route, &routing, &watched, &stops, &fatal))?);
            routers.stops.push(stop);
        }
        Ok(routers)
    }

    /// Asks all routers to stop, and waits for them.
    pub fn stop(self) {
        drop(self.stops);
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a router stopped unexpectedly");
            }
        }
    }
}

/// Clears what only the router of the owner knows.
fn show_idle(routing: &RoutingStatus) {
    routing.change(|routing| {
        routing.is_ours = false;
        routing.last_error = None;
        routing.positions.clear();
        (routing.caught_up_at, routing.last_at_end) = (None, None);
    });
}

/// Runs one session after another while this replica owns the partition, until asked to stop.
fn work<P: Clients>(
    clients: &P,
    route: &Route,
    routing: &RoutingStatus,
    status: &watch::Receiver<SourceStatus>,
    stops: &Receiver<()>,
    fatal: &Sender<SourceError>,
) {
    let is_stopped = || !matches!(stops.try_recv(), Err(TryRecvError::Empty));
    let waited = |wait: Duration| matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    let is_ours = || status.borrow().owned.contains(&ROUTER_PARTITION);
    let source = route.source.as_str();
    let mut oversized = Oversized::new();
    let mut last_warning: Option<String> = None;
    loop {
        if !is_ours() {
            last_warning = None;
            show_idle(routing);
            if !waited(IDLE_CHECK_INTERVAL) {
                return;
            }
            continue;
        }
        routing.change(|routing| routing.is_ours = true);
        let end = match Session::begin(clients, route, routing, &mut oversized) {
            Ok(session) => {
                if last_warning.take().is_none() {
                    info!(source, topic = route.topic, into = route.into, "routing by customer");
                }
                session.run(|| is_ours() && !is_stopped())
            }
            Err(end) => end,
        };
        let (why, wait) = match end {
            End::GaveUp if is_stopped() => return,
            End::GaveUp => {
                info!(source, "stopped routing: another replica takes over");
                continue;
            }
            End::Fenced(text) => {
                info!(source, "fenced by the router of another replica: {text}");
                (format!("source {source:?} is routed by another replica"), FENCED_AFTER)
            }
            End::Failed(text) => (format!("source {source:?} is not routed at the moment: {text}"), RETRY_AFTER),
            End::Broken(text) => (text, OPERATOR_RETRY_AFTER),
            End::Fatal(error) => {
                routing.change(|routing| routing.last_error = Some(error.to_string()));
                // Ignore send errors: the daemon may be stopping already.
                _ = fatal.send(error);
                return;
            }
        };
        if last_warning.as_ref() != Some(&why) {
            match wait {
                OPERATOR_RETRY_AFTER => error!("{why}"),
                FENCED_AFTER => {}
                _ => warn!("{why}; retrying"),
            }
            last_warning = Some(why.clone());
        }
        routing.change(|routing| routing.last_error = Some(why));
        if !waited(wait) {
            return;
        }
    }
}
