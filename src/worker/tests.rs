use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::pool::{Pool, Report};
use super::*;
use crate::bus::{Header, TopicIndex};
use crate::decode::{Format, Schema, SchemaId, SchemaText, Schemas};
use crate::engine::inactivity::InactivitySpec;
use crate::engine::inactivity::release::Allowance;
use crate::engine::lifecycle::LifecycleSpec;
use crate::engine::spec::RollingSpec;
use crate::engine::zone::Zone;
use crate::event::DAY;

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

fn config(decoder: Decoder) -> Arc<WorkerConfig> {
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
        merge_orders: false,
        lifecycle,
        rates: None,
        inactivity: InactivitySpec::default(),
    };
    Arc::new(WorkerConfig { spec: Arc::new(spec), decoders: vec![decoder] })
}

fn shopify(id: u64, placed: &str, updated: &str, refunds: &str) -> Vec<u8> {
    format!(
        r#"{{"id":{id},"customer":{{"id":1}},"processed_at":"{placed}","updated_at":"{updated}","total_price":"10.00",
            "currency":"EUR","refunds":[{refunds}]}}"#
    )
    .into_bytes()
}

#[test]
fn a_late_order_repeated_by_an_update_is_skipped() {
    let mut worker = Worker::new(config(Decoder::new(Format::Shopify, vec![])));
    worker.start(Partition(0));
    let refund = r#"{"id":7,"processed_at":"2026-03-20T00:00:00Z","transactions":[{"kind":"refund","status":"success","amount":"2.00","currency":"EUR"}]}"#;
    let batch = Batch(vec![
        shopify(1, "2026-03-01T00:00:00Z", "2026-03-01T00:00:01Z", ""),
        shopify(2, "2026-03-20T00:00:00Z", "2026-03-20T00:00:01Z", ""),
        // Nineteen days later: the order is repeated, the refund is new.
        shopify(1, "2026-03-01T00:00:00Z", "2026-03-20T00:00:02Z", refund),
        // An order that is new and too late.
        shopify(3, "2026-03-02T00:00:00Z", "2026-03-02T00:00:01Z", ""),
        // An order whose first message is sent on payment, two weeks later.
        shopify(4, "2026-03-05T00:00:00Z", "2026-03-20T00:00:03Z", ""),
        // An order from before the first event.
        shopify(5, "2026-02-05T00:00:00Z", "2026-03-20T00:00:04Z", ""),
    ]);
    let mut rejected = Vec::new();
    worker.apply(at(0), &batch, Time::MAX, &mut rejected);
    assert_eq!(
        rejected.iter().map(|one| (one.index, one.rejection.reason)).collect::<Vec<_>>(),
        [(3, Reason::TooLate), (4, Reason::TooLate)]
    );
    let tally = worker.status().tally;
    // The repeated order is too late, and still recognized as a duplicate; the one from before the data begin is not.
    assert_eq!((tally.skipped[0][Skip::ToldBefore as usize], tally.duplicates, tally.late), (1, 1, 2));
    assert_eq!(tally.events[0][EventType::Order as usize], 6);
    assert_eq!(tally.events[0][EventType::Refund as usize], 1);
    let window = WindowId::Rolling(0);
    let pane = worker.config.spec.pane(window, Time::parse("2026-03-20T12:00:00Z").unwrap());
    let figures = worker.series(window, &[pane])[0].clone().unwrap();
    let money = figures.money.values().next().unwrap();
    assert_eq!((figures.parts.orders, money.revenue, money.refunds), (1, 1000, 200));
}

#[test]
fn a_cancelled_row_that_where_no_longer_chooses_cancels_an_order_that_counted() {
    let mapping = "cancelled = \"cancelled_at\"\nfields = { time = \"placed_at\" }\nwhere = { status = [\"paid\"] }";
    let options = toml::from_str(mapping).unwrap();
    let mut worker = Worker::new(config(Decoder::with_options(Format::Debezium, vec![], &options).unwrap()));
    worker.start(Partition(0));
    let row = |id: &str, placed: &str, status: &str, cancelled: &str| {
        format!(
            r#"{{"id":"{id}","customer_id":"c","amount":"9.00","currency":"EUR","placed_at":"2026-03-{placed}T00:00:00Z",
                "status":"{status}","cancelled_at":{cancelled}}}"#
        )
        .into_bytes()
    };
    let cancelled = "\"2026-03-20T12:00:00Z\"";
    let batch = Batch(vec![
        row("a", "20", "paid", "null"),
        row("b", "19", "open", "null"),
        row("b", "19", "cancelled", cancelled),
        row("a", "20", "cancelled", cancelled),
        row("a", "20", "cancelled", cancelled),
        row("c", "21", "cancelled", "\"2026-03-21T12:00:00Z\""),
    ]);
    let mut rejected = Vec::new();
    worker.apply(at(0), &batch, Time::MAX, &mut rejected);
    assert_eq!(rejected.len(), 0, "{rejected:?}");
    let tally = worker.status().tally;
    assert_eq!((tally.events[0][EventType::Order as usize], tally.events[0][EventType::Cancel as usize]), (1, 2));
    assert_eq!((tally.duplicates, tally.skipped[0][Skip::Filtered as usize]), (1, 3));
}

#[test]
fn one_bad_object_of_a_message_does_not_affect_the_others() {
    let decoder = Decoder::new(Format::Native, vec![]);
    let mut worker = Worker::new(config(decoder.clone()));
    worker.start(Partition(0));
    let order = |id: &str, time: &str| {
        format!(r#"{{"type":"order","order_id":"{id}","customer_id":"c","time":"{time}","amount":1,"currency":"EUR"}}"#)
    };
    let (now, late) = ("2026-03-20T00:00:00Z", "2026-03-01T00:00:00Z");
    let list = |objects: &[String]| format!("[{}]", objects.join(",")).into_bytes();
    let batch = Batch(vec![
        list(&[
            order("a", now),
            order("b", "soon"),
            r#"{"type":"wish"}"#.to_owned(),
            order("c", late),
            order("d", now),
        ]),
        list(&[order("d", now), order("e", now)]),
    ]);
    let mut rejected = Vec::new();
    assert_eq!(worker.apply(at(0), &batch, Time::MAX, &mut rejected), Some(2));
    let tally = worker.status().tally;
    assert_eq!((tally.events[0][EventType::Order as usize], tally.events[0][EventType::Unknown as usize]), (5, 1));
    assert_eq!((tally.duplicates, tally.late), (1, 1));
    assert_eq!(tally.rejected[0][Reason::InvalidTime as usize], 1);
    let found: Vec<_> =
        rejected.iter().map(|one| (one.index, one.rejection.reason, one.part.as_ref().unwrap().of)).collect();
    assert_eq!(found, [(0, Reason::InvalidTime, 5), (0, Reason::TooLate, 5)]);
    assert!(rejected[1].rejection.detail.starts_with("object 4 of 5 in the message: time 2026-03-01"));
    // The dead letter holds only the rejected object.
    let alone: Vec<_> = rejected.iter().map(|one| one.part.as_ref().unwrap().message.to_vec()).collect();
    assert_eq!(alone, [order("b", "soon").into_bytes(), order("c", late).into_bytes()]);
    assert!(matches!(decoder.decode(None, Some(&alone[1]), Time::MAX), Ok(Decoded::Event(_))));
}

/// A registry that answers once it is switched on.
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
    fn last_error(&self) -> Option<String> {
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
            assert!(applied.rejected.is_empty(), "a registry that is down rejects nothing");
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
    let config = config(Decoder::new(Format::Native, vec![]).with_schemas(schemas));
    let (report, reports) = mpsc::channel();
    // One worker, so that it owns both partitions.
    let pool = Pool::start(&config, 1, &report).unwrap();
    for partition in [Partition(0), Partition(1)] {
        pool.begin(partition, Box::new(Engine::new(Arc::clone(&config.spec))), vec![0]).unwrap();
    }
    let send = |at, batch| pool.records(at, Batch(batch), Time::MAX, Instant::now()).unwrap();
    send(at(0), vec![native(false, "a"), native(true, "b")]);
    send(at(0), vec![native(false, "c")]);
    pool.end(at(0), 9).unwrap();
    send(at(1), vec![native(false, "d")]);
    assert_eq!(applied(&reports), (at(1), 1, false), "the other partition continues");
    assert_eq!(pool.stalled(), [at(0)].into());
    assert_eq!(pool.last_error().as_deref(), Some("the registry is down"));
    assert_eq!(
        pool.workers().status().unwrap().tally.events[0][EventType::Order as usize],
        1,
        "a batch is not applied partially"
    );
    pool.checkpoint(Partition(0), 1, Allowance::ALL).unwrap();
    let Ok(Report::Taken(_, 1, taken)) = reports.recv_timeout(Duration::from_secs(30)) else { panic!("no checkpoint") };
    assert!(taken.is_none_or(|taken| taken.next == [0]), "waiting records are not committed");

    *registry.0.lock().unwrap() = true;
    assert_eq!(applied(&reports), (at(0), 2, false));
    assert_eq!(applied(&reports), (at(0), 1, false), "in order");
    assert_eq!(applied(&reports), (at(0), 9, true), "and the end after them");
    assert!(pool.stalled().is_empty());
    pool.join().unwrap();
}

/// Orders of a range of customers, with offsets from `from`.
struct Orders {
    from: i64,
    payloads: Vec<Vec<u8>>,
}

impl Orders {
    fn of(from: i64, customers: std::ops::Range<usize>) -> Orders {
        Orders { from, payloads: customers.map(|customer| native(false, &format!("c{customer}"))).collect() }
    }
}

impl RecordBatch for Orders {
    fn len(&self) -> usize {
        self.payloads.len()
    }
    fn get(&self, index: usize) -> Record<'_> {
        let offset = self.from + i64::try_from(index).unwrap();
        Record { offset, key: None, payload: Some(&self.payloads[index]) }
    }
    fn stamp(&self, _: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }
    fn headers(&self, _: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

/// The order counts in a checkpoint, by customer.
fn orders(taken: &Taken) -> BTreeMap<String, u32> {
    let rows = taken.checkpoint.rows.iter().flat_map(|rows| rows.rows.iter());
    rows.filter_map(|row| Some((row.id?.into_owned(), row.known.orders))).collect()
}

#[test]
fn checkpoints_are_taken_one_after_another_with_batches_in_between() {
    let mut worker = Worker::new(config(Decoder::new(Format::Native, vec![])));
    let (mut checkpoints, mut reports) = (checkpoints::CheckpointQueue::default(), Vec::<Report<Orders>>::new());
    for partition in 0..3 {
        worker.start(Partition(partition));
        worker.apply(at(partition), &Orders::of(0, 0..300), Time::MAX, &mut Vec::new());
        checkpoints.request(Partition(partition), 1, Allowance::ALL);
    }
    // The last one is rolled back before its turn.
    let mut offset = 300;
    while !checkpoints.is_empty() {
        checkpoints.advance(&mut worker, |report| reports.push(report));
        checkpoints.roll_back(Partition(2), 1);
        // Backwards, so that most customers change before they are copied.
        let customers = 300 - (offset as usize - 300) % 300;
        for partition in 0..3 {
            worker.apply(at(partition), &Orders::of(offset, customers - 10..customers), Time::MAX, &mut Vec::new());
        }
        offset += 10;
    }
    let order = reports.iter().map(|report| match report {
        Report::Begun(partition, 1, _) => (partition.0, true),
        Report::Taken(partition, 1, Some(_)) => (partition.0, false),
        _ => panic!("another report"),
    });
    assert_eq!(order.collect::<Vec<_>>(), [(0, true), (0, false), (1, true), (1, false)]);
    let mut taken = reports.iter().filter_map(|report| match report {
        Report::Taken(_, _, Some(taken)) => Some(taken),
        _ => None,
    });
    let (first, second) = (taken.next().unwrap(), taken.next().unwrap());
    assert_eq!(first.next, [300], "later records are not included");
    assert_eq!(orders(first), (0..300).map(|customer| (format!("c{customer}"), 1)).collect());
    assert!(second.next[0] > 300, "it began later");
    assert_eq!(i64::from(orders(second).values().sum::<u32>()), second.next[0], "every order is counted once");
    assert_eq!(second.last[0].map(|last| last.offset + 1), Some(second.next[0]));
    // Records that arrived during the checkpoint are in the next one.
    worker.confirm(Partition(0), 1);
    let (next, _) = worker.checkpoint(Partition(0), 2, &Allowance::ALL).unwrap();
    assert_eq!(next.next, [offset]);
    let again = orders(&next);
    assert!(orders(first).iter().all(|(id, &before)| again.get(id).is_none_or(|&now| now >= before)));
    assert_eq!(
        again.values().filter(|&&orders| orders > 1).map(|orders| i64::from(orders - 1)).sum::<i64>(),
        offset - 300
    );
}

#[test]
fn a_checkpoint_rolled_back_in_progress_is_part_of_the_next() {
    let mut worker = Worker::new(config(Decoder::new(Format::Native, vec![])));
    worker.start(Partition(0));
    worker.apply(at(0), &Orders::of(0, 0..300), Time::MAX, &mut Vec::new());
    worker.begin_checkpoint(Partition(0), 1, &Allowance::ALL).unwrap();
    assert!(worker.continue_checkpoint(Partition(0), 64).is_none());
    worker.apply(at(0), &Orders::of(300, 290..310), Time::MAX, &mut Vec::new());
    worker.roll_back(Partition(0), 1);
    assert!(worker.continue_checkpoint(Partition(0), 64).is_none(), "no checkpoint is in progress");
    let (taken, _) = worker.checkpoint(Partition(0), 2, &Allowance::ALL).unwrap();
    assert_eq!((taken.next[0], orders(&taken).len(), orders(&taken).values().sum::<u32>()), (320, 310, 320));
}

/// Through the queue: work that must follow a checkpoint follows it.
#[test]
fn a_parked_partition_has_completed_its_checkpoints() {
    let config = config(Decoder::new(Format::Native, vec![]));
    let (report, reports) = mpsc::channel();
    let pool = Pool::start(&config, 1, &report).unwrap();
    for partition in [Partition(0), Partition(1)] {
        pool.begin(partition, Box::new(Engine::new(Arc::clone(&config.spec))), vec![0]).unwrap();
        let batch = Orders::of(0, 0..500);
        pool.records(TopicPartition { topic: TopicIndex(0), partition }, batch, Time::MAX, Instant::now()).unwrap();
        pool.checkpoint(partition, 1, Allowance::ALL).unwrap();
    }
    pool.park(Partition(1)).unwrap();
    assert_eq!(pool.unpark(Partition(1)).unwrap(), Some(vec![500]));
    pool.wait_until_applied().unwrap();
    pool.join().unwrap();
    drop(report);
    let checkpoints = reports.iter().filter_map(|report| match report {
        Report::Taken(partition, 1, Some(taken)) => Some((partition.0, taken.next[0], orders(&taken).len())),
        _ => None,
    });
    assert_eq!(checkpoints.collect::<Vec<_>>(), [(0, 500, 500), (1, 500, 500)]);
}
