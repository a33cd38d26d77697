//! Checkpoints in a directory: written, read, damaged, of an older version, and asked by others.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::oracle;
use retentiond::checkpoint::files::{self, WrittenCheckpoint};
use retentiond::checkpoint::manifest::{CheckpointOrigin, Expected, Kind as FileKind, Manifest, TopicEntry, VERSION};
use retentiond::checkpoint::metadata::{ManifestRef, Metadata};
use retentiond::checkpoint::store::Store;
use retentiond::engine::Engine;
use retentiond::engine::distribution::{GAPS, order_values};
use retentiond::engine::inactivity::release::Allowance;
use retentiond::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};
use retentiond::engine::lifecycle::LifecycleSpec;
use retentiond::engine::rates::{Rate, Rates};
use retentiond::engine::segments::DimensionSpec;
use retentiond::engine::snapshot::{Periods, Snapshot};
use retentiond::engine::spec::{CalendarSpec, RollingSpec, Spec};
use retentiond::engine::state::rows::Row;
use retentiond::engine::zone::{Unit, Zone};
use retentiond::event::{Attributes, CostKind, Currency, DAY, Event, HOUR, Kind, Money, Time};
use tempfile::TempDir;

const ORIGIN: i64 = 15_000 * DAY;
const GROUP: &str = "shop/eu";

fn spec() -> Arc<Spec> {
    let rolling =
        |name: &str, period, active_for, resolution| RollingSpec { name: name.into(), period, active_for, resolution };
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
        rates: Some(Rates::new(
            Currency::from_code("EUR").unwrap(),
            [(15_020, Currency::from_code("JPY").unwrap(), Rate::new(61, 4).unwrap())],
        )),
        inactivity: inactivity(),
    })
}

fn inactivity() -> InactivitySpec {
    let rule = |name: &str, silence| RuleSpec { name: name.into(), silence, filter: Filter::default() };
    let rules = vec![
        rule("silent", SilenceRule::After(5 * DAY)),
        rule("off pace", SilenceRule::Cadence { factor: 1.5, min: DAY, max: 9 * DAY }),
        rule("unseen", SilenceRule::NoSessionFor(4 * DAY)),
    ];
    let (settle, winback_within) = (DAY, 20 * DAY);
    InactivitySpec { rules, settle, since: Some(Time::MIN), holdout: 0.3, salt: "salt".into(), winback_within }
}

/// The spec of a program that knew no rules.
fn without_rules() -> Arc<Spec> {
    Arc::new(Spec { inactivity: InactivitySpec::default(), ..Spec::clone(&spec()) })
}

/// Customers who ordered once long ago: so many that they lie in several buckets.
fn fill(engine: &mut Engine, customers: u64) {
    for n in 0..customers {
        let amount = Money { minor: 100, currency: Currency::from_code("EUR").unwrap() };
        let attributes = Attributes::default();
        let kind = Kind::Order { id: None, amount, attributes, referred_by: None };
        let time = Time::clamped(ORIGIN - DAY + n as i64);
        engine.apply(0, &Event { customer: Cow::Owned(id(1_000_000 + n)), time, kind });
    }
}

/// The n-th event of a shop that never changes: orders, some late, some twice, refunds, sessions, profiles, feedback,
/// costs, now and then an erased customer.
fn give(engine: &mut Engine, n: u64) {
    let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let customer = random % (40 + n / 8);
    if n % 97 == 96 {
        engine.erase(0, &id(customer), None);
        return;
    }
    let late = if random.is_multiple_of(7) { (random >> 8) as i64 % DAY } else { 0 };
    let time = Time::clamped(ORIGIN + n as i64 * 20_000_000 / 3 - late);
    let currency = Currency::from_code(["EUR", "JPY"][usize::from(random.is_multiple_of(5))]).unwrap();
    let amount = Money { minor: (random % 10_000) as i64, currency };
    let mut attributes = Attributes::default();
    attributes.set(0, Cow::Borrowed(["web", "app", "a/b%c"][(random % 3) as usize]));
    let event_id = Some(Cow::Owned((n - n % 11 % 2).to_string()));
    let referred_by = random.is_multiple_of(11).then_some(Cow::Borrowed("c-1"));
    let (topic, kind) = match random % 4 {
        0 if random.is_multiple_of(3) => (0, few(random, amount)),
        0 => (1, Kind::Session { id: event_id }),
        1 if random.is_multiple_of(9) => (0, Kind::Refund { id: event_id, amount }),
        _ => (0, Kind::Order { id: event_id, amount, attributes, referred_by }),
    };
    engine.apply(topic, &Event { customer: Cow::Owned(id(customer)), time, kind });
}

/// What few customers do.
fn few(random: u64, amount: Money) -> Kind<'static> {
    match random / 12 % 3 {
        0 => Kind::Customer { attributes: Attributes::default(), referred_by: Some(Cow::Borrowed("c-2")) },
        1 => Kind::Feedback { kind: Cow::Borrowed(["complaint", "praise"][(random / 36 % 2) as usize]), score: None },
        _ => Kind::Cost { kind: [CostKind::Acquisition, CostKind::Retention][(random / 36 % 2) as usize], amount },
    }
}

fn id(customer: u64) -> String {
    match customer % 3 {
        0 => format!("c-{customer}"),
        1 => format!("0a1b2c3d-4e5f-6071-8293-{customer:012x}"),
        _ => format!("customer number {customer} with quite a long name"),
    }
}

fn snapshot(engine: &mut Engine, days: i64) -> Snapshot {
    let at = engine.clock().watermark().unwrap().plus(days * DAY);
    let begin = engine.first_order().unwrap();
    let mut snapshot = Snapshot::empty(&spec(), at, Periods::Since(begin));
    snapshot.add(engine);
    snapshot
}

fn assert_same(one: &mut Engine, other: &mut Engine) {
    assert_same_but(one, other, |snapshot| snapshot);
}

/// As [`assert_same`], of what `of` leaves of the figures.
fn assert_same_but(one: &mut Engine, other: &mut Engine, of: impl Fn(Snapshot) -> Snapshot) {
    assert_eq!(one.tracked_customers(), other.tracked_customers());
    for days in [-60, -20, -1, 0, 1, 10, 100] {
        assert_eq!(of(snapshot(one, days)), of(snapshot(other, days)), "{days} days later");
    }
    for id in (0..2_000).map(id) {
        assert_eq!(one.customer(&id), other.customer(&id), "{id}");
    }
    assert_eq!(one.clone().release(&Allowance::ALL), other.clone().release(&Allowance::ALL));
}

/// A partition whose engine is written to a directory.
struct Partition {
    directory: TempDir,
    store: Store,
    engine: Engine,
    last: Option<WrittenCheckpoint>,
}

impl Partition {
    async fn new() -> Partition {
        let directory = tempfile::tempdir_in(crate::support::scratch()).unwrap();
        let store = Store::open(&format!("file://{}", directory.path().display()), "store-1").await.unwrap();
        Partition { directory, store, engine: Engine::new(spec()), last: None }
    }

    fn origin(&self, offset: i64) -> CheckpointOrigin {
        let topic = |name: &str| TopicEntry { name: name.into(), id: None, offset, anchor: None };
        CheckpointOrigin {
            group: GROUP.into(),
            partition: 3,
            partitions: 4,
            topics: vec![topic("orders"), topic("sessions")],
            store: self.store.id().into(),
            since: ORIGIN,
            written: ORIGIN,
        }
    }

    async fn checkpoint(&mut self, offset: u64) {
        let Some(checkpoint) = self.engine.checkpoint() else { return };
        let before = self.last.as_ref().map(|last| &last.manifest);
        let origin = self.origin(offset as i64);
        let written = files::write_checkpoint(&self.store, &spec(), origin, &checkpoint, before, offset).await.unwrap();
        files::delete(&self.store, GROUP, &written.superseded).await.unwrap();
        self.last = Some(written);
    }

    fn named(&self) -> ManifestRef {
        // By way of the text that is committed.
        let text = Metadata::State(self.last.as_ref().unwrap().reference.clone()).to_string();
        let Ok(Metadata::State(named)) = text.parse() else { panic!("{text}") };
        named
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(files::group_directory(GROUP)).join(name)
    }

    fn manifest(&self) -> &Manifest {
        &self.last.as_ref().unwrap().manifest
    }
}

fn expected(store: &str) -> Expected {
    let topics = ["orders", "sessions"].map(|name| (name.to_owned(), None)).to_vec();
    Expected { group: GROUP.into(), partition: 3, partitions: 4, topics, store: store.into() }
}

async fn load(partition: &Partition) -> Result<(Engine, Manifest), files::LoadError> {
    let store = &partition.store;
    files::load(store, &partition.named(), &expected(store.id()), &spec(), 2).await
}

#[tokio::test]
async fn a_partition_goes_on_where_its_files_end() {
    let mut partition = Partition::new().await;
    let mut steady = Engine::new(spec());
    fill(&mut steady, 45_000);
    fill(&mut partition.engine, 45_000);
    let mut most = 0;
    for n in 0..9_000 {
        give(&mut steady, n);
        give(&mut partition.engine, n);
        if n % 45 == 44 {
            partition.checkpoint(n).await;
            most = most.max(partition.manifest().files.len());
        }
        if n % 2_000 == 1_999 {
            // What happened since the last checkpoint is lost and read again.
            let (engine, manifest) = load(&partition).await.unwrap();
            partition.engine = engine;
            let offset = manifest.origin.topics[0].offset as u64;
            (offset + 1..=n).for_each(|n| give(&mut partition.engine, n));
            assert_same(&mut partition.engine, &mut steady);
        }
    }
    assert!((12..=256).contains(&most), "{most} files at most");
    let named: BTreeSet<_> = partition.manifest().files.iter().map(|file| file.name.clone()).collect();
    let there = fs::read_dir(partition.path("p3")).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<_> = there.map(|name| format!("p3/{}", name.to_str().unwrap())).collect();
    let files: BTreeSet<_> = there.into_iter().filter(|name| !name.ends_with(".json")).collect();
    assert_eq!(files, named, "what is superseded is deleted, and nothing else");
}

#[tokio::test]
async fn damage_and_loss_are_noticed_and_named() {
    let mut partition = Partition::new().await;
    for n in 0..400 {
        give(&mut partition.engine, n);
        if n % 100 == 99 {
            partition.checkpoint(n).await;
        }
    }
    assert!(load(&partition).await.is_ok());
    let manifest = partition.named().name;
    let names = partition.manifest().files.iter().map(|file| file.name.clone()).chain([manifest]);
    for name in names.collect::<Vec<_>>() {
        let path = partition.path(&name);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        for content in [Some(damaged.as_slice()), Some(&whole[..whole.len() - 1]), Some(&[]), None] {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = load(&partition).await.unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("rewind"), "{error}");
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(load(&partition).await.is_ok());
}

/// The directory with what a version wrote.
fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/checkpoint-v{version}"))
}

/// The figures as text that no change of an internal type changes.
fn figures(engine: &mut Engine) -> String {
    let mut text = format!("customers {}\n", engine.tracked_customers());
    for days in [-30, 0, 40] {
        let snapshot = snapshot(engine, days);
        for (window, parts) in spec().rolling.iter().zip(snapshot.rolling) {
            let parts = parts.unwrap();
            let p = parts.parts;
            let people = [p.start, p.end, p.new, p.lost, p.ordering, p.repeat, p.returning, p.visiting];
            let counts = [p.orders, p.sessions, p.repeaters, p.referred, p.lost_complainers, p.costed, p.to_date];
            _ = writeln!(text, "{} {} {people:?} {counts:?} {}", snapshot.at, window.name, p.gap_millis);
            for (currency, money) in parts.money {
                let costs = [money.costs.acquisition, money.costs.retention, money.costs.to_date];
                _ = writeln!(text, "  {currency} {} {} {} {costs:?}", money.orders, money.revenue, money.refunds);
            }
        }
        for ((dimension, value), windows) in snapshot.segments {
            _ = writeln!(text, "  {dimension} {value} {}", windows[0].as_ref().map_or(-1, |parts| parts.parts.end));
        }
        _ = writeln!(text, "  {:?} {}", snapshot.lifecycle.customers, snapshot.lifecycle.prospects);
        _ = writeln!(text, "  {} referrals", snapshot.totals.referrals);
        for (kind, feedback) in snapshot.totals.feedback {
            _ = writeln!(text, "  {kind} {} {}", feedback.count, feedback.accepted);
        }
        let spread = snapshot.distributions;
        for gaps in [spread.interpurchase, spread.second_order].into_iter().flatten() {
            _ = writeln!(text, "  {} {} {:?}", gaps.count, gaps.sum, gaps.cumulative(GAPS));
        }
        for (currency, values) in spread.order_value {
            let cumulative = values.cumulative(order_values(currency));
            _ = writeln!(text, "  {currency} {} {} {cumulative:?}", values.count, values.sum);
        }
        for (months, cell) in snapshot.cohorts.unwrap() {
            _ = writeln!(text, "  {months:?} {} {}", cell.ordering, cell.orders);
        }
    }
    text
}

/// `RETENTIOND_WRITE_GOLDEN=1` writes the files anew, which only a change of the format's version may ask for.
#[tokio::test]
async fn this_version_is_read() {
    if std::env::var_os("RETENTIOND_WRITE_GOLDEN").is_some() {
        write_golden().await;
    }
    read_golden(VERSION, &spec()).await;
}

/// It knew no silences.
#[tokio::test]
async fn the_version_before_is_read() {
    read_golden(VERSION - 1, &without_rules()).await;
    let (_directory, mut engine) = load_golden(VERSION - 1, &spec()).await;
    assert_eq!(engine.waiting_alerts(), 0, "what was due before there was a rule is nobody's business");
    let begun = engine.clock().watermark().unwrap();
    (GOLDEN_EVENTS..3 * GOLDEN_EVENTS).for_each(|n| give(&mut engine, n));
    let alerts = engine.release(&Allowance::ALL);
    assert!(alerts.len() > 100 && alerts.iter().all(|alert| alert.due_at >= begun), "{}", alerts.len());
}

async fn load_golden(version: u32, spec: &Arc<Spec>) -> (TempDir, Engine) {
    let golden = golden(version);
    // A copy: opening a store may write to it.
    let directory = tempfile::tempdir_in(crate::support::scratch()).unwrap();
    copy(&golden, directory.path());
    let store = Store::open(&format!("file://{}", directory.path().display()), "another").await.unwrap();
    let text = fs::read_to_string(golden.join("committed.txt")).unwrap();
    let Ok(Metadata::State(named)) = text.trim().parse() else { panic!("{text}") };
    let (engine, manifest) = files::load(&store, &named, &expected(store.id()), spec, 1).await.unwrap();
    assert_eq!(manifest.version, version);
    (directory, engine)
}

async fn read_golden(version: u32, spec: &Arc<Spec>) {
    let (_directory, mut engine) = load_golden(version, spec).await;
    assert_eq!(figures(&mut engine), fs::read_to_string(golden(version).join("figures.txt")).unwrap());
    let mut steady = Engine::new(Arc::clone(spec));
    (0..GOLDEN_EVENTS).for_each(|n| give(&mut steady, n));
    assert!(snapshot(&mut engine, 0).cohorts_known.returns.is_some(), "version 0.1.0 kept no refunds by cohort");
    assert_same_but(&mut engine, &mut steady, without_returns_by_cohort);
}

fn without_returns_by_cohort(mut snapshot: Snapshot) -> Snapshot {
    snapshot.cohorts_known.returns = None;
    for money in snapshot.cohorts.iter_mut().flatten().flat_map(|(_, cell)| cell.money.values_mut()) {
        (money.refunds, money.cancellations) = (0, 0);
    }
    snapshot
}

const GOLDEN_EVENTS: u64 = 900;

async fn write_golden() {
    let mut partition = Partition::new().await;
    for n in 0..GOLDEN_EVENTS {
        give(&mut partition.engine, n);
        if n % 300 == 299 {
            partition.checkpoint(n).await;
        }
    }
    let golden = golden(VERSION);
    _ = fs::remove_dir_all(&golden);
    fs::create_dir_all(&golden).unwrap();
    let (mut engine, manifest) = load(&partition).await.unwrap();
    let live = manifest.files.iter().map(|file| file.name.clone()).chain([partition.named().name]);
    for name in live.map(|name| format!("{}/{name}", files::group_directory(GROUP))).chain(["store.json".into()]) {
        let to = golden.join(&name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(partition.directory.path().join(&name), to).unwrap();
    }
    let text = Metadata::State(partition.named()).to_string();
    fs::write(golden.join("committed.txt"), text + "\n").unwrap();
    fs::write(golden.join("figures.txt"), figures(&mut engine)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { _ = fs::copy(from, to).unwrap() }
    }
}

/// The query of the document, over live files, finds the customers who brought most.
#[tokio::test]
async fn duckdb_reads_the_customers() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let mut partition = Partition::new().await;
    fill(&mut partition.engine, 20_000);
    for n in 0..3_000 {
        give(&mut partition.engine, n);
        if n % 250 == 249 {
            partition.checkpoint(n).await;
        }
    }
    assert!(partition.manifest().files.iter().filter(|file| file.kind == FileKind::Rows).count() > 3);
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/internals/checkpoint-format.md")).unwrap();
    let sql = document.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a query");
    let directory = partition.path("");
    let sql = sql
        .replace("/var/lib/retentiond/retentiond/", &format!("{}/", directory.display()))
        .replace("p3/0000000042-5d0fe6c4a8c1b2d3.json", &partition.named().name);
    assert!(sql.contains(&partition.named().name), "the document names a manifest as the test expects: {sql}");
    let script =
        "import duckdb, sys\nrows = duckdb.execute(sys.argv[1]).fetchall()\nfor row in rows: print(row[0], row[1])";
    let output = Command::new(oracle.python()).args(["-c", script, &sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    // The first checkpoint of an engine holds everything.
    let mut again = Engine::new(spec());
    fill(&mut again, 20_000);
    (0..3_000).for_each(|n| give(&mut again, n));
    let rows = again.checkpoint().unwrap().rows.unwrap().rows;
    // The first event was one in euros.
    let in_euros = |row: &Row<'_>| row.known.net_revenue.filter(|(currency, _)| *currency == 0);
    let mut top: Vec<_> = rows.iter().filter_map(|row| Some((in_euros(&row)?.1, row.id?.into_owned()))).collect();
    top.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let expected: String = top.iter().take(10).map(|(minor, id)| format!("{id} {minor}\n")).collect();
    assert_eq!(told, expected);
}
