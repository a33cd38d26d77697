//! One source partition in a router: what was fetched, how it decodes, and up to where it is routed.

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

/// A position in a partition: a record, and how many of its events are done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordPosition {
    /// The offset of the record.
    pub offset: i64,
    /// How many items of the record are already routed. Events of other records may be routed in between.
    pub events_done: usize,
}

/// A work item: an event to route, or another outcome of decoding a message.
#[derive(Debug)]
pub struct Item {
    /// What to do.
    pub kind: ItemKind,
    /// The offset of its record.
    pub offset: i64,
    /// The position after it.
    pub next: RecordPosition,
}

/// The kind of an item.
#[derive(Debug)]
pub enum ItemKind {
    /// A message for the target topic.
    Event {
        /// The customer's partition.
        partition: i32,
        /// How many leading bytes are the customer id.
        key: usize,
        /// The customer id, followed by the event.
        bytes: Box<[u8]>,
    },
    /// A rejected message.
    DeadLetter(Box<OutboxRecord>, Reason),
    /// A message that is deliberately not an event.
    Skipped(Skip),
    /// A message of an unknown type, and the type.
    Unknown(Box<str>),
    /// A message without an event.
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

/// Records that were too large to produce, by reader and offset, with the number of refusals.
pub type Oversized = BTreeMap<(usize, i64), u32>;

/// An input of a reader.
#[derive(Debug)]
pub enum Fetched<B> {
    /// Records.
    Records(B),
    /// Everything before this offset has been fetched.
    End(i64),
}

/// One partition of the source.
#[derive(Debug)]
pub struct PartitionReader<B> {
    number: usize,
    /// Input that is not decoded yet; its schema may be missing.
    fetched: VecDeque<Fetched<B>>,
    /// The position at which reading began.
    begin: RecordPosition,
    /// The position before which everything is routed.
    pub next: RecordPosition,
    /// The last reported end, and for how long nothing has followed it.
    end: Option<(i64, Duration)>,
    /// Bytes of items waiting in the merge.
    bytes: usize,
    /// Whether fetching is paused.
    pub is_paused: bool,
}

impl<B: RecordBatch> PartitionReader<B> {
    /// A reader that starts at `begin`.
    pub fn new(number: usize, begin: RecordPosition) -> PartitionReader<B> {
        PartitionReader { number, fetched: VecDeque::new(), begin, next: begin, end: None, bytes: 0, is_paused: false }
    }

    /// Adds fetched input.
    pub fn push(&mut self, fetched: Fetched<B>) {
        self.fetched.push_back(fetched);
    }

    /// Whether records wait for a schema.
    pub fn is_stalled(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// Whether so much is waiting that fetching should pause.
    pub fn is_above(&self, items: usize, waiting: usize, bytes: usize) -> bool {
        waiting > items || self.bytes > bytes || self.is_stalled()
    }

    /// Decodes fetched records into the merge, as far as their schemas are known.
    ///
    /// # Errors
    /// When the topic seems to be read in the wrong format; with the offset of an example.
    pub fn decode_fetched(
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

    /// Stops blocking the other readers once nothing has followed the end for `hold`. The delay is needed because
    /// records sent to several partitions at once do not arrive at once. `listened` is how long records could have
    /// arrived since the last call.
    pub fn unblock_after(&mut self, merge: &mut Merge<Item>, listened: Duration, hold: Duration) {
        let is_stalled = self.is_stalled();
        if let Some((_, silent)) = self.end.as_mut().filter(|_| !is_stalled) {
            *silent += listened;
            if *silent >= hold {
                merge.ended(self.number);
            }
        }
    }

    /// Blocks the other readers again, as if the end had just been reached.
    pub fn block_again(&mut self, merge: &mut Merge<Item>) {
        if let Some((_, silent)) = &mut self.end {
            *silent = Duration::ZERO;
            merge.reopened(self.number);
        }
    }

    /// Notes that an item of this reader has left the merge.
    pub fn routed(&mut self, item: &Item) {
        self.bytes = self.bytes.saturating_sub(item.kind.bytes());
        self.next = item.next;
    }

    /// Whether everything up to the end is routed. If so, moves the position to the end: between the last record and
    /// the end there are only transaction markers.
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
        self.bytes += item.kind.bytes();
        merge.add(self.number, time, item);
    }

    /// Adds the items of a record to the merge, each with its own time, except those routed before the last start.
    fn add_items(&mut self, merge: &mut Merge<Item>, offset: i64, items: &mut Vec<(Option<Time>, ItemKind)>) {
        let count = items.len();
        let begin = if self.begin.offset == offset { self.begin.events_done.min(count) } else { 0 };
        let after = RecordPosition { offset: offset + 1, events_done: 0 };
        if begin == count {
            self.add(merge, None, Item { kind: ItemKind::Nothing, offset, next: after });
        }
        for (events_done, (time, kind)) in (1..).zip(items.drain(..)).skip(begin) {
            let next = if events_done == count { after } else { RecordPosition { offset, events_done } };
            self.add(merge, time, Item { kind, offset, next });
        }
    }
}

/// Collects the items of one record.
struct Found<'f, B> {
    route: &'f Route,
    batch: &'f B,
    index: usize,
    /// How often its dead letter was refused because of its size.
    refusals: u32,
    /// Scratch buffer.
    bytes: &'f mut Vec<u8>,
    /// The items, in order.
    items: &'f mut Vec<(Option<Time>, ItemKind)>,
}

impl<B: RecordBatch> Found<'_, B> {
    /// Adds the items of a decoded record; returns its rejections.
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

    /// Adds the items of one object; returns its rejection, if any.
    fn add_object(&mut self, decoded: Result<Decoded<'_>, Rejection>) -> Option<Rejection> {
        let item = match decoded {
            Ok(Decoded::Event(event)) => (Some(event.time), self.route.event(&event, Time::MIN, self.bytes)),
            Ok(Decoded::Cancellation { event, placed }) => {
                (Some(event.time), self.route.cancellation(&event, placed, self.bytes))
            }
            Ok(Decoded::Several { events, told_before }) => {
                for event in &events {
                    let kind = self.route.event(event, told_before, self.bytes);
                    self.items.push((Some(event.time), kind));
                }
                return None;
            }
            Ok(Decoded::Erase { customer, time }) => {
                // Resolve the record's timestamp here: the copy will have another one.
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
        format!("the message or one of its events is too large; raise max.message.bytes of topic {topic:?}"),
    )
}

/// Whether all records of a batch can be decoded now; if not, their schemas are being fetched.
fn is_ready<B: RecordBatch>(route: &Route, batch: &B) -> bool {
    let decoder = &route.decoder;
    !decoder.wants_schemas() || (0..batch.len()).all(|index| decoder.is_ready_for(&message(batch, index)))
}

impl Route {
    /// An item that routes an event to its customer's partition; `bytes` is a scratch buffer.
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
