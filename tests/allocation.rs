//! In a steady state an event costs no allocation: not to decode it, not to apply it.
//!
//! The counting allocator counts those of the thread that measures. What grows with time rather than with events (the
//! arrays, the tables of remembered ids) may allocate now and then; hence a bound far below one for each event.

#![allow(clippy::expect_used, missing_docs, reason = "a test")]

use std::sync::Arc;

use retentiond::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::config::{Dimension, Filter, InactivityRule, Millis, Settings, SilenceSetting};
use retentiond::decode::{Decoder, Format};
use retentiond::engine::inactivity::release::Allowance;
use retentiond::event::{MINUTE, Time};
use retentiond::wiring::worker_config;
use retentiond::worker::{Worker, WorkerConfig};

const START: i64 = 1_700_000_000_000;
/// Between one event and the next, so that each of the customers is heard of every two weeks.
const STEP: i64 = MINUTE / 2;
const CUSTOMERS: u64 = 40_000;
const BATCH: u64 = 1_000;
/// Until everybody has ordered some times and remembered ids expire as fast as new ones come: 60 days.
const WARM: u64 = 180;
/// For each event, for what grows with time.
const FEW: f64 = 0.05;

/// Messages as they lie in a partition.
struct Messages {
    json: Vec<String>,
    offset: i64,
}

impl RecordBatch for Messages {
    fn len(&self) -> usize {
        self.json.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let offset = self.offset + i64::try_from(index).expect("a small number");
        Record { offset, key: None, payload: Some(self.json[index].as_bytes()) }
    }

    fn stamp(&self, _index: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }

    fn headers(&self, _index: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

fn order(number: u64) -> String {
    let time = Time::clamped(START + number.cast_signed() * STEP);
    let customer = number.wrapping_mul(2_654_435_761) % CUSTOMERS;
    let channel = ["web", "app", "store"][number as usize % 3];
    format!(
        r#"{{"type":"order","order_id":"o-{number}","customer_id":"c-{customer}","time":"{time}","amount":"12.50","currency":"EUR","attributes":{{"channel":"{channel}"}},"lines":["a","b"]}}"#
    )
}

/// serde_json remembers in a buffer into what it descends when it passes over a list of lists or objects.
fn order_with_lines(number: u64) -> String {
    order(number).replace(r#"["a","b"]"#, r#"[{"sku":"a","taxes":[{"rate":7}]},{"sku":"b","taxes":[]}]"#)
}

/// Everybody orders once, for what customers without an order did lately is kept in full.
fn session(number: u64) -> String {
    if number < CUSTOMERS {
        return order(number);
    }
    let time = Time::clamped(START + number.cast_signed() * STEP);
    let customer = number.wrapping_mul(2_654_435_761) % CUSTOMERS;
    format!(r#"{{"type":"session","session_id":"s-{number}","customer_id":"c-{customer}","time":"{time}"}}"#)
}

/// How many allocations an event takes once all is warm, out of a hundred batches.
fn allocations(settings: &Settings, message: fn(u64) -> String) -> f64 {
    let decoders = vec![Decoder::new(Format::Native, vec!["channel".to_owned()])];
    let mut worker = Worker::new(Arc::new(WorkerConfig { spec: Arc::new(worker_config::spec(settings)), decoders }));
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    worker.start(at.partition);
    let mut rejected = Vec::new();
    let mut counted = 0;
    let measured = 100;
    for batch in 0..WARM + measured {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let offset = numbers.start.cast_signed();
        let messages = Messages { json: numbers.map(message).collect(), offset };
        let info = allocation_counter::measure(|| {
            worker.apply(at, &messages, Time::MAX, &mut rejected);
        });
        assert!(rejected.is_empty(), "{rejected:?}");
        if batch >= WARM {
            counted += info.count_total;
        }
        // Alerts leave with a checkpoint, as in the daemon.
        worker.checkpoint(at.partition, batch, &Allowance::ALL);
        worker.confirm(at.partition, batch);
    }
    assert_eq!(worker.status().partitions[0].tracked_customers as u64, CUSTOMERS);
    counted as f64 / (measured * BATCH) as f64
}

/// The default windows and one dimension.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.customers.dimensions.0 = vec![Dimension { name: "channel".into(), values: Vec::new() }];
    settings
}

#[test]
fn an_order_allocates_nothing() {
    let each = allocations(&settings(), order);
    assert!(each < FEW, "{each} allocations for each order");
}

#[test]
fn lines_that_nobody_asked_for_cost_one_small_buffer() {
    let each = allocations(&settings(), order_with_lines);
    assert!(each < 1.0 + FEW, "{each} allocations for each order");
}

#[test]
fn a_session_allocates_nothing() {
    let each = allocations(&settings(), session);
    assert!(each < FEW, "{each} allocations for each session");
}

#[test]
fn an_order_that_rules_watch_allocates_nothing() {
    let mut settings = settings();
    let rule = |name: &str, silence| InactivityRule { name: name.into(), silence, filter: Filter::default() };
    settings.inactivity = vec![
        rule("lapsing", SilenceSetting::After(Millis::days(45))),
        rule("off pace", SilenceSetting::Cadence { factor: 3.0, min: Millis::days(7), max: Millis::days(120) }),
    ];
    settings.alerts.backfill = true;
    let each = allocations(&settings, order);
    assert!(each < FEW, "{each} allocations for each order");
}
