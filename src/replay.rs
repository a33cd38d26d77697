//! History from files: every event once, sorted by time, through the same engine as in the daemon.
//!
//! Files are read in the given order. Of several copies of an event, the first in file order counts. An erasure takes
//! effect no earlier than the events before it in its file. Then events and erasures are sorted by time.

mod as_of;
mod columns;
mod partitioned;
mod read;
mod rows;
mod shape;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

pub use self::as_of::AsOf;
pub use self::partitioned::{Handoff, Partitioned, Topics};
pub use self::read::{HistoryError, read};
use crate::decode::{Decoded, Decoder, Reason, Rejection, Skip};
use crate::engine::Engine;
use crate::engine::customers::Key;
use crate::engine::dedup::{days, fingerprint};
use crate::engine::inactivity::release::{Alert, Allowance};
use crate::engine::spec::Spec;
use crate::event::{Attributes, CostKind, DAY, Event, EventType, Kind, MAX_DIMENSIONS, Money, Time};
use crate::files::EventFile;

/// Maximum number of rejections that are kept with their explanation.
const SHOWN_REJECTIONS: usize = 10;

/// A rejected line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedLine {
    /// The file.
    pub path: PathBuf,
    /// Line number, counted from 1.
    pub line: u64,
    /// Why it was rejected.
    pub rejection: Rejection,
}

/// A compact event: tens of millions of them are sorted in memory.
#[derive(Debug)]
struct Row {
    time: Time,
    /// Index in [`History::customers`].
    customer: u32,
    /// The source topic that continues with such events; 0 without topics.
    topic: u16,
    what: FactKind,
}

#[derive(Debug)]
enum FactKind {
    Order { amount: Money, profile: u32 },
    Refund(Money),
    Cancel(Money),
    Session,
    Customer { profile: u32 },
    Feedback { kind: u32, score: Option<f32> },
    Cost(CostKind, Money),
    Erase,
}

/// Attributes and referrer of an order or a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Profile {
    attributes: [Option<Box<str>>; MAX_DIMENSIONS],
    referred_by: Option<Box<str>>,
}

type Hasher = foldhash::fast::FixedState;
/// Interned texts, referred to by index.
type Texts = indexmap::IndexSet<Box<str>, Hasher>;

/// Index of the empty profile, which most orders have.
const NO_PROFILE: u32 = u32::MAX;

/// All events of some files.
#[derive(Debug, Default)]
pub struct History {
    rows: Vec<Row>,
    customers: Texts,
    profiles: indexmap::IndexSet<Profile, Hasher>,
    feedback_kinds: Texts,
    /// Time of each customer's last erasure.
    erased: HashMap<u32, Time, Hasher>,
    /// Number of rows that are erasures.
    erasures: usize,
    /// The newest event of the current file so far.
    newest: Option<Time>,
    /// The identities of counted events, with the days of the events.
    seen: HashMap<u64, i64, Hasher>,
    /// Maximum number of days between an event and its copy.
    dedup_days: i64,
    /// Events whose copies may follow from a topic: time, type, identity.
    remembered: Vec<(Time, EventType, u64)>,
    /// What was read.
    pub tally: Tally,
}

/// Counts of everything that was read, except the events that count.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lines read.
    pub lines: u64,
    /// Duplicates.
    pub duplicates: u64,
    /// Events of unknown types.
    pub unknown: u64,
    /// Skipped messages, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// Rejected lines, by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// The first few rejected lines.
    pub examples: Vec<RejectedLine>,
}

impl Tally {
    fn reject(&mut self, path: &Path, line: u64, rejection: Rejection) {
        *self.rejected.entry(rejection.reason).or_default() += 1;
        if self.examples.len() < SHOWN_REJECTIONS {
            self.examples.push(RejectedLine { path: path.to_owned(), line, rejection });
        }
    }
}

impl History {
    /// An empty history. Events with the same id are copies if at most `dedup_for` milliseconds, in whole days, lie
    /// between them.
    #[must_use]
    pub fn new(dedup_for: i64) -> History {
        History { dedup_days: days(dedup_for), ..History::default() }
    }

    /// Reads a file to its end. Events after `latest` are rejected.
    ///
    /// # Errors
    /// If the file cannot be read, or a table lacks a column. A rejected line is not an error: it is counted in
    /// [`Tally::rejected`].
    pub fn read(&mut self, file: EventFile, decoder: &Decoder, latest: Time) -> Result<(), HistoryError> {
        self.newest = None;
        let path = file.path.clone();
        let lines = read::read(file, decoder, latest, &mut |line, decoded| self.add(&path, line, decoded))?;
        self.tally.lines += lines;
        Ok(())
    }

    fn add(&mut self, path: &Path, line: u64, decoded: Result<Decoded<'_>, Rejection>) {
        match decoded {
            Ok(Decoded::Event(event)) => self.add_event(&event),
            Ok(Decoded::Cancellation { event, .. }) => match self.has_order_of(&event) {
                true => self.add_event(&event),
                false => *self.tally.skipped.entry(Skip::Filtered).or_default() += 1,
            },
            Ok(Decoded::Several { events, .. }) => events.iter().for_each(|event| self.add_event(event)),
            Ok(Decoded::Erase { customer, time }) => {
                if let Some(at) = time.max(self.newest) {
                    self.erase(&customer, at, 0);
                }
            }
            Ok(Decoded::Unknown(_)) => self.tally.unknown += 1,
            Ok(Decoded::Skipped(skip)) => *self.tally.skipped.entry(skip).or_default() += 1,
            Ok(Decoded::Batch(parts)) => parts.into_iter().for_each(|part| self.add(path, line, part.located())),
            Err(rejection) => self.tally.reject(path, line, rejection),
        }
    }

    fn add_event(&mut self, event: &Event<'_>) {
        self.newest = self.newest.max(Some(event.time));
        match self.admit(event) {
            Some(_) => self.push(event, 0),
            None => self.tally.duplicates += 1,
        }
    }

    fn erase(&mut self, customer: &str, at: Time, topic: u16) {
        let customer = intern(&mut self.customers, customer);
        let last = self.erased.entry(customer).or_insert(at);
        *last = at.max(*last);
        self.erasures += 1;
        self.rows.push(Row { time: at, customer, topic, what: FactKind::Erase });
    }

    /// The identity of an event, if it has one; `None` if the event is a duplicate.
    fn admit(&mut self, event: &Event<'_>) -> Option<Option<u64>> {
        let Some(id) = event.kind.id() else { return Some(None) };
        let identity = fingerprint(Key::new(&event.customer).hash(), event.kind.event_type(), id);
        let day = event.time.millis() / DAY;
        match self.seen.insert(identity, day) {
            // A copy does not extend the time during which the first is remembered.
            Some(counted) if (day - counted).abs() <= self.dedup_days => {
                self.seen.insert(identity, counted);
                None
            }
            _ => Some(Some(identity)),
        }
    }

    /// Whether the order that an event cancels was read.
    fn has_order_of(&self, event: &Event<'_>) -> bool {
        let of = |id| fingerprint(Key::new(&event.customer).hash(), EventType::Order, id);
        event.kind.id().is_none_or(|id| self.seen.contains_key(&of(id)))
    }

    fn push(&mut self, event: &Event<'_>, topic: u16) {
        let customer = intern(&mut self.customers, &event.customer);
        let row = Row { time: event.time, customer, topic, what: self.what(&event.kind) };
        self.rows.push(row);
    }

    fn remember(&mut self, event: &Event<'_>, identity: u64) {
        self.remembered.push((event.time, event.kind.event_type(), identity));
    }

    fn what(&mut self, kind: &Kind<'_>) -> FactKind {
        match kind {
            Kind::Order { amount, attributes, referred_by, .. } => {
                FactKind::Order { amount: *amount, profile: self.profile(attributes, referred_by.as_deref()) }
            }
            Kind::Refund { amount, .. } => FactKind::Refund(*amount),
            Kind::Cancel { amount, .. } => FactKind::Cancel(*amount),
            Kind::Session { .. } => FactKind::Session,
            Kind::Customer { attributes, referred_by } => {
                FactKind::Customer { profile: self.profile(attributes, referred_by.as_deref()) }
            }
            Kind::Feedback { kind, score } => FactKind::Feedback {
                kind: intern(&mut self.feedback_kinds, kind),
                score: score.map(|score| score as f32),
            },
            Kind::Cost { kind, amount } => FactKind::Cost(*kind, *amount),
        }
    }

    fn profile(&mut self, attributes: &Attributes<'_>, referred_by: Option<&str>) -> u32 {
        if referred_by.is_none() && (0..MAX_DIMENSIONS).all(|dimension| attributes.get(dimension).is_none()) {
            return NO_PROFILE;
        }
        let attributes = std::array::from_fn(|dimension| attributes.get(dimension).map(Box::from));
        let (place, _) = self.profiles.insert_full(Profile { attributes, referred_by: referred_by.map(Box::from) });
        place_number(place)
    }

    /// Number of events that count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() - self.erasures
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies all events in the order of their times; events of the same time in file order, before erasures.
    /// `progress` is called with the number of applied rows from time to time. `spec` must have one topic.
    pub fn apply(self, spec: Arc<Spec>, progress: impl FnMut(u64)) -> Engine {
        self.apply_telling(spec, progress, |_| {})
    }

    /// Like [`History::apply`], and passes alerts to `tell` in the order of their times, except those of customers who
    /// are erased.
    pub fn apply_telling(mut self, spec: Arc<Spec>, progress: impl FnMut(u64), mut tell: impl FnMut(&Alert)) -> Engine {
        let mut engine = Engine::new(spec);
        self.apply_to(&mut engine, progress, Some(&mut tell));
        engine
    }

    /// Like [`History::apply_telling`], but only with the alerts decided by the instant `at`. Also returns the figures
    /// as of `at` that the final engine cannot compute.
    pub fn apply_as_of(
        mut self,
        spec: Arc<Spec>,
        at: Time,
        progress: impl FnMut(u64),
        mut tell: impl FnMut(&Alert),
    ) -> (Engine, AsOf) {
        let mut as_of = AsOf { at, rules: Vec::new(), order_values: self.order_values(&spec, at) };
        let mut engine = Engine::new(spec);
        self.apply_pausing(&mut engine, progress, Some(&mut tell), Some(&mut as_of));
        (engine, as_of)
    }

    /// Without `tell`, alerts stay in the engine.
    fn apply_to(&mut self, engine: &mut Engine, progress: impl FnMut(u64), tell: Option<&mut dyn FnMut(&Alert)>) {
        self.apply_pausing(engine, progress, tell, None);
    }

    fn apply_pausing(
        &mut self,
        engine: &mut Engine,
        mut progress: impl FnMut(u64),
        mut tell: Option<&mut dyn FnMut(&Alert)>,
        mut as_of: Option<&mut AsOf>,
    ) {
        self.seen = HashMap::default();
        // At equal times, an erasure follows the events.
        let key = |row: &Row| (row.time, matches!(row.what, FactKind::Erase));
        if !self.rows.is_sorted_by_key(key) {
            self.rows.sort_by_key(key);
        }
        if let Some(as_of) = &as_of {
            // Erasures after the instant are not known yet.
            let erased = self.rows.iter().filter(|row| matches!(row.what, FactKind::Erase) && row.time <= as_of.at);
            self.erased = erased.map(|row| (row.customer, row.time)).collect();
        }
        for (i, row) in self.rows.iter().enumerate() {
            if let Some(as_of) = as_of.take_if(|as_of| as_of.at < row.time) {
                as_of.take(self, engine, tell.take());
            }
            if let Some(event) = self.event(row) {
                // Duplicates are removed and rows sorted, so no event is a duplicate or too late here.
                engine.apply(usize::from(row.topic), &event);
            } else {
                // Release alerts first: an erasure also removes those of the customer that are pending.
                tell.iter_mut().for_each(|tell| self.release(engine, tell, Some(row.time)));
                engine.erase(usize::from(row.topic), self.id(row), Some(row.time));
            }
            if i % 4096 == 0 {
                progress(i as u64);
                let next = self.rows.get(i + 1).map(|next| next.time);
                tell.iter_mut().for_each(|tell| self.release(engine, tell, next));
            }
        }
        match as_of {
            Some(as_of) => as_of.take(self, engine, tell),
            None => tell.iter_mut().for_each(|tell| self.release(engine, tell, None)),
        }
        progress(self.rows.len() as u64);
    }

    /// Passes on pending alerts, except those of customers who are erased at `next`, the time of the next row, or
    /// later.
    fn release(&self, engine: &mut Engine, tell: &mut dyn FnMut(&Alert), next: Option<Time>) {
        for alert in engine.release(&Allowance::ALL) {
            let customer = self.customers.get_index_of(alert.customer.as_str()).map(place_number);
            let erased = customer.and_then(|customer| self.erased.get(&customer));
            if erased.is_none_or(|erased| next.is_none_or(|next| *erased < next)) {
                tell(&alert);
            }
        }
    }

    #[cfg(test)]
    fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.rows.iter().filter_map(|row| self.event(row))
    }

    fn id(&self, row: &Row) -> &str {
        self.customers.get_index(row.customer as usize).map_or("", |id| id)
    }

    /// The event of a row; `None` for an erasure.
    fn event(&self, row: &Row) -> Option<Event<'_>> {
        let text = |set: &'_ Texts, place: u32| set.get_index(place as usize).map_or("", |text| text).to_owned();
        let kind = match row.what {
            FactKind::Order { amount, profile } => {
                let (attributes, referred_by) = self.attributes(profile);
                Kind::Order { id: None, amount, attributes, referred_by }
            }
            FactKind::Refund(amount) => Kind::Refund { id: None, amount },
            FactKind::Cancel(amount) => Kind::Cancel { order: None, amount },
            FactKind::Session => Kind::Session { id: None },
            FactKind::Customer { profile } => {
                let (attributes, referred_by) = self.attributes(profile);
                Kind::Customer { attributes, referred_by }
            }
            FactKind::Feedback { kind, score } => {
                Kind::Feedback { kind: Cow::Owned(text(&self.feedback_kinds, kind)), score: score.map(f64::from) }
            }
            FactKind::Cost(kind, amount) => Kind::Cost { kind, amount },
            FactKind::Erase => return None,
        };
        Some(Event { customer: Cow::Borrowed(self.id(row)), time: row.time, kind })
    }

    fn attributes(&self, profile: u32) -> (Attributes<'_>, Option<Cow<'_, str>>) {
        let mut attributes = Attributes::default();
        let Some(profile) = self.profiles.get_index(profile as usize) else { return (attributes, None) };
        for (dimension, value) in profile.attributes.iter().enumerate() {
            if let Some(value) = value {
                attributes.set(dimension, Cow::Borrowed(value));
            }
        }
        (attributes, profile.referred_by.as_deref().map(Cow::Borrowed))
    }
}

fn intern(set: &mut Texts, text: &str) -> u32 {
    let place = set.get_index_of(text).unwrap_or_else(|| set.insert_full(text.into()).0);
    place_number(place)
}

/// Sets of more than 2^32 members do not fit into memory.
fn place_number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Format;
    use crate::engine::inactivity::InactivitySpec;
    use crate::engine::lifecycle::LifecycleSpec;
    use crate::engine::spec::{RollingSpec, WindowId};
    use crate::engine::zone::Zone;
    use crate::files::Layout;

    pub(super) fn spec() -> Arc<Spec> {
        Arc::new(Spec {
            rolling: vec![RollingSpec { name: "7d".into(), period: 7 * DAY, active_for: 90 * DAY, resolution: DAY }],
            calendar: vec![],
            zone: Zone::utc(),
            allowed_lateness: DAY,
            dedup_for: DAY,
            history: None,
            topics: vec![true],
            dimensions: Vec::new(),
            merge_orders: false,
            lifecycle: LifecycleSpec {
                active_for: 90 * DAY,
                at_risk_cadence: 2.0,
                at_risk_min: 7 * DAY,
                loyal_orders: 5,
            },
            rates: None,
            inactivity: InactivitySpec::default(),
        })
    }

    fn history(text: &'static str, layout: Layout) -> History {
        let mut history = History::new(7 * DAY);
        let file = EventFile { path: "test".into(), layout, reader: Box::new(text.as_bytes()) };
        history.read(file, &Decoder::new(Format::Native, vec![]), Time::MAX).unwrap();
        history
    }

    #[test]
    fn the_first_copy_in_file_order_counts_and_order_is_by_time() {
        let history = history(
            "order_id,customer_id,time,amount,currency\n\
             b,c-1,2026-03-05T00:00:00Z,2.00,EUR\n\
             a,c-1,2026-03-01T00:00:00Z,1.00,EUR\n\
             b,c-1,2026-03-05T10:00:00Z,9.00,EUR\n\
             ,c-1,2026-03-01T00:00:00Z,5.00,EUR\n\
             ,c-1,2026-03-01T00:00:00Z,5.00,EUR\n\
             bad,c-1,yesterday,5.00,EUR\n",
            Layout::Csv,
        );
        assert_eq!((history.len(), history.tally.duplicates, history.tally.lines), (4, 1, 7));
        assert_eq!(history.tally.examples[0].line, 7);
        assert_eq!(history.tally.rejected, BTreeMap::from([(Reason::InvalidTime, 1)]));
        let mut engine = history.apply(spec(), |_| {});
        let figures = engine.figures(WindowId::Rolling(0), Time::parse("2026-03-05T12:00:00Z").unwrap()).unwrap();
        assert_eq!((figures.parts.orders, figures.parts.new), (4, 1));
        assert_eq!(figures.money.values().next().unwrap().revenue, 1300);
    }

    #[test]
    fn an_erased_customers_later_orders_are_a_new_customers() {
        let history = history(
            "{\"type\":\"order\",\"customer_id\":\"c\",\"time\":\"1970-01-02T00:00:00Z\",\"amount\":1,\"currency\":\"EUR\"}\n\
             {\"type\":\"erase\",\"customer_id\":\"c\"}\n\n\
             {\"type\":\"order\",\"customer_id\":\"c\",\"time\":\"1970-01-02T00:00:01Z\",\"amount\":1,\"currency\":\"EUR\"}\n\
             {\"type\":\"session\",\"customer_id\":\"c\",\"time\":\"1970-01-01T00:00:01Z\"}\n\
             {\"type\":\"wish\"}\n",
            Layout::Ndjson,
        );
        assert_eq!((history.tally.unknown, history.tally.lines, history.len()), (1, 6, 3));
        let mut engine = history.apply(spec(), |_| {});
        assert_eq!(engine.tracked_customers(), 1);
        let figures = engine.figures(WindowId::Rolling(0), Time::clamped(DAY)).unwrap();
        assert_eq!((figures.parts.new, figures.parts.repeat), (2, 0));
        let customer = engine.customer("c").unwrap();
        assert_eq!((customer.orders, customer.sessions), (1, 0), "the session is the erased customer's");
    }

    #[test]
    fn a_cancelled_row_cancels_an_order_that_was_read() {
        let options = "cancelled = \"at\"\nfields = { time = \"t\" }\nwhere = { s = [\"paid\"] }";
        let decoder = Decoder::with_options(Format::Debezium, vec![], &toml::from_str(options).unwrap()).unwrap();
        let row = |id: &str, state: &str, at: &str| {
            format!(
                "{{\"id\":\"{id}\",\"customer_id\":\"c\",\"amount\":1,\"currency\":\"EUR\",\"t\":1767607200,\"s\":\"{state}\",\"at\":{at}}}\n"
            )
        };
        let text = [
            row("a", "paid", "null"),
            row("b", "open", "null"),
            row("b", "cancelled", "1767693600"),
            row("a", "cancelled", "1767693600"),
        ]
        .concat();
        let mut history = History::new(7 * DAY);
        let reader = Box::new(std::io::Cursor::new(text.into_bytes()));
        history.read(EventFile { path: "rows".into(), layout: Layout::Ndjson, reader }, &decoder, Time::MAX).unwrap();
        assert_eq!((history.len(), history.tally.skipped.clone()), (2, BTreeMap::from([(Skip::Filtered, 2)])));
        let kinds: Vec<_> = history.events().map(|event| event.kind.event_type()).collect();
        assert_eq!(kinds, [EventType::Order, EventType::Cancel]);
    }

    #[test]
    fn a_csv_without_the_needed_columns_names_the_file() {
        let mut history = History::new(7 * DAY);
        let file = EventFile { path: "orders.csv".into(), layout: Layout::Csv, reader: Box::new(&b"id,when\n"[..]) };
        let error = history.read(file, &Decoder::new(Format::Native, vec![]), Time::MAX).unwrap_err();
        assert!(error.to_string().starts_with("orders.csv, line 1: the header lacks the column customer_id"));
    }
}
