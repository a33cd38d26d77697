//! One partition of the source on its way through a router: what was read of it, what it means, and how far it has gone
//! on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Route;
use super::merge::Merge;
use crate::bus::RecordBatch;
use crate::coordinator::rejection_breaker::{RejectionBreaker, Tripped};
use crate::decode::{Decoded, Reason, Rejection, Skip, encode, encode_cancellation, encode_erase};
use crate::event::{Event, Time, wall_clock};
use crate::output::dead_letters::{OutboxRecord, RecordOrigin};
use crate::worker::{Rejected, message};

/// Where reading goes on: at a record, behind so many of its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordPosition {
    /// The offset of the record.
    pub offset: i64,
    /// How many of its events, or of what else it holds, have gone on already: events of other messages may go in
    /// between.
    pub events_done: usize,
}

/// What goes on: an event, or what else a message came to.
#[derive(Debug)]
pub struct Item {
    /// What is to be done.
    pub what: ItemKind,
    /// The record that it came of.
    pub offset: i64,
    /// Where reading goes on behind it.
    pub next: RecordPosition,
}

/// What an item is.
#[derive(Debug)]
pub enum ItemKind {
    /// A message for the topic that is keyed by customer.
    Event {
        /// The partition of the customer.
        partition: i32,
        /// How many of the bytes are the customer's id.
        key: usize,
        /// The id, and the event behind it.
        bytes: Box<[u8]>,
    },
    /// A message that cannot be used.
    DeadLetter(Box<OutboxRecord>, Reason),
    /// A message that is no event on purpose.
    Skipped(Skip),
    /// A message of a type that is not known, and that type.
    Unknown(Box<str>),
    /// A message that tells of nothing.
    Nothing,
}

impl ItemKind {
    fn bytes(&self) -> usize {
        match self {
            ItemKind::Event { bytes, .. } => bytes.len(),
            ItemKind::DeadLetter(dead_letter, _) => dead_letter.bytes(),
            ItemKind::Unknown(name) => name.len(),
            ItemKind::Skipped(_) | ItemKind::Nothing => 0,
        }
    }
}

/// Records that are too large to be produced as they are, by reader and offset, and how often each was refused.
pub type Oversized = BTreeMap<(usize, i64), u32>;

/// What a reader was fetched.
#[derive(Debug)]
pub enum Fetched<B> {
    /// Records.
    Records(B),
    /// The news that nothing lies before this offset but what was fetched.
    End(i64),
}

/// One partition of the source.
#[derive(Debug)]
pub struct PartitionReader<B> {
    number: usize,
    /// What is not decoded yet: its schema may be missing.
    fetched: VecDeque<Fetched<B>>,
    /// Where reading began.
    begin: RecordPosition,
    /// Where everything before has gone on.
    pub next: RecordPosition,
    /// The end that was told last, and for how long nothing came behind it.
    end: Option<(i64, Duration)>,
    /// Bytes of the items that wait in the merge.
    bytes: usize,
    /// Whether nothing more is fetched.
    pub is_paused: bool,
}

impl<B: RecordBatch> PartitionReader<B> {
    /// A reader that is read from a place on.
    pub fn new(number: usize, begin: RecordPosition) -> PartitionReader<B> {
        PartitionReader { number, fetched: VecDeque::new(), begin, next: begin, end: None, bytes: 0, is_paused: false }
    }

    /// Takes what was read.
    pub fn bring(&mut self, fetched: Fetched<B>) {
        self.fetched.push_back(fetched);
    }

    /// Whether records wait for a schema.
    pub fn is_stalled(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// Whether so much waits that no more should be fetched.
    pub fn is_above(&self, items: usize, waiting: usize, bytes: usize) -> bool {
        waiting > items || self.bytes > bytes || self.is_stalled()
    }

    /// Decodes what can be decoded, into the merge. Tells when the topic seems to be misread, with the offset of an
    /// example.
    pub fn read_on(
        &mut self,
        route: &Route,
        merge: &mut Merge<Item>,
        oversized: &Oversized,
        breaker: &mut RejectionBreaker,
        latest: Time,
    ) -> Result<(), (Tripped, i64)> {
        while let Some(fetched) = self.fetched.front() {
            match fetched {
                Fetched::Records(batch) if !is_ready(route, batch) => return Ok(()),
                _ => {}
            }
            match self.fetched.pop_front() {
                Some(Fetched::Records(batch)) => {
                    let rejected = self.decode(route, merge, oversized, &batch, latest);
                    if let Some(tripped) = breaker.note(0, batch.len(), &rejected) {
                        let offset = batch.get(tripped.example.0.min(batch.len() - 1)).offset;
                        return Err((tripped, offset));
                    }
                }
                Some(Fetched::End(offset)) => {
                    self.end = Some((offset, Duration::ZERO));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Holds the others up no longer once nothing came for `hold` behind the end: what producers send to several
    /// partitions at once does not arrive at once. `listened` is for how long it could have come since the last call.
    pub fn let_others_go(&mut self, merge: &mut Merge<Item>, listened: Duration, hold: Duration) {
        let is_stalled = self.is_stalled();
        if let Some((_, silent)) = self.end.as_mut().filter(|_| !is_stalled) {
            *silent += listened;
            if *silent >= hold {
                merge.ended(self.number);
            }
        }
    }

    /// Holds the others up again, from now on for as long as behind a fresh end.
    pub fn hold_again(&mut self, merge: &mut Merge<Item>) {
        if let Some((_, silent)) = &mut self.end {
            *silent = Duration::ZERO;
            merge.reopened(self.number);
        }
    }

    /// An item of this reader has left the merge.
    pub fn gone_on(&mut self, item: &Item) {
        self.bytes = self.bytes.saturating_sub(item.what.bytes());
        self.next = item.next;
    }

    /// Whether everything has gone on up to the end; what lies between the last record and the end are no records.
    pub fn is_done(&mut self, merge: &Merge<Item>) -> bool {
        let is_done = !self.is_stalled() && merge.is_done(self.number);
        if let Some((end, _)) = self.end.filter(|(end, _)| is_done && *end > self.next.offset) {
            self.next = RecordPosition { offset: end, events_done: 0 };
        }
        is_done
    }

    fn decode(
        &mut self,
        route: &Route,
        merge: &mut Merge<Item>,
        oversized: &Oversized,
        batch: &B,
        latest: Time,
    ) -> Vec<Rejected> {
        self.end = None;
        let mut rejected = Vec::new();
        let (mut bytes, mut items) = (Vec::new(), Vec::new());
        for index in 0..batch.len() {
            let record = batch.get(index);
            let offset = record.offset;
            let decoded = if route.decoder.wants_message() {
                route.decoder.decode_message(&message(batch, index), latest)
            } else {
                route.decoder.decode(record.key, record.payload, latest)
            };
            let refusals = oversized.get(&(self.number, offset)).copied().unwrap_or(0);
            let decoded = match decoded {
                Ok(_) if refusals > 0 => Err(too_large(route)),
                decoded => decoded,
            };
            let mut found = Found { route, batch, index, refusals, bytes: &mut bytes, items: &mut items };
            let refused = found.add(self.number, decoded);
            rejected.extend(refused);
            self.add_items(merge, offset, &mut items);
        }
        rejected
    }

    fn add(&mut self, merge: &mut Merge<Item>, time: Option<Time>, item: Item) {
        self.bytes += item.what.bytes();
        merge.add(self.number, time, item);
    }

    /// Each event goes on at its own time; what has gone on before the last start is passed over.
    fn add_items(&mut self, merge: &mut Merge<Item>, offset: i64, items: &mut Vec<(Option<Time>, ItemKind)>) {
        let count = items.len();
        let begin = if self.begin.offset == offset { self.begin.events_done.min(count) } else { 0 };
        let behind = RecordPosition { offset: offset + 1, events_done: 0 };
        if begin == count {
            self.add(merge, None, Item { what: ItemKind::Nothing, offset, next: behind });
        }
        for (events_done, (time, what)) in (1..).zip(items.drain(..)).skip(begin) {
            let next = if events_done == count { behind } else { RecordPosition { offset, events_done } };
            self.add(merge, time, Item { what, offset, next });
        }
    }
}

/// What is found in a record.
struct Found<'f, B> {
    route: &'f Route,
    batch: &'f B,
    index: usize,
    /// How often its dead letter was refused for its size.
    refusals: u32,
    /// Scratch.
    bytes: &'f mut Vec<u8>,
    /// What goes on, in this order.
    items: &'f mut Vec<(Option<Time>, ItemKind)>,
}

impl<B: RecordBatch> Found<'_, B> {
    /// Adds what a record of a reader means; what is rejected of it.
    fn add(&mut self, reader: usize, decoded: Result<Decoded<'_>, Rejection>) -> Vec<Rejected> {
        let parts = match decoded {
            Ok(Decoded::Batch(parts)) => parts,
            decoded => {
                let refused = self.add_object(decoded).map(|rejection| Rejected::whole(self.index, rejection));
                return refused.map(|rejected| self.add_dead_letter(reader, rejected)).into_iter().collect();
            }
        };
        let mut refused = Vec::new();
        for mut part in parts {
            let decoded = std::mem::replace(&mut part.decoded, Ok(Decoded::Batch(Vec::new())));
            if let Some(rejection) = self.add_object(decoded) {
                refused.push(self.add_dead_letter(reader, Rejected::part(self.index, &part, &rejection)));
            }
        }
        refused
    }

    /// Adds what one object means, unless it is rejected.
    fn add_object(&mut self, decoded: Result<Decoded<'_>, Rejection>) -> Option<Rejection> {
        let item = match decoded {
            Ok(Decoded::Event(event)) => (Some(event.time), self.route.event(&event, Time::MIN, self.bytes)),
            Ok(Decoded::Cancellation { event, placed }) => {
                (Some(event.time), self.route.cancellation(&event, placed, self.bytes))
            }
            Ok(Decoded::Several { events, told_before }) => {
                for event in &events {
                    let what = self.route.event(event, told_before, self.bytes);
                    self.items.push((Some(event.time), what));
                }
                return None;
            }
            Ok(Decoded::Erase { customer, time }) => {
                // Here the record's time is known; the copy has another one.
                let recorded = || Time::from_millis(self.batch.stamp(self.index).time?).ok();
                (None, self.route.erase(&customer, time.or_else(recorded)))
            }
            Ok(Decoded::Unknown(unknown)) => (None, ItemKind::Unknown(unknown.to_string().into())),
            Ok(Decoded::Skipped(skip)) => (None, ItemKind::Skipped(skip)),
            Ok(Decoded::Batch(_)) => return None,
            Err(rejection) => return Some(rejection),
        };
        self.items.push(item);
        None
    }

    fn add_dead_letter(&mut self, reader: usize, rejected: Rejected) -> Rejected {
        let partition = i32::try_from(reader).unwrap_or(i32::MAX);
        let origin = RecordOrigin { group: &self.route.owner, topic: &self.route.topic, partition };
        let mut dead_letter = OutboxRecord::new(&origin, self.batch, &rejected, wall_clock().millis());
        for _ in 0..self.refusals {
            dead_letter.shrink();
        }
        self.items.push((None, ItemKind::DeadLetter(Box::new(dead_letter), rejected.rejection.reason)));
        rejected
    }
}

fn too_large(route: &Route) -> Rejection {
    let topic = &route.into;
    Rejection::new(
        Reason::InvalidValue,
        format!("the message, or an event of it, is refused for its size; raise max.message.bytes of topic {topic:?}"),
    )
}

/// Whether every record of a batch can be decoded now; if not, what is lacking is on its way.
fn is_ready<B: RecordBatch>(route: &Route, batch: &B) -> bool {
    let decoder = &route.decoder;
    !decoder.wants_schemas() || (0..batch.len()).all(|index| decoder.is_ready_for(&message(batch, index)))
}

impl Route {
    /// An event on its way to the partition of its customer; `bytes` is scratch.
    fn event(&self, event: &Event<'_>, told_before: Time, bytes: &mut Vec<u8>) -> ItemKind {
        bytes.clear();
        bytes.extend_from_slice(event.customer.as_bytes());
        encode(event, told_before, self.decoder.dimensions(), bytes);
        self.message(event.customer.len(), bytes)
    }

    fn cancellation(&self, event: &Event<'_>, placed: Time, bytes: &mut Vec<u8>) -> ItemKind {
        bytes.clear();
        bytes.extend_from_slice(event.customer.as_bytes());
        encode_cancellation(event, placed, self.decoder.dimensions(), bytes);
        self.message(event.customer.len(), bytes)
    }

    fn erase(&self, customer: &str, time: Option<Time>) -> ItemKind {
        let mut bytes = customer.as_bytes().to_vec();
        encode_erase(customer, time, &mut bytes);
        self.message(customer.len(), &bytes)
    }

    fn message(&self, key: usize, bytes: &[u8]) -> ItemKind {
        let partition = self.partitioner.partition(&bytes[..key], self.partitions);
        ItemKind::Event { partition: i32::try_from(partition).unwrap_or(i32::MAX), key, bytes: bytes.into() }
    }
}
