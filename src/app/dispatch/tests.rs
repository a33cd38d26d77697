//! Random rebalances, crashes and refused commits over the broker in memory: no commit passes a record that no worker
//! has read, and in the end the figures are those of one straight reading.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::decode::{Decoder, Format};
use crate::engine::lifecycle::LifecycleSpec;
use crate::engine::segments::DimensionSpec;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::spec::{CalendarSpec, RollingSpec, Spec};
use crate::engine::zone::{Unit, Zone};
use crate::event::{DAY, HOUR, Time};
use crate::source::memory::{MemberId, MemoryBatch, MemoryBroker, MemoryClient};
use crate::source::{Header, RebalanceProtocol, Record, RecordBatch, Stamp, TopicIndex};
use crate::worker::pool::{Wanted, Workers};
use crate::worker::{Blueprint, Worker};

const TOPICS: u16 = 2;
const PARTITIONS: i32 = 3;
/// Every partition's last order lies here, so that all of them are at the same instant.
const LAST: i64 = 1_780_000_000_000;

/// The offset behind the last record that a worker has asked for, of each topic-partition since its engine began.
type Seen = Arc<Mutex<BTreeMap<TopicPartition, i64>>>;

/// A client that never waits, and that refuses to let a commit pass what its workers have read.
struct Watched {
    client: MemoryClient,
    seen: Seen,
}

struct WatchedBatch {
    batch: MemoryBatch,
    at: TopicPartition,
    seen: Seen,
}

impl RecordBatch for WatchedBatch {
    fn len(&self) -> usize {
        self.batch.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let record = self.batch.get(index);
        // The poll thread looks at the last record to learn its offset.
        if std::thread::current().name().is_some_and(|name| name.starts_with("worker-")) {
            let mut seen = self.seen.lock().unwrap();
            let next = seen.entry(self.at).or_default();
            assert_eq!(*next, record.offset, "every record is applied once, in its order: {:?}", self.at);
            *next = record.offset + 1;
        }
        record
    }

    fn stamp(&self, index: usize) -> Stamp {
        self.batch.stamp(index)
    }

    fn headers(&self, index: usize) -> Vec<Header<'_>> {
        self.batch.headers(index)
    }
}

impl Watched {
    /// What begins anew must be read from its beginning.
    fn begin(&self, starts: &[(TopicPartition, Start)]) {
        let mut seen = self.seen.lock().unwrap();
        for (at, start) in starts {
            match start {
                Start::Offset(offset) => assert!(seen.get(at).is_none_or(|seen| seen <= offset), "{at:?} goes on"),
                _ => _ = seen.remove(at),
            }
        }
    }

    fn check(&self, next: &[(TopicPartition, i64)]) {
        let seen = self.seen.lock().unwrap();
        for (at, next) in next {
            let read = seen.get(at).copied().unwrap_or(0);
            assert!(*next <= read, "offset {next} of {at:?} is committed, but the workers have read to {read}");
        }
    }
}

impl LogClient for Watched {
    type Batch = WatchedBatch;

    fn poll(&mut self, _wait: Duration) -> Vec<Polled<WatchedBatch>> {
        let polled = self.client.poll(Duration::ZERO).into_iter().map(|polled| match polled {
            Polled::Records(at, batch) => Polled::Records(at, WatchedBatch { batch, at, seen: Arc::clone(&self.seen) }),
            Polled::End { at, offset } => Polled::End { at, offset },
            Polled::Assigned(all) => Polled::Assigned(all),
            Polled::Revoked(all) => Polled::Revoked(all),
            Polled::Lost(all) => Polled::Lost(all),
            Polled::Uncommitted => Polled::Uncommitted,
            Polled::Trouble(text) => Polled::Trouble(text),
            Polled::Fatal(error) => Polled::Fatal(error),
        });
        polled.collect()
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.client.protocol()
    }

    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.begin(partitions);
        self.client.assign(partitions)
    }

    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.begin(partitions);
        self.client.incremental_assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.client.unassign(partitions)
    }

    fn commit(&mut self, next: &[(TopicPartition, i64)]) {
        self.check(next);
        self.client.commit(next);
    }

    fn commit_and_wait(&mut self, next: &[(TopicPartition, i64)]) -> Result<(), SourceError> {
        self.check(next);
        self.client.commit_and_wait(next)
    }

    fn end_offset(&self, of: TopicPartition) -> Option<i64> {
        self.client.end_offset(of)
    }

    fn close(self, wait: Duration) {
        self.client.close(wait);
    }
}

struct Member {
    id: MemberId,
    dispatcher: Dispatcher<Watched>,
    workers: Workers,
}

impl Member {
    fn join(broker: &MemoryBroker, blueprint: &Arc<Blueprint>, threads: usize) -> Member {
        let (reports, applied) = mpsc::channel();
        let pool = Pool::start(blueprint, threads, &reports).unwrap();
        let workers = pool.workers();
        let client = Watched { client: broker.join(), seen: Seen::default() };
        let id = client.client.id();
        let rules = Rules {
            topics: vec!["orders".into(), "sessions".into()],
            start: Start::Earliest,
            max_future: 36_500 * DAY,
            commit_every: Duration::ZERO,
            idle_after: Duration::from_secs(600),
        };
        let (status, _) = watch::channel(SourceStatus::default());
        Member { id, dispatcher: Dispatcher::new(client, pool, applied, None, rules, status), workers }
    }

    fn round(&mut self) {
        self.dispatcher.round().unwrap();
        for (at, progress) in &self.dispatcher.progress {
            assert!(progress.committed <= progress.position.applied, "{at:?}: {progress:?}");
        }
    }

    /// Leaves as the daemon does when it is asked to stop.
    fn leave(self) {
        let (stop, stopped) = mpsc::channel();
        drop(stop);
        drop(self.workers);
        self.dispatcher.run(&stopped).unwrap();
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
    RefuseCommits(u32),
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
        1 => (1..4_u32).prop_map(Action::RefuseCommits),
    ]
}

fn blueprint() -> Arc<Blueprint> {
    let rolling =
        |name: &str, period, active_for, resolution| RollingSpec { name: name.into(), period, active_for, resolution };
    let spec = Spec {
        rolling: vec![rolling("2d", 2 * DAY, 5 * DAY, HOUR), rolling("10d", 10 * DAY, 10 * DAY, DAY)],
        calendar: vec![CalendarSpec { unit: Unit::Month, active_for_days: 31 }],
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: Some(100 * DAY),
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: vec![] }],
        lifecycle: LifecycleSpec { active_for: 5 * DAY, at_risk_cadence: 2.0, at_risk_min: DAY, loyal_orders: 3 },
        rates: None,
    };
    let decoder = || Decoder::new(Format::Native, vec!["channel".into()]);
    Arc::new(Blueprint { spec: Arc::new(spec), decoders: vec![decoder(), decoder()] })
}

fn order(customer: &str, time: i64, id: u32, cents: i64) -> String {
    let (euros, cents) = (cents / 100, cents % 100);
    format!(
        r#"{{"type":"order","order_id":"o-{id}","customer_id":"{customer}","time":{time},"amount":"{euros}.{cents:02}","currency":"EUR"}}"#
    )
}

/// Thirty days of orders and sessions out of order, late, doubled and broken, and the place of each.
///
/// Who is erased has no sessions: nothing orders the erasure in one topic and the sessions in the other, so whether
/// these are the old customer's or the new one's would be a matter of chance.
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
            (1, 0) => format!(r#"{{"type":"erase","customer_id":"erased-{customer}"}}"#),
            (2..5, 0) => order(&format!("erased-{customer}"), time, i / 2, i64::from(i)),
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

/// What one worker says that reads every topic-partition from beginning to end.
fn straight(blueprint: &Arc<Blueprint>, history: &[(TopicPartition, String)]) -> Snapshot {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[PARTITIONS.unsigned_abs(); TOPICS as usize]);
    for (at, payload) in history {
        broker.append(*at, None, Some(payload.as_bytes()), 0);
    }
    let mut client = broker.join();
    let mut worker = Worker::new(Arc::clone(blueprint));
    (0..PARTITIONS).for_each(|partition| worker.start(Partition(partition)));
    for _ in 0..2 {
        for polled in client.poll(Duration::ZERO) {
            match polled {
                Polled::Assigned(all) => {
                    let starts: Vec<_> = all.into_iter().map(|at| (at, Start::Earliest)).collect();
                    client.assign(&starts).unwrap();
                }
                Polled::Records(at, batch) => {
                    worker.apply(at, &batch, Time::MAX, &mut Vec::new());
                }
                _ => {}
            }
        }
    }
    worker.snapshot(Time::clamped(LAST), Periods::OpenAndPrevious)
}

/// The figures of all members together.
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

fn is_settled(broker: &MemoryBroker, members: &[Member], ends: &BTreeMap<TopicPartition, i64>) -> bool {
    let owned: usize = members.iter().map(|member| member.dispatcher.group.owned().len()).sum();
    let applied: BTreeMap<TopicPartition, i64> = members
        .iter()
        .flat_map(|member| &member.dispatcher.progress)
        .filter_map(|(at, progress)| Some((*at, progress.position.applied?)))
        .collect();
    let committed = || places().all(|at| broker.committed(at) == ends.get(&at).copied());
    owned == PARTITIONS.unsigned_abs() as usize && applied == *ends && committed()
}

fn any_of(members: &[Member], number: usize) -> Option<usize> {
    number.checked_rem(members.len())
}

fn live_through(protocol: RebalanceProtocol, seed: u64, actions: Vec<Action>) -> (Snapshot, Snapshot) {
    let (blueprint, history) = (blueprint(), history(seed));
    let broker = MemoryBroker::new(protocol, &[PARTITIONS.unsigned_abs(); TOPICS as usize]);
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
            Action::Join if members.len() < 4 => members.push(Member::join(&broker, &blueprint, 1 + members.len() % 2)),
            Action::Join => {}
            Action::Leave(number) => {
                if let Some(i) = any_of(&members, number) {
                    members.remove(i).leave();
                }
            }
            Action::Crash(number) => {
                if let Some(i) = any_of(&members, number) {
                    broker.bury(members.remove(i).id);
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
            Action::RefuseCommits(commits) => broker.refuse_commits(commits),
        }
    }
    append(pending);
    if members.is_empty() {
        members.push(Member::join(&broker, &blueprint, 1));
    }
    let mut ends: BTreeMap<TopicPartition, i64> = places().map(|at| (at, 0)).collect();
    for (at, _) in &history {
        *ends.entry(*at).or_default() += 1;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_settled(&broker, &members, &ends) {
        assert!(Instant::now() < deadline, "the members do not come to rest");
        members.iter_mut().for_each(Member::round);
    }
    let found = together(&members);
    members.into_iter().for_each(Member::leave);
    (found, straight(&blueprint, &history))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_commit_passes_an_unapplied_record_and_figures_stay_whole(
        eager in any::<bool>(),
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 0..80),
    ) {
        let protocol = if eager { RebalanceProtocol::Eager } else { RebalanceProtocol::Incremental };
        let (found, expected) = live_through(protocol, seed, actions);
        prop_assert!(expected.rolling[1].as_ref().unwrap().parts.orders > 0);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_refused_commit_is_made_up_for_without_news() {
    let blueprint = blueprint();
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1, 1]);
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    broker.append(at, None, Some(order("c", LAST, 1, 100).as_bytes()), 0);
    broker.refuse_commits(1);
    let mut member = Member::join(&broker, &blueprint, 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while broker.committed(at) != Some(1) {
        assert!(Instant::now() < deadline, "the offset is never committed");
        member.round();
    }
    member.leave();
}

#[test]
fn every_applied_record_is_measured_and_told() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1, 1]);
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    for id in 0..5 {
        broker.append(at, None, Some(order("c", LAST, id, 100).as_bytes()), 0);
    }
    broker.append(at, None, Some(b"broken"), 0);
    broker.limit_batches(4);
    let mut member = Member::join(&broker, &blueprint(), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while member.dispatcher.progress.get(&at).and_then(|progress| progress.position.applied) != Some(6) {
        assert!(Instant::now() < deadline, "the records are never applied");
        member.round();
    }
    member.dispatcher.publish();
    let told = member.dispatcher.status.borrow().latency.clone();
    assert_eq!(told.count(), 6);
    assert!(told.sum() > Duration::ZERO && told.sum() < 6 * Duration::from_secs(20));
    member.leave();
}
