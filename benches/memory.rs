//! Memory per remembered id and per customer: `cargo bench --bench memory`. The figures are bytes, not times, and
//! hardly depend on the machine.
//!
//! - `held`: bytes per id that the tables have allocated.
//! - `resident`: bytes per id by which the process grew; with few ids this is noise.
//! - The tables grow by doubling, so bytes per id vary by a factor of two. The lines `dearest` and `cheapest` are the
//!   extremes on the way to ten million. Expired ids make room for new ones: `steady` is a week of ids after a year.
//! - Customers have ids of 16 bytes and one order each, spread over a year, in a complete engine with the default
//!   windows and a week of remembered ids. `peak` is the maximum of resident memory while the table grew. The last line
//!   takes 4.5 GB; arguments are numbers of customers to measure instead.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::fs;
use std::sync::Arc;

use retentiond::config::Settings;
use retentiond::engine::dedup::{Dedup, fingerprint};
use retentiond::engine::{Engine, Outcome};
use retentiond::event::{Attributes, Currency, DAY, Event, EventType, Kind, Money, Time};
use retentiond::wiring::worker_config;

/// Ids are remembered for a week of event time, the default of `customers.dedup_for`.
const REMEMBER: i64 = 7 * DAY;
const BEGIN: i64 = 20_000 * DAY;

fn remember(dedup: &mut Dedup, number: u64, time: Time) {
    let id = format!("order-{number}");
    let seen =
        dedup.is_duplicate(fingerprint(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), EventType::Order, &id), time, time);
    assert!(!seen, "every id is new");
}

/// Resident memory of this process in bytes, now (`VmRSS`) or at its peak (`VmHWM`), if the system reports it.
fn resident(now: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix(now)?.strip_prefix(':'))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

fn per_id(bytes: u64, ids: usize) -> f64 {
    bytes as f64 / ids as f64
}

fn row(what: &str, dedup: &Dedup, grown: Option<u64>) {
    let resident = grown.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", per_id(bytes, dedup.len())));
    let held = per_id(dedup.bytes() as u64, dedup.len());
    println!("{what:<28} {:>10} ids  held {held:>5.1}  resident {resident:>5}", dedup.len());
}

/// This many ids in one day.
fn fill(ids: u64) {
    let before = resident("VmRSS");
    let mut dedup = Dedup::new(REMEMBER, 0);
    (0..ids).for_each(|number| remember(&mut dedup, number, Time::clamped(BEGIN)));
    let grown = resident("VmRSS").zip(before).map(|(now, before)| now.saturating_sub(before));
    row("one day", &dedup, grown);
}

/// The largest and the smallest number of bytes per id between a hundred thousand and ten million ids.
fn extremes() {
    let mut dedup = Dedup::new(REMEMBER, 0);
    let (mut dearest, mut cheapest) = ((0, 0.0_f64), (0, f64::MAX));
    for number in 0..10_000_000 {
        remember(&mut dedup, number, Time::clamped(BEGIN));
        if number >= 100_000 && number % 10_000 == 0 {
            let held = per_id(dedup.bytes() as u64, dedup.len());
            dearest = if held > dearest.1 { (number, held) } else { dearest };
            cheapest = if held < cheapest.1 { (number, held) } else { cheapest };
        }
    }
    for (what, (ids, held)) in [("dearest", dearest), ("cheapest", cheapest)] {
        println!("{what:<28} {ids:>10} ids  held {held:>5.1}");
    }
}

/// The same number of ids each day for a year.
fn steady(per_day: u64) {
    let mut dedup = Dedup::new(REMEMBER, 0);
    for number in 0..365 * per_day {
        let time = BEGIN + i64::try_from(number / per_day).expect("a small number") * DAY;
        remember(&mut dedup, number, Time::clamped(time));
    }
    row(&format!("steady, {per_day} a day"), &dedup, None);
}

/// This many customers with one order each.
fn customers(count: u64) {
    let before = resident("VmRSS").unwrap_or(0);
    // Resets the peak, so that it is that of this engine.
    _ = fs::write("/proc/self/clear_refs", "5");
    let mut engine = Engine::new(Arc::new(worker_config::spec(&Settings::default())));
    for number in 0..count {
        // Every id once, in an order unrelated to time.
        let customer = format!("customer{:08}", number.wrapping_mul(48_271) % count);
        let time = Time::clamped(BEGIN + (number as f64 / count as f64 * 365.0 * DAY as f64) as i64);
        let amount = Money { minor: 1_990, currency: Currency::from_code("EUR").expect("a currency") };
        let kind = Kind::Order {
            id: Some(number.to_string().into()),
            amount,
            attributes: Attributes::default(),
            referred_by: None,
        };
        let event = Event { customer: customer.into(), time, kind };
        assert_eq!(engine.apply(0, &event), Outcome::Applied);
    }
    assert_eq!(engine.tracked_customers() as u64, count);
    let held = engine.state_bytes() as f64 / count as f64;
    let grown = |now| resident(now).map_or(f64::NAN, |bytes| bytes.saturating_sub(before) as f64 / count as f64);
    let (resident, peak) = (grown("VmRSS"), grown("VmHWM"));
    println!("{count:>10} customers  held {held:>5.1}  resident {resident:>5.1}  peak {peak:>5.1} bytes each");
}

fn main() {
    let counts: Vec<u64> = std::env::args().skip(1).filter_map(|count| count.parse().ok()).collect();
    if !counts.is_empty() {
        return counts.into_iter().for_each(customers);
    }
    // Largest last: freed memory is reused and would hide what the next measurement needs.
    [100_000, 1_000_000, 10_000_000].into_iter().for_each(fill);
    extremes();
    steady(100_000);
    [10_000_000, 50_000_000].into_iter().for_each(customers);
}
