use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::pool::{Pool, Report};
use super::*;
use crate::decode::{Format, Schema, SchemaId, SchemaText, Schemas};
use crate::engine::inactivity::InactivitySpec;
use crate::engine::inactivity::release::Allowance;
use crate::engine::lifecycle::LifecycleSpec;
use crate::engine::spec::RollingSpec;
use crate::engine::zone::Zone;
use crate::event::DAY;
use crate::source::{Header, TopicIndex};

/// Messages without keys and headers.
struct Batch(Vec<Vec<u8>>);

impl RecordBatch for Batch {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn get(&self, index: usize) -> Record<'_> {
        Record { offset: i64::try_from(index).unwrap(), key: None, payload: Some(&self.0[index]) }
    }
    fn stamp(&self, _: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }
    fn headers(&self, _: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(0), partition: Partition(partition) }
}

fn blueprint(decoder: Decoder) -> Arc<Blueprint> {
    let lifecycle = LifecycleSpec { active_for: 90 * DAY, at_risk_cadence: 2.0, at_risk_min: 7 * DAY, loyal_orders: 5 };
    let spec = Spec {
        rolling: vec![RollingSpec { name: "7d".into(), period: 7 * DAY, active_for: 90 * DAY, resolution: DAY }],
        calendar: vec![],
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: None,
        topics: vec![true],
        dimensions: Vec::new(),
        lifecycle,
        rates: None,
        inactivity: InactivitySpec::default(),
    };
    Arc::new(Blueprint { spec: Arc::new(spec), decoders: vec![decoder] })
}

fn shopify(id: u64, placed: &str, updated: &str, refunds: &str) -> Vec<u8> {
    format!(
        r#"{{"id":{id},"customer":{{"id":1}},"processed_at":"{placed}","updated_at":"{updated}","total_price":"10.00",
            "currency":"EUR","refunds":[{refunds}]}}"#
    )
    .into_bytes()
}

#[test]
fn an_order_that_an_update_repeats_is_no_loss_when_it_is_too_late() {
    let mut worker = Worker::new(blueprint(Decoder::new(Format::Shopify, vec![])));
    worker.start(Partition(0));
    let refund = r#"{"id":7,"processed_at":"2026-03-20T00:00:00Z","transactions":[{"kind":"refund","status":"success","amount":"2.00","currency":"EUR"}]}"#;
    let batch = Batch(vec![
        shopify(1, "2026-03-01T00:00:00Z", "2026-03-01T00:00:01Z", ""),
        shopify(2, "2026-03-20T00:00:00Z", "2026-03-20T00:00:01Z", ""),
        // Nineteen days later: the order is too old to be recognised as a duplicate; its refund is news.
        shopify(1, "2026-03-01T00:00:00Z", "2026-03-20T00:00:02Z", refund),
        // An order that nobody told before and that comes too late.
        shopify(3, "2026-03-02T00:00:00Z", "2026-03-02T00:00:01Z", ""),
    ]);
    let mut rejected = Vec::new();
    worker.apply(at(0), &batch, Time::MAX, &mut rejected);
    assert_eq!(
        rejected.iter().map(|one| (one.index, one.rejection.reason)).collect::<Vec<_>>(),
        [(3, Reason::TooLate)]
    );
    let tally = worker.status().tally;
    assert_eq!((tally.skipped[0][Skip::ToldBefore as usize], tally.late), (1, 1));
    assert_eq!(tally.events[0][EventType::Order as usize], 4);
    assert_eq!(tally.events[0][EventType::Refund as usize], 1);
    let window = WindowId::Rolling(0);
    let pane = worker.blueprint.spec.pane(window, Time::parse("2026-03-20T12:00:00Z").unwrap());
    let figures = worker.series(window, &[pane])[0].clone().unwrap();
    let money = figures.money.values().next().unwrap();
    assert_eq!((figures.parts.orders, money.revenue, money.refunds), (1, 1000, 200));
}

/// A registry that answers when it is told to.
#[derive(Debug, Default)]
struct Later(Mutex<bool>);

impl Schemas for Later {
    fn is_settled(&self, _: SchemaId) -> bool {
        *self.0.lock().unwrap()
    }
    fn get(&self, _: SchemaId) -> Result<Arc<Schema>, String> {
        assert!(self.is_settled(SchemaId::Number(0)), "read before it was there");
        Schema::compile(&SchemaText { kind: "JSON".into(), ..SchemaText::default() }).map(Arc::new)
    }
    fn trouble(&self) -> Option<String> {
        (!*self.0.lock().unwrap()).then(|| "the registry is down".to_owned())
    }
}

fn native(framed: bool, customer: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"type":"order","customer_id":"{customer}","time":"2026-03-01T00:00:00Z","amount":1,"currency":"EUR"}}"#
    );
    let frame: &[u8] = if framed { &[0, 0, 0, 0, 5] } else { &[] };
    [frame, json.as_bytes()].concat()
}

fn applied(reports: &mpsc::Receiver<Report<Batch>>) -> (TopicPartition, i64, bool) {
    match reports.recv_timeout(Duration::from_secs(30)) {
        Ok(Report::Applied(applied)) => {
            assert!(applied.rejected.is_none(), "a registry that is down rejects nothing");
            (applied.at, applied.next, applied.end)
        }
        Ok(_) => panic!("another report"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn records_wait_for_their_schema_and_hold_up_no_other_partition() {
    let registry = Arc::new(Later::default());
    let schemas: Arc<dyn Schemas> = Arc::clone(&registry) as _;
    let blueprint = blueprint(Decoder::new(Format::Native, vec![]).with_schemas(schemas));
    let (report, reports) = mpsc::channel();
    // One worker, so that both partitions are its.
    let pool = Pool::start(&blueprint, 1, &report).unwrap();
    for partition in [Partition(0), Partition(1)] {
        pool.begin(partition, Box::new(Engine::new(Arc::clone(&blueprint.spec))), vec![0]).unwrap();
    }
    let send = |at, batch| pool.records(at, Batch(batch), Time::MAX, Instant::now()).unwrap();
    send(at(0), vec![native(false, "a"), native(true, "b")]);
    send(at(0), vec![native(false, "c")]);
    pool.end(at(0), 9).unwrap();
    send(at(1), vec![native(false, "d")]);
    assert_eq!(applied(&reports), (at(1), 1, false), "the other partition goes on");
    assert_eq!(pool.stalled(), [at(0)].into());
    assert_eq!(pool.trouble().as_deref(), Some("the registry is down"));
    assert_eq!(pool.workers().status().unwrap().tally.events[0][EventType::Order as usize], 1, "half a batch is none");
    pool.cut(Partition(0), 1, Allowance::ALL).unwrap();
    let Ok(Report::Cut(_, 1, taken)) = reports.recv_timeout(Duration::from_secs(30)) else { panic!("no cut") };
    assert!(taken.is_none_or(|taken| taken.next == [0]), "nothing that waits is committed");

    *registry.0.lock().unwrap() = true;
    assert_eq!(applied(&reports), (at(0), 2, false));
    assert_eq!(applied(&reports), (at(0), 1, false), "in their order");
    assert_eq!(applied(&reports), (at(0), 9, true), "and the end behind them");
    assert!(pool.stalled().is_empty());
    pool.join().unwrap();
}
