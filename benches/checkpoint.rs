//! The cost of a checkpoint: `cargo bench --bench checkpoint`, with the number of customers as an argument (default:
//! 10,000,000, which takes 3 GB).
//!
//! - `N engines`: how long a worker is blocked at a time by checkpoints. Since the last one, a tenth of the customers,
//!   spread over N engines, has changed. As in a worker, the engines take their checkpoints one after another in
//!   slices, with a batch of orders after each slice. A step is the beginning of a checkpoint or a slice; the longest
//!   step is the longest time that a batch waits.
//! - `checkpoint`: a whole checkpoint at once. `encode`: its files of both kinds. `restore`: an engine from the files,
//!   including its index.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]
#![allow(clippy::print_stdout, reason = "it prints its measurements")]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retentiond::checkpoint::files;
use retentiond::checkpoint::manifest::{CheckpointOrigin, Expected, TopicEntry};
use retentiond::checkpoint::store::Store;
use retentiond::engine::Engine;
use retentiond::engine::inactivity::InactivitySpec;
use retentiond::engine::lifecycle::LifecycleSpec;
use retentiond::engine::segments::DimensionSpec;
use retentiond::engine::spec::{CalendarSpec, RollingSpec, Spec};
use retentiond::engine::zone::{Unit, Zone};
use retentiond::event::{Attributes, Currency, DAY, Event, HOUR, Kind, MINUTE, Money, Time};

/// The default windows and one dimension.
fn spec() -> Spec {
    let rolling = [("7d", 7, 15 * MINUTE), ("30d", 30, HOUR), ("90d", 90, 3 * HOUR), ("365d", 365, DAY)];
    let rolling = rolling.map(|(name, days, resolution)| RollingSpec {
        name: name.into(),
        period: days * DAY,
        active_for: days.max(90) * DAY,
        resolution,
    });
    let calendar = [(Unit::Month, 90), (Unit::Quarter, 180), (Unit::Year, 366)];
    let calendar =
        calendar.map(|(unit, active_for_days)| CalendarSpec { unit, active_for_days: Some(active_for_days) });
    Spec {
        rolling: rolling.into(),
        calendar: calendar.into(),
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: Some(1_100 * DAY),
        topics: vec![true],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: Vec::new() }],
        rates: None,
        inactivity: InactivitySpec::default(),
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 90 * DAY, at_risk_cadence: 2.0, at_risk_min: 7 * DAY, loyal_orders: 5 },
    }
}

/// An order without an id, or with one that is remembered.
fn order(engine: &mut Engine, customer: u64, time: i64, id: Option<u64>) {
    let amount = Money { minor: 100, currency: Currency::from_code("EUR").expect("a currency") };
    let id = id.map(|id| Cow::Owned(format!("o-{id}")));
    let kind = Kind::Order { id, amount, attributes: Attributes::default(), referred_by: None };
    let customer = Cow::Owned(format!("0a1b2c3d-4e5f-6071-8293-{customer:012x}"));
    engine.apply(0, &Event { customer, time: Time::clamped(time), kind });
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    println!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    done
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time used by this thread, so that other load on the machine hardly matters.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Number of rows that a worker copies before it does other work.
const AT_A_TIME: usize = 1 << 15;
/// Number of orders in a batch between two slices.
const BATCH: u64 = 1_000;
/// Number of checkpoints of every engine.
const CUTS: i64 = 4;

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1e3
}

/// The steps of checkpoints, with the customers spread over the engines.
fn stand_still(customers: u64, engines: u64) {
    let (spec, begin) = (Arc::new(spec()), 15_000 * DAY);
    let mut all: Vec<_> = (0..engines).map(|_| Engine::new(Arc::clone(&spec))).collect();
    let place = |customer: u64| (customer % engines) as usize;
    (0..customers)
        .for_each(|customer| order(&mut all[place(customer)], customer, begin + customer as i64 * 3_000, None));
    all.iter_mut().for_each(|engine| _ = engine.checkpoint());
    let (mut beginnings, mut bits, mut whole, mut next) = (Vec::new(), Vec::new(), Duration::ZERO, 0);
    for round in 1..=CUTS {
        let now = begin + customers as i64 * 3_000 + round * DAY;
        let mut batch = |all: &mut [Engine], count: u64| {
            for _ in 0..count {
                // A stride that is coprime to the number of customers visits all of them, but not in slot order.
                let customer = (next * 7_919_u64) % customers;
                order(&mut all[place(customer)], customer, now, Some(next));
                next += 1;
            }
        };
        batch(&mut all, customers / 10);
        for i in 0..all.len() {
            let begun = cpu_time();
            assert!(all[i].begin_checkpoint());
            beginnings.push(cpu_time() - begun);
            loop {
                batch(&mut all, BATCH);
                let begun = cpu_time();
                let is_done = all[i].continue_checkpoint(AT_A_TIME);
                let checkpoint = if is_done { all[i].end_checkpoint() } else { None };
                bits.push(cpu_time() - begun);
                if let Some(checkpoint) = checkpoint {
                    // In a worker, another thread drops it.
                    drop(checkpoint);
                    break;
                }
            }
        }
        whole += beginnings[beginnings.len() - all.len()..].iter().sum::<Duration>();
    }
    whole += bits.iter().sum::<Duration>();
    let steps = [&beginnings[..], &bits[..]].concat();
    for (what, mut steps) in
        [("beginning of a checkpoint", beginnings), ("slice of a checkpoint", bits), ("any step", steps)]
    {
        steps.sort_unstable();
        let (median, high, longest) = (percentile(&steps, 50), percentile(&steps, 99), percentile(&steps, 100));
        let count = steps.len();
        println!(
            "{engines} engines, {what}: {count} times, median {median:.1} ms, p99 {high:.1} ms, longest {longest:.1} ms"
        );
    }
    println!("{engines} engines: {:.0} ms of work for all of them, each time", whole.as_secs_f64() * 1e3 / CUTS as f64);
}

fn main() {
    let customers = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000_000_u64);
    [1, 4].into_iter().for_each(|engines| stand_still(customers, engines));
    let spec = Arc::new(spec());
    let mut engine = Engine::new(Arc::clone(&spec));
    let begin = 15_000 * DAY;
    (0..customers).for_each(|customer| order(&mut engine, customer, begin + customer as i64 * 3_000, None));
    println!("{} customers, {} bytes each", engine.tracked_customers(), engine.state_bytes() as u64 / customers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", directory.path().display());
    let store = runtime.block_on(Store::open(&url, "bench")).expect("a store");
    let topic = TopicEntry { name: "orders".into(), id: None, offset: 1, anchor: None };
    let origin = CheckpointOrigin {
        group: "bench".into(),
        partition: 0,
        partitions: 1,
        topics: vec![topic],
        store: store.id().into(),
        since: 0,
        written: 0,
    };
    let mut last = None;
    for (round, name) in ["all", "a tenth", "a tenth again", "a thousandth"].iter().enumerate() {
        if round > 0 {
            let step = if round < 3 { 10 } else { 1_000 };
            let now = begin + customers as i64 * 3_000 + round as i64 * DAY;
            (0..customers).step_by(step).for_each(|customer| order(&mut engine, customer, now, None));
        }
        let checkpoint = timed(&format!("checkpoint of {name}"), || engine.checkpoint()).expect("a change");
        let before = last.as_ref().map(|last: &files::WrittenCheckpoint| &last.manifest);
        let encode = || files::encode(&spec, origin.clone(), &checkpoint, before, round as u64).expect("files");
        let encoded = timed("encode", encode);
        let written = timed("write", || runtime.block_on(files::upload(&store, encoded)).expect("written files"));
        println!("{} files live, {} bytes written", written.manifest.files.len(), written.bytes);
        last = Some(written);
    }
    drop(engine);
    let reference = last.expect("a checkpoint").reference;
    let expected = Expected {
        group: "bench".into(),
        partition: 0,
        partitions: 1,
        topics: vec![("orders".into(), None)],
        store: store.id().into(),
    };
    for threads in [1, 2] {
        let load = || runtime.block_on(files::load(&store, &reference, &expected, &spec, threads)).expect("an engine");
        let (engine, _) = timed(&format!("restore with {threads} threads more"), load);
        assert_eq!(engine.tracked_customers() as u64, customers);
    }
}
