//! Events per second on one core without Kafka: `cargo bench --bench engine`. An argument selects the benchmarks whose
//! names contain it.
//!
//! Times are CPU times of the thread, so that other load on the machine hardly matters. Each measurement creates one
//! engine; event time continues from sample to sample.
//!
//! - `engine/W windows, D dimensions/N customers, L% late`: [`Engine::apply`] alone, on an engine that has seen 405
//!   days of orders. Customers are looked up ahead as in a worker.
//! - `silence`: the same with inactivity rules, and the cost of an alert when time advances.
//! - `scrape`: the figures of 12 partitions with 50 values of a dimension, added up and encoded as for `/metrics`.
//! - `at risk`: the list of `/api/v1/at-risk` over ten million customers, and its longest slice.
//! - `decode`: 242 bytes of native JSON to an event. `worker`: decoding and applying messages keyed by customer, as in
//!   a worker thread.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]

mod support;

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use retentiond::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::config::{Dimension, Dimensions, Filter, InactivityRule, Millis, Settings, SilenceSetting};
use retentiond::decode::{Decoder, Format};
use retentiond::engine::inactivity::release::Allowance;
use retentiond::engine::lifecycle::Status;
use retentiond::engine::listing::{self, ListQuestion, Listing};
use retentiond::engine::snapshot::Periods;
use retentiond::engine::spec::Spec;
use retentiond::engine::{Engine, Outcome, customer_hash};
use retentiond::event::{Attributes, Currency, Event, HOUR, Kind, Money, Time};
use retentiond::output::metrics::{self, Scrape};
use retentiond::output::summary::Background;
use retentiond::status::SourceStatus;
use retentiond::wiring::worker_config;
use retentiond::worker::pool::Overview;
use retentiond::worker::{AHEAD, Worker, WorkerConfig};

use support::{MESSAGE_BYTES, Order, Orders};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Minimum number of orders that warm up an engine; with many customers it is two for each. They span 405 days.
const WARM: u64 = 3_000_000;
/// Values of every dimension.
const VALUES: [&str; 4] = ["web", "app", "store", "email"];
/// Number of orders prepared at once, outside of the measurement: about as many as a poll returns.
const CHUNK: usize = 1_000;

/// CPU time used by this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Prepares `count` items in chunks and processes them; returns the time of the processing alone.
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

/// Settings with this number of windows: one default window, the rolling defaults (4), all defaults (7), or more.
fn settings(windows: usize, dimensions: usize) -> Settings {
    let mut settings = Settings::default();
    match windows {
        1 => settings.windows.retain(|window| window.name == "30d"),
        4 => {}
        _ => {
            let week = settings.windows[0].clone();
            for weeks in 2..2 + windows - 7 {
                let mut extra = week.clone();
                extra.name = format!("{weeks} weeks");
                extra.period *= i64::try_from(weeks).expect("a small number");
                settings.windows.push(extra);
            }
        }
    }
    if windows < 7 {
        settings.calendar.clear();
    }
    assert_eq!(settings.windows.len() + settings.calendar.len(), windows);
    let dimension = |number| Dimension { name: format!("dimension{number}"), values: Vec::new() };
    settings.customers.dimensions = Dimensions((0..dimensions).map(dimension).collect());
    settings
}

/// The texts of an order, which an event borrows.
struct Texts {
    customer: String,
    id: String,
    order: Order,
}

impl Texts {
    fn new(order: Order) -> Texts {
        Texts { customer: order.customer_id(), id: order.id(), order }
    }

    fn event(&self, currency: Currency, dimensions: usize) -> Event<'_> {
        let mut attributes = Attributes::default();
        for dimension in 0..dimensions {
            let value = VALUES[(self.order.customer as usize + dimension) % VALUES.len()];
            attributes.set(dimension, Cow::Borrowed(value));
        }
        Event {
            customer: Cow::Borrowed(&self.customer),
            time: self.order.time,
            kind: Kind::Order {
                id: Some(Cow::Borrowed(&self.id)),
                amount: Money { minor: self.order.cents, currency },
                attributes,
                referred_by: None,
            },
        }
    }
}

/// Applies orders; returns the time without their preparation.
fn apply(engine: &mut Engine, orders: &mut Orders, count: u64) -> Duration {
    let currency = Currency::from_code("EUR").expect("a currency");
    let dimensions = engine.spec().dimensions.len();
    let prepare = |size| orders.by_ref().take(size).map(Texts::new).collect::<Vec<_>>();
    in_chunks(count, prepare, |chunk| {
        for some in chunk.chunks(AHEAD) {
            let mut hashes = [0; AHEAD];
            some.iter().zip(&mut hashes).for_each(|(texts, hash)| *hash = customer_hash(&texts.customer));
            engine.look_ahead(&hashes[..some.len()]);
            for texts in some {
                assert_eq!(engine.apply(0, &texts.event(currency, dimensions)), Outcome::Applied);
            }
        }
    })
}

/// An engine that has seen 405 days of orders, and the orders that follow.
struct Warm {
    engine: Engine,
    orders: Orders,
}

impl Warm {
    fn new(spec: Arc<Spec>, customers: u64, late: u64) -> Warm {
        let count = WARM.max(2 * customers);
        let mut warm = Warm { engine: Engine::new(spec), orders: Orders::new(customers, count, late) };
        warm.apply(count);
        warm
    }

    fn apply(&mut self, count: u64) -> Duration {
        apply(&mut self.engine, &mut self.orders, count)
    }
}

fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    let mut bench = |windows: usize, dimensions: usize, customers: u64, late: u64| {
        let name = format!("{windows} windows, {dimensions} dimensions");
        // Created only if the benchmark is not filtered out.
        let mut warm = None;
        group.bench_function(BenchmarkId::new(name, format!("{customers} customers, {late}% late")), |bencher| {
            let spec = || Arc::new(worker_config::spec(&settings(windows, dimensions)));
            let warm = warm.get_or_insert_with(|| Warm::new(spec(), customers, late));
            bencher.iter_custom(|count| warm.apply(count));
        });
    };
    for customers in [10_000, 1_000_000] {
        for windows in [1, 4, 7, 8, 16] {
            bench(windows, 0, customers, 0);
        }
        for dimensions in [1, 3] {
            bench(7, dimensions, customers, 0);
        }
        bench(7, 0, customers, 10);
    }
    bench(7, 0, 10_000_000, 0);
    group.finish();
}

/// The default windows with inactivity rules: none, one with a fixed silence, or also one that adapts to each
/// customer's pace. With 10,000 customers silences are rare. With a million customers, who order every 135 days on
/// average, nearly every order ends a silence that was due. Alerts are released from time to time, as a checkpoint
/// does.
fn silence(c: &mut Criterion) {
    let rules = [
        ("lapsing", SilenceSetting::After(Millis::days(45))),
        ("off pace", SilenceSetting::Cadence { factor: 3.0, min: Millis::days(7), max: Millis::days(120) }),
    ];
    let spec = |count: usize| {
        let rule = |&(name, silence): &(&str, SilenceSetting)| InactivityRule {
            name: name.into(),
            silence,
            filter: Filter::default(),
        };
        let mut settings = settings(7, 0);
        settings.inactivity = rules[..count].iter().map(rule).collect();
        settings.alerts.backfill = true;
        settings.alerts.holdout = 0.1;
        Arc::new(worker_config::spec(&settings))
    };
    let mut group = c.benchmark_group("silence");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for customers in [10_000, 1_000_000] {
        for count in 0..=rules.len() {
            let name = BenchmarkId::new(format!("{count} rules"), format!("{customers} customers"));
            let mut warm = None;
            group.bench_function(name, |bencher| {
                let warm = warm.get_or_insert_with(|| {
                    let mut warm = Warm::new(spec(count), customers, 0);
                    warm.engine.release(&Allowance::ALL);
                    warm
                });
                bencher.iter_custom(|iters| {
                    let took = warm.apply(iters);
                    let begun = cpu_time();
                    black_box(warm.engine.release(&Allowance::ALL));
                    took + cpu_time() - begun
                });
            });
        }
    }
    // A million customers who ordered once each, spread over time. Then only time advances.
    let mut silent = None;
    group.bench_function("decide and release one alert", |bencher| {
        let silent = silent.get_or_insert_with(|| {
            let mut engine = Engine::new(spec(1));
            apply(&mut engine, &mut Orders::new(1_000_000, 1_000_000, 0), 1_000_000);
            engine
        });
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

/// The cost of a scrape, without HTTP.
fn scrape(c: &mut Criterion) {
    let settings = settings(7, 1);
    let spec = Arc::new(worker_config::spec(&settings));
    let mut made = None;
    c.bench_function("scrape/12 partitions, 50 values", |bencher| {
        let worker = made.get_or_insert_with(|| {
            let decoders = vec![Decoder::new(Format::Native, vec!["dimension0".to_owned()])];
            let mut worker = Worker::new(Arc::new(WorkerConfig { spec: Arc::clone(&spec), decoders }));
            for partition in 0..12 {
                worker.begin(Partition(partition), in_segments(&spec, 100_000), vec![0]);
            }
            worker
        });
        let (source, background) = (SourceStatus::default(), Background::default());
        bencher.iter(|| {
            let mut overview = Overview { status: worker.status(), snapshot: None };
            overview.snapshot = overview.now().map(|now| worker.snapshot(now, Periods::OpenAndPrevious));
            let (topics, now) = (&["orders".to_owned()][..], Instant::now());
            let (overview, source, background) = (&overview, &source, &background);
            metrics::encode(&Scrape { spec: &spec, topics, overview, source, background, now }).expect("metrics")
        });
    });
}

/// An engine with 50 values of its dimension.
fn in_segments(spec: &Arc<Spec>, count: usize) -> Engine {
    let mut engine = Engine::new(Arc::clone(spec));
    let currency = Currency::from_code("EUR").expect("a currency");
    for order in Orders::new(20_000, count as u64, 0).take(count) {
        let (texts, value) = (Texts::new(order), format!("value{}", order.customer % 50));
        let mut event = texts.event(currency, 0);
        if let Kind::Order { attributes, .. } = &mut event.kind {
            attributes.set(0, Cow::Borrowed(&value));
        }
        assert_eq!(engine.apply(0, &event), Outcome::Applied);
    }
    engine
}

/// The first hundred customers at risk, by value. A worker scans 65,536 slots before it does other work.
fn at_risk(c: &mut Criterion) {
    const SLICE: usize = 1 << 16;
    let mut warm = None;
    let mut group = c.benchmark_group("at risk");
    for what in ["all of 10000000 customers", "the longest slice"] {
        group.bench_function(what, |bencher| {
            let Warm { engine, .. } =
                warm.get_or_insert_with(|| Warm::new(Arc::new(worker_config::spec(&settings(7, 0))), 10_000_000, 0));
            let at = engine.clock().watermark().expect("orders");
            let order = listing::Order::Value(Currency::from_code("EUR").expect("a currency"));
            bencher.iter_custom(|iters| {
                let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..iters {
                    let (mut found, mut from) = (Listing::default(), Some(0));
                    let mut longest_of_this = Duration::ZERO;
                    while let Some(slot) = from {
                        let begun = cpu_time();
                        let (status, least) = (Status::AtRisk, found.least(100));
                        let question = ListQuestion { at, status, order, limit: 100, least, after: None };
                        let (more, next) = engine.listing(&question, slot, SLICE);
                        found.add(more, 100);
                        longest_of_this = longest_of_this.max(cpu_time() - begun);
                        all += cpu_time() - begun;
                        from = next;
                    }
                    assert!(found.total > 1_000_000, "{}", found.total);
                    longest += longest_of_this;
                }
                if what == "the longest slice" { longest } else { all }
            });
        });
    }
    group.finish();
}

/// Messages of a partition.
struct Messages {
    keys: Vec<String>,
    json: Vec<String>,
}

impl Messages {
    fn take(orders: &mut Orders, size: usize) -> Messages {
        let message = |order: Order| {
            let mut json = String::with_capacity(MESSAGE_BYTES);
            order.write_json(&mut json);
            (order.customer_id(), json)
        };
        let (keys, json) = orders.take(size).map(message).unzip();
        Messages { keys, json }
    }
}

impl RecordBatch for Messages {
    fn len(&self) -> usize {
        self.json.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let offset = i64::try_from(index).expect("a small number");
        Record { offset, key: Some(self.keys[index].as_bytes()), payload: Some(self.json[index].as_bytes()) }
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
    let settings = settings(7, 0);
    let decoders = vec![Decoder::new(Format::Native, vec!["channel".to_owned()])];
    let config = Arc::new(WorkerConfig { spec: Arc::new(worker_config::spec(&settings)), decoders });
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
    for customers in [10_000, 500_000, 10_000_000] {
        let (mut warm, count) = (None, WARM.max(2 * customers));
        group.bench_function(format!("7 windows/{customers} customers"), |bencher| {
            let is_new = warm.is_none();
            let (worker, orders) = warm.get_or_insert_with(|| {
                let mut worker = Worker::new(Arc::clone(&config));
                worker.start(at.partition);
                (worker, Orders::new(customers, count, 0))
            });
            let mut rejected = Vec::new();
            let mut apply = |count| {
                let prepare = |size| Messages::take(orders, size);
                in_chunks(count, prepare, |batch| {
                    worker.apply(at, &batch, Time::MAX, &mut rejected);
                    assert!(rejected.is_empty());
                })
            };
            if is_new {
                apply(count);
            }
            bencher.iter_custom(apply);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500));
    targets = decode, engine, silence, scrape, at_risk, worker
}
criterion_main!(benches);
