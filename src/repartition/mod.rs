//! Routers: a topic that is keyed by something else than the customer is copied, event by event and exactly once, into
//! one that is keyed by customer, which the engines read in its place (`sources.NAME.repartition`).
//!
//! One replica routes a source at a time: the one that owns partition 0. It reads all partitions of the source without
//! being a member of a group and moves events, dead letters and offsets in transactions, under a transactional id that
//! belongs to the source and not to the replica: whoever takes it over fences a predecessor that does not know yet that
//! it has been replaced. [`session`] is one such session; in which order partitions go on is decided by [`merge`].

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

/// The partition whose owner routes.
const OF_ROUTER: Partition = Partition(0);
/// How often a router that has nothing to do looks whether it has.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// How long to wait before what failed is begun anew.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long to wait after somebody else took over: this replica may not know yet that it owns the partition no more.
const FENCED_AFTER: Duration = Duration::from_secs(5);
/// After how long it is looked whether a person has done what was asked.
const MENDED_AFTER: Duration = Duration::from_secs(30);

/// What is routed, and where to.
#[derive(Debug, Clone)]
pub struct Route {
    /// The name of the source.
    source: String,
    /// Its topic.
    topic: String,
    /// The topic that is keyed by customer.
    into: String,
    /// How many partitions that has.
    partitions: u32,
    /// How they are chosen.
    partitioner: Partitioner,
    /// How the messages are read.
    decoder: Decoder,
    /// Where those go that cannot be used.
    dead_letters: String,
    /// How far ahead of the wall clock an event may lie, in milliseconds.
    max_future: i64,
    /// Where the very first router begins.
    start: Start,
    /// The group of the offsets, and the transactional id.
    group: String,
    /// The consumer group of the replicas, which dead letters name.
    owner: String,
    breaker: BreakerRules,
}

impl Route {
    /// That of a source, if it is to be routed.
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

    /// The offsets are gone although events were routed.
    fn lost_offsets(&self) -> String {
        let Route { source, topic, into, group, .. } = self;
        format!(
            "source {source:?} is not routed: the group {group:?} has no offsets, but topic {into:?} has records. Beginning \
             anew would route events twice. Commit how far topic {topic:?} is routed (kafka-consumer-groups --reset-offsets \
             --group {group} --topic {topic} --to-datetime TIME --execute; events that come twice are recognised by their \
             ids within customers.dedup_for), or delete topic {into:?} and rebuild the state"
        )
    }

    /// The topic is not the one that was routed.
    fn other_topic(&self) -> String {
        let Route { source, topic, group, .. } = self;
        format!(
            "source {source:?} is not routed: topic {topic:?} was deleted and created again, so the committed offsets mean \
             other records. To go on with what it holds now: kafka-consumer-groups --reset-offsets --group {group} --topic \
             {topic} --to-earliest --execute"
        )
    }
}

/// The group under which the offsets of a source's router are committed.
pub(crate) fn group(settings: &Settings, source: &str) -> String {
    format!("{}-{source}-router", settings.kafka.group_id)
}

/// What is noted beside an offset at which a router begins with a whole record.
pub(crate) fn begins_with(topic_id: Option<String>) -> Vec<u8> {
    OffsetNote { events_done: 0, topic_id }.to_string().into_bytes()
}

/// The routers of this replica.
#[derive(Default)]
pub struct Routers {
    stops: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Routers {
    /// Starts one for each source that is routed. They work while this replica owns the first partition, and tell
    /// `fatal` why the daemon must not go on.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(
        settings: &Settings,
        status: &watch::Sender<SourceStatus>,
        fatal: &Sender<SourceError>,
    ) -> std::io::Result<Routers> {
        let mut routers = Routers::default();
        let decoders = worker_config::source_decoders(settings);
        for (place, ((name, source), decoder)) in (0_u16..).zip(settings.sources.iter().zip(decoders)) {
            let Some(route) = Route::of(settings, name, source, decoder) else { continue };
            let shown = Arc::new(RoutingStatus::new(route.topic.clone(), TopicIndex(place)));
            status.send_modify(|status| status.routers.push(Arc::clone(&shown)));
            let clients = KafkaClients::new(&kafka_settings(settings), &route);
            let (stop, stops) = channel();
            let (watched, fatal) = (status.subscribe(), fatal.clone());
            let thread = std::thread::Builder::new().name(format!("router-{name}"));
            routers.threads.push(thread.spawn(move || work(&clients, &route, &shown, &watched, &stops, &fatal))?);
            routers.stops.push(stop);
        }
        Ok(routers)
    }

    /// Asks them to stop, and waits until they have.
    pub fn stop(self) {
        drop(self.stops);
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a router ended before its time");
            }
        }
    }
}

fn work<P: Clients>(
    clients: &P,
    route: &Route,
    shown: &RoutingStatus,
    status: &watch::Receiver<SourceStatus>,
    stops: &Receiver<()>,
    fatal: &Sender<SourceError>,
) {
    let is_stopped = || !matches!(stops.try_recv(), Err(TryRecvError::Empty));
    let waited = |wait: Duration| matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    let is_ours = || status.borrow().owned.contains(&OF_ROUTER);
    let source = route.source.as_str();
    let mut oversized = Oversized::new();
    let mut events_done: Option<String> = None;
    loop {
        if !is_ours() {
            events_done = None;
            shown.change(|shown| {
                shown.is_ours = false;
                shown.last_error = None;
                shown.positions.clear();
                (shown.caught_up_at, shown.last_at_end) = (None, None);
            });
            if !waited(LOOK_AFTER) {
                return;
            }
            continue;
        }
        shown.change(|shown| shown.is_ours = true);
        let end = match Session::begin(clients, route, shown, &mut oversized) {
            Ok(session) => {
                if events_done.take().is_none() {
                    info!(source, topic = route.topic, into = route.into, "routing by customer");
                }
                session.run(|| is_ours() && !is_stopped())
            }
            Err(end) => end,
        };
        let (why, wait) = match end {
            End::GaveUp if is_stopped() => return,
            End::GaveUp => {
                info!(source, "another replica routes by customer from now on");
                continue;
            }
            End::Fenced(text) => {
                info!(source, "the router of another replica took over: {text}");
                (format!("source {source:?}: another replica routes"), FENCED_AFTER)
            }
            End::Failed(text) => (format!("source {source:?} is not routed at the moment: {text}"), RETRY_AFTER),
            End::Broken(text) => (text, MENDED_AFTER),
            End::Fatal(error) => {
                shown.change(|shown| shown.last_error = Some(error.to_string()));
                // The daemon may be ending already.
                _ = fatal.send(error);
                return;
            }
        };
        if events_done.as_ref() != Some(&why) {
            match wait {
                MENDED_AFTER => error!("{why}"),
                FENCED_AFTER => {}
                _ => warn!("{why}; trying again"),
            }
            events_done = Some(why.clone());
        }
        shown.change(|shown| shown.last_error = Some(why));
        if !waited(wait) {
            return;
        }
    }
}
