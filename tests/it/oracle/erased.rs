//! Erased customers with orders in one topic and sessions in another: SQL, `replay` and the daemon's worker give the
//! same figures, whichever topic is read first.

use std::path::PathBuf;
use std::sync::Arc;

use retentiond::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::engine::snapshot::Periods;
use retentiond::engine::spec::Spec;
use retentiond::event::{DAY, HOUR, Time};
use retentiond::output::summary::Summary;
use retentiond::shop::{Crisis, Published, Shop, ShopSettings, Stream};
use retentiond::wiring::worker_config;
use retentiond::worker::Worker;
use serde_json::{Value, json};

use super::PARTS;
use crate::support::history::write;
use crate::support::{cli, log, oracle, scratch};

const TOML: &str = "
[sources.orders]
topic = \"orders\"
[sources.sessions]
topic = \"sessions\"
clock = false
[customers]
dimensions = { channel = [\"web\", \"app\"] }
[[windows]]
name = \"7d\"
period = \"7d\"
[[windows]]
name = \"30d\"
period = \"30d\"
[[calendar]]
name = \"month\"
";

const INSTANTS: [&str; 4] =
    ["2025-02-20T00:00:00Z", "2025-04-11T13:30:00Z", "2025-05-20T00:00:00Z", "2025-08-01T00:00:00Z"];

/// Like `simulate --customers 1000 --days 150 --slump 0.8 --slump-days 30`, but many more of the customers who leave
/// are erased, and most of those return under the same id.
fn shop() -> Vec<Published> {
    let start = ShopSettings::default().start;
    let slump = Crisis { at: start.plus(120 * DAY), share: 0.8, channel: None };
    let settings = ShopSettings {
        initial_customers: 1_000,
        customers_per_day: 5.0,
        erasures: 0.3,
        duplicates: 0.05,
        late: 0.1,
        too_late: 0.0,
        crises: vec![slump],
        ..ShopSettings::default()
    };
    let mut log: Vec<_> =
        Shop::new(settings).take_while(|message| message.emitted_at < start.plus(150 * DAY)).collect();
    let erased: Vec<_> =
        log.iter().filter(|message| is_erasure(message)).map(|m| (m.emitted_at, m.key.clone())).collect();
    assert!(erased.len() > 50, "{} are erased", erased.len());
    for (n, (at, customer)) in (0_i64..).zip(&erased) {
        log.extend(comeback(n, *at, customer));
    }
    log.sort_by_key(|message| message.emitted_at);
    log
}

fn is_erasure(message: &Published) -> bool {
    message.payload.as_ref().is_none_or(|payload| payload.contains(r#""type":"erase""#))
}

/// A session from before the erasure that arrives after it. Two in three customers also have later sessions and orders,
/// some of them within minutes of the erasure; some are erased again.
fn comeback(n: i64, at: Time, customer: &str) -> Vec<Published> {
    let message = |stream, time: Time, late: i64, rest: &str| Published {
        stream,
        emitted_at: time.plus(late),
        key: customer.to_owned(),
        payload: Some(format!(r#"{{"customer_id":"{customer}","time":"{time}",{rest}}}"#)),
    };
    let session = |time, late, id: i64| {
        message(Stream::Sessions, time, late, &format!(r#""type":"session","session_id":"back-{n}-{id}""#))
    };
    let order = |time, id: i64| {
        let what = r#""type":"order","amount":"12.50","currency":"EUR","attributes":{"channel":"app"}"#;
        message(Stream::Orders, time, 500, &format!(r#"{what},"order_id":"back-{n}-{id}""#))
    };
    let mut all = vec![session(at.plus(-2 * HOUR), 5 * HOUR, 0)];
    if n % 3 > 0 {
        all.extend([session(at.plus(5_000 * (n % 7)), 900, 1), order(at.plus(20_000 + n * HOUR / 3), 1)]);
        all.extend([session(at.plus(30 * HOUR), 900, 2), order(at.plus(3 * DAY), 2)]);
    }
    if n % 6 == 1 {
        all.push(message(Stream::Orders, at.plus(2 * DAY), 500, r#""type":"erase""#));
    }
    all
}

/// The message as a line of a file, which has no record timestamp.
fn line(message: &Published) -> String {
    let erase = || format!(r#"{{"type":"erase","customer_id":"{}","time":"{}"}}"#, message.key, message.emitted_at);
    message.payload.clone().unwrap_or_else(erase) + "\n"
}

/// A batch of one message.
struct One(Published, i64);

impl RecordBatch for One {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Record<'_> {
        let payload = self.0.payload.as_deref().map(str::as_bytes);
        Record { offset: self.1, key: Some(self.0.key.as_bytes()), payload }
    }

    fn stamp(&self, _: usize) -> Stamp {
        Stamp { time: Some(self.0.emitted_at.millis()), leader_epoch: None }
    }

    fn headers(&self, _: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

/// The messages in the order of each topic, with sessions read later (or earlier) than orders by this time.
fn shifted(log: &[Published], by: impl Fn(Time) -> i64) -> Vec<Published> {
    let mut last = i64::MIN;
    let mut read_at = |message: &Published| match message.stream {
        Stream::Sessions => {
            last = last.max(message.emitted_at.millis() + by(message.emitted_at));
            last
        }
        Stream::Orders => message.emitted_at.millis(),
    };
    let mut all: Vec<_> = log.iter().map(|message| (read_at(message), message)).collect();
    all.sort_by_key(|(read_at, _)| *read_at);
    all.into_iter().map(|(_, message)| message.clone()).collect()
}

/// The summaries of the daemon's worker for the messages in this order.
fn worker_says(log: &[Published], toml: &std::path::Path) -> Value {
    let settings = log::settings(Some(toml));
    let mut config = worker_config::new(&settings);
    config.spec = Arc::new(Spec { history: None, ..worker_config::spec(&settings) });
    let mut worker = Worker::new(Arc::new(config));
    let partition = Partition(0);
    worker.start(partition);
    let mut next = [0, 0];
    for message in log {
        let topic = usize::from(message.stream == Stream::Sessions);
        let at = TopicPartition { topic: TopicIndex(u16::try_from(topic).unwrap()), partition };
        let mut rejected = Vec::new();
        worker.apply(at, &One(message.clone(), next[topic]), Time::MAX, &mut rejected);
        assert!(rejected.is_empty(), "{rejected:?}");
        next[topic] += 1;
    }
    let spec = Arc::new(Spec { history: None, ..worker_config::spec(&settings) });
    let status = worker.status();
    let first_order = status.partitions[0].first_order;
    let background = worker_config::background(&settings, status.partitions[0].first_event);
    let summary = |instant: &&str| -> Value {
        let at = Time::parse(instant).unwrap();
        let snapshot = worker.snapshot(at, Periods::Since(first_order.unwrap_or(at)));
        let text = serde_json::to_string(&Summary::new(&spec, &snapshot, &background)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    INSTANTS.iter().map(summary).collect()
}

#[test]
fn erasures_equal_sql_whichever_topic_is_read_first() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let log = shop();
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let file = |name: &str, wanted: &dyn Fn(&Published) -> bool| -> PathBuf {
        write(dir.path(), name, log.iter().filter(|message| wanted(message)).map(line).collect::<String>())
    };
    let all = file("all.ndjson", &|_| true);
    let orders = file("orders.ndjson", &|message| message.stream == Stream::Orders);
    let sessions = file("sessions.ndjson", &|message| message.stream == Stream::Sessions);
    let toml = write(dir.path(), "retentiond.toml", TOML);
    let config = json!({
        "dimensions": {"channel": ["web", "app"]},
        "windows": [{"name": "7d", "period_ms": 7 * DAY}, {"name": "30d", "period_ms": 30 * DAY}],
        "calendar": [{"name": "month", "active_for_days": 90}],
    });
    let expected = oracle.oracle(&all, &config, &PARTS, &INSTANTS);
    let mut compared = 0;
    for files in [[&orders, &sessions], [&sessions, &orders]] {
        let files = files.map(PathBuf::as_path);
        let found = INSTANTS.iter().map(|at| cli::replay(&files, Some(&toml), Some(at))).collect();
        compared += oracle.compare(&expected, &found);
    }
    let by_turns = |time: Time| (time.millis() / (7 * HOUR) % 5 - 2) * 9 * HOUR;
    for log in
        [shifted(&log, |_| 0), shifted(&log, |_| -20 * HOUR), shifted(&log, |_| 1_000 * DAY), shifted(&log, by_turns)]
    {
        compared += oracle.compare(&expected, &worker_says(&log, &toml));
    }
    assert!(compared > 5_000, "{compared} figures were compared");
}
