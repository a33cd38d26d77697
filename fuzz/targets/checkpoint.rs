//! The files of a checkpoint and the metadata of a committed offset.
//!
//! Digests protect all of them, so damaged files normally fail early; these targets reach the parsers behind the
//! digests.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use retentiond::checkpoint::manifest::{Expected, Manifest, ManifestError};
use retentiond::checkpoint::metadata::{ManifestRef, Metadata};
use retentiond::checkpoint::{digest, rows as customers, sections};
use retentiond::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};
use retentiond::engine::lifecycle::LifecycleSpec;
use retentiond::engine::rates::{Rate, Rates};
use retentiond::engine::segments::DimensionSpec;
use retentiond::engine::snapshot::{Periods, Snapshot};
use retentiond::engine::spec::{CalendarSpec, RollingSpec, Spec};
use retentiond::engine::state::Scalars;
use retentiond::engine::state::arrays::ArrayState;
use retentiond::engine::state::restore::Restorer;
use retentiond::engine::state::rows::SideState;
use retentiond::engine::zone::{Unit, Zone};
use retentiond::event::{Currency, DAY, HOUR, Time};

/// Limit of slots: more would allocate gigabytes, as that many customers would need.
const MOST_SLOTS: u32 = 1 << 16;

/// The state files of a checkpoint in `tests/golden`, newest first.
const STATES: [&[u8]; 2] = [
    include_bytes!("../../tests/golden/checkpoint-v2/shop=2Feu/p3/0000000003-0000000000000383.state"),
    include_bytes!("../../tests/golden/checkpoint-v2/shop=2Feu/p3/0000000002-0000000000000257.state"),
];

/// The spec of that checkpoint.
static SPEC: LazyLock<Arc<Spec>> = LazyLock::new(|| {
    let rolling =
        |name: &str, period, active_for, resolution| RollingSpec { name: name.into(), period, active_for, resolution };
    let rule = |name: &str, silence| RuleSpec { name: name.into(), silence, filter: Filter::default() };
    let currency = |code| Currency::from_code(code).unwrap_or_else(|error| panic!("{code}: {error}"));
    let rate = Rate::new(61, 4).map(|rate| (15_020, currency("JPY"), rate));
    Arc::new(Spec {
        rolling: vec![rolling("7d", 7 * DAY, 14 * DAY, 12 * HOUR), rolling("30d", 30 * DAY, 30 * DAY, DAY)],
        calendar: vec![CalendarSpec { unit: Unit::Month, active_for_days: Some(31) }],
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: Some(100 * DAY),
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: Vec::new() }],
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 20 * DAY, at_risk_cadence: 2.0, at_risk_min: DAY, loyal_orders: 5 },
        rates: Some(Rates::new(currency("EUR"), rate)),
        inactivity: InactivitySpec {
            rules: vec![
                rule("silent", SilenceRule::After(5 * DAY)),
                rule("off pace", SilenceRule::Cadence { factor: 1.5, min: DAY, max: 9 * DAY }),
                rule("unseen", SilenceRule::NoSessionFor(4 * DAY)),
            ],
            settle: DAY,
            since: Some(Time::MIN),
            holdout: 0.3,
            salt: "salt".into(),
            winback_within: 20 * DAY,
        },
    })
});

static GOLDEN: LazyLock<Vec<(Scalars, Vec<ArrayState>)>> = LazyLock::new(|| {
    let read = |file: &&[u8]| sections::decode_state(file).unwrap_or_else(|error| panic!("a golden file: {error}"));
    STATES.iter().map(read).collect()
});

fn restorer(scalars: Scalars) -> Option<Restorer> {
    Restorer::new(&SPEC, &[Some(0), Some(1)], scalars).ok()
}

/// The first byte selects the kind of the rest.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return false };
    match first % 6 {
        0 => metadata(rest),
        1 => manifest(rest),
        2 => sections::decode_state(rest).is_ok() | sections::decode_seen(rest).is_ok(),
        3 => seen(rest),
        4 => SideState::decode(rest).is_some_and(|aside| aside != SideState::default()),
        _ => state(rest),
    }
}

fn metadata(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(metadata) = text.parse::<Metadata>() else { return false };
    assert_eq!(metadata.to_string(), text, "one spelling for one meaning");
    true
}

fn manifest(bytes: &[u8]) -> bool {
    let named = ManifestRef { name: "p3/m.json".to_owned(), digest: digest(bytes) };
    let expected = Expected { group: "g".into(), partition: 3, partitions: 1, topics: Vec::new(), store: "s".into() };
    match Manifest::decode(bytes, &named) {
        Ok(manifest) => {
            _ = manifest.check(&named, &expected);
            true
        }
        Err(error) => {
            assert!(!matches!(error, ManifestError::Digest(_)), "it has its own digest");
            false
        }
    }
}

/// A file with these sections and valid digests.
fn packed(all: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    sections::encode(all).ok()
}

fn seen(bytes: &[u8]) -> bool {
    let seen = packed(&[("seen", bytes)]).and_then(|file| sections::decode_seen(&file).ok());
    let (Some(seen), Some(mut restorer)) = (seen, restorer(Scalars::default())) else { return false };
    restorer.seen(1, &seen);
    is_whole(restorer)
}

/// Scalars up to the first zero byte, which JSON does not contain, then the arrays.
fn state(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (scalars, arrays) = bytes.split_at(end);
    let file = packed(&[("scalars", scalars), ("arrays", arrays.get(1..).unwrap_or_default())]);
    let Some((scalars, arrays)) = file.and_then(|file| sections::decode_state(&file).ok()) else { return false };
    if scalars.slots > MOST_SLOTS {
        return false;
    }
    let Some(mut restorer) = restorer(scalars) else { return false };
    // Each array is restored as if it had begun in this file.
    arrays.into_iter().for_each(|array| restorer.array(array.born, array));
    is_whole(restorer)
}

/// Customers in Parquet, restored together with a valid state.
pub fn rows(bytes: &[u8]) -> bool {
    let Some((scalars, _)) = GOLDEN.first() else { return false };
    let sequence = scalars.sequence;
    let Some(mut restorer) = restorer(scalars.clone()) else { return false };
    if customers::restore(&Bytes::copy_from_slice(bytes), sequence, 1, &mut restorer).is_err() {
        return false;
    }
    for (scalars, arrays) in &*GOLDEN {
        arrays.iter().for_each(|array| restorer.array(scalars.sequence, array.clone()));
    }
    is_whole(restorer)
}

/// Whether the engine can be restored; it must then answer queries and take a checkpoint.
fn is_whole(restorer: Restorer) -> bool {
    let Ok(mut engine) = restorer.finish() else { return false };
    let at = engine.clock().watermark().unwrap_or(Time::MIN);
    let mut snapshot = Snapshot::empty(&SPEC, at, Periods::Since(engine.first_order().unwrap_or(at)));
    snapshot.add(&mut engine);
    engine.note_progress();
    engine
        .checkpoint()
        .is_some_and(|checkpoint| sections::encode_state(&checkpoint.scalars, &checkpoint.arrays).is_ok())
}
