//! What one core does without Kafka, in events a second: `cargo bench --bench engine`.
//!
//! - `engine/W windows/N customers/L% late`: [`Engine::apply`] alone, on an engine that has seen 405 days of orders.
//!
//! Times are CPU time of the thread, so that a busy machine disturbs them little.
//!
//! - `silence`: the same with rules on inactivity, and what an alert costs when time passes.
//! - `decode`: 242 bytes of native JSON to an event. `worker`: both, as a worker thread does it.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]

mod support;

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use retentiond::app::blueprint;
use retentiond::config::{Filter, InactivityRule, Millis, Settings, Silence};
use retentiond::decode::{Decoder, Format};
use retentiond::engine::inactivity::release::Allowance;
use retentiond::engine::{Engine, Outcome};
use retentiond::event::{Attributes, Currency, Event, HOUR, Kind, Money, Time};
use retentiond::source::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::worker::{Blueprint, Worker};

use support::{MESSAGE_BYTES, Order, Orders};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders that an engine has seen before anything is measured: 405 days of them.
const WARM: u64 = 3_000_000;
/// Orders prepared at once, so that preparing them is not measured: as many as one poll brings.
const CHUNK: usize = 1_000;

/// CPU time that this thread has taken.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Prepares chunks of `count` pieces in all and works on them; the time of the work alone.
fn in_chunks<T>(mut count: u64, mut prepare: impl FnMut(usize) -> T, mut work: impl FnMut(T)) -> Duration {
    let mut took = Duration::ZERO;
    while count > 0 {
        let size = CHUNK.min(usize::try_from(count).unwrap_or(CHUNK));
        let chunk = prepare(size);
        let begun = cpu_time();
        work(chunk);
        took += cpu_time() - begun;
        count -= size as u64;
    }
    took
}

/// Windows of the default configuration and one more, by their number.
fn settings(windows: usize) -> Settings {
    let mut settings = Settings::default();
    let mut extra = settings.windows[0].clone();
    "14d".clone_into(&mut extra.name);
    extra.period *= 2;
    match windows {
        1 => {
            settings.windows.retain(|window| window.name == "30d");
            settings.calendar.clear();
        }
        4 => settings.calendar.clear(),
        7 => {}
        _ => settings.windows.push(extra),
    }
    assert_eq!(settings.windows.len() + settings.calendar.len(), windows);
    settings
}

/// The text of an order, for an event to borrow from.
struct Texts {
    customer: String,
    id: String,
    order: Order,
}

impl Texts {
    fn new(order: Order) -> Texts {
        Texts { customer: order.customer_id(), id: order.id(), order }
    }

    fn event(&self, currency: Currency) -> Event<'_> {
        Event {
            customer: Cow::Borrowed(&self.customer),
            time: self.order.time,
            kind: Kind::Order {
                id: Some(Cow::Borrowed(&self.id)),
                amount: Money { minor: self.order.cents, currency },
                attributes: Attributes::default(),
                referred_by: None,
            },
        }
    }
}

/// Applies orders; the time it took, without their preparation.
fn apply(engine: &mut Engine, orders: &mut Orders, count: u64) -> Duration {
    let currency = Currency::from_code("EUR").expect("a currency");
    let prepare = |size| orders.by_ref().take(size).map(Texts::new).collect::<Vec<_>>();
    in_chunks(count, prepare, |chunk| {
        for texts in &chunk {
            assert_eq!(engine.apply(0, &texts.event(currency)), Outcome::Applied);
        }
    })
}

fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for (windows, customers, late) in [
        (1, 10_000, 0),
        (4, 10_000, 0),
        (7, 10_000, 0),
        (8, 10_000, 0),
        (1, 1_000_000, 0),
        (4, 1_000_000, 0),
        (7, 1_000_000, 0),
        (8, 1_000_000, 0),
        (7, 10_000, 10),
        (7, 1_000_000, 10),
    ] {
        let name = format!("{windows} windows/{customers} customers");
        group.bench_function(BenchmarkId::new(name, format!("{late}% late")), |bencher| {
            let mut orders = Orders::new(customers, WARM, late);
            let mut engine = Engine::new(Arc::new(blueprint::spec(&settings(windows))));
            apply(&mut engine, &mut orders, WARM);
            bencher.iter_custom(|iters| apply(&mut engine, &mut orders, iters));
        });
    }
    group.finish();
}

/// The default windows with rules on inactivity: none, one of a fixed silence, and a second one of each customer's own
/// pace. With 10,000 customers nobody is silent for long; with a million, who order every 135 days, nearly every order
/// ends a silence that was due. Alerts are taken out as a cut does, now and then.
fn silence(c: &mut Criterion) {
    let rules = [
        ("lapsing", Silence::After(Millis::days(45))),
        ("off pace", Silence::Cadence { factor: 3.0, min: Millis::days(7), max: Millis::days(120) }),
    ];
    let spec = |count: usize| {
        let rule = |&(name, silence): &(&str, Silence)| InactivityRule {
            name: name.into(),
            silence,
            filter: Filter::default(),
        };
        let mut settings = settings(7);
        settings.inactivity = rules[..count].iter().map(rule).collect();
        settings.alerts.backfill = true;
        settings.alerts.holdout = 0.1;
        Arc::new(blueprint::spec(&settings))
    };
    let mut group = c.benchmark_group("silence");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for customers in [10_000, 1_000_000] {
        for count in 0..=rules.len() {
            let name = BenchmarkId::new(format!("{count} rules"), format!("{customers} customers"));
            group.bench_function(name, |bencher| {
                let mut orders = Orders::new(customers, WARM, 0);
                let mut engine = Engine::new(spec(count));
                apply(&mut engine, &mut orders, WARM);
                engine.release(&Allowance::ALL);
                bencher.iter_custom(|iters| {
                    let took = apply(&mut engine, &mut orders, iters);
                    let begun = cpu_time();
                    black_box(engine.release(&Allowance::ALL));
                    took + cpu_time() - begun
                });
            });
        }
    }
    // A million customers who ordered once, one after the other, and then no more: time alone passes over them.
    group.bench_function("decide and release one alert", |bencher| {
        let mut orders = Orders::new(1_000_000, 1_000_000, 0);
        let mut silent = Engine::new(spec(1));
        apply(&mut silent, &mut orders, 1_000_000);
        let at = silent.clock().watermark().expect("orders");
        bencher.iter_custom(|iters| {
            let (mut took, mut alerts) = (Duration::ZERO, 0);
            let mut engine = silent.clone();
            engine.release(&Allowance::ALL);
            for hour in 1..=46 * 24 {
                let begun = cpu_time();
                engine.raise_watermark(0, at.plus(hour * HOUR));
                alerts += engine.release(&Allowance::ALL).len();
                took += cpu_time() - begun;
            }
            assert!(alerts > 50_000, "{alerts}");
            took.mul_f64(iters as f64 / alerts as f64)
        });
    });
    group.finish();
}

/// Messages as they lie in a partition.
struct Messages {
    json: Vec<String>,
    offset: i64,
}

impl Messages {
    fn take(orders: &mut Orders, size: usize) -> Messages {
        let json = |order: Order| {
            let mut json = String::with_capacity(MESSAGE_BYTES);
            order.write_json(&mut json);
            json
        };
        Messages { json: orders.take(size).map(json).collect(), offset: 0 }
    }
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

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    let messages = Messages::take(&mut Orders::new(500_000, WARM, 0), CHUNK);
    for dimensions in [vec![], vec!["channel".to_owned()]] {
        let name = BenchmarkId::new("native", format!("{} dimensions", dimensions.len()));
        let decoder = Decoder::new(Format::Native, dimensions);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let work = |size: usize| {
                    for json in &messages.json[..size] {
                        let payload = black_box(Some(json.as_bytes()));
                        black_box(decoder.decode(None, payload, Time::MAX)).expect("an order");
                    }
                };
                in_chunks(count, |size| size, work)
            });
        });
    }
    group.finish();
}

fn worker(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    let settings = settings(7);
    let decoders = vec![Decoder::new(Format::Native, vec!["channel".to_owned()])];
    let blueprint = Arc::new(Blueprint { spec: Arc::new(blueprint::spec(&settings)), decoders });
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    group.bench_function("7 windows/500000 customers", |bencher| {
        let mut orders = Orders::new(500_000, WARM, 0);
        let mut worker = Worker::new(Arc::clone(&blueprint));
        worker.start(at.partition);
        let mut rejected = Vec::new();
        let mut apply = |count| {
            let prepare = |size| Messages::take(&mut orders, size);
            in_chunks(count, prepare, |batch| {
                worker.apply(at, &batch, Time::MAX, &mut rejected);
                assert!(rejected.is_empty());
            })
        };
        apply(WARM);
        bencher.iter_custom(apply);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500));
    targets = decode, engine, silence, worker
}
criterion_main!(benches);
