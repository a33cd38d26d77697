//! History from files: every event once, in the order of its time, through the same engine.
//!
//! Files are read in the order in which they are given. Of several copies the first in file order counts, and an erased
//! customer's later events belong to a new one; only then are the events sorted by time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::decode::{CsvColumns, CsvHeaderError, Decoded, Decoder, Reason, Rejection, Skip};
use crate::engine::Engine;
use crate::engine::customers::Key;
use crate::engine::dedup::fingerprint;
use crate::engine::spec::Spec;
use crate::event::{Attributes, CostKind, Event, Kind, MAX_DIMENSIONS, Money, Time};
use crate::source::files::{EventFile, Layout, next_line};

/// How many rejections are kept with their explanation.
const SHOWN_REJECTIONS: usize = 10;

/// A file that cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {cause}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    line: u64,
    cause: HistoryFault,
}

#[derive(Debug, thiserror::Error)]
enum HistoryFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Csv(#[from] csv::Error),
    #[error("{0}")]
    Header(#[from] CsvHeaderError),
}

/// A line that enters no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedLine {
    /// In which file.
    pub path: PathBuf,
    /// Which line, counted from 1.
    pub line: u64,
    /// Why.
    pub rejection: Rejection,
}

/// One event in the fewest bytes: a history of tens of millions of them is sorted in memory.
#[derive(Debug)]
struct Row {
    time: Time,
    /// Place in [`History::customers`].
    customer: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Order { amount: Money, profile: u32 },
    Refund(Money),
    Cancel(Money),
    Session,
    Customer { profile: u32 },
    Feedback { kind: u32, score: Option<f32> },
    Cost(CostKind, Money),
}

/// Attributes and referrer of an order or a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Profile {
    attributes: [Option<Box<str>>; MAX_DIMENSIONS],
    referred_by: Option<Box<str>>,
}

type Hasher = foldhash::fast::FixedState;
/// Texts by number.
type Texts = indexmap::IndexSet<Box<str>, Hasher>;

/// The number of the profile that says nothing, which is most orders'.
const NO_PROFILE: u32 = u32::MAX;

/// All events of some files.
#[derive(Debug, Default)]
pub struct History {
    rows: Vec<Row>,
    customers: Texts,
    profiles: indexmap::IndexSet<Profile, Hasher>,
    feedback_kinds: Texts,
    /// How often each customer was erased so far.
    erased: HashMap<Box<str>, u32, Hasher>,
    seen: HashSet<u64, Hasher>,
    /// Lines read.
    pub lines: u64,
    /// Second copies.
    pub duplicates: u64,
    /// Events of types that this version does not know.
    pub unknown: u64,
    /// Messages skipped on purpose, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// Rejected lines by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// The first few rejected lines.
    pub examples: Vec<RejectedLine>,
}

impl History {
    /// Reads a file to its end. Events after `latest` are refused.
    ///
    /// # Errors
    /// When the file cannot be read, or when a CSV header lacks a column. A line that is no event is no error: it is
    /// counted in [`History::rejected`].
    pub fn read(&mut self, file: EventFile, decoder: &Decoder, latest: Time) -> Result<(), HistoryError> {
        let EventFile { path, layout, reader } = file;
        let mut line = 0;
        let read = match layout {
            Layout::Ndjson => self.read_ndjson(&path, &mut line, reader, decoder, latest),
            Layout::Csv => self.read_csv(&path, &mut line, reader, decoder, latest),
        };
        self.lines += line;
        read.map_err(|cause| HistoryError { path, line, cause })
    }

    fn read_ndjson(
        &mut self,
        path: &Path,
        line: &mut u64,
        mut reader: Box<dyn io::BufRead + Send>,
        decoder: &Decoder,
        latest: Time,
    ) -> Result<(), HistoryFault> {
        let mut bytes = Vec::new();
        while next_line(reader.as_mut(), &mut bytes)? {
            *line += 1;
            if !bytes.trim_ascii().is_empty() {
                let decoded = decoder.decode(None, Some(&bytes), latest);
                self.add(path, *line, decoded);
            }
        }
        Ok(())
    }

    fn read_csv(
        &mut self,
        path: &Path,
        line: &mut u64,
        reader: Box<dyn io::BufRead + Send>,
        decoder: &Decoder,
        latest: Time,
    ) -> Result<(), HistoryFault> {
        let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
        *line = 1;
        let columns = CsvColumns::from_header(table.headers()?, decoder.dimensions())?;
        let mut row = csv::ByteRecord::new();
        while table.read_byte_record(&mut row)? {
            *line = row.position().map_or(*line + 1, csv::Position::line);
            let decoded = columns.decode(&row, latest);
            self.add(path, *line, decoded);
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, line: u64, decoded: Result<Decoded<'_>, Rejection>) {
        match decoded {
            Ok(Decoded::Event(event)) => self.add_event(&event),
            Ok(Decoded::Erase(customer)) => *self.erased.entry(customer.into()).or_default() += 1,
            Ok(Decoded::Several { events, .. }) => events.iter().for_each(|event| self.add_event(event)),
            Ok(Decoded::Unknown) => self.unknown += 1,
            Ok(Decoded::Skipped(skip)) => *self.skipped.entry(skip).or_default() += 1,
            Err(rejection) => {
                *self.rejected.entry(rejection.reason).or_default() += 1;
                if self.examples.len() < SHOWN_REJECTIONS {
                    self.examples.push(RejectedLine { path: path.to_owned(), line, rejection });
                }
            }
        }
    }

    fn add_event(&mut self, event: &Event<'_>) {
        if let Some(id) = event.kind.id() {
            let identity = fingerprint(Key::new(&event.customer).hash(), event.kind.event_type(), id);
            if !self.seen.insert(identity) {
                self.duplicates += 1;
                return;
            }
        }
        let identity = identity(&event.customer, self.erased.get(event.customer.as_ref()).copied().unwrap_or(0));
        let row =
            Row { time: event.time, customer: intern(&mut self.customers, &identity), what: self.what(&event.kind) };
        self.rows.push(row);
    }

    fn what(&mut self, kind: &Kind<'_>) -> What {
        match kind {
            Kind::Order { amount, attributes, referred_by, .. } => {
                What::Order { amount: *amount, profile: self.profile(attributes, referred_by.as_deref()) }
            }
            Kind::Refund { amount, .. } => What::Refund(*amount),
            Kind::Cancel { amount, .. } => What::Cancel(*amount),
            Kind::Session { .. } => What::Session,
            Kind::Customer { attributes, referred_by } => {
                What::Customer { profile: self.profile(attributes, referred_by.as_deref()) }
            }
            Kind::Feedback { kind, score } => {
                What::Feedback { kind: intern(&mut self.feedback_kinds, kind), score: score.map(|score| score as f32) }
            }
            Kind::Cost { kind, amount } => What::Cost(*kind, *amount),
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

    /// How many events count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Applies all events in the order of their time, events of the same time in file order. `progress` is told every
    /// so often how many are applied. `spec` must have one topic.
    pub fn apply(mut self, spec: Arc<Spec>, mut progress: impl FnMut(u64)) -> Engine {
        if !self.rows.is_sorted_by_key(|row| row.time) {
            self.rows.sort_by_key(|row| row.time);
        }
        let mut engine = Engine::new(spec);
        for (i, row) in self.rows.iter().enumerate() {
            // Copies are out already and order is given, so neither ids nor lateness can refuse an event here.
            engine.apply(0, &self.event(row));
            if i % 4096 == 0 {
                progress(i as u64);
            }
        }
        for (customer, &times) in &self.erased {
            for before in 0..times {
                engine.erase(&identity(customer, before));
            }
        }
        engine
    }

    fn event(&self, row: &Row) -> Event<'_> {
        let text = |set: &'_ Texts, place: u32| set.get_index(place as usize).map_or("", |text| text).to_owned();
        let kind = match row.what {
            What::Order { amount, profile } => {
                let (attributes, referred_by) = self.attributes(profile);
                Kind::Order { id: None, amount, attributes, referred_by }
            }
            What::Refund(amount) => Kind::Refund { id: None, amount },
            What::Cancel(amount) => Kind::Cancel { order: None, amount },
            What::Session => Kind::Session { id: None },
            What::Customer { profile } => {
                let (attributes, referred_by) = self.attributes(profile);
                Kind::Customer { attributes, referred_by }
            }
            What::Feedback { kind, score } => {
                Kind::Feedback { kind: Cow::Owned(text(&self.feedback_kinds, kind)), score: score.map(f64::from) }
            }
            What::Cost(kind, amount) => Kind::Cost { kind, amount },
        };
        let customer = self.customers.get_index(row.customer as usize).map_or("", |id| id);
        Event { customer: Cow::Borrowed(customer), time: row.time, kind }
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

/// A customer id after that many erasures of it; the byte 0 keeps it apart from every id in the files.
fn identity(customer: &str, erased: u32) -> Cow<'_, str> {
    match erased {
        0 => Cow::Borrowed(customer),
        times => Cow::Owned(format!("{customer}\0{times}")),
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
    use crate::engine::lifecycle::LifecycleSpec;
    use crate::engine::spec::{RollingSpec, WindowId};
    use crate::engine::zone::Zone;
    use crate::event::DAY;

    fn spec() -> Arc<Spec> {
        Arc::new(Spec {
            rolling: vec![RollingSpec { name: "7d".into(), period: 7 * DAY, active_for: 90 * DAY, resolution: DAY }],
            calendar: vec![],
            zone: Zone::utc(),
            allowed_lateness: DAY,
            dedup_for: DAY,
            history: None,
            topics: vec![true],
            dimensions: Vec::new(),
            lifecycle: LifecycleSpec {
                active_for: 90 * DAY,
                at_risk_cadence: 2.0,
                at_risk_min: 7 * DAY,
                loyal_orders: 5,
            },
            rates: None,
        })
    }

    fn history(text: &'static str, layout: Layout) -> History {
        let mut history = History::default();
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
             b,c-1,2025-01-01T00:00:00Z,9.00,EUR\n\
             ,c-1,2026-03-01T00:00:00Z,5.00,EUR\n\
             ,c-1,2026-03-01T00:00:00Z,5.00,EUR\n\
             bad,c-1,yesterday,5.00,EUR\n",
            Layout::Csv,
        );
        assert_eq!((history.len(), history.duplicates, history.lines), (4, 1, 7));
        assert_eq!(history.examples[0].line, 7);
        assert_eq!(history.rejected, BTreeMap::from([(Reason::InvalidTime, 1)]));
        let mut engine = history.apply(spec(), |_| {});
        let figures = engine.figures(WindowId::Rolling(0), Time::parse("2026-03-05T12:00:00Z").unwrap()).unwrap();
        assert_eq!((figures.parts.orders, figures.parts.new), (4, 1));
        assert_eq!(figures.money.values().next().unwrap().revenue, 1300);
    }

    #[test]
    fn an_erased_customers_later_orders_are_a_new_customers() {
        let history = history(
            "{\"type\":\"order\",\"customer_id\":\"c\",\"time\":86400000,\"amount\":1,\"currency\":\"EUR\"}\n\
             {\"type\":\"erase\",\"customer_id\":\"c\"}\n\n\
             {\"type\":\"order\",\"customer_id\":\"c\",\"time\":1000,\"amount\":1,\"currency\":\"EUR\"}\n\
             {\"type\":\"wish\"}\n",
            Layout::Ndjson,
        );
        assert_eq!((history.unknown, history.lines), (1, 5));
        let mut engine = history.apply(spec(), |_| {});
        assert_eq!(engine.tracked_customers(), 1);
        let figures = engine.figures(WindowId::Rolling(0), Time::clamped(DAY)).unwrap();
        assert_eq!((figures.parts.new, figures.parts.repeat), (2, 0));
    }

    #[test]
    fn a_csv_without_the_needed_columns_names_the_file() {
        let mut history = History::default();
        let file = EventFile { path: "orders.csv".into(), layout: Layout::Csv, reader: Box::new(&b"id,when\n"[..]) };
        let error = history.read(file, &Decoder::new(Format::Native, vec![]), Time::MAX).unwrap_err();
        assert!(error.to_string().starts_with("orders.csv, line 1: the header row lacks the column customer_id"));
    }
}
