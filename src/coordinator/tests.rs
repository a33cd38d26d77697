//! Random rebalances, crashes and failing commits with an in-memory broker and real files: in the end the figures equal
//! those of a single pass, and so do the dead letters, each exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::hasty::Hasty;
use super::commit_thread::CommitMode;
use super::log_identity::Probed;
use super::*;
use crate::bus::memory::{Fault, MemberId, MemoryBroker, Produced};
use crate::bus::transaction::Transactions;
use crate::bus::{LogClient, RebalanceProtocol, RecordBatch, TopicIndex};
use crate::checkpoint::protocol::Delivery;
use crate::checkpoint::store::Store;
use crate::decode::{Decoder, Format};
use crate::engine::inactivity::release::Allowance;
use crate::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};
use crate::engine::lifecycle::LifecycleSpec;
use crate::engine::segments::DimensionSpec;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::spec::{CalendarSpec, RollingSpec, Spec};
use crate::engine::zone::{Unit, Zone};
use crate::event::{DAY, HOUR, Time};
use crate::output::alerts::json;
use crate::output::dead_letters::Topics;
use crate::status::PartitionState;
use crate::worker::pool::{Wanted, Workers};
use crate::worker::{Worker, WorkerConfig};
mod damaged;
mod hasty;

const TOPICS: u16 = 2;
const PARTITIONS: i32 = 3;
const ALERT_SOURCE: &str = "/retentiond/test";
/// Time of the last order of every partition, so that all figures refer to the same instant.
const LAST: i64 = 1_780_000_000_000;

/// A cluster, a store, and what runs their tasks.
struct CoordinatorRig {
    broker: MemoryBroker,
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    config: Arc<WorkerConfig>,
    delivery: Delivery,
}

impl CoordinatorRig {
    fn new(protocol: RebalanceProtocol, partitions: &[u32], delivery: Delivery) -> CoordinatorRig {
        CoordinatorRig {
            broker: MemoryBroker::new(protocol, partitions),
            directory: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            config: config(),
            delivery,
        }
    }
}

struct Member {
    id: MemberId,
    /// Number of its transactional id.
    number: usize,
    coordinator: Coordinator<Hasty>,
    workers: Workers,
}

impl Member {
    fn join(world: &CoordinatorRig, number: usize, threads: usize) -> Member {
        let (reports, reported) = mpsc::channel();
        let pool = Pool::start(&world.config, threads, &reports).unwrap();
        let workers = pool.workers();
        let client = Hasty(world.broker.join());
        let id = client.0.id();
        let topics = vec!["orders".to_owned(), "sessions".to_owned()];
        let (tell, answers) = mpsc::channel();
        let url = format!("file://{}", world.directory.path().display());
        let store_tasks = Arc::new(StoreTasks {
            store: world.runtime.block_on(Store::open(&url, "teststore")).unwrap(),
            runtime: world.runtime.handle().clone(),
            spec: Arc::clone(&world.config.spec),
            group: "test".into(),
            topics: topics.clone(),
            partitions: PARTITIONS,
            topic_ids: Arc::new(|| Ok(vec![Some("one".into()), Some("two".into())])),
            probe: Arc::new(|_, _| Ok(Probed::Gone)),
            answers: tell.clone(),
            encoding: Mutex::default(),
        });
        let broker = world.broker.clone();
        let mode = match world.delivery {
            Delivery::ExactlyOnce => CommitMode::Transactions {
                make: Box::new(move || Ok(Box::new(broker.producer(&format!("test-{number}"))))),
                topics: Topics { dead_letters: "dead".into(), alerts: "alerts".into() },
            },
            Delivery::AtLeastOnce => CommitMode::Plain(None),
        };
        let committer = Committer::start(mode, move |said| _ = tell.send(Answer::CommitReply(said))).unwrap();
        let rules = Rules {
            topics: topics.clone(),
            sources: topics.clone(),
            starts: vec![Start::Earliest; 2],
            max_future: 36_500 * DAY,
            checkpoint_every: Duration::from_millis(5),
            keep_files: Duration::ZERO,
            idle_after: Duration::from_secs(600),
            alert_rate: AlertRate { max_per_minute: None, quiet: None, partitions: 2 },
            alert_source: ALERT_SOURCE.into(),
            outputs: Topics { dead_letters: "dead".into(), alerts: "alerts".into() },
            breaker: BreakerRules { messages: 0, share: 1.0 },
            stale_after: Duration::from_secs(600),
        };
        let protocol = protocol::Rules { delivery: world.delivery, topics, outbox_limit: 2_000, parked_for: 3 };
        let (status, _) = watch::channel(SourceStatus::default());
        let ((_, failures), (_, findings)) = (mpsc::channel(), mpsc::channel());
        let parts = Parts { client, pool, reports: reported, store_tasks, committer, answers, failures, findings };
        Member { id, number, coordinator: Coordinator::new(parts, rules, protocol, status), workers }
    }

    fn round(&mut self) {
        self.coordinator.round().unwrap();
        std::thread::yield_now();
    }

    /// Leaves as the daemon does when it is stopped.
    fn leave(self) {
        let (stop, stopped) = mpsc::channel();
        drop(stop);
        drop(self.workers);
        self.coordinator.run(&stopped).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Action {
    Append(usize),
    Join,
    Leave(usize),
    Crash(usize),
    Kick(usize),
    Round(usize),
    LimitBatches(usize),
    Fault(Fault),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1..60_usize).prop_map(Action::Append),
        2 => Just(Action::Join),
        1 => (0..8_usize).prop_map(Action::Leave),
        1 => (0..8_usize).prop_map(Action::Crash),
        2 => (0..8_usize).prop_map(Action::Kick),
        12 => (0..8_usize).prop_map(Action::Round),
        1 => (1..30_usize).prop_map(Action::LimitBatches),
        1 => prop::sample::select(vec![Fault::Refused, Fault::ReplyLost, Fault::RequestLost]).prop_map(Action::Fault),
    ]
}

fn config() -> Arc<WorkerConfig> {
    let rolling =
        |name: &str, period, active_for, resolution| RollingSpec { name: name.into(), period, active_for, resolution };
    let spec = Spec {
        rolling: vec![rolling("2d", 2 * DAY, 5 * DAY, HOUR), rolling("10d", 10 * DAY, 10 * DAY, DAY)],
        calendar: vec![CalendarSpec { unit: Unit::Month, active_for_days: Some(31) }],
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: Some(100 * DAY),
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: vec![] }],
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 5 * DAY, at_risk_cadence: 2.0, at_risk_min: DAY, loyal_orders: 3 },
        rates: None,
        inactivity: inactivity(),
    };
    let decoder = || Decoder::new(Format::Native, vec!["channel".into()]);
    Arc::new(WorkerConfig { spec: Arc::new(spec), decoders: vec![decoder(), decoder()] })
}

fn inactivity() -> InactivitySpec {
    let rule = |name: &str, silence| RuleSpec { name: name.into(), silence, filter: Filter::default() };
    InactivitySpec {
        rules: vec![
            rule("silent", SilenceRule::After(20 * HOUR)),
            rule("off alert_rate", SilenceRule::Cadence { factor: 1.2, min: HOUR, max: 4 * DAY }),
        ],
        settle: DAY,
        since: Some(Time::MIN),
        holdout: 0.2,
        salt: "salt".into(),
        winback_within: 2 * DAY,
    }
}

fn order(customer: &str, time: i64, id: u32, cents: i64) -> String {
    let (euros, cents) = (cents / 100, cents % 100);
    format!(
        r#"{{"type":"order","order_id":"o-{id}","customer_id":"{customer}","time":{time},"amount":"{euros}.{cents:02}","currency":"EUR"}}"#
    )
}

/// Thirty days of orders and sessions out of order, late, duplicated and invalid, with the topic-partition of each.
///
/// Erased customers also have sessions from before their erasure, in another topic: whichever topic is read first,
/// these belong to the erased customer.
fn history(seed: u64) -> Vec<(TopicPartition, String)> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<(TopicPartition, String)> = Vec::new();
    for i in 0..400_u32 {
        let partition = chance.random_range(0..PARTITIONS);
        let topic = chance.random_range(0..TOPICS);
        let customer = format!("c-{partition}-{}", chance.random_range(0..9));
        let early = i64::from(400 - i) * 30 * DAY / 400;
        let time = LAST - early - chance.random_range(0..DAY + 3 * HOUR);
        let payload = match (chance.random_range(0..20), topic) {
            (0, _) => "broken".to_owned(),
            (1, 0) if i >= 150 => format!(r#"{{"type":"erase","customer_id":"erased-{customer}"}}"#),
            (2..5, 1) if i < 120 => format!(
                r#"{{"type":"session","session_id":"s-{}","customer_id":"erased-{customer}","time":{time}}}"#,
                i / 2
            ),
            (1..5, 0) => order(&format!("erased-{customer}"), time, i / 2, i64::from(i)),
            (_, 0) => order(&customer, time, i / 2, i64::from(i)),
            _ => format!(r#"{{"type":"session","session_id":"s-{}","customer_id":"{customer}","time":{time}}}"#, i / 2),
        };
        let at = TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) };
        all.push((at, payload));
    }
    for partition in 0..PARTITIONS {
        let at = TopicPartition { topic: TopicIndex(0), partition: Partition(partition) };
        all.push((at, order("last", LAST, 9_999, 100)));
    }
    all
}

fn places() -> impl Iterator<Item = TopicPartition> {
    (0..PARTITIONS).flat_map(|partition| {
        (0..TOPICS).map(move |topic| TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) })
    })
}

/// Topic, partition and offset of a record.
type Place = (String, String, i64);

/// The figures, rejections and alerts of a single worker.
struct Straight {
    figures: Snapshot,
    places: Vec<Place>,
    alerts: Vec<String>,
}

/// The result of a worker that reads every topic-partition from beginning to end.
fn straight(config: &Arc<WorkerConfig>, history: &[(TopicPartition, String)]) -> Straight {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[PARTITIONS.unsigned_abs(); TOPICS as usize]);
    for (at, payload) in history {
        broker.append(*at, None, Some(payload.as_bytes()), 0);
    }
    let mut client = broker.join();
    let mut worker = Worker::new(Arc::clone(config));
    (0..PARTITIONS).for_each(|partition| worker.start(Partition(partition)));
    let mut places = Vec::new();
    for _ in 0..2 {
        for polled in client.poll(Duration::ZERO) {
            match polled {
                Polled::Assigned(all) => {
                    let starts: Vec<_> = all.into_iter().map(|at| (at, Start::Earliest)).collect();
                    client.assign(&starts).unwrap();
                }
                Polled::Records(at, batch) => {
                    let mut rejected = Vec::new();
                    worker.apply(at, &batch, Time::MAX, &mut rejected);
                    let topic = ["orders", "sessions"][usize::from(at.topic.0)];
                    let place = |index| (topic.to_owned(), at.partition.0.to_string(), batch.get(index).offset);
                    places.extend(rejected.iter().map(|rejected| place(rejected.index)));
                }
                _ => {}
            }
        }
    }
    places.sort_unstable();
    let alerts = (0..PARTITIONS).filter_map(|partition| worker.checkpoint(Partition(partition), 1, &Allowance::ALL));
    let alerts = alerts.flat_map(|(_, alerts)| alerts);
    let alerts = alerts.map(|alert| String::from_utf8(json(&alert, ALERT_SOURCE)).unwrap());
    let alerts = sorted_without_erased(alerts);
    Straight { figures: worker.snapshot(Time::clamped(LAST), Periods::OpenAndPrevious), places, alerts }
}

/// The figures of all members, added up.
fn together(members: &[Member]) -> Snapshot {
    let snapshots = members.iter().filter_map(|member| {
        let overview = member.workers.overview(Wanted::OpenAndPrevious).unwrap();
        overview.snapshot
    });
    let sum = |mut sum: Snapshot, more: Snapshot| {
        assert_eq!(sum.at, more.at);
        sum.merge(&more);
        sum
    };
    snapshots.reduce(sum).unwrap()
}

fn is_settled(world: &CoordinatorRig, members: &[Member], ends: &BTreeMap<TopicPartition, i64>) -> bool {
    let owned: usize = members.iter().map(|member| member.coordinator.group.owned().len()).sum();
    let applied: BTreeMap<TopicPartition, i64> = members
        .iter()
        .flat_map(|member| member.coordinator.progress())
        .filter_map(|(at, progress)| Some((at, progress.position.applied?)))
        .collect();
    let committed = || places().all(|at| world.broker.committed(at) == ends.get(&at).copied());
    owned == PARTITIONS.unsigned_abs() as usize && applied == *ends && committed()
}

fn any_of(members: &[Member], number: usize) -> Option<usize> {
    number.checked_rem(members.len())
}

fn free_number(members: &[Member]) -> usize {
    (0..).find(|number| members.iter().all(|member| member.number != *number)).unwrap()
}

fn live_through(world: &CoordinatorRig, seed: u64, actions: Vec<Action>) -> (Snapshot, Straight) {
    let (broker, history) = (&world.broker, history(seed));
    let append = |part: &[(TopicPartition, String)]| {
        for (at, payload) in part {
            broker.append(*at, None, Some(payload.as_bytes()), 0);
        }
    };
    let mut members: Vec<Member> = Vec::new();
    let mut pending = history.as_slice();
    for action in actions {
        match action {
            Action::Append(records) => {
                let (now, later) = pending.split_at(records.min(pending.len()));
                append(now);
                pending = later;
            }
            Action::Join if members.len() < 4 => {
                members.push(Member::join(world, free_number(&members), 1 + members.len() % 2));
            }
            Action::Join => {}
            Action::Leave(number) => {
                if let Some(i) = any_of(&members, number) {
                    let leaving = members.remove(i);
                    live_while(&mut members, leaving);
                }
            }
            Action::Crash(number) => {
                if let Some(i) = any_of(&members, number) {
                    broker.forget_member(members.remove(i).id);
                }
            }
            Action::Kick(number) => {
                if let Some(i) = any_of(&members, number) {
                    broker.kick(members[i].id);
                }
            }
            Action::Round(number) => {
                if let Some(i) = any_of(&members, number) {
                    members[i].round();
                }
            }
            Action::LimitBatches(records) => broker.limit_batches(records),
            Action::Fault(fault) => broker.inject(fault),
        }
    }
    append(pending);
    if members.is_empty() {
        members.push(Member::join(world, 0, 1));
    }
    // The successor to a transactional id ends the open transaction of a crashed member.
    (0..8).filter(|number| members.iter().all(|member| member.number != *number)).for_each(|number| {
        broker.producer(&format!("test-{number}")).init(Duration::ZERO).unwrap();
    });
    let mut ends: BTreeMap<TopicPartition, i64> = places().map(|at| (at, 0)).collect();
    for (at, _) in &history {
        *ends.entry(*at).or_default() += 1;
    }
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_settled(world, &members, &ends) {
        let states = || {
            members.iter().map(|member| {
                (
                    world.broker.held(member.id),
                    &member.coordinator.group,
                    &member.coordinator.releases,
                    &member.coordinator.reading.assigned,
                    member.coordinator.durable.partitions().collect::<Vec<_>>(),
                )
            })
        };
        assert!(Instant::now() < deadline, "the members do not come to rest: {:?}", states().collect::<Vec<_>>());
        members.iter_mut().for_each(Member::round);
    }
    let found = together(&members);
    while let Some(leaving) = members.pop() {
        live_while(&mut members, leaving);
    }
    (found, straight(&world.config, &history))
}

/// Lets a member leave while the others keep polling, which a rebalance needs to complete.
fn live_while(members: &mut [Member], leaving: Member) {
    let left = std::thread::spawn(move || leaving.leave());
    while !left.is_finished() {
        members.iter_mut().for_each(Member::round);
    }
    left.join().unwrap();
}

/// An erasure drops pending alerts of the customer, so how many are sent depends on when checkpoints are taken.
fn sorted_without_erased(alerts: impl Iterator<Item = String>) -> Vec<String> {
    let mut alerts: Vec<_> = alerts.filter(|alert| !alert.contains("erased-")).collect();
    alerts.sort_unstable();
    alerts
}

/// The committed alerts.
fn committed_alerts(world: &CoordinatorRig) -> Vec<String> {
    let produced = world.broker.produced().into_iter().filter(|produced| produced.topic == "alerts");
    sorted_without_erased(produced.map(|alert| String::from_utf8(alert.payload.unwrap()).unwrap()))
}

/// The figures without counts of sent alerts; see [`sorted_without_erased`].
fn without_sent(mut figures: Snapshot) -> Snapshot {
    figures.inactivity.iter_mut().flat_map(|rule| &mut rule.groups).for_each(|group| group.sent = 0);
    figures
}

/// The origins of the committed dead letters.
fn dead_letters(world: &CoordinatorRig) -> Vec<Place> {
    let text = |value: &Option<Vec<u8>>| String::from_utf8(value.clone().unwrap()).unwrap();
    let produced = world.broker.produced();
    let of = |produced: &Produced, name: &str| {
        let header = produced.headers.iter().find(|(header, _)| *header == format!("retentiond.error.{name}"));
        text(&header.unwrap().1)
    };
    let mut places: Vec<_> = produced
        .iter()
        .filter(|produced| produced.topic == "dead")
        .map(|dead_letter| {
            (of(dead_letter, "topic"), of(dead_letter, "partition"), of(dead_letter, "offset").parse().unwrap())
        })
        .collect();
    places.sort_unstable();
    places
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 60, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn whatever_happens_the_figures_stay_whole_and_every_dead_letter_comes_once(
        eager in any::<bool>(),
        once in any::<bool>(),
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 0..80),
    ) {
        let protocol = if eager { RebalanceProtocol::Eager } else { RebalanceProtocol::Incremental };
        let delivery = if once { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
        let world = CoordinatorRig::new(protocol, &[PARTITIONS.unsigned_abs(); TOPICS as usize], delivery);
        let (found, straight) = live_through(&world, seed, actions);
        if once {
            prop_assert_eq!(dead_letters(&world), straight.places);
            prop_assert!(straight.alerts.len() > 10, "{}", straight.alerts.len());
            prop_assert_eq!(committed_alerts(&world), straight.alerts);
        }
        prop_assert!(straight.figures.rolling[1].as_ref().unwrap().parts.orders > 0);
        prop_assert_eq!(without_sent(found), without_sent(straight.figures));
    }
}

#[test]
fn a_refused_commit_is_made_up_for_without_news() {
    for (delivery, fault) in [
        (Delivery::AtLeastOnce, None),
        (Delivery::ExactlyOnce, Some(Fault::Refused)),
        (Delivery::ExactlyOnce, Some(Fault::ReplyLost)),
        (Delivery::ExactlyOnce, Some(Fault::RequestLost)),
    ] {
        let world = CoordinatorRig::new(RebalanceProtocol::Eager, &[1, 1], delivery);
        let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
        let mut member = Member::join(&world, 0, 1);
        let deadline = Instant::now() + Duration::from_secs(20);
        let until = |member: &mut Member, offset: i64| {
            while world.broker.committed(at) != Some(offset) {
                assert!(Instant::now() < deadline, "offset {offset} is never committed, {fault:?}");
                member.round();
            }
        };
        until(&mut member, 0);
        match fault {
            None => world.broker.refuse_commits(1),
            Some(fault) => world.broker.inject(fault),
        }
        world.broker.append(at, None, Some(order("c", LAST, 1, 100).as_bytes()), 0);
        until(&mut member, 1);
        member.leave();
    }
}

#[test]
fn a_state_whose_files_are_gone_is_not_begun_anew() {
    let world = CoordinatorRig::new(RebalanceProtocol::Eager, &[1, 1], Delivery::ExactlyOnce);
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    world.broker.append(at, None, Some(order("c", LAST, 1, 100).as_bytes()), 0);
    let mut member = Member::join(&world, 0, 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.broker.committed(at) != Some(1) {
        assert!(Instant::now() < deadline);
        member.round();
    }
    member.leave();
    for entry in std::fs::read_dir(world.directory.path().join("test/p0")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut member = Member::join(&world, 0, 1);
    let failure = |member: &Member| member.coordinator.partitions.get(&Partition(0))?.failure.clone();
    while failure(&member).is_none() {
        assert!(Instant::now() < deadline, "a missing file is noticed");
        member.round();
    }
    assert!(failure(&member).unwrap().contains("rewind"), "{:?}", failure(&member));
    assert_eq!(world.broker.committed(at), Some(1));
    member.leave();
}

#[test]
fn every_applied_record_is_measured_and_told() {
    let world = CoordinatorRig::new(RebalanceProtocol::Eager, &[1, 1], Delivery::ExactlyOnce);
    let broker = &world.broker;
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    for id in 0..5 {
        broker.append(at, None, Some(order("c", LAST, id, 100).as_bytes()), 0);
    }
    broker.append(at, None, Some(b"broken"), 0);
    broker.limit_batches(4);
    let mut member = Member::join(&world, 0, 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let applied =
        |member: &Member| member.coordinator.partitions.get(&at.partition)?.progress.get(&at.topic)?.position.applied;
    while applied(&member) != Some(6) {
        assert!(Instant::now() < deadline, "the records are never applied");
        member.round();
    }
    member.coordinator.publish();
    let told = member.coordinator.reporting.status.borrow().latency.clone();
    assert_eq!(told.count(), 6);
    assert!(told.sum() > Duration::ZERO && told.sum() < 6 * Duration::from_secs(20));
    member.leave();
}
