//! A small shop for tests of outputs: one worker, two topics, a few orders.

use std::sync::Arc;

use crate::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use crate::decode::{Decoder, Format};
use crate::engine::inactivity::release::Allowance;
use crate::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};
use crate::engine::lifecycle::LifecycleSpec;
use crate::engine::segments::DimensionSpec;
use crate::engine::snapshot::Periods;
use crate::engine::spec::{CalendarSpec, RollingSpec, Spec};
use crate::engine::zone::{Unit, Zone};
use crate::event::{DAY, HOUR, Time};
use crate::worker::pool::Overview;
use crate::worker::{Worker, WorkerConfig};

/// Messages without keys.
pub(crate) struct Lines(pub Vec<String>);

impl RecordBatch for Lines {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        Record { offset: i64::try_from(index).unwrap(), key: None, payload: Some(self.0[index].as_bytes()) }
    }

    fn stamp(&self, _index: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }

    fn headers(&self, _index: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

pub(crate) const ORDERS: TopicPartition = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
pub(crate) const SESSIONS: TopicPartition = TopicPartition { topic: TopicIndex(1), partition: Partition(0) };

pub(crate) fn topics() -> Vec<String> {
    vec!["orders".to_owned(), "sessions".to_owned()]
}

/// A 30-day and a 365-day window, months and years, a day of lateness.
pub(crate) fn worker_config() -> Arc<WorkerConfig> {
    let rolling = |days: i64, resolution| RollingSpec {
        name: format!("{days}d"),
        period: days * DAY,
        active_for: days.max(90) * DAY,
        resolution,
    };
    let calendar = |unit, active_for_days| CalendarSpec { unit, active_for_days: Some(active_for_days) };
    let spec = Spec {
        rolling: vec![rolling(30, HOUR), rolling(365, DAY)],
        calendar: vec![calendar(Unit::Month, 90), calendar(Unit::Year, 366)],
        zone: Zone::utc(),
        allowed_lateness: DAY,
        dedup_for: 7 * DAY,
        history: None,
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".to_owned(), values: Vec::new() }],
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 90 * DAY, at_risk_cadence: 2.0, at_risk_min: 7 * DAY, loyal_orders: 5 },
        rates: None,
        inactivity: inactivity(),
    };
    let decoder = || Decoder::new(Format::Native, Vec::new());
    Arc::new(WorkerConfig { spec: Arc::new(spec), decoders: vec![decoder(), decoder()] })
}

/// Alerts on customers without an order for 45 days, without a holdout.
fn inactivity() -> InactivitySpec {
    let rule = RuleSpec { name: "lapsing".into(), silence: SilenceRule::After(45 * DAY), filter: Filter::default() };
    InactivitySpec {
        rules: vec![rule],
        settle: DAY,
        since: Some(Time::MIN),
        winback_within: 60 * DAY,
        ..InactivitySpec::default()
    }
}

pub(crate) fn order(id: u32, customer: &str, time: &str, amount: &str, currency: &str) -> String {
    format!(
        r#"{{"type":"order","order_id":"o{id}","customer_id":"{customer}","time":"{time}","amount":"{amount}","currency":"{currency}"}}"#
    )
}

fn event(kind: &str, customer: &str, time: &str, fields: &str) -> String {
    format!(r#"{{"type":"{kind}","customer_id":"{customer}","time":"{time}",{fields}}}"#)
}

/// Anna stays, Bert complains and is lost in April, Cora is referred and new in May. Also a cost in each currency, a
/// duplicate, a late order, and a message that is not JSON.
pub(crate) fn orders() -> Lines {
    Lines(vec![
        order(1, "anna", "2025-12-20T00:00:00Z", "10.00", "EUR"),
        order(2, "bert", "2026-01-20T00:00:00Z", "20.00", "EUR"),
        event("feedback", "bert", "2026-01-21T00:00:00Z", r#""kind":"complaint""#),
        order(3, "anna", "2026-03-15T00:00:00Z", "30.00", "EUR"),
        order(4, "anna", "2026-04-25T00:00:00Z", "40.50", "EUR"),
        event("customer", "cora", "2026-05-01T00:00:00Z", r#""referred_by":"anna""#),
        event("cost", "cora", "2026-05-01T00:00:00Z", r#""kind":"acquisition","amount":"90","currency":"JPY""#),
        event("cost", "anna", "2026-05-01T00:00:00Z", r#""kind":"retention","amount":"1.50","currency":"EUR""#),
        order(5, "cora", "2026-05-01T00:00:00Z", "900", "JPY"),
        order(5, "cora", "2026-05-01T00:00:00Z", "900", "JPY"),
        order(6, "bert", "2026-02-01T00:00:00Z", "1.00", "EUR"),
        "no JSON".to_owned(),
        order(7, "cora", "2026-05-02T12:00:00Z", "600", "JPY"),
    ])
}

pub(crate) fn sessions() -> Lines {
    let session = |id: u32, customer: &str| {
        format!(r#"{{"type":"session","session_id":"s{id}","customer_id":"{customer}","time":"2026-05-02T00:00:00Z"}}"#)
    };
    Lines(vec![session(1, "anna"), session(2, "anna"), session(3, "dora")])
}

/// The shop with all messages applied.
pub(crate) struct Shop {
    pub spec: Arc<Spec>,
    worker: Worker,
}

impl Shop {
    pub(crate) fn new() -> Shop {
        Shop::of(&worker_config())
    }

    pub(crate) fn of(config: &Arc<WorkerConfig>) -> Shop {
        let mut worker = Worker::new(Arc::clone(config));
        let mut rejected = Vec::new();
        worker.start(Partition(0));
        worker.start(Partition(1));
        worker.apply(ORDERS, &orders(), Time::MAX, &mut rejected);
        worker.apply(SESSIONS, &sessions(), Time::MAX, &mut rejected);
        worker.checkpoint(ORDERS.partition, 1, &Allowance::ALL);
        worker.confirm(ORDERS.partition, 1);
        Shop { spec: Arc::clone(&config.spec), worker }
    }

    pub(crate) fn overview(&mut self) -> Overview {
        let mut overview = Overview { status: self.worker.status(), snapshot: None };
        overview.snapshot = overview.now().map(|now| self.worker.snapshot(now, Periods::OpenAndPrevious));
        overview
    }
}
