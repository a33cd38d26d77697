//! What a remembered id costs: bytes of memory held by the fingerprints that recognise duplicates.
//!
//! `cargo bench --bench memory`; the figures are allocations, not times, and do not depend on the machine.
//!
//! - `held`: what the tables have allocated, in bytes an id.
//! - `resident`: what the process grew by, in bytes an id; of few ids that is noise.
//! - The tables double, so bytes an id swing by a factor of two; the last lines are the extremes on the way to ten
//!   million. Ids that expire make room for new ones: `steady` is a week of them after a year.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::fs;

use retentiond::engine::dedup::{Dedup, fingerprint};
use retentiond::event::{DAY, EventType, Time};

/// Remembered for a week of event time, the default of `customers.dedup_for`.
const REMEMBER: i64 = 7 * DAY;
const BEGIN: i64 = 20_000 * DAY;

fn remember(dedup: &mut Dedup, number: u64, time: Time) {
    let id = format!("order-{number}");
    let seen =
        dedup.is_duplicate(fingerprint(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), EventType::Order, &id), time, time);
    assert!(!seen, "every id is new");
}

/// Resident bytes of this process, where the system tells.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
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

/// So many ids in one day.
fn fill(ids: u64) {
    let before = resident();
    let mut dedup = Dedup::new(REMEMBER);
    (0..ids).for_each(|number| remember(&mut dedup, number, Time::clamped(BEGIN)));
    let grown = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
    row("one day", &dedup, grown);
}

/// The dearest and the cheapest moment between a hundred thousand ids and ten million.
fn extremes() {
    let mut dedup = Dedup::new(REMEMBER);
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

/// As many ids every day, for a year.
fn steady(per_day: u64) {
    let mut dedup = Dedup::new(REMEMBER);
    for number in 0..365 * per_day {
        let time = BEGIN + i64::try_from(number / per_day).expect("a small number") * DAY;
        remember(&mut dedup, number, Time::clamped(time));
    }
    row(&format!("steady, {per_day} a day"), &dedup, None);
}

fn main() {
    // Biggest last: freed memory is used again and would hide what the next one needs.
    [100_000, 1_000_000, 10_000_000].into_iter().for_each(fill);
    extremes();
    steady(100_000);
}
