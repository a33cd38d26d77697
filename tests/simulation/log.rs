//! The source topics, the engine of a partition, and the comparison of states.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use retentiond::engine::inactivity::release::Allowance;
use retentiond::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};
use retentiond::engine::lifecycle::LifecycleSpec;
use retentiond::engine::segments::DimensionSpec;
use retentiond::engine::snapshot::{Periods, Snapshot};
use retentiond::engine::spec::{CalendarSpec, RollingSpec, Spec};
use retentiond::engine::zone::{Unit, Zone};
use retentiond::engine::{Engine, Outcome};
use retentiond::event::{Attributes, Currency, DAY, Event, HOUR, Kind, MINUTE, Money, Time};

use crate::chance::Chance;

/// Orders, and sessions, which do not drive the clock.
pub const TOPICS: usize = 2;
const LATENESS: i64 = 2 * DAY;
const ORIGIN: i64 = 15_000 * DAY;

pub fn spec(seed: u64) -> Spec {
    let rolling = |name: &str, period: i64, active_for: i64, resolution: i64| RollingSpec {
        name: name.into(),
        period,
        active_for,
        resolution,
    };
    Spec {
        rolling: vec![rolling("short", 2 * DAY, 3 * DAY, 6 * HOUR), rolling("long", 8 * DAY, 12 * DAY, DAY)],
        calendar: vec![CalendarSpec { unit: Unit::Month, active_for_days: Some(31) }],
        zone: Zone::new(&TimeZone::UTC),
        allowed_lateness: LATENESS,
        // Unlimited: duplicates never count, however far event time jumps between two records.
        dedup_for: 100_000 * DAY,
        history: None,
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: vec!["web".into()] }],
        rates: None,
        inactivity: inactivity(seed),
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 6 * DAY, at_risk_cadence: 1.5, at_risk_min: 5 * HOUR, loyal_orders: 3 },
    }
}

/// Log-uniform from a minute to two years.
fn span(chance: &mut Chance) -> i64 {
    chance.magnitude(MINUTE, 730 * DAY)
}

/// One to six rules of all kinds, from a separate source of randomness for this seed.
fn inactivity(seed: u64) -> InactivitySpec {
    let mut chance = Chance::new(seed ^ 0x5117_E5CE);
    let mut rule = |number: i64| {
        let silence = match chance.within(0..5) {
            0 => {
                let (one, other) = (span(&mut chance), span(&mut chance));
                let factor = chance.within(1..40) as f64 / 10.0;
                SilenceRule::Cadence { factor, min: one.min(other), max: one.max(other) }
            }
            1 => SilenceRule::NoSessionFor(span(&mut chance)),
            _ => SilenceRule::After(span(&mut chance)),
        };
        let mut filter = Filter::default();
        match chance.within(0..8) {
            0 => filter.min_orders = chance.within(1..4) as u32,
            1 => filter.stages = vec![chance.within(0..4) as u8],
            2 => filter.segment = vec![(0, (*chance.pick(&["web", "other", "unknown"]).unwrap()).into())],
            _ => {}
        }
        RuleSpec { name: format!("rule {number}"), silence, filter }
    };
    let rules: Vec<_> = (0..1 + seed as i64 % 6).map(&mut rule).collect();
    InactivitySpec {
        rules,
        settle: LATENESS,
        since: Some(Time::MIN),
        holdout: 0.2,
        salt: "salt".into(),
        winback_within: span(&mut chance),
    }
}

/// Whether all events are in one topic: sessions known when a silence is decided are defined only if their order
/// relative to orders is.
fn is_one_topic(spec: &Spec) -> bool {
    spec.inactivity.rules.iter().any(|rule| matches!(rule.silence, SilenceRule::NoSessionFor(_)))
}

/// The payload of a message.
#[derive(Debug, Clone)]
pub enum Payload {
    Event(Event<'static>),
    /// Erases a customer.
    Erase(String, Time),
    Bad,
}

/// A record that leaves the daemon for another topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// The test alert for an accepted order.
    Alert { partition: i32, customer: String, order: String },
    /// An inactivity alert or win-back.
    Silent { partition: i32, text: String },
    /// A rejected message.
    DeadLetter { partition: i32, topic: usize, offset: i64 },
}

impl Entry {
    pub fn partition(&self) -> i32 {
        match self {
            Entry::Alert { partition, .. } | Entry::Silent { partition, .. } | Entry::DeadLetter { partition, .. } => {
                *partition
            }
        }
    }
}

/// Messages by topic and partition, with offsets; offsets have gaps, as after aborted transactions.
pub struct Log {
    records: BTreeMap<(usize, i32), Vec<(i64, Payload)>>,
    /// The offset after the last record or gap.
    ends: BTreeMap<(usize, i32), i64>,
    /// Current event time, in milliseconds after the origin.
    elapsed: i64,
    ids: u32,
    /// Erased customers with the time. They have no later events, but earlier events may still arrive.
    erased: BTreeMap<String, Time>,
    is_one_topic: bool,
}

impl Log {
    pub fn new(spec: &Spec) -> Log {
        let is_one_topic = is_one_topic(spec);
        let (records, ends, erased) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Log { records, ends, elapsed: 0, ids: 0, erased, is_one_topic }
    }

    /// Whether an alert is about a customer who is erased at some time.
    pub fn is_of_the_erased(&self, entry: &Entry) -> bool {
        let Entry::Silent { text, .. } = entry else { return false };
        self.erased.keys().any(|customer| text.contains(&format!("customer: {customer:?},")))
    }

    /// The first record at or after an offset.
    pub fn at_or_after(&self, topic: usize, partition: i32, offset: i64) -> Option<&(i64, Payload)> {
        let records = self.records.get(&(topic, partition))?;
        records.get(records.partition_point(|(at, _)| *at < offset))
    }

    pub fn end(&self, topic: usize, partition: i32) -> i64 {
        self.ends.get(&(topic, partition)).copied().unwrap_or(0)
    }

    pub fn produce(&mut self, partition: i32, chance: &mut Chance) {
        let is_session = chance.happens(0.3);
        let topic = usize::from(is_session && !self.is_one_topic);
        self.elapsed += match chance.within(0..100) {
            0..2 => span(chance),
            2..30 => chance.magnitude(MINUTE, 20 * DAY),
            _ => chance.within(0..2 * HOUR),
        };
        let payload = self.payload(topic, is_session, partition, chance);
        let end = self.ends.entry((topic, partition)).or_insert(0);
        *end += if chance.happens(0.1) { chance.within(1..4) } else { 0 };
        self.records.entry((topic, partition)).or_default().push((*end, payload));
        *end += 1;
    }

    fn payload(&mut self, topic: usize, is_session: bool, partition: i32, chance: &mut Chance) -> Payload {
        let former = self.records.get(&(topic, partition)).map_or(&[][..], Vec::as_slice);
        if chance.happens(0.15)
            && let Some((_, copy)) = chance.pick(former)
        {
            return copy.clone();
        }
        if chance.happens(0.05) {
            return Payload::Bad;
        }
        let now = Time::clamped(ORIGIN + 20 * DAY + self.elapsed);
        let customer = format!("c{partition}-{}", chance.within(0..15));
        // Some ids belong to customers who request erasure.
        if topic == 0 && chance.happens(0.04) {
            let leaver = format!("c{partition}-{}", chance.within(9..15));
            let at = *self.erased.entry(leaver.clone()).or_insert(now);
            return Payload::Erase(leaver, at);
        }
        let late = if chance.happens(0.2) { chance.within(0..4 * DAY) } else { chance.within(0..HOUR) };
        let time = now.plus(-late).min(self.erased.get(&customer).copied().unwrap_or(Time::MAX));
        self.ids += 1;
        let id = self.ids.to_string();
        let amount =
            Money { minor: chance.within(0..10_000), currency: Currency::from_code("EUR").expect("a currency") };
        let kind = match chance.within(0..10) {
            _ if is_session => Kind::Session { id: Some(id.into()) },
            0 => Kind::Refund { id: Some(id.into()), amount },
            1 => Kind::Cancel { order: Some(id.into()), amount },
            number => {
                let mut attributes = Attributes::default();
                if number < 8 {
                    attributes.set(0, Cow::Borrowed(if number < 5 { "web" } else { "shop" }));
                }
                Kind::Order { id: Some(id.into()), amount, attributes, referred_by: None }
            }
        };
        Payload::Event(Event { customer: customer.into(), time, kind })
    }
}

/// The engine of a partition with its position.
#[derive(Clone)]
pub struct PartitionState {
    partition: i32,
    engine: Engine,
    /// The next offset of each topic.
    pub next: Vec<i64>,
    /// Applied, duplicate, too late, bad.
    tally: [u64; 4],
}

impl PartitionState {
    pub fn empty(spec: &Arc<Spec>, partition: i32, next: Vec<i64>) -> PartitionState {
        PartitionState { partition, engine: Engine::new(Arc::clone(spec)), next, tally: [0; 4] }
    }

    /// Applies a record; without `dedup`, first removes its identity.
    pub fn apply(&mut self, topic: usize, offset: i64, payload: &Payload, dedup: bool) -> Option<Entry> {
        self.next[topic] = offset + 1;
        let dead_letter = Some(Entry::DeadLetter { partition: self.partition, topic, offset });
        let event = match payload {
            Payload::Event(event) => event,
            Payload::Erase(customer, time) => {
                self.engine.erase(topic, customer, Some(*time));
                return None;
            }
            Payload::Bad => {
                self.tally[3] += 1;
                return dead_letter;
            }
        };
        let outcome = if dedup { self.engine.apply(topic, event) } else { self.engine.apply(topic, &anonymous(event)) };
        self.tally[outcome as usize] += 1;
        match (outcome, &event.kind) {
            (Outcome::TooLate, _) => dead_letter,
            (Outcome::Applied, Kind::Order { id: Some(id), .. }) => Some(Entry::Alert {
                partition: self.partition,
                customer: event.customer.to_string(),
                order: id.to_string(),
            }),
            _ => None,
        }
    }

    /// Releases alerts, as a checkpoint does.
    pub fn silent(&mut self) -> Vec<Entry> {
        let alerts = self.engine.release(&Allowance::ALL).into_iter();
        alerts.map(|alert| Entry::Silent { partition: self.partition, text: format!("{alert:?}") }).collect()
    }

    /// Applies the log up to these offsets, and returns the entries.
    pub fn advance(&mut self, log: &Log, to: &[i64]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (topic, &to) in to.iter().enumerate() {
            while let Some((offset, payload)) = log.at_or_after(topic, self.partition, self.next[topic])
                && *offset < to
            {
                entries.extend(self.apply(topic, *offset, payload, true));
            }
            self.next[topic] = to;
        }
        entries.extend(self.silent());
        entries
    }

    /// The difference between two states, if any: figures at several times, outcomes, customers, watermarks.
    pub fn difference(&self, other: &PartitionState) -> Option<String> {
        let plain = |state: &PartitionState| {
            let engine = &state.engine;
            let marks: Vec<_> = (0..TOPICS).map(|topic| engine.clock().topic_watermark(topic)).collect();
            (state.tally, engine.tracked_customers(), engine.first_event(), engine.first_order(), marks)
        };
        if plain(self) != plain(other) {
            return Some(format!("{:?} is not {:?}", plain(self), plain(other)));
        }
        let watermark = self.engine.clock().watermark()?;
        let instants = [
            (watermark, Periods::Since(Time::clamped(ORIGIN))),
            (watermark.plus(-3 * DAY), Periods::OpenAndPrevious),
            (watermark.plus(5 * DAY), Periods::OpenAndPrevious),
        ];
        let (mut mine, mut theirs) = (self.engine.clone(), other.engine.clone());
        for (at, periods) in instants {
            let (mine, theirs) = (snapshot(&mut mine, at, periods), snapshot(&mut theirs, at, periods));
            if mine != theirs {
                return Some(format!("the figures at {at} differ: {mine:?}\nis not\n{theirs:?}"));
            }
        }
        None
    }
}

fn snapshot(engine: &mut Engine, at: Time, periods: Periods) -> Snapshot {
    let mut snapshot = Snapshot::empty(engine.spec(), at, periods);
    snapshot.add(engine);
    // Released alerts are compared separately; for erased customers they depend on the timing of checkpoints.
    snapshot.inactivity.iter_mut().flat_map(|rule| &mut rule.groups).for_each(|group| group.sent = 0);
    snapshot
}

fn anonymous(event: &Event<'static>) -> Event<'static> {
    let mut event = event.clone();
    match &mut event.kind {
        Kind::Order { id, .. } | Kind::Refund { id, .. } | Kind::Session { id } => *id = None,
        Kind::Cancel { order, .. } => *order = None,
        _ => {}
    }
    event
}
