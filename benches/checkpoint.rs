//! What a checkpoint costs: `cargo bench --bench checkpoint`, with the number of customers as an argument (10,000,000
//! without one; that takes 3 GB).
//!
//! - `cut`: how long a worker stands still while a tenth of the customers has changed. `encode`: both kinds of files of
//!   that cut. `restore`: an engine from the files, index included.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]
#![allow(clippy::print_stdout, reason = "it prints its measurements")]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use retentiond::checkpoint::files;
use retentiond::checkpoint::manifest::{Expected, Origin, TopicEntry};
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
    let calendar = calendar.map(|(unit, active_for_days)| CalendarSpec { unit, active_for_days });
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
        lifecycle: LifecycleSpec { active_for: 90 * DAY, at_risk_cadence: 2.0, at_risk_min: 7 * DAY, loyal_orders: 5 },
    }
}

fn order(engine: &mut Engine, customer: u64, time: i64) {
    let amount = Money { minor: 100, currency: Currency::from_code("EUR").expect("a currency") };
    let kind = Kind::Order { id: None, amount, attributes: Attributes::default(), referred_by: None };
    let customer = Cow::Owned(format!("0a1b2c3d-4e5f-6071-8293-{customer:012x}"));
    engine.apply(0, &Event { customer, time: Time::clamped(time), kind });
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    println!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    done
}

fn main() {
    let customers = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000_000_u64);
    let spec = Arc::new(spec());
    let mut engine = Engine::new(Arc::clone(&spec));
    let begin = 15_000 * DAY;
    (0..customers).for_each(|customer| order(&mut engine, customer, begin + customer as i64 * 3_000));
    println!("{} customers, {} bytes each", engine.tracked_customers(), engine.state_bytes() as u64 / customers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", directory.path().display());
    let store = runtime.block_on(Store::open(&url, "bench")).expect("a store");
    let topic = TopicEntry { name: "orders".into(), id: None, offset: 1, anchor: None };
    let origin = Origin {
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
            (0..customers).step_by(step).for_each(|customer| order(&mut engine, customer, now));
        }
        let cut = timed(&format!("cut of {name}"), || engine.cut()).expect("a change");
        let before = last.as_ref().map(|last: &files::WrittenCut| &last.manifest);
        let encode = || files::encode(&spec, origin.clone(), &cut, before, round as u64).expect("files");
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
